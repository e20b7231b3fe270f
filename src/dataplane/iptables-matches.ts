import {table} from '../util/table.js'
import type {IptablesRule, Negatable, RuleMatch, RuleOption} from '../parse/iptables-rule.js'
import {maskLength, parseAddress, parseRange, prefixRange, type Range} from '../util/ip.js'
import {
  CLIENT,
  NEIGHBOUR_MESSAGES,
  protocolNumber,
  seenReply,
  UNKNOWN_DEVICE,
  type Packet,
  type Party,
  type Tuple,
} from './packet.js'
import type {Walker} from './walker.js'

/** Does the packet meet the condition? May ask the walker about what no dump tells. */
export type Test = (walker: Walker) => boolean

/** A match that is not modelled: its reason. The rule's outcome is then an open question. */
export interface Unmodelled {
  readonly unmodelled: string
}

export interface MatchContext {
  readonly where: string
  readonly rule: IptablesRule
}

type OptionTest = (values: readonly string[], context: MatchContext) => Test | Unmodelled | undefined
/** Options by name; a function builds the test from all options of the match at once. */
type Module =
  Readonly<Record<string, OptionTest>> | ((options: readonly RuleOption[], context: MatchContext) => Test | Unmodelled)

/** A match that decides nothing. */
export const always: Test = () => true
const never: Test = () => false
const ignore: OptionTest = () => undefined

const rangeTest = (pick: (packet: Packet) => Packet['src'], text: string): Test | Unmodelled => {
  const range = prefixOrMask(text)
  if (!range) return {unmodelled: `address "${text}"`}
  return (walker) => walker.inside(pick(walker.packet), range)
}

/** A netmask with holes is legal in iptables and used by nobody; it is not modelled. */
function prefixOrMask(text: string): Range | undefined {
  const [host, mask] = text.split('/')
  const address = parseAddress(host!)
  if (address !== undefined && mask !== undefined && mask.includes('.')) {
    const length = maskLength(parseAddress(mask) ?? 0)
    return length === undefined ? undefined : prefixRange(address, length)
  }
  return parseRange(text)
}

function portRange(text: string): [number, number] | undefined {
  const match = /^(\d*)(?:[:-](\d*))?$/.exec(text)
  if (!match || text === '') return undefined
  const low = match[1] === '' ? 0 : Number(match[1])
  return [
    low,
    text.includes(':') || text.includes('-')
      ? match[2] === '' || match[2] === undefined
        ? 65535
        : Number(match[2])
      : low,
  ]
}

const portTest =
  (pick: (packet: Packet) => number): OptionTest =>
  ([text], {where}) => {
    const range = portRange(text ?? '')
    if (!range) return {unmodelled: `port "${text}"`}
    return (walker) => walker.portInside(pick(walker.packet), range[0], range[1], where)
  }

const sport = portTest(({sport: port}) => port)
const dport = portTest(({dport: port}) => port)

const TCP_FLAG_SET = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG']
/** A first packet is a SYN; its answer SYN,ACK. */
function tcpFlags(mask: string, wanted: string): Test {
  const list = (text: string): string[] => (text === 'ALL' ? TCP_FLAG_SET : text === 'NONE' ? [] : text.split(','))
  const looked = list(mask)
  const set = list(wanted)
  return ({packet}) => looked.every((flag) => packet.tcpFlags.includes(flag) === set.includes(flag))
}

const transport: Module = {
  dport,
  'destination-port': dport,
  sport,
  'source-port': sport,
  'tcp-flags': ([mask, wanted]) => tcpFlags(mask ?? 'NONE', wanted ?? 'NONE'),
  syn: () => tcpFlags('FIN,SYN,RST,ACK', 'SYN'),
}

/** `0x4000/0x4000`; undefined for what is no number. */
export function parseMark(text: string): {value: number; mask: number} | undefined {
  if (!/^(0x[\da-f]{1,8}|\d+)(\/(0x[\da-f]{1,8}|\d+))?$/i.test(text)) return undefined
  const [value, mask] = text.split('/')
  return {value: Number(value) >>> 0, mask: mask === undefined ? 0xffffffff : Number(mask) >>> 0}
}

const markTest =
  (pick: (packet: Packet) => number): OptionTest =>
  ([text]) => {
    const mark = parseMark(text ?? '')
    if (!mark) return {unmodelled: `mark "${text}"`}
    const {value, mask} = mark
    return ({packet}) => (pick(packet) & mask) >>> 0 === value
  }

