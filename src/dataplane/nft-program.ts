import {table} from '../util/table.js'
import {limits} from '../parse/nft.js'
import type {NftChain, NftJson, NftObject, NftRule, NftTable} from '../parse/nft.js'
import {destinationNat, masquerade, redirect, sourceNat, type NatTarget} from './nat.js'
import {addressRange, compare, compareFlags, evaluate, numberRange, type Datum} from './nft-values.js'
import type {Program, Verdict, Walker} from './walker.js'

/** `break`: the rule does not match, its rest is not run. */
type Step = Verdict | 'break'
type Runner = (walker: Walker, body: NftJson, context: Context) => Step

interface Context {
  readonly where: string
  readonly rule: NftRule
  readonly owner: NftTableProgram
}

const isObject = (value: NftJson | undefined): value is NftObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const goOn: Runner = () => 'continue'

/** Asks whether a condition that is not modelled holds. */
const open =
  (what: string): Runner =>
  (walker, _body, {where}) =>
    walker.unknownMatch(where, what) ? 'continue' : 'break'

/** Every statement that is modelled; those of `goOn` never change a packet's way. */
export const STATEMENTS: Readonly<Record<string, Runner>> = table({
  match: (walker, body, context) => match(walker, body as NftObject, context),
  vmap: (walker, body, context) => vmap(walker, body as NftObject, context),
  accept: () => 'accept',
  drop: (walker, _body, {where}) => ({outcome: 'dropped', reason: `${where} on ${walker.machine.name} drops it`}),
  return: () => 'return',
  continue: goOn,
  jump: (walker, body, context) => call(walker, body as NftObject, context, false),
  goto: (walker, body, context) => call(walker, body as NftObject, context, true),
  reject: (walker, body, {where}) => rejectStatement(walker, body, where),
  mangle: (walker, body, context) => mangle(walker, body as NftObject, context),
  dnat: (walker, body, {where}) => nat(walker, body as NftObject, {where, destination: true}),
  snat: (walker, body, {where}) => nat(walker, body as NftObject, {where, destination: false}),
  masquerade: (walker, body, {where}) => masquerade(walker, where, isRandom(body)),
  redirect: (walker, body, {where}) => redirectStatement(walker, body, where),
  notrack: ({packet}) => {
    if (packet.connection === undefined) packet.state = 'UNTRACKED'
    return 'continue'
  },
  limit: open('limit'),
  quota: open('quota'),
  'ct count': open('ct count'),
  meter: open('meter'),
  counter: goOn,
  log: goOn,
  map: goOn,
  set: (walker, body, {where, rule}) => {
    const name = String((body as NftObject)['set'])
    walker.machine.nftSets.write(walker, name)
    walker.hop('rule', `remembers it in ${name}`, {
      where,
      remembered: name.replace(/^@/, ''),
      evidence: {source: rule.file, line: rule.line, text: rule.text},
    })
    if (!limits((body as NftObject)['stmt'])) return 'continue'
    return walker.unknownMatch(where, `the limit of ${name}`) ? 'continue' : 'break'
  },
  'ct helper': goOn,
  'ct timeout': goOn,
  'ct expectation': goOn,
  last: goOn,
  flow: goOn,
  dup: (walker, _body, {where}) => walker.copied(where) ?? 'continue',
  xt: (walker, body, context) => xtStatement(walker, isObject(body) ? body : {}, context),
})

/** Its kind implies a condition: a reset is for TCP, an ICMP of one family for that family. */
function rejectStatement(walker: Walker, body: NftJson, where: string): Step {
  const type = isObject(body) ? body['type'] : undefined
  const {protocol, family} = walker.packet
  if (
    (type === 'tcp reset' && protocol !== 'TCP') ||
    (type === 'icmp' && family === 6) ||
    (type === 'icmpv6' && family === 4)
  )
    return 'break'
  const kind = isObject(body) && body['expr'] ? ` with ${String(body['expr'])}` : ''
  return {
    outcome: 'refused',
    reason: `${where} on ${walker.machine.name} rejects it${kind}`,
    notice: type === 'tcp reset' ? 'tcp reset' : 'icmp',
  }
}

