import {table} from '../util/table.js'
import type {RuleOption, RuleTarget} from '../parse/iptables-rule.js'
import {parseAddress, parseRange, type Address, type Range} from '../util/ip.js'
import {parseMark, type Unmodelled} from './iptables-matches.js'
import {destinationNat, masquerade, redirect, sourceNat, type NatTarget} from './nat.js'
import type {Verdict, Walker} from './walker.js'

export type Action = (walker: Walker, where: string) => Verdict

type Build = (options: readonly RuleOption[]) => Action | Unmodelled

const nothing: Action = () => 'continue'
const option = (options: readonly RuleOption[], ...names: string[]): RuleOption | undefined =>
  options.find(({name}) => names.includes(name))

const XOR_MASK = 0xffffffff

/** MARK: `(mark & ~mask) ^ value` for --set-xmark, or-ed into the mask for --set-mark (net/netfilter/xt_mark.c, libxt_MARK.c). */
function markChange(options: readonly RuleOption[]): ((mark: number) => number) | undefined {
  const found = option(options, 'set-xmark', 'set-mark', 'and-mark', 'or-mark', 'xor-mark')
  if (!found) return undefined
  const parsed = parseMark(found.values[0] ?? '')
  if (!parsed) return undefined
  const {value, mask} = parsed
  switch (found.name) {
    case 'set-xmark':
      return (mark) => ((mark & ~mask) ^ value) >>> 0
    case 'set-mark':
      return (mark) => ((mark & ~(mask | value)) ^ value) >>> 0
    case 'and-mark':
      return (mark) => (mark & value) >>> 0
    case 'or-mark':
      return (mark) => (mark | value) >>> 0
    default:
      return (mark) => (mark ^ value) >>> 0
  }
}

const hex = (value: number): string => `0x${value.toString(16)}`

const mark: Build = (options) => {
  const change = markChange(options)
  if (!change) return {unmodelled: 'MARK without a value'}
  return (walker, where) => {
    const before = walker.packet.mark
    walker.packet.mark = change(before)
    if (walker.steps)
      walker.hop('mark', `mark ${hex(before)} → ${hex(walker.packet.mark)}`, {where, mark: walker.packet.mark})
    return 'continue'
  }
}

const connmark: Build = (options) => {
  const masks = {
    nf: Number(option(options, 'nfmask', 'mask')?.values[0] ?? XOR_MASK),
    ct: Number(option(options, 'ctmask', 'mask')?.values[0] ?? XOR_MASK),
  }
  if (Number.isNaN(masks.nf) || Number.isNaN(masks.ct)) return {unmodelled: 'CONNMARK with a mask that is no number'}
  if (option(options, 'save-mark')) {
    return ({packet}) => {
      if (packet.connection)
        packet.connection.mark = ((packet.connection.mark & ~masks.ct) ^ (packet.mark & masks.nf)) >>> 0
      return 'continue'
    }
  }
  if (option(options, 'restore-mark')) {
    return ({packet}) => {
      if (packet.connection) packet.mark = ((packet.mark & ~masks.nf) ^ (packet.connection.mark & masks.ct)) >>> 0
      return 'continue'
    }
  }
  const change = markChange(options)
  if (!change) return {unmodelled: 'CONNMARK without a value'}
  return ({packet}) => {
    if (packet.connection) packet.connection.mark = change(packet.connection.mark)
    return 'continue'
  }
}

const reject: Build = (options) => {
  const kind = option(options, 'reject-with')?.values[0] ?? 'icmp-port-unreachable'
  const notice = kind === 'tcp-reset' || kind === 'tcp-rst' ? 'tcp reset' : 'icmp'
  return (walker, where) => ({
    outcome: 'refused',
    reason: `${where} on ${walker.machine.name} rejects it with ${kind}`,
    notice,
  })
}

/** `10.0.0.1-10.0.0.9:80-90`, `[fd00::1]:80`, `:80`. */
function parseNatTarget(text: string): NatTarget | undefined {
  const match =
    /^(?:\[([^\]]*)\](?:-\[([^\]]*)\])?|([^:[\]]*)|([\da-f:.]*::?[\da-f:.]*))(?::(\d+)(?:-(\d+)(?:\/\d+)?)?)?$/i.exec(
      text,
    )
  if (!match) return undefined
  const host =
    match[1] === undefined
      ? (match[3] ?? match[4] ?? '')
      : match[2] === undefined
        ? match[1]
        : `${match[1]}-${match[2]}`
  const range: Range | undefined = host === '' ? undefined : parseRange(host)
  if (host !== '' && !range) return undefined
  const low = match[5] === undefined ? undefined : Number(match[5])
  // nobody translates to port 0: so an iptables prints it that is older than the rule (kubernetes#114537)
  if (low === 0) return undefined
  return {
    ...(range ? {range} : {}),
    ...(low === undefined ? {} : {ports: [low, match[6] === undefined ? low : Number(match[6])] as const}),
  }
}

/** A bare IPv6 address has colons of its own: try the whole text as an address first. */
function natTargets(found: readonly RuleOption[]): NatTarget[] | undefined {
  const targets = found.map(({values: [text]}) => {
    const address = parseAddress(text ?? '')
    return address === undefined ? parseNatTarget(text ?? '') : {range: {lo: address, hi: address}}
  })
  return targets.length === 0 || targets.some((target) => target === undefined) ? undefined : (targets as NatTarget[])
}

