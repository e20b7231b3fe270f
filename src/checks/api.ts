import {endpointsOf, knowsEndpoints, type ServiceEndpoint} from '../intent/endpoints.js'
import {isProxied, servesFamily} from '../intent/frontends.js'
import type {ClusterState, Pod, Service, ServicePort} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import {formatEndpoint, parseAddress} from '../util/ip.js'
import {checkGateways, checkNames} from './discovery.js'
import {checkIngresses} from './ingress.js'
import type {CodeName} from './codes.js'
import {apiEvidence, endpointsEvidence, frontendField, portField, serviceEvidence} from './api-evidence.js'
import {duplicatePorts} from './claims.js'
import {makeFinding, type Finding, type Severity} from './finding.js'

/** What the API's objects alone tell about one Service. */
export function checkService(cluster: ClusterState, service: Service): Finding[] {
  const names = checkNames(cluster, service)
  if (service.type === 'ExternalName') return names
  return [
    ...endpointFindings(cluster, service),
    ...localPolicies(cluster, service),
    ...loadBalancerFindings(cluster, service),
    ...names,
  ]
}

interface Extra {
  readonly port?: ServicePort
  readonly severity?: Severity
  readonly evidence: readonly Evidence[]
}

function apiFinding(
  name: CodeName,
  service: Pick<Service, 'id'>,
  message: string,
  {port, severity, evidence}: Extra,
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
function portEndpoints(cluster: ClusterState, service: Service, port: ServicePort): ServiceEndpoint[] {
  return ([4, 6] as const).flatMap((family) =>
    service.headless || servesFamily(service, family) ? endpointsOf(cluster, service, {port, family}) : [],
  )
}

function endpointFindings(cluster: ClusterState, service: Service): Finding[] {
  const pods = selected(cluster, service)
  if (pods?.length === 0)
    return [
      apiFinding(
        'nothing-selected',
        service,
        `no pod in ${service.namespace} has the labels ${selectorText(service)} of ${service.id}`,
        {evidence: [serviceEvidence(service, `selector: ${selectorText(service)}`, 'spec.selector')]},
      ),
    ]
  return merged(service.ports.flatMap((port) => portFindings(cluster, service, {port, pods})))
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
  if (
    typeof port.targetPort === 'string' &&
    pods &&
    !pods.some(({ports}) => ports.some(({name}) => name === port.targetPort))
  ) {
    return [
      apiFinding(
        'named-port-missing',
        service,
        `no selected pod of ${service.id} has a container port named "${port.targetPort}"`,
        {port, evidence: [targetEvidence(service, port), ...podEvidence(pods)]},
      ),
    ]
  }
  if (!knowsEndpoints(cluster)) return undeclared(service, port, pods)
  if (endpoints.length === 0)
    return [
      apiFinding('no-endpoints', service, `${service.id} has no endpoint for port ${port.port}/${port.protocol}`, {
        port,
        evidence: [endpointsEvidence(cluster, service, service.id)],
      }),
    ]
  return [
    ...missingFamily(cluster, service, port),
    ...lackingName(service, port, pods),
    ...readiness(cluster, service, {port, endpoints, pods}),
    ...undeclared(service, port, pods),
  ]
}

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
  const without = pods.filter(({ports}) => !ports.some(({name}) => name === port.targetPort))
  if (without.length === 0) return []
  const names = without.slice(0, 3).map(({id}) => id)
  const message = `${without.length} of ${pods.length} pods of ${service.id} have no container port named "${port.targetPort}" and get nothing: ${names.join(', ')}`
  const evidence = [targetEvidence(service, port), ...podEvidence(without)]
  return [apiFinding('named-port-missing', service, message, {port, severity: 'warning', evidence})]
}

