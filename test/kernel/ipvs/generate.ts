import {freshPort} from '../generate.js'
import type {Dice, Words} from '../grammar.js'
import {addresses, rulesToV6, setsToV6, shotToV6} from '../ipv6.js'
import {CLIENTS, PODS, PORTS, ROUTER, type Shot} from '../lab.js'

/** A virtual server as it is loaded: `key` is what ipvsadm calls it. */
interface Virtual {
  readonly key: string
  readonly proto: 'TCP' | 'UDP'
  readonly address: string
  readonly port: number
  readonly mark: number | undefined
}

export interface IpvsCase {
  readonly vips: readonly string[]
  /** Shell, for the router. */
  readonly load: string
  readonly shots: readonly Shot[]
}

const LOCAL_PORTS = PORTS.slice(-2)
const PORT_WORDS = [80, 443, 9999]
/** Of every case its own, so that no persistence template of an earlier one is in the way. */
const vipsOf = (at: number): string[] => [1, 2, 3].map((last) => `10.96.${at % 250}.${last}`)
const markOf = (at: number): number => 0x10000 * (1 + (at % 60000))

const SCHEDULERS = ['rr', 'rr', 'rr', 'wrr', 'lc', 'wlc', 'sh', 'sed', 'nq', 'dh', 'mh', 'fo', 'lblc', 'lblcr'] as const

const EMPTY = Object.entries({
  raw: 'PREROUTING OUTPUT',
  mangle: 'PREROUTING INPUT FORWARD OUTPUT POSTROUTING',
  nat: 'PREROUTING INPUT OUTPUT POSTROUTING',
  filter: 'INPUT FORWARD OUTPUT',
})
  .map(([table, chains]) => `*${table}\n:${chains.split(' ').join(' ACCEPT\n:')} ACCEPT\nCOMMIT\n`)
  .join('')

/** Takes everything away; what follows fails at once if one line does. */
export const RESET = `ipvsadm -C
iptables-legacy-restore <<'X'
${EMPTY}X
ip6tables-legacy-restore <<'X'
${EMPTY}X
ipset flush; ipset destroy || { sleep 0.1; ipset destroy; }
ip addr flush dev kube-ipvs0
cd /proc/sys/net
echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding; echo 0 >ipv4/vs/conntrack; echo 0 >ipv4/vs/snat_reroute; echo 1 >bridge/bridge-nf-call-iptables; echo 1 >bridge/bridge-nf-call-ip6tables
echo 0 >ipv4/conf/all/route_localnet
set -e
`

const SYSCTLS = `
4 true
1 echo 0 >ipv4/ip_forward
1 echo 0 >bridge/bridge-nf-call-iptables
1 echo 1 >ipv4/conf/all/route_localnet`

const EXTRAS: Readonly<Record<string, string>> = {
  raw: `
1 -j CT --notrack
1 -j DROP`,
  mangle: `
4 -j MARK --set-xmark [0x4000/0x4000¦0x2/0xffffffff]
1 -j DROP
1 -j ACCEPT`,
  destination: `
3 -j KUBE-MARK-MASQ
2 -j ACCEPT
1 -p <l4> -j DNAT --to-destination [<pod>¦<own>]
1 -p <l4> -j DNAT --to-destination <vip>:<port>
1 -p <l4> -j REDIRECT --to-ports <listened>`,
  source: `
3 -j MASQUERADE
2 -j SNAT --to-source <own>
1 -j ACCEPT`,
  input: `
1 -j SNAT --to-source <own>
1 -j ACCEPT`,
  filter: `
5 -j ACCEPT
1 -j DROP
2 -j REJECT`,
}

