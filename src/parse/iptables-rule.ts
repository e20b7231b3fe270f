import {parseAddress} from '../util/ip.js'
import {table} from '../util/table.js'
import {splitWords, type Words} from './tokens.js'

/** One `--option value…` of a match or a target, with the `!` before it. */
export interface RuleOption {
  /** Without its dashes: `dport`, `to-destination`. */
  readonly name: string
  readonly not: boolean
  readonly values: readonly string[]
}

/** `-m module` with its options, in the order of the dump. */
export interface RuleMatch {
  readonly module: string
  readonly options: RuleOption[]
}

export interface RuleTarget {
  readonly name: string
  /** `-g`: the called chain's end returns to our caller, not to us. */
  readonly goto: boolean
  readonly options: RuleOption[]
}

export interface Negatable {
  readonly not: boolean
  readonly value: string
}

/** One rule, its words sorted but not interpreted. Source: iptables(8), iptables-extensions(8). */
export interface IptablesRule {
  readonly table: string
  readonly chain: string
  /** 1-based, as `iptables -L --line-numbers` counts. */
  readonly number: number
  readonly file: string
  readonly line: number
  readonly text: string
  protocol: Negatable | undefined
  source: Negatable | undefined
  destination: Negatable | undefined
  inInterface: Negatable | undefined
  outInterface: Negatable | undefined
  fragment: Negatable | undefined
  readonly matches: RuleMatch[]
  target: RuleTarget | undefined
  /** Why this rule is not understood as a whole; it may do anything then. */
  problem: string | undefined
}

/** Where a rule stands. */
type Place = Pick<IptablesRule, 'table' | 'chain' | 'number' | 'file' | 'line'>

/** A rule that says nothing yet. Every rule has all fields from the start: a large dump has hundreds of thousands of them. */
export const newRule = ({table: name, chain, number, file, line}: Place, text: string): IptablesRule => ({
  table: name,
  chain,
  number,
  file,
  line,
  text,
  protocol: undefined,
  source: undefined,
  destination: undefined,
  inInterface: undefined,
  outInterface: undefined,
  fragment: undefined,
  matches: [],
  target: undefined,
  problem: undefined,
})

const NO_VALUE = [
  'syn',
  'set',
  'rcheck',
  'update',
  'remove',
  'rsource',
  'rdest',
  'reap',
  'rttl',
  'physdev-is-in',
  'physdev-is-out',
  'physdev-is-bridged',
  'random',
  'random-fully',
  'persistent',
  'notrack',
  'save-mark',
  'restore-mark',
  'ipvs',
  'clamp-mss-to-pmtu',
  'limit-iface-in',
  'limit-iface-out',
  'loose',
  'validmark',
  'accept-local',
  'invert',
  'return-nomatch',
  'strict',
  'next',
  'exist',
  'transparent',
  'nowildcard',
  'restore-skmark',
  'socket-exists',
]
const TWO_VALUES = ['tcp-flags', 'match-set', 'add-set', 'del-set', 'map-set']
const ONE_VALUE = [
  'dport',
  'sport',
  'destination-port',
  'source-port',
  'dports',
  'sports',
  'ports',
  'destination-ports',
  'source-ports',
  'comment',
  'pkt-type',
  'mark',
  'ctstate',
  'state',
  'ctproto',
  'ctorigsrc',
  'ctorigdst',
  'ctreplsrc',
  'ctrepldst',
  'ctorigsrcport',
  'ctorigdstport',
  'ctreplsrcport',
  'ctrepldstport',
  'ctstatus',
  'ctdir',
  'probability',
  'mode',
  'every',
  'packet',
  'seconds',
  'hitcount',
  'name',
  'mask',
  'to-destination',
  'to-source',
  'to-ports',
  'to',
  'set-mark',
  'set-xmark',
  'and-mark',
  'or-mark',
  'xor-mark',
  'nfmask',
  'ctmask',
  'reject-with',
  'dst-type',
  'src-type',
  'src-range',
  'dst-range',
  'physdev-in',
  'physdev-out',
  'vproto',
  'vaddr',
  'vport',
  'vdir',
  'vmethod',
  'vportctl',
  'limit',
  'limit-burst',
  'log-prefix',
  'log-level',
  'icmp-type',
  'icmpv6-type',
  'nfacct-name',
  'zone',
  'helper',
  'set-mss',
  'mac-source',
  'queue-num',
  'dir',
  'pol',
  'nflog-group',
  'nflog-prefix',
]
/** How many words an option takes (iptables-extensions(8)); others take all words up to the next option. */
const ARITY: ReadonlyMap<string, number> = new Map([
  ...NO_VALUE.map((name) => [name, 0] as const),
  ...ONE_VALUE.map((name) => [name, 1] as const),
  ...TWO_VALUES.map((name) => [name, 2] as const),
])

