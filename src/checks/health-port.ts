import {walk} from '../dataplane/walk.js'
import type {World} from '../dataplane/world.js'
import {endpointsOf} from '../intent/endpoints.js'
import {isProxied, nodePortFrontends, type Frontend} from '../intent/frontends.js'
import type {ProxyFacts} from '../intent/proxy-facts.js'
import type {ClusterState, Service} from '../model/kube.js'
import type {Fate} from '../model/trace.js'
import {familyOf, formatEndpoint, type Family, type Range} from '../util/ip.js'
import {chosenBy, evidenceOf} from './proof.js'
import {makeFinding, type Finding, type Incomplete} from './finding.js'

export interface HealthPortCheck {
  readonly world: World
  readonly cluster: ClusterState
  readonly services: readonly Service[]
  readonly proxies: readonly ProxyFacts[]
  /** Every address outside the cluster. */
  readonly outside: Readonly<Record<Family, readonly Range[]>>
  /** Nodes whose kube-proxy is not there, which is a finding of its own. */
  readonly sick: ReadonlySet<string>
}

/**
 * With externalTrafficPolicy Local a load balancer asks healthCheckNodePort of each node whether it has endpoints, and leaves
 * out who does not answer (pkg/proxy/healthcheck/service_health.go). kube-proxy itself listens there.
 */
export function checkHealthPorts(check: HealthPortCheck): HealthPorts {
  const all = check.services
    .filter(
      (service) => isProxied(service) && service.type === 'LoadBalancer' && service.externalTrafficPolicy === 'Local',
    )
    .flatMap((service) => ofService(check, service))
  return {findings: all.flatMap(({findings}) => findings), incomplete: all.flatMap(({incomplete}) => incomplete)}
}

/**
 * Where kube-proxy is not there at all, nobody listens; that is told by itself, as long as another node with an endpoint answers:
 * the load balancer sends everything there.
 */
function ofService(check: HealthPortCheck, service: Service): HealthPorts[] {
  const all = check.proxies.map((proxy) => ({proxy, ...healthPort(check, service, proxy)}))
  const homes = all.filter(({proxy}) => hasLocal(check.cluster, service, proxy))
  const noneLeft = homes.length > 0 && homes.every(({findings}) => findings.length > 0)
  return all.map(({proxy, findings, incomplete, nobody}) => ({
    incomplete,
    findings: findings.filter(() => noneLeft || !nobody || !check.sick.has(proxy.node)),
  }))
}

/** What was found, and of which ports nobody knows. */
export interface HealthPorts {
  readonly findings: readonly Finding[]
  readonly incomplete: readonly Incomplete[]
}

interface HealthPort extends HealthPorts {
  /** No process listens there. */
  readonly nobody?: boolean
}

const NOTHING: HealthPorts = {findings: [], incomplete: []}

const undecided = ({id}: Service, {node}: ProxyFacts, why: string): HealthPorts => ({
  findings: [],
  incomplete: [
    {node, service: id, reason: `whether the health check port of ${id} answers on ${node} is not known: ${why}`},
  ],
})

/** In each family in which the Service has node ports: what one loses, the load balancer of that family loses. */
function healthPort(check: HealthPortCheck, service: Service, proxy: ProxyFacts): HealthPort {
  const [port] = service.ports
  if (!port || service.healthCheckNodePort === undefined || !check.world.machines.has(proxy.node)) return NOTHING
  const own = nodePortFrontends(check.cluster, service, {port, proxy}).filter(({kind}) => kind === 'nodePort')
  const asked = ([4, 6] as const).flatMap((family) => own.find(({address}) => familyOf(address) === family) ?? [])
  const all = asked.map((frontend) =>
    ask(check, {service, proxy, frontend: {...frontend, port: service.healthCheckNodePort!}}),
  )
  return all.find(({findings}) => findings.length > 0) ?? all.find(({incomplete}) => incomplete.length > 0) ?? NOTHING
}

interface Question {
  readonly service: Service
  readonly proxy: ProxyFacts
  readonly frontend: Frontend
}

function ask({world, cluster, outside}: HealthPortCheck, {service, proxy, frontend}: Question): HealthPort {
  const family = familyOf(frontend.address)
  const ranges = outside[family]
  if (ranges.length === 0 || proxy.unasked?.includes(family)) return NOTHING
  if (world.machines.get(proxy.node)!.sockets === undefined)
    return undecided(service, proxy, 'its sockets were not read')
  const {address: destination, port} = frontend
  const origin = {kind: 'external', ranges, enter: proxy.node} as const
  const {parts} = walk(world, {origin, destination, port, protocol: 'TCP'})
  // a firewall may let only the load balancer itself in
  if (
    parts.some(
      ({fates}) => fates.reduce((sum, fate) => sum + (isAnswered(fate, proxy, port) ? fate.share : 0), 0) > ALWAYS,
    )
  )
    return NOTHING
  const fates = parts.flatMap((part) => part.fates)
  const open = fates.find(({outcome}) => outcome === 'unknown')
  if (open) return undecided(service, proxy, open.reason)
  const lost =
    fates.find(({outcome}) => outcome !== 'delivered') ?? fates.find((fate) => !isAnswered(fate, proxy, port))
  if (!lost) return NOTHING
  const hurts = hasLocal(cluster, service, proxy)
  return {
    findings: [closed(service, frontend, {proxy, lost, hurts})],
    incomplete: [],
    nobody: lost.cause === 'no-listener',
  }
}

/** Load balancers take a node out after two or three failures in a row. */
const ALWAYS = 0.99

/** Who answers must be kube-proxy's own process on the node: anybody else knows nothing of its endpoints. */
const isAnswered = ({outcome, receiver}: Fate, {node}: ProxyFacts, port: number): boolean =>
  outcome === 'delivered' && receiver?.kind === 'socket' && receiver.node === node && receiver.port === port

const hasLocal = (cluster: ClusterState, service: Service, {node}: ProxyFacts): boolean =>
  service.ports.some((port) =>
    ([4, 6] as const).some((family) =>
      endpointsOf(cluster, service, {port, family}).some((endpoint) => endpoint.ready && endpoint.node === node),
    ),
  )

function closed(
  service: Service,
  {address, port}: Frontend,
  {proxy, lost, hurts}: {proxy: ProxyFacts; lost: Fate; hurts: boolean},
): Finding {
  const what = lost.outcome === 'delivered' ? `somebody else answers: ${lost.reason}` : lost.reason
  const deciding = lost.hops.findLast(({evidence, reply}) => evidence !== undefined && reply === lost.onReply)
  return makeFinding('health-check-port-closed', {
    node: proxy.node,
    services: [service.id],
    severity: hurts ? 'error' : 'warning',
    frontends: [formatEndpoint(address, port)],
    origins: ['external'],
    message: `the load balancer gets no answer of kube-proxy’s from the health check port ${formatEndpoint(address, port)} of ${service.id} on ${proxy.node}${hurts ? ', which has an endpoint' : ''}: ${what}`,
    evidence: lost.outcome === 'delivered' ? chosenBy(lost) : evidenceOf(deciding),
  })
}
