import {spawn, spawnSync, type ChildProcess} from 'node:child_process'
import {existsSync} from 'node:fs'
import {createInterface} from 'node:readline'
import {toV6} from './ipv6.js'

/** What is loaded into the router, in order: the tool and its input. `sh` lines are for routes, rules and sysctls. */
export interface Part {
  readonly tool: 'ipset' | 'iptables-legacy' | 'iptables-nft' | 'nft' | 'sh'
  readonly text: string
  /** For iptables: ip6tables. */
  readonly family?: 6
}

export interface Shot {
  readonly id: string
  readonly from: 'client' | 'router' | 's1' | 's2' | 's3'
  readonly proto: 'TCP' | 'UDP'
  /** Empty: the kernel chooses. */
  readonly src: string
  readonly sport: number
  readonly dst: string
  readonly dport: number
}

export interface Seen {
  readonly id: string
  readonly fate: 'ok' | 'refused' | 'timeout' | 'bind'
  /** What the server saw: its own `address:port`, and its peer's address. */
  readonly address: string | null
  readonly source: string | null
  readonly note: string
}

export const CLIENTS = ['10.77.1.2', '10.77.1.3', '10.77.1.4']
/** s1, s2, s3; the first and the last are on one bridge. */
export const PODS = ['10.77.2.10', '10.77.3.10', '10.77.2.11']
export const ROUTER = ['10.77.1.1', '10.77.1.20', '10.77.2.1', '10.77.3.1', '10.77.9.1']
export const VIPS = ['10.96.0.1', '10.96.0.2', '10.96.0.3']
/** Pods listen on all of them, the router on the last two. */
export const PORTS = [80, 443, 9999, 5353, 8080]

export const HOSTS = ['client', 'router', 's1', 's2', 's3'] as const
const TOOLS = ['ip', 'nft', 'ipset', 'ss', 'python3', 'sysctl', 'iptables-legacy-restore', 'iptables-nft-restore']
const LAB = `kt${process.pid}`
export const NODE = 'router'

/** Why the lab cannot be built here. */
export function obstacle(): string | undefined {
  if (process.platform !== 'linux') return 'not Linux'
  if (process.getuid?.() !== 0) return 'not root'
  const missing = TOOLS.filter((tool) => sh(`command -v ${tool}`).status !== 0)
  if (missing.length > 0) return `missing: ${missing.join(', ')}`
  const made = sh(`ip netns add ${LAB}-try && ip netns del ${LAB}-try`)
  return made.status === 0 ? undefined : `no network namespaces: ${made.stderr.trim()}`
}

function sh(script: string, host?: string): {status: number | null; stdout: string; stderr: string} {
  const inside = host === undefined ? [] : ['ip', 'netns', 'exec', `${LAB}-${host}`]
  const [command, ...args] = [...inside, 'sh', '-c', script]
  return spawnSync(command!, args, {encoding: 'utf8', maxBuffer: 1 << 28})
}

function must(script: string, host?: string): string {
  const {status, stdout, stderr} = sh(script, host)
  if (status !== 0) throw new Error(`${script.slice(0, 200)}: ${stderr}`)
  return stdout
}

/** Removes what a killed run left: its process is gone. */
function sweep(): void {
  for (const [name, pid] of must('ip netns').matchAll(/^kt(\d+)-\w+/gm))
    if (!existsSync(`/proc/${pid}`)) sh(`ip netns del ${name}`)
}

/** Made-up hardware addresses, so that neighbours can be written down: nothing has to ask for them, past the rules. */
const MACS: Readonly<Record<string, string>> = Object.fromEntries(
  ['client', 's1', 's2', 's3', 'eth0', 'cni0', 'eth2'].map((name, at) => [name, `02:00:00:00:01:0${at + 1}`]),
)