/** Matches whose own options are ports, flags and types. */
const PROTOCOL_MODULES = new Set(['tcp', 'udp', 'sctp', 'icmp', 'icmp6', 'icmpv6', 'udplite', 'dccp'])
const PROTOCOL_NAMES: Readonly<Record<string, string>> = table({
  '6': 'tcp',
  '17': 'udp',
  '132': 'sctp',
  '1': 'icmp',
  '58': 'icmp6',
  'ipv6-icmp': 'icmp6',
  icmpv6: 'icmp6',
})

const BASIC: Record<string, 'protocol' | 'source' | 'destination' | 'inInterface' | 'outInterface'> = table({
  '-p': 'protocol',
  '--protocol': 'protocol',
  '--proto': 'protocol',
  '-s': 'source',
  '--source': 'source',
  '--src': 'source',
  '-d': 'destination',
  '--destination': 'destination',
  '--dst': 'destination',
  '-i': 'inInterface',
  '--in-interface': 'inInterface',
  '-o': 'outInterface',
  '--out-interface': 'outInterface',
})

/** Options of the protocol's own match, which may stand anywhere behind `-p`. */
const PORT_OPTIONS = new Set([
  'dport',
  'sport',
  'destination-port',
  'source-port',
  'tcp-flags',
  'syn',
  'tcp-option',
  'chunk-types',
  'icmp-type',
  'icmpv6-type',
])

/** Parses the words of one rule; what cannot be placed makes `problem`, nothing is dropped. */
export function parseRule(text: string, place: Place): IptablesRule {
  const split = splitWords(text)
  const rule = newRule(place, text)
  if (!split.closed) rule.problem = 'the rule ends inside a quote: the dump was cut or wrapped here'
  else if (split.words.length < 2) rule.problem = 'a rule without its chain'
  new RuleReader(rule, split).read()
  if (!rule.problem && endsInUnknownOption(rule))
    rule.problem = 'the rule ends in an option that does not exist: it was cut'
  return rule
}

function endsInUnknownOption({target, matches}: IptablesRule): boolean {
  const last = matches.at(-1)?.options.at(-1)
  return target === undefined && last !== undefined && last.values.length === 0 && !ARITY.has(last.name)
}

/** An address, a prefix, or an address with a netmask of any form. */
function isHost(text: string): boolean {
  const [host, mask] = text.split('/')
  return (
    parseAddress(host!) !== undefined && (mask === undefined || /^\d+$/.test(mask) || parseAddress(mask) !== undefined)
  )
}

/** The next option, or `!` before it. */
const NO_VALUE_HERE = /^(-[a-zA-Z]|--.|!)/

/** What stands behind the values of an option; `-1` and `--1` are values. */
const endsValues = (word: string): boolean =>
  word === '!' ||
  (word.length > 1 && word.startsWith('-') && !/^-?\d/.test(word.slice(1))) ||
  word.startsWith('[unsupported')

class RuleReader {
  private at = 2
  private holder: {options: RuleOption[]} | undefined
  private readonly rule: IptablesRule
  private readonly words: readonly string[]
  private readonly quoted: ReadonlySet<number>

  constructor(rule: IptablesRule, {words, quoted}: Pick<Words, 'words' | 'quoted'>) {
    this.rule = rule
    this.words = words
    this.quoted = quoted
  }

  read(): void {
    while (this.at < this.words.length) {
      const not = this.take('!')
      const word = this.words[this.at]
      if (word === undefined) return this.fail('the rule ends after "!"')
      const quoted = this.isQuoted(this.at++)
      this.option(word, {quoted, not})
    }
  }

  private isQuoted(at: number): boolean {
    return this.quoted.size > 0 && this.quoted.has(at)
  }

  private option(word: string, {quoted, not}: {quoted: boolean; not: boolean}): void {
    const basic = quoted ? undefined : BASIC[word]
    if (basic) this.basic(basic, word, not)
    else if (word === '-m' || word === '--match') this.match(word)
    else if (word === '-j' || word === '-g' || word === '--jump' || word === '--goto') this.target(word)
    else if (word === '-f' || word === '--fragment') this.rule.fragment = {not, value: ''}
    else if (word === '-c' || word === '--set-counters') this.at += 2
    else if (word === '-4' || word === '-6') return
    else if (word.startsWith('--') && !quoted) this.extension(word.slice(2), not)
    else this.fail(`"${word}" is not understood`)
  }

