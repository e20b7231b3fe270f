import type {ClusterState, Service, ServicePort} from '../model/kube.js'
import {familyOf, inRange, type Range} from '../util/ip.js'
import {
  asEndpoints,
  clusterEndpoints,
  endpointsOf,
  localEndpoints,
  type EndpointView,
  type ServiceEndpoint,
} from './endpoints.js'
import {rangesOf, servesLocalhost, sourceRanges, type Frontend} from './frontends.js'
import {isBefore, readsEndpoints, SINCE, type ProxyFacts} from './proxy-facts.js'

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
  /** The proxy leaves such packets to the network around, which may do anything with them. */
  readonly elsewhere?: boolean
  /** Topology hints leave out ready endpoints, which are tolerated ones. */
  readonly hinted?: boolean
  /** Only rules that lead past externalTrafficPolicy: Local make it so. */
  readonly shortCircuit?: boolean
  /** The endpoint must see the client's own address. For a pod that asks a cluster IP: unless the proxy masquerades all of them. */
  readonly keepsClient: boolean
  /** What of the Service or of kube-proxy's configuration decides it, where that is not the endpoints alone. */
  readonly rule?: 'source ranges' | 'internal policy' | 'external policy' | 'closed address'
  /** In a person's words. */
  readonly why: string
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
  const {service, port, frontend, proxy} = asked
  const cluster = readsEndpoints(proxy) ? asEndpoints(asked.cluster) : asked.cluster
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
  // iptables mode has rules for the ranges only where there are endpoints
  if (blocked)
    return promise('dropped', {
      // a refusal keeps them out as well
      also: ['refused'],
      rule: 'source ranges',
      why: `${blocked} is not in loadBalancerSourceRanges`,
    })
  if (frontend.kind === 'clusterIP') return internal(asked, {all, wide, view})
  const outside = external(asked, {all, wide, view})
  return isHeldToRanges(asked) ? {...outside, also: ['dropped', 'refused']} : outside
}

const rangesFor = ({service, frontend}: Asked): Range[] =>
  frontend.kind === 'loadBalancerIP' ? sourceRanges(service, familyOf(frontend.address)) : []

/** Nodes, and pods outside of the source ranges, are held to them as well, each proxy mode in its own way. */
function isHeldToRanges(asked: Asked): boolean {
  const {origin, client} = asked
  const ranges = rangesFor(asked)
  if (ranges.length === 0 || origin.kind === 'external') return false
  return origin.kind === 'node' || !(client ?? []).some(({lo}) => ranges.some((range) => inRange(lo, range)))
}

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
        ...(leaves ? {also: ['dropped', 'refused'] as const, elsewhere: true} : {}),
        why: 'every ready endpoint, whatever the policy: userspace mode knows none',
      })
}

interface Choices {
  readonly all: readonly ServiceEndpoint[]
  readonly wide: readonly ServiceEndpoint[]
  readonly view: EndpointView
}

/** No endpoint at all: refused (`no-endpoints` rules). In ipvs mode it hangs on the virtual server and its versions whether anybody answers. */
function nobody({proxy, frontend, origin}: Asked): ServicePromise {
  const {mode, hidesRefusals} = proxy
  const refuses = (mode === 'iptables' || mode === 'nftables') && hidesRefusals !== true
  return promise('refused', {
    also: refuses && !(mode === 'iptables' && isPastRefusals(proxy, frontend, origin)) ? [] : ['dropped'],
    why: 'no ready endpoint',
  })
}

/** iptables mode refuses external addresses in INPUT and FORWARD alone, the first versions in INPUT (KUBE-EXTERNAL-SERVICES). */
const isPastRefusals = (proxy: ProxyFacts, {kind}: Frontend, origin: OriginClass): boolean =>
  kind === 'externalIP' || kind === 'loadBalancerIP'
    ? origin.kind === 'node' || isBefore(proxy, 'externalRefusals')
    : origin.kind !== 'node' && isBefore(proxy, 'forwardRefusals')

function internal(asked: Asked, {all, wide, view}: Choices): ServicePromise {
  const {service, origin, proxy} = asked
  const {mode} = proxy
  const keepsClient = origin.kind === 'pod' && mode !== 'userspace' && proxy.config?.masqueradeAll !== true
  if (service.internalTrafficPolicy !== 'Local' || isBefore(proxy, 'internalTrafficPolicy'))
    return wide.length > 0
      ? promise('delivered', {...spare(all, wide), endpoints: wide, keepsClient, why: 'every ready endpoint'})
      : nobody(asked)
  const local = localEndpoints(all, view)
  const bothLocal = overridden(asked) && service.externalTrafficPolicy === 'Local'
  if (local.length > 0)
    return promise('delivered', {
      ...spare(onNode(all, view), local),
      ...(bothLocal ? {tolerated: [...wide, ...spare(all, wide).tolerated]} : {}),
      endpoints: local,
      keepsClient,
      rule: 'internal policy',
      why: 'internalTrafficPolicy: Local',
    })
  const falls = mode === 'ipvs' || bothLocal
  return promise('dropped', {
    also: falls ? ['refused', 'delivered'] : ['refused'],
    tolerated: falls ? wide : [],
    ...(wide.length > 0
      ? {rule: 'internal policy', why: 'internalTrafficPolicy: Local, and no endpoint on this node'}
      : {why: 'no ready endpoint'}),
  })
}