/** A cable from a host to the router, by IPv4 and IPv6. */
function wire(lab: string, host: string, device: string, [address, gateway]: readonly [string, string]): string {
  const face = device.startsWith('port') ? 'cni0' : device
  const inner = `ip -n ${lab}router`
  const outer = `ip -n ${lab}${host}`
  return `
ip link add ${device} netns ${lab}router type veth peer name eth0 netns ${lab}${host}
${outer} link set eth0 address ${MACS[host]}
${outer} addr add ${address}/24 dev eth0
${outer} addr add ${toV6(address)}/120 dev eth0 nodad
${outer} link set eth0 up
${face === device ? `${inner} link set ${device} address ${MACS[device]}; ${inner} addr add ${gateway}/24 dev ${device}; ${inner} addr add ${toV6(gateway)}/120 dev ${device} nodad` : `${inner} link set ${device} master cni0`}
${inner} link set ${device} up
${inner} neigh replace ${toV6(address)} lladdr ${MACS[host]} dev ${face} nud permanent
${outer} neigh replace ${toV6(gateway)} lladdr ${MACS[face]} dev eth0 nud permanent
${outer} route add default via ${gateway}
${outer} -6 route add default via ${toV6(gateway)}`
}

const neighbour = (host: string, address: string, mac: string, device = 'eth0'): string =>
  `ip -n ${host} neigh replace ${toV6(address)} lladdr ${mac} dev ${device} nud permanent`

const SYSCTLS = [
  ...['all', 'default'].flatMap((name) => [
    ...['disable_ipv6=0', 'accept_ra=0', 'accept_dad=0', 'addr_gen_mode=1'].map(
      (value) => `net.ipv6.conf.${name}.${value}`,
    ),
    ...['accept_redirects=0', 'send_redirects=0', 'rp_filter=0'].map((value) => `net.ipv4.conf.${name}.${value}`),
  ]),
  'net.ipv4.icmp_ratemask=0',
  'net.ipv4.icmp_ratelimit=0',
  'net.ipv6.icmp.ratelimit=0',
].join(' ')

/** Makes the lab's namespaces and cables; `lab` stands before each of their names. */
export const buildScript = (lab: string): string => `set -e
${HOSTS.map((host) => `ip netns add ${lab}${host}; ip netns exec ${lab}${host} sysctl -qw ${SYSCTLS}; ip -n ${lab}${host} link set lo up`).join('\n')}
${wire(lab, 'client', 'eth0', [CLIENTS[0]!, ROUTER[0]!])}
ip -n ${lab}router link add cni0 address ${MACS['cni0']} type bridge
ip -n ${lab}router addr add ${ROUTER[2]}/24 dev cni0
ip -n ${lab}router addr add ${toV6(ROUTER[2]!)}/120 dev cni0 nodad
ip -n ${lab}router link set cni0 up
${wire(lab, 's1', 'port1', [PODS[0]!, ROUTER[2]!])}
${wire(lab, 's2', 'eth2', [PODS[1]!, ROUTER[3]!])}
${wire(lab, 's3', 'port3', [PODS[2]!, ROUTER[2]!])}
${neighbour(`${lab}s1`, PODS[2]!, MACS['s3']!)}
${neighbour(`${lab}s3`, PODS[0]!, MACS['s1']!)}
for extra in ${CLIENTS.slice(1).join(' ')}; do ip -n ${lab}client addr add $extra/24 dev eth0; done
for extra in ${CLIENTS.slice(1).map(toV6).join(' ')}; do ip -n ${lab}client addr add $extra/120 dev eth0 nodad; done
${CLIENTS.slice(1)
  .map((address) => neighbour(`${lab}router`, address, MACS['client']!))
  .join('\n')}
ip -n ${lab}router addr add ${ROUTER[1]}/24 dev eth0
ip -n ${lab}router addr add ${toV6(ROUTER[1]!)}/120 dev eth0 nodad
${neighbour(`${lab}client`, ROUTER[1]!, MACS['eth0']!)}
ip link add wan0 netns ${lab}router type veth peer name sink0 netns ${lab}client
ip -n ${lab}client link set sink0 up
ip -n ${lab}router addr add ${ROUTER[4]}/24 dev wan0
ip -n ${lab}router addr add ${toV6(ROUTER[4]!)}/120 dev wan0 nodad
ip -n ${lab}router link set wan0 up
ip -n ${lab}router neigh add 10.77.9.254 lladdr 02:00:00:00:00:fe dev wan0 nud permanent
${neighbour(`${lab}router`, '10.77.9.254', '02:00:00:00:00:fe', 'wan0')}
ip -n ${lab}router route add default via 10.77.9.254
ip -n ${lab}router -6 route add default via ${toV6('10.77.9.254')}`

