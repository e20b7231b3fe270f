import {table} from '../util/table.js'
import {parseAddress} from '../util/ip.js'
import type {NftJson, NftObject} from './nft.js'

interface Word {
  readonly text: string
  readonly quoted: boolean
}

function wordsOf(text: string): Word[] {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|[{}(),;]|[^\s{}(),;"]+/g)].map(([whole, inner]) => ({
    text: inner ?? whole,
    quoted: inner !== undefined,
  }))
}

class NotUnderstood extends Error {}

const PORTS = ['sport', 'dport']
/** Header fields by protocol, nft(8) "PAYLOAD EXPRESSIONS": `tcp dport` is one, `tcp dnat` is a protocol and a statement. */
const PAYLOAD: Readonly<Record<string, readonly string[]>> = table({
  ip: [
    'version',
    'hdrlength',
    'dscp',
    'ecn',
    'length',
    'id',
    'frag-off',
    'ttl',
    'protocol',
    'checksum',
    'saddr',
    'daddr',
    'option',
  ],
  ip6: ['version', 'dscp', 'ecn', 'flowlabel', 'length', 'nexthdr', 'hoplimit', 'saddr', 'daddr'],
  tcp: [...PORTS, 'sequence', 'ackseq', 'doff', 'reserved', 'flags', 'window', 'checksum', 'urgptr', 'option'],
  udp: [...PORTS, 'length', 'checksum'],
  udplite: [...PORTS, 'checksum', 'csumcov'],
  sctp: [...PORTS, 'vtag', 'checksum', 'chunk'],
  dccp: [...PORTS, 'type', 'option'],
  th: PORTS,
  icmp: ['type', 'code', 'checksum', 'id', 'sequence', 'gateway', 'mtu', 'addr'],
  icmpv6: [
    'type',
    'code',
    'checksum',
    'parameter-problem',
    'packet-too-big',
    'id',
    'sequence',
    'max-delay',
    'taddr',
    'daddr',
  ],
  ether: ['saddr', 'daddr', 'type'],
  arp: ['htype', 'ptype', 'hlen', 'plen', 'operation', 'saddr', 'daddr'],
  vlan: ['id', 'cfi', 'dei', 'pcp', 'type'],
  igmp: ['type', 'checksum', 'mrt', 'group'],
  ah: ['nexthdr', 'hdrlength', 'reserved', 'spi', 'sequence'],
  esp: ['spi', 'sequence'],
  comp: ['nexthdr', 'flags', 'cpi'],
})
/** Meta keys that nft prints without `meta`. */
const BARE_META = new Set([
  'iif',
  'oif',
  'iifname',
  'oifname',
  'iiftype',
  'oiftype',
  'iifgroup',
  'oifgroup',
  'mark',
  'skuid',
  'skgid',
  'pkttype',
  'rtclassid',
  'cgroup',
  'ibrname',
  'obrname',
  'nftrace',
])
const OPERATORS = new Set(['==', '!=', '<', '>', '<=', '>='])
/** Old releases print words for the signs. */
const BINARY: Readonly<Record<string, string>> = table({
  '&': '&',
  '|': '|',
  '^': '^',
  '<<': '<<',
  '>>': '>>',
  and: '&',
  or: '|',
  xor: '^',
  lshift: '<<',
  rshift: '>>',
})
const VERDICTS = ['accept', 'drop', 'return', 'continue', 'jump', 'goto']
/** Words that begin another statement or condition behind one whose own words are not looked into. */
const BEGINS = new Set([
  ...VERDICTS,
  'counter',
  'comment',
  'reject',
  'meta',
  'ct',
  'fib',
  'numgen',
  'jhash',
  'symhash',
  'dnat',
  'snat',
  'masquerade',
  'redirect',
  'log',
  'limit',
  'quota',
  'queue',
  'update',
  'add',
  'delete',
  'socket',
  'rt',
  'osf',
  'ipsec',
  'exthdr',
  'notrack',
  'xt',
  'tproxy',
  'synproxy',
  'dup',
  'fwd',
  'last',
  'vmap',
])
const NAT_FLAGS = new Set(['random', 'fully-random', 'persistent'])
/** Words that stand behind a condition and are none of its own. */
const BEHIND = new Set([...VERDICTS, 'counter', 'reject', 'comment', 'log', 'masquerade', 'vmap'])
/** `...`, where whoever posted a dump made it shorter. */
export const LEFT_OUT = /^(\.{2,}|…|\[(\.{2,}|…|snip)\]|<snip>)$/i
const FIB_RESULTS = new Set(['type', 'oif', 'oifname', 'check'])

