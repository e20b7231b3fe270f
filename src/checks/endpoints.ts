import {endpointsOf, knowsEndpoints, slicesOf, type ServiceEndpoint} from '../intent/endpoints.js'
import {servesFamily} from '../intent/frontends.js'
import type {ClusterState, EndpointPort, Pod, Service, ServicePort} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import {familyOf, formatEndpoint, parseAddress, type Family} from '../util/ip.js'
import {apiEvidence, endpointsEvidence, frontendField, portField, serviceEvidence} from './api-evidence.js'
import type {CodeName} from './codes.js'
import {makeFinding, type Finding, type Severity} from './finding.js'
import {slicesBehind} from './slices-behind.js'

/** What the API says of the pods and endpoints behind a Service. */

export interface ApiFinding {
  readonly port?: ServicePort
  readonly severity?: Severity
  readonly evidence: readonly Evidence[]
}

/** A finding about one Service, from the API's objects. */
export function apiFinding(
  name: CodeName,
  service: Pick<Service, 'id'>,
  message: string,
  {port, severity, evidence}: ApiFinding,
): Finding {
  return makeFinding(name, {
    severity,
    services: [service.id],
    port: port && `${port.port}/${port.protocol}`,
    message,
    evidence,
  })
}

/** Pods by namespace and label, made once for each cluster state: a scan for every Service would be quadratic. */
const byLabel = new WeakMap<ClusterState, Map<string, Pod[]>>()
const labelKey = (namespace: string, [key, value]: readonly [string, string]): string => `${namespace} ${key}=${value}`

function podsByLabel(cluster: ClusterState): Map<string, Pod[]> {
  let index = byLabel.get(cluster)
  if (index) return index
  index = new Map<string, Pod[]>()
  byLabel.set(cluster, index)
  for (const pod of cluster.pods ?? []) {
    if (pod.phase === 'Succeeded' || pod.phase === 'Failed') continue
    for (const label of Object.entries(pod.labels)) {
      const key = labelKey(pod.namespace, label)
      const known = index.get(key)
      if (known) known.push(pod)
      else index.set(key, [pod])
    }
  }
  return index
}

/** An empty selector selects nothing that is managed (its endpoints are somebody else's). */
function selected(cluster: ClusterState, service: Service): Pod[] | undefined {
  if (!cluster.pods || !service.selector) return undefined
  const wanted = Object.entries(service.selector)
  const candidates = wanted.map((label) => podsByLabel(cluster).get(labelKey(service.namespace, label)) ?? [])
  const fewest = candidates.reduce<Pod[] | undefined>(
    (best, pods) => (best && best.length <= pods.length ? best : pods),
    undefined,
  )
  return (fewest ?? []).filter(({labels}) => wanted.every(([key, value]) => labels[key] === value))
}

/** All endpoints of a port, in every family of the Service. */
export function portEndpoints(cluster: ClusterState, service: Service, port: ServicePort): ServiceEndpoint[] {
  return ([4, 6] as const).flatMap((family) =>
    service.headless || servesFamily(service, family) ? endpointsOf(cluster, service, {port, family}) : [],
  )
}

/** Who is behind a Service: pods selected, endpoints there, ready, of every family, at the port that is meant. */
export function endpointFindings(cluster: ClusterState, service: Service): Finding[] {
  const pods = selected(cluster, service)
  if (pods?.length === 0)
    return [
      apiFinding(
        'nothing-selected',
        service,
        `no pod in ${service.namespace} has the labels ${selectorText(service)} of ${service.id}${endedPods(cluster, service)}`,
        {evidence: [serviceEvidence(service, `selector: ${selectorText(service)}`, 'spec.selector')]},
      ),
    ]
  const behind = slicesBehind(cluster, service, pods)
  // where that leaves nobody, it is why
  if (behind.some(({severity}) => severity === 'error')) return behind
  return [...behind, ...byPort(cluster, service, pods)]
}

function byPort(cluster: ClusterState, service: Service, pods: readonly Pod[] | undefined): Finding[] {
  if (service.headless && service.ports.length === 0) return portless(cluster, service, pods)
  return merged(service.ports.flatMap((port) => portFindings(cluster, service, {port, pods})))
}

