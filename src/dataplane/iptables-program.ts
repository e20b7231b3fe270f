import type {IptablesRule} from '../parse/iptables-rule.js'
import type {IptablesChain, IptablesDump, IptablesTable} from '../parse/iptables.js'
import {parseRange, type Address} from '../util/ip.js'
import {table} from '../util/table.js'
import {basicTests, matchTest, type Test, type Unmodelled} from './iptables-matches.js'
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
  private readonly chains = new Map<string, ChainProgram>()

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

  /** Lets go of rules that are ready to run: in a large table most are needed for one Service only. */
  forget(): void {
    for (const [name, program] of this.chains)
      if (program.isLong) program.forget()
      else this.chains.delete(name)
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
    for (const at of this.candidates(walker)) {
      const rule = this.ruleAt(at)
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

  private afterCut(walker: Walker): Verdict {
    const what = `the dump of ${this.owner.table.name}/${this.chain.name} is cut`
    return walker.assume(`cut:${this.owner.dump.file}:${this.owner.table.name}/${this.chain.name}`, [
      `if no rule is missing where ${what}`,
      `if a rule is missing where ${what}`,
    ])
      ? 'return'
      : {outcome: 'unknown', reason: `${what}: rules behind it may do anything`}
  }

  private candidates(walker: Walker): Iterable<number> {
    const {length} = this.chain
    const {dst, dport} = walker.packet
    if (length < INDEX_FROM || dst === 'client') return sequence(length)
    this.index ??= buildIndex(this.chain)
    return this.index.candidates(dst, dport)
  }

  private ruleAt(at: number): Compiled {
    return (this.compiled[at] ??= this.compile(this.chain.rule(at)))
  }

  private compile(rule: IptablesRule): Compiled {
    const where = this.owner.where(rule.chain, rule.number)
    const context = {where, rule}
    const all: (Test | Unmodelled)[] = [
      ...basicTests(rule, where),
      ...rule.matches.map((match) => matchTest(match, context)),
    ]
    const open = all.flatMap((test) => ('unmodelled' in test ? [test.unmodelled] : []))
    const action = rule.target && targetAction(rule.target)
    const call = rule.target && action === undefined ? this.owner.chain(rule.target.name) : undefined
    if (rule.problem) open.unshift(rule.problem)
    return {
      rule,
      where,
      open,
      call,
      tests: all.filter((test): test is Test => !('unmodelled' in test)),
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

function* sequence(length: number): Iterable<number> {
  for (let at = 0; at < length; at++) yield at
}

/** Finds the rules of a long chain that a destination can meet at all, in their order. */
interface RuleIndex {
  candidates(dst: Address, dport: number): Iterable<number>
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
  const none: number[] = []
  return {candidates: (dst, dport) => merge(byDestination.get(dst) ?? none, byPort.get(dport) ?? none, others)}
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

/** Merges ascending lists. */
function* merge(...lists: readonly number[][]): Iterable<number> {
  const at = lists.map(() => 0)
  for (;;) {
    let best = -1
    for (let list = 0; list < lists.length; list++) {
      const candidate = lists[list]![at[list]!]
      if (candidate !== undefined && (best < 0 || candidate < lists[best]![at[best]!]!)) best = list
    }
    if (best < 0) return
    yield lists[best]![at[best]!++]!
  }
}

export {isEnd}
