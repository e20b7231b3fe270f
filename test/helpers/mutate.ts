/** Changes of a capture's files, each of which must change something, and what `check` says then that it did not say before. */
import {check, type CheckResult} from '../../src/checks/check.js'
import type {Finding, Incomplete} from '../../src/checks/finding.js'
import {buildWorld} from '../../src/engine.js'
import {snapshotFromFiles} from '../../src/snapshot/snapshot.js'
import {snapshotFiles} from './corpus.js'

export interface Fresh {
  readonly findings: readonly Finding[]
  readonly loud: readonly Finding[]
  readonly incomplete: readonly Incomplete[]
}

export type Files = Map<string, string>
export type Mutation = (files: Files) => void
export type Mode = 'iptables-v4' | 'nftables-v4' | 'ipvs-v4' | 'iptables-dual' | 'k120-iptables-v4'

export const SAVE = 'iptables-save.txt'
export const SAVE6 = 'ip6tables-save.txt'

export function edit(files: Files, path: string, change: (text: string) => string): void {
  const before = files.get(path)
  if (before === undefined) throw new Error(`${path} is not in the capture`)
  const after = change(before)
  if (after === before) throw new Error(`${path} is not changed`)
  files.set(path, after)
}

/** A change of one of node2's files. */
export const onNode2 =
  (file: string, change: (text: string) => string): Mutation =>
  (files) =>
    edit(files, `nodes/node2/${file}`, change)

export function editJson<T>(files: Files, path: string, change: (value: T) => void): void {
  edit(files, path, (text) => {
    const value = JSON.parse(text) as T
    change(value)
    return JSON.stringify(value)
  })
}

export const all =
  (...mutations: Mutation[]): Mutation =>
  (files) => {
    for (const mutate of mutations) mutate(files)
  }

/** Changes the rules of one table; undefined takes a rule out. `line` is without its counters. */
export function rules(table: string, change: (line: string) => string | undefined): (text: string) => string {
  return (text) => {
    let current = ''
    return text
      .split('\n')
      .flatMap((line) => {
        if (line.startsWith('*')) current = line.slice(1)
        const [, counters = '', rule] = /^(\[\d+:\d+\] )?(-A .*)$/.exec(line) ?? []
        if (current !== table || rule === undefined) return [line]
        const changed = change(rule)
        return changed === undefined ? [] : [counters + changed]
      })
      .join('\n')
  }
}

export const without = (table: string, pattern: RegExp): ((text: string) => string) =>
  rules(table, (line) => (pattern.test(line) ? undefined : line))

/** `rule` before the first of `chain` in `table`. */
export function first(table: string, chain: string, rule: string): (text: string) => string {
  let done = false
  return rules(table, (line) => {
    if (done || !line.startsWith(`-A ${chain} `)) return line
    done = true
    return `-A ${chain} ${rule}\n${line}`
  })
}

export const key = ({code, severity, node, services, message}: Finding): string =>
  [code, severity, node ?? '', services.join(','), message].join('|')
export const brief = (findings: readonly Finding[]): string[] => findings.map(key)

export const healthy = new Map<string, Promise<CheckResult>>()
export const checkFiles = (files: Files): CheckResult => {
  const snapshot = snapshotFromFiles(files)
  return check(snapshot, buildWorld(snapshot))
}

/** What `check` says of the changed capture and not of the healthy one. */
export async function fresh(mode: Mode, mutate: Mutation): Promise<Fresh> {
  const cluster = mode.startsWith('k120-') ? mode : `k136-${mode}`
  if (!healthy.has(mode)) healthy.set(mode, snapshotFiles(cluster).then(checkFiles))
  const before = await healthy.get(mode)!
  const files = new Map(await snapshotFiles(cluster))
  mutate(files)
  return compare(before, checkFiles(files))
}

export function compare(before: CheckResult, after: CheckResult): Fresh {
  const known = new Set(brief(before.findings))
  const open = new Set(before.incomplete.map((entry) => JSON.stringify(entry)))
  const findings = after.findings.filter((finding) => !known.has(key(finding)))
  return {
    findings,
    loud: findings.filter(({severity}) => severity !== 'info'),
    incomplete: after.incomplete.filter((entry) => !open.has(JSON.stringify(entry))),
  }
}
