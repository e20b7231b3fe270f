import {parseIptablesList} from './iptables-list.js'
import {parseIptablesSave, type IptablesDump} from './iptables.js'

export interface IptablesOptions {
  /** Makes equal lines one text. */
  readonly share?: (line: string) => string
  /** Chains whose rules, and rules that lead there, are known to ask for no interface. */
  readonly asksForNone?: (chain: string) => boolean
  /** Chains that are known to be in the nat table. */
  readonly inNat?: (chain: string) => boolean
}

const LISTED = /^\s*(?:\S+[$#>] ?)?Chain \S+ \((?:policy [A-Z]|\d+ references)/m
const SAVED = /^\s*(?:\*[a-z]+\s*$|-[APNI] \S|:\S+ |\[\d+:\d+\] -A )/m
/** Where a form begins that the line before was not of. */
const BEGINS_LISTING = /^\s*Chain \S+ \(/
const BEGINS_SAVE = /^\s*(?:\*[a-z]+\s*$|-[APN] \S|:\S+ \S+ \[)/

/** Parses what iptables prints of its rules: `iptables-save` and `iptables -S`, `iptables -L`, or some tables in one form and some in the other. */
export function parseIptables(text: string, file: string, options: IptablesOptions = {}): IptablesDump {
  const list = (part: string): IptablesDump => parseIptablesList(part, file, options.asksForNone)
  const save = (part: string): IptablesDump => parseIptablesSave(part, file, options)
  if (!text.includes('Chain ') || !LISTED.test(text)) return save(text)
  if (!SAVED.test(text)) return list(text)
  const {saved, listed} = split(text)
  return merged(save(saved), list(listed))
}

/** The lines of each form at their places; what a prompt says is for both. */
function split(text: string): {saved: string; listed: string} {
  let form: 'saved' | 'listed' | 'both' = 'both'
  const forms = text.split('\n').map((line) => {
    if (BEGINS_LISTING.test(line)) form = 'listed'
    else if (BEGINS_SAVE.test(line)) form = 'saved'
    else if (/^\s*([$#]|\S+@\S+)/.test(line)) form = 'both'
    return {line, form}
  })
  const only = (wanted: 'saved' | 'listed'): string =>
    forms.map((one) => (one.form === wanted || one.form === 'both' ? one.line : '')).join('\n')
  return {saved: only('saved'), listed: only('listed')}
}

function merged(saved: IptablesDump, listed: IptablesDump): IptablesDump {
  for (const [name, table] of listed.tables) {
    const known = saved.tables.get(name)
    if (!known) saved.tables.set(name, table)
    else {
      known.complete = false
      const message = `table ${name} stands here in two forms: two hosts or two moments in one file?`
      saved.problems.push({file: saved.file, line: [...table.chains.values()][0]?.line ?? 0, message})
    }
  }
  if (listed.hidesInterfaces) saved.hidesInterfaces = true
  if (listed.partial && listed.tables.has('nat')) saved.partial = true
  saved.hidden.push(...listed.hidden)
  for (const problem of listed.problems)
    if (!saved.problems.some(({line, message}) => line === problem.line && message === problem.message))
      saved.problems.push(problem)
  return saved
}
