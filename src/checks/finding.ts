import type {Evidence} from '../model/trace.js'
import {codeInfo, type CodeName} from './codes.js'
import {fixFor} from './fix.js'

export type Severity = 'error' | 'warning' | 'info'
export const SEVERITIES: readonly Severity[] = ['error', 'warning', 'info']

/** One cause of trouble, with everything that it hurts (design.md, "Findings"). */
export interface Finding {
  readonly code: string
  readonly name: CodeName
  readonly severity: Severity
  /** What the code is about. */
  readonly title: string
  /** The page that says more, as `explain` prints it. */
  readonly docs: string
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

/** What a finding is made of besides its code; lists that are left out are empty. */
export interface FindingParts {
  readonly services?: readonly string[]
  readonly port?: string | undefined
  readonly node?: string
  readonly frontends?: readonly string[]
  readonly origins?: readonly string[]
  /** Other than the code's own. */
  readonly severity?: Severity | undefined
  readonly message: string
  readonly evidence: readonly Evidence[]
}

/** A finding with the severity and the fix of its code. */
export function makeFinding(name: CodeName, parts: FindingParts): Finding {
  const {code, severity, title, fix} = codeInfo(name)
  const {services = [], port, node, frontends = [], origins = [], message, evidence} = parts
  return {
    code,
    name,
    severity: parts.severity ?? severity,
    title,
    docs: `docs/findings.md#${code.toLowerCase()}`,
    ...(node === undefined ? {} : {node}),
    services,
    ...(services.length === 1 ? {service: services[0]!} : {}),
    ...(port === undefined ? {} : {port}),
    frontends,
    origins,
    message,
    evidence,
    fix: fixFor(fix, {services, node, frontends, message, evidence}),
  }
}

/** Something asked for that could not be decided; never healthy, never a finding. */
export interface Incomplete {
  readonly node?: string
  readonly service?: string
  readonly reason: string
}
