import {parseRule, type IptablesRule} from './iptables-rule.js'
import {askedTable, hasNotes, isLeftOut, PROMPT, withoutNote} from './pasted.js'
import type {Problem} from './problem.js'
import {splitWords} from './tokens.js'

/** A rule's line before its words are looked into. */
interface RawRule {
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
}

/** Another table of the kernel, which the tool names and cannot print: native nftables rules, or those of the legacy backend. */
export type Hidden = {readonly kind: 'native'; readonly table: string} | {readonly kind: 'legacy'}

const COUNTERS = /^\[\d+:\d+\]\s*/
/** Blanks that are none: tabs, which iptables-restore takes as well, and those that web pages make of blanks. */
const ODD_BLANK = /[\t\u00a0\u2007\u202f]/
/** What iptables-nft says of tables of the other backend (iptables, nft-shared.c). */
export const LEGACY_PRESENT = /tables-legacy tables present/
/** A chain that a damaged line names. */
const NAMED_CHAINS = /(?:^|[^\w-])(?:-A|-I|--append|--insert|[–—]A)\s+([\w.:-]+)/g
const HEADERLESS = ''
/** A rule that was wrapped over more lines than this is given up. */
const MOST_JOINED = 8

/** Parses `iptables-save`, with or without `-c`. Rules are parsed when their chain is first walked; `share` makes equal lines one. */
export function parseIptablesSave(text: string, file: string, share = (line: string): string => line): IptablesDump {
  const dump: IptablesDump = {file, tables: new Map(), problems: [], hidden: []}
  const reader = new SaveReader(dump, share, isSorted(text))
  if (ODD_BLANK.test(text)) text = text.replaceAll(new RegExp(ODD_BLANK, 'g'), ' ')
  if (hasNotes(text)) text = text.split('\n').map(withoutNote).join('\n')
  if (isBehindHashes(text)) dump.problems.push({file, line: 1, message: BEHIND_HASHES})
  let start = 0
  let number = 0
  while (start < text.length) {
    let end = text.indexOf('\n', start)
    if (end < 0) end = text.length
    reader.read(text.charCodeAt(end - 1) === 13 ? text.slice(start, end - 1) : text.slice(start, end), ++number)
    start = end + 1
  }
  reader.finish(number)
  return dump
}

/** Somebody has put the sign of a remark in front of every line, rules and all. */
export const isBehindHashes = (text: string): boolean =>
  /^\s*#\s*(-A \S+ |\*(nat|filter)\b|:[A-Z-]+ |Chain \S+ \()/m.test(text) && !/^\s*[^#\s]/m.test(text)
export const BEHIND_HASHES = 'not a line of iptables: nothing but remarks, the rules are behind # signs'

