import type {NftElement, NftJson, NftObject, NftRuleset, NftSet} from '../parse/nft.js'
import {addressRange, datumKey, exactKey, isKey, numberRange, type Datum} from './nft-values.js'
import type {Walker} from './walker.js'

interface Index {
  readonly exact: ReadonlyMap<string, NftElement>
  /** Prefixes, ranges, wildcards: tried one by one. */
  readonly others: readonly NftElement[]
  /** Words that are names, of devices, or of ports that nobody knows: no number is equal to one. */
  readonly names: readonly NftElement[]
  readonly all: readonly NftElement[]
  readonly set: NftSet | undefined
}

export type Found = (NftElement & {readonly set?: NftSet}) | {readonly unknown: string}

/** Sets and maps of one node, named and anonymous (net/netfilter/nft_lookup.c). */
export class NftSets {
  private readonly ruleset: NftRuleset | undefined
  private readonly named = new Map<string, Index>()
  private readonly anonymous = new WeakMap<object, Index>()
  /** The table whose rule is running: `@name` is looked up there. */
  private table = ''
  private refuses = false
  private translates = false

  constructor(ruleset: NftRuleset | undefined) {
    this.ruleset = ruleset
  }

  /** A base chain of this type begins. */
  enter(type: string | undefined): void {
    this.translates = type === 'nat'
  }

  /** A rule of `table` runs; `refuses`: it drops or rejects what matches. */
  begin(table: string, refuses: boolean): void {
    this.table = table
    this.refuses = refuses
  }

  /** The packet is written to a set of the running rule's table. */
  write(walker: Walker, name: string): void {
    walker.remember(`nft ${this.table} ${name.replace(/^@/, '')}`)
  }

  find(walker: Walker, datum: Datum, reference: NftJson, isMap: boolean): Found | undefined {
    if (datum.kind === 'break') return undefined
    if (datum.kind === 'unknown') return {unknown: datum.why}
    const index = this.indexOf(reference, isMap)
    if (!index) return {unknown: `set ${String(reference)} is not in the dump`}
    if (index.set && walker.remembers(`nft ${this.table} ${index.set.name}`))
      return {unknown: `set ${index.set.name}, which this packet was just written to`}
    const dynamic = index.set !== undefined && isDynamic(index.set)
    // what traffic itself adds is not there for a client that comes for the first time (session affinity, in NAT) …
    if (dynamic && this.translates && !this.refuses) return undefined
    const element = search(walker, index, datum)
    if (element && 'unknown' in element) return element
    // … but who is on any other list may be there to stay
    if (element && dynamic) return {unknown: `set ${index.set.name}, whose members come and go`}
    if (element && (element.limited || index.set?.limited))
      return {unknown: `${index.set ? `set ${index.set.name}` : 'a set'}, whose members match up to a limit`}
    if (element) return this.hit(walker, index, element)
    return index.set?.broken ? {unknown: `set ${index.set.name} was not understood as a whole`} : undefined
  }

  private hit(walker: Walker, {set}: Index, element: NftElement): Found {
    if (!set) return element
    walker.hop('rule', `${elementText(element)} is in ${set.map === undefined ? 'set' : 'map'} ${set.name}`, {
      where: `${set.family} ${set.table}/@${set.name}`,
      evidence: {source: this.ruleset!.file, line: lineOf(set, element, walker.steps), text: elementText(element)},
    })
    return {...element, set}
  }

  private indexOf(reference: NftJson, isMap: boolean): Index | undefined {
    if (typeof reference === 'string') return this.namedIndex(reference.replace(/^@/, ''))
    if (typeof reference !== 'object' || reference === null || Array.isArray(reference)) return undefined
    let index = this.anonymous.get(reference)
    if (!index) this.anonymous.set(reference, (index = buildIndex(anonymousElements(reference, isMap), undefined)))
    return index
  }

  private namedIndex(name: string): Index | undefined {
    const key = `${this.table} ${name}`
    const known = this.named.get(key)
    if (known) return known
    const set = this.ruleset?.tables.get(this.table)?.sets.get(name)
    if (!set) return undefined
    const index = buildIndex(set.elements, set)
    this.named.set(key, index)
    return index
  }
}