/** Policy Local: nodes without an endpoint of their own drop what comes to them, by design. */
function localPolicies(cluster: ClusterState, service: Service): Finding[] {
  const external = service.type !== 'ClusterIP' && service.externalTrafficPolicy === 'Local'
  if (!isProxied(service) || (!external && service.internalTrafficPolicy !== 'Local')) return []
  const ready = service.ports
    .flatMap((port) => portEndpoints(cluster, service, port))
    .filter((endpoint) => endpoint.ready)
  const without = cluster.nodes.map(({name}) => name).filter((name) => !ready.some(({node}) => node === name))
  if (ready.length === 0 || without.length === 0) return []
  const shown = `${without.slice(0, 5).join(', ')}${without.length > 5 ? ` and ${without.length - 5} more` : ''}`
  const field = `${external ? 'external' : 'internal'}TrafficPolicy: Local`
  const message = `${shown} ${without.length === 1 ? 'has' : 'have'} no endpoint of ${service.id}: with ${field} what comes in there is dropped`
  const evidence = [
    serviceEvidence(service, field, `spec.${field.split(':')[0]}`),
    endpointsEvidence(
      cluster,
      service,
      `${service.id}: ready on ${[...new Set(ready.map(({node}) => node ?? '?'))].join(', ')}`,
    ),
  ]
  return [apiFinding('policy-local-no-endpoint', service, message, {evidence})]
}

/** A container port that is wanted, as the Service names it. */
const targetEvidence = (service: Service, port: ServicePort): Evidence =>
  serviceEvidence(service, `${service.id}: targetPort ${port.targetPort}`, portField(service, port, 'targetPort'))

/** The container ports of the first of them. */
const podEvidence = ([pod]: readonly Pod[]): Evidence[] =>
  pod ? [apiEvidence('pods.json', pod.id, `${pod.id}: ports ${declared([pod]) || 'none'}`, 'spec.containers')] : []

interface Endpoints {
  readonly port: ServicePort
  readonly endpoints: readonly ServiceEndpoint[]
  readonly pods: readonly Pod[] | undefined
}

function readiness(cluster: ClusterState, service: Service, {port, endpoints, pods}: Endpoints): Finding[] {
  const waiting = endpoints.filter(({ready}) => !ready)
  if (waiting.length === 0) return []
  const names = waiting
    .slice(0, 3)
    .map((endpoint) => describe(endpoint, pods))
    .join('; ')
  const more = waiting.length > 3 ? ` and ${waiting.length - 3} more` : ''
  const evidence = [
    endpointsEvidence(cluster, service, `${service.id}: ${describe(waiting[0]!, undefined)} is not ready`, {
      which: ({address}) => parseAddress(address) === waiting[0]!.address,
      field: 'conditions.ready',
    }),
  ]
  const usable = endpoints.some(({ready, serving, terminating}) => ready || (serving && terminating))
  if (usable)
    return [
      apiFinding(
        'not-ready-endpoints',
        service,
        `${waiting.length} of ${endpoints.length} endpoints of ${service.id} are not ready: ${names}${more}`,
        {port, evidence},
      ),
    ]
  return [
    apiFinding(
      'no-ready-endpoint',
      service,
      `none of the ${endpoints.length} endpoints of ${service.id} is ready: ${names}${more}`,
      {port, evidence},
    ),
  ]
}

function describe({pod, address, port}: ServiceEndpoint, pods: readonly Pod[] | undefined): string {
  const reason = pods?.find(({id}) => id === pod)?.notReadyReason
  return `${pod ?? formatEndpoint(address, port)}${reason ? ` (${reason})` : ''}`
}

function undeclared(service: Service, port: ServicePort, pods: readonly Pod[] | undefined): Finding[] {
  if (typeof port.targetPort !== 'number' || !pods || pods.every(({ports}) => ports.length === 0)) return []
  if (pods.some(({ports}) => ports.some((own) => own.port === port.targetPort && own.protocol === port.protocol)))
    return []
  return [
    apiFinding(
      'target-port-undeclared',
      service,
      `targetPort ${port.targetPort}/${port.protocol} of ${service.id} is declared by none of its ${pods.length} pods (they declare ${declared(pods)})`,
      {port, evidence: [targetEvidence(service, port), ...podEvidence(pods)]},
    ),
  ]
}

const declared = (pods: readonly Pod[]): string =>
  [...new Set(pods.flatMap(({ports}) => ports.map(({port, protocol}) => `${port}/${protocol}`)))].slice(0, 5).join(', ')

