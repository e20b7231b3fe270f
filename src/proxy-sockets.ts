import {proxyFacts} from './checks/proxy.js'
import type {ProxySocket, WorldFacts} from './dataplane/world.js'
import {endpointsOf} from './intent/endpoints.js'
import {frontendsOf, isProxied} from './intent/promise.js'
import type {ClusterState, Service, ServicePort} from './model/kube.js'
import type {IptablesRule} from './parse/iptables-rule.js'
import type {NodeState} from './snapshot/node-state.js'
import {formatAddress, parseAddress} from './util/ip.js'

interface Served {
  readonly service: Service
  readonly port: ServicePort
}

/** From this version on kube-proxy holds no NodePorts open (kubernetes/kubernetes#108496). */
const HOLDS_NONE = 24

/**
 * Which of a node's sockets are kube-proxy's own, and what it does there. Userspace mode (pkg/proxy/userspace): every Service
 * port has a socket, to which rules lead all of its frontends. Every mode before 1.24: a socket on each NodePort keeps the port
 * from others, and nobody reads from it (pkg/util/net, OpenLocalPort).
 */
export function proxySockets(cluster: ClusterState, nodes: ReadonlyMap<string, NodeState>): WorldFacts['proxySocket'] {
  const nodePorts = nodePortsOf(cluster)
  const known = new Map<string, (place: string) => Served | undefined>()
  // Endpoints objects are what userspace mode reads
  const seen: ClusterState = cluster.legacyEndpoints ? {...cluster, slices: cluster.legacyEndpoints} : cluster
  return (node, {protocol, port, family, process}) => {
    const state = nodes.get(node)
    if (!state || (process !== undefined && process !== 'kube-proxy')) return undefined
    const {mode, minor} = proxyFacts(cluster, state)
    const place = `${protocol} ${port}`
    if (mode === 'userspace') {
      const served = remembered(known, node, () => servedPorts(cluster, state))(place)
      if (served) return {kind: 'balances', service: served.service.id, endpoints: readyEndpoints(seen, served, family)}
      if (process !== undefined && !nodePorts.has(place))
        return isProxys(state, port)
          ? undefined
          : {kind: 'unclear', why: `no rule tells which Service kube-proxy serves at port ${port} of ${node}`}
    }
    return nodePorts.has(place) ? held({process, minor}, port) : undefined
  }
}

function held(
  {process, minor}: {process: string | undefined; minor: number | undefined},
  port: number,
): ProxySocket | undefined {
  if (process !== undefined) return {kind: 'holds'}
  if (minor !== undefined) return minor < HOLDS_NONE ? {kind: 'holds'} : undefined
  return {
    kind: 'unclear',
    why: `no dump tells whether the listener at port ${port} is a kube-proxy before 1.24, which holds its NodePorts and never answers`,
  }
}

function remembered<T>(known: Map<string, T>, key: string, make: () => T): T {
  const found = known.get(key) ?? make()
  known.set(key, found)
  return found
}

/** kube-proxy's own ports: health and metrics. */
const OWN_PORTS: readonly number[] = [10249, 10256]
const isProxys = ({sockets}: NodeState, port: number): boolean =>
  OWN_PORTS.includes(port) || sockets?.find((socket) => socket.port === port)?.address === parseAddress('127.0.0.1')

function nodePortsOf({services}: ClusterState): Set<string> {
  const all = services
    .filter(isProxied)
    .flatMap(({ports}) =>
      ports.flatMap(({nodePort, protocol}) => (nodePort === undefined ? [] : [`${protocol} ${nodePort}`])),
    )
  return new Set(all)
}

const readyEndpoints = (
  cluster: ClusterState,
  {service, port}: Served,
  family: 4 | 6,
): Extract<ProxySocket, {kind: 'balances'}>['endpoints'] =>
  endpointsOf(cluster, service, {port, family})
    .filter(({ready}) => ready)
    .map(({address, port: number}) => ({address, port: number}))

/** The Service port behind each of kube-proxy's sockets: that of the frontends which most rules lead there. */
function servedPorts(cluster: ClusterState, state: NodeState): (place: string) => Served | undefined {
  const frontends = new Map<string, Served>()
  for (const service of cluster.services)
    for (const port of service.ports) {
      for (const {address, port: number} of frontendsOf(service, port))
        frontends.set(`${port.protocol} ${formatAddress(address)} ${number}`, {service, port})
      if (port.nodePort !== undefined) frontends.set(`${port.protocol} ${port.nodePort}`, {service, port})
    }
  const votes = new Map<string, Map<Served, number>>()
  for (const rule of redirects(state)) {
    const served = frontends.get(rule.frontend)
    if (!served) continue
    const counts = remembered(votes, rule.place, () => new Map<Served, number>())
    const key =
      [...counts.keys()].find(({service, port}) => service === served.service && port === served.port) ?? served
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return (place) => {
    const [first, second] = [...(votes.get(place) ?? [])].toSorted(([, one], [, other]) => other - one)
    return first && first[1] > (second?.[1] ?? 0) ? first[0] : undefined
  }
}

/** Rules that lead a frontend to a port of the node itself. */
function redirects(state: NodeState): {place: string; frontend: string}[] {
  const rules = ([4, 6] as const)
    .flatMap((family) => state.iptables(family))
    .flatMap(({tables}) => [...(tables.get('nat')?.chains.values() ?? [])])
    .flatMap(({rules: all}) => all)
  return rules.flatMap((rule) => {
    const protocol = rule.protocol?.value.toUpperCase()
    const to = Number(/(\d+)$/.exec(targetOf(rule) ?? '')?.[1])
    const port = rule.matches.flatMap(({options}) => options).find(({name}) => name === 'dport')?.values[0]
    if (protocol === undefined || Number.isNaN(to) || port === undefined) return []
    const address = rule.destination?.value.replace(/\/(32|128)$/, '')
    return [{place: `${protocol} ${to}`, frontend: `${protocol} ${address === undefined ? '' : `${address} `}${port}`}]
  })
}

const TRANSLATES: Readonly<Record<string, string>> = {REDIRECT: 'to-ports', DNAT: 'to-destination'}

const targetOf = ({target}: IptablesRule): string | undefined =>
  target?.options.find(({name}) => name === TRANSLATES[target.name])?.values[0]
