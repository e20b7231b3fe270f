import {existsSync} from 'node:fs'
import {readFile, writeFile} from 'node:fs/promises'
import {CORE_SCHEMA, load as parseYaml} from 'js-yaml'
import type {CheckResult} from '../checks/check.js'
import {CODES, findCode} from '../checks/codes.js'
import type {Finding} from '../checks/finding.js'
import {SvcTraceError} from '../model/errors.js'
import type {Gated} from '../report/check-report.js'
import {fingerprint} from '../report/fingerprint.js'
import type {Snapshot} from '../snapshot/snapshot.js'
import {duration} from './duration.js'

export interface GateFlags {
  readonly config?: string | undefined
  readonly baseline?: string | undefined
  readonly 'write-baseline'?: string | undefined
  readonly 'max-age'?: string | undefined
}

interface IgnoreRule {
  readonly code?: string
  readonly service?: string
  readonly node?: string
  readonly until?: string
  readonly reason: string
}

const DEFAULT_CONFIG = '.svc-trace.yaml'
const RULE_KEYS = new Set(['code', 'service', 'node', 'until', 'reason'])

/** Ignore rules and known findings: what they take out is counted, never hidden. */
export interface GateConfig {
  readonly refuseOld: (snapshot: Snapshot) => void
  readonly apply: (result: CheckResult) => Gated
  readonly writeBaseline: (result: CheckResult) => Promise<void>
}

export async function loadGateConfig(flags: GateFlags): Promise<GateConfig> {
  const rules = await ignoreRules(flags.config)
  const known = flags.baseline === undefined ? new Set<string>() : await readBaseline(flags.baseline)
  const maxAge = flags['max-age'] === undefined ? undefined : duration(flags['max-age'], '--max-age')
  return {
    refuseOld: (snapshot) => refuseOld(snapshot, maxAge, flags['max-age']),
    apply: (result) => {
      const fresh = result.findings.filter((finding) => !known.has(fingerprint(finding)))
      const findings = fresh.filter((finding) => !rules.some((rule) => matches(rule, finding)))
      const {length} = result.findings
      return {...result, findings, ignored: length - findings.length, inBaseline: length - fresh.length}
    },
    writeBaseline: async (result) => {
      if (flags['write-baseline'] === undefined) return
      await writeBaseline(flags['write-baseline'], result)
    },
  }
}

async function writeBaseline(path: string, {findings}: CheckResult): Promise<void> {
  const baseline = {apiVersion: 'svc-trace/v1', kind: 'Baseline', findings: findings.map(fingerprint)}
  try {
    await writeFile(path, `${JSON.stringify(baseline, undefined, 2)}\n`)
  } catch (error) {
    throw new SvcTraceError('BadUsage', `cannot write baseline ${path}: ${(error as Error).message}`, undefined, {
      cause: error,
    })
  }
}

/** Clocks of two machines may differ by so much. */
const CLOCK_SKEW = 5 * 60_000

function refuseOld({info}: Snapshot, maxAge: number | undefined, text: string | undefined): void {
  if (maxAge === undefined) return
  if (info.taken === undefined)
    throw new SvcTraceError(
      'BadSnapshot',
      'the snapshot does not say when it was taken, so --max-age cannot be checked',
    )
  const age = Date.now() - Date.parse(info.taken)
  if (Number.isNaN(age) || age < -CLOCK_SKEW)
    throw new SvcTraceError(
      'BadSnapshot',
      `the snapshot says that it was taken at "${info.taken}", which is ${Number.isNaN(age) ? 'no time' : 'in the future'}: --max-age cannot be checked`,
    )
  if (age > maxAge)
    throw new SvcTraceError(
      'BadSnapshot',
      `the snapshot was taken at ${info.taken}, longer ago than --max-age ${text}`,
      'take a new one: kubectl svc-trace snapshot -f FILE',
    )
}

