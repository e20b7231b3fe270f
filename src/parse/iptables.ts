import {IptablesChain, type IptablesDump, type IptablesTable, type RawRule} from './iptables-chain.js'
import {forgetOrder, isSorted, Pasted, sortListings} from './iptables-headerless.js'
import {askedTable, hasNotes, isLeftOut, isPrompt, withoutNote} from './pasted.js'
import type {IptablesOptions} from './iptables-forms.js'
import {splitWords} from './tokens.js'

export {IptablesChain, type Hidden, type IptablesDump, type IptablesTable} from './iptables-chain.js'

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

/**
 * Parses `iptables-save`, with or without `-c`. Rules are parsed when their chain is first walked; `share` makes equal lines
 * one, `inNat` knows chains that are in the nat table, for listings that do not name their table.
 */
export function parseIptablesSave(
  text: string,
  file: string,
  {share = (line) => line, inNat = () => false}: Pick<IptablesOptions, 'share' | 'inNat'> = {},
): IptablesDump {
  const dump: IptablesDump = {file, tables: new Map(), problems: [], hidden: []}
  const reader = new SaveReader(dump, {share, inNat}, isSorted(text))
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
  !/^\s*[^#\s]/m.test(text) && /^\s*#\s*(-A \S+ |\*(nat|filter)\b|:[A-Z-]+ |Chain \S+ \()/m.test(text)
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
  private readonly inNat: (chain: string) => boolean
  private readonly isSorted: boolean

  constructor(dump: IptablesDump, {share, inNat}: Required<Pick<IptablesOptions, 'share' | 'inNat'>>, sorted: boolean) {
    this.isSorted = sorted
    this.dump = dump
    this.share = share
    this.inNat = inNat
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
    for (const {sorted, table} of this.pasted) if (sorted || this.isSorted) forgetOrder(table)
    sortListings(this.dump, this.pasted, this.inNat)
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

  /** The listing without a `*table` line that lines are read of. */
  private get listing(): Pasted | undefined {
    return this.table?.name === HEADERLESS ? this.pasted.at(-1) : undefined
  }

  private paste(): IptablesTable {
    const table: IptablesTable = {name: HEADERLESS, chains: new Map(), complete: true}
    this.pasted.push(new Pasted(table, {asked: this.asked?.table, sorted: this.asked?.sorted ?? false}))
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
    const listing = this.listing
    if (
      listing &&
      !this.isSorted &&
      (kind === '-P' ? listing.isBehind(name!) : listing.table.chains.get(name!)?.declared)
    )
      this.table = undefined
    const chain = this.chainNamed(name!)
    chain.declared = true
    chain.line = number
    if (kind === '-P' && policy) chain.policy = policy
    if (kind === '-P') this.listing?.sawPolicy(name!)
    else this.listing?.sawChain()
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
    this.listing?.sawRule()
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
    if (isPrompt(line) && !LEGACY_PRESENT.test(line) && !BROKEN_OFF.test(line)) return this.prompt(line, number)
    this.dump.problems.push({file: this.dump.file, line: number, message: 'not a line of iptables-save', text: line})
    if (LEGACY_PRESENT.test(line)) return readRemark(this.dump, line, number)
    if (!this.table && BROKEN_OFF.test(line)) this.dump.brokenOff ??= number
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

/** What a shell, kubectl or ssh says when a command ends before its time. */
const BROKEN_OFF =
  /\bterminated\b|\bkilled\b|exit (code|status)|broken pipe|timed out|connection (closed|lost|reset)|closed by remote host/i

const MAY_BE_A_RULE = 'not a line of iptables-save; it may have been a rule'
