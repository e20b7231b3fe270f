import {walk} from '../dataplane/walk.js'
import type {World} from '../dataplane/world.js'
import {
  closedFrontends,
  frontendsOf,
  isProxied,
  nodePortFrontends,
  sourceRanges,
  type ClosedFrontend,
  type Frontend,
} from '../intent/frontends.js'
import {promiseFor, type OriginClass, type ServicePromise} from '../intent/promise.js'
import type {ProxyFacts} from '../intent/proxy-facts.js'
import {addressOf, Bystanders} from './bystanders.js'
import {isAmong, judge, negligible, type Asker, type Difference, type Judgement} from './judge.js'
import {isCached} from './node-cache.js'
import {externalClients} from './outside.js'
import {endpointsOf, type ServiceEndpoint} from '../intent/endpoints.js'
import type {ClusterState, Service, ServicePort} from '../model/kube.js'
import type {ClientFates, Fate, Origin, WalkResult} from '../model/trace.js'
import {familyOf, formatAddress, single, splitRanges, type Address, type Family, type Range} from '../util/ip.js'

/** One walk that is not as promised. */
export interface Mismatch {
  readonly kind: Difference
  readonly service: Service
  readonly port: ServicePort
  readonly frontend: Frontend
  readonly origin: OriginClass
  readonly from: Origin
  /** The node whose kube-proxy's promise this is. */
  readonly node: string
  /** The way that shows it best. */
  readonly fate: Fate
  readonly part: ClientFates
  readonly promise: ServicePromise
  readonly endpoint?: ServiceEndpoint
}

/** A walk that was delivered, of one Service port and origin. */
export interface Sample {
  readonly service: Service
  readonly port: ServicePort
  readonly node: string
  readonly frontend: Frontend
  readonly from: Origin
  /** Of clients outside: those that this fate is of. */
  readonly clients: readonly Range[]
  readonly fate: Fate
}

/** A walk whose end nobody knows. */
export interface Undecided {
  readonly node: string
  readonly service: string
  readonly reason: string
  /** The node that was not read and that the packet went to. */
  readonly absent?: string
}

/** One comparison, made or failed: `walks` counts them all. */
export interface Comparison {
  readonly mismatches: Mismatch[]
  readonly walks: number
  /** Frontends that should be delivered, per node, kind and family (`placeKey`): `service address port/protocol`. */
  readonly expected: Map<string, Set<string>>
  readonly incomplete: Map<string, string>
  /** Every address outside the cluster, by family. */
  readonly outside: Readonly<Record<Family, readonly Range[]>>
  /** What could not be decided: each reason once, however many Services it is about. */
  readonly undecided: Map<string, Undecided>
  /** Delivered walks of Services with session affinity, by node. */
  readonly sticky: Map<string, Sample[]>
}

export interface CompareInput {
  readonly world: World
  readonly cluster: ClusterState
  readonly services: readonly Service[]
  readonly proxies: readonly ProxyFacts[]
  /** Told of every walk that is delivered: to keep them all would take the memory of a large cluster. */
  readonly delivered?: (sample: Sample) => void
}

/** Rules of so many Services are kept ready; more only take memory. */
const SERVICES_REMEMBERED = 20

/** Walks every frontend of every Service from every kind of origin on every node and compares with the promise. */
export function compareAll(input: CompareInput): Comparison {
  const outside = {4: externalClients(input.cluster, input.world, 4), 6: externalClients(input.cluster, input.world, 6)}
  const comparison: Comparison = {
    outside,
    mismatches: [],
    walks: 0,
    expected: new Map(),
    incomplete: new Map(),
    undecided: new Map(),
    sticky: new Map(),
  }
  const bystanders = new Bystanders(input.world)
  let walked = 0
  for (const proxy of input.proxies) {
    for (const service of input.services) {
      if (!isProxied(service)) continue
      for (const port of service.ports)
        new PortComparison(input, comparison, {service, port, proxy, outside, bystanders}).run()
      if (++walked % SERVICES_REMEMBERED === 0) input.world.forget()
    }
  }
  return comparison
}

interface PortTask {
  readonly service: Service
  readonly port: ServicePort
  readonly proxy: ProxyFacts
  readonly outside: Readonly<Record<Family, readonly Range[]>>
}