const MATCHES = `
4 <none>
3 -m ipvs <not>--ipvs
2 -m ipvs <not>--vaddr [<vip>¦10.96.0.0/16] 
1 -m ipvs --ipvs <not>--vport <port>
1 -m ipvs --ipvs <not>--vproto [tcp¦udp]
1 -m ipvs --ipvs --vdir [ORIGINAL¦REPLY]
1 -m ipvs --ipvs <not>--vmethod [MASQ¦GATE¦IPIP]
1 -m ipvs --vaddr <vip> --vport <port> --vdir [ORIGINAL¦REPLY]
3 -m conntrack <not>--ctstate [NEW¦INVALID¦UNTRACKED¦RELATED,ESTABLISHED¦NEW,INVALID¦DNAT¦SNAT]
1 -m conntrack <not>--[ctorigdst <vip>¦ctreplsrc <pod>¦ctrepldst <own>]
2 -m mark <not>--mark [0x4000/0x4000¦0x2¦0x0]
3 -m set <not>--match-set KUBE-CLUSTER-IP [dst,dst¦src,src¦src,dst]
1 -m set <not>--match-set KUBE-LOOP-BACK [dst,dst,src¦src,src,dst]
1 -m set <not>--match-set KUBE-IPVS-IPS [dst¦src]
2 -m addrtype <not>--[dst¦src]-type LOCAL
3 -d [<vip>¦<pod>¦<own>]
3 -s [<vip>¦<pod>¦<own>¦<client>]
2 -p <l4> -m <l4> <not>--[dport¦sport] [<port>¦8080¦5353]`

/** Chains of each table, with the kind of rules that stand there and how likely one is. */
const PLACES: readonly (readonly [table: string, chain: string, kind: string, share: number])[] = [
  ['raw', 'PREROUTING', 'raw', 0.05],
  ['raw', 'OUTPUT', 'raw', 0.05],
  ['mangle', 'PREROUTING', 'mangle', 0.1],
  ['mangle', 'INPUT', 'mangle', 0.05],
  ['mangle', 'FORWARD', 'mangle', 0.05],
  ['mangle', 'OUTPUT', 'mangle', 0.1],
  ['mangle', 'POSTROUTING', 'mangle', 0.05],
  ['nat', 'PREROUTING', 'destination', 0.25],
  ['nat', 'OUTPUT', 'destination', 0.15],
  ['nat', 'INPUT', 'input', 0.1],
  ['nat', 'POSTROUTING', 'source', 0.35],
  ['filter', 'INPUT', 'filter', 0.4],
  ['filter', 'FORWARD', 'filter', 0.4],
  ['filter', 'OUTPUT', 'filter', 0.4],
]

const LOOKS: Readonly<Record<string, readonly string[]>> = {INPUT: ['-i'], FORWARD: ['-i', '-o'], OUTPUT: ['-o']}

/** What kube-proxy writes in IPVS mode (pkg/proxy/ipvs). */
const KUBE: Readonly<Record<string, string>> = {
  'nat PREROUTING': '-A PREROUTING -j KUBE-SERVICES',
  'nat OUTPUT': '-A OUTPUT -j KUBE-SERVICES',
  'nat POSTROUTING': '-A POSTROUTING -j KUBE-POSTROUTING',
  'filter INPUT': '-A INPUT -j KUBE-IPVS-FILTER',
  'filter FORWARD': '-A FORWARD -j KUBE-FORWARD',
}

const NAT_CHAINS = `-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE
-A KUBE-NODE-PORT -p tcp -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-NODE-PORT -p udp -m set --match-set KUBE-NODE-PORT-UDP dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN
-A KUBE-SERVICES [! -s 10.77.2.0/23 ¦]-m set --match-set KUBE-CLUSTER-IP [dst,dst¦dst,dst¦src,dst] -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT`

const FILTER_CHAINS = `-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -p tcp -m set --match-set KUBE-NODE-PORT-TCP dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`

const CHAINS: Readonly<Record<string, readonly [heads: readonly string[], rules: string]>> = {
  nat: [['KUBE-MARK-MASQ', 'KUBE-POSTROUTING', 'KUBE-NODE-PORT', 'KUBE-SERVICES'], NAT_CHAINS],
  filter: [['KUBE-IPVS-FILTER', 'KUBE-FORWARD'], FILTER_CHAINS],
}

function virtuals(dice: Dice, at: number, vips: readonly string[]): Virtual[] {
  const list = dice.times(2, 5, (number): Virtual => {
    const proto = dice.pick(['TCP', 'TCP', 'UDP'] as const)
    const flag = proto === 'TCP' ? '-t' : '-u'
    const kind = dice.pick(['vip', 'vip', 'vip', 'vip', 'own', 'mark', 'any'])
    const address = kind === 'own' ? dice.pick(ROUTER.slice(0, 3)) : dice.pick(vips)
    const port = kind === 'own' ? 30000 + ((at * 5 + number) % 2000) : dice.pick(PORT_WORDS)
    const mark = kind === 'mark' ? markOf(at) + number : undefined
    const key = mark === undefined ? `${flag} ${address}:${kind === 'any' ? 0 : port}` : `-f ${mark}`
    return {key, proto, address, port, mark}
  })
  return list.filter(({key}, number) => list.findIndex((other) => other.key === key) === number)
}

