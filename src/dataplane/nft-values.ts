import {SERVICES} from '../parse/services.js'
import {table} from '../util/table.js'
import type {NftJson, NftObject} from '../parse/nft.js'
import {parseAddress, parseRange, prefixRange, type Address, type Range} from '../util/ip.js'

import {
  CLIENT,
  seenReply,
  EPHEMERAL,
  NEIGHBOUR_MESSAGES,
  protocolNumber,
  UNKNOWN_DEVICE,
  type Packet,
  type Party,
} from './packet.js'
import type {Walker} from './walker.js'

/** What an expression yields for a packet. `kind` says how constants on the other side are to be read. */
export type Datum =
  | {readonly kind: 'address'; readonly party: Party}
  | {readonly kind: 'port'; readonly port: number}
  | {readonly kind: 'number'; readonly value: number}
  | {readonly kind: 'protocol'; readonly value: number}
  | {readonly kind: 'name'; readonly value: string}
  /** Bits that are set, by name. `in` asks for one of some, `==` compares them all. */
  | {readonly kind: 'flags'; readonly set: readonly string[]}
  | {readonly kind: 'concat'; readonly parts: readonly Datum[]}
  /** Where a route leads; '' is nowhere. */
  | {readonly kind: 'device'; readonly name: string}
  /** The packet has no such field: the rule does not match (NFT_BREAK). */
  | {readonly kind: 'break'}
  | {readonly kind: 'unknown'; readonly why: string}

const isObject = (value: NftJson | undefined): value is NftObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const unknown = (why: string): Datum => ({kind: 'unknown', why})
const BREAK: Datum = {kind: 'break'}

const PROTOCOLS: Readonly<Record<string, number>> = table({
  tcp: 6,
  udp: 17,
  sctp: 132,
  icmp: 1,
  icmpv6: 58,
  'ipv6-icmp': 58,
  esp: 50,
  ah: 51,
  gre: 47,
  ipencap: 4,
  vrrp: 112,
  ospf: 89,
  pim: 103,
  l2tp: 115,
  ipcomp: 108,
  eigrp: 88,
  rsvp: 46,
  dccp: 33,
  udplite: 136,
  comp: 108,
  igmp: 2,
})
const NAMED_NUMBERS: Readonly<Record<string, number>> = table({
  ipv4: 2,
  ipv6: 10,
  ip: 0x0800,
  ip6: 0x86dd,
  original: 0,
  reply: 1,
  unicast: 0,
  host: 0,
  broadcast: 1,
  multicast: 2,
  other: 3,
  false: 0,
  true: 1,
})

/** Evaluates an expression of libnftables-json(5) on the packet. */
export function evaluate(walker: Walker, expression: NftJson): Datum {
  if (typeof expression === 'number') return {kind: 'number', value: expression}
  if (typeof expression === 'string') return constant(expression)
  if (!isObject(expression)) return unknown('an expression')
  const [name] = Object.keys(expression)
  const body = expression[name!]!
  const evaluator = EXPRESSIONS[name!]
  return evaluator ? evaluator(walker, body) : unknown(`expression ${name}`)
}

function constant(text: string): Datum {
  const address = parseAddress(text)
  if (address !== undefined) return {kind: 'address', party: address}
  return text in PROTOCOLS ? {kind: 'protocol', value: PROTOCOLS[text]!} : {kind: 'name', value: text}
}

type Evaluator = (walker: Walker, body: NftJson) => Datum

const binary =
  (operate: (a: number, b: number) => number): Evaluator =>
  (walker, body) => {
    const [left, right] = (Array.isArray(body) ? body : []).map((side) => numeric(evaluate(walker, side)))
    return left === undefined || right === undefined
      ? unknown('a bit operation')
      : {kind: 'number', value: operate(left, right) >>> 0}
  }

