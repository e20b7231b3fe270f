import type {Change, DiffResult} from '../diff.js'
import {plural, safeCopy} from '../util/text.js'
import {paint, wrap} from './paint.js'

/** `kind: DiffReport`, as `-o json` prints it. */
export interface DiffReport {
  readonly apiVersion: 'svc-trace/v1'
  readonly kind: 'DiffReport'
  readonly a: string
  readonly b: string
  readonly summary: {readonly findings: number; readonly changes: number; readonly nodes: number}
  readonly findings: DiffResult['findings']
  readonly nodes: DiffResult['nodes']
  readonly incomplete: DiffResult['incomplete']
  readonly changes: readonly Change[]
}

export function diffReport(result: DiffResult, a: string, b: string): DiffReport {
  const {findings, changes, nodes, incomplete} = result
  const summary = {findings: findings.length, changes: changes.length, nodes: nodes.length}
  return {
    apiVersion: 'svc-trace/v1',
    kind: 'DiffReport',
    a,
    b,
    summary,
    findings,
    nodes,
    incomplete: safeCopy(incomplete),
    changes: safeCopy(changes),
  }
}

export const isSame = ({findings, nodes, changes}: DiffResult): boolean =>
  findings.length + nodes.length + changes.length === 0

/** Lines of one place beyond these are counted. */
const MOST_LINES = 12

/** The findings that came and went, then what changed, place by place. */
export function diffText(
  report: DiffReport,
  {color, width, wide}: {color: boolean; width: number; wide: boolean},
): string {
  const {a, b, findings, nodes, changes, summary, incomplete} = safeCopy(report)
  const ink = paint(color)
  const sign = (which: '+' | '-', text: string): string =>
    `${which === '+' ? ink.severity('warning', '+') : ink.dim('-')} ${text}`
  if (summary.findings + summary.changes + summary.nodes === 0)
    return `${ink.bold('no difference')}${incomplete.length > 0 ? ' in what both have read' : ''} between ${a} and ${b}\n${incompleteText(incomplete)}`
  const shown = findings.filter(({finding}) => wide || finding.severity !== 'info')
  const head = `${plural(shown.filter((one) => one.sign === '+').length, 'finding')} came, ${shown.filter((one) => one.sign === '-').length} went, ${plural(changes.length, 'change')}`
  const blocks = [...byPlace(changes)].map(([place, own]) => {
    const lines = own
      .slice(0, wide ? undefined : MOST_LINES)
      .map(
        (change) =>
          `  ${sign(change.sign, wrap(`${change.text}${change.line > 0 ? ` (${change.source}:${change.line})` : ''}`, width - 4, '      '))}\n`,
      )
    const more = own.length > lines.length ? `  … ${own.length - lines.length} more: -o wide\n` : ''
    return `\n${ink.bold(place)}\n${lines.join('')}${more}`
  })
  return [
    `${ink.bold(head)}\n${ink.dim(`- ${a}`)}\n+ ${b}\n`,
    ...(shown.length > 0 ? ['\n'] : []),
    ...shown.map(
      ({sign: which, finding}) =>
        `${sign(which, wrap(`${finding.severity.toUpperCase()} ${finding.code} ${finding.name}${finding.node === undefined ? '' : ` on ${finding.node}`}: ${finding.message}`, width - 2, '    '))}\n`,
    ),
    ...nodes.map(({sign: which, node}) => `${sign(which, `node ${node} was read only here`)}\n`),
    ...blocks,
    incompleteText(incomplete),
  ].join('')
}

/** What could not be compared. */
const incompleteText = (incomplete: DiffReport['incomplete']): string =>
  incomplete.length === 0
    ? ''
    : `\nnot compared\n${incomplete.map(({node, reason}) => `  ${node === undefined ? '' : `${node}: `}${reason}\n`).join('')}`

function byPlace(changes: readonly Change[]): Map<string, Change[]> {
  const places = new Map<string, Change[]>()
  for (const change of changes) {
    const place = `${change.node === undefined ? '' : `${change.node} `}${change.place}`
    const known = places.get(place)
    if (known) known.push(change)
    else places.set(place, [change])
  }
  return places
}
