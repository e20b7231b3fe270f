import {IptablesChain, type IptablesDump, type IptablesTable, type RawRule} from './iptables-chain.js'

/** Rules without their `*table` line: what `iptables -S` prints, and what people cut out of a dump. */

const NAT_ONLY = /-[jg] (DNAT|SNAT|MASQUERADE|REDIRECT|NETMAP)\b/
const FILTER_ONLY = /-[jg] REJECT\b/

/** The orders in which `iptables -S` prints the policies of a table, before its chains and rules: the kernel's, and that of iptables-nft for nat. */
const ORDERS = [
  ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  ['PREROUTING', 'INPUT', 'FORWARD', 'POSTROUTING', 'OUTPUT'],
]

/** A listing without a `*table` line. */
export class Pasted {
  readonly table: IptablesTable
  /** The table that the command before it names. */
  readonly asked: string | undefined
  readonly sorted: boolean
  private hasChains = false
  private hasRules = false
  private readonly hooks: string[] = []

  constructor(table: IptablesTable, {asked, sorted}: {asked: string | undefined; sorted: boolean}) {
    this.table = table
    this.asked = asked
    this.sorted = sorted
  }

  sawRule(): void {
    this.hasRules = true
  }

  sawChain(): void {
    this.hasChains = true
  }

  sawPolicy(hook: string): void {
    this.hooks.push(hook)
  }

  /** Can `-P` of this hook not belong to the same listing? */
  isBehind(hook: string): boolean {
    if (this.hasRules || this.hasChains) return true
    const places = [...this.hooks, hook]
    return !ORDERS.some((order) =>
      places.every((name, at) => at === 0 || order.indexOf(name) > order.indexOf(places[at - 1]!)),
    )
  }
}

type InNat = (chain: string) => boolean

/** Listings that are whole tables, then one of all that is not: chains that belong together may stand in several. */
export function sortListings(dump: IptablesDump, all: readonly Pasted[], inNat: InNat): void {
  const whole = all.filter(({asked, table}) => asked !== undefined || tableOfHooks(table.chains) !== undefined)
  for (const pasted of whole) sortHeaderless(dump, pasted, inNat)
  const pieces = all.filter((pasted) => !whole.includes(pasted))
  const [first, ...others] = pieces
  if (!first) return
  for (const {table} of others) mergeInto(dump, first.table, table)
  sortHeaderless(dump, first, inNat)
}

function mergeInto(dump: IptablesDump, table: IptablesTable, {chains, complete}: IptablesTable): void {
  if (!complete) table.complete = false
  for (const [name, chain] of chains) {
    const known = table.chains.get(name) ?? new IptablesChain(dump, table.name, name)
    table.chains.set(name, known)
    known.policy ??= chain.policy
    known.declared ||= chain.declared
    known.cut ||= chain.cut
    known.line ||= chain.line
    for (const {line, text, problem} of chain.texts) known.append(line, text, problem)
  }
}

/** `iptables -S | sort`: rules first, in an order that says nothing, then their chains. */
export function isSorted(text: string): boolean {
  if (/^\*[a-z]/m.test(text)) return false
  const [rule, chain] = [text.search(/^-A /m), text.search(/^-[NP] /m)]
  return rule >= 0 && chain > rule && chain > text.lastIndexOf('\n-A ')
}

const SORTED = 'its line went through sort: the order of the rules is not known'

export function forgetOrder({chains}: IptablesTable): void {
  for (const {length, texts} of chains.values()) if (length > 1) for (const rule of texts) rule.problem ??= SORTED
}

/** All hooks of a table; nat had no INPUT once. */
const TABLES: readonly (readonly [hooks: string, table: string])[] = [
  ['FORWARD INPUT OUTPUT', 'filter'],
  ['INPUT OUTPUT POSTROUTING PREROUTING', 'nat'],
  ['OUTPUT POSTROUTING PREROUTING', 'nat'],
  ['FORWARD INPUT OUTPUT POSTROUTING PREROUTING', 'mangle'],
  ['OUTPUT PREROUTING', 'raw'],
]

/** The one table that has just these hooks (`iptables -S` names all of a table's). */
function tableOfHooks(chains: ReadonlyMap<string, IptablesChain>): string | undefined {
  const hooks = [...chains.values()].flatMap(({name, policy}) => (policy === undefined ? [] : name)).sort()
  const table = TABLES.find(([all]) => all === hooks.join(' '))?.[1]
  const isOther = table === 'nat' ? FILTER_ONLY : NAT_ONLY
  for (const {texts} of chains.values()) if (texts.some(({text}) => isOther.test(text))) return undefined
  return table
}

