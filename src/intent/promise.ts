import type {ClusterState, KubeProxyConfig, Protocol, Service, ServicePort} from '../model/kube.js'
import {familyOf, inRange, parseAddress, parseRange, type Address, type Family, type Range} from '../util/ip.js'
import {clusterEndpoints, endpointsOf, localEndpoints, type EndpointView, type ServiceEndpoint} from './endpoints.js'

export type ProxyMode = 'iptables' | 'ipvs' | 'nftables' | 'userspace'

/** Where a Service port can be reached. */
export interface Frontend {
  readonly kind: 'clusterIP' | 'nodePort' | 'externalIP' | 'loadBalancerIP' | 'localhost'
  readonly address: Address
  readonly port: number
  readonly protocol: Protocol
  /** Node ports and localhost: the node whose address it is. */
  readonly node?: string
}

/** Who asks: somebody outside, a node's own process, a pod that is no endpoint, or one that is. */
export type OriginClass =
  {readonly kind: 'external'} | {readonly kind: 'node'} | {readonly kind: 'pod'} | {readonly kind: 'backend'}

/** What the API objects promise for one frontend, seen from one node's kube-proxy. */
export interface ServicePromise {
  readonly outcome: 'delivered' | 'refused' | 'dropped'
  /** Also fine, where proxies and versions differ by design. */
  readonly also: readonly ('refused' | 'dropped' | 'delivered')[]
  /** Empty unless delivered. */
  readonly endpoints: readonly ServiceEndpoint[]
  /** Endpoints that some proxies may use besides (ipvs' fallback for policy Local). */
  readonly tolerated: readonly ServiceEndpoint[]
  /** The endpoint must see the client's own address. */
  readonly keepsClient: boolean
  /** In a person's words. */
  readonly why: string
}

/** What the proxy of one node is. */
export interface ProxyFacts {
  readonly node: string
  readonly mode: ProxyMode | undefined
  readonly minor: number | undefined
  readonly config: KubeProxyConfig | undefined
}

/** Does kube-proxy handle this Service at all? Headless ones, ExternalName and those of another proxy have no frontends. */
export function isProxied(service: Service): boolean {
  return (
    service.type !== 'ExternalName' &&
    !service.headless &&
    service.clusterIPs.length > 0 &&
    service.proxyName === undefined
  )
}

/** The addresses that answer for a Service port (pkg/proxy/serviceport.go; KEP-1860 for ipMode). Node ports: per node, in `nodePortFrontends`. */
export function frontendsOf(service: Service, port: ServicePort): Frontend[] {
  if (!isProxied(service)) return []
  const make = (kind: Frontend['kind'], text: string): Frontend[] => {
    const address = parseAddress(text)
    return address === undefined ? [] : [{kind, address, port: port.port, protocol: port.protocol}]
  }
  return [
    ...service.clusterIPs.flatMap((ip) => make('clusterIP', ip)),
    ...service.externalIPs.flatMap((ip) => make('externalIP', ip)),
    ...service.loadBalancer.flatMap(({ip, ipMode}) =>
      ip === undefined || ipMode === 'Proxy' ? [] : make('loadBalancerIP', ip),
    ),
  ].filter(({address}) => servesFamily(service, familyOf(address)))
}

/** A Service's families are those of its cluster IPs. */
export function servesFamily(service: Service, family: Family): boolean {
  return service.clusterIPs.some((ip) => ip.includes(':') === (family === 6))
}

/**
 * The node-port addresses of one node: by `nodePortAddresses`; without it every address in the old modes, the node's
 * primary address of each family in nftables mode (KEP-3866). Only addresses that the API knows are promised.
 */
export function nodePortFrontends(
  cluster: ClusterState,
  service: Service,
  {port, proxy}: {port: ServicePort; proxy: ProxyFacts},
): Frontend[] {
  if (!isProxied(service) || port.nodePort === undefined) return []
  const node = cluster.nodes.find(({name}) => name === proxy.node)
  const internal = (node?.addresses ?? [])
    .filter(({type}) => type === 'InternalIP')
    .flatMap(({address}) => parseAddress(address) ?? [])
  const allowed = allowedRanges(proxy.config)
  const addresses = allowed ? internal.filter((address) => allowed.some((range) => inRange(address, range))) : internal
  const base = {port: port.nodePort, protocol: port.protocol, node: proxy.node}
  const own = addresses
    .filter((address) => servesFamily(service, familyOf(address)))
    .map((address): Frontend => ({kind: 'nodePort', address, ...base}))
  return servesFamily(service, 4) && proxy.mode !== undefined
    ? [...own, {kind: 'localhost', address: 0x7f000001, ...base}]
    : own
}

function allowedRanges(config: KubeProxyConfig | undefined): Range[] | undefined {
  const ranges = (config?.nodePortAddresses ?? []).flatMap((text) => parseRange(text) ?? [])
  return ranges.length > 0 ? ranges : undefined
}

/** Only iptables mode serves 127.0.0.1:nodePort, IPv4, unless configured away (KEP-3866, «localhostNodePorts»). */
function servesLocalhost({mode, config}: ProxyFacts): boolean {
  if (mode !== 'iptables' || config?.localhostNodePorts === false) return false
  const allowed = allowedRanges(config)
  return allowed === undefined || allowed.some((range) => inRange(0x7f000001, range))
}

