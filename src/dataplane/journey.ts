import type {Flow, Receiver} from '../model/trace.js'
import {familyOf, formatAddress, isLoopback, type Address} from '../util/ip.js'
import {isArrival, dropped, refused, unknown, type Arrival, type Result} from './arrival.js'
import {Bridge} from './bridge.js'
import {throughProxy} from './proxy-process.js'
import {Tracking} from './hooks.js'
import {Ipvs} from './ipvs.js'
import type {Machine} from './machine.js'
import {endpointText} from './nat.js'
import {CLIENT, EPHEMERAL, FRESH, UNKNOWN_DEVICE, type Packet, type Party, type Tuple} from './packet.js'
import {Stack} from './stack.js'
import type {End, Walker} from './walker.js'
import {Wire} from './wire.js'
import type {PodPlace, World} from './world.js'

/** One may be a connection that has just begun. */
const ENOUGH_UNANSWERED = 2

/** One packet's way there and its answer's way back, through every node on it. */
export class Journey {
  readonly world: World
  readonly flow: Flow
  readonly walker: Walker
  readonly proxies: number
  readonly tracking = new Tracking()
  readonly stack = new Stack(this)
  readonly ipvs = new Ipvs(this)
  readonly bridge = new Bridge(this)
  readonly wire = new Wire(this)
  visits = 0
  /** Tunnels that the packet on its way is in. */
  nesting = 0
  /** The address that the client's packet left with. */
  clientAddress: Party = CLIENT
  /** A frame went from pod to pod without iptables and conntrack. */
  pastConntrack = false
  source: Party | undefined
  private request: Packet | undefined

  /** `proxies`: how many processes have passed the connection on before. */
  constructor(world: World, flow: Flow, walker: Walker, proxies = 0) {
    this.proxies = proxies
    this.world = world
    this.flow = flow
    this.walker = walker
  }

  run(): End {
    const request = this.newPacket({
      src: CLIENT,
      sport: this.flow.sourcePort ?? EPHEMERAL,
      dst: this.flow.destination,
      dport: this.flow.port,
      reply: false,
    })
    this.request = request
    const arrival = this.depart(request)
    if (!isArrival(arrival)) return arrival.notice ? this.tellClient(arrival, arrival.notice, request) : arrival
    this.source = request.src
    const receiver = this.receiver(arrival, request)
    this.visits = 0
    const lost = this.answer(arrival, request)
    if (lost) return {...lost, receiver}
    if (!arrival.listening)
      return refused(
        'no-listener',
        `nothing listens on ${endpointText(request.dst, request.dport)} of ${arrival.machine.name}`,
      )
    if (arrival.proxy) return throughProxy(this, {...arrival, proxy: arrival.proxy}, request)
    return (
      this.unanswered(receiver) ?? {
        outcome: 'delivered',
        cause: 'delivered',
        reason: `delivered to ${receiverText(receiver)}`,
        receiver,
      }
    )
  }

  /** Where the client's packet was last sent to, if that is not where the client sent it. */
  get translatedTo(): {address: Address; port: number}[] {
    const {destination, port} = this.flow
    const {dst, dport} = this.request ?? {dst: CLIENT, dport: port}
    return dst === CLIENT || (dst === destination && dport === port) ? [] : [{address: dst, port: dport}]
  }

  /**
   * Connections of the dump that went just this way to a process of the node and got no answer: it listens, but it may be hung
   * or overrun. What pods do is their own matter.
   */
  private unanswered({kind, address, port}: Receiver): End | undefined {
    if (kind !== 'socket') return undefined
    const {destination, port: frontend, origin} = this.flow
    const machine = this.world.machines.get((origin.kind === 'external' ? origin.enter : this.originNode()) ?? '')
    const like = machine
      ?.waitingFor(destination, frontend)
      .filter(
        ({original, reply}) =>
          original.source === this.clientAddress && reply.source === address && reply.sourcePort === port,
      )
    if (!like || like.length < ENOUGH_UNANSWERED) return undefined
    return unknown(
      `it reaches ${endpointText(address, port)}, but ${like.length} connections that went the same way wait for an answer there (${like[0]!.file}:${like[0]!.line})`,
    )
  }

