/** Kubernetes objects in the terms that a trace needs; everything else of the API objects is left behind. */

export type Protocol = 'TCP' | 'UDP' | 'SCTP'

export interface ServicePort {
  readonly name: string
  readonly protocol: Protocol
  readonly port: number
  readonly targetPort: number | string
  readonly nodePort?: number
}

export interface LoadBalancerIngress {
  readonly ip?: string
  readonly hostname?: string
  /** KEP-1860: `Proxy` means that nodes must not take the address for their own. */
  readonly ipMode: 'VIP' | 'Proxy'
}

export interface Service {
  readonly namespace: string
  readonly name: string
  /** `namespace/name` */
  readonly id: string
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName'
  /** Empty for headless and ExternalName. */
  readonly clusterIPs: readonly string[]
  readonly headless: boolean
  readonly externalName?: string
  readonly ports: readonly ServicePort[]
  readonly selector: Readonly<Record<string, string>> | undefined
  readonly externalIPs: readonly string[]
  readonly loadBalancer: readonly LoadBalancerIngress[]
  readonly loadBalancerClass?: string
  readonly sourceRanges: readonly string[]
  /** Seconds; undefined without ClientIP affinity. */
  readonly affinityTimeout?: number
  readonly externalTrafficPolicy: 'Cluster' | 'Local'
  readonly internalTrafficPolicy: 'Cluster' | 'Local'
  readonly healthCheckNodePort?: number
  readonly publishNotReadyAddresses: boolean
  readonly ipFamilies: readonly string[]
  readonly ipFamilyPolicy?: string
  readonly trafficDistribution?: string
  readonly topologyMode?: string
  /** The label that hands a Service to another proxy. */
  readonly proxyName?: string
  readonly labels: Readonly<Record<string, string>>
  readonly created?: string
}

export interface Endpoint {
  readonly address: string
  readonly ready: boolean
  readonly serving: boolean
  readonly terminating: boolean
  readonly node?: string
  /** `namespace/name` of the Pod behind it. */
  readonly pod?: string
  readonly hostname?: string
  readonly zoneHints: readonly string[]
  readonly nodeHints: readonly string[]
}

export interface EndpointPort {
  readonly name: string
  readonly port: number | undefined
  readonly protocol: Protocol
}

/** One EndpointSlice, or one subset of an Endpoints object in the same shape. */
export interface EndpointSlice {
  readonly namespace: string
  readonly name: string
  /** `namespace/name` of its Service. */
  readonly service: string
  readonly family: 4 | 6 | undefined
  readonly ports: readonly EndpointPort[]
  readonly endpoints: readonly Endpoint[]
  readonly managedBy?: string
}

export interface ContainerPort {
  readonly name: string
  readonly port: number
  readonly protocol: Protocol
}

export interface Pod {
  readonly namespace: string
  readonly name: string
  readonly id: string
  readonly ips: readonly string[]
  readonly node?: string
  readonly hostNetwork: boolean
  readonly phase: string
  readonly ready: boolean
  /** Why it isn't ready, in the words of its conditions and container states. */
  readonly notReadyReason?: string
  /** When `ready` last changed, as the API writes times (RFC 3339). */
  readonly readyChanged?: string
  readonly terminating: boolean
  readonly labels: Readonly<Record<string, string>>
  readonly ports: readonly ContainerPort[]
  /** Some container declares no port: it may listen anywhere all the same. */
  readonly undeclared: boolean
  readonly hostname?: string
  readonly subdomain?: string
  readonly dnsPolicy: string
  readonly dnsConfig?: {nameservers?: string[]; searches?: string[]; options?: {name: string; value?: string}[]}
  readonly enableServiceLinks: boolean
  /** When the container that has run longest was started; else when the pod was made. */
  readonly started?: string
}

export interface NodeAddress {
  readonly type: string
  readonly address: string
}

export interface Node {
  readonly name: string
  readonly addresses: readonly NodeAddress[]
  readonly podCIDRs: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  readonly ready: boolean
  readonly unschedulable: boolean
  /** When its kubelet last spoke. */
  readonly heard?: string
  readonly kubeletVersion?: string
}

/** The kube-proxy ConfigMap, as far as it decides what packets meet. */
export interface KubeProxyConfig {
  readonly mode?: string
  readonly clusterCIDRs: readonly string[]
  readonly nodePortAddresses: readonly string[]
  readonly masqueradeAll: boolean
  readonly localhostNodePorts: boolean
  readonly detectLocalMode?: string
  readonly scheduler?: string
  readonly strictARP: boolean
}

/** What the API had to say; a list that is undefined was not in the snapshot. */
export interface ClusterState {
  readonly version?: string
  /** When it was read, where the snapshot says so. */
  readonly taken?: string
  readonly namespaces: readonly {name: string; labels: Readonly<Record<string, string>>}[] | undefined
  readonly services: readonly Service[]
  readonly slices: readonly EndpointSlice[]
  /** Endpoints objects, for comparison with the slices. */
  readonly legacyEndpoints: readonly EndpointSlice[] | undefined
  readonly pods: readonly Pod[] | undefined
  readonly nodes: readonly Node[]
  readonly kubeProxy?: KubeProxyConfig
  /** Kubelet's version → what kube-proxies beside such kubelets say of themselves (`v1.30.5`); a stopped one says nothing. */
  readonly kubeProxyVersions?: ReadonlyMap<string, string>
  /** Names of the lists that were in the snapshot. */
  readonly read: ReadonlySet<string>
  /** Objects as they came, of the lists that have no form of their own above. */
  readonly raw: Readonly<Record<string, readonly KubeObject[] | undefined>>
}

export interface KubeObject {
  readonly apiVersion?: string
  readonly kind?: string
  readonly metadata: {
    name: string
    namespace?: string
    labels?: Record<string, string>
    annotations?: Record<string, string>
  }
  readonly spec?: Record<string, unknown>
  readonly status?: Record<string, unknown>
  readonly data?: Record<string, string>
}

/** Annotations that decide about traffic; any other may hold anything and stays out. */
export const TRAFFIC_ANNOTATIONS: readonly string[] = [
  'service.kubernetes.io/topology-mode',
  'service.kubernetes.io/topology-aware-hints',
  'kubernetes.io/ingress.class',
  'ingressclass.kubernetes.io/is-default-class',
  'nginx.ingress.kubernetes.io/service-upstream',
  'nginx.ingress.kubernetes.io/canary',
  'service.alpha.kubernetes.io/tolerate-unready-endpoints',
]
