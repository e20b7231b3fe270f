import {deflateRawSync, inflateRawSync} from 'node:zlib'

/** Texts of this length and more are worth it. */
const LONG = 4096
/** Dumps shrink to a tenth at the fastest level already. */
const LEVEL = 1

/** A text that stands alone: V8 keeps the whole of a text alive as long as a part of it that was cut out. */
const copied = (text: string): string => Buffer.from(text).toString('utf8')

/** Files by name whose long texts are kept compressed: dumps of hundreds of nodes, of which few are looked at at a time. */
export class PackedFiles implements ReadonlyMap<string, string> {
  private readonly kept = new Map<string, string | Buffer>()

  constructor(files: Iterable<readonly [string, string]> = []) {
    for (const [name, text] of files) this.set(name, text)
  }

  set(name: string, text: string): this {
    this.kept.set(copied(name), text.length < LONG ? copied(text) : deflateRawSync(text, {level: LEVEL}))
    return this
  }

  /** Takes the files of another one over, each with its name behind `folder`, without unpacking them. */
  adopt(folder: string, {kept}: PackedFiles): void {
    for (const [name, text] of kept) this.kept.set(`${folder}${name}`, text)
  }

  get(name: string): string | undefined {
    const text = this.kept.get(name)
    return text === undefined || typeof text === 'string' ? text : inflateRawSync(text).toString('utf8')
  }

  has(name: string): boolean {
    return this.kept.has(name)
  }

  get size(): number {
    return this.kept.size
  }

  keys(): MapIterator<string> {
    return this.kept.keys()
  }

  *values(): MapIterator<string> {
    for (const name of this.keys()) yield this.get(name)!
  }

  *entries(): MapIterator<[string, string]> {
    for (const name of this.keys()) yield [name, this.get(name)!]
  }

  [Symbol.iterator](): MapIterator<[string, string]> {
    return this.entries()
  }

  forEach(call: (text: string, name: string, files: ReadonlyMap<string, string>) => void): void {
    for (const [name, text] of this) call(text, name, this)
  }
}

/** Makes equal texts one, copied out of the dump that they were cut from, so that nothing holds that any more. */
export function sharer(): (text: string) => string {
  const known = new Map<string, string>()
  return (text) => {
    const one = known.get(text)
    if (one !== undefined) return one
    const copy = copied(text)
    known.set(copy, copy)
    return copy
  }
}