/** Endpoints whose pod does not exist or has another address: one finding, whatever the number. */
function gone(cluster: ClusterState, services: readonly Service[]): Finding[] {
  if (!cluster.pods) return []
  const pods = new Map(cluster.pods.map((pod) => [pod.id, pod]))
  const lost = services.flatMap((service) =>
    service.ports
      .flatMap((port) => portEndpoints(cluster, service, port))
      .flatMap(({pod, address, port}) => {
        const owner = pod === undefined ? undefined : pods.get(pod)
        if (pod === undefined || owner?.ips.some((ip) => parseAddress(ip) === address)) return []
        return [
          {
            service,
            endpoint: address,
            owner,
            text: `${formatEndpoint(address, port)} of ${service.id} names pod ${pod}, ${owner ? `whose address is ${owner.ips.join(', ') || 'not set'}` : 'which does not exist'}`,
          },
        ]
      }),
  )
  if (lost.length === 0) return []
  const shown = lost.slice(0, 3).map(({text}) => text)
  return [
    makeFinding('endpoint-without-pod', {
      services: [...new Set(lost.map(({service}) => service.id))],
      message: `endpoint ${shown.join('; ')}${lost.length > 3 ? `; and ${lost.length - 3} more` : ''}`,
      evidence: [
        endpointsEvidence(cluster, lost[0]!.service, shown[0]!, {
          which: ({address}) => parseAddress(address) === lost[0]!.endpoint,
          field: 'addresses',
        }),
        ...lost.slice(0, 1).flatMap(({owner}) => (owner ? [podAddress(owner)] : [])),
      ],
    }),
  ]
}

const podAddress = ({id, ips}: Pod): Evidence =>
  apiEvidence('pods.json', id, `${id}: ${ips.join(', ') || 'no address'}`, ips.length > 0 ? 'status.podIP' : 'status')

function loadBalancerFindings(cluster: ClusterState, service: Service): Finding[] {
  if (service.type !== 'LoadBalancer') return []
  if (service.loadBalancer.length === 0)
    return [
      apiFinding('load-balancer-pending', service, `${service.id} is of type LoadBalancer and has no address`, {
        evidence: [serviceEvidence(service, `${service.id}: status.loadBalancer is empty`, 'status.loadBalancer')],
      }),
    ]
  if (service.externalTrafficPolicy !== 'Local') return []
  const ready = service.ports
    .flatMap((port) => portEndpoints(cluster, service, port))
    .filter((endpoint) => endpoint.ready)
  const homes = cluster.nodes.filter(({name}) => ready.some(({node}) => node === name))
  if (ready.length === 0 || homes.some(({labels}) => !(EXCLUDED in labels))) return []
  const policy = [
    serviceEvidence(service, 'externalTrafficPolicy: Local', 'spec.externalTrafficPolicy'),
    endpointsEvidence(
      cluster,
      service,
      `${service.id}: ready on ${homes.map(({name}) => name).join(', ') || 'no node'}`,
    ),
  ]
  if (homes.length === 0) {
    if (cluster.nodes.length === 0 && ready.some(({node}) => node !== undefined)) return []
    const message = `no node of the cluster has an endpoint of ${service.id}, so every one fails the load balancer's health check`
    return [apiFinding('no-node-for-load-balancer', service, message, {evidence: policy})]
  }
  if (cluster.nodes.every(({labels}) => EXCLUDED in labels)) return []
  const message = `every node with an endpoint of ${service.id} is labelled ${EXCLUDED}: a load balancer that leaves such nodes out has no target`
  const evidence = [...policy, excluded(homes[0]!)]
  return [apiFinding('no-node-for-load-balancer', service, message, {severity: 'warning', evidence})]
}

/** KEP-1143; the service controllers of clouds leave such nodes out, not every implementation does. */
const EXCLUDED = 'node.kubernetes.io/exclude-from-external-load-balancers'

const excluded = ({name}: ClusterState['nodes'][number]): Evidence =>
  apiEvidence('nodes.json', name, `${name}: ${EXCLUDED}`, 'metadata.labels')

