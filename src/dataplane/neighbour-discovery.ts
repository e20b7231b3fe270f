import type {Hop} from '../model/trace.js'
import {prefixRange, type Address} from '../util/ip.js'
import {explore, type Tree} from './explore.js'
import {untrack} from './hooks.js'
import {Journey} from './journey.js'
import type {Machine} from './machine.js'
import {FRESH, type NeighbourMessage, type Packet} from './packet.js'
import {Walker, type End} from './walker.js'
import type {World} from './world.js'

/** A message that the node's own rules lose, or may lose: then nobody resolves addresses over that device any more. */
export interface LostDiscovery {
  /** False: what decides is not known. */
  readonly sure: boolean
  readonly device: string
  readonly message: NeighbourMessage
  readonly inbound: boolean
  readonly reason: string
  readonly hops: readonly Hop[]
}

/** A host at the other end, by its link-local address. */
const PEER = (0xfe80n << 112n) | 0x1n
/** The first ten bits of fe80::/10. */
const LINK_LOCAL = 0x3fan
const SOLICITED = (0xff02n << 112n) | 0x1_ff00_0000n

/** ff02::1:ffXX:XXXX (RFC 4291 2.7.1). */
const solicited = (address: bigint): bigint => SOLICITED | (address & 0xff_ffffn)

interface Message {
  readonly message: NeighbourMessage
  readonly inbound: boolean
  readonly src: Address
  readonly dst: Address
}

/**
 * IPv6 finds hardware addresses by ICMPv6 messages, which pass the rules of INPUT and OUTPUT as any packet does, untracked
 * (RFC 4861; nf_conntrack_proto_icmpv6.c). Both a host's own and its link-local address send them: lost is what neither gets through.
 */
export function lostDiscovery(world: World, machine: Machine): LostDiscovery | undefined {
  let open: LostDiscovery | undefined
  for (const {device, address, length} of machine.state.addresses) {
    const link = machine.link(device)
    // every device has a link-local network of the same prefix, and no Service is reached by one
    if (typeof address !== 'bigint' || address >> 118n === LINK_LOCAL) continue
    if (device === 'lo' || length === 128 || !link?.up || link.tunnel) continue
    const near = BigInt(prefixRange(address, length).lo) + 1n
    const peer = near === address ? near + 1n : near
    for (const [message, inbound] of KINDS) {
      const ways = [PEER, peer].map((other) => messageOf([message, inbound], {own: address, other, peer}))
      const ends = ways.map((way) => pass(world, machine, {...way, device}))
      const [worst] = ends.flatMap((end) => end ?? []).sort((a, b) => Number(a.sure) - Number(b.sure))
      // one that gets through is enough
      if (!worst || ends.includes(undefined)) continue
      if (worst.sure) return {device, message, inbound, ...worst}
      open ??= {device, message, inbound, ...worst}
    }
  }
  return open
}

const KINDS: readonly (readonly [NeighbourMessage, inbound: boolean])[] = [
  ['solicitation', true],
  ['advertisement', true],
  ['solicitation', false],
  ['advertisement', false],
]

/** Who sends to whom: solicitations go to everybody whose address ends alike. */
function messageOf(
  [message, inbound]: (typeof KINDS)[number],
  {own, other, peer}: Readonly<Record<'own' | 'other' | 'peer', bigint>>,
): Message {
  const asks = message === 'solicitation'
  if (inbound) return {message, inbound, src: other, dst: asks ? solicited(own) : own}
  // its own packets' address, or the link-local one where it asks for others
  return {message, inbound, src: other === PEER ? PEER | 0x1_0000n : own, dst: asks ? solicited(peer) : other}
}

/** Undefined: it gets through. */
function pass(
  world: World,
  machine: Machine,
  {message, inbound, src, dst, device}: Message & {device: string},
): Pick<LostDiscovery, 'sure' | 'reason' | 'hops'> | undefined {
  const open: End = {outcome: 'unknown', reason: 'too many ways'}
  const tree = explore<{end: End | undefined; hops: readonly Hop[]}>(
    [],
    (chooser) => {
      const walker = new Walker(chooser, {notes: new Map(), steps: true})
      const flow = {origin: {kind: 'node', node: machine.name}, destination: dst, port: 0, protocol: 'TCP'} as const
      const {stack} = new Journey(world, flow, walker)
      const packet = packetOf({src, dst, message})
      stack.enter(machine, packet)
      if (inbound) packet.iif = device
      else packet.oif = device
      untrack(packet)
      const result = inbound
        ? (stack.hook('PREROUTING') ?? stack.hook('INPUT'))
        : (stack.hook('OUTPUT') ?? stack.hook('POSTROUTING'))
      return {end: result !== undefined && 'outcome' in result ? result : undefined, hops: walker.hops}
    },
    () => ({end: open, hops: []}),
  )
  const leaves = leavesOf(tree)
  const stopped = leaves.filter(({end}) => end !== undefined)
  const found = stopped.find(({end}) => end!.outcome !== 'unknown') ?? stopped[0]
  if (!found) return undefined
  const sure = leaves.every(({end}) => end?.outcome === 'dropped' || end?.outcome === 'refused')
  return {sure, reason: found.end!.reason, hops: found.hops}
}

const leavesOf = <T>(tree: Tree<T>): T[] => (tree.kind === 'leaf' ? [tree.value] : tree.children.flatMap(leavesOf))

const packetOf = ({src, dst, message}: Pick<Message, 'src' | 'dst' | 'message'>): Packet => ({
  ...FRESH,
  src,
  sport: 0,
  dst,
  dport: 0,
  family: 6,
  protocol: 'ICMP',
  reply: false,
  outer: false,
  tcpFlags: [],
  about: undefined,
  neighbour: message,
})
