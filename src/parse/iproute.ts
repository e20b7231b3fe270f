import {parseAddress, parseRange, prefixRange, type Address, type Family, type Range} from '../util/ip.js'
import {linksFromText, routesFromText, rulesFromText, type TextItems} from './ip-text.js'
import type {Problem} from './problem.js'

export interface Link {
  readonly index: number
  readonly name: string
  readonly up: boolean
  /** The bridge or bond that this device is a port of. */
  readonly master?: string
  /** `bridge`, `veth`, `vxlan`, `dummy`, … where `ip -d` told. */
  readonly kind?: string
  readonly tunnel?: Tunnel
  /** Of a veth pair whose other end is on the node itself: its name. */
  readonly peer?: string
  readonly mtu?: number
  /** It resolves no addresses, though its frames need them (`ip link set DEVICE arp off`). */
  readonly noArp?: boolean
  /** Its hardware address, in small letters. */
  readonly mac?: string
  readonly hairpin?: boolean
  /** Of a bridge: families whose packets go through iptables whatever the sysctls say (nf_call_iptables, nf_call_ip6tables). */
  readonly callsIptables?: readonly Family[]
  /** A bridge port that sends to no other isolated one. */
  readonly isolated?: boolean
  readonly loopback: boolean
  readonly group?: string
  /** An XDP program sees its packets before the kernel does. */
  readonly xdp: boolean
}

/** How a device wraps packets into packets between nodes. */
export interface Tunnel {
  readonly kind: 'vxlan' | 'geneve' | 'ipip' | 'gre' | 'wireguard'
  /** UDP port to which it sends; undefined for those without ports. */
  readonly port?: number
  /** The address that it is bound to. */
  readonly local?: Address
  /** Its other end, where it has one only. */
  readonly remote?: Address
  /** VXLAN that sends by the forwarding table alone, as nobody else fills it: `nolearning`, and no packet carries its own end. */
  readonly byTable?: boolean
}

export interface LocalAddress {
  readonly address: Address
  readonly length: number
  readonly device: string
  readonly scope: string
  readonly secondary: boolean
  /** IPv6: kept for old connections, taken for new ones only where there is no other (preferred lifetime 0). */
  readonly deprecated: boolean
}

export interface NextHop {
  readonly device?: string
  readonly gateway?: Address
  readonly weight: number
  readonly dead: boolean
}

export interface Route {
  readonly family: Family
  /** unicast, local, broadcast, anycast, multicast, blackhole, unreachable, prohibit, throw, nat */
  readonly type: string
  readonly destination: Range
  readonly length: number
  readonly table: string
  readonly metric: number
  /** For packets from there alone (`from`, IPv6 subtrees). */
  readonly from?: Range & {readonly length: number}
  readonly source?: Address
  readonly scope: string
  readonly nextHops: readonly NextHop[]
  readonly text: string
}

export interface PolicyRule {
  readonly family: Family | undefined
  readonly priority: number
  readonly not: boolean
  readonly source?: Range
  readonly destination?: Range
  readonly mark?: {value: number; mask: number}
  readonly inDevice?: string
  readonly outDevice?: string
  readonly table?: string
  /** lookup, unreachable, blackhole, prohibit, goto */
  readonly action: string
  readonly goto?: number
  readonly suppressLength?: number
  /** Selectors that are there and not modelled: uidrange, ipproto, sport, … */
  readonly unmodelled: readonly string[]
  readonly text: string
}

export interface Neighbour {
  readonly address: Address
  readonly device: string
  readonly mac?: string
  readonly state: string
}

export interface BridgeEntry {
  readonly mac: string
  readonly device: string
  /** The other end of the tunnel that has it. */
  readonly remote?: Address
}

type Json = Record<string, unknown>
export interface Parsed<T> {
  readonly value: T[]
  readonly problems: Problem[]
}

