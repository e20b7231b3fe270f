/** Real packets of a lab beside what svc-trace says will become of them. */
import type {Service} from '../../src/model/kube.js'
import type {SimulateLine, SimulatePacket} from '../../src/simulate.js'
import type {Snapshot} from '../../src/snapshot/snapshot.js'
import {formatEndpoint, parseAddress, familyOf, type Address} from '../../src/util/ip.js'
import {agreement} from '../helpers/agreement.js'
import type {Truth} from '../helpers/corpus.js'
import type {Agent, Seen, Shot} from './machine.js'
import type {Plan} from './plan.js'

/** One origin × destination: the question for `simulate`, and whose namespace sends the packets. */
export interface Pair {
  readonly packet: SimulatePacket
  readonly namespace: string
  /** As the corpus says it: external, node, pod, backend-pod. */
  readonly origin: string
  readonly service: string
  /** clusterIP, nodePort, externalIP, lbIP */
  readonly kind: string
  readonly sticky: boolean
}

export interface Judged {
  readonly pair: Pair
  readonly truth: Truth
  readonly answer: SimulateLine
  /** «agree», «unknown», or how they differ. */
  readonly verdict: string
}

/** Connections for one pair. */
const TRIES = 6
const AT_ONCE = 240
const PATIENCE = 0.7
/** For further looks: neighbours, the limits of ICMP and a busy user-mode Linux take their time. */
const MORE_PATIENCE = 4
const MORE_LOOKS = 2

interface Frontend {
  readonly kind: string
  readonly address: Address
  readonly port: number
  readonly proto: 'TCP' | 'UDP'
}

/** Every frontend of the Services × every kind of origin that the lab has. */
export function pairsOf(snapshot: Snapshot, plan: Plan, wanted: (service: Service) => boolean): Pair[] {
  const pairs = snapshot.cluster.services.filter(wanted).flatMap((service) =>
    frontendsOf(service, snapshot).flatMap((frontend) =>
      originsOf(service, {snapshot, plan, family: familyOf(frontend.address)}).flatMap(
        ({from, namespace, origin, enter}) => {
          const {kind, address, port, proto} = frontend
          const holder = snapshot.cluster.nodes.find(({addresses}) =>
            addresses.some((own) => parseAddress(own.address) === address),
          )
          const first = from.external === undefined ? undefined : (holder?.name ?? enter)
          const packet = {
            from,
            to: formatEndpoint(address, port),
            proto,
            ...(first === undefined ? {} : {enter: first}),
          }
          return [{packet, namespace, origin, kind, service: service.id, sticky: service.affinityTimeout !== undefined}]
        },
      ),
    ),
  )
  return pairs.map((pair, index) => ({...pair, packet: {...pair.packet, id: String(index)}}))
}

function frontendsOf(service: Service, {cluster}: Snapshot): Frontend[] {
  const parsed = (texts: readonly string[]): Address[] => texts.flatMap((text) => parseAddress(text) ?? [])
  const nodes = cluster.nodes.map(({addresses}) =>
    parsed(addresses.filter(({type}) => type === 'InternalIP').map(({address}) => address)),
  )
  return service.ports.flatMap(({port, nodePort, protocol}) => {
    if (protocol === 'SCTP') return []
    const at = (kind: string, addresses: readonly Address[], own: number | undefined): Frontend[] =>
      own === undefined ? [] : addresses.map((address) => ({kind, address, port: own, proto: protocol}))
    return [
      ...at('clusterIP', parsed(service.clusterIPs), port),
      ...at(
        'nodePort',
        nodes
          .flat()
          .filter(
            (address) =>
              service.clusterIPs.length === 0 ||
              parsed(service.clusterIPs).some((own) => familyOf(own) === familyOf(address)),
          ),
        nodePort,
      ),
      ...at('externalIP', parsed(service.externalIPs), port),
      ...at('lbIP', parsed(service.loadBalancer.flatMap(({ip}) => ip ?? [])), port),
    ]
  })
}

interface Origin {
  readonly from: SimulatePacket['from']
  readonly namespace: string
  readonly origin: string
  readonly enter?: string
}

