import type {BaseChain} from './machine.js'
import {inKnownOrder, registeredLater} from './registration.js'
import type {Connection, Packet} from './packet.js'
import {isEnd, type End, type Hook, type Walker} from './walker.js'

/** Base chains of one hook and priority: in which order they run, and when that matters. */

function endOf(chain: BaseChain, walker: Walker): End | undefined {
  const verdict = chain.run(walker)
  return isEnd(verdict) ? verdict : undefined
}

/** Chains of equal priority, in the order of the dump. */
export function groupsOf(chains: readonly BaseChain[]): BaseChain[][] {
  const groups: BaseChain[][] = []
  for (const chain of chains) {
    const last = groups.at(-1)
    if (last?.[0]?.priority === chain.priority) last.push(chain)
    else groups.push([chain])
  }
  return groups
}

/**
 * Filter chains of the same priority run youngest first (registration.ts). Where no dump shows their age, that matters when
 * two of them would end the packet in different ways, or when one writes what another may ask for.
 */
export function runFilters(walker: Walker, hook: Hook, group: readonly BaseChain[]): End | undefined {
  if (group.length === 1) return endOf(group[0]!, walker)
  const sure = inKnownOrder(group)
  if (sure) return firstEnd(walker, sure)
  const start = save(walker)
  const {end, writer} = runInOrder(walker, hook, group)
  if (!writer) return end
  const others = group.filter((chain) => chain !== writer)
  const earlier = others.filter((chain) => runsBefore(walker, hook, [chain, writer]))
  const order = [...earlier, writer, ...others.filter((chain) => !earlier.includes(chain))]
  if (order.every((chain, at) => chain === group[at])) return end
  load(walker, start)
  return runInOrder(walker, hook, order).end
}

function firstEnd(walker: Walker, chains: readonly BaseChain[]): End | undefined {
  for (const chain of chains) {
    const end = endOf(chain, walker)
    if (end) return end
  }
  return undefined
}

interface Pass {
  readonly end: End | undefined
  /** A chain that changes what others may ask for, whether they stand before or behind it. */
  readonly writer: BaseChain | undefined
}

function runInOrder(walker: Walker, hook: Hook, group: readonly BaseChain[]): Pass {
  let writer: BaseChain | undefined
  for (const [at, chain] of group.entries()) {
    const before = save(walker)
    const end = endOf(chain, walker)
    if (!writer && wrote(walker, before)) writer = chain
    if (!end) continue
    const others = group.slice(at + 1)
    const first = firstToEnd(walker, hook, {before, end, chain, others})
    return {end: first.end, writer: writer ?? first.writer}
  }
  return {end: undefined, writer}
}

/** Marks and the state of the connection: what rules write and other rules ask for. */
const wrote = ({packet}: Walker, before: Saved): boolean =>
  packet.mark !== before.mark ||
  packet.state !== before.state ||
  (packet.connection?.mark ?? 0) !== (before.connection?.mark ?? 0)

/** Whether the one runs before the other; the same answer whoever of them is asked about first. */
function runsBefore(walker: Walker, hook: Hook, [chain, other]: readonly [BaseChain, BaseChain]): boolean {
  const later = registeredLater(chain, other)
  if (later !== undefined) return later
  const [first, second] = [chain.name, other.name].sort()
  const answer = walker.assume(`order:${hook}:${first}:${second}`, [
    `if ${first} runs before ${second}`,
    `if ${second} runs before ${first}`,
  ])
  return answer === (chain.name === first)
}

interface Ending {
  readonly before: Saved
  readonly end: End
  readonly chain: BaseChain
  readonly others: readonly BaseChain[]
}

/** The same for the client too: a reset and an ICMP error have different ways to go. */
const alike = (one: End, other: End): boolean => one.outcome === other.outcome && one.notice === other.notice

function firstToEnd(walker: Walker, hook: Hook, {before, end, chain, others}: Ending): Pass {
  const after = save(walker)
  let writer: BaseChain | undefined
  for (const other of others) {
    load(walker, before)
    const otherEnd = endOf(other, walker)
    if (!writer && wrote(walker, before)) writer = other
    if (!otherEnd || alike(end, otherEnd)) continue
    const otherAfter = save(walker)
    const first = runsBefore(walker, hook, [chain, other])
    load(walker, first ? after : otherAfter)
    return {end: first ? end : otherEnd, writer}
  }
  load(walker, after)
  return {end, writer}
}

/** NAT chains that run as one: a single one, or all of one priority whose order no dump shows. */
export type NatGroup = readonly BaseChain[]

export const natGroups = (chains: readonly BaseChain[]): NatGroup[] =>
  groupsOf(chains.filter(({type}) => type === 'nat')).flatMap(
    (group) => inKnownOrder(group)?.map((chain) => [chain]) ?? [group],
  )

