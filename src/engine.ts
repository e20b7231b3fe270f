import {lacksFilter, lacksIpvs, lacksNat} from './checks/proxy.js'
import {lossyRule} from './checks/unreadable.js'
import {World, type PodPlace, type WorldFacts} from './dataplane/world.js'
import {knowsEndpoints} from './intent/endpoints.js'
import type {ClusterState} from './model/kube.js'
import {proxySockets} from './proxy-sockets.js'
import type {NodeState} from './snapshot/node-state.js'
import type {Snapshot} from './snapshot/snapshot.js'
import {
  familyOf,
  inRange,
  parseAddress,
  parseRange,
  prefixRange,
  type Address,
  type Family,
  type Range,
} from './util/ip.js'

/** Builds the world that packets walk through. This is the one place where Services tell the data plane which addresses are virtual. */
export function buildWorld({cluster, nodes}: Snapshot): World {
  return new World(worldFacts(cluster, nodes))
}

function worldFacts(cluster: ClusterState, nodes: Snapshot['nodes']): WorldFacts {
  const apiAddresses = new Map(cluster.nodes.map((node) => [node.name, addressesOf(internalFirst(node.addresses))]))
  const nodeAddresses = new Set([...apiAddresses.values()].flat())
  const isOwn: OwnAddress = (node, address) => nodeAddresses.has(address) || holds(nodes.get(node), address)
  const pods = podPlaces(cluster, nodes, isOwn)
  const podAddresses = new Set(pods.flatMap(({addresses}) => addresses))
  return {
    nodes: [...nodes.values()].map((state) => ({
      state,
      addresses: apiAddresses.get(state.name) ?? [],
      unasked: (family) => withoutFilter(state, family),
      unseen: (family) => withoutNat(state, family) ?? withoutIpvs(state) ?? printedInPart(state, family),
      podRanges: (cluster.nodes.find(({name}) => name === state.name)?.podCIDRs ?? []).flatMap(
        (cidr) => parseRange(cidr) ?? [],
      ),
    })),
    pods,
    podsUnread: !cluster.pods && !knowsEndpoints(cluster),
    unread: new Map(
      [...apiAddresses].flatMap(([name, addresses]) =>
        nodes.has(name) ? [] : addresses.map((address) => [address, name] as const),
      ),
    ),
    externals: externalHosts(cluster, (address) => nodeAddresses.has(address) || podAddresses.has(address)),
    virtual: new Set(virtualAddresses(cluster).filter((address) => !nodeAddresses.has(address))),
    virtualRanges: serviceRanges(cluster),
    socketPod: socketPods(cluster),
    proxySocket: proxySockets(cluster, nodes),
  }
}

/** The addresses by which nodes know each other come first, whatever the order of the API. */
const internalFirst = (addresses: ClusterState['nodes'][number]['addresses']): string[] =>
  [...addresses]
    .sort((a, b) => Number(b.type === 'InternalIP') - Number(a.type === 'InternalIP'))
    .map(({address}) => address)

/** `iptables-save -t nat`: kube-proxy has rules in the filter table of every node where it has any in nat. */
function withoutFilter(state: NodeState, family: Family): string | undefined {
  const dumps = state.iptables(family)
  return lacksFilter(state, family) && !dumps.some(({file}) => file.endsWith('-L.txt'))
    ? `${dumps[0]!.file} has no filter table, although kube-proxy fills it: not asked for`
    : undefined
}

/** `iptables -S` and `iptables -L` without `-t` show the filter table alone, and so does a part of a dump. */
const withoutNat = (state: NodeState, family: Family): string | undefined =>
  lacksNat(state, family)
    ? `the nat table is not in ${state.iptables(family)[0]!.file}: list it with iptables-save, or -t nat`
    : undefined

/** kube-proxy's chains of ipvs mode only mark and let through; who translates was not asked. */
const withoutIpvs = (state: NodeState): string | undefined =>
  lacksIpvs(state)
    ? 'kube-proxy’s rules are those of its ipvs mode, and IPVS was not asked: add ipvsadm-Sn.txt (ipvsadm -Sn)'
    : undefined

function printedInPart(state: NodeState, family: Family): string | undefined {
  const rule = lossyRule(state, family)
  return (
    rule &&
    `the rules of ${rule.file} are printed without all that they ask for (line ${rule.line} has lost a port or a mark): read them with the iptables of kube-proxy’s image`
  )
}

const addressesOf = (texts: readonly string[]): Address[] => texts.flatMap((text) => parseAddress(text) ?? [])

const holds = (state: NodeState | undefined, address: Address): boolean =>
  state?.addresses.some((own) => own.address === address) ?? false

/** Is the address the node's own? */
type OwnAddress = (node: string, address: Address) => boolean

/** Pods that hold addresses, as the API's pods tell, and endpoints of a node that no pod is named for. */
function podPlaces(cluster: ClusterState, states: Snapshot['nodes'], isNodes: OwnAddress): PodPlace[] {
  if (!cluster.pods) return placesOfEndpoints(cluster, isNodes)
  const pods = cluster.pods
    .filter(({phase, node}) => phase !== 'Succeeded' && phase !== 'Failed' && node !== undefined)
    .map(({id, node, ips, hostNetwork}) => ({id, node: node!, addresses: addressesOf(ips), hostNetwork}))
  const unnamed = cluster.slices.some(({endpoints}) =>
    endpoints.some(({pod, node}) => pod === undefined && node !== undefined),
  )
  if (!unnamed) return pods
  const known = new Set(cluster.pods.flatMap(({ips}) => addressesOf(ips)))
  const nodes = new Map(cluster.nodes.map((node) => [node.name, node]))
  return [
    ...pods,
    ...placesOfEndpoints(cluster, isNodes).filter(
      ({id, node, hostNetwork, addresses}) =>
        id.startsWith(UNNAMED) &&
        !hostNetwork &&
        addresses.every(
          (address) => !known.has(address) && hasPod(address, {node: nodes.get(node), state: states.get(node)}),
        ),
    ),
  ]
}