/**
 * Rules pasted without a `*table` line: their table follows from the command before them or the hooks that they name, else a
 * chain's from targets and hooks that exist in one table only, and from the chains that it calls or is called by.
 */
function sortHeaderless(dump: IptablesDump, {table: headerless, asked}: Pasted, inNat: InNat): void {
  dump.partial = true
  const tableOf = new Map<string, string>()
  const whole = asked ?? tableOfHooks(headerless.chains)
  if (whole !== undefined) for (const name of headerless.chains.keys()) tableOf.set(name, whole)
  const seed = (test: (name: string, texts: readonly string[]) => boolean, table: string): void => {
    for (const [name, chain] of headerless.chains)
      if (
        !tableOf.has(name) &&
        test(
          name,
          chain.texts.map(({text}) => text),
        )
      )
        tableOf.set(name, table)
    spreadTables(tableOf, headerless.chains)
  }
  seed(
    (name, texts) =>
      name === 'PREROUTING' ||
      name === 'POSTROUTING' ||
      inNat(name) ||
      texts.some((text) => NAT_ONLY.test(text) || inNat(/ -[jg] (\S+)/.exec(text)?.[1] ?? '')),
    'nat',
  )
  seed((name, texts) => name === 'FORWARD' || texts.some((text) => FILTER_ONLY.test(text)), 'filter')
  for (const chain of headerless.chains.values())
    moveTo(dump, tableOf.get(chain.name) ?? dump.tables.keys().next().value ?? 'filter', {chain, headerless})
}

function moveTo(
  dump: IptablesDump,
  tableName: string,
  {chain, headerless}: {chain: IptablesChain; headerless: IptablesTable},
): void {
  const {name} = chain
  const table = dump.tables.get(tableName) ?? {
    name: tableName,
    chains: new Map<string, IptablesChain>(),
    complete: true,
  }
  dump.tables.set(tableName, table)
  if (!headerless.complete) table.complete = false
  const known = table.chains.get(name)
  if (known?.declared && chain.declared) {
    table.complete = false
    for (const one of table.chains.values()) one.cut = true
  }
  const moved = known ?? new IptablesChain(dump, tableName, name)
  moved.cut ||= chain.cut
  moved.declared ||= chain.declared
  moved.policy ??= chain.policy
  moved.line ||= chain.line
  for (const {line, text, problem} of chain.texts)
    if (tableName !== 'nat' || !FILTER_ONLY.test(text)) moved.append(line, text, problem)
  table.chains.set(name, moved)
  const rejects = tableName === 'nat' ? chain.texts.filter(({text}) => FILTER_ONLY.test(text)) : []
  if (rejects.length > 0) addTo(dump, 'filter', {name, rules: rejects})
  dump.problems.push({
    file: dump.file,
    line: chain.line || (chain.texts[0]?.line ?? 0),
    message: `chain ${name} stands outside any *table; taken for table ${tableName}`,
  })
}

/** The rules of a chain of the same name that can only be in another table. */
function addTo(dump: IptablesDump, tableName: string, {name, rules}: {name: string; rules: readonly RawRule[]}): void {
  const table = dump.tables.get(tableName) ?? {
    name: tableName,
    chains: new Map<string, IptablesChain>(),
    complete: true,
  }
  dump.tables.set(tableName, table)
  const chain = table.chains.get(name) ?? new IptablesChain(dump, tableName, name)
  for (const {line, text} of rules) chain.append(line, text)
  table.chains.set(name, chain)
}

/** Chains that call each other are in one table. */
function spreadTables(tableOf: Map<string, string>, chains: ReadonlyMap<string, IptablesChain>): void {
  const near = new Map<string, string[]>()
  const join = (a: string, b: string): void => void near.set(a, [...(near.get(a) ?? []), b])
  for (const [name, chain] of chains) {
    for (const called of new Set(chain.texts.flatMap(({text}) => /-[jg] (\S+)/.exec(text)?.[1] ?? []))) {
      if (!chains.has(called)) continue
      join(name, called)
      join(called, name)
    }
  }
  const queue = [...tableOf.keys()]
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    for (const other of near.get(name) ?? []) {
      if (tableOf.has(other)) continue
      tableOf.set(other, tableOf.get(name)!)
      queue.push(other)
    }
  }
}
