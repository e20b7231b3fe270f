import type {Protocol} from '../model/kube.js'
import {groupsOf, load, natGroups, runFilters, runNatChains, save, type NatGroup} from './chain-order.js'
import type {BaseChain, Machine} from './machine.js'
import {sameTuple, type Connection, type IpvsConnection, type Packet, type Tuple} from './packet.js'
import type {End, Hook, Walker} from './walker.js'

const CONNTRACK = -200
const NAT_PRIORITY: Readonly<Record<Hook, number | undefined>> = {
  PREROUTING: -100,
  OUTPUT: -100,
  INPUT: 100,
  POSTROUTING: 100,
  FORWARD: undefined,
}
/** net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops4 */
const IPVS_REPLY: Readonly<Partial<Record<Hook, number>>> = {INPUT: 98, OUTPUT: -99, FORWARD: 100}
const IPVS_REQUEST: Readonly<Partial<Record<Hook, number>>> = {INPUT: 99, OUTPUT: -98}

/** What the nodes remember of connections while one walk goes there and back. */
export class Tracking {
  /** Of the few machines that one walk passes. */
  private readonly seen: {machine: Machine; connections: Connection[]; ipvs: IpvsConnection[]}[] = []

  of(machine: Machine): Connection[] {
    return this.at(machine).connections
  }

  ipvsOf(machine: Machine): IpvsConnection[] {
    return this.at(machine).ipvs
  }

  private at(machine: Machine): (typeof this.seen)[number] {
    for (const one of this.seen) if (one.machine === machine) return one
    const fresh = {machine, connections: [], ipvs: []}
    this.seen.push(fresh)
    return fresh
  }
}

/** `stolen`: IPVS took the packet and sends it on by itself. */
export type HookResult = End | 'stolen' | undefined

export interface HookOptions {
  readonly tracking: Tracking
  /** Translates for a virtual server; undefined when there is none for this packet. */
  readonly ipvsRequest: (walker: Walker) => HookResult
  /** The same for an answer that IPVS doesn't know. */
  readonly ipvsAnswer: (walker: Walker) => HookResult
  /** OUTPUT only: looks up the route anew, where the kernel does (ip_route_me_harder). */
  readonly reroute: (walker: Walker) => End | undefined
  /** Kernel memory of the dump, for a flow whose own port is known. */
  readonly known?: {readonly sourcePort: number; readonly protocol: Protocol}
}

/** Runs everything that is registered at one hook, in the order of priorities (nf_hook_slow). */
export function runHook(walker: Walker, hook: Hook, options: HookOptions): HookResult {
  const {machine, packet} = walker
  for (const step of stepsOf(machine.baseChains(packet.family, hook), hook)[packet.reply ? 'reply' : 'request']) {
    walker.hook = hook
    const result = step.run(walker, options)
    if (result !== undefined) return result
  }
  // nf_conntrack_confirm is the last thing that these hooks do
  if ((hook === 'INPUT' || hook === 'POSTROUTING') && packet.connection) packet.connection.confirmed = true
  return undefined
}

/** Something that is registered at a hook. */
interface Step {
  readonly priority: number
  readonly run: (walker: Walker, options: HookOptions) => HookResult
}

/** What runs at one hook of one machine, for requests and for answers. */
type HookSteps = Readonly<Record<'request' | 'reply', readonly Step[]>>

const known = new WeakMap<readonly BaseChain[], HookSteps>()

/** `chains`: all base chains of the hook, always the same list for the same machine, family and hook. */
function stepsOf(chains: readonly BaseChain[], hook: Hook): HookSteps {
  let steps = known.get(chains)
  if (!steps)
    known.set(chains, (steps = {request: orderSteps(chains, hook, false), reply: orderSteps(chains, hook, true)}))
  return steps
}

