import type {Duplex} from 'node:stream'

/** A node as a transport addresses it. */
export interface NodeTarget {
  readonly node: string
  readonly host: string
}

/** How a node is reached: `ssh`, as whom, and why so. */
export interface Way {
  readonly name: string
  readonly user?: string
  readonly why: string
}

/** A way into a node: runs the collector there and gives back what it printed, maybe compressed (Output.unpack). */
export interface Transport {
  readonly name: string
  /** Where it is not the same for every node, or there is more to say of it. */
  readonly way?: (target: NodeTarget) => Promise<Way>
  /** What has to be asked of a person before anything is read. */
  readonly prepare?: (targets: readonly NodeTarget[]) => Promise<void>
  readonly run: (target: NodeTarget, script: string, signal: AbortSignal) => Promise<Buffer>
  /** Opens a TCP connection from the node to somewhere; not every way can. */
  readonly tunnel?: (
    target: NodeTarget,
    to: {readonly host: string; readonly port: number},
    signal: AbortSignal,
  ) => Promise<Tunnel>
}

export interface Tunnel {
  readonly stream: Duplex
  /** Closes the stream and what carries it. */
  readonly close: () => void
}

/** A node could not be read, or not to its end. It costs that node only. */
export class NodeUnreachable extends Error {
  readonly hint: string | undefined
  /** What arrived before it broke. */
  readonly partial: Buffer
  /** Worth another try: nothing says that the next one must fail as well. */
  readonly transient: boolean
  /** We were not allowed to try: that says nothing about what we tried to reach. */
  readonly prohibited: boolean

  constructor(
    message: string,
    hint?: string,
    {
      partial,
      transient = false,
      prohibited = false,
    }: Partial<Pick<NodeUnreachable, 'partial' | 'transient' | 'prohibited'>> = {},
  ) {
    super(message)
    this.name = 'NodeUnreachable'
    this.hint = hint
    this.partial = partial ?? Buffer.alloc(0)
    this.transient = transient
    this.prohibited = prohibited
  }
}
