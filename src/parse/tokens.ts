/** A word of a rule; `quoted` words never start an option. */
export interface Token {
  readonly text: string
  readonly quoted: boolean
}

/**
 * Splits a line at blanks as iptables-save quotes it: `"…"` with `\"` and `\\` inside (libxtables `xtables_save_string`).
 * `closed` is false when the line ends inside a quote: it was cut or wrapped.
 */
export function tokenize(line: string): {tokens: Token[]; closed: boolean} {
  if (!line.includes('"')) {
    const tokens: Token[] = []
    for (const text of line.split(' ')) if (text !== '') tokens.push({text, quoted: false})
    return {tokens, closed: true}
  }
  return tokenizeQuoted(line)
}

function tokenizeQuoted(line: string): {tokens: Token[]; closed: boolean} {
  const tokens: Token[] = []
  let text = ''
  let inside = false
  let quoted = false
  for (let at = 0; at < line.length; at++) {
    const char = line[at]!
    if (inside) {
      if (char === '\\' && at + 1 < line.length) text += line[++at]!
      else if (char === '"') inside = false
      else text += char
    } else if (char === '"') {
      inside = true
      quoted = true
    } else if (char === ' ' || char === '\t') {
      if (text !== '' || quoted) tokens.push({text, quoted})
      text = ''
      quoted = false
    } else text += char
  }
  if (text !== '' || quoted) tokens.push({text, quoted})
  return {tokens, closed: !inside}
}
