import {backendPort, findRoute, ingressName, type IngressRoute} from './discovery/ingress.js'
import type {Service, ServicePort} from './model/kube.js'
import {SvcTraceError} from './model/errors.js'
import type {Snapshot} from './snapshot/snapshot.js'

export interface SelectFlags {
  readonly namespace?: string | undefined
  readonly 'all-namespaces'?: boolean | undefined
  readonly selector?: string | undefined
}

/** The Services that the words and flags of a command line name. */
export function selectServices(snapshot: Snapshot, names: readonly string[], flags: SelectFlags): Service[] {
  const all = snapshot.cluster.services
  if (names.length > 0) {
    // as kubectl has it: a flag that is passed over would be a Service that nobody checks
    for (const [flag, given] of [
      ['-l', flags.selector !== undefined],
      ['-A', flags['all-namespaces'] === true],
    ] as const)
      if (given)
        throw new SvcTraceError(
          'BadUsage',
          `names and ${flag} do not go together`,
          `either name Services (NAME, NAMESPACE/NAME) or select them with ${flag}`,
        )
    return [...new Set(names.map((name) => findService(snapshot, name, flags.namespace)))]
  }
  const namespace = flags.namespace ?? snapshot.info.namespace ?? 'default'
  const wanted = flags.selector === undefined ? () => true : labelSelector(flags.selector)
  const there = all.filter((service) => flags['all-namespaces'] || service.namespace === namespace)
  const found = there.filter((service) => wanted(service.labels))
  if (found.length === 0 && snapshot.cluster.read.has('services')) {
    const where = flags['all-namespaces'] ? 'the cluster' : `namespace ${namespace}`
    throw there.length === 0
      ? new SvcTraceError('NotFound', `no Services in ${where}`, 'kubectl get services -A')
      : new SvcTraceError(
          'NotFound',
          `no Service in ${where} matches ${flags.selector}`,
          'kubectl get services --show-labels',
        )
  }
  return found
}

/** A node that nobody read can't be asked about. */
export function refuseUnknownNodes({nodes, info}: Snapshot, wanted: readonly string[] = []): void {
  for (const node of wanted)
    if (!nodes.has(node) && !(node in info.unread))
      throw new SvcTraceError(
        'NotFound',
        `node "${node}" was not read`,
        `read nodes: ${[...nodes.keys()].join(', ') || 'none'}`,
      )
}

/** Finds a Service by `web`, `svc/web`, `service/web`, `ns/web` or `web.ns`. */
export function findService({cluster, info, problems}: Snapshot, text: string, wanted?: string): Service {
  const namespace = wanted ?? info.namespace ?? 'default'
  for (const {ns, name} of readings(text, namespace)) {
    const found = cluster.services.find((service) => service.namespace === ns && service.name === name)
    if (found) return found
  }
  refuseUnread({cluster, info, problems})
  throw notFound(cluster.services, text, namespace)
}

/** Nothing can be found in a list that is not there. */
function refuseUnread({cluster, info, problems}: Pick<Snapshot, 'cluster' | 'info' | 'problems'>): void {
  if (cluster.read.has('services')) return
  const problem = problems.find(({file}) => file === 'api/services.json')
  const why = problem?.message ?? info.forbidden['services'] ?? 'api/services.json is not in the snapshot'
  throw new SvcTraceError('BadSnapshot', `the Services could not be read: ${why}`, 'kubectl get services -A -o json')
}

/** The Service that a word of the command line leads to: by its own name, or through an Ingress, whose route and port come with it. */
export function findTarget(
  snapshot: Snapshot,
  word: string,
  flags: {namespace?: string | undefined; host?: string | undefined; path?: string | undefined},
): {service: Service; ingress?: {route: IngressRoute; port: ServicePort}} {
  const ingress = ingressName(word, flags.namespace ?? snapshot.info.namespace ?? 'default')
  if (!ingress) {
    if (flags.host !== undefined || flags.path !== undefined)
      throw new SvcTraceError(
        'BadUsage',
        '--host and --path choose a rule of an Ingress',
        'svc-trace ingress/NAME --host …',
      )
    return {service: findService(snapshot, word, flags.namespace)}
  }
  const route = findRoute(snapshot.cluster, ingress, flags)
  const service = snapshot.cluster.services.find(({id}) => id === route.service)
  const what = `ingress ${route.ingress}: ${route.isDefault ? 'the default backend' : `${route.host || '*'}${route.path}`}`
  if (!service)
    throw new SvcTraceError(
      'NotFound',
      `${what} leads to Service ${route.service}, which does not exist`,
      `kubectl describe ingress ${ingress.name} -n ${ingress.namespace}`,
    )
  const port = backendPort(service, route)
  if (!port)
    throw new SvcTraceError(
      'NotFound',
      `${what} leads to port ${route.port} of ${service.id}, which it does not have`,
      `kubectl describe ingress ${ingress.name} -n ${ingress.namespace}`,
    )
  return {service, ingress: {route, port}}
}

