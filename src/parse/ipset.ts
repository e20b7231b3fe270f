import {parseRange} from '../util/ip.js'
import {PROMPT} from './pasted.js'
import type {Problem} from './problem.js'

/** One member of a set, its element split at the commas of its type: `10.0.0.1,tcp:80` → two parts. */
export interface IpsetEntry {
  readonly line: number
  readonly text: string
  readonly parts: readonly string[]
  readonly nomatch: boolean
  /** Words behind the element are no options of a member. */
  readonly strange: boolean
}

export interface Ipset {
  readonly name: string
  /** `hash:ip,port`, `bitmap:port`, `list:set`, … */
  readonly type: string
  readonly family: 'inet' | 'inet6'
  /** Header words with a value: `maxelem` → `65536`, `range` → `0-65535`, `netmask`, `timeout` … */
  readonly options: ReadonlyMap<string, string>
  readonly file: string
  readonly line: number
  readonly entries: IpsetEntry[]
  /** How many members the header promises (`ipset list`). */
  promised?: number
}

export interface IpsetDump {
  readonly file: string
  readonly sets: Map<string, Ipset>
  /** Names that stand more than once: what they hold is not known. */
  readonly twice: Set<string>
  readonly problems: Problem[]
}

const FLAGS = new Set(['counters', 'comment', 'skbinfo', 'forceadd', 'nomatch'])

/** Parses `ipset save`. Source: ipset(8). */
export function parseIpsetSave(text: string, file: string): IpsetDump {
  const dump: IpsetDump = {file, sets: new Map(), twice: new Set(), problems: []}
  text.split('\n').forEach((raw, at) => {
    const line = raw.trim()
    if (line === '' || line.startsWith('#') || PROMPT.test(line)) return
    const words = line.split(/\s+/)
    if (words[0] === 'create' && dump.sets.has(words[1]!)) standsTwice(dump, words[1]!, {line: at + 1, text: line})
    if (words[0] === 'create' && words.length >= 3)
      addSet(dump, {name: words[1]!, type: words[2]!, header: words.slice(3), line: at + 1})
    else if (words[0] === 'add' && words.length >= 3)
      addEntry(dump, words[1]!, {
        rest: line.slice(line.indexOf(words[1]!, 4) + words[1]!.length + 1),
        line: at + 1,
        text: line,
      })
    else dump.problems.push({file, line: at + 1, message: 'not a line of ipset save', text: line})
  })
  return dump
}

/** One kernel has each set once: the dumps of two hosts, or of two moments, are in one file. */
function standsTwice(dump: IpsetDump, name: string, {line, text}: {line: number; text: string}): void {
  const message = `set ${name} stands twice: two hosts or two moments in one file?`
  dump.twice.add(name)
  dump.problems.push({file: dump.file, line, message, text})
}

function addSet(dump: IpsetDump, set: {name: string; type: string; header: readonly string[]; line: number}): Ipset {
  const options = headerOptions(set.header)
  const parsed: Ipset = {
    name: set.name,
    type: set.type,
    family: options.get('family') === 'inet6' ? 'inet6' : 'inet',
    options,
    file: dump.file,
    line: set.line,
    entries: [],
  }
  dump.sets.set(set.name, parsed)
  return parsed
}

function headerOptions(words: readonly string[]): Map<string, string> {
  const options = new Map<string, string>()
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    if (FLAGS.has(word)) options.set(word, '')
    else options.set(word, words[++at] ?? '')
  }
  return options
}

function addEntry(dump: IpsetDump, name: string, entry: {rest: string; line: number; text: string}): void {
  const set = dump.sets.get(name)
  if (!set) {
    dump.problems.push({
      file: dump.file,
      line: entry.line,
      message: `member of set ${name}, which the dump does not create`,
      text: entry.text,
    })
    return
  }
  keepEntry(dump, set, parseEntry(entry.rest, entry.line, entry.text))
}

/** A member that is not of the set's type: it may be cut, redacted, or no member at all. */
function keepEntry(dump: IpsetDump, set: Ipset, entry: IpsetEntry): void {
  if (fitsType(set, entry.parts) && !entry.strange) set.entries.push(entry)
  else
    dump.problems.push({
      file: dump.file,
      line: entry.line,
      message: `not a member of a ${set.type} set`,
      text: entry.text,
    })
}

