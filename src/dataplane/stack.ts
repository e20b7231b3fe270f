import {formatAddress, isLoopback, type Address, type Family, type Range} from '../util/ip.js'
import {dropped, refused, unknown, type Result} from './arrival.js'
import {runHook, type HookOptions, type HookResult, type Tracking} from './hooks.js'
import {JourneyPart} from './journey-part.js'
import type {Machine} from './machine.js'
import type {ProxySocket} from './world.js'
import {endpointText} from './nat.js'
import {CLIENT, UNKNOWN_DEVICE, FRESH, isLoopbackParty, type Packet, type Party} from './packet.js'
import type {RouteResult} from './router.js'
import type {Emerged} from './tunnel.js'
import type {End, Hook} from './walker.js'

/** The IP stack of one node: how packets leave it, come in, are routed and forwarded. */
export class Stack extends JourneyPart implements HookOptions {
  /** Where a packet that IPVS took has got to. */
  private sent: Result | undefined
  /** The route of the packet that a node is just sending. */
  private route: RouteResult | undefined

  /** ip_queue_xmit: route, OUTPUT, route again if NAT or a mark changed it, POSTROUTING. `source`: a socket that is bound already. */
  send(machine: Machine, packet: Packet, source: Party | undefined): Result {
    this.enter(machine, packet)
    const hidden = this.hidden(machine, packet)
    if (hidden) return hidden
    const route = this.routeOut(machine, packet, source)
    if ('outcome' in route) return route
    if (source === undefined) {
      const own = this.sourceFor(machine, packet, route)
      if (own === undefined)
        return unknown(`nobody knows which address ${machine.name} sends from: its addresses are not in the snapshot`)
      packet.src = own
      if (!packet.reply) this.journey.clientAddress = own
    } else packet.src = source
    return this.output(machine, packet, route)
  }

  /** OUTPUT, where the route may change, and on (ip_local_out, ip_output). */
  output(machine: Machine, packet: Packet, route: RouteResult): Result {
    packet.iif = ''
    packet.oif = outDevice(route)
    this.route = route
    return this.hook('OUTPUT') ?? this.leave(machine, packet, this.route)
  }

  /** Another look at the routes in the middle of OUTPUT; what it says counts from there on. */
  reroute(): End | undefined {
    const {machine, packet} = this.walker
    const again = this.routeOut(machine, packet, packet.src)
    if ('outcome' in again) return again.outcome === 'refused' ? dropped('route', again.reason) : again
    if (
      isLoopbackParty(packet.src) &&
      again.type !== 'local' &&
      packet.family === 4 &&
      !machine.routesLoopback(again.device)
    ) {
      return dropped(
        'loopback',
        `${machine.name} does not let 127.0.0.0/8 out by ${again.device}: route_localnet is not set`,
      )
    }
    if (this.route?.device !== again.device || this.route.gateway !== again.gateway)
      this.walker.hop('route', again.text)
    this.route = again
    return undefined
  }

  private routeOut(machine: Machine, packet: Packet, source: Party | undefined): RouteResult | End {
    const route = machine
      .router(packet.family)
      .lookup(this.walker.chooser, {dst: packet.dst, src: source, mark: packet.mark, iif: 'lo'})
    return this.routeEnd(machine, packet, route) ?? route
  }

  /** What a route without a way out does to a packet that the node itself sends. */
  routeEnd(machine: Machine, {dst}: Packet, route: RouteResult): End | undefined {
    if (route.type === 'unicast' || route.type === 'local') return undefined
    const text = `${machine.name} → ${endpointText(dst, undefined)}: ${route.text}`
    if (route.type === 'none') return refused('route', `${text} (network unreachable)`)
    if (route.type === 'unreachable' || route.type === 'prohibit') return refused('route', text)
    if (route.type === 'blackhole') return dropped('route', text)
    if (route.type === 'unread') return unknown(text)
    if (route.type === 'multicast' || route.type === 'broadcast')
      return unknown(`${text}: a ${route.type} destination is not modelled`)
    return undefined
  }