/** Every node, every client, a pod on each node, and an endpoint of the Service itself. */
function originsOf({id}: Service, {snapshot, plan, family}: {snapshot: Snapshot; plan: Plan; family: 4 | 6}): Origin[] {
  const own = new Set(
    snapshot.cluster.slices
      .filter(({service}) => service === id)
      .flatMap(({endpoints}) => endpoints.flatMap(({pod}) => pod ?? [])),
  )
  const ofFamily = (texts: readonly string[]): string | undefined =>
    texts.find((text) => familyOf(parseAddress(text)!) === family)
  const has = new Set((snapshot.cluster.pods ?? []).filter(({ips}) => ofFamily(ips) !== undefined).map((pod) => pod.id))
  const pods = plan.pods.filter((pod) => has.has(pod.id))
  const backend = pods.find((pod) => own.has(pod.id))
  const strangers = plan.nodes.flatMap(({name}) => pods.find((pod) => pod.node === name && !own.has(pod.id)) ?? [])
  return [
    ...plan.nodes.map(({name}) => ({from: {node: name}, namespace: name, origin: 'node'})),
    ...[...strangers, ...(backend ? [backend] : [])].map((pod) => ({
      from: {pod: pod.id},
      namespace: pod.namespace,
      origin: pod === backend ? 'backend-pod' : 'pod',
    })),
    ...plan.clients.flatMap(({namespace, node, addresses}) => {
      const external = ofFamily(addresses)
      return external === undefined ? [] : [{from: {external}, namespace, origin: 'external', enter: node}]
    }),
  ]
}

/** The ports that each pod serves. */
export function listenersOf({listeners}: Plan): Record<string, string[]> {
  const found: Record<string, string[]> = {}
  for (const {name, port, proto} of listeners.filter(({pod}) => pod))
    (found[name] ??= []).push(`${port}/${proto.toUpperCase()}`)
  return found
}

/** Sends each pair's packets, and those again that nobody predicted: a busy machine is no disagreement. */
export async function judgePairs(
  {agent, plan}: {agent: Agent; plan: Plan},
  pairs: readonly Pair[],
  answers: ReadonlyMap<string, SimulateLine>,
): Promise<Judged[]> {
  const listeners = listenersOf(plan)
  const judge = (pair: Pair, seen: readonly Seen[]): Judged => {
    const truth = truthOf(pair, seen)
    const answer = answers.get(pair.packet.id) ?? {id: pair.packet.id, error: 'svc-trace gave no answer'}
    return {pair, truth, answer, verdict: agreement(truth, answer, listeners)}
  }
  const first = await send(agent, pairs, PATIENCE)
  const judged = pairs.map((pair) => judge(pair, first.get(pair.packet.id)!))
  for (let look = 0; look < MORE_LOOKS; look++) {
    const doubtful = judged.filter(({verdict}) => verdict !== 'agree' && verdict !== 'unknown')
    if (doubtful.length === 0) break
    const again = await send(
      agent,
      doubtful.map(({pair}) => pair),
      MORE_PATIENCE,
    )
    for (const one of doubtful) judged[judged.indexOf(one)] = judge(one.pair, again.get(one.pair.packet.id)!)
  }
  return judged
}

async function send(agent: Agent, pairs: readonly Pair[], patience: number): Promise<Map<string, Seen[]>> {
  const seen = new Map<string, Seen[]>(pairs.map(({packet}) => [packet.id, []]))
  const shots = pairs.flatMap(({packet, namespace}): Shot[] => {
    const [, host, port] = /^\[?([^\]]*?)\]?:(\d+)$/.exec(packet.to)!
    return Array.from({length: TRIES}, () => ({
      id: packet.id,
      namespace,
      proto: packet.proto === 'UDP' ? 'UDP' : 'TCP',
      dst: host!,
      dport: Number(port),
    }))
  })
  for (let at = 0; at < shots.length; at += AT_ONCE)
    for (const one of await agent.probe(shots.slice(at, at + AT_ONCE), patience)) seen.get(one.id)!.push(one)
  return seen
}

/** `NAME ADDRESS`, as agent.py's servers say. */
const said = ({fate, note}: Seen): readonly [string, string] | undefined => {
  const [name, address] = note.split(' ')
  return fate === 'ok' && name !== undefined && address !== undefined ? [name, address] : undefined
}

function truthOf({packet, service, kind, sticky}: Pair, seen: readonly Seen[]): Truth {
  const count = (names: readonly string[]): Record<string, number> => {
    const counts: Record<string, number> = {}
    for (const name of names) counts[name] = (counts[name] ?? 0) + 1
    return counts
  }
  const talks = seen.flatMap((one) => (said(one) ? [said(one)!] : []))
  const outcomes = count(seen.map(({fate, note}) => (note === 'EHOSTUNREACH' ? 'unreachable' : fate)))
  return {
    origin: originText(packet),
    originIP: packet.from.external ?? '',
    node: packet.enter ?? '',
    kind,
    dst: packet.to,
    proto: packet.proto ?? 'TCP',
    service,
    outcomes,
    backends: count(talks.map(([name]) => name)),
    srcSeen: [...new Set(talks.map(([, address]) => address))],
    n: seen.length,
    ...(sticky ? {sticky} : {}),
  }
}

export function originText({from, enter}: SimulatePacket): string {
  if (from.node !== undefined) return `node ${from.node}`
  return from.pod === undefined ? `${from.external} by ${enter}` : `pod ${from.pod}`
}