function realServers(dice: Dice, {key, mark}: Virtual): string[] {
  const any = mark !== undefined || key.endsWith(':0')
  const made = dice.times(0, dice.chance(0.85) ? 3 : 1, () => {
    const local = dice.chance(0.2)
    const port = any ? 0 : dice.pick(local ? LOCAL_PORTS : PORTS)
    return `${local ? dice.pick(ROUTER.slice(0, 3)) : dice.pick(PODS)}:${port}`
  })
  return [...new Set(made)].map((real) => `-a ${key} -r ${real} -m -w ${dice.pick([1, 1, 1, 1, 2, 3, 0])}`)
}

function servers(dice: Dice, list: readonly Virtual[]): string {
  return list
    .flatMap((virtual) => {
      const sticky = virtual.key.endsWith(':0') || dice.chance(0.2) ? ' -p 300' : ''
      return [`-A ${virtual.key} -s ${dice.pick(SCHEDULERS)}${sticky}`, ...realServers(dice, virtual)]
    })
    .join('\n')
}

function sets(dice: Dice, list: readonly Virtual[], vips: readonly string[]): string {
  const named = list.filter(() => dice.chance(0.9))
  return [
    'create KUBE-CLUSTER-IP hash:ip,port',
    'create KUBE-LOOP-BACK hash:ip,port,ip',
    'create KUBE-IPVS-IPS hash:ip',
    'create KUBE-NODE-PORT-TCP bitmap:port range 0-65535',
    'create KUBE-NODE-PORT-UDP bitmap:port range 0-65535',
    ...named.map(({proto, address, port}) => `add -exist KUBE-CLUSTER-IP ${address},${proto.toLowerCase()}:${port}`),
    ...PODS.flatMap((pod) =>
      PORTS.flatMap((port) => ['tcp', 'udp'].map((proto) => `add KUBE-LOOP-BACK ${pod},${proto}:${port},${pod}`)),
    ),
    ...vips.map((vip) => `add KUBE-IPVS-IPS ${vip}`),
    ...named.filter(({port}) => port >= 30000).map(({proto, port}) => `add -exist KUBE-NODE-PORT-${proto} ${port}`),
  ].join('\n')
}

function tables(dice: Dice, list: readonly Virtual[], words: Words): string {
  const kube = dice.chance(0.65)
  const marks = list
    .filter(({mark}) => mark !== undefined)
    .map(
      ({proto, address, port, mark}) =>
        `-d ${address} -p ${proto.toLowerCase()} -m ${proto.toLowerCase()} --dport ${port} -j MARK --set-xmark 0x${mark!.toString(16)}/0xffffffff`,
    )
  return ['raw', 'mangle', 'nat', 'filter']
    .map((table) => {
      const [heads, rules] = CHAINS[table] ?? [[], '']
      const places = PLACES.filter(([one]) => one === table)
      return [
        `*${table}`,
        ...places.map(([, chain]) => `:${chain} ${table === 'filter' && dice.chance(0.07) ? 'DROP' : 'ACCEPT'}`),
        ...heads.map((head) => `:${head} -`),
        ...places.flatMap(([, chain, kind, share]) => [
          ...(table === 'mangle' && /PREROUTING|OUTPUT/.test(chain) ? marks.map((mark) => `-A ${chain} ${mark}`) : []),
          ...extras(dice, {chain, kind, share}, words),
          ...(kube && KUBE[`${table} ${chain}`] ? [KUBE[`${table} ${chain}`]!] : []),
          ...extras(dice, {chain, kind, share: share / 2}, words),
        ]),
        ...rules.split('\n').map((rule) => dice.say(rule, words)),
        'COMMIT',
        '',
      ].join('\n')
    })
    .join('')
}

interface Place {
  readonly chain: string
  readonly kind: string
  readonly share: number
}

