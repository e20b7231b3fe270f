import type {Problem} from './problem.js'

/**
 * An expression, statement or value in the shape of libnftables-json(5): `{"match": {"op": "==", "left": …, "right": …}}`.
 * The text parser produces the same shapes.
 */
export type NftJson = string | number | boolean | null | NftJson[] | {[key: string]: NftJson}
export type NftObject = {[key: string]: NftJson}

export interface NftRule {
  readonly family: string
  readonly table: string
  readonly chain: string
  /** 1-based position in the chain. */
  readonly number: number
  readonly handle?: number
  readonly comment?: string
  readonly statements: readonly NftObject[]
  file: string
  line: number
  text: string
  problem?: string
}

export interface NftChain {
  readonly family: string
  readonly table: string
  readonly name: string
  /** Base chains only: filter, nat, route. */
  readonly type?: string
  readonly hook?: string
  readonly priority?: number
  readonly policy?: string
  readonly device?: string
  /** Counted up within the table, over chains, rules and sets in the order in which they were made. */
  readonly handle?: number
  readonly rules: NftRule[]
  line: number
  /** Where hook and policy stand; text dumps only. */
  hookLine?: number
}

export interface NftElement {
  readonly key: NftJson
  /** Maps only; for a verdict map an object like `{"goto": {"target": …}}`. */
  readonly data?: NftJson
  readonly comment?: string
  /** It comes and goes with traffic. */
  readonly expires: boolean
  /** It has a limit or a quota of its own. */
  readonly limited?: boolean
  line: number
}

export interface NftSet {
  readonly family: string
  readonly table: string
  readonly name: string
  readonly types: readonly string[]
  /** Maps only: the data's type, `verdict` for verdict maps. */
  readonly map?: string
  readonly flags: string[]
  /** Seconds that an element stays. */
  readonly timeout?: number
  readonly elements: NftElement[]
  /** As a chain's. */
  readonly handle?: number
  /** Not all of it was understood: what it does not hold may be in it all the same. */
  readonly broken?: boolean
  /** Its members match up to a limit or quota: who is in it may be passed over. */
  limited?: boolean
  line: number
  /** The lines that its members stand on; text dumps only. */
  lines?: readonly {readonly number: number; readonly text: string}[]
}

export interface NftTable {
  readonly family: string
  readonly name: string
  /** `dormant`: none of its hooks is active. */
  readonly flags: string[]
  /** Counted up over all tables of the network namespace in the order in which they were made. */
  handle?: number
  readonly chains: Map<string, NftChain>
  readonly sets: Map<string, NftSet>
}

export interface NftRuleset {
  file: string
  /** By `family name`. */
  readonly tables: Map<string, NftTable>
  readonly problems: Problem[]
  /** The dump ends too early: there may be more tables, chains and rules. */
  cut: boolean
}

export const PRIORITY_NAMES: Readonly<Record<string, number>> = {
  raw: -300,
  mangle: -150,
  dstnat: -100,
  filter: 0,
  security: 50,
  srcnat: 100,
  out: 100,
}

const isObject = (value: unknown): value is NftObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const KNOWN = new Set(['table', 'chain', 'set', 'map', 'rule'])

export function tableOf(ruleset: NftRuleset, family: string, name: string): NftTable {
  const key = `${family} ${name}`
  let table = ruleset.tables.get(key)
  if (!table) ruleset.tables.set(key, (table = {family, name, flags: [], chains: new Map(), sets: new Map()}))
  return table
}

/** Parses `nft -j list ruleset`. */
export function parseNftJson(text: string, file: string): NftRuleset {
  const ruleset: NftRuleset = {file, tables: new Map(), problems: [], cut: false}
  if (text.trim() === '') return ruleset
  let objects: unknown
  try {
    objects = (JSON.parse(text) as {nftables?: unknown} | null)?.nftables
  } catch (error) {
    ruleset.problems.push({file, line: 0, message: `not valid JSON (cut short?): ${(error as Error).message}`})
    ruleset.cut = true
    return ruleset
  }
  if (!Array.isArray(objects)) {
    ruleset.problems.push({file, line: 0, message: 'no "nftables" list inside'})
    ruleset.cut = true
  } else for (const object of objects as unknown[]) addObject(ruleset, object)
  return ruleset
}

/** Objects that say nothing about packets. */
const PASSED_OVER = new Set([
  'metainfo',
  'counter',
  'quota',
  'limit',
  'flowtable',
  'ct helper',
  'ct timeout',
  'ct expectation',
  'secmark',
  'synproxy',
])

function addObject(ruleset: NftRuleset, object: unknown): void {
  const [kind] = isObject(object) ? Object.keys(object) : []
  const body = isObject(object) ? object[kind ?? ''] : undefined
  if (kind !== undefined && PASSED_OVER.has(kind)) return
  if (!isObject(body) || !KNOWN.has(kind ?? '') || (kind !== 'rule' && body['name'] === undefined)) {
    ruleset.cut = true
    return void ruleset.problems.push({
      file: ruleset.file,
      line: 0,
      message: `an object "${kind ?? 'without a kind'}" is not understood`,
      text: JSON.stringify(object).slice(0, 200),
    })
  }
  if (kind === 'table') addTable(ruleset, body)
  else if (kind === 'chain') addChain(ruleset, body)
  else if (kind === 'set' || kind === 'map') addSet(ruleset, body)
  else if (kind === 'rule') addRule(ruleset, body)
}

