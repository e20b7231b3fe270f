import {table} from '../util/table.js'
import type {Ipset, IpsetDump, IpsetEntry} from '../parse/ipset.js'
import {parseRange, prefixRange, type Range} from '../util/ip.js'
import {CLIENT, protocolNumber, UNKNOWN_DEVICE, type Packet, type Party} from './packet.js'
import type {Walker} from './walker.js'

/** The dimensions of a set type: `hash:ip,port,net` has three. */
type Dimension = 'ip' | 'net' | 'port' | 'mac' | 'iface' | 'mark' | 'set'

interface Member {
  readonly entry: IpsetEntry
  /** One for each ip and net dimension, in order. */
  readonly ranges: readonly Range[]
}

interface Index {
  readonly dimensions: readonly Dimension[]
  /** By the exact dimensions (ports, marks, devices) and, where they are single addresses, by these too. */
  readonly byKey: ReadonlyMap<string, readonly Member[]>
}

export type SetAnswer =
  {readonly match: boolean; readonly entry?: IpsetEntry; readonly set?: Ipset} | {readonly unknown: string}

const PROTOCOL_WORD: Readonly<Record<string, number>> = table({
  tcp: 6,
  udp: 17,
  sctp: 132,
  udplite: 136,
  icmp: 1,
  icmpv6: 58,
  'ipv6-icmp': 58,
})

/** The sets of one node, as `-m set` asks them (net/netfilter/ipset/ip_set_core.c, ip_set_test). */
export class Ipsets {
  private readonly dump: IpsetDump | undefined
  private readonly indexes = new Map<string, Index>()

  constructor(dump: IpsetDump | undefined) {
    this.dump = dump
  }

  get(name: string): Ipset | undefined {
    return this.dump?.sets.get(name)
  }

  /** `flags`: `src` or `dst` for each dimension. */
  test(walker: Walker, name: string, flags: readonly string[]): SetAnswer {
    const set = this.get(name)
    if (!set) return {unknown: `set ${name} is not in the dump`}
    if (this.dump!.twice.has(name)) return {unknown: `set ${name} stands twice in ${set.file}`}
    if (set.type === 'list:set') return this.testList(walker, set, flags)
    const answer = this.testPlain(walker, set, flags)
    if (!('unknown' in answer) && !answer.match && this.dump!.problems.length > 0) {
      const [problem] = this.dump!.problems
      return {unknown: `set ${name} may be incomplete: ${problem!.file}:${problem!.line} ${problem!.message}`}
    }
    return answer
  }

  private testList(walker: Walker, list: Ipset, flags: readonly string[]): SetAnswer {
    for (const entry of list.entries) {
      const member = entry.parts[0]!
      const answer: SetAnswer =
        this.get(member)?.type === 'list:set'
          ? {unknown: `set ${member} is a list inside a list`}
          : this.test(walker, member, flags)
      if ('unknown' in answer || answer.match) return answer
    }
    return {match: false, set: list}
  }

  private testPlain(walker: Walker, set: Ipset, flags: readonly string[]): SetAnswer {
    const {packet} = walker
    if ((set.family === 'inet6') !== (packet.family === 6) && /ip|net/.test(set.type)) return {match: false, set}
    const mask = ['bitmask', 'markmask'].find((option) => set.options.has(option))
    if (mask !== undefined) return {unknown: `set ${set.name} has a ${mask}, which is not modelled`}
    const index = this.indexOf(set)
    if (flags.length < index.dimensions.length) return {match: false, set}
    const unknown = index.dimensions
      .map((dimension, at) => unknownPart(dimension, flags[at]!, packet))
      .find((why) => why !== undefined)
    if (unknown !== undefined && set.entries.length > 0) return {unknown: `set ${set.name} asks for ${unknown}`}
    const parties = index.dimensions.flatMap((dimension, at) =>
      dimension === 'ip' || dimension === 'net' ? [flags[at] === 'src' ? packet.src : packet.dst] : [],
    )
    const exact = index.dimensions.flatMap((dimension, at) =>
      dimension === 'ip' || dimension === 'net' ? [] : [exactPart(dimension, flags[at]!, packet, set.type)],
    )
    if (set.type === 'hash:net,iface') return this.testNetIface(walker, set, {device: exact[0]!, party: parties[0]!})
    for (const key of keysFor(exact, parties)) {
      for (const member of index.byKey.get(key) ?? []) {
        if (!member.ranges.every((range, at) => walker.inside(parties[at]!, range))) continue
        return {match: !member.entry.nomatch, entry: member.entry, set}
      }
    }
    if (parties.includes(CLIENT)) return this.testForClients(walker, set, {exact, parties})
    return {match: false, set}
  }