function extras(dice: Dice, {chain, kind, share}: Place, words: Words): string[] {
  if (!dice.chance(share)) return []
  return dice.times(1, 2, () => {
    const l4 = dice.pick(['tcp', 'udp'])
    const own: Words = {...words, l4: () => l4, none: () => ''}
    const action = dice.line(EXTRAS[kind]!)
    const matches = (kind === 'raw' ? MATCHES.replace(/^.*-m (ipvs|conntrack) .*\n/gm, '') : MATCHES).trim()
    const some = new Map(
      dice
        .times(1, 2, () => dice.say(dice.line(matches), own).trim())
        .map((match) => [match.split(' ').find((word) => word !== '-m'), match]),
    )
    const device =
      LOOKS[chain] && dice.chance(0.15) ? `${dice.pick(LOOKS[chain])} ${dice.pick(['eth0', 'cni0', 'eth2'])}` : ''
    const text = [...some.values()].filter((match) => !(action.startsWith('-p') && match.startsWith('-p'))).join(' ')
    return `-A ${chain} ${device} ${text} ${dice.say(action, own)}`.replace(/ +/g, ' ')
  })
}

/** Packets to the virtual servers, some beside them. */
function shots(dice: Dice, list: readonly Virtual[], count: number): Shot[] {
  return Array.from({length: count}, (_, at): Shot => {
    const from = dice.pick(['client', 'client', 'client', 'router', 'router', 's1', 's2', 's3'] as const)
    const src = from === 'client' ? dice.pick(CLIENTS) : from === 'router' ? '' : PODS[Number(from.slice(1)) - 1]!
    const {proto, address, port} = dice.pick(list)
    const kind = dice.int(0, 19)
    return {
      id: String(at),
      from,
      proto: kind === 0 ? (proto === 'TCP' ? 'UDP' : 'TCP') : proto,
      src,
      sport: freshPort(),
      dst: kind === 1 ? dice.pick(PODS) : kind === 2 ? dice.pick(ROUTER) : address,
      dport: kind === 3 || kind === 1 ? dice.pick(PORTS) : kind === 2 ? dice.pick(LOCAL_PORTS) : port,
    }
  })
}

export function ipvsCase(dice: Dice, at: number, count: number): IpvsCase {
  const vips = vipsOf(at)
  const list = virtuals(dice, at, vips)
  const words: Words = {
    not: () => (dice.chance(0.3) ? '! ' : ''),
    vip: () => dice.pick(vips),
    pod: () => dice.pick(PODS),
    client: () => dice.pick(CLIENTS),
    own: () => dice.pick(ROUTER.slice(0, 4)),
    port: () => String(dice.pick(list).port),
    listened: () => String(dice.pick(LOCAL_PORTS)),
  }
  const held = vips.filter(() => dice.chance(0.93))
  const load = [
    RESET,
    `ip -batch - <<'X'`,
    ...held.map((vip) => `addr add ${vip}/32 dev kube-ipvs0`),
    `X\nipset restore <<'X'\n${sets(dice, list, vips)}`,
    `X\niptables-legacy-restore <<'X'\n${tables(dice, list, words)}X`,
    dice.chance(0.7) ? 'echo 1 >ipv4/vs/conntrack' : 'echo 0 >ipv4/vs/conntrack',
    dice.chance(0.2) ? 'echo 1 >ipv4/vs/snat_reroute' : 'true',
    dice.line(SYSCTLS),
    `ipvsadm -R <<'X'\n${servers(dice, list)}\nX`,
  ].join('\n')
  return {vips, load, shots: shots(dice, list, count)}
}

/** The same case in IPv6. */
export function inV6({vips, load, shots: all}: IpvsCase): IpvsCase {
  const [start, own] = [RESET, load.slice(RESET.length)]
  const text = rulesToV6(setsToV6(own))
    .replaceAll(/(addr add \S+) dev kube-ipvs0/g, '$1 dev kube-ipvs0 nodad')
    .replaceAll('iptables-legacy', 'ip6tables-legacy')
    .replaceAll(/^(-[Aa] -f \d+)/gm, '$1 -6')
    .replaceAll('ipv4/ip_forward', 'ipv6/conf/all/forwarding')
    .replaceAll('bridge-nf-call-iptables', 'bridge-nf-call-ip6tables')
  return {vips, load: start + addresses(text), shots: all.map(shotToV6)}
}
