import type {Severity} from '../checks/finding.js'
import {leftOutText, type CheckReport} from './check-report.js'

const COMMAND: Readonly<Record<Severity, string>> = {error: 'error', warning: 'warning', info: 'notice'}
const data = (text: string): string => text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
const property = (text: string): string => data(text).replaceAll(':', '%3A').replaceAll(',', '%2C')

/** Workflow commands of GitHub Actions. */
export function github(report: CheckReport): string {
  const lines = report.findings.map(
    ({severity, code, name, message, services, node, fix}) =>
      `::${COMMAND[severity]} title=${property(`${code} ${name}`)}::${data(`${message}${node ? ` (node ${node})` : ''}${services.length > 0 ? `\nServices: ${services.join(', ')}` : ''}\nFix: ${fix}`)}`,
  )
  const open = report.incomplete.map(
    ({node, reason}) => `::warning title=incomplete::${data(`${node ? `${node}: ` : ''}${reason}`)}`,
  )
  const leftOut = report.summary.ignored > 0 ? [`::notice title=left out::${data(leftOutText(report.summary))}`] : []
  return [...lines, ...open, ...leftOut].map((line) => `${line}\n`).join('')
}