/** Statements of one word. */
const BARE = new Set('accept drop return continue notrack'.split(' '))
/** Statements whose words are kept and not understood. */
const OPAQUE = new Set('limit log quota queue tproxy synproxy dup fwd flow last'.split(' '))

/** Reads the words of one rule, or the members of one set, in the language of nft(8). */
export class NftRuleReader {
  private at = 0
  private comment: string | undefined
  private readonly words: readonly Word[]

  private readonly quotesClosed: boolean

  constructor(text: string) {
    this.words = wordsOf(text)
    this.quotesClosed = text.replaceAll(/\\./g, '').split('"').length % 2 === 1
  }

  rule(): {statements: NftObject[]; comment?: string; problem?: string} {
    const statements: NftObject[] = []
    if (!this.quotesClosed) return {statements, problem: 'a quote is not closed: the rule was cut'}
    try {
      while (this.at < this.words.length) {
        const statement = this.statement()
        if (statement) statements.push(statement)
      }
    } catch (error) {
      if (!(error instanceof NotUnderstood)) throw error
      return {statements, problem: error.message}
    }
    return {statements, ...(this.comment === undefined ? {} : {comment: this.comment})}
  }

  elements(): {value: NftJson[]; problem?: string} {
    try {
      return {value: this.set()}
    } catch (error) {
      if (!(error instanceof NotUnderstood)) throw error
      return {value: [], problem: error.message}
    }
  }

  private get word(): string | undefined {
    const word = this.words[this.at]
    return word?.quoted ? undefined : word?.text
  }

  private peek(ahead: number): string | undefined {
    return this.words[this.at + ahead]?.text
  }

  private next(): string {
    const word = this.words[this.at++]
    if (!word) throw new NotUnderstood('the rule ends too early')
    return word.text
  }

  private take(text: string): boolean {
    if (this.word !== text) return false
    this.at++
    return true
  }

  private expect(text: string): void {
    if (!this.take(text)) throw new NotUnderstood(`"${this.peek(0) ?? 'the end'}" where "${text}" should be`)
  }

  private statement(): NftObject | undefined {
    const {word} = this
    if (word === undefined) throw new NotUnderstood(`"${this.peek(0)!}" is not understood`)
    if (OPAQUE.has(word)) return this.opaque(word)
    if (BARE.has(word)) {
      this.at++
      return {[word]: null}
    }
    switch (word) {
      case 'jump':
      case 'goto':
        this.at++
        return {[word]: {target: this.next()}}
      case 'counter':
        return this.counter()
      case 'comment':
        this.at++
        this.comment = this.next()
        return undefined
      case 'reject':
        return this.reject()
      case 'dnat':
      case 'snat':
        return this.nat(word)
      case 'masquerade':
      case 'redirect':
        return this.port(word)
      case 'update':
      case 'add':
      case 'delete':
        return this.setStatement(word)
      case 'xt': {
        this.at++
        const type = this.next()
        return {xt: {type, name: this.next()}}
      }
      case '#':
        return this.unprinted()
      default:
        return this.matchOrMangle()
    }
  }

  /** `# xt_NAME`: nft without libxtables cannot print an expression of iptables-nft (nftables, src/xt.c). */
  private unprinted(): NftObject {
    this.at++
    const [, name] = /^xt_(\w+)$/.exec(this.word ?? '') ?? []
    if (name === undefined) throw new NotUnderstood('"#" is not understood')
    this.at++
    return {xt: {type: name === name.toUpperCase() ? 'target' : 'match', name}}
  }