/** iptables-nft expressions that nft cannot show; normally these rules are read from iptables-save instead. */
function xtStatement(walker: Walker, body: NftObject, context: Context): Step {
  if (body['type'] === 'match' && (body['name'] === 'comment' || body['name'] === 'nfacct')) return 'continue'
  if (body['type'] === 'match') return open(`xt match ${String(body['name'])}`)(walker, body, context)
  if (body['name'] === 'MASQUERADE') return masquerade(walker, context.where, true)
  return {outcome: 'unknown', reason: `${context.where}: xt target ${String(body['name'])} is not shown by nft`}
}

function match(walker: Walker, body: NftObject, context: Context): Step {
  const chance = chanceOf(body)
  if (chance !== undefined) return walker.chooser.random([chance, 1 - chance]) === 0 ? 'continue' : 'break'
  const left = evaluate(walker, body['left']!)
  if (left.kind === 'break') return 'break'
  const answer = ordered(walker, {operator: String(body['op']), left, right: body['right']!}, context)
  const holds = typeof answer === 'object' ? walker.unknownMatch(context.where, answer.unknown) : answer
  return holds ? 'continue' : 'break'
}

/** iptables-nft's `statistic --mode random`: `meta random & 2147483647 < N`, N parts of 2³¹. */
function chanceOf({left, op, right}: NftObject): number | undefined {
  const [number, mask] = isObject(left) && Array.isArray(left['&']) ? left['&'] : []
  const key = isObject(number) && isObject(number['meta']) ? number['meta']['key'] : undefined
  if (key !== 'random' || mask !== 0x7fffffff || typeof right !== 'number') return undefined
  const share = Math.min(right / 2 ** 31, 1)
  return op === '<' ? share : op === '>=' ? 1 - share : undefined
}

interface Comparison {
  readonly operator: string
  readonly left: Datum
  readonly right: NftJson
}

function ordered(walker: Walker, {operator, left, right}: Comparison, {where}: Context): boolean | {unknown: string} {
  if (left.kind === 'unknown') return {unknown: left.why}
  if (left.kind === 'flags' && !(isObject(right) && 'set' in right)) return compareFlags(left.set, operator, right)
  if (operator === '==' || operator === 'in' || operator === '!=') {
    const answer =
      left.kind === 'number' && isObject(right) && !('prefix' in right) && !('range' in right) && !('set' in right)
        ? sameNumber(walker, left.value, right)
        : compare(walker, left, right, where)
    return typeof answer === 'object' ? answer : answer !== (operator === '!=')
  }
  const order = ORDER[operator]
  const bound = numberRange(right)?.[0]
  const value =
    left.kind === 'number' || left.kind === 'protocol'
      ? left.value
      : left.kind === 'port' && left.port >= 0
        ? left.port
        : undefined
  if (!order || bound === undefined || value === undefined) return {unknown: `a comparison with ${operator}`}
  return order(value, bound)
}

const ORDER: Readonly<Record<string, (a: number, b: number) => boolean>> = table({
  '<': (a, b) => a < b,
  '>': (a, b) => a > b,
  '<=': (a, b) => a <= b,
  '>=': (a, b) => a >= b,
})

function sameNumber(walker: Walker, value: number, right: NftJson): boolean | {unknown: string} {
  const other = evaluate(walker, right)
  return other.kind === 'number' ? other.value === value : {unknown: 'a computed value'}
}

/** A key that is not in the map ends the rule (nft_lookup_eval: NFT_BREAK); a `continue` goes on in it. */
function vmap(walker: Walker, body: NftObject, context: Context): Step {
  const key = evaluate(walker, body['key']!)
  if (key.kind === 'break') return 'break'
  const found = walker.machine.nftSets.find(walker, key, body['data']!, true)
  if (found === undefined) return 'break'
  if ('unknown' in found)
    return {outcome: 'unknown', reason: `${context.where} on ${walker.machine.name}: ${found.unknown}`}
  if (isObject(found.data)) {
    const {rule, where} = context
    // what a map drops, and which way dice fall, no other rule and no element says
    if (walker.steps && ('drop' in found.data || 'reject' in found.data || typeof body['data'] !== 'string'))
      walker.hop('rule', rule.text, {where, evidence: {source: rule.file, line: rule.line, text: rule.text}})
    return runStatement(walker, found.data, context)
  }
  return {outcome: 'unknown', reason: `${context.where}: ${JSON.stringify(found.data ?? null)} is no verdict`}
}