const PORT = /^(?:(?:tcp|udp|sctp|udplite|icmp|icmpv6|ipv6-icmp|vrrp|\d{1,3}):)?(\d{1,5})(?:-(\d{1,5}))?$/i
const OTHER_PROTOCOL = /^(icmp|icmpv6|ipv6-icmp):[\w-]+(\/\d+)?$/i

/** Does every part have the form of its dimension? (ipset(8), "SET TYPES") */
function fitsType({type, family}: Ipset, parts: readonly string[]): boolean {
  const dimensions = type.slice(type.indexOf(':') + 1).split(',')
  return (
    parts.length === dimensions.length &&
    dimensions.every((dimension, at) => fitsDimension(dimension, parts[at]!, {type, family}))
  )
}

function fitsDimension(dimension: string, part: string, {type, family}: Pick<Ipset, 'type' | 'family'>): boolean {
  switch (dimension) {
    case 'ip':
    case 'net': {
      const range = parseRange(part)
      return range !== undefined && (typeof range.lo === 'bigint') === (family === 'inet6')
    }
    case 'port': {
      const found = PORT.exec(part)
      const whole = type.startsWith('bitmap:') || part.includes(':')
      return (
        (found !== null && whole && Number(found[1]) <= 65535 && Number(found[2] ?? 0) <= 65535) ||
        OTHER_PROTOCOL.test(part)
      )
    }
    case 'mac':
      return /^([\da-f]{2}:){5}[\da-f]{2}$/i.test(part)
    case 'mark':
      return /^(0x[\da-f]+|\d+)$/i.test(part)
    default:
      return part !== '' && !/\s/.test(part)
  }
}

function parseEntry(rest: string, line: number, text: string): IpsetEntry {
  const comment = rest.indexOf(' comment "')
  const words = (comment < 0 ? rest : rest.slice(0, comment)).trim().split(/\s+/)
  const strange = words
    .slice(1)
    .some(
      (word) =>
        !/^(\d+|0x[\da-f/x]+|[\d:]+|timeout|packets|bytes|comment|nomatch|skbmark|skbprio|skbqueue|before|after)$/i.test(
          word,
        ),
    )
  return {line, text, parts: words[0]!.split(','), nomatch: words.includes('nomatch'), strange}
}

/** Parses `ipset list` (and `list -o plain`), also where header lines are missing. */
export function parseIpsetList(text: string, file: string): IpsetDump {
  const dump: IpsetDump = {file, sets: new Map(), twice: new Set(), problems: []}
  let name: string | undefined
  let line0 = 0
  let type = ''
  let set: Ipset | undefined
  const shown = new Set<string>()
  text.split('\n').forEach((raw, at) => {
    const line = raw.trim()
    if (PROMPT.test(line)) name = set = undefined
    if (line === '' || PROMPT.test(line)) return
    const field = /^(Name|Type|Revision|Header|Size in memory|References|Number of entries|Members): ?(.*)$/.exec(line)
    if (field?.[1] === 'Name') {
      name = field[2]!
      if (dump.sets.has(name)) standsTwice(dump, name, {line: at + 1, text: line})
      type = ''
      line0 = at + 1
      set = undefined
    } else if (name === undefined)
      dump.problems.push({file, line: at + 1, message: 'not a line of ipset list', text: line})
    else if (field?.[1] === 'Type') {
      type = field[2]!
      set = addSet(dump, {name, type, header: [], line: line0})
    } else if (field?.[1] === 'Header' && set) {
      set = addSet(dump, {name, type, header: field[2]!.split(/\s+/), line: line0})
    } else if (field?.[1] === 'Members') shown.add(name)
    else if (field?.[1] === 'Number of entries' && set) set.promised = Number(field[2])
    else if (field) return
    else if (set) keepEntry(dump, set, parseEntry(line, at + 1, line))
    else
      dump.problems.push({file, line: at + 1, message: `a member of set ${name}, whose type is not shown`, text: line})
  })
  for (const {name: set, promised, entries, line} of dump.sets.values()) {
    if (!shown.has(set) && promised !== 0)
      dump.problems.push({file, line, message: `the members of set ${set} are not listed`})
    else if (promised !== undefined && promised !== entries.length) {
      dump.problems.push({
        file,
        line,
        message: `set ${set} says ${promised} entries, ${entries.length} are listed: the dump was cut`,
      })
    }
  }
  return dump
}