/** Up to so many nodes are all read: that is one wave (`--parallel`). */
const FEW_NODES = 16

/**
 * The nodes whose rules decide about one Service: those with endpoints, the one that the client is on, and one without
 * any endpoint, for what is the same everywhere. Undefined: there are so few that all are read.
 */
export function nodesThatMatter({cluster}: Snapshot, service: Service, from?: string): string[] | undefined {
  if (cluster.nodes.length <= FEW_NODES) return undefined
  const withEndpoint = new Set(
    cluster.slices
      .filter((slice) => slice.service === service.id)
      .flatMap(({endpoints}) => endpoints.flatMap(({node}) => node ?? [])),
  )
  const [kind, ...rest] = (from ?? '').split('/')
  const client =
    kind === 'node' || kind === 'no'
      ? rest[0]
      : cluster.pods?.find(({id}) => id === (rest.length === 2 ? rest.join('/') : `${service.namespace}/${rest[0]}`))
          ?.node
  const names = cluster.nodes.map(({name}) => name)
  const without = names.find((name) => !withEndpoint.has(name))
  const wanted = new Set([
    ...withEndpoint,
    ...(client === undefined ? [] : [client]),
    ...(without === undefined ? [] : [without]),
  ])
  return names.filter((name) => wanted.has(name))
}

const KINDS = new Set(['svc', 'service', 'services'])

function readings(text: string, namespace: string): {ns: string; name: string}[] {
  const [first, second, ...more] = text.split('/')
  if (second !== undefined && more.length === 0)
    return KINDS.has(first!) ? readings(second, namespace) : [{ns: first!, name: second}]
  const dot = text.indexOf('.')
  if (dot < 0) return [{ns: namespace, name: text}]
  const ns = text.slice(dot + 1).replace(/\.svc(\..*)?$/, '')
  return [{ns, name: text.slice(0, dot)}]
}

function notFound(services: readonly Service[], text: string, namespace: string): SvcTraceError {
  const name = text.split('/').at(-1)!.split('.')[0]!
  const same = services.filter((service) => service.name === name).map(({id}) => id)
  const near = services
    .filter((service) => service.name.includes(name) || name.includes(service.name))
    .map(({id}) => id)
  const hint =
    same.length > 0
      ? `there is ${same.join(', ')}; try -n ${same[0]!.split('/')[0]}`
      : near.length > 0
        ? `did you mean ${near.slice(0, 3).join(', ')}?`
        : `kubectl get services -n ${namespace}`
  return new SvcTraceError(
    'NotFound',
    `services "${name}" not found in namespace ${readings(text, namespace)[0]!.ns}`,
    hint,
  )
}

/** kubectl's label selectors: `a=b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`. */
export function labelSelector(text: string): (labels: Readonly<Record<string, string>>) => boolean {
  const terms = text
    .split(/,(?![^(]*\))/)
    .map((term) => term.trim())
    .filter(Boolean)
    .map(selectorTerm)
  return (labels) => terms.every((term) => term(labels))
}

function selectorTerm(term: string): (labels: Readonly<Record<string, string>>) => boolean {
  const set = /^([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)$/.exec(term)
  if (set) {
    const values = set[3]!.split(',').map((value) => value.trim())
    return (labels) => (labels[set[1]!] !== undefined && values.includes(labels[set[1]!]!)) === (set[2] === 'in')
  }
  const equal = /^([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)$/.exec(term)
  if (equal) return (labels) => (labels[equal[1]!] === equal[3]) === (equal[2] !== '!=')
  const exists = /^(!?)\s*([\w./-]+)$/.exec(term)
  if (exists) return (labels) => exists[2]! in labels === (exists[1] === '')
  throw new SvcTraceError('BadUsage', `selector "${term}" is not understood`, 'as in kubectl: -l app=web,tier!=test')
}
