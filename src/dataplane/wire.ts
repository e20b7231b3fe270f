import type {Link} from '../parse/iproute.js'
import {familyOf, formatAddress, inRange, prefixRange, type Address} from '../util/ip.js'
import {dropped, unknown, type Arrival, type Result} from './arrival.js'
import {JourneyPart} from './journey-part.js'
import type {Machine} from './machine.js'
import {endpointText} from './nat.js'
import {CLIENT, UNKNOWN_DEVICE, isLoopbackParty, type Packet, type Party} from './packet.js'
import type {RouteResult} from './router.js'
import {carry} from './tunnel.js'
import type {End} from './walker.js'
import type {PodPlace} from './world.js'

interface SharedSegment {
  readonly next: Machine
  readonly device: string
  readonly open: boolean
}

/** A port of a bridge by which frames leave the node: a device that is no veth, or one whose other end is here (Weave). No bridge at all is the wire itself. */
function uplinkOf(machine: Machine, bridge: string): 'sure' | 'open' | undefined {
  if (!machine.isBridge(bridge)) return 'sure'
  const ports = machine.state.links.filter(({master}) => master === bridge)
  const known = machine.state.links.some(({kind}) => kind !== undefined)
  if (known && ports.some(({kind, tunnel}) => kind !== 'veth' && !tunnel)) return 'sure'
  return ports.some(({peer, tunnel}) => peer !== undefined || tunnel !== undefined) ? 'open' : undefined
}

/** Devices whose frames go to a hardware address; others have NOARP by nature. */
const WITH_ARP = new Set(['', 'bridge', 'veth', 'bond', 'vlan', 'team'])

/** What is between the machines: who gets a packet that a node sends by a device. */
export class Wire extends JourneyPart {
  transmit(machine: Machine, packet: Packet, route: RouteResult): Result {
    const link = machine.link(route.device)
    if (!link && route.device !== UNKNOWN_DEVICE && route.device !== '' && machine.knowsLinks)
      return unknown(`a route of ${machine.name} leaves by device ${route.device}, which is not among its devices`)
    if (link && !link.up) return dropped('device', `device ${route.device} of ${machine.name} is down`)
    const hop: Party = route.gateway ?? packet.dst
    const mute = link && this.unresolved(machine, link, hop)
    if (mute) return mute
    if (packet.dst === CLIENT) return this.outside(machine)
    if (hop === CLIENT) return this.outside(machine)
    const pod = this.world.podAt(packet.dst)
    if (pod?.node === machine.name && route.gateway === undefined) return this.toPod(machine, pod, packet)
    const next = this.world.machineAt(hop)
    if (next && next !== machine) return this.reach(machine, packet, {next, link, hop})
    const unread = this.world.facts.unread.get(hop)
    if (unread !== undefined) return unknown(`the packet goes on at node ${unread}, which was not read`)
    if (route.gateway === undefined && !route.assumed) return this.onLink(machine, packet, route)
    return this.beyond(machine, packet, route)
  }

  /** Without ARP and neighbour discovery only what somebody has written down is found (arp_constructor, NUD_NOARP). */
  private unresolved({name, state}: Machine, {name: device, noArp, tunnel, kind}: Link, hop: Party): End | undefined {
    if (!noArp || tunnel || !WITH_ARP.has(kind ?? '')) return undefined
    const known = state.neighbours.some((one) => one.device === device && one.address === hop && one.mac !== undefined)
    return known
      ? undefined
      : unknown(
          `device ${device} of ${name} resolves no addresses (NOARP), and no entry of its neighbours has the next hop`,
        )
  }

  /** Another node gets it, by the wire or out of a tunnel. */
  private reach(
    machine: Machine,
    packet: Packet,
    {next, link, hop}: {next: Machine; link: Link | undefined; hop: Address | undefined},
  ): Result {
    const device = hop === undefined ? undefined : next.deviceOf(hop)
    const {tunnel} = link ?? {}
    if (!link || !tunnel) return this.journey.stack.receive(next, packet, device ?? UNKNOWN_DEVICE)
    const carried = carry(this.journey, packet, {from: machine, next, link: {...link, tunnel}, hop})
    return 'outcome' in carried ? carried : this.journey.stack.comeIn(next, packet, carried)
  }

  outside(machine: Machine): Arrival {
    return {kind: 'external', machine, listening: true}
  }

  /** The destination should answer on the wire itself. */
  private onLink(machine: Machine, packet: Packet, {device}: RouteResult): Result {
    const dst = packet.dst as Address
    const pod = this.world.podAt(dst)
    const across = this.across(machine, packet, device)
    if (across) return across
    const podDevice = machine.isBridge(device) || machine.link(device)?.kind === 'veth'
    if (pod && !podDevice) return this.toOtherNode(machine, packet, {pod, link: machine.link(device)})
    if (this.isOutside(dst)) return this.outside(machine)
    if (this.world.isVirtual(dst)) return this.virtualLost(machine, dst)
    if (this.world.facts.podsUnread)
      return unknown(`nobody knows who has ${formatAddress(dst)} behind ${machine.name}: no list of pods was read`)
    if (podDevice || this.world.rangeOwner(dst) === machine.name)
      return dropped(
        'nobody',
        `nobody has the address ${formatAddress(dst)}: ${machine.name} sends it to ${device}, and no pod there answers`,
      )
    return nowhere(`${formatAddress(dst)}, reached by ${device} of ${machine.name}, is in no part of the snapshot`)
  }

