import {CLIENTS, PODS, PORTS, ROUTER, VIPS, type Part, type Shot} from './lab.js'
import {nativeTable} from './generate-nft.js'

/** A seeded source of choices (mulberry32). */
export class Dice {
  private state: number

  constructor(seed: number) {
    this.state = Math.imul(seed, 0x9e3779b1) >>> 0
  }

  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = Math.imul(this.state ^ (this.state >>> 15), this.state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }

  int(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1))
  }

  chance(share: number): boolean {
    return this.next() < share
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.next() * list.length)]!
  }

  /** By weight. */
  weigh<T>(entries: readonly (readonly [number, T])[]): T {
    let left = this.next() * entries.reduce((sum, [weight]) => sum + weight, 0)
    return (entries.find(([weight]) => (left -= weight) < 0) ?? entries.at(-1)!)[1]
  }

  some<T>(list: readonly T[], most: number): T[] {
    const copy = [...list]
    return Array.from({length: Math.min(this.int(1, most), list.length)}, () => copy.splice(this.int(0, copy.length - 1), 1)[0]!)
  }

  times<T>(low: number, high: number, make: (at: number) => T): T[] {
    return Array.from({length: this.int(low, high)}, (_, at) => make(at))
  }
}

export const DEVICES = ['eth0', 'cni0', 'eth2', 'wan0', 'lo', 'eth+']
const SOURCES = [...CLIENTS, ...PODS, ...ROUTER]
const TARGETS = [...VIPS, ...PODS, ...ROUTER, '127.0.0.1']
export const source = (dice: Dice): string => network(dice, SOURCES)
export const target = (dice: Dice): string => network(dice, TARGETS)

function network(dice: Dice, hosts: readonly string[]): string {
  return dice.pick(hosts) + dice.weigh([[6, ''], [1, `/${dice.pick([16, 22, 23, 24, 27, 29, 30, 31])}`]])
}

/** Two addresses in order, both of one /24. */
export function span(dice: Dice, hosts: readonly string[]): [string, string] {
  const host = dice.pick(hosts)
  const [base, last] = [host.slice(0, host.lastIndexOf('.')), Number(host.slice(host.lastIndexOf('.') + 1))]
  return [`${base}.${dice.int(0, last)}`, `${base}.${dice.int(last, 255)}`]
}

export const portSpan = (dice: Dice): [number, number] => {
  const ports = [dice.pick([1, 100, 500, 5000, 6000]), dice.pick([90, 450, 8079, 8081, 10000])]
  return [Math.min(...ports), Math.max(...ports)]
}

export const SPORTS: readonly (readonly [number, number])[] = [[20000, 40000], [1, 30000], [30000, 65535], [25000, 55000]]

interface Place {
  readonly table: string
  /** The hooks that may lead here. */
  readonly hooks: readonly string[]
  readonly base: boolean
  /** Chains that may be called. */
  readonly below: readonly string[]
  readonly sets: readonly SetInfo[]
}

interface SetInfo {
  readonly name: string
  readonly dimensions: number
}

const not = (dice: Dice): string => (dice.chance(0.25) ? '! ' : '')
const STATES = ['NEW', 'ESTABLISHED', 'RELATED', 'INVALID', 'UNTRACKED', 'DNAT', 'SNAT']

type MatchMaker = (dice: Dice, place: Place, proto: string) => string