interface Asked {
  readonly cluster: ClusterState
  readonly service: Service
  readonly port: ServicePort
  readonly frontend: Frontend
  readonly origin: OriginClass
  readonly proxy: ProxyFacts
  /** Addresses of the client, where source ranges matter. */
  readonly client?: readonly Range[]
}

/**
 * What should happen to a packet from an origin at a node to a frontend. Sources: KEP-2086 (internalTrafficPolicy),
 * kube-proxy's externalPolicyLocal chains (short-circuit for pods and nodes), KEP-1669 (terminating endpoints),
 * loadBalancerSourceRanges (API reference).
 */
export function promiseFor(asked: Asked): ServicePromise {
  const {cluster, service, port, frontend, origin, proxy} = asked
  const view: EndpointView = {node: proxy.node, cluster, minor: proxy.minor}
  const all = endpointsOf(cluster, service, {port, family: familyOf(frontend.address)})
  const wide = clusterEndpoints(all, service, view)
  const blocked = blockedBySourceRange(asked)
  if (frontend.kind === 'localhost' && !servesLocalhost(proxy)) {
    return promise('refused', {
      also: proxy.mode === 'nftables' ? [] : ['dropped'],
      why: `127.0.0.1:nodePort is not served in ${proxy.mode} mode, so the port refuses`,
    })
  }
  if (blocked) return promise('dropped', {why: `${blocked} is not in loadBalancerSourceRanges`})
  if (frontend.kind === 'clusterIP') return internal(service, {all, wide, view, mode: proxy.mode})
  const outside = external(asked, {all, wide, view, origin})
  // nodes and pods are held to the source ranges as well, each proxy mode in its own way
  const ranged = frontend.kind === 'loadBalancerIP' && service.sourceRanges.length > 0 && origin.kind !== 'external'
  return ranged ? {...outside, also: ['dropped', 'refused']} : outside
}

const promise = (
  outcome: ServicePromise['outcome'],
  extra: Partial<ServicePromise> & {why: string},
): ServicePromise => ({also: [], endpoints: [], tolerated: [], keepsClient: false, outcome, ...extra})

interface Choices {
  readonly all: readonly ServiceEndpoint[]
  readonly wide: readonly ServiceEndpoint[]
  readonly view: EndpointView
}

/** No endpoint at all: refused. In ipvs mode a port without real servers answers so, too. */
const nobody = (why: string): ServicePromise => promise('refused', {also: ['dropped'], why})

function internal(service: Service, {all, wide, view, mode}: Choices & {mode: ProxyMode | undefined}): ServicePromise {
  if (service.internalTrafficPolicy !== 'Local')
    return wide.length > 0
      ? promise('delivered', {endpoints: wide, why: 'every ready endpoint'})
      : nobody('no ready endpoint')
  const local = localEndpoints(all, view)
  if (local.length > 0) return promise('delivered', {endpoints: local, why: 'internalTrafficPolicy: Local'})
  const anywhere = wide.length > 0
  return promise('dropped', {
    also: mode === 'ipvs' ? ['refused', 'delivered'] : ['refused'],
    tolerated: mode === 'ipvs' ? wide : [],
    why: anywhere ? 'internalTrafficPolicy: Local, and no endpoint on this node' : 'no ready endpoint',
  })
}

/** Node ports, external and load-balancer addresses. */
function external({service, origin, proxy}: Asked, {all, wide, view}: Choices & {origin: OriginClass}): ServicePromise {
  if (service.externalTrafficPolicy !== 'Local')
    return wide.length > 0
      ? promise('delivered', {endpoints: wide, why: 'every ready endpoint'})
      : nobody('no ready endpoint')
  const local = localEndpoints(all, view)
  const ipvs = proxy.mode === 'ipvs'
  if (origin.kind !== 'external') {
    // pods and the node's own processes are internal: they may use every endpoint (KUBE-XLB, KUBE-EXT short-circuit)
    if (wide.length === 0 && local.length === 0) return nobody('no ready endpoint')
    return promise('delivered', {
      endpoints: ipvs && local.length > 0 ? local : wide,
      tolerated: [...local, ...wide],
      also: local.length === 0 ? ['dropped', 'refused'] : [],
      why: 'traffic from inside may use every endpoint',
    })
  }
  if (local.length > 0)
    return promise('delivered', {endpoints: local, keepsClient: true, why: 'externalTrafficPolicy: Local'})
  if (wide.length === 0) return promise('refused', {also: ['dropped'], why: 'no ready endpoint'})
  return promise('dropped', {
    also: ipvs ? ['refused', 'delivered'] : ['refused'],
    tolerated: ipvs ? wide : [],
    why: 'externalTrafficPolicy: Local, and no endpoint on this node',
  })
}

/** A client outside the ranges. */
function blockedBySourceRange({service, frontend, origin, client}: Asked): string | undefined {
  if (frontend.kind !== 'loadBalancerIP' || service.sourceRanges.length === 0 || origin.kind !== 'external' || !client)
    return undefined
  const ranges = service.sourceRanges.flatMap((text) => parseRange(text.trim()) ?? [])
  const outside = client.every(
    ({lo, hi}) => !ranges.some((range) => typeof range.lo === typeof lo && range.lo <= hi && range.hi >= lo),
  )
  return outside ? 'the client' : undefined
}
