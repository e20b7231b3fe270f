import {buildWorld} from '../../src/engine.js'
import {simulate, type SimulateAnswer, type SimulateLine} from '../../src/simulate.js'
import {snapshotFromFiles} from '../../src/snapshot/snapshot.js'

export interface NodeDump {
  readonly iptables?: string
  readonly ipset?: string
  readonly ipvs?: string
  readonly nft?: string
  readonly sysctl?: string
  readonly ss?: string
  readonly files?: Readonly<Record<string, string>>
}

const ADDRESSES = [
  {ifname: 'lo', flags: ['LOOPBACK', 'UP'], addr_info: [{local: '127.0.0.1', prefixlen: 8, scope: 'host'}]},
  {ifname: 'eth0', flags: ['UP'], addr_info: [{local: '192.0.2.11', prefixlen: 24, scope: 'global'}]},
  {ifname: 'cni0', flags: ['UP'], addr_info: [{local: '10.1.1.1', prefixlen: 24, scope: 'global'}]},
]
const LINKS = [
  {ifindex: 1, ifname: 'lo', flags: ['LOOPBACK', 'UP']},
  {ifindex: 2, ifname: 'eth0', flags: ['UP']},
  {ifindex: 3, ifname: 'cni0', flags: ['UP']},
  {ifindex: 4, ifname: 'veth1', flags: ['UP'], master: 'cni0'},
]
const ROUTES = [
  {dst: 'default', gateway: '192.0.2.1', dev: 'eth0', flags: []},
  {dst: '10.1.1.0/24', dev: 'cni0', scope: 'link', prefsrc: '10.1.1.1', flags: []},
  {dst: '192.0.2.0/24', dev: 'eth0', scope: 'link', prefsrc: '192.0.2.11', flags: []},
  ...['127.0.0.0/8', '192.0.2.11', '10.1.1.1'].map((dst) => ({
    type: 'local',
    dst,
    dev: dst.startsWith('127') ? 'lo' : dst.startsWith('10') ? 'cni0' : 'eth0',
    table: 'local',
    scope: 'host',
    flags: [],
  })),
]

const SYSCTLS = `net.ipv4.ip_forward = 1
net.ipv4.conf.all.rp_filter = 0
net.ipv4.conf.all.route_localnet = 0
net.bridge.bridge-nf-call-iptables = 1
net.ipv4.vs.conntrack = 1
`

/** One node (192.0.2.11, pods in 10.1.1.0/24 on cni0: default/a 10.1.1.2 and default/b 10.1.1.3) with the given dumps; everything else was asked for and is empty. */
export function oneNode(dump: NodeDump): Map<string, string> {
  const own: Record<string, string> = {
    'iptables-save.txt': dump.iptables ?? '',
    'ip6tables-save.txt': '',
    'ipset-save.txt': dump.ipset ?? '',
    'ipvsadm-Sn.txt': dump.ipvs ?? '',
    'nft.txt': dump.nft ?? '',
    'ip-addr.json': JSON.stringify(ADDRESSES),
    'ip-link.json': JSON.stringify(LINKS),
    'ip-route.json': JSON.stringify(ROUTES),
    'ip-route6.json': '[]',
    'ip-rule.json': '[]',
    'sysctl.txt': dump.sysctl ?? SYSCTLS,
    'ss.txt': dump.ss ?? '',
    ...dump.files,
  }
  const files = new Map(Object.entries(own).map(([name, text]) => [`nodes/n1/${name}`, text]))
  files.set(
    'nodes/n1/rc.txt',
    Object.keys(own)
      .map((name) => `${name} rc=0`)
      .join('\n'),
  )
  const pod = (name: string, podIP: string): object => ({
    metadata: {name, namespace: 'default'},
    spec: {nodeName: 'n1', containers: []},
    status: {phase: 'Running', podIP},
  })
  files.set('api/pods.json', JSON.stringify({items: [pod('a', '10.1.1.2'), pod('b', '10.1.1.3')]}))
  files.set(
    'api/nodes.json',
    JSON.stringify({
      items: [
        {
          metadata: {name: 'n1'},
          spec: {podCIDR: '10.1.1.0/24'},
          status: {addresses: [{type: 'InternalIP', address: '192.0.2.11'}]},
        },
      ],
    }),
  )
  files.set('api/services.json', JSON.stringify({items: []}))
  return files
}

interface Asked {
  readonly from?: object
  readonly to: string
  readonly proto?: string
  readonly enter?: string
  readonly sport?: number
}

/** What happens to one packet on that node. */
export const fate = (dump: NodeDump, packet: Asked): SimulateAnswer => askNode(oneNode(dump), packet)

/** The same for files that were made from oneNode()'s. */
export function askNode(files: ReadonlyMap<string, string>, packet: Asked): SimulateAnswer {
  const answer: SimulateLine = simulate(buildWorld(snapshotFromFiles(files)), {
    id: 'x',
    from: {external: '198.51.100.7'},
    enter: 'n1',
    ...packet,
  })
  if ('error' in answer) throw new Error(answer.error)
  return answer
}
