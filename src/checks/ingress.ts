import {allRoutes, backendPort, classOf, type IngressRoute} from '../discovery/ingress.js'
import type {ClusterState, Service} from '../model/kube.js'
import type {CodeName} from './codes.js'
import {apiEvidence} from './api-evidence.js'
import {makeFinding, type Finding} from './finding.js'

/** What is wrong with the Ingresses that lead to these Services. */
export function checkIngresses(cluster: ClusterState, services: readonly Service[]): Finding[] {
  const routes = allRoutes(cluster)
  if (routes.length === 0) return []
  const known = new Map(cluster.services.map((service) => [service.id, service]))
  const asked = new Set(services.map(({id}) => id))
  const missing = routes.flatMap((route) => {
    const service = known.get(route.service)
    if (service) return asked.has(service.id) && lacksPort(service, route) ? [portMissing(route, service)] : []
    // what the AWS load balancer controller answers itself, by an annotation
    if (route.port === ANNOTATED_ACTION) return []
    return wholeNamespace(route.service.split('/')[0]!, cluster, asked) ? [serviceMissing(route)] : []
  })
  const shared = [...conflicts(routes), ...withoutClass(cluster, routes), ...secretsMissing(cluster, routes)]
  return [...missing, ...shared.filter((found) => found.services.some((id) => asked.has(id)))]
}

/** A Service that isn't there belongs to no question about single Services, only to one about its namespace or all. */
function wholeNamespace(namespace: string, {services}: ClusterState, asked: ReadonlySet<string>): boolean {
  if (asked.size === services.length) return true
  const own = services.filter((service) => service.namespace === namespace)
  return own.length > 0 && own.every(({id}) => asked.has(id))
}

const ANNOTATED_ACTION = 'use-annotation'

/** An ExternalName needs no ports: controllers connect to the number that the Ingress names (ingress-nginx, «ExternalName»). */
const lacksPort = (service: Service, route: IngressRoute): boolean =>
  !(service.type === 'ExternalName' && service.ports.length === 0 && typeof route.port === 'number') &&
  !backendPort(service, route)

const describe = ({ingress, host, path, isDefault}: IngressRoute): string =>
  isDefault ? `the default backend of Ingress ${ingress}` : `${host || '*'}${path} of Ingress ${ingress}`

const serviceMissing = (route: IngressRoute): Finding =>
  finding('ingress-backend-missing', [route.service], {
    message: `${describe(route)} leads to Service ${route.service}, which does not exist`,
    route,
  })

const portMissing = (route: IngressRoute, service: Service): Finding =>
  finding('ingress-backend-missing', [service.id], {
    message: `${describe(route)} leads to port ${route.port} of ${service.id}, which has ${service.ports.map(({name, port}) => (name === '' ? String(port) : `${name} (${port})`)).join(', ')}`,
    route,
  })

/** The Services behind each Ingress whose routes have the same flaw. */
function byIngress(routes: readonly IngressRoute[]): IngressRoute[][] {
  const groups = new Map<string, IngressRoute[]>()
  for (const route of routes) groups.set(route.ingress, [...(groups.get(route.ingress) ?? []), route])
  return [...groups.values()]
}

const servicesOf = (routes: readonly IngressRoute[]): string[] => [...new Set(routes.map(({service}) => service))]

const withoutClass = (cluster: ClusterState, routes: readonly IngressRoute[]): Finding[] =>
  byIngress(routes).flatMap((own) => {
    const {problem} = classOf(cluster, own[0]!)
    if (problem === undefined) return []
    return [
      finding('ingress-without-class', servicesOf(own), {
        message: `no controller takes Ingress ${own[0]!.ingress}: ${problem}`,
        route: own[0]!,
      }),
    ]
  })

/** Only where the names of the Secrets were read. */
function secretsMissing({raw}: ClusterState, routes: readonly IngressRoute[]): Finding[] {
  const secrets =
    raw['secrets'] && new Set(raw['secrets'].map(({metadata}) => `${metadata.namespace}/${metadata.name}`))
  if (!secrets) return []
  return byIngress(routes.filter(({tlsSecret}) => tlsSecret !== undefined && !secrets.has(tlsSecret))).map((own) =>
    finding('ingress-tls-secret-missing', servicesOf(own), {
      message: `Secret ${own[0]!.tlsSecret} of Ingress ${own[0]!.ingress} does not exist`,
      route: own[0]!,
    }),
  )
}

function conflicts(routes: readonly IngressRoute[]): Finding[] {
  const claims = new Map<string, IngressRoute[]>()
  for (const route of routes) {
    if (route.isDefault || route.isCanary) continue
    const key = [route.className ?? '', route.host, route.path, route.pathType].join(' ')
    claims.set(key, [...(claims.get(key) ?? []), route])
  }
  return [...claims.values()].flatMap(([first, ...others]) => {
    const other = others.find(
      ({ingress, service, port}) => ingress !== first!.ingress && (service !== first!.service || port !== first!.port),
    )
    if (!other) return []
    return [
      finding('ingress-path-conflict', [...new Set([first!.service, other.service])], {
        message: `${describe(first!)} leads to ${first!.service}, the same of Ingress ${other.ingress} to ${other.service}`,
        route: first!,
      }),
    ]
  })
}

const finding = (
  name: CodeName,
  services: readonly string[],
  {message, route}: {message: string; route: IngressRoute},
): Finding =>
  makeFinding(name, {
    services,
    message,
    evidence: [apiEvidence('ingresses.json', route.ingress, `${route.ingress}: ${route.host || '*'}${route.path}`)],
  })