/** Reads a list as `ip -j` prints it, or as `ip` prints it for people; a broken one is a problem, not an exception. */
function readList<T>(
  text: string,
  file: string,
  read: (item: Json) => T | readonly T[] | undefined,
  fromText: (text: string) => TextItems | undefined = () => undefined,
): Parsed<T> {
  const problems: Problem[] = []
  if (text.trim() === '') return {value: [], problems}
  let items: unknown
  try {
    items = JSON.parse(text)
  } catch (error) {
    const told = /^\s*[[{]/.test(text) ? undefined : fromText(text)
    if (!told) {
      const message = file.endsWith('.json')
        ? `not valid JSON (cut short?): ${(error as Error).message}`
        : 'no line of it is what `ip` prints (ip -br, ifconfig and route -n are not read)'
      return {value: [], problems: [{file, line: 0, message}]}
    }
    for (const {line, text: words} of told.strange)
      problems.push({file, line, message: 'not a line of ip', text: words})
    items = told.items
  }
  if (!Array.isArray(items)) return {value: [], problems: [{file, line: 0, message: 'not a list as ip -j prints it'}]}
  const value: T[] = []
  items.forEach((item: unknown, at) => {
    if (isEmpty(item)) return
    const read1 = typeof item === 'object' && item !== null ? read(item as Json) : undefined
    if (read1 === undefined)
      problems.push({
        file,
        line: 0,
        message: `entry ${at + 1} is not understood`,
        text: JSON.stringify(item).slice(0, 200),
      })
    else if (Array.isArray(read1)) value.push(...(read1 as T[]))
    else value.push(read1 as T)
  })
  return {value, problems}
}

const isEmpty = (item: unknown): boolean => typeof item === 'object' && item !== null && Object.keys(item).length === 0
const string = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined)
const number = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined)
const strings = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : []

/** drivers/net/vxlan: 8472 where nothing else was asked for; RFC 8926 for Geneve. */
const TUNNEL_PORTS = {vxlan: 8472, geneve: 6081} as const

/** Without `-d` only the type of the link tells; that of VXLAN and Geneve is Ethernet. */
function tunnelOf(kind: string | undefined, type: string | undefined, data: unknown): Tunnel | undefined {
  const info = (data ?? {}) as Json
  const local = parseAddress(string(info['local']) ?? string(info['local6']) ?? '')
  const remote = parseAddress(string(info['remote']) ?? string(info['remote6']) ?? '')
  const ends = {...(local === undefined ? {} : {local}), ...(remote === undefined ? {} : {remote})}
  if (kind === 'wireguard') return {kind}
  const byTable = kind === 'vxlan' && info['learning'] === false && info['external'] !== true
  if (kind === 'vxlan' || kind === 'geneve')
    return {kind, port: number(info['port']) ?? TUNNEL_PORTS[kind], ...ends, ...(byTable ? {byTable} : {})}
  if (kind === 'ipip' || (kind === undefined && type === 'ipip')) return {kind: 'ipip', ...ends}
  return kind === 'gre' || kind === 'gretap' || (kind === undefined && type === 'gre')
    ? {kind: 'gre', ...ends}
    : undefined
}

function bridgeCalls(data: unknown): Pick<Link, 'callsIptables'> {
  const info = (data ?? {}) as Json
  const on = (name: string): boolean => Number(info[name] ?? 0) === 1
  const families = ([4, 6] as const).filter((family) => on(family === 4 ? 'nf_call_iptables' : 'nf_call_ip6tables'))
  return families.length > 0 ? {callsIptables: families} : {}
}

const isMac = (text: string): boolean => /^([\da-f]{2}:){5}[\da-f]{2}$/i.test(text)

/** Parses `ip -j [-d] link` (and the links inside `ip -j addr`). */
export function parseLinks(text: string, file: string): Parsed<Link> {
  return readList(
    text,
    file,
    (item) => {
      const name = string(item['ifname'])
      if (name === undefined) return undefined
      const flags = strings(item['flags'])
      const info = (item['linkinfo'] ?? {}) as Json
      const slave = (info['info_slave_data'] ?? {}) as Json
      const master = string(item['master'])
      const kind = string(info['info_kind'])
      const tunnel = tunnelOf(kind, string(item['link_type']), info['info_data'])
      const mtu = number(item['mtu'])
      const group = string(item['group'])
      const mac = string(item['address'])
      return {
        index: number(item['ifindex']) ?? 0,
        name,
        up: flags.includes('UP'),
        loopback: flags.includes('LOOPBACK'),
        xdp: item['xdp'] !== undefined,
        ...(master === undefined ? {} : {master}),
        ...(kind === undefined ? {} : {kind}),
        ...(tunnel === undefined ? {} : {tunnel}),
        ...(kind === 'veth' && typeof item['link'] === 'string' ? {peer: item['link']} : {}),
        ...(mtu === undefined ? {} : {mtu}),
        ...(flags.includes('NOARP') && string(item['link_type']) === 'ether' ? {noArp: true} : {}),
        ...(mac !== undefined && isMac(mac) ? {mac: mac.toLowerCase()} : {}),
        ...(group === undefined ? {} : {group}),
        ...(typeof slave['hairpin'] === 'boolean' ? {hairpin: slave['hairpin']} : {}),
        ...(kind === 'bridge' ? bridgeCalls(info['info_data']) : {}),
        ...(slave['isolated'] === true ? {isolated: true} : {}),
      }
    },
    linksFromText,
  )
}