/** Pods with these labels that have ended: they serve nobody. */
function endedPods({pods}: ClusterState, {namespace, selector}: Service): string {
  const ended = (pods ?? []).filter(
    (pod) =>
      pod.namespace === namespace &&
      (pod.phase === 'Succeeded' || pod.phase === 'Failed') &&
      Object.entries(selector ?? {}).every(([key, value]) => pod.labels[key] === value),
  )
  return ended.length === 0
    ? ''
    : ` but ${ended.length} that ended: ${ended
        .slice(0, 3)
        .map(({id}) => id)
        .join(', ')}`
}

/** A headless Service needs no ports: its DNS name has the addresses of its endpoints. */
function portless(cluster: ClusterState, service: Service, pods: readonly Pod[] | undefined): Finding[] {
  if (!knowsEndpoints(cluster)) return []
  const endpoints = slicesOf(cluster, service).flatMap((slice) =>
    slice.endpoints.flatMap(({address, ...rest}) => {
      const parsed = slice.family === undefined ? undefined : parseAddress(address)
      return parsed === undefined ? [] : [{...rest, address: parsed, port: 0}]
    }),
  )
  if (endpoints.length === 0) return [noEndpoints(cluster, service, {pods})]
  return [...missingHeadlessFamily(cluster, service), ...readiness(cluster, service, {endpoints, pods})]
}

/** Pods that have no address yet, or no endpoint at all. */
function noEndpoints(
  cluster: ClusterState,
  service: Service,
  {port, pods}: {port?: ServicePort; pods: readonly Pod[] | undefined},
): Finding {
  const evidence = [endpointsEvidence(cluster, service, service.id)]
  if (pods?.[0] && !pods.some(({ips}) => ips.length > 0)) {
    const names = pods.slice(0, 3).map(({id, notReadyReason}) => `${id}${notReadyReason ? ` (${notReadyReason})` : ''}`)
    const more = pods.length > 3 ? ` and ${pods.length - 3} more` : ''
    const message = `none of the ${pods.length} pods of ${service.id} has an address: ${names.join('; ')}${more}`
    const waiting = apiEvidence('pods.json', pods[0].id, names[0]!, 'status.conditions')
    return apiFinding('no-ready-endpoint', service, message, {
      ...(port ? {port} : {}),
      evidence: [waiting, ...evidence],
    })
  }
  const what = port ? ` for port ${port.port}/${port.protocol}` : ''
  return apiFinding('no-endpoints', service, `${service.id} has no endpoint${what}`, {
    ...(port ? {port} : {}),
    evidence,
  })
}

/** Both families are asked for, and one has no endpoint; without a selector the API asks for both by itself. */
function missingHeadlessFamily(cluster: ClusterState, service: Service): Finding[] {
  if (!service.headless || !service.selector || service.ipFamilies.length < 2) return []
  const slices = slicesOf(cluster, service).filter(({endpoints}) => endpoints.length > 0)
  const empty = ([4, 6] as const).filter((family) => !slices.some((slice) => slice.family === family))
  if (empty.length !== 1) return []
  const evidence = [
    serviceEvidence(service, `ipFamilies: ${service.ipFamilies.join(', ')}`, 'spec.ipFamilies'),
    endpointsEvidence(cluster, service, service.id),
  ]
  return [
    apiFinding('no-endpoints', service, `${service.id} is of both families, and has no IPv${empty[0]} endpoint`, {
      evidence,
    }),
  ]
}

/** What is said of several ports in the same words is said once. */
function merged(findings: readonly Finding[]): Finding[] {
  const wordless = ({name, message, port}: Finding): string =>
    `${name} ${port === undefined ? message : message.replaceAll(port, '')}`
  const groups = new Map<string, Finding[]>()
  for (const finding of findings) groups.set(wordless(finding), [...(groups.get(wordless(finding)) ?? []), finding])
  return [...groups.values()].map(([first, ...others]) => {
    if (others.length === 0) return first!
    const {port, ...rest} = first!
    const ports = [first!, ...others].map((finding) => finding.port).join(', ')
    return port === undefined ? rest : {...rest, message: first!.message.replace(`port ${port}`, `ports ${ports}`)}
  })
}

