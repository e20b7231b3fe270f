import {check} from './checks/check.js'
import {externalClients} from './checks/outside.js'
import type {Finding, Incomplete} from './checks/finding.js'
import {otherProxy, proxyFacts} from './checks/proxy.js'
import {walk} from './dataplane/walk.js'
import type {World} from './dataplane/world.js'
import {discover, type Client, type Discovery} from './discovery/discover.js'
import {dnsService} from './discovery/dns.js'
import {plainPorts} from './discovery/ingress.js'
import {endpointsOf, type ServiceEndpoint} from './intent/endpoints.js'
import {frontendsOf, nodePortFrontends, servesFamily, type Frontend} from './intent/frontends.js'
import type {Service, ServicePort} from './model/kube.js'
import type {ClientFates, Fate, Flow, Origin, Outcome} from './model/trace.js'
import type {Problem} from './parse/problem.js'
import type {Snapshot} from './snapshot/snapshot.js'
import {familyOf, formatAddress, formatEndpoint, type Range} from './util/ip.js'

export interface TraceOptions {
  /** Only from here; every sensible origin when undefined. For an external one the node where it enters may be left open. */
  readonly from?:
    {readonly kind: 'external'; readonly ranges: readonly Range[] | 'any'} | Exclude<Origin, {kind: 'external'}>
  /** Only these frontends: a kind, an address, or address:port. */
  readonly to?: string
  /** Port number, node port or port name. */
  readonly port?: string
  readonly nodes?: readonly string[]
  /** Past the Service's own addresses, straight to its endpoints, as some Ingress controllers send. */
  readonly direct?: boolean
  /** False: not the ways through plain ports of an Ingress controller. */
  readonly plain?: boolean
}

/** What one kind of packet meets on some nodes: the same way on all of them. */
export interface TracedPath {
  readonly frontend: {
    readonly kind: Frontend['kind'] | 'endpoint'
    readonly address: string
    readonly port: number
    readonly protocol: string
  }
  readonly origin: {readonly kind: Origin['kind']; readonly name: string}
  /** The nodes that this way is the same for; the first is the one shown. */
  readonly nodes: readonly string[]
  /** The frontends of those nodes, where each has its own address. */
  readonly frontends: readonly string[]
  readonly outcome: Outcome | 'mixed'
  readonly parts: readonly ClientFates[]
}

export interface TraceResult {
  readonly service: Service
  readonly endpoints: readonly {readonly port: ServicePort; readonly endpoints: readonly ServiceEndpoint[]}[]
  readonly proxies: readonly {readonly node: string; readonly mode: string; readonly version?: string}[]
  readonly paths: readonly TracedPath[]
  readonly findings: readonly Finding[]
  readonly incomplete: readonly Incomplete[]
  readonly problems: readonly Problem[]
  readonly discovery: Discovery
  /** The way to the cluster DNS, where it was asked and a server of it fails. */
  readonly dns?: TraceResult
  /** Nodes that were not read, because nobody asked for them or on purpose. */
  readonly leftOut: readonly string[]
  /** The ways from outside to ports of ingress-nginx that it passes on to this Service. */
  readonly plain: readonly TraceResult[]
}

/** Traces one Service: every frontend from every kind of origin on every node, then what is wrong with it. */
export function trace(
  snapshot: Snapshot,
  world: World,
  {service, options = {}}: {service: Service; options?: TraceOptions},
): TraceResult {
  const tracer = new Tracer(snapshot, world, {service, options})
  const paths = tracer.paths()
  const checked = check(snapshot, world, {services: [service], ...(options.nodes ? {nodes: options.nodes} : {})})
  const dns = checked.findings.some(({name}) => name === 'dns-server-fails') ? dnsService(snapshot.cluster) : undefined
  return {
    service,
    leftOut: snapshot.info.skipped,
    plain: options.plain === false ? [] : plainTraces(snapshot, world, service),
    ...(dns && dns !== service ? {dns: trace(snapshot, world, {service: dns, options: {port: '53'}})} : {}),
    paths,
    findings: checked.findings,
    incomplete: unique([...tracer.incomplete, ...checked.incomplete]),
    problems: checked.problems,
    discovery: discover(snapshot.cluster, service, {
      client: clientOf(snapshot, options),
      asked: [...snapshot.nodes.values()].some((state) => state.section('dns.json').state === 'read'),
    }),
    endpoints: service.ports.map((port) => ({
      port,
      endpoints: ([4, 6] as const).flatMap((family) =>
        service.headless || servesFamily(service, family) ? endpointsOf(snapshot.cluster, service, {port, family}) : [],
      ),
    })),
    proxies: [...snapshot.nodes.values()].map((state) => {
      const version = state.proxyVersion
      return {
        node: state.name,
        mode: otherProxy(state)?.name ?? proxyFacts(snapshot.cluster, state).mode ?? 'unknown',
        ...(version === undefined ? {} : {version}),
      }
    }),
  }
}