const MATCHES: readonly (readonly [number, MatchMaker])[] = [
  [3, (dice, _, proto) => (proto === '' ? '' : `${proto === 'all' ? '' : `-m ${proto} `}${not(dice)}--dport ${dice.chance(0.7) ? dice.pick(PORTS) : portSpan(dice).join(':')}`)],
  [1, (dice, _, proto) => (proto === '' ? '' : `-m ${proto} ${not(dice)}--sport ${dice.pick(SPORTS).join(':')}`)],
  [1, (dice, _, proto) => (proto === 'tcp' ? `-m tcp ${dice.pick(['--syn', '! --syn', '--tcp-flags SYN,ACK SYN', '--tcp-flags ACK ACK', '--tcp-flags ALL SYN,ACK', '! --tcp-flags SYN,RST SYN'])}` : '')],
  [2, (dice, _, proto) => (proto === '' ? '' : `-m multiport ${not(dice)}--${dice.pick(['dports', 'dports', 'ports', 'sports'])} ${[...dice.some(PORTS, 3), portSpan(dice).join(':')].slice(0, dice.int(1, 4)).join(',')}`)],
  [2, (dice) => `-m mark ${not(dice)}--mark ${dice.pick(['0x1', '0x4000/0x4000', '0x0/0x4000', '0x2/0xff', '0x0', '0x4001'])}`],
  [1, (dice) => `-m connmark ${not(dice)}--mark ${dice.pick(['0x1', '0x4000/0x4000', '0x0/0xf', '0x2/0xff'])}`],
  [2, (dice) => `-m conntrack ${not(dice)}--ctstate ${dice.some(STATES, 3).join(',')}`],
  [1, (dice) => `-m state ${not(dice)}--state ${dice.some(STATES.slice(0, 5), 3).join(',')}`],
  [1, (dice) => `-m conntrack ${not(dice)}--${dice.pick([`ctorigsrc ${source(dice)}`, `ctorigdst ${target(dice)}`, `ctreplsrc ${target(dice)}`, `ctrepldst ${source(dice)}`, `ctorigdstport ${dice.pick(PORTS)}`, `ctreplsrcport ${dice.pick(PORTS)}`, `ctstatus ${dice.pick(['SEEN_REPLY', 'CONFIRMED', 'NONE', 'ASSURED', 'EXPECTED'])}`])}`],
  [1, (dice) => `-m conntrack --ctdir ${dice.pick(['ORIGINAL', 'REPLY'])}`],
  [2, (dice) => `-m addrtype ${not(dice)}--${dice.pick(['src', 'dst'])}-type ${dice.pick(['LOCAL', 'LOCAL', 'UNICAST', 'LOCAL,UNICAST', 'BROADCAST'])}`],
  [1, (dice, {hooks, base}) => (base && hooks[0] === 'PREROUTING' ? `-m addrtype ${not(dice)}--dst-type LOCAL --limit-iface-in` : '')],
  [1, (dice) => `-m iprange ${not(dice)}--src-range ${span(dice, SOURCES).join('-')}`],
  [1, (dice) => `-m iprange ${not(dice)}--dst-range ${span(dice, TARGETS).join('-')}`],
  [4, (dice, {sets}) => setMatch(dice, sets)],
  [1, (dice) => `-m statistic --mode random ${not(dice)}--probability ${dice.pick([0, 1])}`],
  [1, (dice) => `-m comment --comment "${dice.pick(['a b', "it's", 'x -j DROP', '-'])}"`],
  [0.5, (dice, {hooks}) => (hooks.some((hook) => hook === 'OUTPUT' || hook === 'POSTROUTING') ? '' : `-m policy --dir in --pol ${dice.pick(['none', 'ipsec'])}`)],
  [0.3, (dice) => `-m recent ${not(dice)}--rcheck --name never-seen`],
  [0.3, (dice) => `-m physdev ${not(dice)}--physdev-is-in`],
  [1, (dice, {table, hooks}) => (hooks.every((hook) => hook === 'PREROUTING') && (table === 'raw' || table === 'mangle') ? `-m rpfilter${dice.pick(['', ' --loose', ' --invert', ' --validmark', ' --accept-local'])}` : '')],
]

function setMatch(dice: Dice, sets: readonly SetInfo[]): string {
  if (sets.length === 0) return ''
  const {name, dimensions} = dice.pick(sets)
  return `-m set ${not(dice)}--match-set ${name} ${Array.from({length: dimensions}, () => dice.pick(['src', 'dst', 'dst'])).join(',')}`
}