export function runNatChains(walker: Walker, hook: Hook, groups: readonly NatGroup[]): End | undefined {
  const {connection} = walker.packet
  for (const group of groups) {
    const end = group.length === 1 ? endOf(group[0]!, walker) : runGroup(walker, hook, group)
    if (end) return end
    if (hook === 'PREROUTING' || hook === 'OUTPUT' ? connection!.dstDone : connection!.srcDone) return undefined
  }
  return undefined
}

interface Attempt {
  readonly chain: BaseChain
  readonly end: End | undefined
  readonly after: Saved
}

/**
 * Chains of the same priority whose order no dump shows in full. Each is tried from the same start. Where several act in
 * different ways, who is first is known or asked; what it did counts, and where it only wrote a mark, the others go on from there.
 */
function runGroup(walker: Walker, hook: Hook, group: readonly BaseChain[]): End | undefined {
  const before = save(walker)
  const attempts = group.map((chain): Attempt => {
    load(walker, before)
    const end = endOf(chain, walker)
    return {chain, end, after: save(walker)}
  })
  const acting = attempts.filter(({end, after}) => end !== undefined || differs(before, after))
  const [first, ...others] = acting.every((other) => sameEffect(acting[0]!, other))
    ? acting
    : ordered(walker, hook, acting)
  load(walker, first?.after ?? before)
  if (!first) walker.hops.push(...attempts.flatMap(({after}) => after.hops.slice(before.hops.length)))
  if (!first || first.end || isDone(walker, hook)) return first?.end
  const idle = attempts.filter((attempt) => !acting.includes(attempt) && !attempt.chain.empty)
  return goOn(walker, hook, {first: first.chain, rest: [...others, ...idle].map(({chain}) => chain)})
}

const isDone = ({packet}: Walker, hook: Hook): boolean =>
  packet.connection![hook === 'PREROUTING' || hook === 'OUTPUT' ? 'dstDone' : 'srcDone']

/** What runs behind a chain that only wrote a mark: any other may ask for that, also one that had nothing to do before. */
function goOn(
  walker: Walker,
  hook: Hook,
  {first, rest}: {first: BaseChain; rest: readonly BaseChain[]},
): End | undefined {
  for (const chain of rest) {
    const here = save(walker)
    const end = endOf(chain, walker)
    if (!end && !differs(here, save(walker))) continue
    if (!runsBefore(walker, hook, [first, chain])) {
      load(walker, here)
      continue
    }
    if (end || isDone(walker, hook)) return end
  }
  return undefined
}

/** In the order in which they run. */
function ordered(walker: Walker, hook: Hook, attempts: readonly Attempt[]): Attempt[] {
  const order: Attempt[] = []
  for (const attempt of attempts) {
    const at = order.findIndex((other) => !runsBefore(walker, hook, [other.chain, attempt.chain]))
    order.splice(at < 0 ? order.length : at, 0, attempt)
  }
  return order
}

/** Everything that a NAT chain can change. */
interface Saved {
  readonly src: Packet['src']
  readonly sport: number
  readonly dst: Packet['dst']
  readonly dport: number
  readonly mark: number
  readonly state: Packet['state']
  readonly connection: Connection | undefined
  readonly hops: Walker['hops']
  readonly written: Walker['written']
}

export function save({packet, hops, written}: Walker): Saved {
  const {src, sport, dst, dport, mark, state, connection} = packet
  return {
    src,
    sport,
    dst,
    dport,
    mark,
    state,
    connection: connection && {...connection, original: {...connection.original}, reply: {...connection.reply}},
    hops: [...hops],
    written: written && new Set(written),
  }
}

export function load(walker: Walker, saved: Saved): void {
  const {src, sport, dst, dport, mark, state} = saved
  Object.assign(walker.packet, {src, sport, dst, dport, mark, state})
  const {connection} = walker.packet
  if (connection && saved.connection) {
    const {dnat, snat, dstDone, srcDone, mark: connmark} = saved.connection
    Object.assign(connection.reply, saved.connection.reply)
    Object.assign(connection, {dnat, snat, dstDone, srcDone, mark: connmark})
  }
  walker.hops.length = 0
  walker.hops.push(...saved.hops)
  walker.written = saved.written && new Set(saved.written)
}

const effect = ({src, sport, dst, dport, mark, connection}: Saved): string =>
  [src, sport, dst, dport, mark, connection?.dstDone, connection?.srcDone, connection?.mark].join(' ')
const differs = (a: Saved, b: Saved): boolean => effect(a) !== effect(b)
const sameEffect = (a: Attempt, b: Attempt): boolean => !a.end && !b.end && effect(a.after) === effect(b.after)
