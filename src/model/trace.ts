import type {Address, Range} from '../util/ip.js'
import type {Protocol} from './kube.js'

/** delivered: an endpoint got it and its answer came back · refused: an ICMP reject or a reset came back · dropped: silence. */
export type Outcome = 'delivered' | 'refused' | 'dropped' | 'unknown'

/** Where a fact stands in a dump. */
export interface Evidence {
  /** Path inside the snapshot. */
  readonly source: string
  /** 1-based; 0 where the file has no lines to point at. */
  readonly line: number
  readonly text: string
  /** An object of the API: `namespace/name`, or its name alone where it has no namespace. */
  readonly object?: string
  /** The field of it that speaks, as `kubectl explain` spells it, with positions: `spec.ports[0].nodePort`. */
  readonly field?: string
}

export type HopKind =
  'enter' | 'rule' | 'policy' | 'nat' | 'mark' | 'route' | 'ipvs' | 'arrive' | 'reply' | 'end' | 'assume' | 'choice'

/** One step of a packet. `what` is a sentence; `evidence` the line of the dump that made it so. */
export interface Hop {
  readonly node: string
  readonly kind: HopKind
  /** `PREROUTING`, `FORWARD`, … while a hook runs. */
  readonly hook?: string
  /** `nat/KUBE-SERVICES#3` */
  readonly where?: string
  readonly what: string
  readonly evidence?: Evidence
  /** Where it goes from here on, where its destination was translated: `10.244.1.5:8080`. */
  readonly destination?: string
  /** The address that it comes from from here on, where its source was translated. */
  readonly source?: string
  /** The set that has the client from here on. */
  readonly remembered?: string
  /** Its mark from here on, where a rule set it. */
  readonly mark?: number
  /** The packet is the answer on its way back. */
  readonly reply: boolean
  /** How deep in called chains: 0 in a base chain. */
  readonly depth: number
}

/** What kind of thing ended a packet's way; `checks/` turn it into a finding. */
export type Cause =
  | 'delivered'
  | 'unknown'
  /** A rule or a policy of a chain. */
  | 'rule'
  | 'policy'
  /** ip_forward, rp_filter, route_localnet, a martian source. */
  | 'not-forwarded'
  | 'reverse-path'
  | 'loopback'
  | 'martian'
  | 'route'
  | 'pod-route'
  | 'device'
  /** A tunnel does not know which node has the next hop, or knows a wrong one. */
  | 'tunnel'
  | 'loop'
  /** It leaves the cluster still addressed to a Service. */
  | 'untranslated'
  | 'nobody'
  /** Where the address leads is in no part of the snapshot. */
  | 'nowhere'
  | 'no-listener'
  | 'no-address'
  | 'no-real-server'
  /** The answer went past the node that translated; a pod got its own address as source; a source that nobody out there can answer. */
  | 'bypass'
  | 'bridge-nf'
  | 'hairpin'
  | 'hairpin-mode'
  | 'not-masqueraded'

/** Who sends: an address or addresses outside the cluster, a node's own process, or a pod. */
export type Origin =
  | {readonly kind: 'external'; readonly ranges: readonly Range[]; readonly enter: string}
  | {readonly kind: 'node'; readonly node: string}
  | {readonly kind: 'pod'; readonly pod: string}

export interface Flow {
  readonly origin: Origin
  readonly destination: Address
  readonly port: number
  readonly protocol: Protocol
  /** Only to ask for the fate of one known connection. */
  readonly sourcePort?: number
}

/** Who got the packet. */
export interface Receiver {
  readonly address: Address
  readonly port: number
  readonly pod?: string
  readonly node?: string
  readonly kind: 'pod' | 'socket' | 'external'
}

/** One way in which a packet can end, with its share of all connections. */
export interface Fate {
  readonly outcome: Outcome
  readonly receiver?: Receiver
  /** The address that the receiver sees; undefined when it is the client's own and that is a set. */
  readonly source?: Address
  readonly sourceIsClient: boolean
  /** 0 … 1 of the connections of `clients`. */
  readonly share: number
  /** The sentence that ended it. */
  readonly reason: string
  readonly cause: Cause
  /** It was the answer that was lost. */
  readonly onReply: boolean
  /** Of what does not arrive: the endpoints to which it was translated, before it was lost. */
  readonly towards: readonly {readonly address: Address; readonly port: number}[]
  readonly hops: readonly Hop[]
  /** Under which assumptions this fate holds; not empty: it is part of an `unknown`. */
  readonly assumptions: readonly string[]
}

/** The fates of one part of the clients; shares sum to 1. */
export interface ClientFates {
  /** The clients that this holds for; empty for a node or a pod, which have one address. */
  readonly clients: readonly Range[]
  readonly fates: readonly Fate[]
  /** For an unknown end: every alternative with its assumptions. */
  readonly alternatives: readonly Fate[]
}

export interface WalkResult {
  readonly parts: readonly ClientFates[]
  /** What the walk had to take for granted because nobody asked the node: one sentence each. */
  readonly incomplete: readonly {readonly node: string; readonly reason: string}[]
}
