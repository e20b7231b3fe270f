import {knowsEndpoints, slicesOf} from '../intent/endpoints.js'
import type {ClusterState, Endpoint, Pod, Service} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import {parseAddress, type Address} from '../util/ip.js'
import {apiEvidence, endpointsEvidence} from './api-evidence.js'
import {makeFinding, type Finding} from './finding.js'

/**
 * Pods and slices that contradict each other: the endpointslice controller does not follow (kube-controller-manager is down,
 * has lost its lease, or may not write). The nodes then do what the slices say, faithfully and wrongly.
 */

/** What the lists, read one after the other, may differ by, and how long the controller may take (pkg/controller/endpointslice). */
const GRACE_MS = 120_000

/** Endpoints objects are cut at so many addresses (MaxEndpointCapacity of the endpoints controller). */
export const MOST_ENDPOINTS = 1000

/** A pod that the slices are wrong about, and since when. */
interface Contradiction {
  readonly pod: Pod
  readonly address: Address
  /** Milliseconds. */
  readonly age: number
}

export function slicesBehind(cluster: ClusterState, service: Service, pods: readonly Pod[] | undefined): Finding[] {
  if (!pods || !knowsEndpoints(cluster) || service.publishNotReadyAddresses) return []
  const slices = slicesOf(cluster, service)
  const endpoints = slices.flatMap((slice) => slice.endpoints)
  const foreign = slices.some(({managedBy}) => managedBy !== undefined && managedBy !== CONTROLLER)
  const cut = !cluster.read.has('endpointslices') && endpoints.length >= MOST_ENDPOINTS
  if (foreign || cut || isFresh(cluster, service.created)) return []
  const left = leftOut(cluster, service, {pods, endpoints})
  const kept = keptOn(cluster, {pods, endpoints})
  const alive = endpoints.some(({ready, serving, terminating}) => ready || (serving && terminating))
  return [
    ...(left.length > 0 ? [leftOutFinding(cluster, service, {left, pods, alive})] : []),
    ...(kept.length > 0 ? [keptFinding(cluster, service, kept)] : []),
  ]
}

const CONTROLLER = 'endpointslice-controller.k8s.io'

interface Sides {
  readonly pods: readonly Pod[]
  readonly endpoints: readonly Endpoint[]
}

/** Ready pods of the Service's families that no slice calls ready (k8s.io/endpointslice/util, ShouldPodBeInEndpoints). */
function leftOut(cluster: ClusterState, {ipFamilies}: Service, {pods, endpoints}: Sides): Contradiction[] {
  const known = new Set(
    endpoints.filter(({ready, terminating}) => ready || terminating).map(({address}) => parseAddress(address)),
  )
  return pods
    .filter(({ready, terminating, phase}) => ready && !terminating && phase === 'Running')
    .flatMap((pod) => {
      const own = pod.ips.filter(
        (ip) => ipFamilies.length === 0 || ipFamilies.includes(ip.includes(':') ? 'IPv6' : 'IPv4'),
      )
      const addresses = own.flatMap((ip) => parseAddress(ip) ?? [])
      if (addresses.length === 0 || addresses.some((address) => known.has(address))) return []
      return contradiction(cluster, pod, addresses[0]!)
    })
}

/** Endpoints called ready whose pods say that they are not. */
function keptOn(cluster: ClusterState, {pods, endpoints}: Sides): Contradiction[] {
  const waiting = new Map(pods.filter(({ready}) => !ready).map((pod) => [pod.id, pod]))
  const found = new Map<string, Contradiction>()
  for (const {pod: id = '', address, ready} of endpoints) {
    const pod = waiting.get(id)
    const parsed = parseAddress(address)
    if (!ready || !pod || parsed === undefined || !pod.ips.some((ip) => parseAddress(ip) === parsed)) continue
    for (const one of contradiction(cluster, pod, parsed)) found.set(id, one)
  }
  return [...found.values()]
}

function contradiction(cluster: ClusterState, pod: Pod, address: Address): Contradiction[] {
  const age = timeOf(cluster) - Date.parse(pod.readyChanged ?? '')
  return age >= GRACE_MS ? [{pod, address, age}] : []
}

function isFresh(cluster: ClusterState, since: string | undefined): boolean {
  return since !== undefined && timeOf(cluster) - Date.parse(since) < GRACE_MS
}

const times = new WeakMap<ClusterState, number>()

/** When the lists were read, as far as they tell: not before anything that they speak of. */
function timeOf(cluster: ClusterState): number {
  let time = times.get(cluster)
  if (time === undefined) {
    const told = [
      cluster.taken,
      ...cluster.nodes.map(({heard}) => heard),
      ...(cluster.pods ?? []).map(({readyChanged}) => readyChanged),
    ]
    time = told.reduce((latest, text) => Math.max(latest, Date.parse(text ?? '') || 0), 0)
    times.set(cluster, time)
  }
  return time
}

interface LeftOut {
  readonly left: readonly Contradiction[]
  readonly pods: readonly Pod[]
  readonly alive: boolean
}

function leftOutFinding(cluster: ClusterState, service: Service, {left, pods, alive}: LeftOut): Finding {
  const ready = pods.filter((pod) => pod.ready).length
  const message = `the slices of ${service.id} leave out ${left.length} of its ${ready} ready pods, ready${ageText(left)}: ${shown(left)}${alive ? '' : '; they hold no endpoint that is of use'}`
  return makeFinding('slices-behind', {
    services: [service.id],
    severity: alive ? 'warning' : 'error',
    message,
    evidence: [
      podEvidence(left[0]!),
      endpointsEvidence(cluster, service, `${service.id}: no ready ${left[0]!.pod.ips[0]}`),
    ],
  })
}

function keptFinding(cluster: ClusterState, service: Service, kept: readonly Contradiction[]): Finding {
  const what = kept.length === 1 ? 'a pod ready that has' : `${kept.length} pods ready that have`
  const message = `the slices of ${service.id} call ${what} not been so${ageText(kept)}: ${shown(kept)}`
  const [first] = kept
  return makeFinding('slices-behind', {
    services: [service.id],
    message,
    evidence: [
      endpointsEvidence(cluster, service, `${service.id}: ${first!.pod.ips[0]} is ready`, {
        which: ({address}) => parseAddress(address) === first!.address,
        field: 'conditions.ready',
      }),
      podEvidence(first!),
    ],
  })
}

function podEvidence({pod}: Contradiction): Evidence {
  const state = pod.ready ? 'ready' : (pod.notReadyReason ?? 'not ready')
  return apiEvidence('pods.json', pod.id, `${pod.id}: ${state} since ${pod.readyChanged}`, 'status.conditions')
}

/** How long it is surely so of all of them. */
function ageText(found: readonly Contradiction[]): string {
  const minutes = Math.min(...found.map(({age}) => age)) / 60_000
  const [number, unit] =
    minutes < 120 ? [minutes, 'minutes'] : minutes < 2880 ? [minutes / 60, 'hours'] : [minutes / 1440, 'days']
  return ` for ${Math.floor(number)} ${unit}`
}

const shown = (found: readonly Contradiction[]): string =>
  found
    .slice(0, 3)
    .map(({pod}) => `${pod.id} (${pod.ready ? pod.ips[0] : (pod.notReadyReason ?? pod.ips[0])})`)
    .join(', ') + (found.length > 3 ? ` and ${found.length - 3} more` : '')
