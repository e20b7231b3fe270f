import type {CheckResult} from '../checks/check.js'
import {SEVERITIES, type Finding, type Incomplete} from '../checks/finding.js'
import {STRICT, type Gate} from './gate.js'
import type {Snapshot} from '../snapshot/snapshot.js'

/** The JSON form of `check` (schema/check-report.v1.schema.json). */
export interface PublicCheckReport {
  readonly apiVersion: 'svc-trace/v1'
  readonly kind: 'CheckReport'
  readonly summary: {
    readonly services: number
    readonly nodes: number
    readonly walks: number
    readonly errors: number
    readonly warnings: number
    readonly infos: number
    readonly incomplete: number
    /** Findings that an ignore rule or the baseline took out. */
    readonly ignored: number
    /** Of these, those that the baseline knew. */
    readonly inBaseline: number
    readonly taken?: string
  }
  readonly findings: readonly Finding[]
  readonly incomplete: readonly Incomplete[]
  readonly problems: readonly {
    readonly source: string
    readonly line: number
    readonly message: string
    readonly text?: string
  }[]
}

/** The result of `check` as every format prints it. */
export interface CheckReport extends PublicCheckReport {
  /** Services and nodes that were looked at, for formats with a test case each. */
  readonly services: readonly string[]
  readonly nodes: readonly string[]
  /** What fails the gate, for formats that tell passed from failed. */
  readonly gate: Gate
}

export interface Gated extends CheckResult {
  readonly ignored?: number
  readonly inBaseline?: number
}

/** In words, how many findings were left out and why; empty where none was. */
export function leftOutText({ignored, inBaseline}: PublicCheckReport['summary']): string {
  const byRule = ignored - inBaseline
  return [byRule > 0 ? `${byRule} ignored` : '', inBaseline > 0 ? `${inBaseline} in the baseline` : '']
    .filter(Boolean)
    .join(', ')
}

/** Shapes a result for printing. */
export function checkReport(result: Gated, snapshot: Snapshot, gate: Gate = STRICT): CheckReport {
  const count = (wanted: Finding['severity']): number =>
    result.findings.filter(({severity}) => severity === wanted).length
  const [errors, warnings, infos] = SEVERITIES.map(count)
  return {
    apiVersion: 'svc-trace/v1',
    kind: 'CheckReport',
    summary: {
      services: result.services.length,
      nodes: result.nodes.length,
      walks: result.walks,
      errors: errors!,
      warnings: warnings!,
      infos: infos!,
      incomplete: result.incomplete.length,
      ignored: result.ignored ?? 0,
      inBaseline: result.inBaseline ?? 0,
      ...(snapshot.info.taken === undefined ? {} : {taken: snapshot.info.taken}),
    },
    findings: result.findings,
    incomplete: result.incomplete,
    problems: result.problems.map(({file, line, message, text}) => ({
      source: file,
      line,
      message,
      ...(text === undefined ? {} : {text}),
    })),
    services: result.services,
    nodes: result.nodes,
    gate,
  }
}
