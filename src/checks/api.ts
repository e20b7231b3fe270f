import {endpointsOf, type ServiceEndpoint} from '../intent/endpoints.js'
import {isProxied, servesFamily} from '../intent/promise.js'
import type {ClusterState, Pod, Service, ServicePort} from '../model/kube.js'
import {formatEndpoint, parseAddress} from '../util/ip.js'
import {checkGateways, checkNames} from './discovery.js'
import {checkIngresses} from './ingress.js'
import type {CodeName} from './codes.js'
import {apiEvidence, makeFinding, type Finding, type Severity} from './finding.js'

/** What the API's objects alone tell about one Service. */
export function checkService(cluster: ClusterState, service: Service): Finding[] {
  const names = checkNames(cluster, service)
  if (service.type === 'ExternalName') return names
  return [...endpointFindings(cluster, service), ...loadBalancerFindings(cluster, service), ...names]
}

interface Extra {
  readonly port?: ServicePort
  readonly severity?: Severity
  readonly file?: string
  readonly text?: string
}

function apiFinding(
  name: CodeName,
  service: Service,
  message: string,
  {port, severity, file, text}: Extra = {},
): Finding {
  return makeFinding(name, {
    severity,
    services: [service.id],
    port: port && `${port.port}/${port.protocol}`,
    message,
    evidence: apiEvidence(file ?? 'services.json', text ?? service.id),
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
        {text: `selector: ${selectorText(service)}`},
      ),
    ]
  return service.ports.flatMap((port) => portFindings(cluster, service, {port, pods}))
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
        {port},
      ),
    ]
  }
  if (endpoints.length === 0)
    return [
      apiFinding('no-endpoints', service, `${service.id} has no endpoint for port ${port.port}/${port.protocol}`, {
        port,
        file: 'endpointslices.json',
      }),
    ]
  return [...readiness(service, port, {endpoints, pods}), ...undeclared(service, port, pods)]
}

function readiness(
  service: Service,
  port: ServicePort,
  {endpoints, pods}: {endpoints: readonly ServiceEndpoint[]; pods: readonly Pod[] | undefined},
): Finding[] {
  const waiting = endpoints.filter(({ready}) => !ready)
  if (waiting.length === 0) return []
  const names = waiting
    .slice(0, 3)
    .map((endpoint) => describe(endpoint, pods))
    .join('; ')
  const more = waiting.length > 3 ? ` and ${waiting.length - 3} more` : ''
  const usable = endpoints.some(({ready, serving, terminating}) => ready || (serving && terminating))
  if (usable)
    return [
      apiFinding(
        'not-ready-endpoints',
        service,
        `${waiting.length} of ${endpoints.length} endpoints of ${service.id} are not ready: ${names}${more}`,
        {port, file: 'endpointslices.json'},
      ),
    ]
  return [
    apiFinding(
      'no-ready-endpoint',
      service,
      `none of the ${endpoints.length} endpoints of ${service.id} is ready: ${names}${more}`,
      {port, file: 'endpointslices.json'},
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
      {port},
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
            service: service.id,
            text: `${formatEndpoint(address, port)} of ${service.id} names pod ${pod}, ${owner ? `whose address is ${owner.ips.join(', ') || 'not set'}` : 'which does not exist'}`,
          },
        ]
      }),
  )
  if (lost.length === 0) return []
  const shown = lost.slice(0, 3).map(({text}) => text)
  return [
    makeFinding('endpoint-without-pod', {
      services: [...new Set(lost.map(({service}) => service))],
      message: `endpoint ${shown.join('; ')}${lost.length > 3 ? `; and ${lost.length - 3} more` : ''}`,
      evidence: apiEvidence('endpointslices.json', shown[0]!),
    }),
  ]
}

