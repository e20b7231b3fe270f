import type {KubeProxyConfig} from '../model/kube.js'
import type {Address, Family} from '../util/ip.js'

export type ProxyMode = 'iptables' | 'ipvs' | 'nftables' | 'userspace'

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

/** First minor versions of kube-proxy with a behaviour, by default. */
export const SINCE = {
  /** EndpointSliceProxying; before, and in userspace mode always, Endpoints objects (KEP-752). */
  endpointSlices: 19,
  /** Rules that refuse cluster IPs without endpoints to what the node forwards; before, only to its own packets (kubernetes/kubernetes#48719). */
  forwardRefusals: 14,
  /** The node's own packets are led past policy Local (kubernetes/kubernetes#77523). */
  nodeShortCircuit: 16,
  /** externalTrafficPolicy counts for external IPs (kubernetes/kubernetes#88786, with a version to spare). */
  externalIPsLocal: 19,
  /** Rules that refuse external IPs without endpoints in FORWARD, too (kubernetes/kubernetes#95252). */
  externalRefusals: 20,
  /** Until then iptables mode left external IPs alone that pods and the node itself ask (kubernetes/kubernetes#96296). */
  externalIPsFromInside: 21,
  /** ServiceInternalTrafficPolicy (KEP-2086). */
  internalTrafficPolicy: 22,
  /** ipvs mode takes every endpoint for policy Local where none is on the node (kubernetes/kubernetes#97081, with a version to spare). */
  ipvsFallback: 22,
  /** Until then one of the two traffic policies could override the other (kubernetes/kubernetes#106497). */
  separatePolicies: 24,
  /** It holds no NodePorts open any more (kubernetes/kubernetes#108496). */
  noHeldPorts: 24,
  /** TopologyAwareHints, on by default (KEP-2433). */
  topologyHints: 24,
  /** ProxyTerminatingEndpoints (KEP-1669). */
  terminatingEndpoints: 26,
  /** LoadBalancerIPMode (KEP-1860). */
  ipMode: 30,
  /** Hints count without annotation or field that asks for them (ServiceTrafficDistribution, KEP-4444). */
  unaskedHints: 31,
  /** nftables mode, too, leads the node's own packets past policy Local. */
  nftNodeShortCircuit: 33,
  /** PreferSameTrafficDistribution: hints of nodes (KEP-3015). */
  nodeHints: 34,
} as const

/** False where nobody knows the version. */
export const isBefore = ({minor}: ProxyFacts, what: keyof typeof SINCE): boolean =>
  minor !== undefined && minor < SINCE[what]

/** Does it read Endpoints objects instead of slices? */
export const readsEndpoints = (proxy: ProxyFacts): boolean =>
  proxy.mode === 'userspace' || isBefore(proxy, 'endpointSlices')