function orderSteps(chains: readonly BaseChain[], hook: Hook, reply: boolean): Step[] {
  const steps: Step[] = groupsOf(chains.filter(({type}) => type !== 'nat')).map((group) => ({
    priority: group[0]!.priority,
    run: (walker, options) => runAndRoute(walker, hook, {group, options}),
  }))
  const nat = natGroups(chains)
  const add = (priority: number | undefined, run: Step['run']): void => {
    if (priority !== undefined) steps.push({priority, run})
  }
  if (hook === 'PREROUTING' || hook === 'OUTPUT') add(CONNTRACK, track)
  add(NAT_PRIORITY[hook], (walker, options) => translateAndRoute(walker, hook, {nat, options}))
  if (reply) {
    add(IPVS_REPLY[hook], ipvsReply)
    add(IPVS_REQUEST[hook], (walker, options) => (walker.packet.ipvs ? undefined : options.ipvsAnswer(walker)))
  } else add(IPVS_REQUEST[hook], (walker, options) => (walker.packet.ipvs ? undefined : options.ipvsRequest(walker)))
  return steps.sort((a, b) => a.priority - b.priority)
}

/** Mangle OUTPUT and `type route` chains: a changed mark or address leads to another look at the routes. */
function runAndRoute(
  walker: Walker,
  hook: Hook,
  {group, options}: {group: readonly BaseChain[]; options: HookOptions},
): End | undefined {
  const {packet} = walker
  const {src, dst, mark} = packet
  const end = runFilters(walker, hook, group)
  if (end || hook !== 'OUTPUT' || !group.some(({type}) => type === 'route')) return end
  return src === packet.src && dst === packet.dst && mark === packet.mark ? undefined : options.reroute(walker)
}

/** NAT in OUTPUT: a changed destination is routed at once (nf_nat_ipv4_local_fn). */
function translateAndRoute(
  walker: Walker,
  hook: Hook,
  {nat, options}: {nat: readonly NatGroup[]; options: HookOptions},
): End | undefined {
  const {dst} = walker.packet
  const end = translate(walker, hook, nat)
  return end || hook !== 'OUTPUT' || dst === walker.packet.dst ? end : options.reroute(walker)
}

/** nf_conntrack_in: finds the packet's connection or begins one. */
function track(walker: Walker, options: HookOptions): undefined {
  const {packet, machine} = walker
  if (packet.state === 'UNTRACKED' || packet.connection) return undefined
  const list = options.tracking.of(machine)
  if (packet.about) return trackError(packet, packet.about, list)
  for (const connection of list) {
    const reply = sameTuple(connection.reply, packet)
    if (!reply && !sameTuple(connection.original, packet)) continue
    packet.connection = connection
    packet.replyDirection = reply
    packet.state = reply ? 'ESTABLISHED' : 'NEW'
    return undefined
  }
  if (packet.reply && (packet.protocol === 'TCP' || packet.protocol === 'SCTP')) {
    // a SYN,ACK or INIT-ACK begins nothing (nf_conntrack_proto_tcp.c, tcp_new)
    packet.state = 'INVALID'
    return undefined
  }
  const connection = remembered(walker, options) ?? begin(packet)
  list.push(connection)
  packet.connection = connection
  packet.replyDirection = false
  packet.state = 'NEW'
  return undefined
}

/** An ICMP error belongs to the connection of the packet that it is about (nf_conntrack_inet_error). */
function trackError(packet: Packet, about: Tuple, list: readonly Connection[]): undefined {
  const connection = list.find(({reply}) => sameTuple(reply, about))
  packet.connection = connection
  packet.replyDirection = connection !== undefined
  packet.state = connection ? 'RELATED' : 'INVALID'
  return undefined
}

function begin({protocol, src, sport, dst, dport}: Packet): Connection {
  return {
    protocol,
    original: {src, sport, dst, dport},
    reply: {src: dst, sport: dport, dst: src, dport: sport},
    dnat: false,
    snat: false,
    dstDone: false,
    srcDone: false,
    confirmed: false,
    mark: 0,
  }
}

/** An entry that the node already has for this very tuple wins over every rule. */
function remembered(walker: Walker, {known}: HookOptions): Connection | undefined {
  const {packet, machine} = walker
  if (!known || packet.reply) return undefined
  const entry = machine.state.conntrack.find(
    ({protocol, original}) =>
      protocol === packet.protocol &&
      original.source === packet.src &&
      original.destination === packet.dst &&
      original.sourcePort === packet.sport &&
      original.destinationPort === packet.dport,
  )
  if (!entry) return undefined
  walker.hop('nat', 'an existing conntrack entry decides, not the rules', {
    evidence: {source: entry.file, line: entry.line, text: entry.text},
  })
  const {original, reply} = entry
  return {
    protocol: packet.protocol,
    original: {
      src: original.source,
      sport: original.sourcePort,
      dst: original.destination,
      dport: original.destinationPort,
    },
    reply: {src: reply.source, sport: reply.sourcePort, dst: reply.destination, dport: reply.destinationPort},
    dnat: reply.source !== original.destination || reply.sourcePort !== original.destinationPort,
    snat: reply.destination !== original.source,
    dstDone: true,
    srcDone: true,
    confirmed: true,
    mark: entry.mark,
  }
}