function device(dice: Dice, {hooks, base}: Place): string {
  const incoming = !base || ['PREROUTING', 'INPUT', 'FORWARD'].includes(hooks[0]!)
  const outgoing = !base || ['POSTROUTING', 'OUTPUT', 'FORWARD'].includes(hooks[0]!)
  return `${not(dice)}${dice.pick([...(incoming ? ['-i'] : []), ...(outgoing ? ['-o'] : [])])} ${dice.pick(DEVICES)}`
}

const REJECTS = ['port', 'host', 'net', 'proto'].map((what) => `icmp-${what}-unreachable`).concat('icmp-admin-prohibited', 'icmp-host-prohibited')
const place4 = (dice: Dice, port: boolean): string => `${dice.pick([...PODS, ...PODS, ...PODS, ROUTER[0]!, ROUTER[2]!])}${port && dice.chance(0.7) ? `:${dice.pick(PORTS)}` : ''}`

function jump(dice: Dice, place: Place, proto: string): string {
  const ports = proto !== ''
  const common: (readonly [number, string])[] = [
    [2, '-j ACCEPT'], [2, '-j RETURN'],
    [2, `-j MARK --${dice.pick(['set-xmark 0x4000/0x4000', 'set-xmark 0x1/0xffffffff', 'or-mark 0x2', 'and-mark 0xfffffffd', 'xor-mark 0x4000', 'set-mark 0x1/0xf', 'set-xmark 0x4000/0x0'])}`],
    [1, `-j CONNMARK --${dice.pick(['save-mark', 'restore-mark', 'set-xmark 0x1/0xffffffff', 'or-mark 0x4000', 'save-mark --nfmask 0xff --ctmask 0xff', 'restore-mark --nfmask 0x4000 --ctmask 0x4000'])}`],
    ...(place.below.length > 0 ? [[5, `-${dice.chance(0.75) ? 'j' : 'g'} ${dice.pick(place.below)}`] as const] : []),
  ]
  const own: Record<string, (readonly [number, string])[]> = {
    raw: [[1, '-j DROP'], [1, '-j NOTRACK'], [1, '-j CT --notrack']],
    mangle: [[1, '-j DROP'], [1, '-j LOG']],
    security: [[2, '-j DROP']],
    filter: [[5, '-j ACCEPT'], [3, '-j DROP'], [2, `-j REJECT --reject-with ${dice.pick(REJECTS)}`], [1, '-j REJECT'], ...(proto === 'tcp' ? [[2, '-j REJECT --reject-with tcp-reset'] as const] : [])],
    nat: place.hooks.some((hook) => hook === 'PREROUTING' || hook === 'OUTPUT')
      ? [[7, `-j DNAT --to-destination ${place4(dice, ports)}`], [2, `-j REDIRECT${ports ? ` --to-ports ${dice.pick(PORTS.slice(-2))}` : ''}`], ...(dice.chance(0.2) ? [[3, '-j NETMAP --to 10.77.2.0/24'] as const] : [])]
      : [...(place.hooks.includes('POSTROUTING') ? [[7, '-j MASQUERADE'] as const] : []), [3, `-j SNAT --to-source ${dice.pick([ROUTER[0], ROUTER[1], ROUTER[2], ROUTER[4]])}`]],
  }
  return dice.weigh([...common, ...own[place.table]!])
}

function rule(dice: Dice, chain: string, place: Place): string {
  const proto = dice.weigh([[3, 'tcp'], [3, 'udp'], [3, ''], [0.3, 'icmp']])
  const ports = proto === 'icmp' ? '' : proto
  const parts = [proto === '' ? '' : `-p ${proto}`, proto === 'icmp' && dice.chance(0.5) ? `-m icmp ${not(dice)}--icmp-type ${dice.pick(['3', 'destination-unreachable', '8', 'any'])}` : '']
  if (dice.chance(0.3)) parts.push(`${not(dice)}-s ${source(dice)}`)
  if (dice.chance(0.45)) parts.push(`${not(dice)}-d ${target(dice)}`)
  if (dice.chance(0.2)) parts.push(device(dice, place))
  const used = new Set<string>()
  for (const match of dice.times(0, 2, () => dice.weigh(MATCHES)(dice, place, ports))) {
    const name = match.split(' ')[1] ?? ''
    if (!used.has(name)) parts.push(match)
    used.add(name)
  }
  return ['-A', chain, ...parts.filter((part) => part !== ''), jump(dice, place, ports)].join(' ')
}

