import {parseRule, type IptablesRule} from './iptables-rule.js'
import type {Problem} from './problem.js'

/** A rule's line before its words are looked into. */
export interface RawRule {
  line: number
  text: string
  /** It is known from the start that this is no whole rule. */
  problem?: string
}

export class IptablesChain {
  readonly table: string
  readonly name: string
  /** ACCEPT, DROP: built-in chains only. */
  policy: string | undefined
  /** False for a chain that rules mention but no `:CHAIN` line declares (a partial dump). */
  declared = false
  /** Its end may be missing: the dump was cut. */
  cut = false
  line = 0
  private pending: RawRule[] = []
  private adopted: readonly IptablesRule[] | undefined
  private told: Set<number> | undefined
  private readonly dump: IptablesDump

  constructor(dump: IptablesDump, table: string, name: string) {
    this.dump = dump
    this.table = table
    this.name = name
  }

  append(line: number, text: string, problem?: string): void {
    this.pending.push({line, text, ...(problem === undefined ? {} : {problem})})
  }

  /** `-I CHAIN`: at the top. */
  prepend(line: number, text: string): void {
    this.pending.unshift({line, text})
  }

  /** Gives back the room that the list was given to grow: most chains have one rule or two. */
  trim(): void {
    this.pending = this.pending.slice()
  }

  /** The last line, for a wrapped end that follows it. */
  get last(): RawRule | undefined {
    return this.pending.at(-1)
  }

  get length(): number {
    return this.adopted?.length ?? this.pending.length
  }

  /** Its rules came from another form, and `texts` is empty. */
  get isReadyMade(): boolean {
    return this.adopted !== undefined
  }

  /** Rules whose text is not looked into yet: cheap to count and to search. */
  get texts(): readonly RawRule[] {
    return this.pending
  }

  /** The lines of its rules, in whatever form the dump has them. */
  get lines(): readonly {readonly line: number; readonly text: string}[] {
    return this.adopted ?? this.pending
  }

  /** The rules, parsed when asked for: most chains of a large dump are never walked, and few are needed for long. */
  get rules(): readonly IptablesRule[] {
    return this.adopted ?? this.pending.map((_, at) => this.rule(at))
  }

  /** One of them; `at` begins at 0. */
  rule(at: number): IptablesRule {
    if (this.adopted) return this.adopted[at]!
    const {line, text, problem} = this.pending[at]!
    const rule = parseRule(problem === undefined ? text : `-A ${this.name}`, {
      table: this.table,
      chain: this.name,
      number: at + 1,
      file: this.dump.file,
      line,
    })
    if (problem !== undefined) return {...rule, text, problem}
    if (rule.problem) this.tell(line, rule.problem, text)
    return rule
  }

  /** A rule may be parsed more than once; its problem is told once. */
  private tell(line: number, message: string, text: string): void {
    this.told ??= new Set()
    if (this.told.has(line)) return
    this.told.add(line)
    this.dump.problems.push({file: this.dump.file, line, message, text})
  }

  /** For parsers of other forms (`iptables -L`), whose rules come ready made. */
  adopt(rules: readonly IptablesRule[]): void {
    this.adopted = rules
  }
}

export interface IptablesTable {
  readonly name: string
  readonly chains: Map<string, IptablesChain>
  /** False when the table has no end (`COMMIT`): the dump was cut. */
  complete: boolean
}

export interface IptablesDump {
  readonly file: string
  /** What the dump says of itself: `iptables-save v1.8.9 (nf_tables)`. */
  backend?: 'legacy' | 'nft'
  readonly tables: Map<string, IptablesTable>
  readonly problems: Problem[]
  /** What the dump says of rules that it does not show. */
  readonly hidden: Hidden[]
  /** A listing without the columns of interfaces (`iptables -L` without `-v`). */
  hidesInterfaces?: boolean
  /** A listing that somebody cut out or pasted: built-in chains that it lacks exist all the same. */
  partial?: boolean
  /** The line that says that the command ended before its time: tables behind it are missing. */
  brokenOff?: number
}

/** Another table of the kernel, which the tool names and cannot print: native nftables rules, or those of the legacy backend. */
export type Hidden = {readonly kind: 'native'; readonly table: string} | {readonly kind: 'legacy'}