/** Parses `ip -j addr`. */
export function parseAddresses(text: string, file: string): Parsed<LocalAddress> {
  return readList(
    text,
    file,
    (item) => {
      const device = string(item['ifname'])
      if (device === undefined) return undefined
      const infos = Array.isArray(item['addr_info']) ? (item['addr_info'] as Json[]) : []
      if (infos.some((info) => hidden(info['local']))) return undefined
      return infos
        .filter((info) => !isEmpty(info) && !isTentative(info))
        .flatMap((info): LocalAddress[] => {
          const address = parseAddress(string(info['local']) ?? '')
          if (address === undefined) return []
          return [
            {
              address,
              length: number(info['prefixlen']) ?? 32,
              device,
              scope: string(info['scope']) ?? 'global',
              secondary: info['secondary'] === true,
              deprecated: info['deprecated'] === true || info['preferred_life_time'] === 0,
            },
          ]
        })
    },
    linksFromText,
  )
}

/** Not the node's yet, or never: duplicate address detection is under way or has failed. */
const isTentative = (info: Json): boolean =>
  info['dadfailed'] === true || (info['tentative'] === true && info['optimistic'] !== true)

/** Parses `ip -j route show table all` (both families in one file, or one each). */
export function parseRoutes(text: string, file: string, family?: Family): Parsed<Route> {
  return readList(
    text,
    file,
    (item) => {
      const destination = string(item['dst'])
      const gateway = parseAddress(string(item['gateway']) ?? '')
      const via = parseAddress(string((item['via'] as Json | undefined)?.['host']) ?? '')
      const source = parseAddress(string(item['prefsrc']) ?? '')
      const foreign = via !== undefined && (item['via'] as Json)['family'] === 'inet6'
      const hop = gateway ?? via
      if (hidden(item['gateway']) || hidden(item['prefsrc'])) return undefined
      // packets get wrapped, and ip before 6.15 prints the outer destination in the place of the route's own
      if ('encap' in item) return undefined
      // for packets with that type of service alone, and ours have none
      if (Number(item['tos'] ?? 0) !== 0) return []
      const known =
        familyFromText(destination) ??
        familyOfAddress(foreign ? source : (hop ?? source)) ??
        (foreign ? 4 : family) ??
        guessFamily(item)
      const range =
        destination === 'default' || destination === undefined
          ? known === 4
            ? parseRange('0.0.0.0/0')
            : parseRange('::/0')
          : parseRange(destination)
      const from = parseRange(string(item['from']) ?? '')
      if (!range || (item['from'] !== undefined && !from)) return undefined
      return {
        family: known,
        type: string(item['type']) ?? 'unicast',
        destination: range,
        length: lengthOf(destination, known),
        table: String(item['table'] ?? 'main'),
        metric: number(item['metric']) ?? 0,
        ...(from ? {from: {...from, length: lengthOf(string(item['from']), known)}} : {}),
        ...(source === undefined ? {} : {source}),
        scope: string(item['scope']) ?? 'global',
        nextHops: nextHopsOf(item, hop),
        text: routeText(item),
      }
    },
    routesFromText,
  )
}

/** An address that somebody blacked out: without it the entry would say something else. */
const hidden = (value: unknown): boolean =>
  typeof value === 'string' && parseAddress(value) === undefined && parseRange(value) === undefined

/** `ip -j -6 route` gives every route a `pref` and a `metric`; IPv4 never has `pref`. */
const guessFamily = (item: Json): Family => ('pref' in item ? 6 : 4)
const familyFromText = (text: string | undefined): Family | undefined =>
  text === undefined || text === 'default' ? undefined : text.includes(':') ? 6 : 4
const familyOfAddress = (address: Address | undefined): Family | undefined =>
  address === undefined ? undefined : typeof address === 'number' ? 4 : 6

function lengthOf(destination: string | undefined, family: Family): number {
  if (destination === undefined || destination === 'default') return 0
  const slash = destination.indexOf('/')
  return slash < 0 ? (family === 4 ? 32 : 128) : Number(destination.slice(slash + 1))
}

function nextHopsOf(item: Json, gateway: Address | undefined): NextHop[] {
  const list = Array.isArray(item['nexthops']) ? (item['nexthops'] as Json[]) : []
  if (list.length === 0) return [nextHop(item, gateway)]
  return list.map((hop) =>
    nextHop(hop, parseAddress(string(hop['gateway']) ?? string((hop['via'] as Json | undefined)?.['host']) ?? '')),
  )
}

