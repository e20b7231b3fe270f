import {parseAddress} from '../util/ip.js'
import {table} from '../util/table.js'
import {tokenize, type Token} from './tokens.js'

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
  protocol?: Negatable
  source?: Negatable
  destination?: Negatable
  inInterface?: Negatable
  outInterface?: Negatable
  fragment?: Negatable
  readonly matches: RuleMatch[]
  target?: RuleTarget
  /** Why this rule is not understood as a whole; it may do anything then. */
  problem?: string
}

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
]
const TWO_VALUES = ['tcp-flags', 'match-set', 'add-set', 'del-set']
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

type Place = Pick<IptablesRule, 'table' | 'chain' | 'number' | 'file' | 'line'>

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
  const {tokens, closed} = tokenize(text)
  const rule: IptablesRule = {...place, text, matches: []}
  if (!closed) rule.problem = 'the rule ends inside a quote: the dump was cut or wrapped here'
  else if (tokens.length < 2) rule.problem = 'a rule without its chain'
  new RuleReader(rule, tokens).read()
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

class RuleReader {
  private at = 2
  private holder: {options: RuleOption[]} | undefined
  private readonly rule: IptablesRule
  private readonly tokens: readonly Token[]

  constructor(rule: IptablesRule, tokens: readonly Token[]) {
    this.rule = rule
    this.tokens = tokens
  }

  read(): void {
    while (this.at < this.tokens.length) {
      const not = this.take('!')
      const token = this.tokens[this.at]
      if (!token) return this.fail('the rule ends after "!"')
      this.at++
      this.option(token, not)
    }
  }

  private option(token: Token, not: boolean): void {
    const word = token.text
    const basic = token.quoted ? undefined : BASIC[word]
    if (basic) this.basic(basic, word, not)
    else if (word === '-m' || word === '--match') this.match(word)
    else if (word === '-j' || word === '-g' || word === '--jump' || word === '--goto') this.target(word)
    else if (word === '-f' || word === '--fragment') this.rule.fragment = {not, value: ''}
    else if (word === '-c' || word === '--set-counters') this.at += 2
    else if (word === '-4' || word === '-6') return
    else if (word.startsWith('--') && !token.quoted) this.extension(word.slice(2), not)
    else this.fail(`"${word}" is not understood`)
  }

  private basic(field: (typeof BASIC)[string], word: string, not: boolean): void {
    const negated = this.take('!') || not
    const value = this.value(word)
    if (this.rule[field]) this.fail(`${word} stands twice`)
    else if (value !== undefined) {
      this.rule[field] = {not: negated, value}
      if ((field === 'source' || field === 'destination') && !isHost(value)) this.fail(`${word} ${value} is no address`)
    }
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
    while (this.at < this.tokens.length && values.length < (arity ?? Number.POSITIVE_INFINITY)) {
      const next = this.tokens[this.at]!
      if (
        !next.quoted &&
        (next.text === '!' ||
          next.text.startsWith('[unsupported') ||
          (next.text.length > 1 && next.text.startsWith('-') && !/^-?\d/.test(next.text.slice(1))))
      )
        break
      values.push(next.text)
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
    const token = this.tokens[this.at]
    if (!token || token.quoted || token.text !== word) return false
    this.at++
    return true
  }

  private value(option: string): string | undefined {
    const token = this.tokens[this.at]
    if (!token || (!token.quoted && /^(-[a-zA-Z]|--.|!)/.test(token.text))) {
      this.fail(`${option} has no value`)
      return undefined
    }
    this.at++
    return token.text
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
