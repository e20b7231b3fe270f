import {placeOf} from './place.js'
import {plural, safeLine} from '../util/text.js'
import {leftOutText, type CheckReport} from './check-report.js'

/** Nothing of it is markup, a link or a mention: what Markdown or HTML may take for one is written as an entity. */
const cell = (text: string): string =>
  safeLine(text).replaceAll(/[\\|<>&`*_[\]@~]/g, (char) => `&#${char.codePointAt(0)};`)
const code = (text: string): string => `\`${safeLine(text).replaceAll('`', "'")}\``

/** For a ticket or a comment. */
export function markdown(report: CheckReport): string {
  const {summary} = report
  const head = `### svc-trace: ${plural(summary.errors, 'error')}, ${plural(summary.warnings, 'warning')}${summary.incomplete > 0 ? ', incomplete' : ''}\n\n${plural(summary.services, 'Service')} on ${plural(summary.nodes, 'node')}, ${plural(summary.walks, 'way')} walked.${summary.ignored > 0 ? ` Left out: ${leftOutText(summary)}.` : ''}\n`
  const rows = report.findings.map(
    ({severity, code: number, name, node, services, message}) =>
      `| ${severity} | ${number} ${name} | ${cell(node ?? '')} | ${cell(services.slice(0, 5).join(', '))}${services.length > 5 ? ` +${services.length - 5}` : ''} | ${cell(message)} |`,
  )
  const table =
    rows.length === 0
      ? ''
      : `\n| severity | finding | node | Services | what |\n|---|---|---|---|---|\n${rows.join('\n')}\n`
  const details = report.findings
    .filter(({severity}) => severity !== 'info')
    .map(
      ({code: number, message, evidence, fix}) =>
        `\n<details><summary>${number} ${cell(message)}</summary>\n\n${evidence.map((one) => `- ${code(placeOf(one))}: ${code(one.text)}`).join('\n')}\n\nFix: ${cell(fix)}\n</details>\n`,
    )
  const open =
    report.incomplete.length === 0
      ? ''
      : `\nNot seen or not decided:\n${report.incomplete.map(({node, reason}) => `- ${cell(`${node ? `${node}: ` : ''}${reason}`)}`).join('\n')}\n`
  return [head, table, ...details, open].join('')
}
