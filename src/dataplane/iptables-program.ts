import type {IptablesRule} from '../parse/iptables-rule.js'
import type {IptablesChain, IptablesDump, IptablesTable} from '../parse/iptables.js'
import {parseRange, type Address} from '../util/ip.js'
import {table} from '../util/table.js'
import {always, basicTests, matchTest, type Test, type Unmodelled} from './iptables-matches.js'
import {isHarmless, targetAction, type Action} from './iptables-targets.js'
import {isEnd, type Hook, type Program, type Verdict, type Walker} from './walker.js'

/** The tables and the hooks at which they run (include/uapi/linux/netfilter_ipv4.h); nat runs at 100 behind the routing. */
export const IPTABLES_HOOKS: Readonly<Record<string, {readonly hooks: readonly Hook[]; readonly priority: number}>> =
  table({
    raw: {hooks: ['PREROUTING', 'OUTPUT'], priority: -300},
    mangle: {hooks: ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'], priority: -150},
    nat: {hooks: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'], priority: -100},
    filter: {hooks: ['INPUT', 'FORWARD', 'OUTPUT'], priority: 0},
    security: {hooks: ['INPUT', 'FORWARD', 'OUTPUT'], priority: 50},
  })

/** Where a table runs. iptables-nft registers its security chains at 150, behind the source NAT (iptables/nft.c, xtables_ipv4). */
export function hookPriority(table: string, hook: Hook, backend: IptablesDump['backend']): number {
  if (table === 'nat' && (hook === 'POSTROUTING' || hook === 'INPUT')) return 100
  return table === 'security' && backend === 'nft' ? 150 : IPTABLES_HOOKS[table]!.priority
}

/** One rule, ready to run. */
interface Compiled {
  readonly rule: IptablesRule
  readonly where: string
  readonly tests: readonly Test[]
  /** What of it is not modelled; asked after every known condition holds. */
  readonly open: readonly string[]
  readonly action: Action | undefined
  readonly call: ChainProgram | undefined
  readonly missingChain: boolean
}

/** A chain longer than this is searched by destination and port instead of rule by rule. */
const INDEX_FROM = 16

/** The chains of one table of one dump. */
export class TableProgram {
  readonly table: IptablesTable
  readonly dump: IptablesDump
  private chains = new Map<string, ChainProgram>()

  constructor(dump: IptablesDump, table: IptablesTable) {
    this.dump = dump
    this.table = table
  }

  chain(name: string): ChainProgram | undefined {
    const known = this.chains.get(name)
    if (known) return known
    const chain = this.table.chains.get(name)
    if (!chain) return undefined
    const program = new ChainProgram(this, chain)
    this.chains.set(name, program)
    return program
  }

  /**
   * Lets go of rules that are ready to run: in a large table most are needed for one Service only. A fresh map, not an emptied
   * one: V8 chains the old tables of a map that grows and shrinks, and what is in them lives until a whole collection.
   */
  forget(): void {
    const long = [...this.chains].filter(([, program]) => program.isLong)
    for (const [, program] of long) program.forget()
    this.chains = new Map(long)
  }

  /** `nat/KUBE-SERVICES#3`, with the backend where a node has rules in both. */
  where(chain: string, number: number): string {
    return `${this.dump.backend === 'legacy' ? 'legacy ' : ''}${this.table.name}/${chain}#${number}`
  }
}

/** A chain as the kernel runs it (ipt_do_table): rule by rule, calls, returns, goto. */
class ChainProgram implements Program {
  private readonly owner: TableProgram
  private readonly chain: IptablesChain
  private compiled: (Compiled | undefined)[] = []
  private index: RuleIndex | undefined

  constructor(owner: TableProgram, chain: IptablesChain) {
    this.owner = owner
    this.chain = chain
  }

  get name(): string {
    return this.chain.name
  }

  /** Long enough for an index, which is worth keeping. */
  get isLong(): boolean {
    return this.chain.length >= INDEX_FROM
  }

  forget(): void {
    this.compiled = []
  }

  get isEmpty(): boolean {
    return this.chain.length === 0 && !this.chain.cut
  }

  run(walker: Walker): Verdict {
    const candidates = this.candidates(walker)
    const count = candidates?.length ?? this.chain.length
    for (let next = 0; next < count; next++) {
      const rule = this.ruleAt(candidates ? candidates[next]! : next)
      if (!this.matches(walker, rule)) continue
      const verdict = this.perform(walker, rule)
      if (verdict !== 'continue') return verdict
    }
    return this.chain.cut ? this.afterCut(walker) : 'return'
  }

  /** A built-in chain: what falls off its end meets the policy. */
  runBase(walker: Walker): Verdict {
    const verdict = this.run(walker)
    if (verdict !== 'return') return verdict
    if (!this.chain.declared) return this.afterPieces(walker)
    const policy = this.chain.policy ?? 'ACCEPT'
    if (policy === 'ACCEPT') return 'accept'
    const where = `${this.owner.table.name}/${this.chain.name} policy`
    const evidence = {source: this.owner.dump.file, line: this.chain.line, text: `:${this.chain.name} ${policy}`}
    walker.hop('policy', `policy ${policy} of ${this.owner.table.name}/${this.chain.name}`, {where, evidence})
    return {
      outcome: 'dropped',
      cause: 'policy',
      reason: `the policy ${policy} of ${this.owner.table.name}/${this.chain.name} on ${walker.machine.name} drops it`,
    }
  }

  /** Rules that somebody picked out (`grep KUBE`): the policy and the others are not there. */
  private afterPieces(walker: Walker): Verdict {
    const name = `${this.owner.table.name}/${this.chain.name}`
    const what = `the policy of ${name}, which ${this.owner.dump.file} does not show,`
    return walker.assume(`policy:${this.owner.dump.file}:${name}`, [
      `if ${what} and rules that are left out let it through`,
      `if ${what} or a rule that is left out does not let it through`,
    ])
      ? 'accept'
      : {outcome: 'unknown', reason: `${what} and rules that are left out may do anything`}
  }

  private afterCut(walker: Walker): Verdict {
    const what = `the dump of ${this.owner.table.name}/${this.chain.name} is cut`
    return walker.assume(`cut:${this.owner.dump.file}:${this.owner.table.name}/${this.chain.name}`, [
      `if no rule is missing where ${what}`,
      `if a rule is missing where ${what}`,
    ])
      ? 'return'
      : {outcome: 'unknown', reason: `${what}: rules behind it may do anything`}
  }

  /** The rules that the packet can meet at all; undefined: any. */
  private candidates(walker: Walker): readonly number[] | undefined {
    if (this.chain.length < INDEX_FROM) return undefined
    const {dst, dport} = walker.packet
    if (dst === 'client') return undefined
    this.index ??= buildIndex(this.chain)
    return this.index.candidates(dst, dport)
  }

  private ruleAt(at: number): Compiled {
    return (this.compiled[at] ??= this.compile(this.chain.rule(at)))
  }

  private compile(rule: IptablesRule): Compiled {
    const where = this.owner.where(rule.chain, rule.number)
    const context = {where, rule}
    const tests: Test[] = []
    const open: string[] = []
    const add = (test: Test | Unmodelled): void => {
      if ('unmodelled' in test) open.push(test.unmodelled)
      else if (test !== always) tests.push(test)
    }
    basicTests(rule, where, add)
    for (const match of rule.matches) add(matchTest(match, context))
    const action = rule.target && targetAction(rule.target)
    const call = rule.target && action === undefined ? this.owner.chain(rule.target.name) : undefined
    if (rule.problem) open.unshift(rule.problem)
    return {
      rule,
      where,
      open,
      call,
      tests,
      action: action === undefined ? undefined : 'unmodelled' in action ? unmodelledAction(action.unmodelled) : action,
      missingChain: rule.target !== undefined && action === undefined && call === undefined,
    }
  }

  private matches(walker: Walker, {tests, open, where, rule, action, call, missingChain}: Compiled): boolean {
    for (const test of tests) if (!test(walker)) return false
    if (open.length === 0) return true
    if (
      !rule.problem &&
      (rule.target === undefined || (action && isHarmless(action)) || (call?.isEmpty ?? false)) &&
      !missingChain
    )
      return false
    return walker.unknownMatch(where, open.join(', '))
  }

  private perform(walker: Walker, compiled: Compiled): Verdict {
    const {rule, where, action, call} = compiled
    if (rule.problem)
      return {outcome: 'unknown', reason: `${where} is not understood: ${rule.problem} (${rule.file}:${rule.line})`}
    if (!rule.target) return 'continue'
    if (walker.steps)
      walker.hop('rule', rule.text, {where, evidence: {source: rule.file, line: rule.line, text: rule.text}})
    if (action) return action(walker, where)
    return call ? this.enter(walker, call, rule) : this.missing(walker, compiled)
  }

  private enter(walker: Walker, call: ChainProgram, rule: IptablesRule): Verdict {
    const verdict = walker.call(call)
    if (verdict !== 'return') return verdict
    return rule.target!.goto ? 'return' : 'continue'
  }

  private missing(walker: Walker, {rule, where}: Compiled): Verdict {
    const name = rule.target!.name
    const returns = walker.assume(`chain:${this.owner.table.name}/${name}:${walker.hook}:${walker.packet.reply}`, [
      `if ${name}, which is not in the dump, returns`,
      `if ${name}, which is not in the dump, does something else`,
    ])
    return returns ? 'continue' : {outcome: 'unknown', reason: `${where} calls ${name}, which is not in the dump`}
  }
}

const unmodelledAction =
  (what: string): Action =>
  (walker, where) => ({outcome: 'unknown', reason: `${where} on ${walker.machine.name}: ${what} is not modelled`})

/** Finds the rules of a long chain that a destination can meet at all, in their order. */
interface RuleIndex {
  candidates(dst: Address, dport: number): readonly number[]
}

function buildIndex(chain: IptablesChain): RuleIndex {
  const byDestination = new Map<Address, number[]>()
  const byPort = new Map<number, number[]>()
  const others: number[] = []
  for (let at = 0; at < chain.length; at++) {
    const rule = chain.rule(at)
    const range =
      rule.destination && !rule.destination.not && !rule.problem ? parseRange(rule.destination.value) : undefined
    const port = rule.problem ? undefined : exactPort(rule)
    if (range && range.lo === range.hi) push(byDestination, range.lo, at)
    else if (port !== undefined) push(byPort, port, at)
    else others.push(at)
  }
  // the packets of one Service come one after the other
  let last: {dst: Address; dport: number; found: readonly number[]} | undefined
  return {
    candidates: (dst, dport) => {
      if (last?.dst !== dst || last.dport !== dport) {
        const found = [...(byDestination.get(dst) ?? []), ...(byPort.get(dport) ?? []), ...others]
        last = {dst, dport, found: found.sort((a, b) => a - b)}
      }
      return last.found
    },
  }
}

function push<K>(map: Map<K, number[]>, key: K, at: number): void {
  const known = map.get(key)
  if (known) known.push(at)
  else map.set(key, [at])
}

function exactPort(rule: IptablesRule): number | undefined {
  for (const {module, options} of rule.matches) {
    if (module !== 'tcp' && module !== 'udp' && module !== 'sctp') continue
    const dport = options.find(({name, not}) => (name === 'dport' || name === 'destination-port') && !not)?.values[0]
    if (dport !== undefined && /^\d+$/.test(dport)) return Number(dport)
  }
  return undefined
}

export {isEnd}