const EMPTY = Object.entries({
  raw: ['PREROUTING', 'OUTPUT'],
  mangle: ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
  security: ['INPUT', 'FORWARD', 'OUTPUT'],
})
  .map(([table, chains]) => `*${table}\n${chains.map((chain) => `:${chain} ACCEPT`).join('\n')}\nCOMMIT\n`)
  .join('')

const RESET = `nft flush ruleset
iptables-legacy-restore <<'X'
${EMPTY}X
ip6tables-legacy-restore <<'X'
${EMPTY}X
ipset flush; for try in 1 2 3 4; do ipset destroy 2>/dev/null && break; sleep 0.05; done
conntrack -F 2>/dev/null
for family in -4 -6; do ip $family rule flush; ip $family rule add pref 32766 table main; ip $family route flush table 100 2>/dev/null; done
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=0 net.ipv4.conf.all.rp_filter=0 net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 net.ipv6.conf.all.forwarding=1
for port in 1 3; do ip link set port$port type bridge_slave hairpin on; done
for extra in blackhole unreachable prohibit; do ip route flush type $extra; ip -6 route flush type $extra; done; true`

function commandOf({tool, family}: Part): string {
  const ip = family === 6 ? 'ip6' : 'ip'
  const commands: Readonly<Record<Part['tool'], string>> = {
    ipset: 'ipset restore',
    'iptables-legacy': `${ip}tables-legacy-restore`,
    'iptables-nft': `${ip}tables-nft-restore`,
    nft: 'nft -f -',
    sh: 'sh -e',
  }
  return commands[tool]
}

const DUMPS: Readonly<Record<string, string>> = {
  'iptables-legacy-save.txt': 'iptables-legacy-save',
  'iptables-nft-save.txt': 'iptables-nft-save -c',
  'ip6tables-legacy-save.txt': 'ip6tables-legacy-save',
  'ip6tables-nft-save.txt': 'ip6tables-nft-save -c',
  'ipset-save.txt': 'ipset save',
  'nft.json': 'nft -j list ruleset',
  'nft.txt': 'nft list ruleset',
  'ip-addr.json': 'ip -j addr show',
  'ip-link.json': 'ip -d -j link show',
  'ip-route.json': 'ip -4 -j route show table all',
  'ip-rule.json': 'ip -4 -j rule show',
  'ip-route6.json': 'ip -6 -j route show table all',
  'ip-rule6.json': 'ip -6 -j rule show',
  'sysctl.txt': "sysctl -ar '^net.(ipv4.(ip_forward|conf)|ipv6.conf.[^.]*.forwarding|bridge)' 2>/dev/null",
  'ss.txt': 'ss -H -lntup',
}

const MARK = '@@@'
const DUMP = Object.entries(DUMPS)
  .map(([file, command]) => `echo '${MARK}${file}'; ${command} 2>/dev/null; printf '\\n${MARK}rc %s\\n' $?`)
  .join('\n')

const list = (items: readonly object[]): string => JSON.stringify({apiVersion: 'v1', kind: 'List', items})
const meta = (name: string): object => ({name, namespace: 'default', uid: name})

/** The lab as an API would show it. */
export const apiOf = (vips: readonly string[]): [string, string][] => [
  [
    'api/nodes.json',
    list([
      {
        metadata: {name: NODE},
        spec: {podCIDR: '10.77.2.0/23', podCIDRs: ['10.77.2.0/23', `${toV6('10.77.2.0')}/119`]},
        status: {addresses: [ROUTER[0]!, toV6(ROUTER[0]!)].map((address) => ({type: 'InternalIP', address}))},
      },
    ]),
  ],
  [
    'api/pods.json',
    list(
      PODS.map((ip, at) => ({
        metadata: meta(`s${at + 1}`),
        spec: {nodeName: NODE, containers: []},
        status: {phase: 'Running', podIP: ip, podIPs: [{ip}, {ip: toV6(ip)}]},
      })),
    ),
  ],
  [
    'api/services.json',
    list(
      vips.map((ip, at) => ({
        metadata: meta(`v${at}`),
        spec: {type: 'ClusterIP', clusterIP: ip, clusterIPs: [ip, toV6(ip)], ports: [{port: 80, protocol: 'TCP'}]},
      })),
    ),
  ],
]

/** A process in a namespace that sends and answers. */
class Probe {
  private readonly child: ChildProcess
  private readonly lines: AsyncIterator<string>

