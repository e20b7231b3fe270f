import type {VirtualServer} from '../parse/ipvs.js'
import type {Cause, Flow, Receiver} from '../model/trace.js'
import {
  familyOf,
  formatAddress,
  inRange,
  isLoopback,
  prefixRange,
  type Address,
  type Family,
  type Range,
} from '../util/ip.js'
import {runHook, Tracking, untrack, type HookOptions} from './hooks.js'
import type {Machine} from './machine.js'
import {endpointText} from './nat.js'
import {CLIENT, EPHEMERAL, UNKNOWN_DEVICE, type Packet, type Party, type Tuple} from './packet.js'
import type {RouteResult} from './router.js'
import type {End, Walker} from './walker.js'
import type {PodPlace, World} from './world.js'

/** The packet reached somebody: a pod, a process of a node, or a host outside. */
interface Arrival {
  readonly kind: 'pod' | 'socket' | 'external'
  readonly machine: Machine
  readonly pod?: PodPlace
  /** For a socket: does anybody listen? */
  readonly listening: boolean
}

type Result = Arrival | End

/** The bridge that a packet is on, and the pod whose port it came in by. */
interface BridgeWay {
  readonly device: string
  readonly pod: PodPlace
}
const isArrival = (result: Result): result is Arrival => 'kind' in result

/** No sane way is longer; a longer one is a loop. */
const MAX_NODES = 12

const dropped = (cause: Cause, reason: string): End => ({outcome: 'dropped', cause, reason})
const refused = (cause: Cause, reason: string): End => ({outcome: 'refused', cause, reason})
const unknown = (reason: string): End => ({outcome: 'unknown', cause: 'unknown', reason})

/** One packet's way there and its answer's way back, through every node on it. */
export class Journey {
  private readonly world: World
  private readonly flow: Flow
  private readonly walker: Walker
  private readonly tracking = new Tracking()
  private visits = 0
  /** The address that the client's packet left with. */
  private clientAddress: Party = CLIENT
  /** A frame went from pod to pod without iptables and conntrack. */
  private pastConntrack = false
  /** The route of the packet that a node is just sending. */
  private route: RouteResult | undefined
  source: Party | undefined

  constructor(world: World, flow: Flow, walker: Walker) {
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
    return {outcome: 'delivered', cause: 'delivered', reason: `delivered to ${receiverText(receiver)}`, receiver}
  }