  private counter(): NftObject {
    this.at++
    if (this.take('name')) return {counter: this.next()}
    if (this.take('packets')) {
      this.at++
      this.expect('bytes')
      this.at++
    }
    return {counter: null}
  }

  private reject(): NftObject {
    this.at++
    if (!this.take('with')) return {reject: null}
    if (this.take('tcp')) {
      this.expect('reset')
      return {reject: {type: 'tcp reset'}}
    }
    const type = this.next()
    this.take('type')
    return {reject: {type, expr: this.next()}}
  }

  /** `dnat [ip] [addr . port] to EXPRESSION[:PORT] [flags]` */
  private nat(kind: string): NftObject {
    this.at++
    const body: NftObject = {}
    if (this.word === 'ip' || this.word === 'ip6') body['family'] = this.next()
    if (this.take('prefix')) body['type_flags'] = 'prefix'
    if (this.take('addr')) {
      this.expect('.')
      this.expect('port')
      body['type_flags'] = 'concat'
    }
    if (!this.take('to')) throw new NotUnderstood(`${kind} without "to"`)
    this.natTarget(body)
    this.natFlags(body)
    return {[kind]: body}
  }

  private natTarget(body: NftObject): void {
    const word = this.word ?? ''
    const port = /^(.*):(\d+(?:-\d+)?)$/.exec(word)
    if (port && (port[1] === '' || (port[1]!.startsWith('[') && port[1]!.endsWith(']')) || !port[1]!.includes(':'))) {
      this.at++
      if (port[1] !== '') body['addr'] = valueOf(port[1]!.replace(/^\[|\]$/g, ''))
      body['port'] = valueOf(port[2]!)
      return
    }
    body['addr'] = this.expression()
    if (this.word?.startsWith(':')) {
      const text = this.next().slice(1)
      body['port'] = text === '' ? this.expression() : valueOf(text)
    }
  }

  private natFlags(body: NftObject): void {
    const flags: NftJson[] = []
    while (this.word !== undefined && (NAT_FLAGS.has(this.word) || (this.word === ',' && flags.length > 0)))
      if (this.next() !== ',') flags.push(this.words[this.at - 1]!.text)
    if (flags.length > 0) body['flags'] = flags
  }

  private port(kind: string): NftObject {
    this.at++
    const body: NftObject = {}
    if (this.take('to')) {
      const text = this.next()
      body['port'] = text === ':' ? this.expression() : valueOf(text.replace(/^:/, ''))
    }
    this.natFlags(body)
    return {[kind]: Object.keys(body).length > 0 ? body : null}
  }

  private setStatement(op: string): NftObject {
    this.at++
    const set = this.next()
    this.expect('{')
    const elem = this.expression()
    const from = this.at
    while (this.word !== '}' && this.at < this.words.length) {
      if (this.word === ':') {
        this.at++
        const data = this.expression()
        this.skipTo('}')
        return {map: {op, elem, data, map: set}}
      }
      this.at++
    }
    const inside = this.words.slice(from, this.at).map(({text}) => text)
    this.expect('}')
    if (inside.some((word) => /^(limit|ct|quota)$/.test(word))) return {meter: inside.join(' ')}
    return {set: {op, elem, set}}
  }

  private skipTo(text: string): void {
    while (this.at < this.words.length && this.next() !== text);
  }

  /** Statements whose own words end where a word begins that can start a statement. */
  private opaque(kind: string): NftObject {
    const from = this.at++
    // `flow add @name`: elsewhere `add` begins a statement of its own
    if (kind === 'flow') this.take('add')
    while (this.at < this.words.length && !this.begins()) this.at++
    return {
      [kind]: this.words
        .slice(from + 1, this.at)
        .map(({text}) => text)
        .join(' '),
    }
  }

  private begins(): boolean {
    const {word} = this
    if (word === undefined) return false
    return BEGINS.has(word) || BARE_META.has(word) || (PAYLOAD[word]?.includes(this.peek(1) ?? '') ?? false)
  }

