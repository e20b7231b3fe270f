import type {VirtualServer} from '../parse/ipvs.js'
import type {Address} from '../util/ip.js'
import {dropped, refused, unknown, type Result} from './arrival.js'
import {untrack} from './hooks.js'
import {JourneyPart} from './journey-part.js'
import type {Machine} from './machine.js'
import {endpointText} from './nat.js'
import {isLoopbackParty, type Packet} from './packet.js'
import type {End} from './walker.js'

/** IP Virtual Server: takes packets for a virtual server and sends them to a real server (net/netfilter/ipvs/ip_vs_core.c). */
export class Ipvs extends JourneyPart {
  /** ip_vs_in: a virtual server takes the packet and sends it to a real server. */
  request(packet: Packet): Result | undefined {
    const {machine} = this.walker
    const server = machine.virtualServer(packet)
    if (!server) return machine.ipvsPartial ? this.missing(machine, packet) : undefined
    this.walker.hop('ipvs', server.text, {
      where: 'ipvs',
      evidence: {source: server.file, line: server.line, text: server.text},
    })
    if (server.damaged)
      return unknown(`real servers of ${server.text} on ${machine.name} are left out of the dump, or not understood`)
    const nobody = (why: string): End => ({
      ...refused('no-real-server', `virtual server ${server.text} on ${machine.name} has ${why}`),
      notice: 'icmp',
    })
    if (server.realServers.every(({weight}) => weight <= 0))
      return nobody(`no real server${server.realServers.length > 0 ? ' with a weight above 0' : ''}`)
    const choices = candidates(server)
    if (!choices) return unknown(`whom the scheduler of ${server.text} on ${machine.name} takes is not known`)
    const {real} = choices[this.walker.chooser.random(choices.map(({share}) => share))]!
    if (real.weight <= 0) return nobody(`given ${real.text} (weight 0) its part of the clients, and refuses them`)
    this.walker.hop('ipvs', real.text, {
      where: 'ipvs',
      destination: endpointText(real.address, real.port || packet.dport),
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
    this.journey.tracking.ipvsOf(machine).push(packet.ipvs)
    return this.forward(machine, packet)
  }

  /** A local real server: the packet goes on as it was routed, and one that was on its way out leaves (__ip_vs_get_out_rt, «preserve old route»). */
  private keptRoute(machine: Machine, packet: Packet): Result | undefined {
    if (this.walker.hook !== 'OUTPUT' || packet.oif === 'lo' || packet.oif === '') return undefined
    return dropped(
      'route',
      `IPVS on ${machine.name} keeps the route of the virtual address: a packet for its own ${endpointText(packet.dst, packet.dport)} leaves by ${packet.oif}`,
    )
  }

  private missing(machine: Machine, packet: Packet): End | undefined {
    const what = `a virtual server for ${endpointText(packet.dst, packet.dport)}, which the partial listing of ${machine.name} does not show`
    return this.walker.assume(`ipvs:${packet.dst}:${packet.dport}`, [`if there is not ${what}`, `if there is ${what}`])
      ? undefined
      : unknown(`there may be ${what}`)
  }

  /** ip_vs_nat_xmit: a local real server stays here; any other gets the packet through OUTPUT and POSTROUTING. */
  private forward(machine: Machine, packet: Packet): Result | undefined {
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
    if (route.type === 'local') return this.keptRoute(machine, packet)
    const end = this.journey.stack.routeEnd(machine, packet, route)
    if (end) return end
    return this.journey.stack.output(machine, packet, route)
  }
}

const WEIGHTED = new Set(['wrr', 'wlc', 'sed', 'nq', 'mh', 'sh', 'twos'])
/** `ovf` is left out: it refuses or passes on by the number of active connections, which the dump does not show. */
const SCHEDULERS = new Set([...WEIGHTED, 'rr', 'lc', 'lblc', 'lblcr', 'dh', 'fo'])

interface Candidate {
  readonly real: VirtualServer['realServers'][number]
  readonly share: number
}

/**
 * Which share of new connections each real server gets (net/netfilter/ipvs/ip_vs_*.c). The hash tables of sh and dh give
 * a server of weight 0 a slot as well, and who falls on it is refused (ip_vs_sh_reassign, ip_vs_dh_assign).
 */
function candidates({scheduler, text, realServers}: VirtualServer): Candidate[] | undefined {
  if (!SCHEDULERS.has(scheduler)) return undefined
  const hashed = (scheduler === 'sh' && !/\b(sh-fallback|flag-1)\b/.test(text)) || scheduler === 'dh'
  const able = hashed ? realServers : realServers.filter(({weight}) => weight > 0)
  if (scheduler === 'fo') {
    // of equal ones the kernel takes the first of its own list, whose order ipvsadm does not show (it sorts)
    const most = Math.max(...able.map(({weight}) => weight))
    const best = able.filter(({weight}) => weight === most)
    return best.map((real) => ({real, share: 1 / best.length}))
  }
  const weighted = WEIGHTED.has(scheduler)
  const parts = able.map(({weight}) => (weighted ? Math.max(weight, 1) : 1))
  const total = parts.reduce((sum, part) => sum + part, 0)
  return able.map((real, at) => ({real, share: parts[at]! / total}))
}