  private newPacket(
    tuple: Tuple & Pick<Packet, 'reply'> & Partial<Pick<Packet, 'about' | 'protocol' | 'tcpFlags'>>,
  ): Packet {
    return {
      about: undefined,
      tcpFlags: tuple.reply ? ['SYN', 'ACK'] : ['SYN'],
      family: familyOf(this.flow.destination),
      protocol: this.flow.protocol,
      ...tuple,
      mark: 0,
      iif: '',
      oif: '',
      physin: '',
      physout: '',
      state: 'INVALID',
      connection: undefined,
      replyDirection: false,
      ipvs: undefined,
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

  // ---- where packets begin

  private depart(packet: Packet): Result {
    const {origin} = this.flow
    if (origin.kind === 'external') return this.fromOutside(packet, origin)
    if (origin.kind === 'node') {
      const machine = this.world.machines.get(origin.node)
      return machine ? this.send(machine, packet, undefined) : unknown(`node ${origin.node} is not in the snapshot`)
    }
    const pod = this.world.pod(origin.pod)
    if (!pod) return unknown(`pod ${origin.pod} is not in the snapshot`)
    const machine = this.world.machines.get(pod.node)
    if (!machine) return unknown(`node ${pod.node}, where pod ${pod.id} runs, was not read`)
    if (pod.hostNetwork) return this.send(machine, packet, undefined)
    const address = pod.addresses.find((candidate) => familyOf(candidate) === packet.family)
    if (address === undefined) return refused('no-address', `pod ${pod.id} has no IPv${packet.family} address`)
    this.clientAddress = packet.src = address
    return this.fromPod(machine, pod, packet)
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
    return this.receive(machine, packet, back.type === 'unicast' && back.device !== '' ? back.device : UNKNOWN_DEVICE)
  }

  // ---- a node's own packets

  /** ip_queue_xmit: route, OUTPUT, route again if NAT or a mark changed it, POSTROUTING. `source`: a socket that is bound already. */
  private send(machine: Machine, packet: Packet, source: Party | undefined): Result {
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
      if (!packet.reply) this.clientAddress = own
    } else packet.src = source
    packet.iif = ''
    packet.oif = outDevice(route)
    this.route = route
    return this.hook('OUTPUT', packet) ?? this.leave(machine, packet, this.route)
  }

  /** Another look at the routes in the middle of OUTPUT; what it says counts from there on. */
  private reroute(): End | undefined {
    const {machine, packet} = this.walker
    const again = this.routeOut(machine, packet, packet.src)
    if ('outcome' in again) return again.outcome === 'refused' ? dropped('route', again.reason) : again
    if (
      isLoopbackParty(packet.src) &&
      again.type !== 'local' &&
      packet.family === 4 &&
      machine.deviceSysctl(4, again.device, 'route_localnet') !== 1
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
  private routeEnd(machine: Machine, {dst}: Packet, route: RouteResult): End | undefined {
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
    if (dst === CLIENT) return undefined
    if (route.type === 'local') return isLoopback(dst) ? (family === 4 ? 0x7f000001 : 1n) : dst
    return machine.sourceAddress(route.device, family, route.gateway ?? dst)
  }

  // ---- packets that come in

  private enter(machine: Machine, packet: Packet): void {
    this.walker.machine = machine
    this.walker.packet = packet
    this.walker.hook = ''
  }

  private receive(machine: Machine, packet: Packet, device: string): Result {
    if (++this.visits > MAX_NODES)
      return dropped('loop', `the packet goes round in circles between the nodes (last at ${machine.name})`)
    this.arriveAt(machine, packet, device)
    this.walker.hop(
      'enter',
      `${packet.reply ? 'the answer' : 'the packet'} comes in by ${device === UNKNOWN_DEVICE ? 'a device that no dump names' : device}`,
    )
    const hidden = this.hidden(machine, packet)
    if (hidden) return hidden
    const hook = this.hook('PREROUTING', packet)
    if (hook) return hook
    return this.routeIn(machine, packet)
  }

  /** A new node: marks and connections do not travel between nodes. */
  private arriveAt(machine: Machine, packet: Packet, device: string): void {
    this.enter(machine, packet)
    Object.assign(packet, {
      mark: 0,
      iif: device,
      oif: '',
      physin: '',
      physout: '',
      state: 'INVALID',
      connection: undefined,
      replyDirection: false,
      ipvs: undefined,
    })
  }

  /** Rules that could not be read may do anything. */
  private hidden(machine: Machine, packet: Packet): End | undefined {
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
  private routeIn(machine: Machine, packet: Packet): Result {
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
    if (
      (isLoopbackParty(dst) || isLoopbackParty(src)) &&
      (family === 6 || machine.deviceSysctl(4, iif, 'route_localnet') !== 1)
    ) {
      return dropped(
        'loopback',
        `${machine.name} drops a loopback address that comes in by ${iif}${family === 4 ? ' (route_localnet is not set)' : ''}`,
      )
    }
    if (NO_SOURCE[family].some((range) => this.walker.inside(src, range)))
      return dropped('martian', `${machine.name} drops a packet whose source is no host's address (a martian)`)
    if (family === 6 || src === CLIENT || iif === UNKNOWN_DEVICE) return undefined
    if (machine.addresses.has(src) && machine.deviceSysctl(4, iif, 'accept_local') !== 1) {
      return dropped(
        'martian',
        `${machine.name} drops a packet from outside with its own address ${formatAddress(src)} as source (a martian)`,
      )
    }
    return route.type === 'none' ? undefined : this.reversePath(machine, packet)
  }

  private reversePath(machine: Machine, packet: Packet): End | undefined {
    const filter = machine.deviceSysctl(4, packet.iif, 'rp_filter') ?? 0
    if (filter === 0) return undefined
    const useMark = machine.deviceSysctl(4, packet.iif, 'src_valid_mark') === 1
    const back = machine
      .router(4)
      .lookup(this.walker.chooser, {
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
    return this.hook('FORWARD', packet) ?? this.leave(machine, packet, route)
  }

  private notForwarded(machine: Machine, packet: Packet): End {
    const name = packet.family === 4 ? 'net.ipv4.ip_forward' : 'net.ipv6.conf.all.forwarding'
    this.walker.hop('end', `${machine.name} does not forward`, {evidence: machine.sysctlEvidence(name)})
    return dropped(
      'not-forwarded',
      `${machine.name} does not forward packets that come in by ${packet.iif}: ${name} is 0`,
    )
  }

  /** POSTROUTING and out. */
  private leave(machine: Machine, packet: Packet, route: RouteResult): Result {
    packet.oif = outDevice(route)
    const hook = this.hook('POSTROUTING', packet)
    if (hook) return hook
    if (packet.oif === 'lo') return this.loop(machine, packet)
    return this.transmit(machine, packet, route)
  }

  /** Through `lo` back into the same node; the connection stays the packet's own. */
  private loop(machine: Machine, packet: Packet): Result {
    packet.iif = 'lo'
    packet.oif = ''
    return this.hook('PREROUTING', packet) ?? this.localIn(machine, packet)
  }

  private localIn(machine: Machine, packet: Packet): Result {
    packet.oif = ''
    const hook = this.hook('INPUT', packet)
    if (hook) return hook
    if (packet.reply) return {kind: 'socket', machine, listening: true}
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
    else this.walker.hop('arrive', `nothing listens on ${text}`)
    return {kind: 'socket', machine, listening: found !== undefined}
  }

  private hook(
    name: 'PREROUTING' | 'INPUT' | 'FORWARD' | 'OUTPUT' | 'POSTROUTING',
    packet: Packet,
  ): Result | undefined {
    let sent: Result | undefined
    const options: HookOptions = {
      tracking: this.tracking,
      reroute: () => this.reroute(),
      ipvsAnswer: () => {
        const server = this.walker.machine.virtualServer(packet)
        return (
          server && unknown(`the answer meets virtual server ${server.text}, which may take it for a new connection`)
        )
      },
      ipvsRequest: () => {
        const result = this.ipvs(packet)
        if (result === undefined || 'outcome' in result) return result
        sent = result
        return 'stolen'
      },
      ...(this.flow.sourcePort === undefined
        ? {}
        : {known: {sourcePort: this.flow.sourcePort, protocol: this.flow.protocol}}),
    }
    const result = runHook(this.walker, name, options)
    this.walker.hook = ''
    return result === 'stolen' ? sent : result
  }

  // ---- IPVS

  /** ip_vs_in: a virtual server takes the packet and sends it to a real server. */
  private ipvs(packet: Packet): Result | undefined {
    const {machine} = this.walker
    const server = machine.virtualServer(packet)
    if (!server) return machine.ipvsPartial ? this.ipvsMissing(machine, packet) : undefined
    this.walker.hop('ipvs', server.text, {
      where: 'ipvs',
      evidence: {source: server.file, line: server.line, text: server.text},
    })
    if (server.damaged) return unknown(`a real server of ${server.text} on ${machine.name} is not understood`)
    const nobody = (why: string): End => ({
      ...refused('no-real-server', `virtual server ${server.text} on ${machine.name} has ${why}`),
      notice: 'icmp',
    })
    if (server.realServers.every(({weight}) => weight <= 0))
      return nobody(`no real server${server.realServers.length > 0 ? ' with a weight above 0' : ''}`)
    const choices = candidates(server)
    const {real} = choices[this.walker.chooser.random(choices.map(({share}) => share))]!
    if (real.weight <= 0) return nobody(`given ${real.text} (weight 0) its part of the clients, and refuses them`)
    this.walker.hop('ipvs', real.text, {
      where: 'ipvs',
      evidence: {source: server.file, line: real.line, text: real.text},
    })
    if (packet.iif === 'lo' && packet.connection && machine.sysctl('net.ipv4.vs.conntrack') !== 0)
      return unknown(
        `IPVS takes a connection of ${machine.name} that conntrack has confirmed by way of lo: its answer may clash with it`,
      )
    if (real.forward === 'Tunnel' || real.forward === 'Route')
      return unknown(`IPVS forwarding method ${real.forward} on ${machine.name} is not modelled`)
    const client = {address: packet.src, port: packet.sport}
    packet.ipvs = {
      client,
      virtual: {address: packet.dst as Address, port: packet.dport, text: server.text},
      real: {address: real.address, port: real.port || packet.dport},
    }
    this.tracking.ipvsOf(machine).push(packet.ipvs)
    return this.ipvsSend(machine, packet)
  }

  private ipvsMissing(machine: Machine, packet: Packet): End | undefined {
    const what = `a virtual server for ${endpointText(packet.dst, packet.dport)}, which the partial listing of ${machine.name} does not show`
    return this.walker.assume(`ipvs:${packet.dst}:${packet.dport}`, [`if there is not ${what}`, `if there is ${what}`])
      ? undefined
      : unknown(`there may be ${what}`)
  }

  /** ip_vs_nat_xmit: a local real server stays here; any other gets the packet through OUTPUT and POSTROUTING. */
  private ipvsSend(machine: Machine, packet: Packet): Result | undefined {
    const {real} = packet.ipvs!
    const route = machine
      .router(packet.family)
      .lookup(this.walker.chooser, {dst: real.address, src: undefined, mark: packet.mark, iif: 'lo'})
    if (route.type !== 'local' && isLoopbackParty(packet.src))
      return dropped('loopback', `IPVS on ${machine.name} sends nothing from 127.0.0.0/8 to another host`)
    packet.dst = real.address
    packet.dport = real.port
    if (machine.sysctl('net.ipv4.vs.conntrack') === 0) untrack(packet)
    else if (packet.connection) {
      packet.connection.reply.src = real.address
      packet.connection.reply.sport = real.port
    }
    if (route.type === 'local') return undefined
    const end = this.routeEnd(machine, packet, route)
    if (end) return end
    packet.iif = ''
    packet.oif = outDevice(route)
    this.route = route
    return this.hook('OUTPUT', packet) ?? this.leave(machine, packet, this.route)
  }

  // ---- between machines

  private transmit(machine: Machine, packet: Packet, route: RouteResult): Result {
    const link = machine.link(route.device)
    if (!link && route.device !== UNKNOWN_DEVICE && route.device !== '' && machine.knowsLinks)
      return unknown(`a route of ${machine.name} leaves by device ${route.device}, which is not among its devices`)
    if (link && !link.up) return dropped('device', `device ${route.device} of ${machine.name} is down`)
    const hop: Party = route.gateway ?? packet.dst
    if (packet.dst === CLIENT) return this.outside(machine)
    if (hop === CLIENT) return this.outside(machine)
    const pod = this.world.podAt(packet.dst)
    if (pod?.node === machine.name && route.gateway === undefined) return this.toPod(machine, pod, packet)
    const next = this.world.machineAt(hop)
    if (next && next !== machine) return this.receive(next, packet, next.deviceOf(hop) ?? UNKNOWN_DEVICE)
    const unread = this.world.facts.unread.get(hop)
    if (unread !== undefined) return unknown(`the packet goes on at node ${unread}, which was not read`)
    if (route.gateway === undefined && !route.assumed) return this.onLink(machine, packet, route)
    return this.beyond(machine, packet, route)
  }

  private outside(machine: Machine): Arrival {
    return {kind: 'external', machine, listening: true}
  }

  /** The destination should answer on the wire itself. */
  private onLink(machine: Machine, packet: Packet, {device}: RouteResult): Result {
    const dst = packet.dst as Address
    const pod = this.world.podAt(dst)
    const podDevice = machine.isBridge(device) || machine.link(device)?.kind === 'veth'
    if (pod && !podDevice) return this.toOtherNode(packet, pod)
    if (this.isOutside(dst)) return this.outside(machine)
    if (this.world.isVirtual(dst)) return this.virtualLost(machine, dst)
    if (podDevice || this.world.rangeOwner(dst) === machine.name)
      return dropped(
        'nobody',
        `nobody has the address ${formatAddress(dst)}: ${machine.name} sends it to ${device}, and no pod there answers`,
      )
    return unknown(`${formatAddress(dst)}, reached by ${device} of ${machine.name}, is in no part of the snapshot`)
  }

  private isOutside(address: Address): boolean {
    return this.world.facts.externals.has(address) || address === this.clientAddress
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
    if (other && other !== machine) return this.receive(other, packet, other.deviceOf(dst) ?? UNKNOWN_DEVICE)
    if (this.isOutside(dst)) return this.outside(machine)
    if (this.world.isVirtual(dst)) return this.virtualLost(machine, dst)
    if (this.world.rangeOwner(dst) !== undefined)
      return dropped(
        'nobody',
        `nobody has the address ${formatAddress(dst)}; it leaves ${machine.name} by ${route.text}`,
      )
    return unknown(
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
    return this.toOtherNode(packet, pod)
  }

  private toOtherNode(packet: Packet, pod: PodPlace): Result {
    const other = this.world.machines.get(pod.node)
    if (!other) return unknown(`node ${pod.node}, where pod ${pod.id} runs, was not read`)
    const own = other.hints.addresses.find((address) => familyOf(address) === packet.family)
    return this.receive(other, packet, (own === undefined ? undefined : other.deviceOf(own)) ?? UNKNOWN_DEVICE)
  }

  // ---- pods

  private toPod(machine: Machine, pod: PodPlace, packet: Packet): Result {
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
    this.walker.hop('arrive', `pod ${pod.id} gets it from ${endpointText(packet.src, undefined)}`)
    return {kind: 'pod', machine, pod, listening: true}
  }

  /** From a pod's own network into its node: routed, or by a bridge. */
  private fromPod(machine: Machine, pod: PodPlace, packet: Packet): Result {
    const own = packet.src as Address
    if (packet.dst === own) return this.toSelf(machine, pod, packet)
    const device = machine.router(packet.family).onLinkDevice(own) ?? UNKNOWN_DEVICE
    if (!machine.isBridge(device)) return this.receive(machine, packet, device)
    const near =
      packet.dst !== CLIENT &&
      this.sameSegment(machine, {device, own, other: packet.dst}) &&
      !machine.addresses.has(packet.dst)
    return near ? this.bridged(machine, packet, {device, pod}) : this.viaBridge(machine, packet, {device, pod})
  }

  private toSelf(machine: Machine, pod: PodPlace, packet: Packet): Result {
    if (packet.reply && packet.dst !== this.flow.destination)
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

  /** A frame for the bridge itself. With br_netfilter PREROUTING runs first, and a translated packet may stay on the bridge. */
  private viaBridge(machine: Machine, packet: Packet, {device, pod}: BridgeWay): Result {
    if (!machine.bridgeCallsIptables(packet.family)) return this.receive(machine, packet, device)
    const before = packet.dst
    const stopped = this.bridgePrerouting(machine, packet, device)
    if (stopped) return stopped
    if (packet.dst === before || packet.dst === CLIENT) return this.routeIn(machine, packet)
    const route = machine
      .router(packet.family)
      .lookup(this.walker.chooser, {dst: packet.dst, src: packet.src, mark: packet.mark, iif: device})
    return route.type === 'unicast' && route.device === device
      ? this.bridgeForward(machine, packet, {device, pod, translated: true})
      : this.routeIn(machine, packet)
  }

  /** A frame from one pod to another on the same bridge. */
  private bridged(machine: Machine, packet: Packet, {device, pod}: BridgeWay): Result {
    this.enter(machine, packet)
    if (!machine.bridgeCallsIptables(packet.family)) {
      this.pastConntrack = true
      this.walker.hop(
        'route',
        `bridged on ${device} of ${machine.name}, past iptables and conntrack (bridge-nf-call-iptables is not 1)`,
      )
      return this.bridgeDeliver(machine, packet, {device, pod})
    }
    const before = packet.dst
    const stopped = this.bridgePrerouting(machine, packet, device)
    if (stopped) return stopped
    if (packet.dst === before) return this.bridgeForward(machine, packet, {device, pod, translated: false})
    const route = machine
      .router(packet.family)
      .lookup(this.walker.chooser, {dst: packet.dst, src: packet.src, mark: packet.mark, iif: device})
    return route.type === 'unicast' && route.device === device
      ? this.bridgeForward(machine, packet, {device, pod, translated: true})
      : this.routeIn(machine, packet)
  }

  private bridgePrerouting(machine: Machine, packet: Packet, device: string): Result | undefined {
    if (++this.visits > MAX_NODES)
      return dropped('loop', `the packet goes round in circles between the nodes (last at ${machine.name})`)
    this.arriveAt(machine, packet, device)
    packet.physin = UNKNOWN_DEVICE
    this.walker.hop('enter', `${packet.reply ? 'the answer' : 'the packet'} comes in by a port of ${device}`)
    return this.hidden(machine, packet) ?? this.hook('PREROUTING', packet)
  }

  /**
   * On the bridge FORWARD and POSTROUTING see it. A plain frame needs no ip_forward; a translated one is routed first,
   * and that lookup fails without it (br_nf_pre_routing_finish).
   */
  private bridgeForward(
    machine: Machine,
    packet: Packet,
    {device, pod, translated}: BridgeWay & {translated: boolean},
  ): Result {
    if (translated && machine.forwards(packet.family, device) === false) return this.notForwarded(machine, packet)
    packet.oif = device
    packet.physout = UNKNOWN_DEVICE
    this.walker.hop('route', `stays on bridge ${device}`)
    return (
      this.hook('FORWARD', packet) ??
      this.hook('POSTROUTING', packet) ??
      this.bridgeDeliver(machine, packet, {device, pod})
    )
  }

  private bridgeDeliver(machine: Machine, packet: Packet, {device, pod}: BridgeWay): Result {
    this.enter(machine, packet)
    const target = this.world.podAt(packet.dst as Address)
    if (!target || target.node !== machine.name)
      return dropped(
        'nobody',
        `nobody has the address ${endpointText(packet.dst, undefined)} on bridge ${device} of ${machine.name}`,
      )
    const ports = machine.state.links.filter(({master}) => master === device)
    if (target === pod && ports.length > 0 && ports.every(({hairpin}) => hairpin === false))
      return dropped(
        'hairpin-mode',
        `bridge ${device} of ${machine.name} does not send a frame back by the port it came from (hairpin mode is off)`,
      )
    return this.toPod(machine, target, packet)
  }

  // ---- the answer

  /** Sends the answer back; undefined when the client gets it, else why it is lost. */
  private answer(arrival: Arrival, request: Packet): End | undefined {
    const tuple = answerTo(request)
    if (!arrival.listening && request.protocol === 'UDP')
      return this.noticeBack(arrival.machine, request, {notice: 'icmp', attached: false})
    const reply = this.newPacket({...tuple, reply: true, ...(arrival.listening ? {} : {tcpFlags: RESET})})
    this.enter(arrival.machine, reply)
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
    const direct = notice === 'tcp reset' && request.physin !== ''
    const lost = direct ? this.resetByPort(request) : this.noticeBack(machine, request, {notice, attached: true})
    if (!lost) return {outcome: end.outcome, reason: end.reason, ...(end.cause ? {cause: end.cause} : {})}
    return lost.outcome === 'unknown'
      ? lost
      : dropped(end.cause ?? 'rule', `${end.reason}, but the client does not hear of it: ${lost.reason}`)
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
    this.enter(machine, packet)
    this.walker.hop('reply', `${icmp ? 'an ICMP error' : 'a reset'} starts to ${endpointText(packet.dst, undefined)}`)
    const local = machine.router(packet.family).isLocal(this.walker.chooser, request.dst)
    const back = this.send(machine, packet, icmp && !local ? undefined : request.dst)
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
    if (arrival.kind === 'pod') return this.fromPod(arrival.machine, arrival.pod!, reply)
    if (arrival.kind === 'socket') return this.send(arrival.machine, reply, reply.src)
    return this.answerFromOutside(arrival, reply)
  }

  private answerFromOutside({machine}: Arrival, reply: Packet): Result {
    const {dst} = reply
    if (dst === CLIENT || dst === this.clientAddressOutside()) return this.outside(machine)
    const device = (to: Machine): string => {
      const back = to
        .router(reply.family)
        .lookup(this.walker.chooser, {dst: reply.src, src: undefined, mark: 0, iif: 'lo'})
      return back.type === 'unicast' && back.device !== '' ? back.device : UNKNOWN_DEVICE
    }
    const next = this.world.machineAt(dst)
    if (next) return this.receive(next, reply, device(next))
    const unread = this.world.facts.unread.get(dst)
    if (unread !== undefined) return unknown(`the answer goes on at node ${unread}, which was not read`)
    const pod = this.world.podAt(dst)
    if (!pod) return unknown(`nobody knows the way from ${endpointText(reply.src, undefined)} to ${formatAddress(dst)}`)
    if (this.world.hostsRoutePods(reply.family))
      return dropped(
        'not-masqueraded',
        `${endpointText(reply.src, undefined)} outside the cluster has no route to pod address ${formatAddress(dst)}: it was not masqueraded`,
      )
    return this.toOtherNode(reply, pod)
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

const RESET: readonly string[] = ['RST', 'ACK']

const isLoopbackParty = (party: Party): boolean => party !== CLIENT && isLoopback(party)

/** Packets to the node itself leave by `lo`, whatever device holds the address. */
const outDevice = (route: RouteResult): string => (route.type === 'local' ? 'lo' : route.device)

function receiverText({kind, address, port, pod, node}: Receiver): string {
  const at = endpointText(address, port)
  if (pod !== undefined) return `pod ${pod} (${at}) on ${node}`
  return kind === 'socket' ? `${at} on ${node}` : `${at}, which is in no part of the snapshot`
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

interface Candidate {
  readonly real: VirtualServer['realServers'][number]
  readonly share: number
}

/**
 * Which share of new connections each real server gets (net/netfilter/ipvs/ip_vs_*.c). The hash tables of sh and dh give
 * a server of weight 0 a slot as well, and who falls on it is refused (ip_vs_sh_reassign, ip_vs_dh_assign).
 */
function candidates({scheduler, text, realServers}: VirtualServer): Candidate[] {
  const hashed = (scheduler === 'sh' && !/\b(sh-fallback|flag-1)\b/.test(text)) || scheduler === 'dh'
  const able = hashed ? realServers : realServers.filter(({weight}) => weight > 0)
  if (scheduler === 'fo' || scheduler === 'ovf') {
    // of equal ones the kernel takes the first of its own list, whose order ipvsadm does not show (it sorts)
    const most = Math.max(...able.map(({weight}) => weight))
    const best = able.filter(({weight}) => weight === most)
    return best.map((real) => ({real, share: 1 / best.length}))
  }
  const weighted = ['wrr', 'wlc', 'sed', 'nq', 'mh', 'sh'].includes(scheduler)
  const parts = able.map(({weight}) => (weighted ? Math.max(weight, 1) : 1))
  const total = parts.reduce((sum, part) => sum + part, 0)
  return able.map((real, at) => ({real, share: parts[at]! / total}))
}
