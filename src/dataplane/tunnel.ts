import type {BridgeEntry, Link, Tunnel} from '../parse/iproute.js'
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

const NAMES: Readonly<Record<Tunnel['kind'], string>> = {
  vxlan: 'VXLAN',
  geneve: 'Geneve',
  ipip: 'IP-in-IP',
  gre: 'GRE',
  wireguard: 'WireGuard',
}
const PROTOCOLS: Readonly<Record<Tunnel['kind'], WireProtocol>> = {
  wireguard: 'UDP',
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
  const astray = sentAstray(journey, crossing)
  if (astray) return astray
  const ends = endsOf(journey, crossing)
  const device = deviceAt(crossing, ends)
  if (typeof device !== 'string') return device
  if (!ends) {
    const {link, next} = crossing
    journey.walker.note(
      `which addresses or ports its ${NAMES[link.tunnel.kind]} packets to ${next.name} have is not known; they are taken to get there`,
    )
    return {device, mark: FRESH.mark}
  }
  const carrier = carrierOf(inner, ends, crossing)
  const lost = send(journey, carrier, crossing)
  // WireGuard takes every mark off (wg_reset_packet)
  if (!lost) return {device, mark: crossing.link.tunnel.kind === 'wireguard' ? FRESH.mark : carrier.mark}
  return lost.outcome === 'dropped' && passesWhenKnown(journey, carrierOf(inner, ends, crossing), crossing)
    ? unknown(
        `${lost.reason}, unless connection tracking of ${crossing.next.name} knows the tunnel already, as it does while packets go the other way`,
      )
    : lost
}

const EVERYBODY = '00:00:00:00:00:00'
const isMulticast = (address: Address): boolean =>
  typeof address === 'number' ? address >>> 28 === 0xe : address >> 120n === 0xffn

/**
 * VXLAN sends a frame to the node that its forwarding table has for the next hop's hardware address; what agents of network
 * plugins write there, and in the table of neighbours, is all that it knows (drivers/net/vxlan/vxlan_core.c, vxlan_xmit).
 * Undefined: it gets to the next node, or the tables were not read.
 */
function sentAstray({walker}: Journey, {from, next, link, hop}: Crossing): End | undefined {
  const {state} = from
  const there = hop === undefined ? undefined : next.link(next.deviceOf(hop) ?? '')
  if (!link.tunnel.byTable || hop === undefined || there?.tunnel?.kind !== 'vxlan' || !state.knowsTunnelTables)
    return undefined
  const lost = (file: string, what: string): End => {
    walker.hop('end', what, {evidence: {source: state.path(file), line: 0, text: what}})
    return dropped('tunnel', `${from.name} sends it into ${link.name}, but ${what}`)
  }
  const own = state.bridgeFdb.filter(({device, remote}) => device === link.name && remote !== undefined)
  const isNext = ({remote}: BridgeEntry): boolean =>
    next.addresses.has(remote!) || next.hints.addresses.includes(remote!)
  // what it does not know goes to all of these
  const floods = own.some((entry) => entry.mac === EVERYBODY && (isNext(entry) || isMulticast(entry.remote!)))
  const mac = state.neighbours.find(({device, address}) => device === link.name && address === hop)?.mac
  const name = endpointText(hop, undefined)
  if (mac === undefined)
    return floods ? undefined : lost('ip-neigh.json', `${link.name} has no neighbour entry for ${name} (${next.name})`)
  const remotes = own.filter((entry) => entry.mac === mac)
  if (remotes.length === 0)
    return floods
      ? undefined
      : lost('bridge-fdb.json', `${link.name} has no forwarding entry for ${mac} (${next.name})`)
  if (!remotes.some(isNext))
    return lost(
      'bridge-fdb.json',
      `${link.name} sends ${mac} to ${endpointText(remotes[0]!.remote!, undefined)}, which is not ${next.name}`,
    )
  return there.mac === undefined || there.mac === mac
    ? undefined
    : lost('ip-neigh.json', `${link.name} has ${mac} for ${name}, and ${there.name} of ${next.name} is ${there.mac}`)
}

/** Tunnels in tunnels, up to this; more are a route that leads a tunnel's own packets into it (ip_tunnel_xmit: collisions). */
const MAX_NESTING = 3

