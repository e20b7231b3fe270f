import {SEVERITIES, type Finding, type Severity} from '../checks/finding.js'
import type {CheckReport} from './check-report.js'

export type FailOn = Severity | 'never'

/** What fails: findings of this severity and above, and, unless allowed, what could not be decided. */
export interface Gate {
  readonly failOn: FailOn
  readonly allowIncomplete: boolean
}

export const STRICT: Gate = {failOn: 'error', allowIncomplete: false}

export const fails = ({failOn}: Pick<Gate, 'failOn'>, severity: Severity): boolean =>
  failOn !== 'never' && SEVERITIES.indexOf(severity) <= SEVERITIES.indexOf(failOn)

/** The verdict as an exit code: 1 findings that count, 3 something is open, 0 neither. */
export function gateOf(findings: readonly Finding[], {failOn, open}: {failOn: FailOn; open: boolean}): 0 | 1 | 3 {
  if (findings.some(({severity}) => fails({failOn}, severity))) return 1
  return open ? 3 : 0
}

export const gate = (
  {findings, incomplete}: Pick<CheckReport, 'findings' | 'incomplete'>,
  {failOn, allowIncomplete}: Gate,
): 0 | 1 | 3 => gateOf(findings, {failOn, open: incomplete.length > 0 && !allowIncomplete})
