import {allRoutes, backendPort, type IngressRoute} from '../discovery/ingress.js'
import type {ClusterState, Service} from '../model/kube.js'
import type {CodeName} from './codes.js'
import {apiEvidence, makeFinding, type Finding} from './finding.js'

/** What is wrong with the Ingresses that lead to these Services. */
export function checkIngresses(cluster: ClusterState, services: readonly Service[]): Finding[] {
  const routes = allRoutes(cluster)
  if (routes.length === 0) return []
  const known = new Map(cluster.services.map((service) => [service.id, service]))
  const asked = new Set(services.map(({id}) => id))
  const missing = routes.flatMap((route) => {
    const service = known.get(route.service)
    if (service) return asked.has(service.id) && !backendPort(service, route) ? [portMissing(route, service)] : []
    return wholeNamespace(route.service.split('/')[0]!, cluster, asked) ? [serviceMissing(route)] : []
  })
  return [...missing, ...conflicts(routes).filter((finding) => finding.services.some((id) => asked.has(id)))]
}

/** A Service that isn't there belongs to no question about single Services, only to one about its namespace or all. */
function wholeNamespace(namespace: string, {services}: ClusterState, asked: ReadonlySet<string>): boolean {
  if (asked.size === services.length) return true
  const own = services.filter((service) => service.namespace === namespace)
  return own.length > 1 && own.every(({id}) => asked.has(id))
}

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

function conflicts(routes: readonly IngressRoute[]): Finding[] {
  const claims = new Map<string, IngressRoute[]>()
  for (const route of routes) {
    if (route.isDefault) continue
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
    evidence: apiEvidence('ingresses.json', `${route.ingress}: ${route.host || '*'}${route.path}`),
  })
