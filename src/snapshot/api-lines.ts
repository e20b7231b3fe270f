import type {Evidence} from '../model/trace.js'
import {list, record, text as textOf} from '../util/json.js'
import type {Snapshot} from './snapshot.js'

/** A string, or what opens or closes a value that holds others. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\]]/g
const SPACE = /[\s:,]*/y
const SCALAR = /[^\s,\]}]*/y

interface Member {
  /** A key of an object, a position of a list. */
  readonly key: string
  /** Where the key starts; of a list's member the value. */
  readonly at: number
  readonly value: number
}

/** Reads one list as `kubectl get -o json` prints it, in one line or in many, and tells where in it the fields of its objects stand. */
export class ObjectLines {
  private readonly text: string
  private readonly hasLines: boolean
  private readonly items = new Map<string, number>()

  /** Throws SyntaxError where the text is no JSON. */
  constructor(text: string) {
    this.text = text
    this.hasLines = text.trim().includes('\n')
    const names = list(record(JSON.parse(text))['items']).map((item) => {
      const {name, namespace} = record(item['metadata'])
      return [textOf(name), textOf(namespace) ?? 'default'] as const
    })
    const starts = [...this.members(this.find(this.members(start(text)), 'items')?.value)]
    for (const [at, [name, namespace]] of names.entries())
      for (const id of [`${namespace}/${name}`, name ?? ''])
        if (!this.items.has(id)) this.items.set(id, starts[at]?.value ?? -1)
  }

  /**
   * The 1-based line of a field (`spec.ports[0].nodePort`) of an object (`namespace/name`, or its name alone), of the nearest
   * field around it where the object has no such field, and of its name where none is asked for; 0 without such an object, and
   * where the whole list is one line.
   */
  line(object: string, field = 'metadata.name'): number {
    const item = this.items.get(object)
    if (item === undefined || item < 0 || !this.hasLines) return 0
    let place: Member = {key: '', at: item, value: item}
    for (const key of field.split(/[.[\]]+/).filter((part) => part !== '')) {
      const next = this.find(this.members(place.value), key)
      if (!next) break
      place = next
    }
    return place.value === item && field !== 'metadata.name' ? this.line(object) : lineAt(this.text, place.at)
  }

  private find(members: Iterable<Member>, wanted: string): Member | undefined {
    for (const member of members) if (member.key === wanted) return member
    return undefined
  }

  /** What an object or a list holds; nothing for other values. */
  private *members(at: number | undefined): Generator<Member> {
    const open = at === undefined ? undefined : this.text[at]
    if (open !== '{' && open !== '[') return
    let place = after(SPACE, this.text, at! + 1)
    for (let index = 0; place < this.text.length && !/[}\]]/.test(this.text[place]!); index++) {
      const start = place
      if (open === '{') place = after(SPACE, this.text, this.end(place))
      yield {
        key: open === '{' ? (JSON.parse(this.text.slice(start, this.end(start))) as string) : String(index),
        at: start,
        value: place,
      }
      place = after(SPACE, this.text, this.end(place))
    }
  }

  /** Where the value ends that starts here. */
  private end(at: number): number {
    if (!/["{[]/.test(this.text[at]!)) return after(SCALAR, this.text, at)
    TOKEN.lastIndex = at
    let depth = 0
    do {
      const token = TOKEN.exec(this.text)?.[0]
      if (token === undefined) return this.text.length
      if (token === '{' || token === '[') depth++
      else if (token === '}' || token === ']') depth--
    } while (depth > 0)
    return TOKEN.lastIndex
  }
}

const start = (text: string): number => text.search(/\S/)

function after(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at
  pattern.exec(text)
  return Math.max(at, pattern.lastIndex)
}

function lineAt(text: string, at: number): number {
  let line = 1
  for (let next = text.indexOf('\n'); next >= 0 && next < at; next = text.indexOf('\n', next + 1)) line++
  return line
}

/** Lists of other forms (YAML, with the command above them) are taken too, and have no lines here; nor has a file that changed meanwhile. */
function linesOf(text: string): ObjectLines | undefined {
  try {
    return new ObjectLines(text)
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

interface Proven {
  readonly evidence: readonly Evidence[]
}

/**
 * Gives the evidence of API objects its lines: of a snapshot that somebody has saved; what was just read from a cluster has
 * none yet. Files are read once more for it, since the texts of large clusters are not kept.
 */
export async function withLines<T extends Proven>(
  proven: readonly T[],
  {reread}: Pick<Snapshot, 'reread'>,
): Promise<readonly T[]> {
  if (!reread) return proven
  const wanted = new Set(proven.flatMap(({evidence}) => evidence.flatMap(({object, source}) => (object ? source : []))))
  const files = new Map([...(await reread(wanted))].map(([path, text]) => [path, linesOf(text)] as const))
  const placed = (one: Evidence): Evidence =>
    one.object === undefined ? one : {...one, line: files.get(one.source)?.line(one.object, one.field) ?? 0}
  return proven.map((each) => ({...each, evidence: each.evidence.map(placed)}))
}
