import {setTimeout as sleep} from 'node:timers/promises'
import type {Finding} from '../checks/finding.js'
import {ApiFailure} from '../kube/api.js'
import {readConnection} from '../kube/kubeconfig.js'
import {SvcTraceError} from '../model/errors.js'
import {safe, safeLine} from '../util/text.js'
import {interruption} from './interruption.js'
import {connect, type LiveFlags} from './live.js'

/** What two rounds are compared by. */
export interface Round {
  readonly findings: readonly Finding[]
  readonly incomplete: readonly {readonly node?: string; readonly service?: string; readonly reason: string}[]
}

/** Repeats a check on an interval and when endpoints change, and tells only what is new and what is gone. */
export async function watch<T extends Round>(
  round: () => Promise<T>,
  {flags, interval, first}: {flags: LiveFlags; interval: number; first: (round: T) => Promise<void>},
): Promise<never> {
  let last: T | undefined
  let told = false
  const deaf = (reason: string): void => {
    if (!told)
      process.stderr.write(`${stamp(new Date())} changes of endpoints are not seen at once: ${safeLine(reason)}\n`)
    told = true
  }
  for (;;) {
    const over = new AbortController()
    const {signal} = over
    const stop = (): void => over.abort()
    interruption().addEventListener('abort', stop, {once: true})
    // watched from before the round, so that nothing that changes during it is missed
    const change = endpointsChange(flags, signal, deaf)
    try {
      const now = await round()
      if (last) process.stdout.write(changes(last, now, new Date()))
      else await first(now)
      last = now
    } catch (error) {
      // a round that fails is told, and the next one tries again
      if (!(error instanceof SvcTraceError) || error.code === 'Interrupted' || !last) throw error
      process.stderr.write(`${stamp(new Date())} not read: ${safe(error.message)}\n`)
    }
    const quiet = (): undefined => undefined
    await sleep(SHORTEST, undefined, {signal}).catch(quiet)
    await Promise.race([sleep(interval, undefined, {signal}).catch(quiet), change])
    over.abort()
    interruption().removeEventListener('abort', stop)
    if (interruption().aborted) throw new SvcTraceError('Interrupted', 'interrupted')
  }
}

/** Milliseconds between two rounds at least, however fast endpoints change. */
const SHORTEST = 1000

/** Settles when a slice changes, or when the signal trips; where the API does not let itself be watched, with the signal alone, and `deaf` is told. */
async function endpointsChange(flags: LiveFlags, signal: AbortSignal, deaf: (reason: string) => void): Promise<void> {
  const over = new Promise<void>((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), {once: true})
  })
  try {
    const api = await connect(readConnection(flags), {...flags, 'request-timeout': '0'}, signal)
    try {
      await Promise.race([api.change('/apis/discovery.k8s.io/v1/endpointslices'), over])
    } finally {
      api.close()
    }
  } catch (error) {
    // not allowed, or broken: the interval is all, and the next round tells what is wrong
    if (error instanceof ApiFailure && (error.status === 401 || error.status === 403))
      deaf(`${error.message}; grant the verb watch on endpointslices (manifests/rbac.yaml)`)
    await over
  }
}

const keyOf = ({code, node, services, message}: Finding): string => [code, node, services.join(), message].join('|')
const openKey = ({node, service, reason}: Round['incomplete'][number]): string => [node, service, reason].join('|')

/** Lines for what came (`+`) and went (`-`); nothing when all is as it was. */
export function changes(before: Round, now: Round, at: Date): string {
  const missing = <T>(from: readonly T[], others: readonly T[], key: (item: T) => string): T[] => {
    const known = new Set(others.map(key))
    return from.filter((item) => !known.has(key(item)))
  }
  const line = (sign: string, text: string): string => `${stamp(at)} ${sign} ${safeLine(text)}\n`
  const told = ({severity, code, node, message}: Finding): string =>
    `${severity} ${code}${node === undefined ? '' : ` on ${node}`}: ${message}`
  const open = ({node, reason}: Round['incomplete'][number]): string =>
    `incomplete${node === undefined ? '' : ` ${node}`}: ${reason}`
  return [
    ...missing(now.findings, before.findings, keyOf).map((finding) => line('+', told(finding))),
    ...missing(before.findings, now.findings, keyOf).map((finding) => line('-', told(finding))),
    ...missing(now.incomplete, before.incomplete, openKey).map((item) => line('+', open(item))),
    ...missing(before.incomplete, now.incomplete, openKey).map((item) => line('-', open(item))),
  ].join('')
}

const stamp = (date: Date): string => date.toISOString().slice(11, 19)
