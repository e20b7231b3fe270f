import type {ClusterState, KubeObject} from '../model/kube.js'
import {list, number, record, text, texts, type Json} from '../util/json.js'
import {selects} from '../util/label-selector.js'

/** Where one rule of a Gateway API route sends packets (HTTPRoute, TCPRoute, TLSRoute). */
export interface GatewayRoute {
  /** `HTTPRoute namespace/name` */
  readonly route: string
  readonly hostnames: readonly string[]
  /** Path matches in words, `/` where there is none; empty for TCP and TLS. */
  readonly matches: readonly string[]
  /** `namespace/name` */
  readonly service: string
  readonly port: number | undefined
  /** Share of the rule's requests: weight over the sum of weights. */
  readonly share: number
  /** `namespace/name`, with the listener where one is named. */
  readonly gateways: readonly string[]
  /** Why nothing takes this way; empty when all is well. */
  readonly problems: readonly string[]
}

const KINDS = {httproutes: 'HTTPRoute', tcproutes: 'TCPRoute', tlsroutes: 'TLSRoute'} as const
/** Which routes a listener takes when it does not say (spec: Listener.protocol, allowedRoutes.kinds). */
const BY_PROTOCOL: Readonly<Record<string, readonly string[]>> = {
  HTTP: ['HTTPRoute'],
  HTTPS: ['HTTPRoute'],
  TLS: ['TLSRoute', 'TCPRoute'],
  TCP: ['TCPRoute'],
  UDP: ['UDPRoute'],
}

type Kind = (typeof KINDS)[keyof typeof KINDS]

const GROUP = 'gateway.networking.k8s.io'

/** Is it this kind of object? The group and kind may be left out where the API has a default. */
const isKind = (
  reference: Json,
  [group, kind]: readonly [string, string],
  byDefault = [group, kind] as const,
): boolean => (text(reference['group']) ?? byDefault[0]) === group && (text(reference['kind']) ?? byDefault[1]) === kind

/** All ways of Gateway API routes to Services. */
export function gatewayRoutes(cluster: ClusterState): GatewayRoute[] {
  return Object.entries(KINDS).flatMap(([resource, kind]) =>
    (cluster.raw[resource] ?? []).flatMap((object) => routesOf(cluster, kind, object)),
  )
}

function routesOf(cluster: ClusterState, kind: Kind, {metadata, spec: raw, status}: KubeObject): GatewayRoute[] {
  const spec = record(raw)
  const namespace = metadata.namespace ?? 'default'
  const hostnames = texts(spec['hostnames'])
  const attached = list(spec['parentRefs']).flatMap((parent) => {
    if (isKind(parent, [GROUP, 'Gateway'])) return [attach(cluster, parent, {kind, namespace, hostnames})]
    // another kind of parent (a Service of a mesh, a ListenerSet) may take it: nobody here knows
    return [{gateway: `${text(parent['kind']) ?? ''} ${text(parent['name']) ?? ''}`, listeners: []}]
  })
  const problems = attached.some(({problem}) => problem === undefined)
    ? []
    : attached.length === 0
      ? ['it has no parent Gateway']
      : attached.flatMap(({problem}) => problem ?? [])
  const refused = refusals(status)
  return list(spec['rules']).flatMap((rule) => {
    const all = list(rule['backendRefs'])
    const backends = all.filter((backend) => isKind(backend, ['', 'Service']))
    const total = all.reduce((sum, backend) => sum + (number(backend['weight']) ?? 1), 0)
    return backends.map((backend): GatewayRoute => {
      const service = `${text(backend['namespace']) ?? namespace}/${text(backend['name']) ?? ''}`
      return {
        route: `${kind} ${namespace}/${metadata.name}`,
        hostnames: servedHosts(hostnames, attached),
        matches: kind === 'HTTPRoute' ? matchesOf(rule) : [],
        service,
        port: number(backend['port']),
        share: total === 0 ? 0 : (number(backend['weight']) ?? 1) / total,
        gateways: attached.map(({gateway, problem}) =>
          problem === undefined ? gateway : `${gateway} (not: ${problem})`,
        ),
        problems: [
          ...problems,
          ...refused,
          ...backendProblems(cluster, {kind, namespace, service, port: number(backend['port'])}),
        ],
      }
    })
  })
}

function matchesOf(rule: Json): string[] {
  const matches = list(rule['matches']).map((match) => {
    const path = record(match['path'])
    const method = text(match['method'])
    const value = `${text(path['type']) === 'Exact' ? '= ' : text(path['type']) === 'RegularExpression' ? '~ ' : ''}${text(path['value']) ?? '/'}`
    const headers = list(match['headers']).flatMap((header) => text(header['name']) ?? [])
    const query = list(match['queryParams']).flatMap((parameter) => text(parameter['name']) ?? [])
    const more = [...headers, ...query.map((name) => `?${name}`)]
    return `${method === undefined ? '' : `${method} `}${value}${more.length > 0 ? ` with ${more.join(', ')}` : ''}`
  })
  return matches.length > 0 ? matches : ['/']
}

/** What the controllers say themselves, where all of them say no (RouteParentStatus.conditions). */
function refusals(status: unknown): string[] {
  const parents = list(record(status)['parents']).map((parent) =>
    list(parent['conditions']).filter(
      (condition) => condition['status'] === 'False' && /^(Accepted|ResolvedRefs)$/.test(text(condition['type']) ?? ''),
    ),
  )
  if (parents.length === 0 || parents.some((conditions) => conditions.length === 0)) return []
  return parents.flatMap((conditions) =>
    conditions.map(({type, reason}) => `its status says ${text(type)}=False (${text(reason) ?? 'no reason'})`),
  )
}