const dnat: Build = (options) => {
  const targets = natTargets(options.filter(({name}) => name === 'to-destination'))
  return targets
    ? (walker, where) => destinationNat(walker, where, targets)
    : {unmodelled: 'DNAT whose --to-destination is missing or not understood'}
}

const snat: Build = (options) => {
  const targets = natTargets(options.filter(({name}) => name === 'to-source'))
  const random = option(options, 'random', 'random-fully') !== undefined
  return targets
    ? (walker, where) =>
        sourceNat(
          walker,
          where,
          targets.map((target) => ({...target, random})),
        )
    : {unmodelled: 'SNAT whose --to-source is missing or not understood'}
}

const redirectTarget: Build = (options) => {
  const text = option(options, 'to-ports', 'to-port')?.values[0]
  const ports = text === undefined ? undefined : /^(\d+)(?:-(\d+))?$/.exec(text)
  if (text !== undefined && !ports) return {unmodelled: `REDIRECT --to-ports ${text}`}
  return (walker, where) =>
    redirect(walker, where, ports ? [Number(ports[1]), Number(ports[2] ?? ports[1])] : undefined)
}

const NETMAP: Build = (options) => {
  const range = parseRange(option(options, 'to')?.values[0] ?? '')
  if (!range) return {unmodelled: 'NETMAP whose --to is not understood'}
  return (walker, where) => {
    const destination = walker.hook === 'PREROUTING' || walker.hook === 'OUTPUT'
    const current = destination ? walker.packet.dst : walker.packet.src
    if (current === 'client')
      return {outcome: 'unknown', reason: `${where}: NETMAP of a set of clients is not modelled`}
    const mapped = netmap(current, range)
    return (destination ? destinationNat : sourceNat)(walker, where, [{range: {lo: mapped, hi: mapped}}])
  }
}

function netmap(address: Address, {lo, hi}: Range): Address {
  if (typeof address === 'number') return Number(lo) + (address % (Number(hi) - Number(lo) + 1))
  return BigInt(lo) + (address % (BigInt(hi) - BigInt(lo) + 1n))
}

const notrack: Action = ({packet}) => {
  if (packet.connection === undefined) packet.state = 'UNTRACKED'
  return 'continue'
}

const ct: Build = (options) => {
  if (option(options, 'notrack')) return notrack
  const zone = option(options, 'zone', 'zone-orig', 'zone-reply')
  return zone ? {unmodelled: `CT --${zone.name}`} : nothing
}

const unmodelled =
  (name: string): Build =>
  () => ({unmodelled: `target ${name}`})
const passes: Build = () => nothing

/** A packet whose TTL is set or lowered may end on the way; one whose TTL is raised does not. */
const hopLimit =
  (harmless: string): Build =>
  (options) =>
    option(options, harmless) ? nothing : {unmodelled: 'a changed TTL'}

/** What a rule adds to a set may decide about the same packet further on. */
const writeSet: Build = (options) => {
  if (option(options, 'map-set')) return {unmodelled: 'SET --map-set'}
  const names = options
    .filter(({name}) => name === 'add-set' || name === 'del-set')
    .flatMap(({values}) => values[0] ?? [])
  return (walker) => {
    for (const name of names) walker.remember(`set ${name}`)
    return 'continue'
  }
}

/** Every target that is modelled; those of `passes` never change a packet's way. */
export const TARGETS: Readonly<Record<string, Build>> = table({
  ACCEPT: () => () => 'accept',
  DROP: () => (walker, where) => ({outcome: 'dropped', reason: `${where} on ${walker.machine.name} drops it`}),
  RETURN: () => () => 'return',
  REJECT: reject,
  MARK: mark,
  CONNMARK: connmark,
  DNAT: dnat,
  SNAT: snat,
  REDIRECT: redirectTarget,
  NETMAP,
  MASQUERADE: (options) => {
    const random = option(options, 'random', 'random-fully', 'to-ports') !== undefined
    return (walker, where) => masquerade(walker, where, random)
  },
  NOTRACK: () => notrack,
  CT: ct,
  LOG: passes,
  ULOG: passes,
  NFLOG: passes,
  TRACE: passes,
  AUDIT: passes,
  TCPMSS: passes,
  TCPOPTSTRIP: passes,
  TOS: passes,
  DSCP: passes,
  TTL: hopLimit('ttl-inc'),
  HL: hopLimit('hl-inc'),
  ECN: passes,
  CHECKSUM: passes,
  CLASSIFY: passes,
  SET: writeSet,
  TEE: () => (walker, where) => walker.copied(where) ?? 'continue',
  SECMARK: passes,
  CONNSECMARK: passes,
  IDLETIMER: passes,
  RATEEST: passes,
  LED: passes,
})

/** Targets that exist and are not modelled: the packet's fate is unknown once one matches. */
export const UNMODELLED_TARGETS = [
  'QUEUE',
  'NFQUEUE',
  'TPROXY',
  'SYNPROXY',
  'CLUSTERIP',
  'HMARK',
  'ACCOUNT',
  'CHAOS',
  'DELUDE',
  'TARPIT',
  'SAME',
  'MIRROR',
  'DNPT',
  'SNPT',
] as const

export function targetAction(target: RuleTarget): Action | Unmodelled | undefined {
  const build =
    TARGETS[target.name] ??
    ((UNMODELLED_TARGETS as readonly string[]).includes(target.name) ? unmodelled(target.name) : undefined)
  return build?.(target.options)
}

/** Can a rule with this target neither end nor change the packet? Then an unknown match before it does not matter. */
export const isHarmless = (action: Action): boolean => action === nothing