async function ignoreRules(path: string | undefined): Promise<IgnoreRule[]> {
  if (path === undefined && !existsSync(DEFAULT_CONFIG)) return []
  const file = path ?? DEFAULT_CONFIG
  const bad = (what: string): never => {
    throw new SvcTraceError(
      'BadConfig',
      `${file}: ${what}`,
      'ignore: [{code, service, node, until, reason}]; globs with *; reason is required',
    )
  }
  let parsed: unknown
  try {
    // without YAML's own dates, which move days that do not exist
    parsed = parseYaml(await readFile(file, 'utf8'), {schema: CORE_SCHEMA})
  } catch (error) {
    return bad((error as Error).message.split('\n')[0]!)
  }
  // nothing but comments
  if (parsed === null || parsed === undefined) return []
  if (typeof parsed !== 'object' || Array.isArray(parsed)) return bad('not a mapping')
  for (const key of Object.keys(parsed)) if (key !== 'ignore') bad(`unknown key "${key}"`)
  const list = (parsed as {ignore?: unknown}).ignore ?? []
  if (!Array.isArray(list)) return bad('"ignore" must be a list')
  return list.map((rule: unknown, at) => readRule(rule, (what) => bad(`ignore[${at}]: ${what}`)))
}

function readRule(rule: unknown, bad: (what: string) => never): IgnoreRule {
  if (typeof rule !== 'object' || rule === null || Array.isArray(rule)) return bad('not a mapping')
  const fields: Record<string, string> = {}
  for (const [key, value] of Object.entries(rule)) {
    if (!RULE_KEYS.has(key)) bad(`unknown key "${key}"`)
    if (typeof value !== 'string' || value.trim() === '') return bad(`"${key}" is not a text`)
    fields[key] = value
  }
  if (!fields['reason']) bad('"reason" is missing')
  if (!['code', 'service', 'node'].some((key) => /[^*]/.test(fields[key] ?? '')))
    bad('a rule without "code", "service" or "node", or with nothing but * in them, would ignore everything')
  if (fields['until'] !== undefined && !isDate(fields['until']))
    bad(`"until" is not a date like 2027-01-31: ${fields['until']}`)
  if (fields['code'] !== undefined && !namesCode(fields['code'])) bad(`there is no code "${fields['code']}"`)
  return fields as unknown as IgnoreRule
}

/** A day of the calendar: `Date.parse` alone takes many texts, and moves days that do not exist to the next month. */
function isDate(text: string): boolean {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(text)) return false
  const day = new Date(`${text}T00:00:00Z`)
  return !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text)
}

const namesCode = (text: string): boolean =>
  text.includes('*')
    ? Object.entries(CODES).some(([name, {code}]) => glob(text, name) || glob(text, code))
    : findCode(text) !== undefined

function matches({code, service, node, until}: IgnoreRule, finding: Finding): boolean {
  if (until !== undefined && Date.now() > Date.parse(until) + 86_400_000) return false
  if (code !== undefined && !glob(code, finding.code) && !glob(code, finding.name)) return false
  if (node !== undefined && !glob(node, finding.node ?? '')) return false
  return service === undefined || (finding.services.length > 0 && finding.services.every((id) => glob(service, id)))
}

function glob(pattern: string, text: string): boolean {
  return new RegExp(
    `^${pattern
      .split('*')
      .map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*')}$`,
    'i',
  ).test(text)
}

async function readBaseline(path: string): Promise<Set<string>> {
  try {
    const {kind, findings} = JSON.parse(await readFile(path, 'utf8')) as {kind?: unknown; findings?: unknown}
    if (kind !== 'Baseline') throw new Error(`its kind is ${JSON.stringify(kind)}, not "Baseline"`)
    if (!Array.isArray(findings) || !findings.every((line) => typeof line === 'string'))
      throw new Error('no "findings" list inside')
    return new Set(findings)
  } catch (error) {
    throw new SvcTraceError(
      'BadConfig',
      `cannot read baseline ${path}: ${(error as Error).message}`,
      'make one with --write-baseline FILE',
      {cause: error},
    )
  }
}
