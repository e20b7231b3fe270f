import {SEVERITIES, type Finding, type Severity} from '../checks/finding.js'
import type {CheckReport} from './check-report.js'

export type FailOn = Severity | 'never'

/** The verdict as an exit code: 1 findings that count, 3 something is open, 0 neither. */
export function gateOf(findings: readonly Finding[], {failOn, open}: {failOn: FailOn; open: boolean}): 0 | 1 | 3 {
  if (failOn !== 'never' && findings.some(({severity}) => SEVERITIES.indexOf(severity) <= SEVERITIES.indexOf(failOn)))
    return 1
  return open ? 3 : 0
}

export const gate = (
  {findings, incomplete}: CheckReport,
  {failOn, allowIncomplete}: {failOn: FailOn; allowIncomplete: boolean},
): 0 | 1 | 3 => gateOf(findings, {failOn, open: incomplete.length > 0 && !allowIncomplete})