/** From outside to each port of the controller that its tcp-services and udp-services pass on to the Service. */
function plainTraces(snapshot: Snapshot, world: World, service: Service): TraceResult[] {
  return plainPorts(snapshot.cluster)
    .filter((plain) => plain.service === service.id)
    .flatMap(({port, protocol}) => {
      const controller = snapshot.cluster.services.find(
        ({labels, ports}) =>
          labels['app.kubernetes.io/name'] === 'ingress-nginx' &&
          ports.some((own) => own.port === port && own.protocol === protocol),
      )
      const options = {port: String(port), from: {kind: 'external', ranges: 'any'}, plain: false} as const
      return controller ? [trace(snapshot, world, {service: controller, options})] : []
    })
}

/** The pod that asks, when the trace starts at one. */
function clientOf({cluster, nodes}: Snapshot, {from}: TraceOptions): Client | undefined {
  const pod = from?.kind === 'pod' ? cluster.pods?.find(({id}) => id === from.pod) : undefined
  const state = pod?.node === undefined ? undefined : nodes.get(pod.node)
  const file = 'resolv.txt'
  return pod && {pod, nodeResolvConf: state?.section(file).state === 'read' ? state.text(file) : undefined}
}

function unique(list: readonly Incomplete[]): Incomplete[] {
  return [...new Map(list.map((item) => [`${item.node} ${item.reason}`, item])).values()]
}

class Tracer {
  readonly incomplete: Incomplete[] = []
  private readonly snapshot: Snapshot
  private readonly world: World
  private readonly service: Service
  private readonly options: TraceOptions

  constructor(snapshot: Snapshot, world: World, {service, options}: {service: Service; options: TraceOptions}) {
    this.snapshot = snapshot
    this.world = world
    this.service = service
    this.options = options
  }

  paths(): TracedPath[] {
    const groups = new Map<string, {path: TracedPath; nodes: string[]; frontends: string[]}>()
    for (const port of this.service.ports.filter((candidate) => this.wantsPort(candidate))) {
      for (const {frontend, node} of this.frontends(port)) {
        for (const origin of this.origins(frontend, node)) this.add(groups, {frontend, node, origin})
      }
    }
    return [...groups.values()].map(({path, nodes, frontends}) => ({
      ...path,
      nodes,
      frontends: [...new Set(frontends)],
    }))
  }

  private wantsPort({name, port, nodePort}: ServicePort): boolean {
    const {port: wanted} = this.options
    return wanted === undefined || [name, String(port), String(nodePort)].includes(wanted)
  }

  /** Frontends by the node where they are looked at. Headless Services have none: their endpoints are addressed themselves. */
  private frontends(
    port: ServicePort,
  ): {frontend: Frontend | (Omit<Frontend, 'kind'> & {kind: 'endpoint'}); node: string}[] {
    const nodes = [...this.world.machines.keys()].filter(
      (name) => this.options.nodes === undefined || this.options.nodes.includes(name),
    )
    const all = nodes.flatMap((node) => {
      const proxy = proxyFacts(this.snapshot.cluster, this.snapshot.nodes.get(node)!)
      return [
        ...this.endpointFrontends(port),
        ...(this.options.direct
          ? []
          : [
              ...frontendsOf(this.service, port),
              ...nodePortFrontends(this.snapshot.cluster, this.service, {port, proxy}),
            ]),
      ].map((frontend) => ({frontend, node}))
    })
    return all.filter(
      ({frontend, node}) =>
        this.wantsFrontend(frontend) &&
        (frontend.kind !== 'localhost' ||
          this.options.to !== undefined ||
          proxyFacts(this.snapshot.cluster, this.snapshot.nodes.get(node)!).mode === 'iptables'),
    )
  }

  private endpointFrontends(port: ServicePort): (Omit<Frontend, 'kind'> & {kind: 'endpoint'})[] {
    if (!this.service.headless && !this.options.direct) return []
    return ([4, 6] as const).flatMap((family) =>
      endpointsOf(this.snapshot.cluster, this.service, {port, family})
        .filter(({ready}) => ready || this.service.publishNotReadyAddresses)
        .map(({address, port: number}) => ({
          kind: 'endpoint' as const,
          address,
          port: number,
          protocol: port.protocol,
        })),
    )
  }

  private wantsFrontend({kind, address, port}: {kind: string; address: Frontend['address']; port: number}): boolean {
    const {to} = this.options
    return (
      to === undefined ||
      to.toLowerCase() === kind.toLowerCase() ||
      to === formatAddress(address) ||
      to === formatEndpoint(address, port)
    )
  }