/** 1.22 and 1.23 chose by one policy for all frontends: the internal one alone, and none where both are Local. */
const overridden = ({proxy, service}: Asked): boolean =>
  service.internalTrafficPolicy === 'Local' &&
  !isBefore(proxy, 'internalTrafficPolicy') &&
  isBefore(proxy, 'separatePolicies')

/** External IPs that the proxy leaves to the network when somebody inside asks. */
const leavesAlone = ({frontend, origin, proxy}: Asked): boolean =>
  frontend.kind === 'externalIP' &&
  origin.kind !== 'external' &&
  proxy.mode === 'iptables' &&
  isBefore(proxy, 'externalIPsFromInside')

/** Node ports, external and load-balancer addresses. */
function external(asked: Asked, choices: Choices): ServicePromise {
  const found = promisedOutside(asked, choices)
  const either = {...found, also: ['dropped', 'refused'] as const}
  if (leavesAlone(asked)) return {...either, elsewhere: true}
  if (!overridden(asked) || asked.service.externalTrafficPolicy === 'Local') return found
  const local = localEndpoints(choices.all, choices.view)
  return local.length > 0 ? {...found, endpoints: local, tolerated: [...found.endpoints, ...found.tolerated]} : either
}

function promisedOutside(asked: Asked, {all, wide, view}: Choices): ServicePromise {
  const {service, origin, proxy, frontend} = asked
  const local = localEndpoints(all, view)
  if (
    frontend.kind === 'externalIP' &&
    service.externalTrafficPolicy === 'Local' &&
    isBefore(proxy, 'externalIPsLocal')
  )
    return wide.length > 0
      ? promise('delivered', {
          endpoints: local.length > 0 ? local : wide,
          tolerated: [...wide, ...spare(all, wide).tolerated],
          also: local.length > 0 ? [] : ['dropped', 'refused'],
          why: 'the policy of external IPs is Cluster in this version',
        })
      : nobody(asked)
  if (service.externalTrafficPolicy !== 'Local')
    return wide.length > 0
      ? promise('delivered', {...spare(all, wide), endpoints: wide, why: 'every ready endpoint'})
      : nobody(asked)
  const ipvs = proxy.mode === 'ipvs'
  if (origin.kind !== 'external') {
    // pods and the node's own processes are internal: they may use every endpoint (KUBE-XLB, KUBE-EXT short-circuit)
    if (wide.length === 0 && local.length === 0) return nobody(asked)
    const short = isShortCircuited(asked)
    return promise('delivered', {
      endpoints: local.length > 0 && (!short || proxy.mode === 'ipvs') ? local : wide,
      tolerated: [...local, ...wide, ...spare(all, wide).tolerated],
      also: local.length > 0 || short ? [] : ['dropped', 'refused'],
      ...(local.length > 0 ? {} : {shortCircuit: true}),
      why: 'traffic from inside may use every endpoint',
    })
  }
  if (local.length > 0)
    return promise('delivered', {
      ...spare(onNode(all, view), local),
      endpoints: local,
      keepsClient: true,
      rule: 'external policy',
      why: 'externalTrafficPolicy: Local',
    })
  if (wide.length === 0) return promise('refused', {also: ['dropped'], why: 'no ready endpoint'})
  return promise('dropped', {
    also: ipvs ? ['refused', 'delivered'] : ['refused'],
    tolerated: ipvs ? wide : [],
    rule: 'external policy',
    why: 'externalTrafficPolicy: Local, and no endpoint on this node',
  })
}

/**
 * iptables and nftables mode lead what comes from the node itself past the policy, and what comes from its pods, if kube-proxy
 * can tell them (pkg/proxy/iptables/proxier.go, «pod traffic for … external destinations»; --detect-local-mode). ipvs mode takes
 * every endpoint where none is local, which helps pods alone: the node asks from the virtual address (kubernetes/kubernetes#97081).
 */
function isShortCircuited({proxy, service, origin, frontend}: Asked): boolean {
  const {mode, minor, config} = proxy
  if (mode === 'ipvs')
    return (
      minor !== undefined &&
      minor >= SINCE.ipvsFallback &&
      origin.kind === 'pod' &&
      service.internalTrafficPolicy !== 'Local'
    )
  if (mode !== 'iptables' && mode !== 'nftables') return false
  // of the node itself since kubernetes/kubernetes#77523; the first versions of nftables mode dropped it where no endpoint is local
  if (origin.kind === 'node')
    return minor === undefined || minor >= (mode === 'iptables' ? SINCE.nodeShortCircuit : SINCE.nftNodeShortCircuit)
  if (config === undefined) return false
  const byCidr = (config.detectLocalMode ?? 'ClusterCIDR') === 'ClusterCIDR'
  return !byCidr || rangesOf(config.clusterCIDRs, familyOf(frontend.address)).length > 0
}

/** A client outside the ranges. */
function blockedBySourceRange(asked: Asked): string | undefined {
  const {origin, client} = asked
  const ranges = rangesFor(asked)
  if (ranges.length === 0 || origin.kind === 'node' || !client) return undefined
  const outside = client.every(({lo, hi}) => !ranges.some((range) => range.lo <= hi && range.hi >= lo))
  return outside ? (origin.kind === 'external' ? 'the client' : 'the pod') : undefined
}