const TABLES: readonly (readonly [string, readonly (readonly string[])[], number])[] = [
  ['raw', [['PREROUTING'], ['OUTPUT']], 2],
  ['mangle', [['PREROUTING'], ['INPUT'], ['FORWARD'], ['OUTPUT'], ['POSTROUTING']], 2],
  ['nat', [['PREROUTING', 'OUTPUT'], ['POSTROUTING']], 6],
  ['filter', [['INPUT', 'FORWARD', 'OUTPUT']], 4],
  ['security', [['INPUT', 'FORWARD', 'OUTPUT']], 1],
]

function table(dice: Dice, name: string, groups: readonly (readonly string[])[], most: number, sets: readonly SetInfo[]): string {
  const lines: string[] = []
  const heads: string[] = []
  for (const [at, hooks] of groups.entries()) {
    const users = dice.times(0, name === 'raw' ? 1 : 3, (number) => `${name.toUpperCase()}-${at}-${number}`)
    for (const [number, user] of users.entries()) {
      heads.push(`:${user} - [0:0]`)
      lines.push(...dice.times(1, 4, () => rule(dice, user, {table: name, hooks, base: false, below: users.slice(number + 1), sets})))
    }
    for (const hook of hooks) {
      heads.push(`:${hook} ${name === 'filter' && dice.chance(0.12) ? 'DROP' : 'ACCEPT'} [0:0]`)
      lines.push(...dice.times(0, most, () => rule(dice, hook, {table: name, hooks: [hook], base: true, below: users, sets})))
      if (name === 'nat' && at === 0 && dice.chance(0.7)) lines.push(...VIPS.map((vip) => `-A ${hook} -d ${vip} -j DNAT --to-destination ${dice.pick(PODS)}`))
    }
  }
  return [`*${name}`, ...heads, ...lines, 'COMMIT', ''].join('\n')
}

const SET_TYPES: Readonly<Record<string, (dice: Dice) => string>> = {
  'hash:ip': (dice) => dice.pick([...SOURCES, ...TARGETS]),
  'hash:net': (dice) => `${target(dice)}${dice.chance(0.25) ? ' nomatch' : ''}`,
  'hash:ip,port': (dice) => `${dice.pick(TARGETS)},${dice.pick(['tcp:', 'udp:', ''])}${dice.pick(PORTS)}`,
  'hash:net,port': (dice) => `${target(dice)},${dice.pick(['tcp', 'udp'])}:${dice.pick(PORTS)}${dice.chance(0.2) ? ' nomatch' : ''}`,
  'hash:ip,port,ip': (dice) => `${dice.pick(TARGETS)},${dice.pick(['tcp', 'udp'])}:${dice.pick(PORTS)},${dice.pick(SOURCES)}`,
  'hash:ip,port,net': (dice) => `${dice.pick(TARGETS)},${dice.pick(['tcp', 'udp'])}:${dice.pick(PORTS)},${source(dice)}`,
  'hash:net,iface': (dice) => `${source(dice)},${dice.pick(DEVICES.slice(0, 5))}`,
  'bitmap:port range 0-65535': (dice) => String(dice.pick(PORTS)),
  'bitmap:ip range 10.77.0.0/16': (dice) => dice.pick([...CLIENTS, ...PODS, ...ROUTER]),
}