/** Undefined: it gets there. */
function send(journey: Journey, carrier: Packet, {from, next, link}: Crossing): End | undefined {
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
 * Without ports both directions are one connection (nf_conntrack_proto_generic.c, nf_conntrack_proto_gre.c), and WireGuard has
 * one port for both: the node that drops what is new may have begun it itself.
 */
function passesWhenKnown(journey: Journey, carrier: Packet, crossing: Crossing): boolean {
  if (carrier.protocol === 'UDP' && crossing.link.tunnel.kind !== 'wireguard') return false
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

/** Addresses and port of the packet outside. */
interface Ends {
  readonly local: Address
  readonly remote: Address
  readonly port: number | undefined
}

/** The kernel takes the source that the route to the other end has, unless the device is bound to one. */
function endsOf({walker}: Journey, {from, next, link: {tunnel}, hop}: Crossing): Ends | undefined {
  const remote = remoteOf(next, tunnel, hop)
  const port = tunnel.kind === 'wireguard' ? wireguardPort(next) : tunnel.port
  if (remote === undefined || (tunnel.kind === 'wireguard' && port === undefined)) return undefined
  const route = from.router(familyOf(remote)).lookup(walker.chooser, {dst: remote, src: undefined, mark: 0, iif: 'lo'})
  const local =
    tunnel.local ??
    route.source ??
    from.sourceAddress(route.device, {dst: remote, hop: route.gateway ?? remote}) ??
    from.hints.addresses.find((own) => familyOf(own) === familyOf(remote))
  return local === undefined || familyOf(local) !== familyOf(remote) ? undefined : {local, remote, port}
}

function carrierOf(inner: Packet, {local, remote, port}: Ends, {link: {tunnel}}: Crossing): Packet {
  return {
    ...inner,
    ...FRESH,
    src: local,
    sport: port === undefined ? 0 : tunnel.kind === 'wireguard' ? port : EPHEMERAL,
    dst: remote,
    dport: port ?? 0,
    family: familyOf(local),
    protocol: PROTOCOLS[tunnel.kind],
    tcpFlags: [],
    about: undefined,
    outer: true,
    mark: tunnel.kind === 'wireguard' ? FRESH.mark : inner.mark,
  }
}

/**
 * WireGuard's port is in no dump of devices: the one socket that belongs to no process, if there is one only, and if the dump
 * tells processes at all (`ss -p` of root).
 */
function wireguardPort({sockets, state}: Machine): number | undefined {
  if (!sockets?.some(({process}) => process !== undefined)) return undefined
  const others = new Set(state.links.flatMap(({tunnel}) => tunnel?.port ?? []))
  const ports = sockets.filter(
    ({protocol, process, port}) => protocol === 'UDP' && process === undefined && !others.has(port),
  )
  const [port, ...more] = new Set(ports.map((socket) => socket.port))
  return more.length === 0 ? port : undefined
}

/**
 * The only other end of a point-to-point tunnel (of VXLAN `remote` is one of many); of IP-in-IP and GRE else the next hop, where
 * that is the node's own address on the wire; else what the API says.
 */
function remoteOf(next: Machine, {kind, local, remote}: Tunnel, hop: Address | undefined): Address | undefined {
  if (remote !== undefined && kind !== 'vxlan') return remote
  const device = hop === undefined ? undefined : next.deviceOf(hop)
  if ((kind === 'ipip' || kind === 'gre') && device !== undefined && !next.link(device)?.tunnel) return hop
  const family = local === undefined ? undefined : familyOf(local)
  const v4 = kind === 'ipip' || kind === 'gre' ? 4 : undefined
  return next.hints.addresses.find((own) => familyOf(own) === (family ?? v4 ?? familyOf(own)))
}

/**
 * The device that unwraps it there: one of the same kind whose ends fit (ip_tunnel_lookup); of several that take any other end
 * that of the next hop, then the one of the same name.
 */
function deviceAt({next, link, hop}: Crossing, ends: Ends | undefined): string | End {
  const own = hop === undefined ? undefined : next.deviceOf(hop)
  const {kind} = link.tunnel
  const same = next.state.links.filter(({tunnel}) => tunnel?.kind === kind)
  const fits = ({tunnel}: Link): boolean =>
    kind === 'vxlan' ||
    ends === undefined ||
    ((tunnel!.remote === undefined || tunnel!.remote === ends.local) &&
      (tunnel!.local === undefined || tunnel!.local === ends.remote))
  const fit = same.filter(fits)
  const bound = fit.filter(({tunnel}) => tunnel!.remote !== undefined && kind !== 'vxlan')
  const found =
    (bound.length === 1 ? bound[0] : undefined) ??
    fit.find(({name}) => name === own) ??
    fit.find(({name}) => name === link.name) ??
    (fit.length === 1 ? fit[0] : undefined)
  if (found && !found.up) return dropped('device', `device ${found.name} of ${next.name} is down`)
  if (found) return found.name
  return next.knowsLinks ? UNKNOWN_DEVICE : (own ?? UNKNOWN_DEVICE)
}