const selectorText = ({selector}: Service): string =>
  Object.entries(selector ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(',')

function portFindings(
  cluster: ClusterState,
  service: Service,
  {port, pods}: {port: ServicePort; pods: readonly Pod[] | undefined},
): Finding[] {
  const endpoints = portEndpoints(cluster, service, port)
  if (typeof port.targetPort === 'string' && pods && !pods.some((pod) => hasNamedPort(pod, port))) {
    return [
      apiFinding(
        'named-port-missing',
        service,
        `no selected pod of ${service.id} has a container port named "${port.targetPort}" of ${port.protocol}`,
        {port, evidence: [targetEvidence(service, port), ...podEvidence(pods)]},
      ),
    ]
  }
  if (!knowsEndpoints(cluster)) return undeclared(service, port, pods)
  if (endpoints.length === 0) return [noEndpoints(cluster, service, {port, pods})]
  return [
    ...missingFamily(cluster, service, port),
    ...missingHeadlessFamily(cluster, service),
    ...stalePorts(cluster, service, port),
    ...lackingName(service, port, pods),
    ...readiness(cluster, service, {port, endpoints, pods}),
    ...undeclared(service, port, pods),
  ]
}

/** A name is looked up among ports of the same protocol (pkg/api/v1/pod, FindPort). */
const hasNamedPort = ({ports}: Pod, {targetPort, protocol}: ServicePort): boolean =>
  ports.some((own) => own.name === targetPort && own.protocol === protocol)

/** A dual-stack Service whose one family has endpoints and whose other has none. */
function missingFamily(cluster: ClusterState, service: Service, port: ServicePort): Finding[] {
  const families = ([4, 6] as const).filter((family) => !service.headless && servesFamily(service, family))
  const empty = families.filter((family) => endpointsOf(cluster, service, {port, family}).length === 0)
  if (empty.length === 0 || empty.length === families.length) return []
  const message = `${service.id} has a cluster IP of IPv${empty[0]}, and no IPv${empty[0]} endpoint for port ${port.port}/${port.protocol}`
  const ip = service.clusterIPs.find((address) => address.includes(':') === (empty[0] === 6))!
  const evidence = [
    serviceEvidence(service, ip, frontendField(service, port, {kind: 'clusterIP', address: parseAddress(ip)!})),
    endpointsEvidence(cluster, service, service.id),
  ]
  return [apiFinding('no-endpoints', service, message, {port, evidence})]
}

/** Some of the selected pods have no port of that name: they are left out of its endpoints. */
function lackingName(service: Service, port: ServicePort, pods: readonly Pod[] | undefined): Finding[] {
  if (typeof port.targetPort !== 'string' || !pods) return []
  const without = pods.filter((pod) => !hasNamedPort(pod, port))
  if (without.length === 0) return []
  const names = without.slice(0, 3).map(({id}) => id)
  const message = `${without.length} of ${pods.length} pods of ${service.id} have no container port named "${port.targetPort}" and get nothing: ${names.join(', ')}`
  const evidence = [targetEvidence(service, port), ...podEvidence(without)]
  return [apiFinding('named-port-missing', service, message, {port, severity: 'warning', evidence})]
}

/** A container port that is wanted, as the Service names it. */
const targetEvidence = (service: Service, port: ServicePort): Evidence =>
  serviceEvidence(service, `${service.id}: targetPort ${port.targetPort}`, portField(service, port, 'targetPort'))

/** The container ports of the first of them. */
const podEvidence = ([pod]: readonly Pod[]): Evidence[] =>
  pod ? [apiEvidence('pods.json', pod.id, `${pod.id}: ports ${declared([pod]) || 'none'}`, 'spec.containers')] : []

/** What the endpointslice controller itself wrote before the Service was changed, or somebody in its name. */
function stalePorts(cluster: ClusterState, service: Service, port: ServicePort): Finding[] {
  const {targetPort, name, protocol} = port
  if (!service.selector || typeof targetPort !== 'number') return []
  const isOther = (own: EndpointPort): boolean =>
    own.name === name && own.protocol === protocol && own.port !== undefined && own.port !== targetPort
  const slice = slicesOf(cluster, service).find(
    ({managedBy, ports}) => managedBy === 'endpointslice-controller.k8s.io' && ports.some(isOther),
  )
  if (!slice) return []
  const at = slice.ports.findIndex(isOther)
  const id = `${slice.namespace}/${slice.name}`
  const message = `EndpointSlice ${id} has port ${slice.ports[at]!.port} for ${service.id}, whose targetPort is ${targetPort}`
  const evidence = [
    apiEvidence('endpointslices.json', id, `${id}: port ${slice.ports[at]!.port}`, `ports[${at}].port`),
    targetEvidence(service, port),
  ]
  return [apiFinding('endpoints-disagree', service, message, {port, evidence})]
}

interface Endpoints {
  readonly port?: ServicePort
  readonly endpoints: readonly ServiceEndpoint[]
  readonly pods: readonly Pod[] | undefined
}

/** Ready, or on its way out and still serving while nobody else is ready (KEP-1669). */
const isUsable = ({ready, serving, terminating}: ServiceEndpoint): boolean => ready || (serving && terminating)

/** The endpoints that nobody can use because none of them is ready: all, or those of one family of two. */
function deadOnes(
  endpoints: readonly ServiceEndpoint[],
): {dead: readonly ServiceEndpoint[]; family?: Family} | undefined {
  if (!endpoints.some(isUsable)) return {dead: endpoints}
  for (const family of [4, 6] as const) {
    const own = endpoints.filter(({address}) => familyOf(address) === family)
    if (own.length > 0 && !own.some(isUsable)) return {dead: own, family}
  }
  return undefined
}

function readiness(cluster: ClusterState, service: Service, {port, endpoints, pods}: Endpoints): Finding[] {
  const found = deadOnes(endpoints)
  const waiting = (found?.dead ?? endpoints).filter(({ready}) => !ready)
  if (waiting.length === 0) return []
  const names = waiting
    .slice(0, 3)
    .map((endpoint) => describe(endpoint, pods))
    .join('; ')
  const more = waiting.length > 3 ? ` and ${waiting.length - 3} more` : ''
  const extra = {
    ...(port ? {port} : {}),
    evidence: [
      endpointsEvidence(cluster, service, `${service.id}: ${describe(waiting[0]!, undefined)} is not ready`, {
        which: ({address}) => parseAddress(address) === waiting[0]!.address,
        field: 'conditions.ready',
      }),
      ...waitingPod(waiting[0]!, pods),
    ],
  }
  if (found) {
    const kind = found.family === undefined ? '' : `IPv${found.family} `
    const message = `none of the ${found.dead.length} ${kind}endpoints of ${service.id} is ready: ${names}${more}`
    return [apiFinding('no-ready-endpoint', service, message, extra)]
  }
  const message = `${waiting.length} of ${endpoints.length} endpoints of ${service.id} are not ready: ${names}${more}`
  return [apiFinding('not-ready-endpoints', service, message, extra)]
}

/** Why, in the pod's own words. */
function waitingPod({pod: id}: ServiceEndpoint, pods: readonly Pod[] | undefined): Evidence[] {
  const pod = pods?.find((one) => one.id === id)
  return pod
    ? [apiEvidence('pods.json', pod.id, `${pod.id}: ${pod.notReadyReason ?? 'ready'}`, 'status.conditions')]
    : []
}

function describe({pod, address, port}: ServiceEndpoint, pods: readonly Pod[] | undefined): string {
  const reason = pods?.find(({id}) => id === pod)?.notReadyReason
  return `${pod ?? formatEndpoint(address, port)}${reason ? ` (${reason})` : ''}`
}

/** Declaring ports is optional: only a pod whose containers all declare some says that it does not listen at another. */
function undeclared(service: Service, port: ServicePort, pods: readonly Pod[] | undefined): Finding[] {
  const {targetPort, protocol} = port
  if (typeof targetPort !== 'number' || !pods) return []
  const without = pods.filter(
    (pod) => !pod.undeclared && !pod.ports.some((own) => own.port === targetPort && own.protocol === protocol),
  )
  const [first] = without
  if (!first) return []
  const target = `targetPort ${targetPort}/${protocol} of ${service.id}`
  const what =
    without.length === pods.length
      ? `none of its ${pods.length} pods declares ${target} (they declare ${declared(without)})`
      : `${without.length} of ${pods.length} pods ${without.length === 1 ? 'does' : 'do'} not declare ${target}: ${first.id} (declares ${declared([first])})`
  return [
    apiFinding('target-port-undeclared', service, what, {
      port,
      evidence: [targetEvidence(service, port), ...podEvidence(without)],
    }),
  ]
}

const declared = (pods: readonly Pod[]): string =>
  [...new Set(pods.flatMap(({ports}) => ports.map(({port, protocol}) => `${port}/${protocol}`)))].slice(0, 5).join(', ')