/** How many other nodes' node ports each node is compared at. */
const NEXT_NODES = 3

/** Each endpoint of a node is walked to itself, but of Services with very many: that would take the square of their number. */
const MOST_HAIRPINS = 5000

/** Differences that have their cause before a packet reaches the node that it is sent to. */
const BEFORE_THE_NODE: ReadonlySet<Difference> = new Set(['fails', 'wrong-endpoint'])

/** All comparisons of one Service port on one node. */
class PortComparison {
  private readonly input: CompareInput
  private readonly result: Comparison
  private readonly task: PortTask
  private readonly bystanders: Bystanders

  constructor(input: CompareInput, result: Comparison, {bystanders, ...task}: PortTask & {bystanders: Bystanders}) {
    this.bystanders = bystanders
    this.input = input
    this.result = result
    this.task = task
  }

  run(): void {
    const {service, port, proxy} = this.task
    const fixed = frontendsOf(service, port)
    const own = nodePortFrontends(this.input.cluster, service, {port, proxy})
    for (const frontend of [...fixed, ...own].filter((one) => this.isAsked(one)))
      for (const origin of this.origins(frontend)) this.compare(frontend, origin)
    for (const frontend of closedFrontends(this.input.cluster, service, {port, proxy})) this.compareClosed(frontend)
    this.compareNextNodes()
  }

  /** A node whose rules of this family were never asked for shows nothing, right or wrong. */
  private isAsked({address}: Frontend): boolean {
    const {node, unasked} = this.task.proxy
    const family = familyOf(address)
    if (!unasked?.includes(family)) return true
    this.result.incomplete.set(
      `${node} its IPv${family} rules were not asked for; its IPv${family} Services were not compared`,
      node,
    )
    return false
  }

  /** Only that a client outside is not led to the endpoints from there; whether it is refused or lost is not ours to say. */
  private compareClosed({why, ...frontend}: ClosedFrontend): void {
    const {cluster, world} = this.input
    const {service, port, proxy, outside} = this.task
    const family = familyOf(frontend.address)
    const ranges = outside[family]
    if (ranges.length === 0) return
    const endpoints = endpointsOf(cluster, service, {port, family})
    const from: Origin = {kind: 'external', ranges, enter: proxy.node}
    const {address: destination, port: number, protocol} = frontend
    const {parts} = walk(world, {origin: from, destination, port: number, protocol})
    const promise: ServicePromise = {
      outcome: 'dropped',
      also: ['refused'],
      endpoints: [],
      tolerated: [],
      keepsClient: false,
      rule: 'closed address',
      why,
    }
    for (const part of parts)
      for (const fate of part.fates)
        if (fate.outcome === 'unknown' && fate.share > negligible(part.fates, promise)) this.undecided(fate, part)
        else if (
          fate.outcome === 'delivered' &&
          fate.share > negligible(part.fates, {endpoints}) &&
          isAmong(fate, endpoints)
        )
          this.mismatch({kind: 'passes', fate, frontend, origin: {kind: 'external'}, from, part, promise})
  }

  /** The next nodes of the list, round to its begin: all others of a small cluster. */
  private nextNodes(): ProxyFacts[] {
    const {proxies} = this.input
    const at = proxies.indexOf(this.task.proxy)
    return [...proxies.slice(at + 1), ...proxies.slice(0, at)].slice(0, NEXT_NODES)
  }

  /** The node and its pods ask the node port of another node: what happens to them before they get there. */
  private compareNextNodes(): void {
    const {service, port} = this.task
    for (const next of this.nextNodes()) {
      const frontend = nodePortFrontends(this.input.cluster, service, {port, proxy: next}).find(
        ({kind}) => kind === 'nodePort',
      )
      if (!frontend || !this.isAsked(frontend)) continue
      const pods = this.podOrigins(frontend).filter(({origin}) => origin.kind === 'pod')
      for (const asker of [this.ownNode(), ...pods]) this.compareBefore(next, frontend, asker)
    }
  }

  private compareBefore(next: ProxyFacts, frontend: Frontend, asker: Asker): void {
    const {promise, result} = this.walkAndPromise(frontend, asker, next)
    for (const part of result.parts)
      for (const found of judge(part, promise, asker))
        if (BEFORE_THE_NODE.has(found.kind) && this.isOwnLoss(found.fate, next))
          this.mismatch({...found, frontend, ...asker, part, promise})
  }