/** `tcp flags & (syn | ack)`: the bits that the mask leaves. */
function maskedFlags(walker: Walker, body: NftJson): Datum | undefined {
  const [left, mask] = Array.isArray(body) ? body : []
  if (left === undefined || mask === undefined) return undefined
  const datum = evaluate(walker, left)
  if (datum.kind === 'break') return datum
  const names = datum.kind === 'flags' ? flagNames(mask) : undefined
  return datum.kind === 'flags' && names
    ? {kind: 'flags', set: datum.set.filter((name) => names.includes(name))}
    : undefined
}

const numeric = (datum: Datum): number | undefined =>
  datum.kind === 'number' || datum.kind === 'protocol'
    ? datum.value
    : datum.kind === 'port' && datum.port >= 0
      ? datum.port
      : undefined

/** Every expression that is modelled; `docs/accuracy.md` lists it from here. */
export const EXPRESSIONS: Readonly<Record<string, Evaluator>> = table({
  payload: (walker, body) => payload(walker.packet, body as NftObject),
  meta: (walker, body) => meta(walker, String((body as NftObject)['key'])),
  ct: (walker, body) => conntrack(walker.packet, body as NftObject),
  fib: (walker, body) => fib(walker, body as NftObject),
  numgen: (walker, body) => dice(walker, body as NftObject),
  jhash: (walker, body) => dice(walker, body as NftObject),
  symhash: (walker, body) => dice(walker, body as NftObject),
  concat: (walker, body) => concat(walker, body),
  '&': (walker, body) => maskedFlags(walker, body) ?? binary((a, b) => a & b)(walker, body),
  '|': binary((a, b) => a | b),
  '^': binary((a, b) => a ^ b),
  '<<': binary((a, b) => a << b),
  '>>': binary((a, b) => a >>> b),
  map: (walker, body) => mapped(walker, body as NftObject),
})

function concat(walker: Walker, body: NftJson): Datum {
  const parts = (Array.isArray(body) ? body : []).map((part) => evaluate(walker, part))
  return (
    parts.find(({kind}) => kind === 'break') ?? parts.find(({kind}) => kind === 'unknown') ?? {kind: 'concat', parts}
  )
}

function payload(packet: Packet, body: NftObject): Datum {
  const protocol = String(body['protocol'])
  const field = String(body['field'])
  if (protocol === 'ip' || protocol === 'ip6') return networkField(packet, protocol, field)
  const l4 = packet.protocol.toLowerCase()
  if (protocol !== 'th' && protocol in PROTOCOLS && protocol !== l4 && !(protocol.startsWith('icmp') && l4 === 'icmp'))
    return BREAK
  if (protocol.startsWith('icmp') && field === 'type') {
    const {neighbour} = packet
    return {kind: 'name', value: neighbour ? NEIGHBOUR_MESSAGES[neighbour].nft : 'destination-unreachable'}
  }
  // the bytes of an ICMP error where ports would be: its checksum
  if (packet.protocol === 'ICMP' && protocol === 'th') return {kind: 'port', port: EPHEMERAL}
  if (protocol === 'th' || protocol === l4) {
    if (field === 'dport') return {kind: 'port', port: packet.dport}
    if (field === 'sport') return {kind: 'port', port: packet.sport}
    if (field === 'flags' && l4 === 'tcp')
      return {kind: 'flags', set: packet.tcpFlags.map((flag) => flag.toLowerCase())}
  }
  return unknown(`${protocol} ${field}`)
}

function networkField(packet: Packet, protocol: 'ip' | 'ip6', field: string): Datum {
  if ((protocol === 'ip') !== (packet.family === 4)) return BREAK
  if (field === 'saddr') return {kind: 'address', party: packet.src}
  if (field === 'daddr') return {kind: 'address', party: packet.dst}
  if (field === 'protocol' || field === 'nexthdr') return {kind: 'protocol', value: protocolNumber(packet)}
  if (field === 'version') return {kind: 'number', value: packet.family}
  return unknown(`${protocol} ${field}`)
}

