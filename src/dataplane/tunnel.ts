import type {Link, Tunnel} from '../parse/iproute.js'
import {familyOf, type Address} from '../util/ip.js'
import {dropped, isArrival, unknown, type Result} from './arrival.js'
import type {Journey} from './journey.js'
import type {Machine} from './machine.js'
import {endpointText} from './nat.js'
import {EPHEMERAL, FRESH, UNKNOWN_DEVICE, type Packet, type WireProtocol} from './packet.js'
import type {End} from './walker.js'

/** Two nodes, and the device by which the one sends to the other. */
export interface Crossing {
  readonly from: Machine
  readonly next: Machine
  readonly link: Link & {readonly tunnel: Tunnel}
  /** The next hop of the route. */
  readonly hop: Address | undefined
}

/** How a packet comes out of a tunnel: a mark on what carried it stays on it within one network namespace (skb_scrub_packet). */
export interface Emerged {
  readonly device: string
  readonly mark: number
}

type Walked = Exclude<Tunnel['kind'], 'wireguard'>
const NAMES: Readonly<Record<Walked, string>> = {vxlan: 'VXLAN', geneve: 'Geneve', ipip: 'IP-in-IP', gre: 'GRE'}
const PROTOCOLS: Readonly<Record<Walked, WireProtocol>> = {
  vxlan: 'UDP',
  geneve: 'UDP',
  ipip: 'IPENCAP',
  gre: 'GRE',
}

/**
 * Walks the packet that carries another one to the next node: sent by this node itself, with the mark that the other has,
 * through OUTPUT here and INPUT there (drivers/net/vxlan, vxlan_xmit_one; net/ipv4/ip_tunnel.c, ip_tunnel_xmit; iptunnel_xmit).
 */
export function carry(journey: Journey, inner: Packet, crossing: Crossing): Emerged | End {
  const device = deviceAt(crossing)
  if (typeof device !== 'string') return device
  // which port WireGuard sends to is in no dump
  if (!isWalked(crossing)) return {device, mark: FRESH.mark}
  return carryBy(journey, inner, {crossing, device})
}

/** A tunnel of which the packet outside is known. */
type WalkedCrossing = Crossing & {readonly link: {readonly tunnel: {readonly kind: Walked}}}
const isWalked = (crossing: Crossing): crossing is WalkedCrossing => crossing.link.tunnel.kind !== 'wireguard'

function carryBy(
  journey: Journey,
  inner: Packet,
  {crossing, device}: {crossing: WalkedCrossing; device: string},
): Emerged | End {
  const carrier = carrierOf(inner, crossing)
  if (!carrier) {
    const {link, next} = crossing
    journey.walker.note(
      `which addresses its ${NAMES[link.tunnel.kind]} packets to ${next.name} have is not known; they are taken to get there`,
    )
    return {device, mark: FRESH.mark}
  }
  const lost = send(journey, carrier, crossing)
  if (!lost) return {device, mark: carrier.mark}
  return lost.outcome === 'dropped' && passesWhenKnown(journey, inner, crossing)
    ? unknown(
        `${lost.reason}, unless connection tracking of ${crossing.next.name} knows the tunnel already, as it does while packets go the other way`,
      )
    : lost
}

/** Tunnels in tunnels, up to this; more are a route that leads a tunnel's own packets into it (ip_tunnel_xmit: collisions). */
const MAX_NESTING = 3

/** Undefined: it gets there. */
function send(journey: Journey, carrier: Packet, {from, next, link}: WalkedCrossing): End | undefined {
  const way = `its ${NAMES[link.tunnel.kind]} packet to ${placeOf(carrier)} of ${next.name}`
  if (journey.nesting >= MAX_NESTING) return dropped('loop', `${way} leaves by ${link.name} again`)
  journey.nesting++
  const arrival: Result = journey.stack.send(from, carrier, carrier.src)
  journey.nesting--
  if (isArrival(arrival))
    return arrival.machine === next && arrival.kind === 'socket'
      ? undefined
      : dropped('route', `${way} does not get there`)
  if (arrival.outcome === 'unknown') return unknown(`${way}: ${arrival.reason}`)
  return dropped(arrival.cause ?? 'rule', `${way} is lost: ${arrival.reason}`)
}

const placeOf = ({dst, dport, protocol}: Packet): string =>
  protocol === 'UDP' ? `${endpointText(dst, dport)}/UDP` : endpointText(dst, undefined)

/**
 * Without ports both directions are one connection (nf_conntrack_proto_generic.c, nf_conntrack_proto_gre.c): the node that
 * drops what is new may have begun it itself.
 */
function passesWhenKnown(journey: Journey, inner: Packet, crossing: WalkedCrossing): boolean {
  const carrier = carrierOf(inner, crossing)!
  if (carrier.protocol === 'UDP') return false
  const {src, sport, dst, dport, protocol} = carrier
  const there = journey.tracking.of(crossing.next)
  if (there.some(({confirmed, original}) => confirmed && original.src === dst && original.dst === src)) return false
  there.unshift({
    protocol,
    original: {src: dst, sport: dport, dst: src, dport: sport},
    reply: {src, sport, dst, dport},
    ...{dnat: false, snat: false, dstDone: true, srcDone: true, confirmed: true, mark: 0},
  })
  return send(journey, carrier, crossing) === undefined
}

function carrierOf(inner: Packet, {from, next, link: {tunnel}, hop}: WalkedCrossing): Packet | undefined {
  const local = tunnel.local ?? from.hints.addresses[0]
  const remote = remoteOf(next, tunnel, {local, hop})
  if (local === undefined || remote === undefined) return undefined
  return {
    ...inner,
    ...FRESH,
    src: local,
    sport: tunnel.port === undefined ? 0 : EPHEMERAL,
    dst: remote,
    dport: tunnel.port ?? 0,
    family: familyOf(local),
    protocol: PROTOCOLS[tunnel.kind],
    tcpFlags: [],
    about: undefined,
    outer: true,
    mark: inner.mark,
  }
}

/** Its only other end; of IP-in-IP and GRE the next hop, where that is the node's own address on the wire; else what the API says. */
function remoteOf(
  next: Machine,
  {kind, remote}: Tunnel,
  {local, hop}: {local: Address | undefined; hop: Address | undefined},
): Address | undefined {
  if (remote !== undefined) return remote
  const device = hop === undefined ? undefined : next.deviceOf(hop)
  if ((kind === 'ipip' || kind === 'gre') && device !== undefined && !next.link(device)?.tunnel) return hop
  return next.hints.addresses.find((own) => local !== undefined && familyOf(own) === familyOf(local))
}

/** The device that unwraps it there: one of the same kind, that of the next hop or of the same name first. */
function deviceAt({next, link, hop}: Crossing): string | End {
  const own = hop === undefined ? undefined : next.deviceOf(hop)
  const {kind} = link.tunnel
  const fit = next.state.links.filter(({tunnel}) => tunnel?.kind === kind)
  const found =
    fit.find(({name}) => name === own) ??
    fit.find(({name}) => name === link.name) ??
    (fit.length === 1 ? fit[0] : undefined)
  if (found && !found.up) return dropped('device', `device ${found.name} of ${next.name} is down`)
  if (found) return found.name
  return next.knowsLinks ? UNKNOWN_DEVICE : (own ?? UNKNOWN_DEVICE)
}
