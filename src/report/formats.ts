import {safeCopy, safeJson} from '../util/text.js'
import type {CheckReport, PublicCheckReport} from './check-report.js'

export const CHECK_FORMATS = [
  'text',
  'wide',
  'table',
  'json',
  'yaml',
  'name',
  'junit',
  'sarif',
  'github',
  'markdown',
  'prometheus',
] as const
export type CheckFormat = (typeof CHECK_FORMATS)[number]

/** Prints a report in one format; formats are loaded when asked for. */
export async function formatCheck(
  given: CheckReport,
  format: CheckFormat,
  options: {color: boolean; width: number},
): Promise<string> {
  // JSON and YAML escape for themselves; everything else may meet a terminal
  const report = format === 'json' || format === 'yaml' || format === 'sarif' ? given : safeCopy(given)
  switch (format) {
    case 'json':
      return `${safeJson(publicReport(report), 2)}\n`
    case 'yaml':
      return (await import('js-yaml')).dump(safeCopy(JSON.parse(JSON.stringify(publicReport(report)))), {
        lineWidth: -1,
        noRefs: true,
      })
    case 'name':
      return [
        ...report.findings.map(
          ({code, name, service, services, node}) =>
            `${code}/${name} ${service ?? (services.join(',') || '-')} ${node ?? '-'}\n`,
        ),
        ...report.incomplete.map(({node, service}) => `incomplete ${service ?? '-'} ${node ?? '-'}\n`),
      ].join('')
    case 'junit':
      return (await import('./junit.js')).junit(report)
    case 'sarif':
      return (await import('./sarif.js')).sarif(report)
    case 'github':
      return (await import('./github.js')).github(report)
    case 'markdown':
      return (await import('./markdown.js')).markdown(report)
    case 'prometheus':
      return (await import('./prometheus.js')).prometheus(report)
    case 'table':
      return (await import('./check-table.js')).checkTable(report, options)
    default:
      return (await import('./check-text.js')).checkText(report, {...options, wide: format === 'wide'})
  }
}

/** What the JSON contract promises; more keys may come, none goes. */
function publicReport({services: _services, nodes: _nodes, gate: _gate, ...report}: CheckReport): PublicCheckReport {
  return report
}
