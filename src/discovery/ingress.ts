import {SvcTraceError} from '../model/errors.js'
import type {ClusterState, KubeObject, Pod, Service, ServicePort} from '../model/kube.js'
import {list, record, text, texts, type Json} from '../util/json.js'

/** One line of an Ingress: a host and path, and the Service port behind it. */
export interface IngressRoute {
  /** `namespace/name` */
  readonly ingress: string
  readonly className?: string
  /** The class is named by the old annotation. */
  readonly byAnnotation?: true
  /** Empty: every host. `*.example.com`: one label more. */
  readonly host: string
  readonly path: string
  readonly pathType: 'Exact' | 'Prefix' | 'ImplementationSpecific'
  /** `namespace/name` of the backend Service; an Ingress reaches its own namespace only. */
  readonly service: string
  readonly port: number | string
  /** `namespace/name` of the Secret with the certificate for this host. */
  readonly tlsSecret?: string
  /** spec.defaultBackend: for what no rule matches. */
  readonly isDefault: boolean
  /** It shares the host and path of another on purpose (nginx.ingress.kubernetes.io/canary). */
  readonly isCanary?: true
}

const CANARY = 'nginx.ingress.kubernetes.io/canary'

/** The routes of one Ingress object: networking.k8s.io/v1, and the older v1beta1 shape (serviceName, servicePort). */
export function ingressRoutes({metadata, spec: raw}: KubeObject): IngressRoute[] {
  const spec = record(raw)
  const namespace = metadata.namespace ?? 'default'
  const named = text(spec['ingressClassName'])
  const annotated = text(metadata.annotations?.['kubernetes.io/ingress.class'])
  const className = named ?? annotated
  const base = {
    ingress: `${namespace}/${metadata.name}`,
    ...(className === undefined ? {} : {className}),
    // the annotation is older than IngressClass objects, and names none of them
    ...(named === undefined && annotated !== undefined ? {byAnnotation: true as const} : {}),
    ...(metadata.annotations?.[CANARY] === 'true' ? {isCanary: true as const} : {}),
  }
  const rules = list(spec['rules']).flatMap(({host, http}) =>
    list(record(http)['paths']).flatMap(({path, pathType, backend}) => {
      const to = backendOf(record(backend), namespace)
      if (!to) return []
      const type = pathType === 'Exact' || pathType === 'Prefix' ? pathType : 'ImplementationSpecific'
      return [
        {
          ...base,
          host: text(host) ?? '',
          path: text(path) ?? '/',
          pathType: type,
          ...to,
          ...tlsOf(spec, namespace, text(host) ?? ''),
          isDefault: false,
        } as const,
      ]
    }),
  )
  const fallback = backendOf(record(spec['defaultBackend'] ?? spec['backend']), namespace)
  if (!fallback) return rules
  const secret = tlsOf(spec, namespace, undefined)
  return [...rules, {...base, host: '', path: '/', pathType: 'Prefix', ...fallback, ...secret, isDefault: true}]
}

/** The Secret for a host: of the entry of spec.tls that lists it, or that lists none; without a host the first. */
function tlsOf(spec: Json, namespace: string, host: string | undefined): Pick<IngressRoute, 'tlsSecret'> {
  const entry = list(spec['tls']).find(({hosts}) => {
    const names = texts(hosts)
    return host === undefined || names.length === 0 || names.some((name) => name === host || coversHost(name, host))
  })
  const secret = text(entry?.['secretName'])
  return secret === undefined ? {} : {tlsSecret: `${namespace}/${secret}`}
}

function backendOf(backend: Json, namespace: string): Pick<IngressRoute, 'service' | 'port'> | undefined {
  const service = record(backend['service'])
  const name = text(service['name']) ?? text(backend['serviceName'])
  if (name === undefined) return undefined
  const port = record(service['port'])
  const value = port['number'] ?? port['name'] ?? backend['servicePort']
  return {service: `${namespace}/${name}`, port: typeof value === 'number' ? value : (text(value) ?? '')}
}

/** All routes of a cluster state. */
export const allRoutes = ({raw}: ClusterState): IngressRoute[] => (raw['ingresses'] ?? []).flatMap(ingressRoutes)

/** The Service port that a route's backend names, by number or by name. */
export const backendPort = (service: Service, {port}: IngressRoute): ServicePort | undefined =>
  service.ports.find((candidate) => candidate.port === port || (candidate.name !== '' && candidate.name === port))

