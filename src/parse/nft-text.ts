import {table as lookup} from '../util/table.js'
import {LEFT_OUT as WORDS_LEFT_OUT, NftRuleReader} from './nft-rule.js'
import {hasNotes, isPrompt, withoutNote} from './pasted.js'
import {
  elementOf,
  PRIORITY_NAMES,
  tableOf,
  type NftChain,
  type NftJson,
  type NftObject,
  type NftRule,
  type NftRuleset,
  type NftSet,
  type NftTable,
} from './nft.js'

interface Line {
  readonly number: number
  readonly text: string
}

/** Parses `nft list ruleset` text (`-a` handles included) into the shapes of the JSON form. */
export function parseNftText(text: string, file: string): NftRuleset {
  const ruleset: NftRuleset = {file, tables: new Map(), problems: [], cut: false}
  const noted = hasNotes(text)
  const lines = text.split('\n').map((raw, at): Line => ({
    number: at + 1,
    text: (noted ? withoutNote(raw) : raw).trim(),
  }))
  new TextReader(ruleset, lines).read()
  if (ruleset.tables.size === 0 && ruleset.problems.length === 0 && lines.some(({text: words}) => isHidden(words)))
    ruleset.problems.push({file, line: 1, message: 'nothing but remarks: the rules are behind # signs'})
  return ruleset
}

/** Gives the rules of a JSON dump the lines and words of the text dump, and what only the text tells (dormant tables). */
export function locateNftRules(ruleset: NftRuleset, text: string, file: string): void {
  const located = parseNftText(text, file)
  for (const [key, table] of ruleset.tables) {
    const other = located.tables.get(key)
    if (!other) continue
    for (const flag of other.flags) if (!table.flags.includes(flag)) table.flags.push(flag)
    for (const [name, chain] of table.chains) locateChain(chain, other.chains.get(name))
    for (const [name, set] of table.sets) locateSet(set, other.sets.get(name))
  }
  ruleset.file = file
}

/** The JSON of nft before 1.1 leaves out `dynamic`, and that of 0.9 limits. */
function locateSet(set: NftSet, other: NftSet | undefined): void {
  set.line = other?.line ?? 0
  if (!other) return
  if (other.lines) set.lines = other.lines
  if (other.limited) set.limited = true
  for (const flag of other.flags) if (!set.flags.includes(flag)) set.flags.push(flag)
}

function locateChain(chain: NftChain, other: NftChain | undefined): void {
  if (!other || other.rules.length !== chain.rules.length) return
  chain.line = other.line
  if (other.hookLine !== undefined) chain.hookLine = other.hookLine
  chain.rules.forEach((rule, at) => {
    const {file, line, text} = other.rules[at]!
    Object.assign(rule, {file, line, text})
  })
}

class TextReader {
  private at = 0
  private readonly ruleset: NftRuleset
  private readonly lines: readonly Line[]

  constructor(ruleset: NftRuleset, lines: readonly Line[]) {
    this.ruleset = ruleset
    this.lines = lines
  }