function ipsets(dice: Dice): {text: string; sets: SetInfo[]} {
  const lines: string[] = []
  const sets = dice.times(2, 6, (at): SetInfo => {
    const type = dice.pick(Object.keys(SET_TYPES))
    const name = `S${at}`
    lines.push(`create ${name} ${type}`, ...new Set(dice.times(2, 8, () => `add -exist ${name} ${SET_TYPES[type]!(dice)}`)))
    return {name, dimensions: type.split(' ')[0]!.split(',').length}
  })
  if (dice.chance(0.4)) {
    lines.push('create L list:set', ...dice.some(sets, 3).map(({name}) => `add L ${name}`))
    sets.push({name: 'L', dimensions: dice.int(1, 3)})
  }
  return {text: lines.join('\n'), sets}
}

/** Routes, policy rules and sysctls that some rulesets add. */
const EXTRAS = [
  ...Array<string>(4).fill('sysctl -qw net.bridge.bridge-nf-call-iptables=0'), 'ip link set port3 type bridge_slave hairpin off\nip link set port1 type bridge_slave hairpin off',
  'sysctl -qw net.ipv4.conf.all.route_localnet=1', 'sysctl -qw net.ipv4.conf.all.rp_filter=1', 'sysctl -qw net.ipv4.conf.all.rp_filter=2', 'sysctl -qw net.ipv4.ip_forward=0',
  'ip route add blackhole 10.96.0.1', 'ip route add unreachable 10.96.0.0/24', 'ip route add prohibit 10.96.0.2',
  'ip rule add pref 100 fwmark 0x4000/0x4000 table 100\nip route add blackhole default table 100', 'ip rule add pref 100 fwmark 0x1 table 100\nip route add 10.96.0.0/16 via 10.77.2.10 table 100',
  'ip rule add pref 100 from 10.77.1.3 unreachable', 'ip rule add pref 100 iif eth0 to 10.77.3.0/24 prohibit',
]

const iptables = (dice: Dice, sets: readonly SetInfo[]): string => TABLES.filter(([name]) => name === 'nat' || dice.chance(name === 'filter' ? 0.9 : name === 'security' ? 0.1 : 0.4)).map(([name, groups, most]) => table(dice, name, groups, most, sets)).join('')

/** Random and valid: what is loaded into the router. */
export function ruleset(dice: Dice): Part[] {
  const {text, sets} = ipsets(dice)
  const kind = dice.weigh([[3, 'iptables-legacy'], [3, 'iptables-nft'], [3, 'nft'], [0.7, 'mixed']] as const)
  const parts: Part[] = []
  if (kind !== 'nft') parts.push({tool: 'ipset', text}, {tool: kind === 'mixed' ? 'iptables-legacy' : kind, text: iptables(dice, sets)})
  if (kind === 'nft' || kind === 'mixed') parts.push({tool: 'nft', text: nativeTable(dice)})
  if (dice.chance(0.3)) parts.push({tool: 'sh', text: dice.pick(EXTRAS)})
  return parts
}

let ports = 0
/** A source port that no packet has used lately. */
const freshPort = (): number => 20000 + ((ports++ * 7919) % 40000)
export const renew = (shot: Shot): Shot => ({...shot, sport: shot.sport < 40000 ? 20000 + (freshPort() % 20000) : 40000 + (freshPort() % 20000)})

/** Packets that the ruleset has something to say about. */
export function packets(dice: Dice, count: number): Shot[] {
  return Array.from({length: count}, (_, at): Shot => {
    const from = dice.weigh([[6, 'client'], [3, 'router'], [0.9, 's1'], [0.6, 's2'], [0.9, 's3']] as const)
    const dst = dice.weigh([[4, dice.pick(VIPS)], [2, dice.pick(PODS)], [2, dice.pick(ROUTER)], [from === 'router' ? 0.7 : 0, '127.0.0.1']])
    const src = from === 'client' ? dice.pick(CLIENTS) : from === 'router' ? '' : PODS[Number(from.slice(1)) - 1]!
    return {id: String(at), from, proto: dice.pick(['TCP', 'UDP'] as const), src, sport: freshPort(), dst, dport: dice.pick(PORTS)}
  })
}
