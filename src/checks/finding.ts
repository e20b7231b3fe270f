import type {Evidence} from '../model/trace.js'
import type {CodeName} from './codes.js'

export type Severity = 'error' | 'warning' | 'info'
export const SEVERITIES: readonly Severity[] = ['error', 'warning', 'info']

/** One cause of trouble, with everything that it hurts (design.md, "Findings"). */
export interface Finding {
  readonly code: string
  readonly name: CodeName
  readonly severity: Severity
  /** Only where there is one. */
  readonly service?: string
  readonly services: readonly string[]
  readonly port?: string
  readonly node?: string
  readonly frontends: readonly string[]
  readonly origins: readonly string[]
  readonly message: string
  readonly evidence: readonly Evidence[]
  readonly fix: string
}

/** Something asked for that could not be decided; never healthy, never a finding. */
export interface Incomplete {
  readonly node?: string
  readonly service?: string
  readonly reason: string
}