/** Conntrack states of the packet, the virtual states DNAT and SNAT included (net/netfilter/xt_conntrack.c). */
function hasState(packet: Packet, state: string): boolean {
  if (state === 'DNAT') return packet.connection?.dnat ?? false
  if (state === 'SNAT') return packet.connection?.snat ?? false
  return state === packet.state
}

/** A list of words of which one that nobody knows makes the whole unknown. */
function words(text: string | undefined, known: ReadonlySet<string>, what: string): string[] | Unmodelled {
  const list = (text ?? '').split(',')
  const strange = list.find((word) => !known.has(word))
  return strange === undefined ? list : {unmodelled: `${what} "${strange}"`}
}

const STATES = new Set(['NEW', 'ESTABLISHED', 'RELATED', 'INVALID', 'UNTRACKED', 'SNAT', 'DNAT'])

const ctstate: OptionTest = ([states]) => {
  const list = words(states, STATES, 'conntrack state')
  if ('unmodelled' in list) return list
  return ({packet}) => list.some((state) => hasState(packet, state))
}

const tupleTest =
  (pick: (connection: {original: Tuple; reply: Tuple}) => Packet['src']): OptionTest =>
  ([text]) => {
    const range = prefixOrMask(text ?? '')
    if (!range) return {unmodelled: `address "${text}"`}
    return (walker) => walker.packet.connection !== undefined && walker.inside(pick(walker.packet.connection), range)
  }

const tuplePort =
  (pick: (connection: {original: Tuple; reply: Tuple}) => number): OptionTest =>
  ([text], {where}) => {
    const range = portRange(text ?? '')
    if (!range) return {unmodelled: `port "${text}"`}
    return (walker) =>
      walker.packet.connection !== undefined &&
      walker.portInside(pick(walker.packet.connection), range[0], range[1], where)
  }

const STATUS: Readonly<Record<string, (packet: Packet) => boolean>> = {
  EXPECTED: () => false,
  SEEN_REPLY: seenReply,
  ASSURED: () => false,
  CONFIRMED: ({connection}) => connection?.confirmed ?? false,
  NONE: () => false,
}

const conntrack: Module = {
  ctstate,
  ctproto:
    ([protocol]) =>
    ({packet}) =>
      packet.connection !== undefined &&
      [
        packet.connection.protocol.toLowerCase(),
        String(protocolNumber({...packet, protocol: packet.connection.protocol})),
      ].includes((protocol ?? '').toLowerCase()),
  ctorigsrc: tupleTest(({original}) => original.src),
  ctorigdst: tupleTest(({original}) => original.dst),
  ctreplsrc: tupleTest(({reply}) => reply.src),
  ctrepldst: tupleTest(({reply}) => reply.dst),
  ctorigsrcport: tuplePort(({original}) => original.sport),
  ctorigdstport: tuplePort(({original}) => original.dport),
  ctreplsrcport: tuplePort(({reply}) => reply.sport),
  ctrepldstport: tuplePort(({reply}) => reply.dport),
  ctstatus: ([text]) => {
    const list = words(text, new Set(Object.keys(STATUS)), 'conntrack status')
    if ('unmodelled' in list) return list
    return ({packet}) => packet.connection !== undefined && list.some((status) => STATUS[status]!(packet))
  },
  ctdir:
    ([direction]) =>
    ({packet}) =>
      packet.connection !== undefined && packet.replyDirection === (direction === 'REPLY'),
}

const ADDRESS_TYPES = new Set(
  'unspec unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat xresolve'.split(' '),
)

const addressType =
  (pick: (packet: Packet) => Packet['src']): OptionTest =>
  (values, {rule}) => {
    const wanted = words(values[0]?.toLowerCase(), ADDRESS_TYPES, 'address type')
    if ('unmodelled' in wanted) return wanted
    // one rule may have the match twice, with limits of its own each (Calico's rule for its tunnel)
    const own = rule.matches.find(({options}) => options.some((option) => option.values === values))
    const limit = own?.options.find(({name}) => name.startsWith('limit-iface'))?.name
    return (walker) => {
      const party = pick(walker.packet)
      if (walker.packet.family === 6) return hasTypeV6(walker, party, {wanted, limit})
      const type = walker.machine.router(walker.packet.family).addressType(walker.chooser, party)
      const device = limit === 'limit-iface-in' ? walker.packet.iif : walker.packet.oif
      // a hook that has no such device asks all of them (addrtype_mt_v1: xt_in and xt_out are NULL)
      if (limit === undefined || device === '' || type !== 'local') return wanted.includes(type)
      return wanted.includes(party !== CLIENT && walker.machine.deviceHas(device, party) ? 'local' : 'unicast')
    }
  }

