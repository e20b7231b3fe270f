import {isProxied} from '../intent/frontends.js'
import type {ClusterState, Pod, Service} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import {formatEndpoint, parseAddress} from '../util/ip.js'
import {checkGateways, checkNames} from './discovery.js'
import {checkIngresses} from './ingress.js'
import {apiEvidence, endpointsEvidence, serviceEvidence} from './api-evidence.js'
import {duplicatePorts} from './claims.js'
import {apiFinding, endpointFindings, portEndpoints} from './endpoints.js'
import {makeFinding, type Finding} from './finding.js'
import {MOST_ENDPOINTS} from './slices-behind.js'

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
  const all = service.ports.flatMap((port) => portEndpoints(cluster, service, port))
  const ready = all.filter((endpoint) => endpoint.ready)
  const ending = all.filter(({serving, terminating}) => serving && terminating)
  if (ready.length === 0 && ending.length > 0) return [allEnding(cluster, service, ending.length)]
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

/** Health checks count endpoints that are ready (pkg/proxy/healthcheck, LocalReadyEndpoints): no target is left, whoever still serves. */
const allEnding = (cluster: ClusterState, service: Service, count: number): Finding =>
  apiFinding(
    'no-node-for-load-balancer',
    service,
    `all ${count} endpoints of ${service.id} are about to end: they still serve, and every node fails the load balancer's health check`,
    {
      severity: 'warning',
      evidence: [
        serviceEvidence(service, 'externalTrafficPolicy: Local', 'spec.externalTrafficPolicy'),
        endpointsEvidence(cluster, service, `${service.id}: terminating`, {
          which: ({terminating}) => terminating,
          field: 'conditions.terminating',
        }),
      ],
    },
  )

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

function disagreements(cluster: ClusterState, services: readonly Service[]): Finding[] {
  const {legacyEndpoints, slices, read} = cluster
  if (!legacyEndpoints || !read.has('endpointslices')) return []
  const [old, current] = [addressesByService(legacyEndpoints), addressesByService(slices)]
  const own = addressesByService(slices.filter(({managedBy}) => managedBy?.endsWith('.k8s.io')))
  const compared = services.filter(
    (service) => isProxied(service) || (service.headless && service.type !== 'ExternalName'),
  )
  return compared.flatMap((service) => {
    const {id, clusterIPs, ipFamilies} = service
    const text = disagreement(
      {id, v6: clusterIPs[0]?.includes(':') ?? ipFamilies[0] === 'IPv6'},
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
