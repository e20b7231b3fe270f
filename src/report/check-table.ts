import Table from 'cli-table3'
import {safeLine} from '../util/text.js'
import {leftOutText, type CheckReport} from './check-report.js'
import {paint} from './paint.js'

const NO_LINES = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '   ',
}

/** One line a finding, as kubectl prints tables. */
export function checkTable(report: CheckReport, {color}: {color: boolean}): string {
  const open = report.incomplete
    .map(({node, reason}) => `incomplete: ${safeLine(`${node === undefined ? '' : `${node}: `}${reason}`)}\n`)
    .join('')
  const leftOut = report.summary.ignored > 0 ? `left out: ${leftOutText(report.summary)}\n` : ''
  if (report.findings.length === 0) return `No findings.\n${leftOut}${open}`
  const ink = paint(color)
  const table = new Table({
    head: ['SEVERITY', 'CODE', 'NODE', 'SERVICES', 'MESSAGE'],
    chars: NO_LINES,
    style: {head: [], border: [], 'padding-left': 0, 'padding-right': 0},
  })
  for (const {severity, code, node, services, message} of report.findings)
    table.push([
      ink.severity(severity, severity),
      code,
      safeLine(node ?? '-'),
      services.length > 1 ? `${services[0]} +${services.length - 1}` : (services[0] ?? '-'),
      safeLine(message),
    ])
  return `${table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')}\n${leftOut}${open}`
}