  read(): void {
    while (this.at < this.lines.length) {
      const line = this.lines[this.at++]!
      const head = /^table (?:(ip|ip6|inet|arp|bridge|netdev) )?(\S+) \{(?: # handle (\d+))?/.exec(line.text)
      if (head) this.table(this.begin(head))
      else if (line.text !== '' && !line.text.startsWith('#') && !isPrompt(line.text))
        this.strange(line, 'not a line of nft list ruleset')
    }
  }

  private begin([, family, name, handle]: RegExpExecArray): NftTable {
    const table = tableOf(this.ruleset, family ?? 'ip', name!)
    if (handle !== undefined) table.handle = Number(handle)
    return table
  }

  private problem(line: Line, message: string): void {
    this.ruleset.problems.push({file: this.ruleset.file, line: line.number, message, text: line.text})
  }

  /** A line that is nothing we know, between tables or between chains: some may be missing. What stands above all of them is a prompt. */
  private strange(line: Line, message: string): void {
    if (!isPrompt(line.text) && (this.ruleset.tables.size > 0 || WORDS_LEFT_OUT.test(line.text)))
      this.ruleset.cut = true
    this.problem(line, message)
  }

  /** Another block begins inside this one. */
  private lost(line: Line): void {
    this.at--
    this.ruleset.cut = true
    this.problem(line, 'a block begins before the one above it ends: lines are missing')
  }

  /** One kernel has each once: the dumps of two hosts, or of two moments, are in one file. */
  private twice(line: Line, what: string): void {
    this.ruleset.cut = true
    this.problem(line, `${what} stands twice in one dump: two hosts or two moments in one file?`)
  }

  private cut(): void {
    this.ruleset.cut = true
    this.ruleset.problems.push({
      file: this.ruleset.file,
      line: this.lines.length,
      message: 'the dump ends inside a block: it was cut',
    })
  }

  private table(table: NftTable): void {
    while (this.at < this.lines.length) {
      const line = this.lines[this.at++]!
      if (line.text === '}') return ofIptables(table)
      const head = /^(chain|set|map|meter) (\S+) \{/.exec(line.text)
      if (head?.[1] === 'chain') this.chain(table, head[2]!, line)
      else if (head) this.set(table, head[1]!, {name: head[2]!, line})
      else if (/^flags /.test(line.text)) table.flags.push(...words(line.text.slice(6)))
      else if (
        /^(flowtable|ct (?:helper|timeout|expectation)|counter|quota|limit|secmark|synproxy) .*\{/.test(line.text)
      )
        this.skipBlock(line)
      else if (line.text !== '' && !/^(#|comment )/.test(line.text)) this.strange(line, 'not understood inside a table')
    }
    this.cut()
  }

  private skipBlock(line: Line): void {
    let depth = depthOf(line.text)
    while (depth > 0 && this.at < this.lines.length) depth += depthOf(this.lines[this.at++]!.text)
    if (depth > 0) this.cut()
  }

  private chain(table: NftTable, name: string, head: Line): void {
    const [, handle] = /\{ # handle (\d+)$/.exec(head.text) ?? []
    let chain: NftChain = {
      family: table.family,
      table: table.name,
      name,
      rules: [],
      line: head.number,
      ...(handle === undefined ? {} : {handle: Number(handle)}),
    }
    if (table.chains.has(name)) this.twice(head, `chain ${name}`)
    table.chains.set(name, chain)
    while (this.at < this.lines.length) {
      const line = this.lines[this.at++]!
      if (line.text === '}') return
      if (BEGINS_BLOCK.test(line.text)) return this.lost(line)
      const base =
        /^type (\S+) hook (\S+)(?: devices? (?:= )?(\{[^}]*\}|"?[^" ;]+"?))? priority ([^;]+);(?: policy (\w+);)?/.exec(
          line.text,
        )
      if (!base && /^type \S+ hook /.test(line.text)) {
        // where it runs is open, so it counts as one of the places that the walk does not pass
        this.problem(line, 'a base chain whose hook is not understood')
        chain = {...chain, hook: 'unknown', ...(line.text.includes('policy drop') ? {policy: 'drop'} : {})}
        table.chains.set(name, chain)
      } else if (base) {
        chain = {
          ...chain,
          type: base[1]!,
          hook: base[2]!,
          priority: priorityOf(base[4]!),
          policy: base[5] ?? 'accept',
          hookLine: line.number,
          ...(base[3] ? {device: base[3].replaceAll(/["{} ]/g, '')} : {}),
        }
        table.chains.set(name, chain)
      } else if (
        line.text !== '' &&
        !isRemark(line.text) &&
        !(chain.rules.length === 0 && /^comment "/.test(line.text))
      )
        this.rule(chain, line)
    }
    this.cut()
  }

  private rule(chain: NftChain, first: Line): void {
    const text = this.wrapped(first, [])
    const handle = /# handle (\d+)$/.exec(text)
    const read = new NftRuleReader(handle ? text.slice(0, handle.index).trim() : text).rule()
    if (read.problem) this.problem(first, read.problem)
    chain.rules.push({
      family: chain.family,
      table: chain.table,
      chain: chain.name,
      number: chain.rules.length + 1,
      statements: read.statements,
      file: this.ruleset.file,
      line: first.number,
      text,
      ...(handle ? {handle: Number(handle[1])} : {}),
      ...(read.comment === undefined ? {} : {comment: read.comment}),
      ...(read.problem ? {problem: read.problem} : {}),
    })
  }

  /** A line and those on which its braces close, joined; `lines` gets each. */
  private wrapped(first: Line, lines: Line[]): string {
    lines.push(first)
    let {text} = first
    while (unbalanced(text) && this.at < this.lines.length && !BEGINS_BLOCK.test(this.lines[this.at]!.text)) {
      lines.push(this.lines[this.at]!)
      text += ` ${this.lines[this.at++]!.text}`
    }
    return text
  }

  private set(table: NftTable, kind: string, {name, line: head}: {name: string; line: Line}): void {
    const body = this.setBody(head)
    if (table.sets.has(name)) this.twice(head, `set ${name}`)
    const {types, map, flags, timeout, elements, at, lines} = body
    const read = elements === undefined ? {value: [] as NftJson[]} : new NftRuleReader(elements).elements()
    if ('problem' in read && read.problem) {
      this.problem(at, read.problem)
      body.broken = true
    }
    table.sets.set(name, {
      family: table.family,
      table: table.name,
      name,
      types,
      flags,
      line: at.number,
      ...(map === undefined ? {} : {map: map.trim()}),
      ...(timeout === undefined ? {} : {timeout}),
      ...(body.broken ? {broken: true} : {}),
      ...(body.limited ? {limited: true} : {}),
      lines,
      elements: read.value.map((item) => ({...elementOf(item, kind === 'map'), line: at.number})),
    })
  }

  private setBody(head: Line): SetBody {
    const body: SetBody = {types: [], flags: [], at: head, lines: [], limited: false, broken: false}
    while (this.at < this.lines.length) {
      const line = this.lines[this.at++]!
      if (line.text === '}') return body
      if (BEGINS_BLOCK.test(line.text)) {
        this.lost(line)
        return {...body, broken: true}
      }
      this.setLine(body, line)
    }
    this.cut()
    return {...body, broken: true}
  }

  private setLine(body: SetBody, line: Line): void {
    const {text} = line
    const type = /^(?:type|typeof) (.+?)(?: : (.+))?$/.exec(text)
    if (type) {
      body.types = type[1]!.split(' . ')
      body.map = type[2]
    } else if (text.startsWith('flags ')) body.flags = words(text.slice(6))
    else if (text.startsWith('timeout ')) body.timeout = secondsOf(text.slice(8))
    else if (text.startsWith('elements = ')) {
      body.at = line
      body.elements = this.wrapped(line, body.lines).slice(11)
    } else if (/^(limit|quota|ct count) /.test(text)) body.limited = true
    else if (text !== '' && !/^(size|timeout|gc-interval|policy|comment|counter|auto-merge|flags|#)/.test(text)) {
      this.problem(line, 'not understood inside a set')
      body.broken = true
    }
  }
}

/** What the lines of a set say. */
interface SetBody {
  types: string[]
  map?: string | undefined
  flags: string[]
  timeout?: number | undefined
  elements?: string
  /** The line of its elements, else its head. */
  at: Line
  readonly lines: Line[]
  limited: boolean
  broken: boolean
}

const UNIT: Readonly<Record<string, number>> = lookup<number>({d: 86400, h: 3600, m: 60, s: 1, ms: 0.001})

/** `1d2h3m4s`, as nft prints times. */
function secondsOf(text: string): number | undefined {
  const parts = [...text.matchAll(/(\d+)(ms|[dhms])/g)]
  return parts.length === 0 ? undefined : parts.reduce((sum, [, count, unit]) => sum + Number(count) * UNIT[unit!]!, 0)
}

const IPTABLES_TABLES = new Set(['raw', 'mangle', 'nat', 'filter', 'security'])
const IPTABLES_HOOKS = new Set(['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'])

/**
 * In a table of iptables-nft, nft prints rules as libxtables translates them, and of `--ctstate` with DNAT or SNAT in it only
 * those two words are left, without a negation (libxt_conntrack.c, state_xlate_print). Its rules all have counters.
 */
function ofIptables(table: NftTable): void {
  if (!IPTABLES_TABLES.has(table.name)) return
  const chains = [...table.chains.values()]
  if (!chains.some(({name, hook}) => hook !== undefined && IPTABLES_HOOKS.has(name))) return
  for (const {rules} of chains)
    for (const [at, rule] of rules.entries()) {
      if (alwaysTranslates(rule, table) && rules.slice(at + 1).some((next) => alwaysTranslates(next, table)))
        rule.problem ??= NO_STATISTIC
      if (TRANSLATES_IN_PART.some((words) => words.test(rule.text))) {
        rules[at] = {
          ...rule,
          statements: rule.statements.filter((one) => !IS_IN_PART.test(JSON.stringify(one))),
          problem: IN_PART,
        }
        continue
      }
      if (rule.problem || !/\bct status (dnat|snat)\b.* counter packets /.test(rule.text)) continue
      const statements = rule.statements.filter((statement) => !JSON.stringify(statement).includes('"status"'))
      rules[at] = {...rule, statements, problem: LOSSY}
    }
}

/** Leads every packet to a chain that translates it: nothing behind it is ever reached. */
function alwaysTranslates({statements}: NftRule, {chains}: NftTable): boolean {
  if (!statements.every((one) => 'counter' in one || 'jump' in one)) return false
  const [target] = statements.flatMap(({jump}) =>
    typeof jump === 'object' ? String((jump as NftObject)['target']) : [],
  )
  return chains.get(target ?? '')?.rules.some(({text}) => /\bdnat to /.test(text)) ?? false
}

const NO_STATISTIC = 'nft of some versions leaves out what -m statistic asks for'

/** `--ports` loses ranges and its negation, ranges of one port match lose theirs, `! --ctstate` of several becomes another question. */
const TRANSLATES_IN_PART = [
  /\b(tcp|udp|sctp|th) sport \. (tcp|udp|sctp|th) dport \{/,
  /\b(tcp|udp|sctp) [sd]port \d+-\d+/,
  /\bct state != \w+,/,
]
const IS_IN_PART = /"(dport|sport|state)"/
const IN_PART = 'nft of some versions translates this iptables rule without all that it asks for'

const LOSSY = 'nft prints an iptables rule with --ctstate DNAT or SNAT as if it asked for nothing else'

const words = (text: string): string[] =>
  text
    .replace(/;$/, '')
    .split(/[\s,]+/)
    .filter(Boolean)

/** A rule or a block behind a `#`. */
const isHidden = (text: string): boolean => /^#+\s*(table|chain|type \w+ hook) /.test(text)

/** A line of its own that says nothing; what nft cannot translate of iptables-nft it prints behind `#`, with the rule's other words. */
const isRemark = (text: string): boolean => text.startsWith('#') && !SAYS_WHAT_RULES_SAY.test(text)
const SAYS_WHAT_RULES_SAY =
  /^# ?(xt_|.*\b(counter|accept|drop|return|masquerade|reject|queue|dnat|snat|redirect|jump|goto|mark set)\b)/

/** A line that begins a new block: whatever was open has lost its end. */
const BEGINS_BLOCK = /^(table (\w+ )?\S+|chain \S+|set \S+|map \S+|meter \S+) \{( # handle \d+)?$/

const unbalanced = (text: string): boolean => depthOf(text) > 0

/** How many blocks it opens and does not close. */
function depthOf(text: string): number {
  let depth = 0
  let quoted = false
  for (const char of text) {
    if (char === '"') quoted = !quoted
    else if (!quoted && char === '{') depth++
    else if (!quoted && char === '}') depth--
  }
  return depth
}

/** `dstnat - 10`, `filter`, `-100`. */
function priorityOf(text: string): number {
  const match = /^([a-z]+)?\s*(?:([+-])\s*)?(\d+)?$/.exec(text.trim())
  if (!match) return Number.NaN
  const base = match[1] === undefined ? 0 : (PRIORITY_NAMES[match[1]] ?? Number.NaN)
  return base + Number(match[3] ?? 0) * (match[2] === '-' ? -1 : 1)
}