  /**
   * hash:net,iface: once a network of the set holds the address, whatever its device, no wider one is looked at
   * (`!multi` in mtype_test_cidrs, ip_set_hash_gen.h; hash_netiface4_data_equal). Entries by physdev hash elsewhere.
   */
  private testNetIface(walker: Walker, set: Ipset, {device, party}: {device: string; party: Party}): SetAnswer {
    const members = [...this.indexOf(set).byKey.values()]
      .flat()
      .filter(({entry}) => !entry.parts[1]?.startsWith('physdev:'))
      .sort((a, b) => sizeOf(a) - sizeOf(b))
    const nearest = members.find(({ranges}) => walker.inside(party, ranges[0]!))
    const hit = members.find(
      ({ranges, entry}) =>
        ranges[0]!.lo === nearest?.ranges[0]!.lo &&
        ranges[0]!.hi === nearest.ranges[0].hi &&
        entry.parts[1]?.toLowerCase() === device,
    )
    return hit ? {match: !hit.entry.nomatch, entry: hit.entry, set} : {match: false, set}
  }

  /** The slow way for a set of clients: every member that fits otherwise parts the clients. */
  private testForClients(
    walker: Walker,
    set: Ipset,
    {exact, parties}: {exact: readonly string[]; parties: readonly Party[]},
  ): SetAnswer {
    const prefix = exact.join('|')
    for (const [key, members] of this.indexOf(set).byKey) {
      if (!key.startsWith(`${prefix}#`) || key === `${prefix}#`) continue
      for (const member of members) {
        if (member.ranges.every((range, at) => walker.inside(parties[at]!, range)))
          return {match: !member.entry.nomatch, entry: member.entry, set}
      }
    }
    return {match: false, set}
  }

  private indexOf(set: Ipset): Index {
    let index = this.indexes.get(set.name)
    if (!index) this.indexes.set(set.name, (index = buildIndex(set)))
    return index
  }
}

/** What is no address meets nothing. */
const NOBODY: Range = {lo: 1, hi: 0}

/** A member of hash:ip or bitmap:ip; with a netmask addresses stand for networks. */
export function memberRange(part: string, {options}: Ipset): Range {
  const netmask = Number(options.get('netmask'))
  const range = parseRange(part) ?? NOBODY
  return netmask >= 0 && range.lo <= range.hi
    ? {lo: prefixRange(range.lo, netmask).lo, hi: prefixRange(range.hi, netmask).hi}
    : range
}

/** Exact dimensions first, then `#` and the address of the first ip dimension, if the member has a single one. */
function* keysFor(exact: readonly string[], parties: readonly Party[]): Iterable<string> {
  const prefix = exact.join('|')
  if (parties[0] !== undefined && parties[0] !== CLIENT) yield `${prefix}#${parties[0]}`
  yield `${prefix}#`
}

function buildIndex(set: Ipset): Index {
  const dimensions = set.type.slice(set.type.indexOf(':') + 1).split(',') as Dimension[]
  const byKey = new Map<string, Member[]>()
  for (const entry of set.entries) {
    const ranges: Range[] = []
    const exact: string[] = []
    dimensions.forEach((dimension, at) => {
      const part = entry.parts[at] ?? ''
      if (dimension === 'ip' || dimension === 'net')
        ranges.push(dimension === 'ip' ? memberRange(part, set) : (parseRange(part) ?? NOBODY))
      else exact.push(...(dimension === 'port' ? [portKey(part, set.type)] : [part.toLowerCase()]))
    })
    const [first] = ranges
    const key = `${exact.join('|')}#${first && first.lo === first.hi ? first.lo : ''}`
    const known = byKey.get(key)
    if (known) known.push({entry, ranges})
    else byKey.set(key, [{entry, ranges}])
  }
  for (const members of byKey.values()) members.sort((a, b) => sizeOf(a) - sizeOf(b))
  return {dimensions, byKey}
}

/** Most specific first, as net types are searched (mtype_test_cidrs). */
const sizeOf = ({ranges}: Member): number => ranges.reduce((sum, {lo, hi}) => sum + Number(BigInt(hi) - BigInt(lo)), 0)

/** bitmap:port knows no protocol; hash types store it, `tcp` where it is left out. */
function portKey(part: string, type: string): string {
  const [first, second] = part.split(':')
  if (second === undefined) return type.startsWith('bitmap:') ? first! : `6:${first}`
  return type.startsWith('bitmap:') ? second : `${PROTOCOL_WORD[first!.toLowerCase()] ?? first}:${second}`
}

function exactPart(dimension: Dimension, flag: string, packet: Packet, type: string): string {
  if (dimension === 'port') {
    const port = flag === 'src' ? packet.sport : packet.dport
    return type.startsWith('bitmap:') ? String(port) : `${protocolNumber(packet)}:${port}`
  }
  if (dimension === 'iface') return flag === 'src' ? packet.iif : packet.oif
  if (dimension === 'mark') return `0x${packet.mark.toString(16).padStart(8, '0')}`
  return ''
}

function unknownPart(dimension: Dimension, flag: string, packet: Packet): string | undefined {
  if (dimension === 'mac') return 'a MAC address'
  if (dimension === 'iface' && (flag === 'src' ? packet.iif : packet.oif) === UNKNOWN_DEVICE) return 'the device'
  if (dimension === 'port' && flag === 'src' && packet.sport < 0) return "the client's own port"
  return undefined
}