function nextHop(item: Json, gateway: Address | undefined): NextHop {
  const device = string(item['dev'])
  const flags = strings(item['flags'])
  return {
    ...(device === undefined ? {} : {device}),
    ...(gateway === undefined ? {} : {gateway}),
    weight: number(item['weight']) ?? 1,
    dead: flags.includes('dead'),
  }
}

function routeText(item: Json): string {
  const words = [string(item['type']), string(item['dst']) ?? 'default']
  if (item['gateway']) words.push('via', string(item['gateway']))
  if (item['dev']) words.push('dev', string(item['dev']))
  if (item['table'] && item['table'] !== 'main') words.push('table', String(item['table']))
  if (item['metric']) words.push('metric', String(item['metric']))
  if (item['prefsrc']) words.push('src', string(item['prefsrc']))
  return words.filter((word) => word !== undefined).join(' ')
}

const RULE_KEYS = new Set([
  'priority',
  'src',
  'srclen',
  'dst',
  'dstlen',
  'fwmark',
  'fwmask',
  'iif',
  'oif',
  'table',
  'action',
  'goto',
  'not',
  'protocol',
  'suppress_prefixlen',
  'suppress_prefixlength',
  'nop',
  'iif_detached',
  'oif_detached',
  'unresolved',
  'l3mdev',
])

/** Parses `ip -j rule`. */
export function parsePolicyRules(text: string, file: string, family?: Family): Parsed<PolicyRule> {
  return readList(
    text,
    file,
    (item) => {
      const priority = number(item['priority'])
      if (priority === undefined) return undefined
      if ([item['src'], item['dst']].some((value) => value !== 'all' && hidden(value))) return undefined
      const source = prefixOf(item, 'src')
      const destination = prefixOf(item, 'dst')
      const mark = markOf(item)
      const inDevice = string(item['iif'])
      const outDevice = string(item['oif'])
      const table = item['table'] === undefined ? undefined : String(item['table'])
      const goto = number(item['goto'])
      const suppressLength = number(item['suppress_prefixlen']) ?? number(item['suppress_prefixlength'])
      return {
        family: familyOfAddress(source?.lo ?? destination?.lo) ?? family,
        priority,
        not: 'not' in item,
        ...(source ? {source} : {}),
        ...(destination ? {destination} : {}),
        ...(mark ? {mark} : {}),
        ...(inDevice === undefined ? {} : {inDevice}),
        ...(outDevice === undefined ? {} : {outDevice}),
        ...(table === undefined ? {} : {table}),
        ...(goto === undefined ? {} : {goto}),
        ...(suppressLength === undefined ? {} : {suppressLength}),
        action: string(item['action']) ?? ('nop' in item ? 'nop' : goto === undefined ? 'lookup' : 'goto'),
        unmodelled: [
          ...Object.keys(item).filter((key) => !RULE_KEYS.has(key)),
          ...('l3mdev' in item ? ['l3mdev'] : []),
        ],
        text: JSON.stringify(item),
      }
    },
    rulesFromText,
  )
}

function prefixOf(item: Json, key: 'src' | 'dst'): Range | undefined {
  const text = string(item[key])
  if (text === undefined || text === 'all') return undefined
  const address = parseAddress(text)
  if (address === undefined) return parseRange(text)
  return prefixRange(address, number(item[`${key}len`]) ?? (typeof address === 'number' ? 32 : 128))
}

function markOf(item: Json): {value: number; mask: number} | undefined {
  if (item['fwmark'] === undefined) return undefined
  const [value, mask] = String(item['fwmark']).split('/')
  return {value: Number(value), mask: Number(item['fwmask'] ?? mask ?? 0xffffffff)}
}

/** Parses `ip -j neigh`. */
export function parseNeighbours(text: string, file: string): Parsed<Neighbour> {
  return readList(text, file, (item) => {
    const address = parseAddress(string(item['dst']) ?? '')
    const mac = string(item['lladdr'])?.toLowerCase()
    if (address === undefined) return undefined
    return {
      address,
      device: string(item['dev']) ?? '',
      ...(mac === undefined ? {} : {mac}),
      state: strings(item['state']).join(','),
    }
  })
}

/** Parses `bridge -j fdb`. */
export function parseBridgeFdb(text: string, file: string): Parsed<BridgeEntry> {
  return readList(text, file, (item) => {
    const mac = string(item['mac'])?.toLowerCase()
    const remote = parseAddress(string(item['dst']) ?? '')
    return mac === undefined
      ? undefined
      : {mac, device: string(item['ifname']) ?? '', ...(remote === undefined ? {} : {remote})}
  })
}
