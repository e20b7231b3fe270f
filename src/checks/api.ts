import {endpointsOf, type ServiceEndpoint} from '../intent/endpoints.js'
import {isProxied, servesFamily, type Frontend} from '../intent/frontends.js'
import type {ClusterState, Pod, Service, ServicePort} from '../model/kube.js'
import {formatAddress, formatEndpoint, parseAddress} from '../util/ip.js'
import {checkGateways, checkNames} from './discovery.js'
import {checkIngresses} from './ingress.js'
import type {CodeName} from './codes.js'
import {apiEvidence, makeFinding, type Finding, type Severity} from './finding.js'

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
  readonly file?: string
  readonly text?: string
}

function apiFinding(
  name: CodeName,
  service: Pick<Service, 'id'>,
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
  return [
    ...missingFamily(cluster, service, port),
    ...lackingName(service, port, pods),
    ...readiness(service, port, {endpoints, pods}),
    ...undeclared(service, port, pods),
  ]
}

/** A dual-stack Service whose one family has endpoints and whose other has none. */
function missingFamily(cluster: ClusterState, service: Service, port: ServicePort): Finding[] {
  const families = ([4, 6] as const).filter((family) => !service.headless && servesFamily(service, family))
  const empty = families.filter((family) => endpointsOf(cluster, service, {port, family}).length === 0)
  if (empty.length === 0 || empty.length === families.length) return []
  const message = `${service.id} has a cluster IP of IPv${empty[0]}, and no IPv${empty[0]} endpoint for port ${port.port}/${port.protocol}`
  return [apiFinding('no-endpoints', service, message, {port, file: 'endpointslices.json'})]
}

/** Some of the selected pods have no port of that name: they are left out of its endpoints. */
function lackingName(service: Service, port: ServicePort, pods: readonly Pod[] | undefined): Finding[] {
  if (typeof port.targetPort !== 'string' || !pods) return []
  const without = pods.filter(({ports}) => !ports.some(({name}) => name === port.targetPort))
  if (without.length === 0) return []
  const names = without.slice(0, 3).map(({id}) => id)
  const message = `${without.length} of ${pods.length} pods of ${service.id} have no container port named "${port.targetPort}" and get nothing: ${names.join(', ')}`
  return [apiFinding('named-port-missing', service, message, {port, severity: 'warning'})]
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
  return [apiFinding('policy-local-no-endpoint', service, message, {text: field})]
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
  const homes = cluster.nodes.filter(({name}) => ready.some(({node}) => node === name))
  if (ready.length === 0 || homes.some(({labels}) => !(EXCLUDED in labels))) return []
  if (homes.length === 0) {
    if (cluster.nodes.length === 0 && ready.some(({node}) => node !== undefined)) return []
    const message = `no node of the cluster has an endpoint of ${service.id}, so every one fails the load balancer's health check`
    return [apiFinding('no-node-for-load-balancer', service, message)]
  }
  if (cluster.nodes.every(({labels}) => EXCLUDED in labels)) return []
  const message = `every node with an endpoint of ${service.id} is labelled ${EXCLUDED}: a load balancer that leaves such nodes out has no target`
  return [apiFinding('no-node-for-load-balancer', service, message, {severity: 'warning'})]
}

/** KEP-1143; the service controllers of clouds leave such nodes out, not every implementation does. */
const EXCLUDED = 'node.kubernetes.io/exclude-from-external-load-balancers'

/** All nodes are left out: no load balancer has a target. */
function noTargets({nodes}: ClusterState, services: readonly Service[]): Finding[] {
  const hurt = services.filter(({type}) => type === 'LoadBalancer')
  if (hurt.length === 0 || nodes.length === 0 || nodes.some(({labels}) => !(EXCLUDED in labels))) return []
  return [
    makeFinding('no-node-for-load-balancer', {
      services: hurt.map(({id}) => id),
      severity: 'warning',
      message: `every node is labelled ${EXCLUDED}: a load balancer that leaves such nodes out has no target`,
      evidence: apiEvidence('nodes.json', EXCLUDED),
    }),
  ]
}

/** Endpoints are cut at so many addresses (MaxEndpointCapacity of the endpoints controller). */
const MOST_ENDPOINTS = 1000

function disagreements({legacyEndpoints, slices, read}: ClusterState, services: readonly Service[]): Finding[] {
  if (!legacyEndpoints || !read.has('endpointslices')) return []
  const [old, current] = [addressesByService(legacyEndpoints), addressesByService(slices)]
  const own = addressesByService(slices.filter(({managedBy}) => managedBy?.endsWith('.k8s.io')))
  return services.filter(isProxied).flatMap(({id, clusterIPs}) => {
    const text = disagreement(
      {id, v6: clusterIPs[0]?.includes(':') === true},
      {old: old.get(id), current: current.get(id) ?? NOBODY, own: own.get(id) ?? NOBODY},
    )
    return text === undefined ? [] : [apiFinding('endpoints-disagree', {id}, text, {file: 'endpoints.json'})]
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

/** What a Service takes for itself: its NodePorts, its health check port, its ports at external and load-balancer addresses. */
function claimsOf({ports, healthCheckNodePort, externalIPs, loadBalancer}: Service): string[] {
  const addresses = [...externalIPs, ...loadBalancer.flatMap(({ip}) => ip ?? [])]
  return [
    ...ports.flatMap(({nodePort, protocol}) => (nodePort === undefined ? [] : [`NodePort ${nodePort}/${protocol}`])),
    ...(healthCheckNodePort === undefined ? [] : [`NodePort ${healthCheckNodePort}/TCP`]),
    ...addresses.flatMap((ip) => ports.map(({port, protocol}) => `${ip}, port ${port}/${protocol},`)),
  ]
}

/** What more than one Service claims, and which. */
function contested(services: readonly Service[]): [claim: string, ids: string[]][] {
  const owners = new Map<string, string[]>()
  for (const service of services)
    for (const claim of new Set(claimsOf(service))) {
      const known = owners.get(claim)
      if (known) known.push(service.id)
      else owners.set(claim, [service.id])
    }
  return [...owners].filter(([, ids]) => ids.length > 1)
}

/**
 * The other Services that claim a frontend too: what goes to their endpoints there is as it must be, with two owners of one
 * port, and no fault of the node.
 */
export function otherOwners(
  services: readonly Service[],
): (service: Service, frontend: Pick<Frontend, 'kind' | 'address' | 'port' | 'protocol'>) => readonly string[] {
  const claims = new Map(contested(services))
  return ({id}, {kind, address, port, protocol}) => {
    const claim =
      kind === 'nodePort' || kind === 'localhost'
        ? `NodePort ${port}/${protocol}`
        : `${formatAddress(address)}, port ${port}/${protocol},`
    return (claims.get(claim) ?? []).filter((owner) => owner !== id)
  }
}

function duplicatePorts(services: readonly Service[]): Finding[] {
  return contested(services).flatMap(([claim, ids]) => {
    const port = /^NodePort (.*)/.exec(claim)?.[1]
    return [
      makeFinding('duplicate-node-port', {
        services: ids,
        port,
        message: `${claim} is claimed by ${ids.join(' and ')}`,
        evidence: apiEvidence('services.json', port ?? claim),
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
    [
      ...service.externalIPs,
      ...service.loadBalancer.flatMap(({ip, ipMode}) => (ip !== undefined && ipMode !== 'Proxy' ? ip : [])),
    ].flatMap((ip) => {
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