const ROUTED_TYPES = new Set(['local', 'anycast', 'prohibit', 'unreachable'])

/**
 * In IPv6 unicast and multicast are told by the address itself, a node's own included, and all that is asked for must
 * hold; only the rest is looked up in the routes (net/netfilter/xt_addrtype.c, match_type6).
 */
function hasTypeV6(
  walker: Walker,
  party: Party,
  {wanted, limit}: {wanted: readonly string[]; limit: string | undefined},
): boolean {
  const {machine, packet, chooser} = walker
  const router = machine.router(6)
  const type = router.addressType(chooser, party)
  if (wanted.includes('multicast') && type !== 'multicast') return false
  if (wanted.includes('unicast') && (type === 'multicast' || party === 0n)) return false
  if (wanted.includes('unspec') && party !== 0n) return false
  if (!wanted.some((one) => ROUTED_TYPES.has(one))) return true
  const device = limit === 'limit-iface-in' ? packet.iif : packet.oif
  if (
    type === 'local' &&
    (limit === undefined || device === '' || (party !== CLIENT && machine.deviceHas(device, party)))
  )
    return wanted.includes('local')
  const route = router.lookup(chooser, {dst: party, src: undefined, mark: 0, iif: 'lo'})
  return route.type !== 'unicast' && route.type !== 'local' && wanted.includes('unreachable')
}

const multiport =
  (pick: (packet: Packet) => number[]): OptionTest =>
  ([list], {where}) => {
    const ranges = (list ?? '').split(',').map(portRange)
    if (ranges.some((range) => range === undefined)) return {unmodelled: `ports "${list}"`}
    return (walker) =>
      pick(walker.packet).some((port) => ranges.some((range) => walker.portInside(port, range![0], range![1], where)))
  }

/** Random and nth both mean: that share of connections; which one is up to the dice, or to the packets before. */
function statistic(options: readonly RuleOption[]): Test | Unmodelled {
  const value = (name: string): RuleOption | undefined => options.find((option) => option.name === name)
  const mode = value('mode')?.values[0]
  const chance = mode === 'random' ? value('probability') : value('every')
  if (!chance || (mode !== 'random' && mode !== 'nth')) return {unmodelled: `statistic mode ${mode ?? 'missing'}`}
  const given = Number(chance.values[0])
  const share = mode === 'random' ? given : 1 / given
  if (!(share >= 0 && share <= 1)) return {unmodelled: `statistic ${chance.name} ${chance.values[0]}`}
  const match = chance.not ? 1 - share : share
  const weights = [match, 1 - match]
  return (walker) => walker.chooser.random(weights) === 0
}

/**
 * `recent` remembers addresses that it has seen. A fresh client is in no list; `--set` always matches.
 * (net/netfilter/xt_recent.c)
 */
function recent(options: readonly RuleOption[], {where}: MatchContext): Test | Unmodelled {
  const verb = options.find(({name}) => ['set', 'rcheck', 'update', 'remove'].includes(name))
  if (!verb) return {unmodelled: 'recent without --set, --rcheck, --update or --remove'}
  const list = `recent ${options.find(({name}) => name === 'name')?.values[0] ?? 'DEFAULT'}`
  if (verb.name === 'set') {
    return (walker) => {
      walker.remember(list)
      return !verb.not
    }
  }
  return (walker) =>
    walker.remembers(list) ? walker.unknownMatch(where, `${list}, which this packet was just written to`) : verb.not
}

const SET_NOISE = new Set(['return-nomatch', 'update-counters', 'update-subcounters'])