/** Of several lines of members the one that says this: looked for only where somebody reads it. */
function lineOf({lines = [], line}: NftSet, element: NftElement, isRead: boolean): number {
  const words = isRead ? elementText(element) : ''
  const own = words === '' ? undefined : lines.find(({text}) => isMember(text, words))
  return own?.number ?? (element.line || line)
}

/** As a whole: `10.0.0.1` is no `10.0.0.10`. */
function isMember(text: string, words: string): boolean {
  const at = text.indexOf(words)
  return at >= 0 && /^$|[\s{,]/.test(text[at - 1] ?? '') && /^$|[\s},]/.test(text[at + words.length] ?? '')
}

function search(
  walker: Walker,
  {exact, others, names, all, set}: Index,
  datum: Datum,
): NftElement | {unknown: string} | undefined {
  if (datum.kind === 'name' && all.some((one) => typeof one.key === 'number'))
    return {unknown: `set ${set?.name ?? ''}, which has numbers where names are asked for`}
  const key = datumKey(datum)
  const hit = key === undefined ? undefined : exact.get(key)
  if (hit) return hit
  const rest = datum.kind === 'name' || names.length === 0 ? others : [...names, ...others]
  for (const element of key === undefined ? all : rest) {
    const answer = element.key === '*' ? true : isKey(walker, datum, element.key, `set ${set?.name ?? ''}`)
    if (typeof answer === 'object') return answer
    if (answer) return element
  }
  return undefined
}

const isDynamic = (set: NftSet): boolean =>
  set.flags.includes('dynamic') ||
  (set.flags.includes('timeout') && (set.elements.length === 0 || set.elements.some(({expires}) => expires)))

function anonymousElements(reference: NftObject, isMap: boolean): NftElement[] {
  const items = Array.isArray(reference['set']) ? reference['set'] : []
  return items.map((item) => {
    const [keyPart, data] = isMap && Array.isArray(item) ? [item[0] ?? null, item[1] ?? null] : [item, undefined]
    const elem =
      typeof keyPart === 'object' && keyPart !== null && !Array.isArray(keyPart) && 'elem' in keyPart
        ? (keyPart['elem'] as NftObject)
        : undefined
    return {key: elem ? (elem['val'] ?? null) : keyPart, ...(data === undefined ? {} : {data}), expires: false, line: 0}
  })
}

function buildIndex(elements: readonly NftElement[], set: NftSet | undefined): Index {
  const exact = new Map<string, NftElement>()
  const others: NftElement[] = []
  for (const element of elements) {
    const key = exactKey(element.key)
    if (key === undefined) others.push(element)
    else exact.set(key, element)
  }
  // the catch-all comes last
  others.sort((a, b) => Number(a.key === '*') - Number(b.key === '*'))
  return {exact, others, names: elements.filter(({key}) => hasName(key)), all: elements, set}
}

/** A word that is no number, address or wildcard, alone or as a part. */
function hasName(key: NftJson): boolean {
  if (typeof key === 'string') return key !== '*' && numberRange(key) === undefined && addressRange(key) === undefined
  return typeof key === 'object' && key !== null && !Array.isArray(key) && Array.isArray(key['concat'])
    ? key['concat'].some(hasName)
    : false
}

/** A key or a value as nft prints it. */
export function keyText(value: NftJson): string {
  if (typeof value !== 'object' || value === null) return String(value)
  if (Array.isArray(value)) return value.map(keyText).join(', ')
  if (Array.isArray(value['concat'])) return value['concat'].map(keyText).join(' . ')
  const [name] = Object.keys(value)
  const target = (value[name!] as NftObject | null)?.['target']
  return target === undefined ? (value[name!] === null ? name! : JSON.stringify(value)) : `${name} ${String(target)}`
}

const elementText = ({key, data}: NftElement): string =>
  data === undefined ? keyText(key) : `${keyText(key)} : ${keyText(data)}`