  private origins(
    frontend: Pick<Frontend, 'kind' | 'address'> | {kind: 'endpoint'; address: Frontend['address']},
    node: string,
  ): Origin[] {
    const {from} = this.options
    const family = familyOf(frontend.address)
    if (from) return this.givenOrigin(from, {family, node})
    const pod = this.world.facts.pods.find(
      (candidate) =>
        candidate.node === node &&
        !candidate.hostNetwork &&
        candidate.addresses.some((address) => familyOf(address) === family),
    )
    const backend = this.backend(node, family, pod?.id)
    const inside: Origin[] = [
      ...(pod ? [{kind: 'pod' as const, pod: pod.id}] : []),
      ...(backend === undefined ? [] : [{kind: 'pod' as const, pod: backend}]),
      {kind: 'node', node},
    ]
    if (frontend.kind === 'localhost') return [{kind: 'node', node}]
    if (frontend.kind === 'clusterIP' || frontend.kind === 'endpoint') return inside
    return [
      {kind: 'external', ranges: externalClients(this.snapshot.cluster, this.world, family), enter: node},
      ...inside,
    ]
  }

  /** An endpoint of the Service on this node: a pod that may reach itself. */
  private backend(node: string, family: 4 | 6, other: string | undefined): string | undefined {
    const all = this.service.ports.flatMap((port) => endpointsOf(this.snapshot.cluster, this.service, {port, family}))
    return all.find(
      (endpoint) =>
        endpoint.node === node &&
        endpoint.ready &&
        endpoint.pod !== undefined &&
        endpoint.pod !== other &&
        this.world.pod(endpoint.pod)?.hostNetwork === false,
    )?.pod
  }

  private givenOrigin(
    from: NonNullable<TraceOptions['from']>,
    {family, node}: {family: 4 | 6; node: string},
  ): Origin[] {
    if (from.kind === 'node') return from.node === node ? [from] : []
    if (from.kind === 'pod') return this.world.pod(from.pod)?.node === node ? [from] : []
    const ranges =
      from.ranges === 'any'
        ? externalClients(this.snapshot.cluster, this.world, family)
        : from.ranges.filter(({lo}) => familyOf(lo) === family)
    return ranges.length === 0 ? [] : [{kind: 'external', ranges, enter: node}]
  }

  private add(
    groups: Map<string, {path: TracedPath; nodes: string[]; frontends: string[]}>,
    {
      frontend,
      node,
      origin,
    }: {frontend: Omit<Frontend, 'kind'> & {kind: TracedPath['frontend']['kind']}; node: string; origin: Origin},
  ): void {
    const flow: Flow = {origin, destination: frontend.address, port: frontend.port, protocol: frontend.protocol}
    const {parts, incomplete} = walk(this.world, flow)
    this.incomplete.push(...incomplete)
    const address = formatAddress(frontend.address)
    const key = `${frontend.kind} ${frontend.kind === 'nodePort' ? '' : address} ${frontend.port} ${frontend.protocol} ${origin.kind} ${this.signature(parts, node, origin)}`
    const known = groups.get(key)
    if (known) {
      known.nodes.push(node)
      known.frontends.push(formatEndpoint(frontend.address, frontend.port))
      return
    }
    groups.set(key, {
      nodes: [node],
      frontends: [formatEndpoint(frontend.address, frontend.port)],
      path: {
        frontend: {kind: frontend.kind, address, port: frontend.port, protocol: frontend.protocol},
        origin: {kind: origin.kind, name: originName(origin)},
        nodes: [],
        frontends: [],
        outcome: overall(parts),
        parts,
      },
    })
  }

  /** What a way looks like when the node's own name and addresses are left out. */
  private signature(parts: readonly ClientFates[], node: string, origin: Origin): string {
    const own = [
      node,
      ...[...(this.world.machines.get(node)?.addresses ?? [])].map(formatAddress),
      ...(origin.kind === 'pod'
        ? [origin.pod, ...(this.world.pod(origin.pod)?.addresses ?? []).map(formatAddress)]
        : []),
    ]
    const neutral = (text: string): string => own.reduce((sum, word) => sum.replaceAll(word, '@'), text)
    return parts
      .map(({fates}) =>
        fates
          .map(
            (fate) =>
              `${fate.outcome} ${fate.share.toFixed(4)} ${fate.receiver ? formatEndpoint(fate.receiver.address, fate.receiver.port) : neutral(fate.reason)} ${fate.sourceIsClient}`,
          )
          .sort()
          .join(';'),
      )
      .join('|')
  }
}

function originName(origin: Origin): string {
  if (origin.kind === 'external') return 'external client'
  return origin.kind === 'node' ? `node ${origin.node}` : `pod ${origin.pod}`
}

/** One outcome for all, or `mixed`. */
function overall(parts: readonly ClientFates[]): TracedPath['outcome'] {
  const outcomes = new Set(parts.flatMap(({fates}) => fates.map(({outcome}: Fate) => outcome)))
  return outcomes.size === 1 ? [...outcomes][0]! : 'mixed'
}