  private newPacket(
    tuple: Tuple & Pick<Packet, 'reply'> & Partial<Pick<Packet, 'about' | 'protocol' | 'tcpFlags'>>,
  ): Packet {
    const {src, sport, dst, dport, reply, about, protocol, tcpFlags} = tuple
    return {
      src,
      sport,
      dst,
      dport,
      reply,
      outer: false,
      about,
      tcpFlags: tcpFlags ?? (reply ? SYN_ACK : SYN),
      family: familyOf(this.flow.destination),
      protocol: protocol ?? this.flow.protocol,
      mark: FRESH.mark,
      iif: FRESH.iif,
      oif: FRESH.oif,
      physin: FRESH.physin,
      physout: FRESH.physout,
      state: FRESH.state,
      connection: FRESH.connection,
      replyDirection: FRESH.replyDirection,
      ipvs: FRESH.ipvs,
    }
  }

  private receiver(arrival: Arrival, {dst, dport}: Packet): Receiver {
    const address = dst as Address
    const {kind, machine, pod} = arrival
    if (kind === 'pod') return {address, port: dport, kind, pod: pod!.id, node: pod!.node}
    if (kind === 'external') return {address, port: dport, kind}
    const owner = this.world.facts.socketPod(machine.name, address, dport)
    return {address, port: dport, kind, node: machine.name, ...(owner === undefined ? {} : {pod: owner})}
  }

  private depart(packet: Packet): Result {
    const {origin} = this.flow
    if (origin.kind === 'external') return this.fromOutside(packet, origin)
    if (origin.kind === 'node') {
      const machine = this.world.machines.get(origin.node)
      return machine
        ? this.stack.send(machine, packet, undefined)
        : unknown(`node ${origin.node} is not in the snapshot`)
    }
    const pod = this.world.pod(origin.pod)
    if (!pod) return unknown(`pod ${origin.pod} is not in the snapshot`)
    const machine = this.world.machines.get(pod.node)
    if (!machine) return unknown(`node ${pod.node}, where pod ${pod.id} runs, was not read`)
    if (pod.hostNetwork) return this.stack.send(machine, packet, undefined)
    const address = pod.addresses.find((candidate) => familyOf(candidate) === packet.family)
    if (address === undefined) return refused('no-address', `pod ${pod.id} has no IPv${packet.family} address`)
    this.clientAddress = packet.src = address
    return this.bridge.fromPod(machine, pod, packet)
  }

  private fromOutside(packet: Packet, origin: Extract<Flow['origin'], {kind: 'external'}>): Result {
    const machine = this.world.machines.get(origin.enter)
    if (!machine) return unknown(`node ${origin.enter} was not read`)
    const [only] = origin.ranges
    if (origin.ranges.length === 1 && only!.lo === only!.hi) packet.src = only!.lo
    this.clientAddress = packet.src
    const back = machine
      .router(packet.family)
      .lookup(this.walker.chooser, {dst: packet.src, src: undefined, mark: 0, iif: 'lo'})
    const wayBack = back.type === 'unicast' && back.device !== '' ? back.device : UNKNOWN_DEVICE
    return this.stack.receive(machine, packet, machine.entrance(this.flow.destination, back) ?? wayBack)
  }

  /**
   * The reset to ::1 is bound to the device of the own address that it comes from (tcp_v6_send_response), where nobody is;
   * rules of OUTPUT that change a header have it routed again, to lo (ip6_route_me_harder).
   */
  private resetToLoopback(machine: Machine, {dst, dport}: Packet): End {
    const closed = `nothing listens on ${endpointText(dst, dport)} of ${machine.name}`
    return machine.baseChains(6, 'OUTPUT').some(({type, empty}) => type === 'route' && !empty)
      ? unknown(
          `${closed}, and whether its reset is routed to [::1] depends on what rules of OUTPUT change in its header`,
        )
      : dropped('no-listener', `${closed}, and the kernel has no way for a reset to [::1] by another device than lo`)
  }

