import {formatEndpoint, type Address, type Range} from '../util/ip.js'
import {UNKNOWN_DEVICE, type Connection, type Packet} from './packet.js'
import type {Verdict, Walker} from './walker.js'

/** Where NAT may send: an address or a range of them, a port or a range of them. */
export interface NatTarget {
  readonly range?: Range
  readonly ports?: readonly [number, number]
  /** The source port is chosen anew (`random`, `random-fully`). */
  readonly random?: boolean
}

/** A range of more addresses than this is not spread address by address. */
const MAX_SPREAD = 16

/** Chooses one target and one address of its range; each is as likely as the others for clients taken together. */
function pick(
  walker: Walker,
  where: string,
  targets: readonly NatTarget[],
): {address?: Address; port?: number} | {unknown: string} {
  const target = targets[targets.length === 1 ? 0 : walker.chooser.random(targets.map(() => 1 / targets.length))]!
  if (target.ports && target.ports[0] !== target.ports[1])
    return {unknown: `${where}: NAT to one of several ports is not modelled`}
  const port = target.ports?.[0]
  if (!target.range) return port === undefined ? {} : {port}
  const {lo, hi} = target.range
  const count = lo === hi ? 1 : Number(BigInt(hi) - BigInt(lo)) + 1
  if (count > MAX_SPREAD) return {unknown: `${where}: NAT to one of ${count} addresses is not modelled`}
  const at = count === 1 ? 0 : walker.chooser.random(new Array<number>(count).fill(1 / count))
  const address = typeof lo === 'number' ? lo + at : lo + BigInt(at)
  return {address, ...(port === undefined ? {} : {port})}
}

/** NAT rules only count for a tracked connection's first packet, in hooks that have that kind of NAT. */
function usable({packet, hook}: Walker, kind: 'dst' | 'src'): Connection | undefined {
  const right = kind === 'dst' ? hook === 'PREROUTING' || hook === 'OUTPUT' : hook === 'POSTROUTING' || hook === 'INPUT'
  return right ? packet.connection : undefined
}

/** DNAT: the packet's destination and the reply's expected source (nf_nat_setup_info with NF_NAT_MANIP_DST). */
export function destinationNat(walker: Walker, where: string, targets: readonly NatTarget[]): Verdict {
  const connection = usable(walker, 'dst')
  if (!connection) return {outcome: 'unknown', reason: `${where}: DNAT outside PREROUTING and OUTPUT`}
  const chosen = pick(walker, where, targets)
  if ('unknown' in chosen) return {outcome: 'unknown', reason: chosen.unknown}
  applyDestination(walker.packet, connection, chosen)
  noteDestination(walker, 'DNAT', where)
  return 'accept'
}

function applyDestination(packet: Packet, connection: Connection, to: {address?: Address; port?: number}): void {
  const before = {dst: packet.dst, dport: packet.dport}
  packet.dst = to.address ?? packet.dst
  packet.dport = to.port ?? packet.dport
  connection.reply.src = packet.dst
  connection.reply.sport = packet.dport
  connection.dnat ||= before.dst !== packet.dst || before.dport !== packet.dport
  connection.dstDone = true
}

/** SNAT: the packet's source and the reply's expected destination. The port is kept or changed; nothing depends on it. */
export function sourceNat(walker: Walker, where: string, targets: readonly NatTarget[]): Verdict {
  const connection = usable(walker, 'src')
  if (!connection) return {outcome: 'unknown', reason: `${where}: SNAT outside POSTROUTING and INPUT`}
  const chosen = pick(walker, where, targets)
  if ('unknown' in chosen) return {outcome: 'unknown', reason: chosen.unknown}
  applySource(walker, connection, {
    address: chosen.address,
    newPort: chosen.port !== undefined || targets.some(({random}) => random),
  })
  noteSource(walker, 'SNAT to', where)
  return 'accept'
}

function applySource(
  walker: Walker,
  connection: Connection,
  {address, newPort}: {address: Address | undefined; newPort: boolean},
): void {
  const {packet} = walker
  const before = packet.src
  packet.src = address ?? packet.src
  if (newPort) packet.sport = walker.freshPort()
  connection.reply.dst = packet.src
  connection.reply.dport = packet.sport
  connection.snat ||= before !== packet.src || newPort
  connection.srcDone = true
}

/** MASQUERADE: the address of the device by which the packet leaves (nf_nat_masquerade_ipv4: inet_select_addr). */
export function masquerade(walker: Walker, where: string, random: boolean): Verdict {
  const connection = usable(walker, 'src')
  if (!connection) return {outcome: 'unknown', reason: `${where}: MASQUERADE outside POSTROUTING`}
  const {packet, machine} = walker
  const address = machine.masqueradeAddress(packet, walker.chooser)
  if (address === undefined) {
    if (machine.knowsAddresses && packet.oif !== UNKNOWN_DEVICE)
      return {outcome: 'dropped', reason: `${where} on ${machine.name}: MASQUERADE finds no address on ${packet.oif}`}
    const missing = machine.knowsAddresses ? 'routes' : 'addresses'
    return {
      outcome: 'unknown',
      reason: `${where}: the ${missing} of ${machine.name} are not in the snapshot, so nobody knows what MASQUERADE takes`,
    }
  }
  applySource(walker, connection, {address, newPort: random})
  noteSource(walker, 'MASQUERADE as', where)
  return 'accept'
}

/** REDIRECT: to the node itself (nf_nat_redirect_ipv4): 127.0.0.1 for its own packets, else an address of the incoming device. */
export function redirect(walker: Walker, where: string, ports: readonly [number, number] | undefined): Verdict {
  const connection = usable(walker, 'dst')
  if (!connection) return {outcome: 'unknown', reason: `${where}: REDIRECT outside PREROUTING and OUTPUT`}
  const {packet, machine, hook} = walker
  if (ports && ports[0] !== ports[1])
    return {outcome: 'unknown', reason: `${where}: REDIRECT to one of several ports is not modelled`}
  const address =
    hook === 'OUTPUT' ? (packet.family === 4 ? 0x7f000001 : 1n) : machine.deviceAddress(packet.iif, packet.family)
  if (address === undefined)
    return {
      outcome: machine.knowsAddresses && packet.iif !== UNKNOWN_DEVICE ? 'dropped' : 'unknown',
      reason: `${where} on ${machine.name}: REDIRECT finds no address on ${packet.iif}`,
    }
  applyDestination(packet, connection, {address, ...(ports ? {port: ports[0]} : {})})
  noteDestination(walker, 'REDIRECT', where)
  return 'accept'
}

function noteDestination(walker: Walker, target: string, where: string): void {
  if (!walker.steps) return
  const destination = endpointText(walker.packet.dst, walker.packet.dport)
  walker.hop('nat', `${target} to ${destination}`, {where, destination})
}

function noteSource(walker: Walker, target: string, where: string): void {
  if (!walker.steps) return
  const source = endpointText(walker.packet.src, undefined)
  walker.hop('nat', `${target} ${source}`, {where, source})
}

export function endpointText(party: Packet['src'], port: number | undefined): string {
  if (party === 'client') return 'the client'
  return formatEndpoint(party, port === undefined || port < 0 ? undefined : port)
}
