import {isKubeProxy, proxyFacts} from './checks/proxy.js'
import type {ProxySocket, WorldFacts} from './dataplane/world.js'
import {asEndpoints, endpointsOf} from './intent/endpoints.js'
import {frontendsOf, isProxied} from './intent/frontends.js'
import {SINCE} from './intent/proxy-facts.js'
import type {ClusterState, Service, ServicePort} from './model/kube.js'
import type {IptablesRule} from './parse/iptables-rule.js'
import type {NodeState} from './snapshot/node-state.js'
import {formatAddress} from './util/ip.js'

interface Served {
  readonly service: Service
  readonly port: ServicePort
}

/**
 * Which of a node's sockets are kube-proxy's own, and what it does there. Userspace mode (pkg/proxy/userspace): every Service
 * port has a socket, to which rules lead all of its frontends. Every mode before 1.24: a socket on each NodePort keeps the port
 * from others, and nobody reads from it (pkg/util/net, OpenLocalPort).
 */
export function proxySockets(cluster: ClusterState, nodes: ReadonlyMap<string, NodeState>): WorldFacts['proxySocket'] {
  const nodePorts = nodePortsOf(cluster)
  const known = new Map<string, OneNode>()
  return (node, {protocol, port, family, process}) => {
    const state = nodes.get(node)
    if (!state || (process !== undefined && !isKubeProxy(process))) return undefined
    const {served, minor} = remembered(known, node, () => oneNode(cluster, state))
    const place = `${protocol} ${port}`
    const found = served.get(place)
    if (found === 'several')
      return {
        kind: 'unclear',
        why: `rules lead several Services to port ${port} of ${node}, where kube-proxy serves one`,
      }
    if (found)
      return {
        kind: 'balances',
        service: found.service.id,
        endpoints: readyEndpoints(asEndpoints(cluster), found, family),
      }
    return nodePorts.has(place) ? held({process, minor}, port) : undefined
  }
}

interface OneNode {
  readonly minor: number | undefined
  readonly served: ReadonlyMap<string, Served | 'several'>
}

function oneNode(cluster: ClusterState, state: NodeState): OneNode {
  const {mode, minor} = proxyFacts(cluster, state)
  return {minor, served: mode === 'userspace' ? servedPorts(cluster, state) : new Map<string, never>()}
}

function held(
  {process, minor}: {process: string | undefined; minor: number | undefined},
  port: number,
): ProxySocket | undefined {
  if (process !== undefined) return {kind: 'holds'}
  if (minor !== undefined) return minor < SINCE.noHeldPorts ? {kind: 'holds'} : undefined
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
function servedPorts(cluster: ClusterState, state: NodeState): OneNode['served'] {
  const frontends = new Map<string, Served>()
  for (const service of cluster.services)
    for (const port of service.ports) {
      const served = {service, port}
      for (const {address, port: number} of frontendsOf(service, port))
        frontends.set(`${port.protocol} ${formatAddress(address)} ${number}`, served)
      if (port.nodePort !== undefined) frontends.set(`${port.protocol} ${port.nodePort}`, served)
    }
  const votes = new Map<string, Map<Served, number>>()
  for (const {place, frontend} of redirects(state)) {
    const served = frontends.get(frontend)
    if (!served) continue
    const counts = remembered(votes, place, () => new Map<Served, number>())
    counts.set(served, (counts.get(served) ?? 0) + 1)
  }
  return new Map([...votes].map(([place, counts]) => [place, elected(counts)]))
}

function elected(counts: ReadonlyMap<Served, number>): Served | 'several' {
  const [first, second] = [...counts].toSorted(([, one], [, other]) => other - one)
  return first![1] > (second?.[1] ?? 0) ? first![0] : 'several'
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