  /** Sends the answer back; undefined when the client gets it, else why it is lost. */
  private answer(arrival: Arrival, request: Packet): End | undefined {
    const tuple = answerTo(request)
    if (!arrival.listening && request.protocol === 'UDP' && request.family === 6 && request.ipvs)
      return unknown(
        `nothing listens on ${endpointText(request.dst, request.dport)} of ${arrival.machine.name}, and its ICMPv6 error gets lost in IPVS in some kernels`,
      )
    if (!arrival.listening && request.protocol === 'UDP')
      return this.noticeBack(arrival.machine, request, {notice: 'icmp', attached: false})
    if (!arrival.listening && request.src === 1n && request.dst !== 1n)
      return this.resetToLoopback(arrival.machine, request)
    const reply = this.newPacket({...tuple, reply: true, ...(arrival.listening ? {} : {tcpFlags: RESET})})
    this.stack.enter(arrival.machine, reply)
    if (this.walker.steps)
      this.walker.hop(
        'reply',
        `${arrival.listening ? 'the answer' : 'the reset'} starts to ${endpointText(reply.dst, undefined)}`,
      )
    const back = this.sendAnswer(arrival, reply)
    if (!isArrival(back))
      return back.outcome === 'unknown'
        ? back
        : {...dropped(back.cause ?? 'rule', `the answer is lost: ${back.reason}`), onReply: true}
    return this.accepted(back, reply)
  }

  /** A refusal on the way counts only when the client hears of it. */
  private tellClient(end: End, notice: NonNullable<End['notice']>, request: Packet): End {
    const {machine} = this.walker
    if (notice === 'icmp' && request.family === 6 && request.ipvs)
      return unknown(`${end.reason}, and its ICMPv6 error gets lost in IPVS in some kernels`)
    const direct = notice === 'tcp reset' && request.physin !== ''
    const lost = direct ? this.resetByPort(request) : this.noticeBack(machine, request, {notice, attached: true})
    if (!lost) return {outcome: end.outcome, reason: end.reason, ...(end.cause ? {cause: end.cause} : {})}
    return lost.outcome === 'unknown'
      ? lost
      : dropped(lost.cause ?? 'rule', `${end.reason}, but the client does not hear of it: ${lost.reason}`)
  }

  /** An ICMP error or a reset from the node that refuses; it belongs to the refused packet's connection (nf_ct_attach). */
  private noticeBack(
    machine: Machine,
    request: Packet,
    {notice, attached}: {notice: NonNullable<End['notice']>; attached: boolean},
  ): End | undefined {
    const tuple = answerTo(request)
    const icmp = notice === 'icmp'
    const packet = this.newPacket({
      ...tuple,
      ...(icmp ? {sport: 0, dport: 0, about: {...tuple}, protocol: 'ICMP' as const} : {tcpFlags: RESET}),
      reply: true,
    })
    if (attached && request.connection)
      Object.assign(packet, {connection: request.connection, replyDirection: !request.replyDirection, state: 'RELATED'})
    this.stack.enter(machine, packet)
    if (this.walker.steps)
      this.walker.hop('reply', `${icmp ? 'an ICMP error' : 'a reset'} starts to ${endpointText(packet.dst, undefined)}`)
    const local = machine.router(packet.family).isLocal(this.walker.chooser, request.dst)
    const back = this.stack.send(machine, packet, icmp && !local ? undefined : request.dst)
    if (!isArrival(back))
      return back.outcome === 'unknown'
        ? back
        : {...dropped(back.cause ?? 'rule', `the answer is lost: ${back.reason}`), onReply: true}
    return this.accepted(back, packet)
  }

  /** The reset for a packet that came in by a bridge port goes straight out by it, past every hook (nf_send_reset). */
  private resetByPort({dst, dport}: Packet): End | undefined {
    if (dst === this.flow.destination && dport === this.flow.port) return undefined
    return dropped('rule', `it comes from ${endpointText(dst, dport)}, past the translation`)
  }

