/** Careful reading of JSON of unknown shape: what has the wrong type counts as not there. */
export type Json = Record<string, unknown>

export const record = (value: unknown): Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {}
export const list = (value: unknown): Json[] => (Array.isArray(value) ? value.map(record) : [])
export const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined)
export const number = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined)
export const texts = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : []

/** JSON with one item of a list in each line, so that a line of the file is an object; the rest as `JSON.stringify` has it. */
export function listText(value: unknown): string {
  const {items, ...rest} = record(value)
  if (!Array.isArray(items) || items.length === 0) return JSON.stringify(value)
  const head = JSON.stringify({...rest, items: []}).slice(0, -2)
  return `${head}\n${items.map((item) => JSON.stringify(item)).join(',\n')}\n]}\n`
}
