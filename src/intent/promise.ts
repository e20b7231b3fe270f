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

/** An address that must not answer for a Service port, and why. */
export interface ClosedFrontend extends Frontend {
  readonly why: string
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
  /** Endpoints that some proxies may use besides (ipvs' fallback for policy Local), and those that are just going. */
  readonly tolerated: readonly ServiceEndpoint[]
  /** Topology hints leave out ready endpoints, which are tolerated ones. */
  readonly hinted?: boolean
  /** Only rules that lead past externalTrafficPolicy: Local make it so. */
  readonly shortCircuit?: boolean
  /** The endpoint must see the client's own address. For a pod that asks a cluster IP: unless the proxy masquerades all of them. */
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
  /** The addresses on the node's own devices; undefined: nobody knows. */
  readonly own?: ReadonlySet<Address>
  /** The table of the rules that refuse what has no endpoint is not in the dumps. */
  readonly hidesRefusals?: boolean
  /** Families whose rules nobody asked the node for. */
  readonly unasked?: readonly Family[]
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

/** First minor versions of kube-proxy that heed a field by default: LoadBalancerIPMode (KEP-1860), ServiceInternalTrafficPolicy (KEP-2086). */
const IP_MODE_SINCE = 30
const INTERNAL_POLICY_SINCE = 22
/** Until then iptables mode left external IPs alone that pods and the node itself ask (kubernetes/kubernetes#96296). */
const EXTERNAL_IPS_FROM_INSIDE_SINCE = 21

const isBefore = ({minor}: ProxyFacts, since: number): boolean => minor !== undefined && minor < since

/** Addresses where no node may answer for the port itself: of load balancers that proxy (KEP-1860), and what nodePortAddresses leaves out. */
export function closedFrontends(
  cluster: ClusterState,
  service: Service,
  {port, proxy}: {port: ServicePort; proxy: ProxyFacts},
): ClosedFrontend[] {
  if (!isProxied(service)) return []
  const {protocol} = port
  const heedsMode = !isBefore(proxy, IP_MODE_SINCE)
  const balancers = service.loadBalancer.flatMap(({ip, ipMode}): ClosedFrontend[] => {
    const address = ip === undefined || ipMode !== 'Proxy' || !heedsMode ? undefined : parseAddress(ip)
    if (address === undefined) return []
    return [
      {kind: 'loadBalancerIP', address, port: port.port, protocol, why: 'ipMode is Proxy: it is the load balancer’s'},
    ]
  })
  const {nodePort} = port
  if (nodePort === undefined || proxy.config === undefined || proxy.config.nodePortAddresses.length === 0)
    return balancers
  const open = new Set(nodePortAddresses(cluster, proxy))
  const ports = nodeAddresses(cluster, proxy)
    .filter((address) => !open.has(address) && servesFamily(service, familyOf(address)))
    .map((address): ClosedFrontend => ({
      kind: 'nodePort',
      address,
      port: nodePort,
      protocol,
      node: proxy.node,
      why: `nodePortAddresses is ${proxy.config!.nodePortAddresses.join(', ')}`,
    }))
  return [...balancers, ...ports]
}

/** A Service's families are those of its cluster IPs. */
export function servesFamily(service: Service, family: Family): boolean {
  return service.clusterIPs.some((ip) => ip.includes(':') === (family === 6))
}

/** The node ports of one Service port on one node. */
export function nodePortFrontends(
  cluster: ClusterState,
  service: Service,
  {port, proxy}: {port: ServicePort; proxy: ProxyFacts},
): Frontend[] {
  if (!isProxied(service) || port.nodePort === undefined) return []
  const base = {port: port.nodePort, protocol: port.protocol, node: proxy.node}
  const own = nodePortAddresses(cluster, proxy)
    .filter((address) => servesFamily(service, familyOf(address)))
    .map((address): Frontend => ({kind: 'nodePort', address, ...base}))
  return servesFamily(service, 4) && proxy.mode !== undefined
    ? [...own, {kind: 'localhost', address: 0x7f000001, ...base}]
    : own
}

/** The node's internal addresses, and its external ones that are on a device of its own. */
function nodeAddresses(cluster: ClusterState, {node, own}: ProxyFacts): Address[] {
  const all = cluster.nodes.find(({name}) => name === node)?.addresses ?? []
  const found = all.flatMap(({type, address: text}) => {
    const address = parseAddress(text)
    if (address === undefined) return []
    return type === 'InternalIP' || (type === 'ExternalIP' && own?.has(address)) ? [address] : []
  })
  return [...new Set(found)]
}

/**
 * Where a node's NodePorts answer: by `nodePortAddresses`, of which `primary` is the node's first address of each family
 * and the default of nftables mode (KEP-3866, KEP-4963); the old modes take every address. Only addresses that the API knows are promised.
 */
function nodePortAddresses(cluster: ClusterState, proxy: ProxyFacts): Address[] {
  const addresses = nodeAddresses(cluster, proxy)
  const configured = proxy.config?.nodePortAddresses ?? []
  const wanted = configured.length === 0 && proxy.mode === 'nftables' ? [PRIMARY] : configured
  if (wanted.length === 0) return addresses
  const ranges = wanted.flatMap((text) => parseRange(text) ?? [])
  const primary = ([4, 6] as const).flatMap((family) => addresses.find((address) => familyOf(address) === family) ?? [])
  return addresses.filter(
    (address) =>
      ranges.some((range) => inRange(address, range)) || (wanted.includes(PRIMARY) && primary.includes(address)),
  )
}

const PRIMARY = 'primary'

/** Only iptables mode serves 127.0.0.1:nodePort, IPv4, unless configured away (KEP-3866, «localhostNodePorts»). */
function servesLocalhost({mode, config}: ProxyFacts): boolean {
  if (mode !== 'iptables' || config?.localhostNodePorts === false) return false
  const wanted = config?.nodePortAddresses ?? []
  return (
    wanted.length === 0 || wanted.flatMap((text) => parseRange(text) ?? []).some((range) => inRange(0x7f000001, range))
  )
}

interface Asked {
  readonly cluster: ClusterState
  readonly service: Service
  readonly port: ServicePort
  readonly frontend: Frontend
  readonly origin: OriginClass
  readonly proxy: ProxyFacts
  /** Addresses of the client, where they are known. */
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
  if (proxy.mode === 'userspace') return byProcess(asked, all)
  if (blocked) return promise('dropped', {why: `${blocked} is not in loadBalancerSourceRanges`})
  if (frontend.kind === 'clusterIP') return internal(asked, {all, wide, view})
  const outside = external(asked, {all, wide, view})
  // nodes, and pods outside of them, are held to the source ranges as well, each proxy mode in its own way
  const ranged = frontend.kind === 'loadBalancerIP' && service.sourceRanges.length > 0 && origin.kind !== 'external'
  return ranged && !isInSourceRanges(asked) ? {...outside, also: ['dropped', 'refused']} : outside
}

const isInSourceRanges = ({service, origin, client}: Asked): boolean =>
  origin.kind !== 'node' &&
  (client ?? []).some(({lo}) => service.sourceRanges.some((text) => isWithin(lo, parseRange(text.trim()))))

const isWithin = (address: Address, range: Range | undefined): boolean => range !== undefined && inRange(address, range)

const promise = (
  outcome: ServicePromise['outcome'],
  extra: Partial<ServicePromise> & {why: string},
): ServicePromise => ({also: [], endpoints: [], tolerated: [], keepsClient: false, outcome, ...extra})

const onNode = (all: readonly ServiceEndpoint[], {node}: EndpointView): ServiceEndpoint[] =>
  all.filter((endpoint) => endpoint.node === node)

/** Endpoints that are not chosen and no strangers: ready ones that hints leave out, and those that end and still serve. */
function spare(
  all: readonly ServiceEndpoint[],
  chosen: readonly ServiceEndpoint[],
): Pick<ServicePromise, 'tolerated' | 'hinted'> {
  const others = all.filter((endpoint) => !chosen.includes(endpoint))
  const ready = others.filter((endpoint) => endpoint.ready)
  const going = others.filter(({ready: isReady, serving, terminating}) => !isReady && serving && terminating)
  return {tolerated: [...ready, ...going], ...(ready.length > 0 ? {hinted: true} : {})}
}

/**
 * Userspace mode (pkg/proxy/userspace; gone in 1.26) knows only ready endpoints: no traffic policy, source ranges or SCTP, and
 * endpoints see the node. Its rules leave external IPs alone that pods and the node itself ask.
 */
function byProcess({frontend, origin, port}: Asked, all: readonly ServiceEndpoint[]): ServicePromise {
  if (port.protocol === 'SCTP') return promise('dropped', {also: ['refused'], why: 'userspace mode knows no SCTP'})
  const ready = all.filter((endpoint) => endpoint.ready)
  const leaves = frontend.kind === 'externalIP' && origin.kind !== 'external'
  return ready.length === 0
    ? promise('refused', {also: ['dropped'], why: 'no ready endpoint'})
    : promise('delivered', {
        ...spare(all, ready),
        endpoints: ready,
        also: leaves ? ['dropped', 'refused'] : [],
        why: 'every ready endpoint, whatever the policy: userspace mode knows none',
      })
}

interface Choices {
  readonly all: readonly ServiceEndpoint[]
  readonly wide: readonly ServiceEndpoint[]
  readonly view: EndpointView
}

/** No endpoint at all: refused (`no-endpoints` rules). In ipvs mode it hangs on the virtual server and its versions whether anybody answers. */
const nobody = ({mode, hidesRefusals}: ProxyFacts, why: string): ServicePromise =>
  promise('refused', {
    also: (mode === 'iptables' || mode === 'nftables') && hidesRefusals !== true ? [] : ['dropped'],
    why,
  })

function internal({service, origin, proxy}: Asked, {all, wide, view}: Choices): ServicePromise {
  const {mode} = proxy
  const keepsClient = origin.kind === 'pod' && mode !== 'userspace' && proxy.config?.masqueradeAll !== true
  if (service.internalTrafficPolicy !== 'Local' || isBefore(proxy, INTERNAL_POLICY_SINCE))
    return wide.length > 0
      ? promise('delivered', {...spare(all, wide), endpoints: wide, keepsClient, why: 'every ready endpoint'})
      : nobody(proxy, 'no ready endpoint')
  const local = localEndpoints(all, view)
  if (local.length > 0)
    return promise('delivered', {
      ...spare(onNode(all, view), local),
      endpoints: local,
      keepsClient,
      why: 'internalTrafficPolicy: Local',
    })
  const anywhere = wide.length > 0
  return promise('dropped', {
    also: mode === 'ipvs' ? ['refused', 'delivered'] : ['refused'],
    tolerated: mode === 'ipvs' ? wide : [],
    why: anywhere ? 'internalTrafficPolicy: Local, and no endpoint on this node' : 'no ready endpoint',
  })
}

/** External IPs that the proxy leaves to the network when somebody inside asks. */
const leavesAlone = ({frontend, origin, proxy}: Asked): boolean =>
  frontend.kind === 'externalIP' &&
  origin.kind !== 'external' &&
  proxy.mode === 'iptables' &&
  isBefore(proxy, EXTERNAL_IPS_FROM_INSIDE_SINCE)

/** Node ports, external and load-balancer addresses. */
function external(asked: Asked, choices: Choices): ServicePromise {
  const found = promisedOutside(asked, choices)
  return leavesAlone(asked) ? {...found, also: ['dropped', 'refused']} : found
}

function promisedOutside({service, origin, proxy}: Asked, {all, wide, view}: Choices): ServicePromise {
  if (service.externalTrafficPolicy !== 'Local')
    return wide.length > 0
      ? promise('delivered', {...spare(all, wide), endpoints: wide, why: 'every ready endpoint'})
      : nobody(proxy, 'no ready endpoint')
  const local = localEndpoints(all, view)
  const ipvs = proxy.mode === 'ipvs'
  if (origin.kind !== 'external') {
    // pods and the node's own processes are internal: they may use every endpoint (KUBE-XLB, KUBE-EXT short-circuit)
    if (wide.length === 0 && local.length === 0) return nobody(proxy, 'no ready endpoint')
    return promise('delivered', {
      endpoints: ipvs && local.length > 0 ? local : wide,
      tolerated: [...local, ...wide, ...spare(all, wide).tolerated],
      also: local.length > 0 || isShortCircuited(proxy, origin) ? [] : ['dropped', 'refused'],
      ...(local.length > 0 ? {} : {shortCircuit: true}),
      why: 'traffic from inside may use every endpoint',
    })
  }
  if (local.length > 0)
    return promise('delivered', {
      ...spare(onNode(all, view), local),
      endpoints: local,
      keepsClient: true,
      why: 'externalTrafficPolicy: Local',
    })
  if (wide.length === 0) return promise('refused', {also: ['dropped'], why: 'no ready endpoint'})
  return promise('dropped', {
    also: ipvs ? ['refused', 'delivered'] : ['refused'],
    tolerated: ipvs ? wide : [],
    why: 'externalTrafficPolicy: Local, and no endpoint on this node',
  })
}

/**
 * iptables and nftables mode lead what comes from the node itself past the policy, and what comes from its pods, if kube-proxy
 * can tell them (pkg/proxy/iptables/proxier.go, «pod traffic for … external destinations»; --detect-local-mode).
 */
function isShortCircuited({mode, minor, config}: ProxyFacts, origin: OriginClass): boolean {
  // the first versions of nftables mode dropped all of it where no endpoint is local
  const since = mode === 'iptables' ? 20 : mode === 'nftables' ? 33 : undefined
  if (since === undefined || (minor !== undefined && minor < since)) return false
  if (origin.kind === 'node') return true
  if (config === undefined) return false
  return (config.detectLocalMode ?? 'ClusterCIDR') !== 'ClusterCIDR' || config.clusterCIDRs.length > 0
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