  constructor(host: string, serves: readonly string[]) {
    this.child = spawn(
      'ip',
      ['netns', 'exec', `${LAB}-${host}`, 'python3', `${import.meta.dirname}/probe.py`, ...serves],
      {stdio: ['pipe', 'pipe', 'inherit']},
    )
    this.lines = createInterface({input: this.child.stdout!})[Symbol.asyncIterator]()
  }

  async line(): Promise<string> {
    const {value, done} = await this.lines.next()
    if (done === true) throw new Error('a probe died')
    return value
  }

  async send(packets: readonly Shot[], timeout: number): Promise<Seen[]> {
    if (packets.length === 0) return []
    this.child.stdin!.write(`${JSON.stringify({packets, timeout})}\n`)
    return JSON.parse(await this.line()) as Seen[]
  }

  stop(): void {
    this.child.stdin!.end()
    this.child.kill()
  }
}

/** By both families. */
export const serves = (addresses: readonly string[], ports: readonly number[]): string[] =>
  addresses
    .flatMap((address) => [address, toV6(address)])
    .flatMap((address) => ports.flatMap((port) => [`tcp:${address}:${port}`, `udp:${address}:${port}`]))

/** Who serves what, by host. */
export const PROBES: Readonly<Record<string, readonly string[]>> = {
  client: [],
  ...Object.fromEntries(PODS.map((pod, at) => [`s${at + 1}`, serves([pod], PORTS)])),
  router: [
    ...PORTS.slice(-2).flatMap((port) => [`tcp:0.0.0.0:${port}`, `tcp::::${port}`]),
    ...serves([...ROUTER, '127.0.0.1'], PORTS.slice(-2)).filter((spec) => spec.startsWith('udp')),
  ],
}

/** A router with a client on one side and two servers on the other, each in a network namespace of its own. */
export class Lab {
  private readonly probes = new Map<string, Probe>()

  static async build(): Promise<Lab> {
    const lab = new Lab()
    sweep()
    process.once('exit', () => lab.destroy())
    process.once('SIGTERM', () => process.exit(143))
    must(buildScript(`${LAB}-`))
    for (const [host, own] of Object.entries(PROBES)) lab.probes.set(host, new Probe(host, own))
    for (const probe of lab.probes.values()) await probe.line()
    return lab
  }

  /** Replaces the router's rules; what the tools said, if one failed. */
  load(parts: readonly Part[]): string | undefined {
    const script = parts.map((part) => `${commandOf(part)} <<'X' || exit 9\n${part.text}\nX`)
    const {status, stderr} = sh([RESET, ...script].join('\n'), NODE)
    return status === 9 ? stderr : undefined
  }

  flush(): void {
    sh('conntrack -F', NODE)
  }

  /** How many packets the router has received since it is there. */
  received(): number {
    return Number(/^Ip: \d+ \d+ (\d+)/m.exec(must('cat /proc/net/snmp', NODE))![1])
  }

  /** The router as a snapshot's files. */
  dump(): Map<string, string> {
    const files = new Map(apiOf(VIPS))
    const codes: string[] = []
    for (const section of must(DUMP, NODE)
      .split(new RegExp(`^${MARK}(?=\\S+\\n)`, 'm'))
      .slice(1)) {
      const [head, body] = [section.slice(0, section.indexOf('\n')), section.slice(section.indexOf('\n') + 1)]
      const end = body.lastIndexOf(`\n${MARK}rc `)
      files.set(`nodes/${NODE}/${head}`, body.slice(0, end))
      codes.push(`${head} rc=${body.slice(end + MARK.length + 4).trim()}`)
    }
    return files.set(`nodes/${NODE}/rc.txt`, codes.join('\n'))
  }

  async shoot(shots: readonly Shot[], timeout = 0.25): Promise<Map<string, Seen>> {
    const seen = await Promise.all(
      HOSTS.map((host) =>
        this.probes.get(host)!.send(
          shots.filter(({from}) => from === host),
          timeout,
        ),
      ),
    )
    return new Map(seen.flat().map((one) => [one.id, one]))
  }

  destroy(): void {
    for (const probe of this.probes.values()) probe.stop()
    for (const host of HOSTS) sh(`ip netns del ${LAB}-${host}`)
  }
}
