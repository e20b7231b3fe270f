import type {Cause, Hop, HopKind, Outcome, Receiver} from '../model/trace.js'
import {inRange, type Range} from '../util/ip.js'
import type {Chooser} from './explore.js'
import type {Machine} from './machine.js'
import {CLIENT, EPHEMERAL, type Packet, type Party} from './packet.js'

export type Hook = 'PREROUTING' | 'INPUT' | 'FORWARD' | 'OUTPUT' | 'POSTROUTING'

/** The packet goes no further. */
export interface End {
  readonly outcome: Outcome
  readonly reason: string
  /** What kind of thing ended it; `rule` where nothing else is said. */
  readonly cause?: Cause
  /** It was the answer that was lost. */
  readonly onReply?: boolean
  readonly receiver?: Receiver
  /** Somebody on the way says no to the client; whether the client hears it, is another walk. */
  readonly notice?: 'icmp' | 'tcp reset'
}

/** What a rule says: go on with the next, leave all chains of this hook function, back to the caller, or the end. */
export type Verdict = 'continue' | 'accept' | 'return' | End

export const isEnd = (verdict: Verdict | undefined): verdict is End => typeof verdict === 'object'

/** A chain that can be run on a packet. */
export interface Program {
  readonly name: string
  run(walker: Walker): Verdict
}

const MAX_DEPTH = 64

/** What a walk took for granted because nobody asked: machine → reasons. */
export type Notes = Map<string, Set<string>>

/** What rules see while they are evaluated: the packet, the node, the hook, and where to ask what nobody knows. */
export class Walker {
  readonly chooser: Chooser
  readonly hops: Hop[] = []
  /** What was taken for granted: machine → reasons. */
  readonly notes: Notes
  packet!: Packet
  machine!: Machine
  hook: Hook | '' = ''
  private depth = 0
  /** Lists and sets of each node that rules on the way have written the packet's addresses to. */
  written: Set<string> | undefined
  private lastPort = EPHEMERAL
  /** Whether somebody wants to read the way, and not only where it ends. */
  readonly steps: boolean

  constructor(chooser: Chooser, {notes, steps}: {notes: Notes; steps: boolean}) {
    this.chooser = chooser
    this.notes = notes
    this.steps = steps
  }

  hop(kind: HopKind, what: string, extra?: Omit<Partial<Hop>, 'node' | 'kind' | 'what'>): void {
    if (!this.steps) return
    this.hops.push({
      node: this.machine.name,
      kind,
      what,
      reply: this.packet.reply,
      depth: this.depth,
      ...(this.hook === '' ? {} : {hook: this.hook}),
      ...extra,
    })
  }

  /** Something was taken for granted because nobody asked the node. */
  note(reason: string): void {
    const {name} = this.machine
    const known = this.notes.get(name)
    if (known) known.add(reason)
    else this.notes.set(name, new Set([reason]))
  }

  /** A port that NAT chose: some number, not the one from before. */
  freshPort(): number {
    return --this.lastPort
  }

  /** An open question; `true` is the first answer. Both are walked. */
  assume(key: string, labels: readonly [string, string]): boolean {
    const answer = this.chooser.assume(`${this.machine.name}:${key}`, labels)
    this.hop('assume', answer ? labels[0] : labels[1])
    return answer
  }

  /**
   * A copy of the packet leaves by OUTPUT (nf_dup_ipv4). It changes nothing about the packet itself, but a rule that rejects the
   * copy tells the client so. Undefined: no rule could.
   */
  copied(where: string): End | undefined {
    return this.machine.refuses(this.packet.family)
      ? {
          outcome: 'unknown',
          reason: `${where} on ${this.machine.name} sends a copy of it; a rule that rejects the copy is heard by the client, and copies are not walked`,
        }
      : undefined
  }

  /** Does a condition that is not modelled hold? Asked once for each rule and packet. */
  unknownMatch(where: string, what: string): boolean {
    return !this.assume(`${where}:${what}:${this.packetKey()}`, [
      `if ${where} (${what}) does not match`,
      `if ${where} (${what}) matches`,
    ])
  }

  /** A rule has written something of this packet to a list (`-j SET`, `-m recent --set`). */
  remember(list: string): void {
    this.written ??= new Set()
    this.written.add(`${this.machine.name} ${list}`)
  }

  remembers(list: string): boolean {
    return this.written !== undefined && this.written.has(`${this.machine.name} ${list}`)
  }

  private packetKey(): string {
    const {src, sport, dst, dport, reply, mark, protocol} = this.packet
    return `${this.hook} ${protocol} ${src} ${sport} ${dst} ${dport} ${mark} ${reply}`
  }

  inside(party: Party, range: Range): boolean {
    return party === CLIENT ? this.chooser.inside(range) : inRange(party, range)
  }

  /**
   * Port in range? A client's own port is some number from 1024 up. A range that meets less than one in a hundred of
   * them is taken as missed (docs/accuracy.md); only a wide one is an open question.
   */
  portInside(port: number, lo: number, hi: number, where: string): boolean {
    if (port >= 0) return port >= lo && port <= hi
    const chance = (Math.min(hi, 65535) - Math.max(lo, 1024) + 1) / (65535 - 1024 + 1)
    if (chance < 0.01) return false
    if (chance > 0.99) return true
    return this.unknownMatch(where, `the client's own port in ${lo}-${hi}`)
  }

  /** Runs a called chain; a loop that the kernel would refuse to load ends as unknown. */
  call(program: Program): Verdict {
    if (++this.depth > MAX_DEPTH) {
      this.depth = 0
      return {outcome: 'unknown', reason: `chain ${program.name} calls itself: no kernel loads such rules`}
    }
    const verdict = program.run(this)
    this.depth--
    return verdict
  }
}