  private sendAnswer(arrival: Arrival, reply: Packet): Result {
    if (arrival.kind === 'pod') return this.bridge.fromPod(arrival.machine, arrival.pod!, reply)
    if (arrival.kind === 'socket') return this.stack.send(arrival.machine, reply, reply.src)
    return this.answerFromOutside(arrival, reply)
  }

  private answerFromOutside({machine}: Arrival, reply: Packet): Result {
    const {dst} = reply
    if (dst === CLIENT || dst === this.clientAddressOutside()) return this.wire.outside(machine)
    const device = (to: Machine): string => {
      const back = to
        .router(reply.family)
        .lookup(this.walker.chooser, {dst: reply.src, src: undefined, mark: 0, iif: 'lo'})
      return back.type === 'unicast' && back.device !== '' ? back.device : UNKNOWN_DEVICE
    }
    const next = this.world.machineAt(dst)
    if (next) return this.stack.receive(next, reply, device(next))
    const unread = this.world.facts.unread.get(dst)
    if (unread !== undefined) return unknown(`the answer goes on at node ${unread}, which was not read`)
    const pod = this.world.podAt(dst)
    if (!pod && (isLoopback(dst) || this.world.isVirtual(dst)))
      return dropped(
        'not-masqueraded',
        `${endpointText(reply.src, undefined)} outside the cluster has no way to ${formatAddress(dst)}, an address that no host out there owns: it was not masqueraded`,
      )
    if (!pod) return unknown(`nobody knows the way from ${endpointText(reply.src, undefined)} to ${formatAddress(dst)}`)
    if (this.world.hostsRoutePods(reply.family))
      return dropped(
        'not-masqueraded',
        `${endpointText(reply.src, undefined)} outside the cluster has no route to pod address ${formatAddress(dst)}: it was not masqueraded`,
      )
    return this.wire.toOtherNode(machine, reply, {pod})
  }

  private clientAddressOutside(): Party | undefined {
    return this.flow.origin.kind === 'external' ? this.clientAddress : undefined
  }

  /** The client takes the answer only at its own place and from the address that it wrote to. */
  private accepted(back: Arrival, reply: Packet): End | undefined {
    const {origin} = this.flow
    const home =
      origin.kind === 'external'
        ? back.kind === 'external' && reply.dst === this.clientAddress
        : this.originPod()?.hostNetwork === false
          ? back.kind === 'pod' && back.pod?.id === this.originPod()?.id
          : back.kind === 'socket' && back.machine.name === this.originNode() && reply.dst === this.clientAddress
    if (!home)
      return dropped(
        'bypass',
        `the answer is lost: it ends at ${back.pod?.id ?? back.machine.name}, where nobody waits for it`,
      )
    const seen = reply.about ?? reply
    if (seen.dport !== (this.flow.sourcePort ?? EPHEMERAL))
      return dropped('bypass', `the answer goes to a port that NAT chose, past the node that knows the client's own`)
    if (seen.src !== this.flow.destination || seen.sport !== this.flow.port) {
      return dropped(
        this.pastConntrack ? 'bridge-nf' : 'bypass',
        `the answer comes from ${endpointText(seen.src, seen.sport)}, but the client wrote to ${endpointText(this.flow.destination, this.flow.port)}: it bypassed the node that translated, and is ignored`,
      )
    }
    return undefined
  }

  private originPod(): PodPlace | undefined {
    return this.flow.origin.kind === 'pod' ? this.world.pod(this.flow.origin.pod) : undefined
  }

  private originNode(): string | undefined {
    return this.flow.origin.kind === 'node' ? this.flow.origin.node : this.originPod()?.node
  }
}

const answerTo = ({src, sport, dst, dport}: Packet): Tuple => ({src: dst, sport: dport, dst: src, dport: sport})

const SYN: readonly string[] = ['SYN']
const SYN_ACK: readonly string[] = ['SYN', 'ACK']
const RESET: readonly string[] = ['RST', 'ACK']

function receiverText({kind, address, port, pod, node}: Receiver): string {
  const at = endpointText(address, port)
  if (pod !== undefined) return `pod ${pod} (${at}) on ${node}`
  return kind === 'socket' ? `${at} on ${node}` : `${at}, which is in no part of the snapshot`
}
