import type {ClusterState, Protocol, Service, ServicePort} from '../model/kube.js'
import {familyOf, inRange, parseAddress, parseRange, type Address, type Family, type Range} from '../util/ip.js'
import {isBefore, type ProxyFacts} from './proxy-facts.js'

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

/** kube-proxy passes over every Service that carries it (pkg/proxy, the informers' label selector). */
const HEADLESS_LABEL = 'service.kubernetes.io/headless'

/** Does kube-proxy handle this Service at all? Headless ones, ExternalName and those of another proxy have no frontends. */
export function isProxied(service: Service): boolean {
  return (
    service.type !== 'ExternalName' &&
    !service.headless &&
    service.clusterIPs.length > 0 &&
    service.proxyName === undefined &&
    service.labels[HEADLESS_LABEL] === undefined
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

/** Addresses where no node may answer for the port itself: of load balancers that proxy (KEP-1860), and what nodePortAddresses leaves out. */
export function closedFrontends(
  cluster: ClusterState,
  service: Service,
  {port, proxy}: {port: ServicePort; proxy: ProxyFacts},
): ClosedFrontend[] {
  if (!isProxied(service)) return []
  const {protocol} = port
  const heedsMode = !isBefore(proxy, 'ipMode')
  const balancers = service.loadBalancer.flatMap(({ip, ipMode}): ClosedFrontend[] => {
    const address = ip === undefined || ipMode !== 'Proxy' || !heedsMode ? undefined : parseAddress(ip)
    if (address === undefined) return []
    return [
      {kind: 'loadBalancerIP', address, port: port.port, protocol, why: 'ipMode is Proxy: it is the load balancer’s'},
    ]
  })
  const {nodePort} = port
  if (nodePort === undefined || configuredAddresses(proxy).length === 0) return balancers
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

/** The node's internal addresses, then its external ones that are on a device of its own (GetNodeHostIPs puts them in that order). */
function nodeAddresses(cluster: ClusterState, {node, own}: ProxyFacts): Address[] {
  const all = cluster.nodes.find(({name}) => name === node)?.addresses ?? []
  const ofType = (wanted: string): Address[] =>
    all.filter(({type}) => type === wanted).flatMap(({address}) => parseAddress(address) ?? [])
  return [...new Set([...ofType('InternalIP'), ...ofType('ExternalIP').filter((address) => own?.has(address))])]
}

/** `nodePortAddresses`, which userspace mode takes and never uses. */
const configuredAddresses = ({mode, config}: ProxyFacts): readonly string[] =>
  mode === 'userspace' ? [] : (config?.nodePortAddresses ?? [])

/**
 * Where a node's NodePorts answer: by `nodePortAddresses`, of which `primary` is the node's first address of each family
 * and the default of nftables mode (KEP-3866, KEP-4963); the old modes take every address. A family that no CIDR names is not
 * restricted (pkg/proxy/util/nodeport_addresses.go). Only addresses that the API knows are promised.
 */
function nodePortAddresses(cluster: ClusterState, proxy: ProxyFacts): Address[] {
  const addresses = nodeAddresses(cluster, proxy)
  const configured = configuredAddresses(proxy)
  const wanted = configured.length === 0 && proxy.mode === 'nftables' ? [PRIMARY] : configured
  return ([4, 6] as const).flatMap((family) => {
    const own = addresses.filter((address) => familyOf(address) === family)
    if (wanted.includes(PRIMARY)) return own.slice(0, 1)
    const ranges = rangesOf(wanted, family)
    return own.filter((address) => ranges.length === 0 || ranges.some((range) => inRange(address, range)))
  })
}

const PRIMARY = 'primary'

/** Only iptables mode serves 127.0.0.1:nodePort, IPv4, unless configured away (KEP-3866, «localhostNodePorts»). */
export function servesLocalhost(proxy: ProxyFacts): boolean {
  if (proxy.mode !== 'iptables' || proxy.config?.localhostNodePorts === false) return false
  const wanted = configuredAddresses(proxy)
  const ranges = rangesOf(wanted, 4)
  return !wanted.includes(PRIMARY) && (ranges.length === 0 || ranges.some((range) => inRange(0x7f000001, range)))
}

/** `loadBalancerSourceRanges` of one family; none restrict nothing. */
export const sourceRanges = ({sourceRanges: all}: Service, family: Family): Range[] => rangesOf(all, family)

/** What is a range of the family among texts. */
export const rangesOf = (texts: readonly string[], family: Family): Range[] =>
  texts.flatMap((text) => parseRange(text.trim()) ?? []).filter(({lo}) => familyOf(lo) === family)
