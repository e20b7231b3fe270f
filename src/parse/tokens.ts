/** The words of a line. */
export interface Words {
  readonly words: readonly string[]
  /** Which of them stood in quotes: they never start an option. */
  readonly quoted: ReadonlySet<number>
  /** False when the line ends inside a quote: it was cut or wrapped. */
  readonly closed: boolean
}

const NONE: ReadonlySet<number> = new Set()

/** Splits a line at blanks as iptables-save quotes it: `"…"` with `\"` and `\\` inside (libxtables `xtables_save_string`). */
export function splitWords(line: string): Words {
  if (line.includes('"')) return splitQuoted(line)
  const words = line.split(' ')
  return {words: words.includes('') ? words.filter((word) => word !== '') : words, quoted: NONE, closed: true}
}

const isBlank = (char: string | undefined): boolean => char === ' ' || char === '\t'

function splitQuoted(line: string): Words {
  const words: string[] = []
  const quoted = new Set<number>()
  let closed = true
  let quote = line.indexOf('"')
  for (let at = 0; at < line.length;) {
    if (isBlank(line[at])) {
      at++
      continue
    }
    const blank = nextBlank(line, at)
    if (quote < 0 || quote >= blank) {
      words.push(line.slice(at, blank))
      at = blank
      continue
    }
    const word = readQuoted(line, at)
    quoted.add(words.length)
    words.push(word.text)
    closed = word.closed
    at = word.end
    quote = line.indexOf('"', at)
  }
  return {words, quoted, closed}
}

function nextBlank(line: string, from: number): number {
  const space = line.indexOf(' ', from)
  const tab = line.indexOf('\t', from)
  if (space < 0 || tab < 0) return Math.max(space, tab) < 0 ? line.length : Math.max(space, tab)
  return Math.min(space, tab)
}

/** A word with quotes in it, up to the next blank outside of them. */
function readQuoted(line: string, start: number): {text: string; closed: boolean; end: number} {
  const end = line[start] === '"' ? line.indexOf('"', start + 1) : -1
  if (end > 0 && (end + 1 === line.length || isBlank(line[end + 1]))) {
    const text = line.slice(start + 1, end)
    if (!text.includes('\\')) return {text, closed: true, end: end + 1}
  }
  return readPieces(line, start)
}

/** The same, piece by piece: quotes in the middle of the word, or escapes. */
function readPieces(line: string, start: number): {text: string; closed: boolean; end: number} {
  let text = ''
  let inside = false
  let at = start
  for (; at < line.length; at++) {
    const char = line[at]!
    if (char === '"') inside = !inside
    else if (inside && char === '\\' && at + 1 < line.length) text += line[++at]!
    else if (!inside && isBlank(char)) break
    else text += char
  }
  return {text, closed: !inside, end: at}
}