  private sourceFor(machine: Machine, {dst, family}: Packet, route: RouteResult): Address | undefined {
    if (route.source !== undefined) return route.source
    if (dst === CLIENT) {
      // on the wire itself: connected routes of IPv6 name no source
      if (route.gateway === undefined) return machine.deviceAddress(route.device, family)
      return machine.sourceAddress(route.device, {dst: route.gateway, hop: route.gateway})
    }
    if (route.type === 'local') return isLoopback(dst) ? (family === 4 ? 0x7f000001 : 1n) : dst
    return machine.sourceAddress(route.device, {dst, hop: route.gateway ?? dst})
  }

  enter(machine: Machine, packet: Packet): void {
    this.walker.machine = machine
    this.walker.packet = packet
    this.walker.hook = ''
  }

  receive(machine: Machine, packet: Packet, device: string): Result {
    return this.comeIn(machine, packet, {device, mark: FRESH.mark})
  }

  /** A packet out of a tunnel may have a mark already. */
  comeIn(machine: Machine, packet: Packet, {device, mark}: Emerged): Result {
    const loop = this.arriveAt(machine, packet, device)
    if (loop) return loop
    packet.mark = mark
    if (this.walker.steps)
      this.walker.hop(
        'enter',
        `${packet.reply ? 'the answer' : 'the packet'} comes in by ${device === UNKNOWN_DEVICE ? 'a device that no dump names' : device}`,
      )
    const hidden = this.hidden(machine, packet)
    if (hidden) return hidden
    const hook = this.hook('PREROUTING')
    if (hook) return hook
    return this.routeIn(machine, packet)
  }

  /** A new node: marks and connections do not travel between nodes. */
  arriveAt(machine: Machine, packet: Packet, device: string): End | undefined {
    if (++this.journey.visits > MAX_NODES)
      return dropped('loop', `the packet goes round in circles between the nodes (last at ${machine.name})`)
    this.enter(machine, packet)
    Object.assign(packet, FRESH, {iif: device})
    return undefined
  }

  /** Rules that could not be read may do anything. */
  hidden(machine: Machine, packet: Packet): End | undefined {
    for (const gap of machine.gaps(packet.family)) {
      if (gap.state === 'never-asked') this.walker.note(gap.what)
      else if (
        !this.walker.assume(`gap:${gap.key}`, [
          `if nothing hidden acts on it at ${machine.name} (${gap.what})`,
          `if something hidden acts on it at ${machine.name} (${gap.what})`,
        ])
      ) {
        return unknown(`${machine.name}: ${gap.what}`)
      }
    }
    return undefined
  }

  /** ip_route_input_slow and what follows from it. */
  routeIn(machine: Machine, packet: Packet): Result {
    if (packet.iif === 'lo') return this.localIn(machine, packet)
    const route = machine
      .router(packet.family)
      .lookup(this.walker.chooser, {dst: packet.dst, src: packet.src, mark: packet.mark, iif: packet.iif})
    const martian = this.martian(machine, packet, route)
    if (martian) return martian
    if (route.type === 'local') return this.localIn(machine, packet)
    return this.forward(machine, packet, route)
  }

  /** Addresses that may not come in by a wire (ip_route_input_slow, fib_validate_source; ip6_rcv_core). */
  private martian(machine: Machine, packet: Packet, route: RouteResult): End | undefined {
    const {src, dst, iif, family} = packet
    if ((isLoopbackParty(dst) || isLoopbackParty(src)) && (family === 6 || !this.takesLoopback(machine, packet))) {
      return dropped(
        'loopback',
        `${machine.name} drops a loopback address that comes in by ${iif}${family === 4 ? ' (route_localnet is not set)' : ''}`,
      )
    }
    if (NO_SOURCE[family].some((range) => this.walker.inside(src, range)))
      return dropped('martian', `${machine.name} drops a packet whose source is no host's address (a martian)`)
    if (family === 6 || iif === UNKNOWN_DEVICE) return undefined
    if (src !== CLIENT && machine.addresses.has(src) && machine.deviceSysctl(4, iif, 'accept_local') !== 1) {
      return dropped(
        'martian',
        `${machine.name} drops a packet from outside with its own address ${formatAddress(src)} as source (a martian)`,
      )
    }
    return route.type === 'none' ? undefined : this.reversePath(machine, packet)
  }

