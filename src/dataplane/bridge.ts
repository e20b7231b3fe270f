import type {Link} from '../parse/iproute.js'
import {familyOf, inRange, prefixRange, type Address} from '../util/ip.js'
import {dropped, unknown, type Result} from './arrival.js'
import {JourneyPart} from './journey-part.js'
import type {Machine} from './machine.js'
import {endpointText} from './nat.js'
import {CLIENT, UNKNOWN_DEVICE, type Packet} from './packet.js'
import type {End} from './walker.js'
import type {PodPlace} from './world.js'

/** The bridge that a packet is on, and the pod whose port it came in by. */
interface BridgeWay {
  readonly device: string
  readonly pod: PodPlace
}

/** The bridge of a node that pods hang on; with br_netfilter its frames pass the hooks as well. */
export class Bridge extends JourneyPart {
  /** From a pod's own network into its node: routed, or by a bridge. */
  fromPod(machine: Machine, pod: PodPlace, packet: Packet): Result {
    const own = packet.src as Address
    if (packet.dst === own) return this.toSelf(machine, pod, packet)
    const device = machine.router(packet.family).onLinkDevice(own) ?? UNKNOWN_DEVICE
    if (!machine.isBridge(device)) return this.journey.stack.receive(machine, packet, device)
    const near =
      packet.dst !== CLIENT &&
      this.sameSegment(machine, {device, own, other: packet.dst}) &&
      !machine.addresses.has(packet.dst)
    return this.fromPort(machine, packet, {device, pod, near})
  }

  private toSelf(machine: Machine, pod: PodPlace, packet: Packet): Result {
    if (packet.reply && packet.dst !== this.journey.flow.destination)
      return dropped(
        'hairpin',
        `pod ${pod.id} answers itself inside its own network; the client's connection never sees it`,
      )
    return {kind: 'pod', machine, pod, listening: true}
  }

  private sameSegment(machine: Machine, {device, own, other}: {device: string; own: Address; other: Address}): boolean {
    return machine.state.addresses.some(({device: name, address, length}) => {
      if (name !== device || familyOf(address) !== familyOf(own)) return false
      const range = prefixRange(address, length)
      return inRange(own, range) && inRange(other, range)
    })
  }

  /**
   * A frame that comes in by a pod's port: for another pod on the bridge (`near`) or for the bridge itself. With
   * br_netfilter PREROUTING runs first, and a packet that it translates may stay on the bridge or leave it.
   */
  private fromPort(machine: Machine, packet: Packet, way: BridgeWay & {near: boolean}): Result {
    const {device, near} = way
    if (!machine.bridgeCallsIptables(packet.family, device)) {
      if (!near) return this.journey.stack.receive(machine, packet, device)
      this.journey.stack.enter(machine, packet)
      this.journey.pastConntrack = true
      if (this.walker.steps)
        this.walker.hop(
          'route',
          `bridged on ${device} of ${machine.name}, past iptables and conntrack (bridge-nf-call-iptables is not 1)`,
        )
      return this.hairpinOff(machine, packet, way) ?? this.deliver(machine, packet, way)
    }
    const before = packet.dst
    const stopped = this.prerouting(machine, packet, device)
    if (stopped) return stopped
    if (packet.dst === before || packet.dst === CLIENT)
      return near
        ? this.forward(machine, packet, {...way, translated: false})
        : this.journey.stack.routeIn(machine, packet)
    const route = machine
      .router(packet.family)
      .lookup(this.walker.chooser, {dst: packet.dst, src: packet.src, mark: packet.mark, iif: device})
    return route.type === 'unicast' && route.device === device
      ? this.forward(machine, packet, {...way, translated: true})
      : this.journey.stack.routeIn(machine, packet)
  }

  private prerouting(machine: Machine, packet: Packet, device: string): Result | undefined {
    const loop = this.journey.stack.arriveAt(machine, packet, device)
    if (loop) return loop
    packet.physin = UNKNOWN_DEVICE
    if (this.walker.steps)
      this.walker.hop('enter', `${packet.reply ? 'the answer' : 'the packet'} comes in by a port of ${device}`)
    return this.journey.stack.hidden(machine, packet) ?? this.journey.stack.hook('PREROUTING')
  }