/**
 * The route that a request takes, as the Ingress specification says: an exact host before a wildcard (one label) before
 * none; then the longest path, Exact before Prefix; Prefix goes by path elements; else the default backend.
 */
export function chooseRoute(
  routes: readonly IngressRoute[],
  request: {host: string; path: string},
): IngressRoute | undefined {
  const host = request.host.toLowerCase()
  const rules = routes.filter(({isDefault}) => !isDefault)
  const ranks = [(one: string) => one === host, (one: string) => coversHost(one, host), (one: string) => one === '']
  for (const applies of ranks) {
    const [best] = rules
      .filter((route) => applies(route.host.toLowerCase()) && coversPath(route, request.path))
      .sort((a, b) => b.path.length - a.path.length || Number(b.pathType === 'Exact') - Number(a.pathType === 'Exact'))
    if (best) return best
    if (rules.some((route) => route.host !== '' && applies(route.host.toLowerCase()))) break
  }
  return routes.find(({isDefault}) => isDefault)
}

const coversHost = (pattern: string, host: string): boolean =>
  pattern.startsWith('*.') && host.slice(host.indexOf('.')) === pattern.slice(1) && host.indexOf('.') > 0

/** ImplementationSpecific is taken as most controllers take it: a prefix. */
function coversPath({path, pathType}: IngressRoute, wanted: string): boolean {
  if (pathType === 'Exact') return wanted === path
  const elements = (value: string): string[] => value.split('/').filter(Boolean)
  const prefix = elements(path)
  return elements(wanted).slice(0, prefix.length).join('/') === prefix.join('/')
}

/** `ingress/NAME` or `ing/NAMESPACE/NAME` on a command line; undefined for anything else. */
export function ingressName(word: string, namespace: string): {namespace: string; name: string} | undefined {
  const [kind, first, second, ...more] = word.split('/')
  if (!['ing', 'ingress', 'ingresses'].includes(kind ?? '') || first === undefined || more.length > 0) return undefined
  return second === undefined ? {namespace, name: first} : {namespace: first, name: second}
}

/** Finds the route of an Ingress for a request; the host and path may be left out where there is just one. */
export function findRoute(
  cluster: ClusterState,
  {namespace, name}: {namespace: string; name: string},
  request: {host?: string | undefined; path?: string | undefined},
): IngressRoute {
  const ingresses = cluster.raw['ingresses']
  if (!ingresses)
    throw new SvcTraceError('NotFound', 'no Ingresses were read', 'kubectl auth can-i list ingresses --all-namespaces')
  const found = ingresses.find(
    ({metadata}) => metadata.name === name && (metadata.namespace ?? 'default') === namespace,
  )
  if (!found)
    throw new SvcTraceError(
      'NotFound',
      `ingresses "${name}" not found in namespace ${namespace}`,
      `kubectl get ingresses -n ${namespace}`,
    )
  const routes = ingressRoutes(found)
  const shown = routes.map((route) => `${route.host || '*'}${route.path}`).join(', ')
  const hosts = [...new Set(routes.filter(({isDefault}) => !isDefault).map(({host}) => host))]
  if (request.host === undefined && hosts.length > 1)
    throw new SvcTraceError(
      'BadUsage',
      `ingress ${namespace}/${name} has several hosts`,
      `choose with --host: ${shown}`,
    )
  const route = chooseRoute(routes, {host: request.host ?? hosts[0] ?? '', path: request.path ?? '/'})
  if (!route)
    throw new SvcTraceError(
      'NotFound',
      `ingress ${namespace}/${name} sends ${request.host ?? hosts[0] ?? ''}${request.path ?? '/'} nowhere`,
      `it has ${shown || 'no rules'}`,
    )
  return route
}

/** The class of an Ingress: by its name, or the default one. */
export function classOf(
  cluster: ClusterState,
  route: IngressRoute,
): {readonly name?: string; readonly controller?: string; readonly problem?: string} {
  const {className} = route
  const classes = cluster.raw['ingressclasses']
  const taken = route.byAnnotation === true || statusAddresses(cluster, route).size > 0
  if (!classes) return className === undefined ? {} : {name: className}
  const found = classes.find(({metadata}) =>
    className === undefined
      ? metadata.annotations?.['ingressclass.kubernetes.io/is-default-class'] === 'true'
      : metadata.name === className,
  )
  if (!found && taken) return className === undefined ? {} : {name: className}
  if (!found)
    return {
      ...(className === undefined ? {} : {name: className}),
      problem:
        className === undefined
          ? 'it names no class, and no IngressClass is the default'
          : `IngressClass ${className} does not exist`,
    }
  const controller = text(record(found.spec)['controller'])
  return {name: found.metadata.name, ...(controller === undefined ? {} : {controller})}
}