  /** An answer comes to 127.0.0.1 where its request left from there; else nobody knows without the sysctl. */
  private takesLoopback(machine: Machine, {iif, reply}: Packet): boolean {
    if (machine.deviceSysctl(4, iif, 'route_localnet') === 1) return true
    if (!machine.routesLoopback(iif)) return false
    return (
      reply ||
      this.walker.assume(`route_localnet:${iif}`, [
        `if route_localnet is set for ${iif} of ${machine.name}, which nobody asked for`,
        `if route_localnet is not set for ${iif} of ${machine.name}, which nobody asked for`,
      ])
    )
  }

  private reversePath(machine: Machine, packet: Packet): End | undefined {
    const filter = machine.deviceSysctl(4, packet.iif, 'rp_filter') ?? 0
    if (filter === 0) return undefined
    const useMark = machine.deviceSysctl(4, packet.iif, 'src_valid_mark') === 1
    const back = machine.router(4).lookup(this.walker.chooser, {
      dst: packet.src,
      src: packet.dst,
      mark: useMark ? packet.mark : 0,
      iif: 'lo',
      via: packet.iif,
    })
    if (back.assumed || (back.type === 'unicast' && (filter === 2 || back.device === packet.iif))) return undefined
    return dropped(
      'reverse-path',
      `rp_filter=${filter} on ${packet.iif} of ${machine.name}: ${endpointText(packet.src, undefined)} is reached by ${back.device || back.text}, not by ${packet.iif}`,
    )
  }

  private forward(machine: Machine, packet: Packet, route: RouteResult): Result {
    if (machine.forwards(packet.family, packet.iif) === false) return this.notForwarded(machine, packet)
    const end = this.routeEnd(machine, packet, route)
    if (end) return end.outcome === 'refused' ? {...end, notice: 'icmp'} : end
    packet.oif = outDevice(route)
    this.walker.hop('route', route.text)
    return this.hook('FORWARD') ?? this.leave(machine, packet, route)
  }

  notForwarded(machine: Machine, packet: Packet): End {
    const name = machine.forwardingSysctl(packet.family, packet.iif)
    this.walker.hop('end', `${machine.name} does not forward`, {evidence: machine.sysctlEvidence(name)})
    return dropped(
      'not-forwarded',
      `${machine.name} does not forward packets that come in by ${packet.iif}: ${name} is 0`,
    )
  }

  /** POSTROUTING and out. */
  private leave(machine: Machine, packet: Packet, route: RouteResult): Result {
    packet.oif = outDevice(route)
    const hook = this.hook('POSTROUTING')
    if (hook) return hook
    if (packet.oif === 'lo') return this.loop(machine, packet)
    return this.journey.wire.transmit(machine, packet, route)
  }

  /** Through `lo` back into the same node; the connection stays the packet's own. */
  private loop(machine: Machine, packet: Packet): Result {
    if (machine.link('lo')?.up === false) return dropped('device', `device lo of ${machine.name} is down`)
    packet.iif = 'lo'
    packet.oif = ''
    return this.hook('PREROUTING') ?? this.localIn(machine, packet)
  }

  private localIn(machine: Machine, packet: Packet): Result {
    packet.oif = ''
    const hook = this.hook('INPUT')
    if (hook) return hook
    if (packet.reply || packet.outer) return {kind: 'socket', machine, listening: true}
    return this.socket(machine, packet)
  }