/** Statements that every member of a set runs, and that may say no (nft_set_elem_update_expr). */
export const limits = (statements: NftJson | undefined): boolean =>
  Array.isArray(statements) && statements.some((one) => isObject(one) && LIMITS.some((name) => name in one))
const LIMITS = ['limit', 'quota', 'ct count'] as const

const flagsOf = (value: NftJson | undefined): string[] =>
  Array.isArray(value) ? value.map(String) : value === undefined || value === null ? [] : [String(value)]

function addTable(ruleset: NftRuleset, body: NftObject): void {
  const table = tableOf(ruleset, String(body['family']), String(body['name']))
  table.flags.push(...flagsOf(body['flags']))
  if (typeof body['handle'] === 'number') table.handle = body['handle']
}

function addChain(ruleset: NftRuleset, body: NftObject): void {
  const [family, table, name] = [String(body['family']), String(body['table']), String(body['name'])]
  tableOf(ruleset, family, table).chains.set(name, {
    family,
    table,
    name,
    rules: [],
    line: 0,
    ...(body['type'] === undefined
      ? {}
      : {
          type: String(body['type']),
          hook: String(body['hook']),
          priority: Number(body['prio']),
          policy: String(body['policy'] ?? 'accept'),
        }),
    ...(body['dev'] === undefined ? {} : {device: String(body['dev'])}),
    ...(typeof body['handle'] === 'number' ? {handle: body['handle']} : {}),
  })
}

function addSet(ruleset: NftRuleset, body: NftObject): void {
  const [family, table, name] = [String(body['family']), String(body['table']), String(body['name'])]
  const types = Array.isArray(body['type']) ? body['type'].map(String) : [String(body['type'])]
  const elements = Array.isArray(body['elem'])
    ? body['elem'].map((item) => elementOf(item, body['map'] !== undefined))
    : []
  tableOf(ruleset, family, table).sets.set(name, {
    family,
    table,
    name,
    types,
    ...(body['map'] === undefined ? {} : {map: String(body['map'])}),
    ...(limits(body['stmt']) ? {limited: true} : {}),
    ...(typeof body['handle'] === 'number' ? {handle: body['handle']} : {}),
    ...(typeof body['timeout'] === 'number' ? {timeout: body['timeout']} : {}),
    flags: flagsOf(body['flags']),
    elements,
    line: 0,
  })
}

/** A member: plain, `{"elem": {"val": …}}` with attributes, or `[key, data]` in a map. */
export function elementOf(item: NftJson, isMap: boolean): NftElement {
  const [keyPart, data] = isMap && Array.isArray(item) ? [item[0] ?? null, item[1] ?? null] : [item, undefined]
  const inner = isObject(keyPart) && isObject(keyPart['elem']) ? keyPart['elem'] : undefined
  return {
    key: inner ? (inner['val'] ?? null) : keyPart,
    ...(data === undefined ? {} : {data}),
    ...(typeof inner?.['comment'] === 'string' ? {comment: inner['comment']} : {}),
    expires: inner?.['expires'] !== undefined || inner?.['timeout'] !== undefined,
    ...(inner && LIMITS.some((name) => name in inner) ? {limited: true} : {}),
    line: 0,
  }
}

function addRule(ruleset: NftRuleset, body: NftObject): void {
  const [family, table, chainName] = [String(body['family']), String(body['table']), String(body['chain'])]
  const chain = tableOf(ruleset, family, table).chains.get(chainName)
  if (!chain) {
    ruleset.cut = true
    return void ruleset.problems.push({
      file: ruleset.file,
      line: 0,
      message: `a rule of chain ${family} ${table} ${chainName}, which the dump does not list`,
    })
  }
  const all = Array.isArray(body['expr']) ? body['expr'] : undefined
  const bad = all?.findIndex((statement) => !isObject(statement)) ?? -1
  const statements = (bad < 0 ? (all ?? []) : all!.slice(0, bad)).filter(isObject)
  const problem =
    all === undefined
      ? 'the rule has no statements'
      : bad >= 0
        ? `${JSON.stringify(all[bad])} is no statement of the JSON form`
        : undefined
  if (problem !== undefined)
    ruleset.problems.push({file: ruleset.file, line: 0, message: problem, text: JSON.stringify(body).slice(0, 200)})
  chain.rules.push({
    family,
    table,
    chain: chainName,
    number: chain.rules.length + 1,
    statements,
    file: ruleset.file,
    line: 0,
    text: JSON.stringify(body['expr'] ?? null),
    ...(problem === undefined ? {} : {problem}),
    ...(typeof body['handle'] === 'number' ? {handle: body['handle']} : {}),
    ...(typeof body['comment'] === 'string' ? {comment: body['comment']} : {}),
  })
}