  private basic(field: (typeof BASIC)[string], word: string, not: boolean): void {
    const negated = this.take('!') || not
    const value = this.value(word)
    if (this.rule[field]) this.fail(`${word} stands twice`)
    else if (value !== undefined) {
      this.set(field, {not: negated, value})
      if ((field === 'source' || field === 'destination') && !isHost(value)) this.fail(`${word} ${value} is no address`)
    }
  }

  private set(field: (typeof BASIC)[string], found: Negatable): void {
    if (field === 'protocol') this.rule.protocol = found
    else if (field === 'source') this.rule.source = found
    else if (field === 'destination') this.rule.destination = found
    else if (field === 'inInterface') this.rule.inInterface = found
    else this.rule.outInterface = found
  }

  private match(word: string): void {
    const module = this.value(word)
    if (module === undefined) return
    const match: RuleMatch = {module, options: []}
    this.rule.matches.push(match)
    this.holder = match
  }

  private target(word: string): void {
    const name = this.value(word)
    if (name === undefined) return
    if (this.rule.target) return this.fail(`a second target ${name}: the end of a line was lost`)
    this.rule.target = {name, goto: word === '-g' || word === '--goto', options: []}
    this.holder = this.rule.target
  }

  private extension(name: string, not: boolean): void {
    const arity = ARITY.get(name)
    const negated = (arity !== 0 && this.take('!')) || not
    const values: string[] = []
    while (this.at < this.words.length && values.length < (arity ?? Number.POSITIVE_INFINITY)) {
      const next = this.words[this.at]!
      if (!this.isQuoted(this.at) && endsValues(next)) break
      values.push(next)
      this.at++
    }
    if (arity !== undefined && values.length < arity) this.fail(`--${name} has too few values: the rule was cut`)
    this.holderOf(name).options.push({name, not: negated, values})
  }

  private holderOf(name: string): {options: RuleOption[]} {
    if (
      this.holder &&
      (!PORT_OPTIONS.has(name) || this.holderModule() === undefined || PROTOCOL_MODULES.has(this.holderModule()!))
    ) {
      if (!PORT_OPTIONS.has(name) || this.holder !== this.rule.target) return this.holder
    }
    const protocol = this.rule.protocol?.value ?? ''
    const module = PROTOCOL_NAMES[protocol] ?? protocol
    const known = this.rule.matches.find((match) => match.module === module)
    if (known) return known
    const implicit: RuleMatch = {module, options: []}
    this.rule.matches.push(implicit)
    return implicit
  }

  private holderModule(): string | undefined {
    return this.rule.matches.find((match) => match === this.holder)?.module
  }

  private take(word: string): boolean {
    if (this.words[this.at] !== word || this.isQuoted(this.at)) return false
    this.at++
    return true
  }

  private value(option: string): string | undefined {
    const word = this.words[this.at]
    if (word === undefined || (!this.isQuoted(this.at) && NO_VALUE_HERE.test(word))) {
      this.fail(`${option} has no value`)
      return undefined
    }
    this.at++
    return word
  }

  private fail(message: string): void {
    this.rule.problem ??= message
  }
}

/** Writes a rule back as iptables-save would; `parseRule(printRule(x))` gives `x` again. */
export function printRule(rule: IptablesRule): string {
  const words = ['-A', rule.chain]
  const negatable = (flag: string, field: Negatable | undefined): void => {
    if (field) words.push(...(field.not ? ['!'] : []), flag, ...(field.value === '' ? [] : [field.value]))
  }
  negatable('-s', rule.source)
  negatable('-d', rule.destination)
  negatable('-i', rule.inInterface)
  negatable('-o', rule.outInterface)
  negatable('-p', rule.protocol)
  negatable('-f', rule.fragment)
  for (const {module, options} of rule.matches) words.push('-m', module, ...options.flatMap(printOption))
  if (rule.target)
    words.push(rule.target.goto ? '-g' : '-j', rule.target.name, ...rule.target.options.flatMap(printOption))
  return words.join(' ')
}

function printOption({name, not, values}: RuleOption): string[] {
  return [...(not ? ['!'] : []), `--${name}`, ...values.map(quote)]
}

const quote = (value: string): string =>
  /^[\w@%+=:,./-]+$/.test(value) && !value.startsWith('-') ? value : `"${value.replaceAll(/["\\]/g, '\\$&')}"`
