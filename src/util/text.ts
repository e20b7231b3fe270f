/** Control characters, bidi marks and other invisibles, which could rewrite what a terminal shows. */
const UNSAFE = /[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u200B-\u200F\u202A-\u202E\u2060-\u2069\uFEFF]/g

/** Makes a text from a dump, a name or an annotation safe for a terminal: `\x1b[31m` is shown, not obeyed. */
export function safe(text: string): string {
  return text.replace(UNSAFE, (char) =>
    char.charCodeAt(0) < 256
      ? `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`
      : `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** The same for one line. */
export const safeLine = (text: string): string => safe(text).replaceAll('\n', '\\n').replaceAll('\t', ' ')

export const plural = (count: number, word: string): string =>
  `${count} ${word}${count === 1 ? '' : word.endsWith('s') ? 'es' : 's'}`

/** JSON in which nothing is left that a terminal would obey: controls of C1 and marks of direction are escaped as well. */
export const safeJson = (value: unknown, indent?: number): string =>
  JSON.stringify(value, undefined, indent).replaceAll(
    /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )

/** A copy in which no text holds anything that a terminal would obey. */
export function safeCopy<T>(value: T): T {
  if (typeof value === 'string') return safeLine(value) as T
  if (Array.isArray(value)) return value.map(safeCopy) as T
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, safeCopy<unknown>(item)])) as T
}