function ipset(options: readonly RuleOption[], {where}: MatchContext): Test | Unmodelled {
  const [first] = options.filter(({name}) => name === 'match-set' || name === 'set')
  const other = options.find((option) => option !== first && !SET_NOISE.has(option.name))
  if (!first || other) return {unmodelled: `set --${other?.name ?? 'match-set'}`}
  const [name, flags] = first.values
  const list = (flags ?? '').split(',')
  const inverts = options.some((option) => option.name === 'return-nomatch')
  return (walker) => {
    if (walker.remembers(`set ${name}`))
      return walker.unknownMatch(where, `ipset ${name}, which this packet was just written to`)
    const answer = walker.machine.ipsets.test(walker, name!, list)
    if ('unknown' in answer) {
      const {src, dst, dport, protocol, reply} = walker.packet
      const key = `set:${name}:${flags}:${src}:${dst}:${dport}:${reply}`
      const member = !walker.assume(key, [
        `if ${walker.machine.describe(walker.packet, list, protocol)} is not in ${name}, whose members the dump does not show`,
        `if ${walker.machine.describe(walker.packet, list, protocol)} is in ${name}, whose members the dump does not show`,
      ])
      return member !== first.not
    }
    if (answer.match && answer.entry && answer.set && !first.not) {
      walker.hop('rule', `${answer.entry.parts.join(',')} is in ipset ${name}`, {
        where,
        evidence: {source: answer.set.file, line: answer.entry.line, text: answer.entry.text},
      })
    }
    // members that are there to be left out are what is asked for; only types with networks have them (ip_set_test)
    const match = inverts && answer.entry && answer.set?.type.includes('net') ? answer.entry.nomatch : answer.match
    return match !== first.not
  }
}

/** `-m ipvs`: only a packet that IPVS has handled can match more than the property itself (net/netfilter/xt_ipvs.c). */
function ipvs(options: readonly RuleOption[]): Test | Unmodelled {
  const unknown = options.find(({name}) => !['ipvs', 'vproto', 'vaddr', 'vport', 'vdir', 'vmethod'].includes(name))
  if (unknown) return {unmodelled: `ipvs --${unknown.name}`}
  const others = options.filter(({name}) => name !== 'ipvs')
  const property = options.find(({name}) => name === 'ipvs')
  return (walker) => {
    const {packet} = walker
    if (others.length === 0) return (packet.ipvs !== undefined) !== (property?.not ?? false)
    const connection = packet.ipvs
    if (!connection) return false
    if (packet.src !== connection.client.address || packet.dst !== connection.real.address) return false
    // without a connection (vs/conntrack 0) there is no direction, and the rule is no match either way
    if (packet.connection === undefined && others.some(({name}) => name === 'vdir')) return false
    return others.every(({name, not, values: [value]}) => ipvsField(walker, name, value ?? '') !== not)
  }
}

function ipvsField({packet}: Walker, name: string, value: string): boolean {
  const {virtual} = packet.ipvs!
  if (name === 'vproto')
    return [String(protocolNumber(packet)), packet.protocol.toLowerCase()].includes(value.toLowerCase())
  if (name === 'vport') return virtual.port === Number(value)
  // whatever is forwarded otherwise has ended as unknown before
  if (name === 'vmethod') return value.toUpperCase() === 'MASQ'
  if (name === 'vdir') return value.toUpperCase() === (packet.replyDirection ? 'REPLY' : 'ORIGINAL')
  const range = parseRange(value)
  return range !== undefined && virtual.address >= range.lo && virtual.address <= range.hi
}

const deviceTest =
  (pick: (packet: Packet) => string): OptionTest =>
  ([name], {where}) => {
    const pattern = name ?? ''
    return (walker) => matchesDevice(walker, pick(walker.packet), pattern, where)
  }

/** `eth+` matches every device whose name begins so. */
function matchesDevice(walker: Walker, device: string, pattern: string, where: string): boolean {
  if (device === UNKNOWN_DEVICE) return pattern === '+' || walker.unknownMatch(where, `the device is ${pattern}`)
  return pattern.endsWith('+') ? device !== '' && device.startsWith(pattern.slice(0, -1)) : device === pattern
}

const physdev: Module = {
  'physdev-in': deviceTest(({physin}) => physin),
  'physdev-out': deviceTest(({physout}) => physout),
  'physdev-is-in':
    () =>
    ({packet}) =>
      packet.physin !== '',
  'physdev-is-out':
    () =>
    ({packet}) =>
      packet.physout !== '',
  'physdev-is-bridged':
    () =>
    ({packet}) =>
      packet.physin !== '' && packet.physout !== '',
}

const otherProtocol: Module = () => never