  /**
   * On the bridge FORWARD and POSTROUTING see it. A plain frame needs no ip_forward; a translated one is routed first,
   * and in IPv4 that lookup fails without it (br_nf_pre_routing_finish; not so in br_nf_pre_routing_finish_ipv6).
   * The frame needs its new neighbour's hardware address then: an address that nobody has ends it before FORWARD.
   */
  private forward(
    machine: Machine,
    packet: Packet,
    {device, pod, translated}: BridgeWay & {translated: boolean},
  ): Result {
    if (translated && packet.family === 4 && machine.forwards(4, device) === false)
      return this.journey.stack.notForwarded(machine, packet)
    const {wire} = this.journey
    if (translated && !this.targetOn(machine, packet) && !wire.sharedWith(machine, packet, device))
      return this.nobody(machine, packet, device)
    const off = this.hairpinOff(machine, packet, {device, pod})
    if (off) return off
    packet.oif = device
    packet.physout = UNKNOWN_DEVICE
    if (this.walker.steps) this.walker.hop('route', `stays on bridge ${device}`)
    const stopped = this.journey.stack.hook('FORWARD')
    if (stopped) return stopped
    // br_nf_post_routing names no incoming device
    packet.iif = ''
    return this.journey.stack.hook('POSTROUTING') ?? this.deliver(machine, packet, {device, pod})
  }

  /** A frame is not even considered for the port that it came by, unless hairpin mode is on (br_forward.c, should_deliver). */
  private hairpinOff(machine: Machine, packet: Packet, {device, pod}: BridgeWay): End | undefined {
    const all = machine.state.links.filter(({master}) => master === device)
    // the uplink of a bridge that several nodes share is no pod's port
    const pods = all.filter(({kind}) => kind === 'veth')
    const ports = pods.length > 0 ? pods : all
    const off = ports.filter(({hairpin}) => hairpin === false)
    const target = this.targetOn(machine, packet)
    if (target !== pod) return target ? this.isolated(machine, {device, ports}) : undefined
    if (off.length === 0) return undefined
    if (off.length < ports.length)
      return unknown(
        `hairpin mode is on at some ports of bridge ${device} of ${machine.name} and off at others; which one pod ${pod.id} has, no dump shows`,
      )
    return dropped(
      'hairpin-mode',
      `bridge ${device} of ${machine.name} does not send a frame back by the port it came from (hairpin mode is off)`,
    )
  }

  /** Between two isolated ports nothing passes (br_forward.c, should_deliver, br_skb_isolated). */
  private isolated(machine: Machine, {device, ports}: {device: string; ports: readonly Link[]}): End | undefined {
    const isolated = ports.filter((port) => port.isolated)
    if (isolated.length < 2) return undefined
    if (isolated.length < ports.length)
      return unknown(
        `some ports of bridge ${device} of ${machine.name} are isolated from each other; which ones pods have, no dump shows`,
      )
    return dropped('hairpin-mode', `the ports of bridge ${device} of ${machine.name} are isolated from each other`)
  }

  private deliver(machine: Machine, packet: Packet, {device}: BridgeWay): Result {
    this.journey.stack.enter(machine, packet)
    const target = this.targetOn(machine, packet)
    if (target) return this.journey.wire.toPod(machine, target, packet)
    return this.journey.wire.across(machine, packet, device) ?? this.nobody(machine, packet, device)
  }

  private targetOn(machine: Machine, {dst}: Packet): PodPlace | undefined {
    const target = this.world.podAt(dst as Address)
    return target?.node === machine.name ? target : undefined
  }

  private nobody(machine: Machine, {dst}: Packet, device: string): End {
    return dropped(
      'nobody',
      `nobody has the address ${endpointText(dst, undefined)} on bridge ${device} of ${machine.name}`,
    )
  }
}