function call(walker: Walker, body: NftObject, {where, owner}: Context, goto: boolean): Step {
  const name = String(body['target'])
  const chain = owner.chain(name)
  if (!chain) return {outcome: 'unknown', reason: `${where} calls ${name}, which is not in the dump`}
  const verdict = walker.call(chain)
  if (verdict !== 'return') return verdict
  // whoever comes back goes on at the next rule (nft_do_chain)
  return goto ? 'return' : 'break'
}

function mangle(walker: Walker, body: NftObject, {where}: Context): Step {
  const key = isObject(body['key']) ? body['key'] : {}
  const meta = isObject(key['meta']) ? key['meta']['key'] : undefined
  const ct = isObject(key['ct']) ? key['ct']['key'] : undefined
  if (meta === 'mark' || ct === 'mark')
    return setMark(walker, evaluate(walker, body['value']!), {where, onConnection: ct === 'mark'})
  if (isObject(key['payload']) && /^(saddr|daddr|sport|dport)$/.test(String(key['payload']['field'])))
    return {
      outcome: 'unknown',
      reason: `${where}: rewriting ${String(key['payload']['field'])} without NAT is not modelled`,
    }
  const name = String(
    meta ?? ct ?? (isObject(key['payload']) ? (key['payload']['field'] ?? 'raw payload') : Object.keys(key)[0]),
  )
  if (HARMLESS.has(name)) return 'continue'
  return {outcome: 'unknown', reason: `${where}: a rule that sets ${name} is not modelled`}
}

/** Fields of a packet that change nothing about its way. */
const HARMLESS = new Set([
  'priority',
  'nftrace',
  'secmark',
  'label',
  'event',
  'dscp',
  'ecn',
  'tos',
  'tcp option',
  'maxseg',
  'size',
])

function setMark(walker: Walker, value: Datum, {where, onConnection}: {where: string; onConnection: boolean}): Step {
  if (value.kind === 'break') return 'break'
  if (value.kind !== 'number')
    return {outcome: 'unknown', reason: `${where}: the mark is set to something that is not modelled`}
  const {packet} = walker
  if (onConnection) {
    if (packet.connection) packet.connection.mark = value.value
  } else {
    if (walker.steps)
      walker.hop('mark', `mark 0x${packet.mark.toString(16)} → 0x${value.value.toString(16)}`, {
        where,
        mark: value.value,
      })
    packet.mark = value.value
  }
  return 'continue'
}

function nat(walker: Walker, body: NftObject, {where, destination}: {where: string; destination: boolean}): Step {
  // in an inet table it concerns one family; packets of the other go on (nft_nat_inet_eval)
  const family = body['family'] === 'ip' ? 4 : body['family'] === 'ip6' ? 6 : walker.packet.family
  if (family !== walker.packet.family) return 'continue'
  const target = natTarget(walker, body)
  if (target === 'break') return 'break'
  if ('unknown' in target) return {outcome: 'unknown', reason: `${where}: ${target.unknown}`}
  return (destination ? destinationNat : sourceNat)(walker, where, [target])
}

const isRandom = (body: NftJson): boolean =>
  isObject(body) && [body['flags']].flat().some((flag) => flag === 'random' || flag === 'fully-random')

function natTarget(walker: Walker, body: NftObject): NatTarget | 'break' | {unknown: string} {
  const ports = body['port'] === undefined ? undefined : numberRange(body['port'])
  if (body['port'] !== undefined && !ports) return {unknown: 'a computed port is not modelled'}
  const base = {...(ports ? {ports} : {}), ...(isRandom(body) ? {random: true} : {})}
  if (body['addr'] === undefined) return base
  const constant = addressRange(body['addr'])
  if (constant) return {...base, range: constant}
  const datum = evaluate(walker, body['addr'])
  if (datum.kind === 'break') return 'break'
  const parts = datum.kind === 'concat' ? datum.parts : [datum]
  const [address, port] = parts
  if (address?.kind !== 'address' || address.party === 'client') return {unknown: 'the NAT address is not modelled'}
  const number = port?.kind === 'number' ? port.value : port?.kind === 'port' ? port.port : undefined
  if (port && number === undefined) return {unknown: 'the NAT port is a name that nobody knows'}
  return {
    ...base,
    range: {lo: address.party, hi: address.party},
    ...(number === undefined ? {} : {ports: [number, number] as const}),
  }
}

