import type {Protocol} from '../model/kube.js'
import {isLoopback, type Address, type Family} from '../util/ip.js'

/** Stands for the client's address where the client is a set; the chooser knows which part of the set is meant. */
export const CLIENT = 'client'
export type Party = Address | typeof CLIENT

/** A client's own port, any from 1024 up; smaller numbers stand for ports that NAT chose anew. */
export const EPHEMERAL = -1

/** A device that no dump names. `''` is no device at all, as in a hook that has none. */
export const UNKNOWN_DEVICE = '?'

export type TrackState = 'NEW' | 'ESTABLISHED' | 'RELATED' | 'INVALID' | 'UNTRACKED'

/** What is on the wire: a Service's protocol, an ICMP error about it, or a packet that carries another one (IP in IP, GRE). */
export type WireProtocol = Protocol | 'ICMP' | 'IPENCAP' | 'GRE'

export interface Tuple {
  src: Party
  sport: number
  dst: Party
  dport: number
}

/** An entry of conntrack (include/net/netfilter/nf_conntrack.h): NAT lives in the difference of its two tuples. */
export interface Connection {
  /** Of the connection: an ICMP error about it has another one. */
  readonly protocol: Packet['protocol']
  readonly original: Tuple
  /** As seen on replies, before they are translated back. */
  readonly reply: Tuple
  /** IPS_DST_NAT, IPS_SRC_NAT */
  dnat: boolean
  snat: boolean
  /** NAT of that direction is set up, maybe to «no change»: later chains are not asked (IPS_*_NAT_DONE). */
  dstDone: boolean
  srcDone: boolean
  /** It has left the node or reached a process once: it is in the table (IPS_CONFIRMED). */
  confirmed: boolean
  mark: number
}

/** A connection of IPVS (ip_vs_conn): client, virtual server, real server. */
export interface IpvsConnection {
  readonly client: {address: Party; port: number}
  readonly virtual: {address: Address; port: number; text: string}
  readonly real: {address: Address; port: number}
}

/** The packet as a node sees it; the walk changes it in place, as the kernel does. */
export interface Packet extends Tuple {
  readonly family: Family
  readonly protocol: WireProtocol
  mark: number
  /** The device it came in by; '' for the node's own. */
  iif: string
  oif: string
  /** The bridge port it came in by, UNKNOWN_DEVICE where no dump tells, '' without a bridge. */
  physin: string
  physout: string
  state: TrackState
  connection: Connection | undefined
  /** It runs against the connection's original direction. */
  replyDirection: boolean
  /** IPVS has handled it (skb->ipvs_property). */
  ipvs: IpvsConnection | undefined
  /** The answer of the endpoint, not the client's packet. */
  readonly reply: boolean
  /** It carries another packet to another node (tunnel.ts). */
  readonly outer: boolean
  /** Of a TCP packet, in upper case. */
  readonly tcpFlags: readonly string[]
  /** An ICMP error: the tuple that an answer to the packet it is about would have, translated as it goes. */
  readonly about: Tuple | undefined
  /** A message of IPv6's neighbour discovery; every other ICMP packet is an error. */
  readonly neighbour?: NeighbourMessage
}

export type NeighbourMessage = 'solicitation' | 'advertisement'

/** Numbers and names of the messages (RFC 4861 4.3, 4.4; ip6tables -p icmpv6 -h; nft describe icmpv6 type). */
export const NEIGHBOUR_MESSAGES: Readonly<Record<NeighbourMessage, {number: string; names: RegExp; nft: string}>> = {
  solicitation: {number: '135', names: /^neighbou?r-solicitation$/, nft: 'nd-neighbor-solicit'},
  advertisement: {number: '136', names: /^neighbou?r-advertisement$/, nft: 'nd-neighbor-advert'},
}

export const sameTuple = (a: Tuple, b: Tuple): boolean =>
  a.src === b.src && a.dst === b.dst && a.sport === b.sport && a.dport === b.dport

const PROTOCOL_NUMBER: Readonly<Record<Exclude<WireProtocol, 'ICMP'>, number>> = {
  TCP: 6,
  UDP: 17,
  SCTP: 132,
  IPENCAP: 4,
  GRE: 47,
}

/** As in the IP header. */
export const protocolNumber = ({protocol, family}: Pick<Packet, 'protocol' | 'family'>): number =>
  protocol === 'ICMP' ? (family === 4 ? 1 : 58) : PROTOCOL_NUMBER[protocol]

/** What a packet has when it leaves a host or reaches another: marks and connections do not travel between them. */
export const FRESH = {
  mark: 0,
  iif: '',
  oif: '',
  physin: '',
  physout: '',
  state: 'INVALID',
  connection: undefined,
  replyDirection: false,
  ipvs: undefined,
} as const

/** Has conntrack seen an answer? An error about a packet (ICMP, a reset by a rule) is related, and sets no IPS_SEEN_REPLY. */
export const seenReply = ({replyDirection, state}: Packet): boolean => replyDirection && state !== 'RELATED'

export const isLoopbackParty = (party: Party): boolean => party !== CLIENT && isLoopback(party)