function meta(walker: Walker, key: string): Datum {
  const {packet} = walker
  switch (key) {
    case 'l4proto':
      return {kind: 'protocol', value: protocolNumber(packet)}
    case 'mark':
      return {kind: 'number', value: packet.mark}
    case 'nfproto':
      return {kind: 'number', value: packet.family === 4 ? 2 : 10}
    case 'protocol':
      return {kind: 'number', value: packet.family === 4 ? 0x0800 : 0x86dd}
    case 'iifname':
    case 'iif':
      return device(packet.iif, 'incoming')
    case 'oifname':
    case 'oif':
      return device(packet.oif, 'outgoing')
    case 'secpath':
    case 'ipsec':
    case 'nftrace':
      return {kind: 'number', value: 0}
    default:
      return unknown(`meta ${key}`)
  }
}

const device = (name: string, which: string): Datum =>
  name === UNKNOWN_DEVICE ? unknown(`the ${which} device`) : {kind: 'name', value: name}

function conntrack(packet: Packet, body: NftObject): Datum {
  const key = String(body['key']).replace(/^ip6? /, '')
  const {connection} = packet
  if (key === 'state') return {kind: 'flags', set: [packet.state.toLowerCase()]}
  if (!connection) return BREAK
  const tuple = body['dir'] === 'reply' ? connection.reply : connection.original
  switch (key) {
    case 'status':
      return {kind: 'flags', set: statusBits(packet)}
    case 'mark':
      return {kind: 'number', value: connection.mark}
    case 'direction':
      return {kind: 'number', value: packet.replyDirection ? 1 : 0}
    case 'protocol':
      return {kind: 'protocol', value: protocolNumber({...packet, protocol: connection.protocol})}
    case 'l3proto':
      return {kind: 'number', value: packet.family === 4 ? 2 : 10}
    case 'saddr':
      return {kind: 'address', party: tuple.src}
    case 'daddr':
      return {kind: 'address', party: tuple.dst}
    case 'proto-src':
      return {kind: 'port', port: tuple.sport}
    case 'proto-dst':
      return {kind: 'port', port: tuple.dport}
    case 'zone':
      return {kind: 'number', value: 0}
    default:
      return unknown(`ct ${key}`)
  }
}

/** include/uapi/linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_status */
function statusBits(packet: Packet): string[] {
  const {dnat, snat, dstDone, srcDone, confirmed} = packet.connection!
  return [
    ...(seenReply(packet) ? ['seen-reply'] : []),
    ...(confirmed ? ['confirmed'] : []),
    ...(dnat ? ['dnat'] : []),
    ...(snat ? ['snat'] : []),
    ...(dstDone ? ['dstnat-done'] : []),
    ...(srcDone ? ['srcnat-done'] : []),
  ]
}

/** `fib daddr type`, `fib saddr . iif oif` (net/ipv4/netfilter/nft_fib_ipv4.c). */
function fib(walker: Walker, body: NftObject): Datum {
  const flags = Array.isArray(body['flags']) ? body['flags'].map(String) : [String(body['flags'])]
  const {packet, machine, chooser} = walker
  const address = flags.includes('saddr') ? packet.src : packet.dst
  const router = machine.router(packet.family)
  if (body['result'] === 'type') {
    const type = routedType(walker, address, flags.includes('mark'))
    const limit = flags.includes('iif') ? packet.iif : flags.includes('oif') ? packet.oif : undefined
    if (type !== 'local' || limit === undefined) return {kind: 'name', value: type}
    return {kind: 'name', value: address !== CLIENT && machine.deviceHas(limit, address) ? 'local' : 'unicast'}
  }
  const route = router.lookup(chooser, {
    dst: address,
    src: undefined,
    mark: flags.includes('mark') ? packet.mark : 0,
    iif: 'lo',
    // any of several next hops will do (fib_info_nh_uses_dev)
    ...(flags.includes('iif') && packet.iif !== '' ? {via: packet.iif} : {}),
  })
  if (packet.iif === 'lo') return {kind: 'device', name: 'lo'}
  if (route.assumed) return unknown('a reverse path lookup without routes')
  // an address of the node itself leads nowhere
  const found = route.type === 'unicast' ? route.device : ''
  if (flags.includes('iif') && packet.iif === UNKNOWN_DEVICE && found !== '')
    return unknown('a reverse path lookup of a device that no dump names')
  const fits = !flags.includes('iif') || packet.iif === found
  return {kind: 'device', name: fits ? found : ''}
}