  /** Who listens on the address? (inet_lookup_listener) */
  private socket(machine: Machine, packet: Packet): Result {
    const {sockets} = machine
    if (sockets === undefined) {
      const section = machine.state.section('ss.txt')
      const owner = this.world.facts.socketPod(machine.name, packet.dst as Address, packet.dport)
      if (section.state === 'unreadable')
        return unknown(`nobody knows what listens on ${machine.name}: ${section.reason ?? 'ss could not be read'}`)
      this.walker.note('sockets were not asked for (ss.txt is not in the snapshot)')
      const proxy = owner === undefined ? this.proxy(machine, packet, undefined) : undefined
      if (proxy?.kind === 'balances') return {kind: 'socket', machine, listening: true, proxy}
      // who translates means somebody there; to a port of the node itself nobody needs to listen
      if (owner === undefined && (packet.connection?.dnat || packet.ipvs))
        return unknown(
          `nobody knows what listens on ${endpointText(packet.dst, packet.dport)}: ss.txt is not in the snapshot`,
        )
      return {kind: 'socket', machine, listening: owner !== undefined}
    }
    const found = sockets.find(
      ({protocol, port, address, families}) =>
        protocol === packet.protocol &&
        port === packet.dport &&
        (address === undefined ? families.includes(packet.family) : address === packet.dst),
    )
    const text = endpointText(packet.dst, packet.dport)
    if (found)
      this.walker.hop('arrive', `${found.process ?? 'a process'} listens on ${text}`, {
        evidence: {source: machine.state.path('ss.txt'), line: found.line, text: found.text},
      })
    else {
      const damage = machine.hiddenSocket(packet.protocol)
      if (damage) return unknown(`nobody knows whether anything listens on ${text}: ${damage}`)
      this.walker.hop('arrive', `nothing listens on ${text}`)
    }
    const proxy = found && this.proxy(machine, packet, found.process)
    return {kind: 'socket', machine, listening: found !== undefined, ...(proxy ? {proxy} : {})}
  }

  private proxy(
    machine: Machine,
    {protocol, dport, family}: Packet,
    process: string | undefined,
  ): ProxySocket | undefined {
    return protocol === 'ICMP' || protocol === 'IPENCAP' || protocol === 'GRE'
      ? undefined
      : this.world.facts.proxySocket(machine.name, {protocol, port: dport, family, process})
  }

  hook(name: Hook): Result | undefined {
    const result = runHook(this.walker, name, this)
    this.walker.hook = ''
    return result === 'stolen' ? this.sent : result
  }

  get tracking(): Tracking {
    return this.journey.tracking
  }

  get known(): HookOptions['known'] {
    const {sourcePort, protocol} = this.journey.flow
    return sourcePort === undefined ? undefined : {sourcePort, protocol}
  }

  ipvsAnswer(): End | undefined {
    const {machine, packet} = this.walker
    const server = machine.virtualServer(packet)
    return server && unknown(`the answer meets virtual server ${server.text}, which may take it for a new connection`)
  }

  ipvsRequest(): HookResult {
    const result = this.journey.ipvs.request(this.walker.packet)
    if (result === undefined || 'outcome' in result) return result
    this.sent = result
    return 'stolen'
  }
}

/** Multicast, limited broadcast, «this host»: never a source (ip_route_input_slow, ip6_rcv_core). */
const NO_SOURCE: Readonly<Record<Family, readonly Range[]>> = {
  4: [
    {lo: 0xe0000000, hi: 0xefffffff},
    {lo: 0xffffffff, hi: 0xffffffff},
    {lo: 0, hi: 0},
  ],
  6: [{lo: 0xffn << 120n, hi: (1n << 128n) - 1n}],
}

/** No sane way is longer; a longer one is a loop. */
const MAX_NODES = 12

/** Packets to the node itself leave by `lo`, whatever device holds the address. */
export const outDevice = (route: RouteResult): string => (route.type === 'local' ? 'lo' : route.device)
