import type {ClusterState, Endpoint, Service, ServicePort} from '../model/kube.js'
import {parseAddress, type Address, type Family} from '../util/ip.js'
import {SINCE} from './proxy-facts.js'

/** An endpoint of one Service port, as kube-proxy reads it from the slices. */
export interface ServiceEndpoint {
  readonly address: Address
  readonly port: number
  readonly pod?: string
  readonly node?: string
  readonly ready: boolean
  readonly serving: boolean
  readonly terminating: boolean
  readonly zoneHints: readonly string[]
  readonly nodeHints: readonly string[]
}

/** The slices by Service, made once for each cluster state. */
const byService = new WeakMap<ClusterState, Map<string, ClusterState['slices'][number][]>>()

/** Without both lists nobody knows what a Service leads to: an absent list is not an empty one. */
export const knowsEndpoints = ({read}: ClusterState): boolean => read.has('endpointslices') || read.has('endpoints')

/** The slices of one Service, in the API's order. */
export function slicesOf(cluster: ClusterState, service: Service): readonly ClusterState['slices'][number][] {
  let index = byService.get(cluster)
  if (!index) {
    index = new Map()
    for (const slice of cluster.slices) {
      const known = index.get(slice.service)
      if (known) known.push(slice)
      else index.set(slice.service, [slice])
    }
    byService.set(cluster, index)
  }
  return index.get(service.id) ?? []
}

const endpointsViews = new WeakMap<ClusterState, ClusterState>()

/** The cluster with Endpoints objects in the place of slices, where they were read. */
export function asEndpoints(cluster: ClusterState): ClusterState {
  if (!cluster.legacyEndpoints) return cluster
  const known = endpointsViews.get(cluster) ?? {...cluster, slices: cluster.legacyEndpoints}
  endpointsViews.set(cluster, known)
  return known
}

interface Asked {
  readonly cluster: ClusterState
  readonly service: Service
  readonly port: ServicePort
  readonly family: Family
}

/** The questions about one Service port come one after the other. */
let last: (Asked & {readonly found: readonly ServiceEndpoint[]}) | undefined

/**
 * All endpoints of a Service port in one family, ready or not. The slice's port of the same name and protocol gives the
 * number (pkg/proxy/endpointslicecache.go); an address in two slices counts once.
 */
export function endpointsOf(
  cluster: ClusterState,
  service: Service,
  {port, family}: {port: ServicePort; family: Family},
): readonly ServiceEndpoint[] {
  if (last?.cluster !== cluster || last.service !== service || last.port !== port || last.family !== family)
    last = {cluster, service, port, family, found: findEndpoints({cluster, service, port, family})}
  return last.found
}

function findEndpoints({cluster, service, port, family}: Asked): ServiceEndpoint[] {
  const found = new Map<string, ServiceEndpoint>()
  for (const slice of slicesOf(cluster, service)) {
    if (slice.family !== family) continue
    const number = slice.ports.find(({name, protocol}) => name === port.name && protocol === port.protocol)?.port
    if (number === undefined) continue
    for (const endpoint of slice.endpoints) {
      const parsed = toEndpoint(endpoint, number)
      if (!parsed) continue
      const key = `${parsed.address} ${number}`
      if (!found.has(key) || parsed.ready) found.set(key, parsed)
    }
  }
  return [...found.values()]
}

function toEndpoint(
  {address, ready, serving, terminating, node, pod, zoneHints, nodeHints}: Endpoint,
  port: number,
): ServiceEndpoint | undefined {
  const parsed = parseAddress(address)
  if (parsed === undefined) return undefined
  return {
    address: parsed,
    port,
    ready,
    serving,
    terminating,
    zoneHints,
    nodeHints,
    ...(node === undefined ? {} : {node}),
    ...(pod === undefined ? {} : {pod}),
  }
}

/** The zone label that kube-proxy compares hints with. */
const ZONE = 'topology.kubernetes.io/zone'

export interface EndpointView {
  /** The node whose kube-proxy decides. */
  readonly node: string
  readonly cluster: ClusterState
  /** Minor version of its kube-proxy; undefined: a current one. */
  readonly minor: number | undefined
}

/** Endpoints that traffic with policy Cluster reaches from a node (pkg/proxy/topology.go, CategorizeEndpoints). */
export function clusterEndpoints(
  all: readonly ServiceEndpoint[],
  service: Service,
  view: EndpointView,
): ServiceEndpoint[] {
  const ready = near(
    all.filter((endpoint) => endpoint.ready),
    service,
    view,
  )
  return ready.length > 0 ? ready : fallback(all, view)
}

/** Endpoints on the node itself, for policy Local. */
export function localEndpoints(all: readonly ServiceEndpoint[], view: EndpointView): ServiceEndpoint[] {
  const local = all.filter(({node}) => node === view.node)
  const ready = local.filter((endpoint) => endpoint.ready)
  return ready.length > 0 ? ready : fallback(local, view)
}

/** KEP-1669: with no ready endpoint, terminating ones that still serve; on by default since 1.26. */
function fallback(all: readonly ServiceEndpoint[], {minor}: EndpointView): ServiceEndpoint[] {
  return minor !== undefined && minor < SINCE.terminatingEndpoints
    ? []
    : all.filter(({serving, terminating}) => serving && terminating)
}

/** Hints: of the node when all endpoints have some (KEP-3015), else of the zone (KEP-2433); ignored when none fits. */
function near(
  ready: readonly ServiceEndpoint[],
  service: Service,
  {node, cluster, minor}: EndpointView,
): ServiceEndpoint[] {
  if (ready.length === 0 || (minor !== undefined && minor < SINCE.topologyHints)) return [...ready]
  // before 1.31 (gate ServiceTrafficDistribution) the proxy also wanted the annotation or field that asks for hints
  const asks = service.trafficDistribution !== undefined || !/^(disabled)?$/i.test(service.topologyMode ?? '')
  if (minor !== undefined && minor < SINCE.unaskedHints && !asks) return [...ready]
  if ((minor === undefined || minor >= SINCE.nodeHints) && ready.every(({nodeHints}) => nodeHints.length > 0)) {
    const own = ready.filter(({nodeHints}) => nodeHints.includes(node))
    if (own.length > 0) return own
  }
  const zone = cluster.nodes.find(({name}) => name === node)?.labels[ZONE]
  if (zone === undefined || !ready.every(({zoneHints}) => zoneHints.length > 0)) return [...ready]
  const own = ready.filter(({zoneHints}) => zoneHints.includes(zone))
  return own.length > 0 ? own : [...ready]
}
