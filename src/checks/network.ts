import {isProxied} from '../intent/frontends.js'
import type {Pod, Service} from '../model/kube.js'
import type {LocalAddress} from '../parse/iproute.js'
import type {NodeState} from '../snapshot/node-state.js'
import {familyOf, formatAddress, inRange, parseAddress, prefixRange, type Address} from '../util/ip.js'
import {makeFinding, type Finding} from './finding.js'
import type {NodeCheck} from './node.js'

/** What a walk of one small packet does not meet: its size, its neighbours, the connections of others. */
export function checkNetwork(check: NodeCheck): Finding[] {
  return [mtu, arp, conntrackTable].flatMap((run) => run(check))
}

/** Pods must not be allowed larger packets than the way to other nodes' pods takes: all would rest on ICMP errors. */
function mtu({state, cluster}: NodeCheck): Finding[] {
  const pods = (cluster.pods ?? []).filter(
    ({hostNetwork, phase}) => !hostNetwork && phase !== 'Succeeded' && phase !== 'Failed',
  )
  const own = pods.filter(({node}) => node === state.name).flatMap(({ips}) => ips)
  const others = firstOfEach(pods.filter(({node}) => node !== undefined && node !== state.name))
  const near = extreme(state, own, {largest: true, defaultRoute: false})
  const far = extreme(state, others, {largest: false, defaultRoute: true})
  if (!near || !far || near.name === far.name || near.mtu <= far.mtu) return []
  return [
    makeFinding('mtu-mismatch', {
      node: state.name,
      message: `pods on ${state.name} may send packets of ${near.mtu} bytes (${near.name}), and the way to other nodes’ pods takes ${far.mtu} (${far.name}): large answers hang where ICMP errors are lost`,
      evidence: [near, far].map(({name, mtu: size}) => ({
        source: state.ipPath('ip-link'),
        line: 0,
        text: `${name} mtu ${size}`,
      })),
    }),
  ]
}

interface Sized {
  readonly name: string
  readonly mtu: number
}

/** One address of each node: the way is the same for all of its pods. */
const firstOfEach = (pods: readonly Pod[]): string[] => [
  ...new Map(pods.flatMap(({node, ips}) => (ips[0] === undefined ? [] : [[node, ips[0]] as const]))).values(),
]

/** The device with the largest or smallest MTU on the way to these addresses; a default route leads to no pod of one's own. */
function extreme(
  state: NodeState,
  addresses: readonly string[],
  {largest, defaultRoute}: {largest: boolean; defaultRoute: boolean},
): Sized | undefined {
  return addresses
    .flatMap((text) => {
      const address = parseAddress(text)
      return address === undefined ? [] : (linkTo(state, address, defaultRoute) ?? [])
    })
    .toSorted((one, other) => (largest ? other.mtu - one.mtu : one.mtu - other.mtu))[0]
}

/** The device of the longest route of table main. */
function linkTo(state: NodeState, address: Address, defaultRoute: boolean): Sized | undefined {
  const route = state.routes
    .filter(
      ({family, table, type, destination}) =>
        family === familyOf(address) && table === 'main' && type === 'unicast' && inRange(address, destination),
    )
    .toSorted((one, other) => other.length - one.length)[0]
  if (route === undefined || (route.length === 0 && !defaultRoute)) return undefined
  const link = state.links.find(({name}) => name === route.nextHops[0]?.device)
  return link?.mtu === undefined ? undefined : {name: link.name, mtu: link.mtu}
}

/** In ipvs mode every node has every Service address on kube-ipvs0, and answers ARP for those in its own network. */
function arp({state, proxy, cluster, services}: NodeCheck): Finding[] {
  if (proxy.mode !== 'ipvs' || cluster.nodes.length < 2) return []
  const held = new Set(state.addresses.filter(({device}) => device === 'kube-ipvs0').map(({address}) => address))
  const networks = state.addresses.filter(
    ({device, address}) => device !== 'kube-ipvs0' && device !== 'lo' && typeof address === 'number',
  )
  const hurt = services.filter(isProxied).flatMap((service) =>
    outside(service).flatMap((address) => {
      const near = networks.find(
        (own) =>
          inRange(address, prefixRange(own.address, own.length)) && !networks.some((one) => one.address === address),
      )
      return held.has(address) && near && answers(state, near) ? [{service, address, near}] : []
    }),
  )
  if (hurt.length === 0) return []
  const [{address, near}] = hurt as [(typeof hurt)[0]]
  const key = 'net.ipv4.conf.all.arp_ignore'
  return [
    makeFinding('arp-for-service-address', {
      node: state.name,
      services: [...new Set(hurt.map(({service}) => service.id))],
      frontends: [...new Set(hurt.map((one) => formatAddress(one.address)))],
      message: `${state.name} answers ARP for ${formatAddress(address)} on ${near.device}, as every other node does: whoever is asked first gets the traffic (strictARP is off)`,
      evidence: [
        {
          source: state.path('sysctl.txt'),
          line: state.sysctlLine(key) ?? 0,
          text: `${key} = ${state.sysctl(key) ?? ''}`,
        },
      ],
    }),
  ]
}

/** IPv4 addresses that come from outside of the cluster. */
const outside = ({externalIPs, loadBalancer}: Service): number[] =>
  [...externalIPs, ...loadBalancer.flatMap(({ip, ipMode}) => (ip !== undefined && ipMode === 'VIP' ? ip : []))].flatMap(
    (text) => {
      const address = parseAddress(text)
      return typeof address === 'number' ? address : []
    },
  )

/** arp_ignore counts as the larger of `all` and the device's own (ip-sysctl.rst); 0 answers for any local address. */
function answers(state: NodeState, {device}: LocalAddress): boolean {
  const values = ['all', device].map((name) => state.sysctl(`net.ipv4.conf.${name}.arp_ignore`))
  return values.every((value) => value === '0')
}

const NEARLY = 0.9

function conntrackTable({state, services}: NodeCheck): Finding[] {
  const [count, most] = ['count', 'max'].map((name) =>
    Number(state.sysctl(`net.netfilter.nf_conntrack_${name}`) ?? Number.NaN),
  ) as [number, number]
  if (!(most > 0) || !(count >= most * NEARLY)) return []
  return [
    makeFinding('conntrack-table-full', {
      node: state.name,
      severity: count >= most ? 'error' : undefined,
      services: count >= most ? services.filter(isProxied).map(({id}) => id) : [],
      message: `${state.name} tracks ${count} of at most ${most} connections${count >= most ? ': new ones are dropped' : ''}`,
      evidence: [
        {
          source: state.path('sysctl.txt'),
          line: state.sysctlLine('net.netfilter.nf_conntrack_count') ?? 0,
          text: `net.netfilter.nf_conntrack_count = ${count}`,
        },
      ],
    }),
  ]
}