interface Attachment {
  readonly gateway: string
  readonly problem?: string
  /** The listeners that take the route. */
  readonly listeners: readonly Json[]
}

/** Of a route's hostnames those count that a listener is for; the others are ignored (HTTPRouteSpec.hostnames). */
function servedHosts(hostnames: readonly string[], attached: readonly Attachment[]): readonly string[] {
  const hosts = attached.flatMap(({listeners}) => listeners.map((listener) => text(listener['hostname'])))
  if (hosts.length === 0 || hosts.includes(undefined)) return hostnames
  return hostnames.filter((one) => hosts.some((host) => hostsMeet(host!, one)))
}

interface RouteFacts {
  readonly kind: Kind
  readonly namespace: string
  readonly hostnames: readonly string[]
}

/** Does one listener of the parent take the route? (GEP: Attaching routes to Gateways) */
function attach(cluster: ClusterState, parent: Json, route: RouteFacts): Attachment {
  const namespace = text(parent['namespace']) ?? route.namespace
  const section = text(parent['sectionName'])
  const id = `${namespace}/${text(parent['name']) ?? ''}`
  const gateway = section === undefined ? id : `${id} listener ${section}`
  // a list that was not read accuses nobody
  if (!cluster.raw['gateways']) return {gateway, listeners: []}
  const found = cluster.raw['gateways'].find(
    ({metadata}) => metadata.name === parent['name'] && (metadata.namespace ?? 'default') === namespace,
  )
  if (!found) return {gateway, listeners: [], problem: `Gateway ${id} does not exist`}
  const listeners = list(record(found.spec)['listeners']).filter(
    (listener) =>
      (section === undefined || listener['name'] === section) &&
      (parent['port'] === undefined || listener['port'] === parent['port']),
  )
  const missing = section ?? `on port ${String(parent['port'])}`
  if (listeners.length === 0) return {gateway, listeners, problem: `Gateway ${id} has no listener ${missing}`}
  const reasons = listeners.map((listener) => refusal(cluster, listener, {...route, gatewayNamespace: namespace}))
  const takers = listeners.filter((_, at) => reasons[at] === undefined)
  return {gateway, listeners: takers, ...(takers.length > 0 ? {} : {problem: `Gateway ${id}: ${reasons[0]}`})}
}

function refusal(
  cluster: ClusterState,
  listener: Json,
  {kind, namespace, hostnames, gatewayNamespace}: RouteFacts & {gatewayNamespace: string},
): string | undefined {
  const name = `listener ${text(listener['name']) ?? ''}`
  const allowed = record(listener['allowedRoutes'])
  const kinds = list(allowed['kinds'])
  // a protocol of another implementation takes what it takes
  const byProtocol = BY_PROTOCOL[(text(listener['protocol']) ?? '').toUpperCase()] ?? [kind]
  if (!(kinds.length > 0 ? kinds.some((one) => isKind(one, [GROUP, kind])) : byProtocol.includes(kind)))
    return `${name} takes no ${kind}`
  const from = record(allowed['namespaces'])
  if (!takesNamespace(cluster, from, {namespace, gatewayNamespace}))
    return `${name} takes no routes of namespace ${namespace}`
  const host = text(listener['hostname'])
  if (host !== undefined && hostnames.length > 0 && !hostnames.some((one) => hostsMeet(host, one)))
    return `${name} is for ${host}, the route for ${hostnames.join(', ')}`
  return undefined
}

function takesNamespace(
  {namespaces}: ClusterState,
  from: Json,
  {namespace, gatewayNamespace}: {namespace: string; gatewayNamespace: string},
): boolean {
  const which = text(from['from']) ?? 'Same'
  if (which === 'All') return true
  if (which === 'Same') return namespace === gatewayNamespace
  if (which !== 'Selector') return false
  if (!namespaces) return true
  return selects(from['selector'], namespaces.find(({name}) => name === namespace)?.labels ?? {})
}

/** Do two host names, either with a wildcard for one or more labels, have a name in common? */
function hostsMeet(a: string, b: string): boolean {
  const [one, two] = [a.toLowerCase(), b.toLowerCase()]
  if (one === two) return true
  const covers = (wild: string, name: string): boolean => wild.startsWith('*.') && name.endsWith(wild.slice(1))
  return covers(one, two) || covers(two, one)
}

function backendProblems(
  cluster: ClusterState,
  {kind, namespace, service, port}: {kind: Kind; namespace: string; service: string; port: number | undefined},
): string[] {
  const found = cluster.services.find(({id}) => id === service)
  if (!found) return [`backend Service ${service} does not exist`]
  if (!found.ports.some((own) => own.port === port))
    return [`backend Service ${service} has no port ${port ?? '(none named)'}`]
  return found.namespace === namespace || isGranted(cluster, {kind, namespace}, found)
    ? []
    : [`no ReferenceGrant in namespace ${found.namespace} lets ${kind}s of ${namespace} use Service ${found.name}`]
}

/** A backend in another namespace needs a ReferenceGrant there. */
function isGranted(
  {raw}: ClusterState,
  from: {kind: string; namespace: string},
  to: {namespace: string; name: string},
): boolean {
  const grants = raw['referencegrants']
  if (!grants) return true
  return grants
    .filter(({metadata}) => metadata.namespace === to.namespace)
    .some(
      ({spec}) =>
        list(record(spec)['from']).some(
          (one) => isKind(one, [GROUP, from.kind], ['', '']) && one['namespace'] === from.namespace,
        ) &&
        list(record(spec)['to']).some(
          (one) =>
            isKind(one, ['', 'Service'], ['', '']) &&
            (one['name'] === undefined || one['name'] === '' || one['name'] === to.name),
        ),
    )
}