/** `exists`, `missing`, 0 (no device at all), a device by its name; by another number nobody knows. */
function leadsTo(name: string, given: NftJson): boolean | {unknown: string} {
  // of a rule by a later nft an older one makes «exists/8», and of true a prefix
  const prefix = isObject(given) && isObject(given['prefix']) ? given['prefix']['addr'] : given
  const right = typeof prefix === 'string' ? prefix.replace(/^(exists|missing)\/8$/, '$1') : (prefix ?? null)
  if (right === true || right === 'exists') return name !== ''
  if (right === false || right === 'missing' || right === 0 || right === '0') return name === ''
  return typeof right === 'string' && !/^\d+$/.test(right)
    ? name !== '' && nameMatches(name, right)
    : {unknown: `device ${JSON.stringify(right)}`}
}

/**
 * In IPv6 the type of an address is that of the route to it: an unreachable one, or none, is no unicast
 * (__nft_fib6_eval_type). In IPv4 only the table of local addresses is asked (inet_dev_addr_type). Where routes are assumed, one is.
 */
function routedType({packet: {family, mark}, machine, chooser}: Walker, address: Party, marked: boolean): string {
  const router = machine.router(family)
  const type = router.addressType(chooser, address)
  if (family === 4 || type !== 'unicast' || address === CLIENT) return type
  const route = router.lookup(chooser, {dst: address, src: undefined, mark: marked ? mark : 0, iif: 'lo'})
  return !route.assumed && route.type in NO_WAY ? NO_WAY[route.type as keyof typeof NO_WAY] : type
}

/** Routes that lead nowhere, by what their errors are in nft's words; no route at all is unreachable. */
const NO_WAY = {unreachable: 'unreachable', blackhole: 'blackhole', prohibit: 'prohibit', none: 'unreachable'} as const

/** numgen and hashes: over all clients together each value is as likely as the others. */
function dice(walker: Walker, body: NftObject): Datum {
  const mod = Number(body['mod'])
  if (!(mod >= 1)) return unknown('numgen without mod')
  return {
    kind: 'number',
    value: Number(body['offset'] ?? 0) + walker.chooser.random(new Array<number>(mod).fill(1 / mod)),
  }
}

function mapped(walker: Walker, body: NftObject): Datum {
  const key = evaluate(walker, body['key']!)
  if (key.kind === 'unknown' || key.kind === 'break') return key
  const found = walker.machine.nftSets.find(walker, key, body['data']!, true)
  if (found === undefined) return BREAK
  return 'unknown' in found ? unknown(found.unknown) : evaluate(walker, found.data ?? null)
}

/** Is the datum what the right side says: a constant, a prefix, a range, a list, a set? `undefined`: nobody knows. */
export function compare(walker: Walker, datum: Datum, right: NftJson, where: string): boolean | {unknown: string} {
  if (datum.kind === 'unknown') return {unknown: datum.why}
  if (typeof right === 'string' && right.startsWith('@')) return viaSet(walker, datum, right)
  if (isObject(right) && Array.isArray(right['set'])) return viaSet(walker, datum, right)
  if (Array.isArray(right)) return anyOf(walker, datum, right, where)
  return single(walker, datum, right, where)
}