/** Is the address in the node's part of the pod network, or led to by a route of its own? */
function hasPod(
  address: Address,
  {node, state}: {node: ClusterState['nodes'][number] | undefined; state: NodeState | undefined},
): boolean {
  if (node?.podCIDRs.some((cidr) => isIn(address, cidr))) return true
  return (
    state?.routes.some(
      ({type, destination, nextHops}) =>
        type === 'unicast' &&
        destination.lo === address &&
        destination.hi === address &&
        nextHops.every(({gateway}) => gateway === undefined),
    ) ?? false
  )
}

function isIn(address: Address, cidr: string): boolean {
  const range = parseRange(cidr)
  return range !== undefined && inRange(address, range)
}

const UNNAMED = 'pod at '

/** What the endpoints tell of pods. */
function placesOfEndpoints(cluster: ClusterState, isNodes: OwnAddress): PodPlace[] {
  const places = new Map<string, PodPlace>()
  for (const {endpoints, family} of cluster.slices) {
    for (const {address, node, pod} of endpoints) {
      const parsed = family === undefined ? undefined : parseAddress(address)
      const owner = node ?? soleNode(cluster)
      if (parsed === undefined || owner === undefined || (pod === undefined && node === undefined)) continue
      const id = pod ?? `${UNNAMED}${address}`
      const known = places.get(id)
      places.set(id, {
        id,
        node: owner,
        hostNetwork: isNodes(owner, parsed),
        addresses: [...new Set([...(known?.addresses ?? []), parsed])],
      })
    }
  }
  return [...places.values()]
}

const soleNode = (cluster: ClusterState): string | undefined =>
  cluster.nodes.length === 1 ? cluster.nodes[0]!.name : undefined

/** Endpoints that are neither pods nor nodes: databases outside, the API server. */
function externalHosts(cluster: ClusterState, known: (address: Address) => boolean): Set<Address> {
  const ranges = cluster.nodes.flatMap(({podCIDRs}) => podCIDRs.flatMap((cidr) => parseRange(cidr) ?? []))
  const hosts = new Set<Address>()
  for (const {endpoints} of [...cluster.slices, ...(cluster.legacyEndpoints ?? [])]) {
    for (const {address, pod} of endpoints) {
      const parsed = parseAddress(address)
      if (parsed === undefined || known(parsed)) continue
      if (pod !== undefined && cluster.pods !== undefined) continue
      if (ranges.some(({lo, hi}) => typeof lo === typeof parsed && parsed >= lo && parsed <= hi)) continue
      hosts.add(parsed)
    }
  }
  return hosts
}

/** Addresses that only translation makes work. */
function virtualAddresses(cluster: ClusterState): Address[] {
  return cluster.services.flatMap((service) =>
    addressesOf([...service.clusterIPs, ...service.externalIPs, ...service.loadBalancer.flatMap(({ip}) => ip ?? [])]),
  )
}

/** Fewer cluster IPs than this say too little about the range that they come from. */
const ENOUGH_CLUSTER_IPS = 8
const WIDEST: Readonly<Record<Family, number>> = {4: 12, 6: 48}

/** The Services' address ranges: as ServiceCIDR objects tell, else the smallest prefix that holds all cluster IPs. */
function serviceRanges(cluster: ClusterState): Range[] {
  const told = (cluster.raw['servicecidrs'] ?? [])
    .flatMap(({spec}) => (Array.isArray(spec?.['cidrs']) ? (spec['cidrs'] as unknown[]) : []))
    .flatMap((cidr) => parseRange(String(cidr)) ?? [])
  if (told.length > 0) return told
  const all = cluster.services.flatMap(({clusterIPs}) => addressesOf(clusterIPs))
  return ([4, 6] as const).flatMap((family) => {
    const own = all.filter((address) => familyOf(address) === family).sort((a, b) => (a < b ? -1 : 1))
    // an IPv6 range has 20 bits at most (kube-apiserver, --service-cluster-ip-range): one address tells it
    const [first] = own
    const whole = family === 6 && first !== undefined ? prefixRange(first, 108) : undefined
    if (whole && own.every((address) => inRange(address, whole))) return [whole]
    if (own.length < ENOUGH_CLUSTER_IPS) return []
    const width = family === 4 ? 32 : 128
    const length = width - (BigInt(own[0]!) ^ BigInt(own.at(-1)!)).toString(2).length
    return length < WIDEST[family] ? [] : [prefixRange(own[0]!, length)]
  })
}

/** Which pod answers on a port of its node's own network: by its endpoint, else by its declared ports. */
function socketPods(cluster: ClusterState): WorldFacts['socketPod'] {
  const byEndpoint = new Map<string, string>()
  for (const {endpoints, ports} of cluster.slices) {
    for (const {address, pod} of endpoints)
      for (const {port} of ports)
        if (pod !== undefined && port !== undefined) byEndpoint.set(`${parseAddress(address)} ${port}`, pod)
  }
  const byNode = new Map<string, string>()
  for (const {id, node, ports, hostNetwork} of cluster.pods ?? [])
    if (hostNetwork) for (const {port} of ports) byNode.set(`${node} ${port}`, id)
  return (node, address, port) => byEndpoint.get(`${address} ${port}`) ?? byNode.get(`${node} ${port}`)
}