export interface ControllerService {
  readonly service: Service
  /** How it was found; by a label it is a guess. */
  readonly by: 'address' | 'label'
  /** Its pods are on their nodes' own network, and clients go to them there. */
  readonly onNodes: boolean
}

/**
 * The Service by which clients reach the controller of an Ingress: the one that has an address of the Ingress' status,
 * else the one with a label that is a part of the controller's name (`k8s.io/ingress-nginx`, `traefik.io/…`).
 */
export function controllerService(cluster: ClusterState, route: IngressRoute): ControllerService | undefined {
  const outside = cluster.services.filter(({type}) => type === 'LoadBalancer' || type === 'NodePort')
  const addresses = statusAddresses(cluster, route)
  const byAddress = outside.find(({loadBalancer, externalIPs}) =>
    [...externalIPs, ...loadBalancer.flatMap(({ip, hostname}) => ip ?? hostname ?? [])].some((one) =>
      addresses.has(one),
    ),
  )
  if (byAddress) return {service: byAddress, by: 'address', onNodes: false}
  const labelled = outside.filter(isOfController(cluster, route))
  // of several the one that a load balancer stands before
  const service = labelled.find(({type}) => type === 'LoadBalancer') ?? labelled[0]
  if (service) return {service, by: 'label', onNodes: false}
  // without one, pods on the nodes' own network are reached there; any Service of theirs names them
  const own = cluster.services.find(isOfController(cluster, route))
  return own && hostNetworkControllers(cluster, route).length > 0
    ? {service: own, by: 'label', onNodes: true}
    : undefined
}

function isOfController(cluster: ClusterState, route: IngressRoute): (object: Pick<Pod, 'labels'>) => boolean {
  const parts = (classOf(cluster, route).controller ?? '').split(/[/.]/)
  return ({labels}) => parts.includes(labels['app.kubernetes.io/name'] ?? '-')
}

/** Controller pods on their nodes' own network, which need no Service: clients reach them at the nodes' addresses. */
export function hostNetworkControllers(cluster: ClusterState, route: IngressRoute): readonly Pod[] {
  return (cluster.pods ?? []).filter((pod) => pod.hostNetwork && isOfController(cluster, route)(pod))
}

function statusAddresses({raw}: ClusterState, {ingress}: IngressRoute): Set<string> {
  const own = (raw['ingresses'] ?? []).find(
    ({metadata}) => `${metadata.namespace ?? 'default'}/${metadata.name}` === ingress,
  )
  const entries = list(record(record(own?.status)['loadBalancer'])['ingress'])
  return new Set(entries.flatMap(({ip, hostname}) => [text(ip), text(hostname)].filter((one) => one !== undefined)))
}

/** Does the controller send to the Service (annotation service-upstream), or past it to the endpoints, as ingress-nginx does? */
export const usesServiceAddress = ({raw}: ClusterState, {ingress}: IngressRoute): boolean =>
  (raw['ingresses'] ?? []).some(
    ({metadata}) =>
      `${metadata.namespace ?? 'default'}/${metadata.name}` === ingress &&
      metadata.annotations?.['nginx.ingress.kubernetes.io/service-upstream'] === 'true',
  )

/** A plain port that ingress-nginx passes on to a Service (its tcp-services and udp-services ConfigMaps). */
export interface PlainPort {
  readonly port: number
  readonly protocol: 'TCP' | 'UDP'
  /** `namespace/name` */
  readonly service: string
  readonly servicePort: string
}

/** `"9000": "default/echo:8080:PROXY:PROXY"` (ingress-nginx, "Exposing TCP and UDP services"). */
export function plainPorts({raw}: ClusterState): PlainPort[] {
  return (raw['configmaps'] ?? []).flatMap(({metadata, data}) => {
    if (metadata.name !== 'tcp-services' && metadata.name !== 'udp-services') return []
    return Object.entries(data ?? {}).flatMap(([port, target]): PlainPort[] => {
      const [service, servicePort] = text(target)?.split(':') ?? []
      if (!/^\d+$/.test(port) || !service?.includes('/') || servicePort === undefined) return []
      return [{port: Number(port), protocol: metadata.name === 'tcp-services' ? 'TCP' : 'UDP', service, servicePort}]
    })
  })
}