function redirectStatement(walker: Walker, body: NftJson, where: string): Step {
  const port = isObject(body) && body['port'] !== undefined ? numberRange(body['port']) : undefined
  if (isObject(body) && body['port'] !== undefined && !port)
    return {outcome: 'unknown', reason: `${where}: a computed port is not modelled`}
  return redirect(walker, where, port)
}

function runStatement(walker: Walker, statement: NftObject, context: Context): Step {
  const [name] = Object.keys(statement)
  const runner = STATEMENTS[name!]
  if (!runner)
    return {outcome: 'unknown', reason: `${context.where} on ${walker.machine.name}: statement ${name} is not modelled`}
  return runner(walker, statement[name!]!, context)
}

/** The chains of one table. */
export class NftTableProgram {
  readonly table: NftTable
  private readonly chains = new Map<string, NftChainProgram>()

  constructor(table: NftTable) {
    this.table = table
  }

  chain(name: string): NftChainProgram | undefined {
    const known = this.chains.get(name)
    if (known) return known
    const chain = this.table.chains.get(name)
    if (!chain) return undefined
    const program = new NftChainProgram(this, chain)
    this.chains.set(name, program)
    return program
  }
}

/** A chain as nft_do_chain runs it. */
class NftChainProgram implements Program {
  private readonly owner: NftTableProgram
  private readonly chain: NftChain

  constructor(owner: NftTableProgram, chain: NftChain) {
    this.owner = owner
    this.chain = chain
  }

  get name(): string {
    return this.chain.name
  }

  run(walker: Walker): Verdict {
    for (const rule of this.chain.rules) {
      const verdict = this.runRule(walker, rule)
      if (verdict !== 'continue' && verdict !== 'break') return verdict
    }
    return 'return'
  }

  runBase(walker: Walker): Verdict {
    walker.machine.nftSets.enter(this.chain.type)
    const verdict = this.run(walker)
    if (verdict !== 'return') return verdict
    if (this.chain.policy !== 'drop') return 'accept'
    const {family, name} = this.owner.table
    const where = `${family} ${name}/${this.chain.name} policy`
    walker.hop('policy', `policy drop of ${family} ${name}/${this.chain.name}`, {
      where,
      evidence: {
        source: this.chain.rules[0]?.file ?? '',
        line: this.chain.hookLine ?? this.chain.line,
        text: 'policy drop',
      },
    })
    return {
      outcome: 'dropped',
      cause: 'policy',
      reason: `the policy drop of ${family} ${name}/${this.chain.name} on ${walker.machine.name} drops it`,
    }
  }

  private runRule(walker: Walker, rule: NftRule): Step {
    const {family, name} = this.owner.table
    const context: Context = {where: `${family} ${name}/${this.chain.name}#${rule.number}`, rule, owner: this.owner}
    const refuses = rule.statements.some((statement) => 'drop' in statement || 'reject' in statement)
    walker.machine.nftSets.begin(`${family} ${name}`, refuses)
    if (rule.problem) return this.notUnderstood(walker, rule, context)
    let told = false
    for (const statement of rule.statements) {
      const [kind] = Object.keys(statement)
      if (!told && ACTS.has(kind!)) {
        if (walker.steps)
          walker.hop('rule', rule.text, {
            where: context.where,
            evidence: {source: rule.file, line: rule.line, text: rule.text},
          })
        told = true
      }
      const step = runStatement(walker, statement, context)
      if (step !== 'continue') return step
    }
    return 'continue'
  }

  /** What was understood of it may already say that it does not match; behind that it may do anything. */
  private notUnderstood(walker: Walker, rule: NftRule, context: Context): Step {
    const {where} = context
    for (const statement of rule.statements)
      if ('match' in statement && runStatement(walker, statement, context) === 'break') return 'break'
    return walker.unknownMatch(where, rule.problem!)
      ? {outcome: 'unknown', reason: `${where} is not understood: ${rule.problem!} (${rule.file}:${rule.line})`}
      : 'continue'
  }
}

/** Statements that are worth a hop of their own. */
const ACTS = new Set([
  'accept',
  'drop',
  'return',
  'jump',
  'goto',
  'reject',
  'mangle',
  'dnat',
  'snat',
  'masquerade',
  'redirect',
  'notrack',
])