/** What iptables itself says of what it prints, and of what it cannot print (iptables, nft-shared.c, xtables-save.c). */
export function readRemark(dump: IptablesDump, line: string, number: number): void {
  if (/nf_tables|xtables-save/.test(line)) dump.backend = 'nft'
  else if (!line.startsWith('# Warning') && /tables-save v1\.8\.\d+ on|legacy/.test(line)) dump.backend ??= 'legacy'
  if (LEGACY_PRESENT.test(line)) {
    dump.backend = 'nft'
    dump.hidden.push({kind: 'legacy'})
  }
  const [, table] = /Table `?([a-z]+)'? (?:is incompatible|contains incompatible base-chains)/.exec(line) ?? []
  if (table === undefined) return
  dump.hidden.push({kind: 'native', table})
  const message = `table ${table} holds native nftables rules that iptables cannot show`
  dump.problems.push({file: dump.file, line: number, message, text: line})
}

class SaveReader {
  private table: IptablesTable | undefined
  private chain: IptablesChain | undefined
  private open: {chain: IptablesChain; line: number; text: string; joined: number} | undefined
  private lost: RawRule[] = []
  private everLost: RawRule[] = []
  /** Rules without a *table line: each listing is a table of its own. */
  private readonly pasted: Pasted[] = []
  /** What the command before it says of the next listing. */
  private asked: ReturnType<typeof askedTable>
  private readonly dump: IptablesDump
  private readonly share: (text: string) => string
  private readonly isSorted: boolean

  constructor(dump: IptablesDump, share: (text: string) => string, sorted: boolean) {
    this.isSorted = sorted
    this.dump = dump
    this.share = share
  }

  read(raw: string, number: number): void {
    if (raw.startsWith('-A ') && !raw.includes('"') && !raw.includes(' -A ')) return this.rule(raw, number)
    const line = raw.trim().replace(COUNTERS, '').trim()
    if (this.open && this.continues(line)) return
    if (line === '') return
    if (line.startsWith('-A ') || line.startsWith('--append ') || line.startsWith('-I '))
      return this.rules(line, number)
    this.flush()
    if (line.startsWith('#')) this.remark(line, number)
    else if (/^\*[a-z]+$/.test(line)) this.begin(line.slice(1), number)
    else if (line.startsWith(':')) this.declare(line, number)
    else if (line === 'COMMIT') this.commit()
    else if (/^(-P|-N) \S+/.test(line)) this.command(line, number)
    else this.strange(line, number)
  }

  finish(number: number): void {
    this.flush()
    if (this.table && this.table.name !== HEADERLESS) this.cut(this.table, number, 'the dump ends before COMMIT')
    for (const pasted of this.pasted) {
      if (pasted.sorted || this.isSorted) forgetOrder(pasted.table)
      sortHeaderless(this.dump, pasted)
    }
  }

  private begin(name: string, number: number): void {
    if (this.table && this.table.name !== HEADERLESS)
      this.cut(this.table, number, `table ${this.table.name} has no COMMIT before the next table`)
    const again = this.dump.tables.has(name)
    this.table = this.tableNamed(name)
    if (again)
      this.cut(this.table, number, `table ${name} stands twice in one dump: two hosts or families in one file?`)
    this.chain = undefined
  }

  private tableNamed(name: string): IptablesTable {
    const known = this.dump.tables.get(name)
    if (known) return known
    const table: IptablesTable = {name, chains: new Map(), complete: true}
    this.dump.tables.set(name, table)
    return table
  }

  /** iptables-save names every built-in chain of a table; what kube-proxy feeds to iptables-restore names none. */
  private checkBuiltIn(table: IptablesTable): void {
    if (table.name === HEADERLESS || table.chains.size === 0) return
    if ([...table.chains.values()].some(({policy}) => policy !== undefined)) return
    this.dump.partial = true
    this.cut(table, 0, `table ${table.name} has no built-in chain: this is not the whole of it`)
  }

  private cut(table: IptablesTable, line: number, message: string): void {
    table.complete = false
    for (const chain of table.chains.values()) chain.cut = true
    this.dump.problems.push({file: this.dump.file, line, message})
  }

  private commit(): void {
    for (const chain of this.table?.chains.values() ?? []) chain.trim()
    this.loseEmpty()
    if (this.table) this.checkBuiltIn(this.table)
    this.table = undefined
    this.chain = undefined
  }

  private chainNamed(name: string): IptablesChain {
    const table = (this.table ??= this.paste())
    const known = table.chains.get(name)
    if (known) return known
    const chain = new IptablesChain(this.dump, table.name, this.share(name))
    table.chains.set(chain.name, chain)
    return chain
  }

  private paste(): IptablesTable {
    const table: IptablesTable = {name: HEADERLESS, chains: new Map(), complete: true}
    this.pasted.push({table, asked: this.asked?.table, sorted: this.asked?.sorted ?? false})
    this.asked = undefined
    return table
  }

  private declare(line: string, number: number): void {
    const match = /^:(\S+)(?: (\S+))?(?: \[\d+:\d+\])?$/.exec(line)
    if (!match) return this.strange(line, number)
    const chain = this.chainNamed(match[1]!)
    chain.declared = true
    chain.line = number
    if (match[2] && match[2] !== '-') chain.policy = match[2]
  }

  /** `-P CHAIN POLICY` and `-N CHAIN`, as `iptables -S` prints them. */
  private command(line: string, number: number): void {
    const [kind, name, policy] = line.split(/\s+/)
    if (this.table?.name === HEADERLESS && !this.isSorted && beginsListing(this.table, kind!, name!))
      this.table = undefined
    const chain = this.chainNamed(name!)
    chain.declared = true
    chain.line = number
    if (kind === '-P' && policy) chain.policy = policy
  }

  private remark(line: string, number: number): void {
    readRemark(this.dump, line, number)
    if (askedTable(line)) return this.prompt(line, number)
    if (this.table && isLeftOut(line)) this.cut(this.table, number, 'somebody left lines out here')
  }

  /** One rule, or several whose line ends were lost. */
  private rules(line: string, number: number): void {
    if (!line.includes(' -A ')) return this.rule(line, number)
    const {words, quoted} = splitWords(line)
    if (!words.some((word, at) => at > 0 && word === '-A' && !quoted.has(at))) return this.rule(line, number)
    this.dump.problems.push({
      file: this.dump.file,
      line: number,
      message: 'several rules in one line: line ends were lost',
      text: line,
    })
    for (const part of line.split(/ (?=-A \S+ )/)) this.rule(part, number)
  }

  private rule(line: string, number: number): void {
    this.flush()
    const from = line.indexOf(' ') + 1
    const to = line.indexOf(' ', from)
    const name = to < 0 ? line.slice(from) : line.slice(from, to)
    const chain = this.chainNamed(name)
    if (this.lost.length > 0 && chain !== this.chain && chain.length === 0) this.loseIn(chain)
    this.chain = chain
    if (line.includes('"') && !splitWords(line).closed)
      this.open = {chain: this.chain, line: number, text: line, joined: 0}
    else if (line.startsWith('-I ')) this.chain.prepend(number, line.replace(/^-I (\S+)(?: 1(?= |$))?/, '-A $1'))
    else this.chain.append(number, this.share(line))
  }

  /** Joins a rule that was wrapped inside a quote to its next line. */
  private continues(line: string): boolean {
    const open = this.open!
    if (/^(-A |-I |:|\*|COMMIT$|#)/.test(line) || line === '' || ++open.joined > MOST_JOINED) return false
    open.text += ` ${line}`
    if (splitWords(open.text).closed) {
      open.chain.append(open.line, open.text)
      this.open = undefined
    }
    return true
  }

  private flush(): void {
    if (!this.open) return
    this.open.chain.append(this.open.line, this.open.text)
    this.open = undefined
  }

  /**
   * A line that is nothing we know. Behind a rule it may be that rule's wrapped end; else, inside a table, it may have
   * been a rule, so it stays in the chain as one that may do anything.
   */
  private strange(line: string, number: number): void {
    this.dump.problems.push({file: this.dump.file, line: number, message: 'not a line of iptables-save', text: line})
    if (PROMPT.test(line)) return this.prompt(line, number)
    if (this.table && isLeftOut(line)) return this.cut(this.table, number, 'somebody left lines out here')
    const bare = line.replaceAll(/"[^"]*"?/g, '')
    const named = [...bare.matchAll(NAMED_CHAINS)]
    for (const [, chain] of named) this.chainNamed(chain!).append(number, line, MAY_BE_A_RULE)
    // with nothing but signs and numbers before it, the name is the line's own
    if (named.length > 0 && !/[a-z]/i.test(bare.slice(0, named[0]!.index))) return
    if (!this.table) return
    const before = this.chain?.last
    if (before && before.problem === undefined && /^(-|!)/.test(line) && !/ -[jg] /.test(before.text))
      before.text += ` ${line}`
    else this.lose(number, line)
  }

  /** Another command begins: between listings nothing is lost, inside a table its end is. */
  private prompt(line: string, number: number): void {
    this.chain = undefined
    if (this.table && this.table.name !== HEADERLESS)
      return this.cut(this.table, number, 'a prompt stands before COMMIT')
    this.asked = askedTable(line)
    if (this.asked) this.table = undefined
  }

  /** Lines that may have been rules, of the chain before them or of any that follows up to the next rule. */
  private lose(line: number, text: string): void {
    this.chain?.append(line, text, MAY_BE_A_RULE)
    this.lost.push({line, text})
    this.everLost.push({line, text})
  }

  private loseIn(chain: IptablesChain): void {
    for (const {line, text} of this.lost) chain.append(line, text, MAY_BE_A_RULE)
    this.lost = []
  }

  /** At a table's end: chains without a rule may be those that lines were lost of. */
  private loseEmpty(): void {
    if (this.everLost.length > 0)
      for (const chain of this.table?.chains.values() ?? [])
        if (chain.length === 0) for (const {line, text} of this.everLost) chain.append(line, text, MAY_BE_A_RULE)
    this.lost = []
    this.everLost = []
  }
}

const MAY_BE_A_RULE = 'not a line of iptables-save; it may have been a rule'

const NAT_ONLY = /-[jg] (DNAT|SNAT|MASQUERADE|REDIRECT|NETMAP)\b/
const FILTER_ONLY = /-[jg] REJECT\b/

/** A listing without a `*table` line. */
interface Pasted {
  readonly table: IptablesTable
  /** The table that the command before it names. */
  readonly asked: string | undefined
  readonly sorted: boolean
}

/** The order in which `iptables -S` prints the policies of a table, before its chains and rules. */
const HOOKS = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']

/** What comes out of this order begins another listing. */
function beginsListing({chains}: IptablesTable, kind: string, name: string): boolean {
  const all = [...chains.values()]
  if (all.some(({length}) => length > 0)) return true
  if (kind === '-N') return chains.has(name)
  return all.some(({policy, name: other}) => policy === undefined || HOOKS.indexOf(other) >= HOOKS.indexOf(name))
}

/** `iptables -S | sort`: rules first, in an order that says nothing, then their chains. */
function isSorted(text: string): boolean {
  const rule = text.lastIndexOf('\n-A ')
  const chain = text.search(/^-[NP] /m)
  return chain > 0 && text.startsWith('-A ') && rule < chain && !/^\*[a-z]/m.test(text)
}

const SORTED = 'its line went through sort: the order of the rules is not known'

function forgetOrder({chains}: IptablesTable): void {
  for (const {length, texts} of chains.values()) if (length > 1) for (const rule of texts) rule.problem ??= SORTED
}

/** The one table that has just these hooks (`iptables -S` names all of a table's). */
function tableOfHooks(chains: ReadonlyMap<string, IptablesChain>): string | undefined {
  const hooks = new Set([...chains.values()].filter(({policy}) => policy !== undefined).map(({name}) => name))
  if (hooks.size === 0) return undefined
  const rules = [...chains.values()].flatMap(({texts}) => texts.map(({text}) => text))
  const translates = rules.some((text) => NAT_ONLY.test(text))
  if (hooks.has('PREROUTING') && hooks.has('FORWARD')) return translates ? undefined : 'mangle'
  if (hooks.has('POSTROUTING')) return rules.some((text) => FILTER_ONLY.test(text)) ? undefined : 'nat'
  if (hooks.has('PREROUTING')) return translates ? 'nat' : hooks.has('OUTPUT') ? 'raw' : undefined
  return translates ? undefined : 'filter'
}

/**
 * Rules pasted without a `*table` line: their table follows from the command before them or the hooks that they name, else a
 * chain's from targets and hooks that exist in one table only, and from the chains that it calls or is called by.
 */
function sortHeaderless(dump: IptablesDump, {table: headerless, asked}: Pasted): void {
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
    (name, texts) => name === 'PREROUTING' || name === 'POSTROUTING' || texts.some((text) => NAT_ONLY.test(text)),
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