  /** Lost before it gets there, or its answer where it had begun: the rest is the other node's to tell. */
  private isOwnLoss({hops, onReply}: Fate, next: ProxyFacts): boolean {
    if (!hops.some(({node}) => node === next.node)) return true
    return onReply && hops.at(-1)!.node === this.task.proxy.node
  }

  private ownNode(): Asker {
    return {origin: {kind: 'node'}, from: {kind: 'node', node: this.task.proxy.node}}
  }

  private origins(frontend: Frontend): Asker[] {
    const {proxy, outside} = this.task
    const node = this.ownNode()
    if (frontend.kind === 'localhost') return [node]
    const pods = this.podOrigins(frontend)
    if (frontend.kind === 'clusterIP') return [node, ...pods]
    const clients = this.clientParts(frontend, outside[familyOf(frontend.address)])
    return [
      ...clients.map((client) => ({
        origin: {kind: 'external'} as const,
        from: {kind: 'external', ranges: client, enter: proxy.node} as const,
        client,
      })),
      node,
      ...pods,
    ]
  }

  /** Clients inside and outside of loadBalancerSourceRanges are two questions. */
  private clientParts({kind, address}: Frontend, outside: readonly Range[]): (readonly Range[])[] {
    const ranges = sourceRanges(this.task.service, familyOf(address))
    if (kind !== 'loadBalancerIP' || ranges.length === 0) return [outside]
    const inside = ranges.flatMap((range) => splitRanges(outside, range).inside)
    let rest = [...outside]
    for (const range of ranges) rest = splitRanges(rest, range).outside
    return [inside, rest].filter((part) => part.length > 0)
  }

  /** Pods of the node that are no endpoints, one of each kind that its rules tell apart, and those that are. */
  private podOrigins(frontend: Frontend): Asker[] {
    const {service, port, proxy} = this.task
    const family = familyOf(frontend.address)
    const all = endpointsOf(this.input.cluster, service, {port, family})
    const backends = all.filter(
      ({node, pod, ready}) => node === proxy.node && pod !== undefined && ready && this.inPodNetwork(pod),
    )
    const others = this.bystanders
      .on(proxy.node, family)
      .flatMap((kind) => kind.find(({id}) => !backends.some(({pod}) => pod === id)) ?? [])
    const own = (address: Address | undefined): Pick<Asker, 'client'> =>
      address === undefined ? {} : {client: [single(address)]}
    return [
      ...others.map((pod) => ({
        origin: {kind: 'pod'} as const,
        from: {kind: 'pod', pod: pod.id} as const,
        ...own(addressOf(pod, family)),
      })),
      ...backends.slice(0, Math.max(1, Math.floor(MOST_HAIRPINS / all.length))).map(({pod, address}) => ({
        origin: {kind: 'backend'} as const,
        from: {kind: 'pod', pod: pod!} as const,
        ...own(address),
      })),
    ]
  }

  private inPodNetwork(id: string): boolean {
    const pod = this.input.world.pod(id)
    return pod !== undefined && !pod.hostNetwork
  }

  /** What Kubernetes promises of a frontend on node `proxy`, and what the packets meet. */
  private walkAndPromise(
    frontend: Frontend,
    asker: Asker,
    proxy: ProxyFacts,
  ): {promise: ServicePromise; result: WalkResult} {
    const {service, port} = this.task
    const {origin, from, client} = asker
    const promised = promiseFor({
      cluster: this.input.cluster,
      service,
      port,
      frontend,
      origin,
      proxy,
      ...(client ? {client} : {}),
    })
    const promise = this.isCachedHere(frontend) ? fromCache(promised, frontend) : promised
    const flow = {
      origin: from,
      destination: frontend.address,
      port: frontend.port,
      protocol: frontend.protocol,
    }
    // most walks end as promised, or where nobody can see them, and nobody reads their steps
    const steps = service.affinityTimeout !== undefined
    const quick = walk(this.input.world, flow, {steps})
    const enough =
      steps || quick.parts.every((part) => judge(part, promise, asker).every((found) => isMerelyOpen(found, part)))
    const result = enough ? quick : walk(this.input.world, flow)
    ;(this.result as {walks: number}).walks++
    return {promise, result}
  }