function viaSet(walker: Walker, datum: Datum, right: NftJson): boolean | {unknown: string} {
  const found = walker.machine.nftSets.find(walker, datum, right, false)
  return found !== undefined && 'unknown' in found ? found : found !== undefined
}

function anyOf(walker: Walker, datum: Datum, right: readonly NftJson[], where: string): boolean | {unknown: string} {
  let open: {unknown: string} | undefined
  for (const item of right) {
    const answer = compare(walker, datum, item, where)
    if (answer === true) return true
    if (typeof answer === 'object') open = answer
  }
  return open ?? false
}

/** The names of a set of bits: `syn`, `[syn, ack]`, `{"|": [syn, ack]}`; 0 has none. */
export function flagNames(value: NftJson): string[] | undefined {
  if (value === 0) return []
  if (typeof value === 'string') return [value]
  if (isObject(value) && Array.isArray(value['|'])) return flagNames(value['|'])
  if (!Array.isArray(value)) return undefined
  const parts = value.map(flagNames)
  return parts.includes(undefined) ? undefined : parts.flatMap((part) => part!)
}

/** The bits that have names: TCP flags, conntrack states, conntrack status. */
const FLAG_NAMES = new Set(
  'fin syn rst psh ack urg ecn cwr invalid established related new untracked expected seen-reply assured confirmed snat dnat seq-adjust snat-done dnat-done srcnat-done dstnat-done dying fixed-timeout'.split(
    ' ',
  ),
)

function knownFlags(value: NftJson): string[] | {unknown: string} {
  const names = flagNames(value)
  const strange = names?.find((name) => !FLAG_NAMES.has(name))
  if (!names || strange !== undefined) return {unknown: `a flag mask (${strange ?? JSON.stringify(value)})`}
  return names
}

/** `==` and `!=` on bits compare all of them, `in` asks for any, `!` for none. */
export function compareFlags(set: readonly string[], operator: string, right: NftJson): boolean | {unknown: string} {
  const names = knownFlags(right)
  if ('unknown' in names) return names
  const same = names.length === set.length && names.every((name) => set.includes(name))
  const any = names.some((name) => set.includes(name))
  switch (operator) {
    case '==':
      return same
    case '!=':
      return !same
    case 'in':
      return any
    case '!':
      return !any
    default:
      return {unknown: `a comparison of flags with ${operator}`}
  }
}

/** A member of a set is the whole value: of bits all, not any (nft_set_hash.c). */
export const isKey = (walker: Walker, datum: Datum, key: NftJson, where: string): boolean | {unknown: string} =>
  datum.kind === 'flags' ? compareFlags(datum.set, '==', key) : single(walker, datum, key, where)

/** One constant against one datum. */
export function single(walker: Walker, datum: Datum, right: NftJson, where: string): boolean | {unknown: string} {
  switch (datum.kind) {
    case 'flags': {
      const names = knownFlags(right)
      return 'unknown' in names ? names : names.some((name) => datum.set.includes(name))
    }
    case 'address': {
      const range = addressRange(right)
      return range ? walker.inside(datum.party, range) : {unknown: `address ${JSON.stringify(right)}`}
    }
    case 'port': {
      const range = numberRange(right)
      return range
        ? walker.portInside(datum.port, range[0], range[1], where)
        : {unknown: `port ${JSON.stringify(right)}`}
    }
    case 'device':
      return leadsTo(datum.name, right)
    case 'name':
      return typeof right === 'string' ? nameMatches(datum.value, right) : {unknown: `name ${JSON.stringify(right)}`}
    case 'number':
    case 'protocol': {
      const range = numberRange(right)
      return range ? datum.value >= range[0] && datum.value <= range[1] : {unknown: `value ${JSON.stringify(right)}`}
    }
    case 'concat':
      return concatMatches(walker, datum.parts, right, where)
    default:
      return false
  }
}