  private matchOrMangle(): NftObject {
    const left = this.expression()
    if (typeof left !== 'object' || left === null) throw new NotUnderstood(`"${String(left)}" is not understood`)
    if (this.take('set')) return {mangle: {key: left, value: this.expression()}}
    if (this.take('vmap')) return {vmap: {key: left, data: this.word === '{' ? {set: this.set()} : this.next()}}
    if (this.take('/')) return this.flagsMask(left)
    const operator = this.word
    if (operator !== undefined && (OPERATORS.has(operator) || (operator === '!' && isFlags(left)))) {
      this.at++
      return this.comparison(operator, left)
    }
    return this.comparison(isFlags(left) ? 'in' : '==', left)
  }

  /** `RIGHT`, or `RIGHT / MASK`: of the flags in the mask just these. */
  private comparison(op: string, left: NftJson): NftObject {
    if (BEHIND.has(this.word ?? '')) throw new NotUnderstood(`nothing stands before "${this.word!}"`)
    const right = checked(left, this.right())
    if (!this.take('/')) return {match: {op, left, right}}
    return {match: {op: op === 'in' ? '==' : op, left: {'&': [left, this.right()]}, right}}
  }

  private flagsMask(left: NftJson): NftObject {
    const value = this.right()
    return {match: {op: '==', left: {'&': [left, this.right()]}, right: value}}
  }

  private right(): NftJson {
    const first = this.expression()
    if (this.word !== ',') return first
    const list = [first]
    while (this.take(',')) list.push(this.expression())
    return list
  }

  /** Concatenations, then bit operations, then `map`. */
  private expression(): NftJson {
    let value = this.primary()
    if (this.word === '.') {
      const parts = [value]
      while (this.take('.')) parts.push(this.primary())
      value = {concat: parts}
    }
    while (this.word !== undefined && BINARY[this.word] !== undefined) {
      const operator = BINARY[this.next()]!
      value = {[operator]: [value, this.primary()]}
    }
    if (this.take('map')) value = {map: {key: value, data: this.word === '{' ? {set: this.set()} : this.next()}}
    return value
  }

