import {isLeftOut, PROMPT} from './pasted.js'

/** What `ip` prints for people, as the items of `ip -j`: the same readers take both. Source: iproute2 ip/iproute.c, iprule.c, ipaddress.c. */

type Json = Record<string, unknown>

export interface TextItems {
  readonly items: Json[]
  /** Lines that are not understood. */
  readonly strange: readonly {readonly line: number; readonly text: string}[]
}

type ReadLine = (words: readonly string[], line: string, items: Json[]) => boolean

/** Undefined where no line looks like one of `ip`'s. */
function readLines(text: string, read: ReadLine): TextItems | undefined {
  const items: Json[] = []
  const strange: {line: number; text: string}[] = []
  text.split('\n').forEach((raw, at) => {
    const line = raw.replaceAll('\t', ' ').trimEnd()
    if (line.trim() === '' || (PROMPT.test(line) && !isLeftOut(line)) || /^\S*[$#] ip /.test(line)) return
    if (isLeftOut(line) || !read(line.trim().split(/\s+/), line, items)) strange.push({line: at + 1, text: line.trim()})
  })
  return items.length === 0 ? undefined : {items, strange}
}

const ROUTE_TYPES = new Set(
  'unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat'.split(' '),
)
/** Words with a value that no route is chosen by. */
const ROUTE_VALUES = new Set(
  'proto pref expires error mtu advmss nhid hoplimit initcwnd initrwnd quickack rtt rttvar rto_min cwnd window ssthresh congctl realm realms age'.split(
    ' ',
  ),
)
const ROUTE_FLAGS = new Set(
  'onlink linkdown dead offload trap rt_offload rt_trap pervasive cache notify unresolved'.split(' '),
)
const DESTINATION = /^(default|[\da-f.:]+(\/\d+)?)$/i

/** `ip route`, `ip route show table all`, with `nexthop` lines. */
export const routesFromText = (text: string): TextItems | undefined =>
  readLines(text, (words, _line, items) => {
    if (words[0] === 'nexthop') return items.length > 0 && addNextHop(items.at(-1)!, words.slice(1))
    const typed = ROUTE_TYPES.has(words[0]!)
    const destination = words[typed ? 1 : 0] ?? ''
    if (!DESTINATION.test(destination)) return false
    const item: Json = {dst: destination, flags: [], ...(typed ? {type: words[0]} : {})}
    if (!routeWords(item, words.slice(typed ? 2 : 1))) return false
    items.push(item)
    return true
  })

function addNextHop(route: Json, words: readonly string[]): boolean {
  const hop: Json = {flags: []}
  if (!routeWords(hop, words)) return false
  route['nexthops'] = [...((route['nexthops'] as Json[] | undefined) ?? []), hop]
  return true
}

function routeWords(item: Json, words: readonly string[]): boolean {
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    if (ROUTE_FLAGS.has(word)) {
      ;(item['flags'] as string[]).push(word)
      continue
    }
    const value = words[++at]
    if (value === undefined) return false
    if (word === 'via' && (value === 'inet6' || value === 'inet')) item['via'] = {family: value, host: words[++at]}
    else if (word === 'via') item['gateway'] = value
    else if (word === 'src') item['prefsrc'] = value
    else if (word === 'metric' || word === 'weight') item[word] = Number(value)
    else if (word === 'dev' || word === 'scope' || word === 'table' || word === 'tos' || word === 'from')
      item[word] = value
    else if (!ROUTE_VALUES.has(word)) return false
  }
  return true
}

/** Words of a rule and their names in `ip -j rule`. */
const RULE_WORDS: Readonly<Record<string, string>> = {
  from: 'src',
  to: 'dst',
  fwmark: 'fwmark',
  iif: 'iif',
  oif: 'oif',
  lookup: 'table',
  table: 'table',
  suppress_prefixlength: 'suppress_prefixlen',
  proto: 'protocol',
  protocol: 'protocol',
  goto: 'goto',
}
const RULE_ACTIONS = new Set(['unreachable', 'blackhole', 'prohibit'])

/** `ip rule`: `32765: not from all fwmark 0xca6c/0xff lookup 51820`. */
export const rulesFromText = (text: string): TextItems | undefined =>
  readLines(text, (words, _line, items) => {
    const priority = /^(\d+):$/.exec(words[0] ?? '')?.[1]
    if (priority === undefined) return false
    const item: Json = {priority: Number(priority)}
    for (let at = 1; at < words.length; at++) {
      const word = words[at]!
      if (word === 'not' || word === 'nop') item[word] = null
      else if (RULE_ACTIONS.has(word)) item['action'] = word
      else if (word === '[detached]') continue
      else if (word === '[l3mdev-table]' || words[at + 1] === '[l3mdev-table]') {
        item['l3mdev'] = null
        if (word === 'lookup') at++
      } else if (!ruleWord(item, RULE_WORDS[word] ?? word, words[++at])) return false
    }
    items.push(item)
    return true
  })

function ruleWord(item: Json, key: string, value: string | undefined): boolean {
  if (value === undefined) return false
  if (key === 'src' || key === 'dst') {
    const [address, length] = value.split('/')
    item[key] = address
    if (length !== undefined) item[`${key}len`] = Number(length)
  } else if (key === 'fwmark') {
    const [mark, mask] = value.split('/')
    item['fwmark'] = mark
    if (mask !== undefined) item['fwmask'] = mask
  } else item[key] = key === 'goto' || key === 'suppress_prefixlen' ? Number(value) : value
  return true
}

const LINK = /^(\d+): ([^\s@]+)(?:@(\S+))?: <([A-Z0-9_,-]*)>(.*)$/
/** `ip -o addr`: `2: eth0    inet 10.0.0.1/24 brd … scope global eth0\       valid_lft …`. */
const ONE_LINE = /^\d+: (\S+)\s+(inet6? .*)$/
/** Kinds that `ip -d link` names at the beginning of a line. */
const KINDS =
  /^(bridge|veth|vxlan|geneve|ipip|ip6tnl|gretap|gre|sit|dummy|wireguard|bond|vlan|macvlan|ipvlan|tun|openvswitch|vrf|vcan|ifb|nlmon)( |$)/

/** `ip addr`, `ip link`, with `-d` and with `-o`. */
export const linksFromText = (text: string): TextItems | undefined =>
  readLines(text, (words, line, items) => {
    const head = LINK.exec(line.trim())
    if (head) return items.push(linkOf(head)) > 0
    const single = ONE_LINE.exec(line.trim())
    if (single) {
      const [, ifname, words] = single
      return items.push({ifname, flags: ['UP'], addr_info: [addressOf(words!.split(/[\s\\]+/))]}) > 0
    }
    const link = items.at(-1)
    if (!link || !/^\s/.test(line)) return false
    if (words[0] === 'inet' || words[0] === 'inet6') (link['addr_info'] as Json[]).push(addressOf(words))
    else details(link, words)
    return true
  })

function linkOf([, index, name, peer, flags, rest]: RegExpExecArray): Json {
  const words = rest!.trim().split(/\s+/)
  const after = (word: string): string | undefined =>
    words.includes(word) ? words[words.indexOf(word) + 1] : undefined
  return {
    ifindex: Number(index),
    ifname: name,
    flags: flags!.split(','),
    ...(peer === undefined ? {} : {link: peer}),
    ...(after('mtu') === undefined ? {} : {mtu: Number(after('mtu'))}),
    ...(after('master') === undefined ? {} : {master: after('master')}),
    ...(after('group') === undefined ? {} : {group: after('group')}),
    ...(words.some((word) => word.startsWith('xdp')) ? {xdp: {}} : {}),
    addr_info: [],
  }
}

/** `inet 10.0.0.1/24 brd 10.0.0.255 scope global secondary eth0`, `inet 10.0.0.1 peer 10.0.0.2/32 …`. */
function addressOf(words: readonly string[]): Json {
  const after = (word: string): string | undefined =>
    words.includes(word) ? words[words.indexOf(word) + 1] : undefined
  const [local, own] = (words[1] ?? '').split('/')
  const length = own ?? after('peer')?.split('/')[1] ?? (words[0] === 'inet6' ? '128' : '32')
  const flags = ['secondary', 'deprecated', 'tentative', 'dadfailed', 'optimistic'].filter((flag) =>
    words.includes(flag),
  )
  return {
    family: words[0],
    local,
    prefixlen: Number(length),
    scope: after('scope') ?? 'global',
    ...(after('preferred_lft') === '0sec' ? {preferred_life_time: 0} : {}),
    ...Object.fromEntries(flags.map((flag) => [flag, true])),
  }
}

/** The lines below a device: its type, its kind, what it is as a port, lifetimes of the last address. */
function details(link: Json, words: readonly string[]): void {
  const line = words.join(' ')
  const value = (pattern: RegExp): string | undefined => pattern.exec(line)?.[1]
  if (words[0] === 'valid_lft') {
    const last = (link['addr_info'] as Json[]).at(-1)
    if (last && words[3] === '0sec') last['preferred_life_time'] = 0
    return
  }
  if (words[0]!.startsWith('link/')) {
    link['link_type'] = words[0]!.slice(5)
    link['address'] = words[1]
  }
  if (/\bprog\/xdp\b/.test(line)) link['xdp'] = {}
  const info = (link['linkinfo'] ?? {}) as Json
  const kind = KINDS.exec(line)?.[1]
  if (kind !== undefined) {
    info['info_kind'] = kind
    const [port, local, remote] = [/\bdstport (\d+)/, /\blocal ([\da-f.:]+)/, /\bremote ([\da-f.:]+)/].map(value)
    info['info_data'] = {
      ...(port === undefined ? {} : {port: Number(port)}),
      ...(local === undefined ? {} : {local}),
      ...(remote === undefined ? {} : {remote}),
      ...(kind === 'vxlan' ? {learning: !/\bnolearning\b/.test(line), external: /\bexternal\b/.test(line)} : {}),
      ...(kind === 'bridge' ? bridgeFlags(line) : {}),
    }
  }
  const [hairpin, isolated] = [/\bhairpin (on|off)/, /\bisolated (on|off)/].map(value)
  if (hairpin !== undefined || isolated !== undefined)
    info['info_slave_data'] = {
      ...(hairpin === undefined ? {} : {hairpin: hairpin === 'on'}),
      ...(isolated === undefined ? {} : {isolated: isolated === 'on'}),
    }
  if (Object.keys(info).length > 0) link['linkinfo'] = info
}

function bridgeFlags(line: string): Json {
  const flags: Json = {}
  for (const [, name, value] of line.matchAll(/\b(nf_call_iptables|nf_call_ip6tables) (\d)/g))
    flags[name!] = Number(value)
  return flags
}
