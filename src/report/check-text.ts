import {placeOf} from './place.js'
import type {Finding, Incomplete} from '../checks/finding.js'
import {plural, safeLine} from '../util/text.js'
import {leftOutText, type CheckReport} from './check-report.js'
import {paint, wrap, type Paint} from './paint.js'

interface TextOptions {
  readonly color: boolean
  readonly width: number
  readonly wide: boolean
}

/** The report for a person: verdict first, then each cause with its evidence and what to do. */
export function checkText(report: CheckReport, {color, width, wide}: TextOptions): string {
  const ink = paint(color)
  const shown = report.findings.filter(({severity}) => wide || severity !== 'info')
  const blocks = shown.map((finding) => findingText(finding, {ink, width, wide}))
  const hidden = report.findings.length - shown.length
  return [
    `${verdict(report, ink)}\n`,
    ...blocks.map((block) => `\n${block}`),
    ...(hidden > 0 ? [`\n${plural(hidden, 'note')} on what is so by design: -o wide\n`] : []),
    incompleteText(report, {ink, width, wide}),
  ].join('')
}

function verdict({summary}: CheckReport, ink: Paint): string {
  const scope = `${plural(summary.services, 'Service')} on ${plural(summary.nodes, 'node')}`
  const taken = summary.taken === undefined ? '' : `, as of ${summary.taken}`
  const ignored = summary.ignored > 0 ? `, ${leftOutText(summary)}` : ''
  const counts = [
    summary.errors > 0 ? ink.severity('error', plural(summary.errors, 'error')) : '',
    summary.warnings > 0 ? ink.severity('warning', plural(summary.warnings, 'warning')) : '',
  ].filter(Boolean)
  const open = summary.incomplete > 0 ? `, ${ink.severity('warning', 'incomplete')}` : ''
  return `${counts.length > 0 ? ink.bold(counts.join(', ')) : ink.bold('no errors, no warnings')}${ignored}${open}: ${scope}${taken}`
}

interface FindingOptions {
  readonly ink: Paint
  readonly width: number
  readonly wide: boolean
}

export function findingText(finding: Finding, {ink, width, wide}: FindingOptions): string {
  const head = `${ink.severity(finding.severity, finding.severity.toUpperCase())} ${finding.code} ${finding.name}${finding.node ? ` on ${finding.node}` : ''}`
  const hurts =
    finding.services.length === 0
      ? []
      : [`  hurts     ${wrap(list(finding.services, wide ? 200 : 6), width - 12, '            ')}`]
  const ways =
    finding.frontends.length === 0
      ? []
      : [
          `  at        ${wrap(`${list(finding.frontends, wide ? 200 : 4)}${finding.origins.length > 0 ? `, from ${finding.origins.join(', ')}` : ''}`, width - 12, '            ')}`,
        ]
  const evidence = finding.evidence.map(
    (one) =>
      `  evidence  ${ink.dim(wrap(safeLine(placeOf(one)), width - 12, '            '))}\n            ${wrap(safeLine(one.text), width - 12, '            ')}`,
  )
  return [
    head,
    `  ${wrap(safeLine(finding.message), width - 2, '  ')}`,
    ...hurts,
    ...ways,
    ...evidence,
    `  fix       ${wrap(finding.fix, width - 12, '            ')}`,
    '',
  ].join('\n')
}

function list(items: readonly string[], most: number): string {
  return items.length > most
    ? `${items.slice(0, most).map(safeLine).join(', ')} and ${items.length - most} more`
    : items.map(safeLine).join(', ')
}

/** How many open points a person reads before -o wide. */
const FEW = 6

function incompleteText({incomplete, problems}: CheckReport, {ink, width, wide}: FindingOptions): string {
  const lines = incomplete.map(
    ({node, reason}: Incomplete) => `  ${wrap(`${node ? `${node}: ` : ''}${safeLine(reason)}`, width - 2, '    ')}`,
  )
  const unread = problems.map(
    ({source, line, message}) =>
      `  ${wrap(`${safeLine(placeOf({source, line}))}: ${safeLine(message)}`, width - 2, '    ')}`,
  )
  const all = [...new Set([...lines, ...unread])]
  if (all.length === 0) return ''
  const shown = wide ? all : all.slice(0, FEW)
  return `\n${ink.bold('not seen or not decided')}\n${shown.join('\n')}\n${all.length > shown.length ? `  … ${all.length - shown.length} more: -o wide\n` : ''}`
}