/** All nodes are left out: no load balancer has a target. */
function noTargets({nodes}: ClusterState, services: readonly Service[]): Finding[] {
  const hurt = services.filter(({type}) => type === 'LoadBalancer')
  if (hurt.length === 0 || nodes.length === 0 || nodes.some(({labels}) => !(EXCLUDED in labels))) return []
  return [
    makeFinding('no-node-for-load-balancer', {
      services: hurt.map(({id}) => id),
      severity: 'warning',
      message: `every node is labelled ${EXCLUDED}: a load balancer that leaves such nodes out has no target`,
      evidence: [excluded(nodes[0]!)],
    }),
  ]
}

/** Endpoints are cut at so many addresses (MaxEndpointCapacity of the endpoints controller). */
const MOST_ENDPOINTS = 1000

function disagreements(cluster: ClusterState, services: readonly Service[]): Finding[] {
  const {legacyEndpoints, slices, read} = cluster
  if (!legacyEndpoints || !read.has('endpointslices')) return []
  const [old, current] = [addressesByService(legacyEndpoints), addressesByService(slices)]
  const own = addressesByService(slices.filter(({managedBy}) => managedBy?.endsWith('.k8s.io')))
  return services.filter(isProxied).flatMap((service) => {
    const {id, clusterIPs} = service
    const text = disagreement(
      {id, v6: clusterIPs[0]?.includes(':') === true},
      {old: old.get(id), current: current.get(id) ?? NOBODY, own: own.get(id) ?? NOBODY},
    )
    if (text === undefined) return []
    const evidence = [apiEvidence('endpoints.json', id, text, 'subsets'), endpointsEvidence(cluster, service, id)]
    return [apiFinding('endpoints-disagree', service, text, {evidence})]
  })
}

interface Compared {
  readonly old: Known | undefined
  readonly current: Known
  /** Of the slices that Kubernetes itself makes: others may add what no Endpoints hold. */
  readonly own: Known
}

/** Endpoints lack the second family, and one that nobody makes any more is no disagreement. */
function disagreement({id, v6}: {id: string; v6: boolean}, {old, current, own}: Compared): string | undefined {
  if (!old) return undefined
  const show = (addresses: readonly string[]): string => addresses.slice(0, 3).join(', ')
  const all = new Set([...current.ready, ...current.waiting])
  const alone = [...old.ready, ...old.waiting].filter((address) => !all.has(address))
  if (alone.length > 0) return `Endpoints of ${id} hold ${show(alone)}, its EndpointSlices do not`
  const missing = [...own.ready].filter((address) => address.includes(':') === v6 && !old.ready.has(address))
  if (missing.length === 0 || old.ready.size + old.waiting.size >= MOST_ENDPOINTS) return undefined
  return old.waiting.has(missing[0]!)
    ? `Endpoints of ${id} call ${show(missing)} not ready, its EndpointSlices call them ready`
    : `EndpointSlices of ${id} hold ${show(missing)}, its Endpoints do not`
}

interface Known {
  readonly ready: Set<string>
  readonly waiting: Set<string>
}

const NOBODY: Known = {ready: new Set(), waiting: new Set()}

function addressesByService(slices: ClusterState['slices']): Map<string, Known> {
  const found = new Map<string, Known>()
  for (const {service, endpoints} of slices) {
    if (service === undefined) continue
    const known = found.get(service) ?? {ready: new Set(), waiting: new Set()}
    for (const {address, ready} of endpoints) known[ready ? 'ready' : 'waiting'].add(address)
    found.set(service, known)
  }
  return found
}

/** Findings that need all Services at once. */
export function checkServices(cluster: ClusterState, services: readonly Service[]): Finding[] {
  const asked = new Set(services.map(({id}) => id))
  const shared = [
    ...gone(cluster, services),
    ...noTargets(cluster, services),
    ...disagreements(cluster, services),
    ...duplicatePorts(cluster.services),
  ]
  return [
    ...shared.filter((finding) => finding.services.some((id) => asked.has(id))),
    ...checkIngresses(cluster, services),
    ...checkGateways(cluster, services),
  ]
}
