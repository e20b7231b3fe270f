import {walk} from './dataplane/walk.js'
import type {World} from './dataplane/world.js'
import type {Fate, Flow, Origin, Outcome, WalkResult} from './model/trace.js'
import {countAddresses, formatAddress, formatEndpoint, formatRange, parseEndpoint, parseRange} from './util/ip.js'

/** One packet as a line of `simulate` gives it (design.md, "simulate"). */
export interface SimulatePacket {
  readonly id: string
  readonly from: {readonly external?: string; readonly node?: string; readonly pod?: string}
  /** The node that sees an external packet first. */
  readonly enter?: string
  /** `address:port`, `[address]:port` */
  readonly to: string
  readonly proto?: string
  /** The client's own port, to ask for one known connection. */
  readonly sport?: number
}

export interface SimulateBackend {
  readonly address: string
  readonly pod?: string
  readonly node?: string
  readonly share: number
  /** The address that the endpoint sees; several clients are written as their range. */
  readonly source?: string
}

export interface SimulateAnswer {
  readonly id: string
  readonly outcomes: Readonly<Partial<Record<Outcome, number>>>
  readonly backends: readonly SimulateBackend[]
  readonly why: readonly string[]
}

export type SimulateLine = SimulateAnswer | {readonly id: string; readonly error: string}

/** Bad input of one line; it never stops the others. */
class BadPacket extends Error {}

/** Answers one line of input, whatever it holds. */
export function simulateLine(world: World, line: string): SimulateLine {
  let packet: unknown
  try {
    packet = JSON.parse(line)
  } catch (error) {
    return {id: '', error: `not valid JSON: ${(error as Error).message}`}
  }
  return simulate(world, packet)
}

/** What happens to one packet: outcomes with shares that sum to 1, and who gets it. */
export function simulate(world: World, packet: unknown): SimulateLine {
  const id = typeof packet === 'object' && packet !== null && 'id' in packet ? String(packet.id) : ''
  try {
    return {id, ...answer(walk(world, readFlow(world, packet)))}
  } catch (error) {
    if (error instanceof BadPacket) return {id, error: error.message}
    throw error
  }
}

/** Checks a packet and gives it the node where it enters. */
function readFlow(world: World, packet: unknown): Flow {
  if (typeof packet !== 'object' || packet === null || Array.isArray(packet))
    throw new BadPacket('a packet is an object: {"id", "from", "to", "proto"}')
  const {from, to, proto = 'TCP', enter, sport} = packet as Record<string, unknown>
  const destination = typeof to === 'string' ? parseEndpoint(to) : undefined
  if (!destination) throw new BadPacket('"to" must be address:port or [address]:port')
  const protocol = typeof proto === 'string' ? proto.toUpperCase() : ''
  if (protocol !== 'TCP' && protocol !== 'UDP' && protocol !== 'SCTP')
    throw new BadPacket('"proto" must be TCP, UDP or SCTP')
  if (sport !== undefined && !(typeof sport === 'number' && Number.isInteger(sport) && sport > 0 && sport < 65536))
    throw new BadPacket('"sport" must be a port')
  return {
    origin: readOrigin(world, {from, enter, destination: destination.address}),
    destination: destination.address,
    port: destination.port,
    protocol: protocol,
    ...(sport === undefined ? {} : {sourcePort: sport}),
  }
}

function readOrigin(
  world: World,
  {from, enter, destination}: {from: unknown; enter: unknown; destination: Flow['destination']},
): Origin {
  const {external, node, pod} = (typeof from === 'object' && from !== null ? from : {}) as Record<string, unknown>
  if ([external, node, pod].filter((value) => value !== undefined).length !== 1)
    throw new BadPacket('"from" must hold exactly one of "external", "node", "pod"')
  if (typeof node === 'string')
    return world.machines.has(node) ? {kind: 'node', node} : fail(`node "${node}" is not in the snapshot`)
  if (typeof pod === 'string')
    return world.pod(pod) ? {kind: 'pod', pod} : fail(`pod "${pod}" is not in the snapshot, or has no node`)
  const range = typeof external === 'string' ? parseRange(external) : undefined
  if (!range) throw new BadPacket('"from.external" must be an address or a CIDR')
  if (typeof range.lo !== typeof destination) throw new BadPacket('"from" and "to" are of different IP families')
  const first = typeof enter === 'string' ? enter : world.machineAt(destination)?.name
  if (first === undefined)
    throw new BadPacket(`no node holds ${formatAddress(destination)}; say in "enter" which node sees the packet first`)
  return world.machines.has(first)
    ? {kind: 'external', ranges: [range], enter: first}
    : fail(`node "${first}" is not in the snapshot`)
}

function fail(message: string): never {
  throw new BadPacket(message)
}

function answer({parts}: WalkResult): Omit<SimulateAnswer, 'id'> {
  const total = parts.reduce((sum, {clients}) => sum + countAddresses(clients), 0)
  const outcomes: Partial<Record<Outcome, number>> = {}
  const backends: SimulateBackend[] = []
  const why = new Set<string>()
  for (const {clients, fates} of parts) {
    const weight = parts.length === 1 ? 1 : countAddresses(clients) / total
    for (const fate of fates) {
      outcomes[fate.outcome] = (outcomes[fate.outcome] ?? 0) + fate.share * weight
      if (fate.outcome === 'delivered')
        backends.push(backendOf(fate, fate.share * weight, clients.map(formatRange).join(' ')))
    }
    for (const line of reasons(fates)) why.add(line)
  }
  return {outcomes, backends, why: [...why]}
}

function backendOf({receiver, source, sourceIsClient}: Fate, share: number, clients: string): SimulateBackend {
  const {address, port, pod, node} = receiver!
  const seen = source === undefined ? (sourceIsClient ? clients : undefined) : formatAddress(source)
  return {
    address: formatEndpoint(address, port),
    ...(pod === undefined ? {} : {pod}),
    ...(node === undefined ? {} : {node}),
    share,
    ...(seen === undefined ? {} : {source: seen}),
  }
}

/** The rules that decided, of the likeliest way of each outcome, and why it ended. */
function reasons(fates: readonly Fate[]): string[] {
  const best = new Map<Outcome, Fate>()
  for (const fate of fates) if (fate.share > (best.get(fate.outcome)?.share ?? 0)) best.set(fate.outcome, fate)
  return [...best.values()].flatMap((fate) => [
    ...fate.hops
      .filter(({where}) => where !== undefined)
      .map(({node, where, what}) => `${node} ${where}${what.startsWith('-A') ? '' : ` ${what}`}`),
    fate.reason,
  ])
}