function loadBalancerFindings(cluster: ClusterState, service: Service): Finding[] {
  if (service.type !== 'LoadBalancer') return []
  if (service.loadBalancer.length === 0)
    return [apiFinding('load-balancer-pending', service, `${service.id} is of type LoadBalancer and has no address`)]
  if (service.externalTrafficPolicy !== 'Local') return []
  const ready = service.ports
    .flatMap((port) => portEndpoints(cluster, service, port))
    .filter((endpoint) => endpoint.ready)
  if (ready.length === 0 || ready.some(({node}) => node !== undefined)) return []
  return [
    apiFinding(
      'no-node-for-load-balancer',
      service,
      `no node has an endpoint of ${service.id}, so every node fails the load balancer's health check`,
    ),
  ]
}

/** Endpoints are cut at 1,000 addresses, and lack the second family; only addresses that Endpoints have alone count. */
function disagreements({legacyEndpoints, slices, read}: ClusterState, services: readonly Service[]): Finding[] {
  if (!legacyEndpoints || !read.has('endpointslices')) return []
  const [old, current] = [addressesByService(legacyEndpoints), addressesByService(slices)]
  return services.filter(isProxied).flatMap((service) => {
    const alone = [...(old.get(service.id) ?? [])].filter((address) => !current.get(service.id)?.has(address))
    if (alone.length === 0) return []
    const message = `Endpoints of ${service.id} hold ${alone.slice(0, 3).join(', ')}, its EndpointSlices do not`
    return [apiFinding('endpoints-disagree', service, message, {file: 'endpoints.json'})]
  })
}

function addressesByService(slices: ClusterState['slices']): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>()
  for (const {service, endpoints} of slices) {
    if (service === undefined) continue
    const known = found.get(service) ?? new Set()
    for (const {address} of endpoints) known.add(address)
    found.set(service, known)
  }
  return found
}

/** Findings that need all Services at once. */
export function checkServices(cluster: ClusterState, services: readonly Service[]): Finding[] {
  const asked = new Set(services.map(({id}) => id))
  const shared = [
    ...gone(cluster, services),
    ...disagreements(cluster, services),
    ...duplicateNodePorts(cluster.services),
  ]
  return [
    ...shared.filter((finding) => finding.services.some((id) => asked.has(id))),
    ...checkIngresses(cluster, services),
    ...checkGateways(cluster, services),
  ]
}

function duplicateNodePorts(services: readonly Service[]): Finding[] {
  const owners = new Map<string, Service[]>()
  for (const service of services)
    for (const {nodePort, protocol} of service.ports)
      if (nodePort !== undefined)
        owners.set(`${nodePort}/${protocol}`, [...(owners.get(`${nodePort}/${protocol}`) ?? []), service])
  return [...owners].flatMap(([port, claimants]) => {
    const ids = [...new Set(claimants.map(({id}) => id))]
    if (ids.length < 2) return []
    return [
      makeFinding('duplicate-node-port', {
        services: ids,
        port,
        message: `NodePort ${port} is claimed by ${ids.join(' and ')}`,
        evidence: apiEvidence('services.json', port),
      }),
    ]
  })
}

/** External IPs that are node addresses: dangerous in ipvs mode only. */
export function externalIpConflicts(
  cluster: ClusterState,
  services: readonly Service[],
  modes: ReadonlySet<string>,
): Finding[] {
  if (!modes.has('ipvs')) return []
  const nodes = new Map(
    cluster.nodes.flatMap(({name, addresses}) => addresses.map(({address}) => [address, name] as const)),
  )
  return services.flatMap((service) =>
    [...service.externalIPs, ...service.loadBalancer.flatMap(({ip}) => ip ?? [])].flatMap((ip) => {
      const node = nodes.get(ip)
      if (node === undefined) return []
      return [
        makeFinding('external-ip-is-node-ip', {
          services: [service.id],
          frontends: [ip],
          message: `external address ${ip} of ${service.id} is the address of node ${node}`,
          evidence: apiEvidence('services.json', ip),
        }),
      ]
    }),
  )
}