function concatMatches(
  walker: Walker,
  parts: readonly Datum[],
  right: NftJson,
  where: string,
): boolean | {unknown: string} {
  const values = isObject(right) && Array.isArray(right['concat']) ? right['concat'] : [right]
  if (values.length !== parts.length) return false
  // exact parts first, so that an open question is only asked where the rest fits
  const order = parts.map((_, at) => at).sort((a, b) => openness(parts[a]!) - openness(parts[b]!))
  for (const at of order) {
    const part = parts[at]!
    const answer =
      part.kind === 'flags' ? isKey(walker, part, values[at]!, where) : compare(walker, part, values[at]!, where)
    if (answer !== true) return answer
  }
  return true
}

const openness = (datum: Datum): number =>
  datum.kind === 'address' && datum.party === CLIENT ? 2 : datum.kind === 'port' && datum.port === EPHEMERAL ? 1 : 0

const nameMatches = (value: string, pattern: string): boolean =>
  pattern.endsWith('*') ? value.startsWith(pattern.slice(0, -1)) : value === pattern

export function addressRange(value: NftJson): Range | undefined {
  if (typeof value === 'string') return value === '*' ? undefined : parseRange(value)
  if (!isObject(value)) return undefined
  if (isObject(value['prefix'])) {
    const address = parseAddress(String(value['prefix']['addr']))
    return address === undefined ? undefined : prefixRange(address, Number(value['prefix']['len']))
  }
  if (Array.isArray(value['range'])) {
    const [lo, hi] = value['range'].map((end) => parseAddress(String(end)))
    return lo === undefined || hi === undefined ? undefined : {lo, hi}
  }
  return undefined
}

export function numberRange(value: NftJson): [number, number] | undefined {
  if (typeof value === 'number') return [value, value]
  if (typeof value === 'boolean') return [Number(value), Number(value)]
  if (typeof value === 'string') {
    const number =
      PROTOCOLS[value] ??
      NAMED_NUMBERS[value] ??
      SERVICES[value] ??
      (/^(0x[\da-f]+|\d+)$/i.test(value) ? Number(value) : undefined)
    return number === undefined ? undefined : [number, number]
  }
  if (isObject(value) && Array.isArray(value['range'])) {
    const [lo, hi] = value['range'].map((end) => numberRange(end)?.[0])
    return lo === undefined || hi === undefined ? undefined : [lo, hi]
  }
  return undefined
}

/** A text that is the same for equal exact values; undefined for prefixes, ranges and open data. */
export function exactKey(value: NftJson): string | undefined {
  if (isObject(value) && Array.isArray(value['concat'])) {
    const parts = value['concat'].map(exactKey)
    return parts.includes(undefined) ? undefined : parts.join(' . ')
  }
  const numbers = numberRange(value)
  if (numbers) return numbers[0] === numbers[1] ? String(numbers[0]) : undefined
  if (typeof value !== 'string' || value === '*' || value.endsWith('*')) return undefined
  const range = parseRange(value)
  return range ? (range.lo === range.hi ? addressKey(range.lo) : undefined) : value
}

const addressKey = (address: Address): string => `a${address}`

/** The same for a packet's datum. */
export function datumKey(datum: Datum): string | undefined {
  switch (datum.kind) {
    case 'address':
      return datum.party === CLIENT ? undefined : addressKey(datum.party)
    case 'port':
      return datum.port < 0 ? undefined : String(datum.port)
    case 'number':
    case 'protocol':
      return String(datum.value)
    // a word may stand for a number as well (unicast, http): both sides are called the same
    case 'name':
      return exactKey(datum.value) ?? datum.value
    case 'device':
      return exactKey(datum.name) ?? datum.name
    case 'concat': {
      const parts = datum.parts.map(datumKey)
      return parts.includes(undefined) ? undefined : parts.join(' . ')
    }
    default:
      return undefined
  }
}