/** The NAT of one hook: rules for a connection's first packet, the connection's own translation for all others (nf_nat_inet_fn). */
function translate(walker: Walker, hook: Hook, nat: readonly NatGroup[]): End | undefined {
  const {packet} = walker
  const {connection} = packet
  if (!connection) return undefined
  const destination = hook === 'PREROUTING' || hook === 'OUTPUT'
  const done = destination ? connection.dstDone : connection.srcDone
  if (packet.replyDirection) {
    const end =
      done || packet.state !== 'RELATED' || packet.about ? undefined : settle(walker, hook, {destination, nat})
    if (end) return end
    if (destination && connection.snat) restore(walker, 'dst', connection)
    if (!destination && connection.dnat) restore(walker, 'src', connection)
    return undefined
  }
  if (done) {
    applyKnown(packet, connection, destination)
    return undefined
  }
  const end = runNatChains(walker, hook, nat)
  if (destination) connection.dstDone = true
  else connection.srcDone = true
  return end
}

/**
 * The reset for a packet whose connection has no NAT of this kind yet runs the chains for it. What they translate is the
 * other direction, and the connection ends with its first packet; what they drop is dropped.
 */
function settle(
  walker: Walker,
  hook: Hook,
  {destination, nat}: {destination: boolean; nat: readonly NatGroup[]},
): End | undefined {
  const before = save(walker)
  const end = runNatChains(walker, hook, nat)
  const {mark} = walker.packet
  const {written} = walker
  const hops = [...walker.hops]
  load(walker, before)
  walker.written = written
  walker.packet.mark = mark
  walker.hops.splice(0, walker.hops.length, ...hops)
  walker.packet.connection![destination ? 'dstDone' : 'srcDone'] = true
  return end
}

function restore(walker: Walker, side: 'src' | 'dst', connection: Connection): void {
  const {packet} = walker
  for (const tuple of packet.about ? [packet, packet.about] : [packet]) {
    if (side === 'dst') [tuple.dst, tuple.dport] = [connection.original.src, connection.original.sport]
    else [tuple.src, tuple.sport] = [connection.original.dst, connection.original.dport]
  }
}

/** A second pass (loopback), or an entry from the dump: the translation is there already. */
function applyKnown(packet: Packet, connection: Connection, destination: boolean): void {
  if (destination && connection.dnat) [packet.dst, packet.dport] = [connection.reply.src, connection.reply.sport]
  if (!destination && connection.snat) [packet.src, packet.sport] = [connection.reply.dst, connection.reply.dport]
}

/** net.ipv4.vs.conntrack=0: what IPVS has translated has no connection any more (ip_vs_notrack). */
export function untrack(packet: Packet): void {
  packet.connection = undefined
  packet.state = 'UNTRACKED'
}

/** The real server's answer gets the virtual server's address back (ip_vs_out). */
function ipvsReply(walker: Walker, {tracking}: HookOptions): undefined {
  const {packet, machine} = walker
  const seen = packet.about ?? packet
  const connection = tracking
    .ipvsOf(machine)
    .find(
      ({client, real}) =>
        real.address === seen.src &&
        real.port === seen.sport &&
        client.address === seen.dst &&
        client.port === seen.dport,
    )
  if (!connection) return undefined
  for (const tuple of packet.about ? [packet, packet.about] : [packet])
    [tuple.src, tuple.sport] = [connection.virtual.address, connection.virtual.port]
  packet.ipvs = connection
  if (machine.sysctl('net.ipv4.vs.conntrack') === 0) untrack(packet)
  walker.hop('ipvs', `IPVS gives the answer its virtual server's address back`)
  return undefined
}