  /**
   * The machine at the other end of a segment that several nodes share: each has an address of the same network on it, and the
   * bridge has a port that leads out of the node. Where that is a veth pair, nobody knows where it goes on (`open`).
   */
  sharedWith(machine: Machine, {dst}: Packet, device: string): SharedSegment | undefined {
    if (dst === CLIENT || machine.link(device)?.tunnel) return undefined
    const pod = this.world.podAt(dst)
    const next = pod ? this.world.machines.get(pod.node) : this.world.machineAt(dst)
    if (!next || next === machine) return undefined
    const networks = machine.state.addresses
      .filter((own) => own.device === device && typeof own.address === typeof dst)
      .map(({address, length}) => prefixRange(address, length))
      .filter((network) => network.lo !== network.hi && inRange(dst, network))
    const there = next.state.addresses.find(({address, length}) =>
      networks.some((network) => {
        const other = typeof address === typeof network.lo ? prefixRange(address, length) : undefined
        return other?.lo === network.lo && other.hi === network.hi
      }),
    )
    const uplink = there && uplinkOf(machine, device)
    return uplink ? {next, device: there.device, open: uplink === 'open'} : undefined
  }

  /** Over such a segment to the pod or node on it. Without br_netfilter a bridge there passes frames by itself. */
  across(machine: Machine, packet: Packet, device: string): Result | undefined {
    const shared = this.sharedWith(machine, packet, device)
    if (!shared) return undefined
    const {next} = shared
    if (shared.open)
      return unknown(
        `nobody knows whether bridge ${device} of ${machine.name} leads to ${next.name}: both have the same network, and a port leads to a device of the node itself`,
      )
    const pod = this.world.podAt(packet.dst as Address)
    return pod && next.isBridge(shared.device) && !next.bridgeCallsIptables(packet.family, shared.device)
      ? this.toPod(next, pod, packet)
      : this.journey.stack.receive(next, packet, shared.device)
  }

  private isOutside(address: Address): boolean {
    return this.world.facts.externals.has(address) || address === this.journey.clientAddress
  }

  private virtualLost(machine: Machine, address: Address): End {
    return dropped(
      'untranslated',
      `the packet leaves ${machine.name} still addressed to ${formatAddress(address)}, a Service address that nobody out there owns`,
    )
  }

  /** By a gateway that is no node of the snapshot. */
  private beyond(machine: Machine, packet: Packet, route: RouteResult): Result {
    const dst = packet.dst as Address
    const pod = this.world.podAt(dst)
    if (pod) return this.podBeyond(machine, packet, {pod, route})
    const other = this.world.machineAt(dst)
    if (this.world.facts.unread.has(dst))
      return unknown(`the packet goes on at node ${this.world.facts.unread.get(dst)}, which was not read`)
    if (other && other !== machine)
      return this.journey.stack.receive(other, packet, other.deviceOf(dst) ?? UNKNOWN_DEVICE)
    if (this.isOutside(dst)) return this.outside(machine)
    if (this.world.isVirtual(dst)) return this.virtualLost(machine, dst)
    if (this.world.rangeOwner(dst) !== undefined)
      return dropped(
        'nobody',
        `nobody has the address ${formatAddress(dst)}; it leaves ${machine.name} by ${route.text}`,
      )
    return nowhere(
      `${formatAddress(dst)}, reached from ${machine.name} by ${route.text}, is in no part of the snapshot`,
    )
  }

  private podBeyond(machine: Machine, packet: Packet, {pod, route}: {pod: PodPlace; route: RouteResult}): Result {
    if (route.assumed && pod.node === machine.name) return this.toPod(machine, pod, packet)
    if (!this.world.machines.has(pod.node)) return unknown(`node ${pod.node}, where pod ${pod.id} runs, was not read`)
    if (!route.assumed && this.world.hostsRoutePods(packet.family)) {
      return dropped(
        'pod-route',
        `${machine.name} has no route to pod ${pod.id} on ${pod.node}: the packet leaves by ${route.text}, a gateway that knows no pods (other nodes route pods by their nodes)`,
      )
    }
    return this.toOtherNode(machine, packet, {pod, link: machine.link(route.device)})
  }

  toOtherNode(from: Machine, packet: Packet, {pod, link}: {pod: PodPlace; link?: Link | undefined}): Result {
    const other = this.world.machines.get(pod.node)
    if (!other) return unknown(`node ${pod.node}, where pod ${pod.id} runs, was not read`)
    const hop = other.hints.addresses.find((address) => familyOf(address) === packet.family)
    return this.reach(from, packet, {next: other, link, hop})
  }

  toPod(machine: Machine, pod: PodPlace, packet: Packet): Result {
    if (isLoopbackParty(packet.src))
      return dropped(
        'not-masqueraded',
        `pod ${pod.id} drops a packet from ${endpointText(packet.src, undefined)}: a loopback address from outside`,
      )
    if (packet.src !== CLIENT && pod.addresses.includes(packet.src))
      return dropped(
        'hairpin',
        `pod ${pod.id} gets a packet with its own address as source and drops it: hairpin traffic needs masquerade`,
      )
    if (this.walker.steps)
      this.walker.hop('arrive', `pod ${pod.id} gets it from ${endpointText(packet.src, undefined)}`)
    return {kind: 'pod', machine, pod, listening: true}
  }
}

const nowhere = (reason: string): End => ({...unknown(reason), cause: 'nowhere'})