/** An ICMP error about a Service's packet is «destination unreachable»; the others are of neighbour discovery. */
const icmp: Module = (options) => {
  const type = options.find(({name}) => name === 'icmp-type' || name === 'icmpv6-type')
  const wanted = type?.values[0] ?? 'any'
  const known =
    /^(any|3|1|destination-unreachable)$/.test(wanted) ||
    (/^\d+$/.test(wanted) && wanted !== '3' && wanted !== '1') ||
    /^(echo-|redirect|time-exceeded|ttl-|router-|neighbou?r-|packet-too-big|parameter-problem|timestamp-|source-quench)/.test(
      wanted,
    )
  if (!known) return {unmodelled: `ICMP type ${wanted}`}
  const unreachable = /^(any|destination-unreachable)$/.test(wanted)
  const matches = ({neighbour, family}: Packet): boolean => {
    if (neighbour === undefined) return unreachable || wanted === (family === 4 ? '3' : '1')
    const {number, names} = NEIGHBOUR_MESSAGES[neighbour]
    return wanted === 'any' || wanted === number || names.test(wanted)
  }
  return ({packet}) => packet.protocol === 'ICMP' && matches(packet) !== (type?.not ?? false)
}

/** Hop limits are not walked; but those of neighbour discovery are always the highest, or nobody takes them (RFC 4861 7.1). */
const hopLimit =
  (holds: (limit: number) => boolean): OptionTest =>
  ([limit], {where}) =>
  (walker) =>
    walker.packet.neighbour === undefined ? walker.unknownMatch(where, '-m hl') : holds(Number(limit))

/** Strict or loose reverse path lookup as a rule (net/ipv4/netfilter/ipt_rpfilter.c). */
function rpfilter(options: readonly RuleOption[], {where}: MatchContext): Test {
  const has = (name: string): boolean => options.some((option) => option.name === name)
  return (walker) => {
    const {packet, machine} = walker
    if (packet.iif === 'lo' || packet.iif === '') return !has('invert')
    const route = machine.router(packet.family).lookup(walker.chooser, {
      dst: packet.src,
      src: packet.dst,
      mark: has('validmark') ? packet.mark : 0,
      iif: 'lo',
      // any of several next hops will do (fib_info_nh_uses_dev)
      via: packet.iif,
    })
    if (packet.iif === UNKNOWN_DEVICE && !has('loose') && route.type === 'unicast' && !route.assumed)
      return walker.unknownMatch(where, '-m rpfilter of a device that no dump names')
    const known = route.type === 'unicast' || (route.type === 'local' && has('accept-local'))
    const good = known && (has('loose') || route.device === packet.iif || route.assumed)
    return good !== has('invert')
  }
}

/**
 * `-m owner`: only packets that a process of the node sends have a socket (net/netfilter/xt_owner.c): for all others what is
 * asked with `!` holds, and nothing else.
 */
function owner(options: readonly RuleOption[], {where}: MatchContext): Test {
  const bare = options.every(({name, not}) => name === 'socket-exists' && !not)
  return (walker) => {
    const {packet, hook} = walker
    if (hook !== 'OUTPUT' && (packet.iif !== '' || packet.physin !== '')) return options.every(({not}) => not)
    // what IPVS sends on may be a client's packet, which has no socket
    const plain =
      packet.protocol !== 'ICMP' && !packet.tcpFlags.includes('RST') && !packet.outer && packet.ipvs === undefined
    return bare && plain ? true : walker.unknownMatch(where, '-m owner')
  }
}

/** IPsec policies are not in the dumps; packets of Services are not expected to be under one. */
function policy(options: readonly RuleOption[]): Test | Unmodelled {
  const pol = options.find(({name}) => name === 'pol')
  if (!pol) return {unmodelled: 'policy without --pol'}
  return (pol.values[0] === 'none') !== pol.not ? always : never
}

/** Every match that is modelled; `docs/accuracy.md` lists it from here. */
export const MATCHES: Readonly<Record<string, Module>> = table<Module>({
  tcp: transport,
  udp: transport,
  sctp: {dport, 'destination-port': dport, sport, 'source-port': sport},
  comment: {comment: ignore},
  mark: {mark: markTest(({mark}) => mark)},
  connmark: {mark: markTest(({connection}) => connection?.mark ?? 0)},
  conntrack,
  state: {state: ctstate},
  owner,
  addrtype: {
    'src-type': addressType(({src}) => src),
    'dst-type': addressType(({dst}) => dst),
    'limit-iface-in': ignore,
    'limit-iface-out': ignore,
  },
  multiport: {
    dports: multiport(({dport: port}) => [port]),
    'destination-ports': multiport(({dport: port}) => [port]),
    sports: multiport(({sport: port}) => [port]),
    'source-ports': multiport(({sport: port}) => [port]),
    ports: multiport((packet) => [packet.dport, packet.sport]),
  },
  iprange: {
    'src-range': ([text]) => rangeTest(({src}) => src, text ?? ''),
    'dst-range': ([text]) => rangeTest(({dst}) => dst, text ?? ''),
  },
  statistic,
  recent,
  set: ipset,
  ipvs,
  physdev,
  rpfilter,
  policy,
  // xt_pkttype.c: what a walk sends is for one host, on every hook
  pkttype: {'pkt-type': ([kind]) => (kind === 'unicast' ? always : () => false)},
  icmp,
  icmp6: icmp,
  icmpv6: icmp,
  'ipv6-icmp': icmp,
  hl: {
    'hl-eq': hopLimit((limit) => limit === 255),
    'hl-lt': hopLimit((limit) => limit > 255),
    'hl-gt': hopLimit((limit) => limit < 255),
  },
  ah: otherProtocol,
  esp: otherProtocol,
  dccp: otherProtocol,
  nfacct: {'nfacct-name': ignore},
})