  private isCachedHere({kind, address}: Frontend): boolean {
    const machine = this.input.world.machines.get(this.task.proxy.node)
    return kind === 'clusterIP' && machine !== undefined && isCached(machine.state, address)
  }

  private mismatch(found: Omit<Mismatch, 'service' | 'port' | 'node'>): void {
    const {service, port, proxy} = this.task
    this.result.mismatches.push({...found, service, port, node: proxy.node})
  }

  private compare(frontend: Frontend, asker: Asker): void {
    const {service, port, proxy} = this.task
    const {origin, from} = asker
    const {promise, result} = this.walkAndPromise(frontend, asker, proxy)
    for (const {node, reason} of result.incomplete) this.result.incomplete.set(`${node} ${reason}`, node)
    if (promise.outcome === 'delivered' && promise.also.length === 0 && !promise.shortCircuit) this.expect(frontend)
    for (const part of result.parts) {
      for (const found of judge(part, promise, asker)) {
        if (found.kind === 'unknown') this.undecided(found.fate, part)
        if (!isMerelyOpen(found, part)) this.mismatch({...found, frontend, origin, from, part, promise})
      }
      const delivered = part.fates.filter(({outcome}) => outcome === 'delivered')
      const [best] = delivered
      if (!best || origin.kind === 'backend') continue
      const sample = {service, port, node: proxy.node, frontend, from, clients: part.clients, fate: best}
      if (this.input.delivered) for (const fate of delivered) this.input.delivered({...sample, fate})
      if (service.affinityTimeout !== undefined) for (const fate of delivered) this.keep({...sample, fate})
    }
  }

  private undecided(fate: Fate, part: ClientFates): void {
    const {service, proxy} = this.task
    const absent = / ?node ([^\s,]+)(?:,.*)? was not read$/.exec(fate.reason)?.[1]
    const reason = openReason(fate, part).replace(`undecided: ${proxy.node}: `, 'undecided: ')
    this.result.undecided.set(`${proxy.node} ${absent === undefined ? reason : `→ ${absent}`}`, {
      node: proxy.node,
      service: service.id,
      reason,
      ...(absent === undefined ? {} : {absent}),
    })
  }

  private keep(sample: Sample): void {
    const known = this.result.sticky.get(sample.node)
    if (known) known.push(sample)
    else this.result.sticky.set(sample.node, [sample])
  }

  private expect(frontend: Frontend): void {
    const key = placeKey(this.task.proxy.node, frontend)
    const entry = entryKey(this.task.service, frontend)
    const known = this.result.expected.get(key)
    if (known) known.add(entry)
    else this.result.expected.set(key, new Set([entry]))
  }
}

/** What is programmed in one place, or missing there as a whole: a node's frontends of one kind and family. */
export const placeKey = (node: string, {kind, address}: Pick<Frontend, 'kind' | 'address'>): string =>
  `${node} ${kind} ${familyOf(address)}`

/** One frontend there. */
export const entryKey = ({id}: Service, {address, port, protocol}: Frontend): string =>
  `${id} ${formatAddress(address)} ${port}/${protocol}`

/** Unknown, and no finding: only where the order of two chains decides are the alternatives one. */
const isMerelyOpen = ({kind}: Judgement, {alternatives}: ClientFates): boolean =>
  kind === 'unknown' && alternatives.every(({assumptions}) => !assumptions.some((text) => / runs before /.test(text)))

/** What nobody knows; where one of the answers to an open question has no end, that is why. */
function openReason({reason}: Fate, {alternatives}: ClientFates): string {
  const endless = alternatives.find(({outcome}) => outcome === 'unknown')
  if (endless) return `undecided: ${endless.reason}`
  const assumptions = [...new Set(alternatives.flatMap((alternative) => alternative.assumptions))]
  return assumptions.length > 0 ? `undecided: ${assumptions.slice(0, 2).join(' / ')}` : reason
}

/** A cache on the node itself may answer in the place of the endpoints. */
function fromCache(promised: ServicePromise, {address, port}: Frontend): ServicePromise {
  const {hinted: _, ...promise} = promised
  const cache = {address, port, ready: true, serving: true, terminating: false, zoneHints: [], nodeHints: []}
  return {...promise, tolerated: [...promise.tolerated, cache]}
}