  private primary(): NftJson {
    const current = this.words[this.at]
    if (!current) throw new NotUnderstood('the rule ends too early')
    if (current.quoted) return this.next()
    const word = current.text
    if (LEFT_OUT.test(word)) throw new NotUnderstood('somebody left words out here')
    if (word === '{') return {set: this.set()}
    if (this.take('(')) {
      const inner = this.right()
      this.expect(')')
      return inner
    }
    if (PAYLOAD[word]?.includes(this.peek(1) ?? '')) return this.payload()
    if (word === 'meta') {
      this.at++
      return {meta: {key: this.next()}}
    }
    if (BARE_META.has(word)) return {meta: {key: this.next()}}
    if (word === 'ct') return this.ct()
    if (word === 'fib') return this.fib()
    if (word === 'numgen') return this.numgen()
    if (word === 'jhash' || word === 'symhash') return this.hash(word)
    if (word === 'socket' || word === 'rt' || word === 'osf' || word === 'ipsec' || word === 'exthdr') {
      this.at++
      return {[word]: {key: this.next()}}
    }
    if (word === 'goto' || word === 'jump') {
      this.at++
      return {[word]: {target: this.next()}}
    }
    if (/^(accept|drop|return|continue)$/.test(word)) return {[this.next()]: null}
    if (/^[,;})]$/.test(word) || OPERATORS.has(word)) throw new NotUnderstood(`"${word}" is not understood`)
    return valueOf(this.next())
  }

  private payload(): NftJson {
    const protocol = this.next()
    const field = this.next()
    if (field === 'option') {
      const name = this.next()
      if (this.word === 'exists' || this.word === 'missing')
        throw new NotUnderstood(`${protocol} option ${name} ${this.word} is not modelled`)
      return {'tcp option': {name, field: this.word === undefined || this.word === 'set' ? '' : this.next()}}
    }
    return {payload: {protocol, field}}
  }

  private ct(): NftJson {
    this.at++
    const body: NftObject = {}
    if (this.word === 'original' || this.word === 'reply') body['dir'] = this.next()
    if (this.word === 'ip' || this.word === 'ip6') body['family'] = this.next()
    body['key'] = this.next()
    if (body['key'] === 'count') throw new NotUnderstood('ct count is not modelled')
    return {ct: body}
  }

  private fib(): NftJson {
    this.at++
    const flags = [this.next()]
    while (this.take('.')) flags.push(this.next())
    const result = this.next()
    if (!FIB_RESULTS.has(result)) throw new NotUnderstood(`fib ${result} is not understood`)
    return {fib: {result, flags}}
  }

  private numgen(): NftJson {
    this.at++
    const mode = this.next()
    this.expect('mod')
    const mod = Number(this.next())
    return {numgen: {mode, mod, offset: this.take('offset') ? Number(this.next()) : 0}}
  }

  private hash(kind: string): NftJson {
    this.at++
    const expr = kind === 'jhash' ? this.expression() : null
    this.expect('mod')
    const mod = Number(this.next())
    if (this.take('seed')) this.at++
    return {[kind]: {mod, offset: this.take('offset') ? Number(this.next()) : 0, expr}}
  }

  /** `{ a, b timeout 1h comment "x", k : v }` in the shapes of the JSON form. */
  private set(): NftJson[] {
    this.expect('{')
    const items: NftJson[] = []
    while (!this.take('}')) {
      items.push(this.element())
      if (!this.take(',') && this.word !== '}')
        throw new NotUnderstood(`"${this.peek(0) ?? 'the end'}" inside a set is not understood`)
    }
    return items
  }

  private element(): NftJson {
    const attributes: NftObject = {}
    const val = this.expression()
    while (this.word === 'timeout' || this.word === 'expires' || this.word === 'comment' || this.word === 'counter') {
      const name = this.next()
      if (name !== 'counter') attributes[name] = this.next()
      else if (this.take('packets')) this.at += 3
    }
    const key = Object.keys(attributes).length > 0 ? {elem: {val, ...attributes}} : val
    return this.take(':') ? [key, this.expression()] : key
  }
}

/** An address on the right must be one: `10.0.0.` and `x.x.x.x/32` were cut or blacked out. */
function checked(left: NftJson, right: NftJson): NftJson {
  const payload = (left as NftObject)['payload'] as NftObject | undefined
  const isAddress =
    (payload?.['protocol'] === 'ip' || payload?.['protocol'] === 'ip6') && /^[sd]addr$/.test(String(payload['field']))
  if (
    isAddress &&
    typeof right !== 'object' &&
    !(typeof right === 'string' && (right.startsWith('@') || parseAddress(right) !== undefined))
  )
    throw new NotUnderstood(`"${String(right)}" is no address`)
  return right
}

const isFlags = (left: NftJson): boolean =>
  typeof left === 'object' &&
  left !== null &&
  !Array.isArray(left) &&
  (['state', 'status'].includes(String((left['ct'] as NftObject | undefined)?.['key'])) ||
    (left['payload'] as NftObject | undefined)?.['field'] === 'flags')

/** A constant: number, hexadecimal, range, prefix, address or word. */
function valueOf(word: string): NftJson {
  if (/^\d+$/.test(word)) return Number(word)
  if (/^0x[\da-f]+$/i.test(word)) return Number(word)
  const range = /^(\d+)-(\d+)$/.exec(word)
  if (range) return {range: [Number(range[1]), Number(range[2])]}
  const prefix = /^([\da-f:.]+)\/(\d+)$/i.exec(word)
  if (prefix && parseAddress(prefix[1]!) !== undefined) return {prefix: {addr: prefix[1]!, len: Number(prefix[2])}}
  const ends = word.split('-')
  if (ends.length === 2 && parseAddress(ends[0]!) !== undefined && parseAddress(ends[1]!) !== undefined)
    return {range: [ends[0]!, ends[1]!]}
  return word
}