/** Builds the test of one `-m`; several options of a match must all hold. */
export function matchTest(match: RuleMatch, context: MatchContext): Test | Unmodelled {
  const module = MATCHES[match.module]
  if (!module) return {unmodelled: match.module.includes(' ') ? match.module : `-m ${match.module}`}
  if (typeof module === 'function') return module(match.options, context)
  const tests: Test[] = []
  const ofConnection: Test[] = []
  for (const {name, not, values} of match.options) {
    const build = Object.hasOwn(module, name) ? module[name] : undefined
    if (!build) return {unmodelled: `-m ${match.module} --${name}`}
    const test = build(values, context)
    if (test === undefined) continue
    if ('unmodelled' in test) return test
    const list =
      (match.module === 'conntrack' && name !== 'ctstate') || match.module === 'connmark' ? ofConnection : tests
    list.push(not ? (walker) => !test(walker) : test)
  }
  if (ofConnection.length > 0) tests.push(connectionTest(ofConnection, tests.length > 0))
  return tests.length === 0 ? always : tests.length === 1 ? tests[0]! : (walker) => tests.every((test) => test(walker))
}

/** A packet without a connection passes by its state alone, whatever else is asked, inverted or not (conntrack_mt, connmark_mt). */
const connectionTest =
  (tests: readonly Test[], asksState: boolean): Test =>
  (walker) =>
    walker.packet.connection === undefined ? asksState : tests.every((test) => test(walker))

/** The conditions that stand before any `-m`: addresses, protocol, devices, fragments. */
export function basicTests(rule: IptablesRule, where: string, add: (test: Test | Unmodelled) => void): void {
  const {protocol, destination, source, inInterface, outInterface, fragment} = rule
  const given = ({not}: Negatable, test: Test | Unmodelled): void =>
    add('unmodelled' in test || !not ? test : (walker) => !test(walker))
  if (protocol) given(protocol, protocolTest(protocol.value))
  if (destination) given(destination, rangeTest(DESTINATION, destination.value))
  if (source) given(source, rangeTest(SOURCE, source.value))
  if (inInterface) given(inInterface, (walker) => matchesDevice(walker, walker.packet.iif, inInterface.value, where))
  if (outInterface) given(outInterface, (walker) => matchesDevice(walker, walker.packet.oif, outInterface.value, where))
  if (fragment) given(fragment, never)
}

const DESTINATION = ({dst}: Packet): Party => dst
const SOURCE = ({src}: Packet): Party => src

/** The names that iptables prints instead of numbers (libxtables xtables_chain_protos, /etc/protocols). */
const PROTOCOLS = new Set(
  'all tcp udp udplite sctp dccp icmp icmpv6 ipv6-icmp esp ah mh ipv6-mh gre igmp ipencap ipip ipv4 ipv6 ospf ospfigp vrrp pim l2tp rsvp hip eigrp mobility-header mptcp'.split(
    ' ',
  ),
)

function protocolTest(value: string): Test | Unmodelled {
  const wanted = value.toLowerCase()
  if (!PROTOCOLS.has(wanted) && !/^\d+$/.test(wanted)) return {unmodelled: `protocol "${value}"`}
  if (wanted === 'all' || wanted === '0') return always
  const icmpName = wanted === 'icmp' || wanted === 'icmpv6' || wanted === 'ipv6-icmp'
  const name = wanted.toUpperCase()
  // what /etc/protocols of Red Hat calls ipencap
  const number = wanted === 'ipv4' ? 4 : Number(wanted)
  return ({packet}) =>
    (packet.protocol === 'ICMP' ? icmpName : packet.protocol === name) || protocolNumber(packet) === number
}
