import type {World} from '../../src/dataplane/world.js'
import {simulate, type SimulateLine} from '../../src/simulate.js'
import {NODE, PORTS, type Seen, type Shot} from './lab.js'

export type Verdict = 'agree' | 'unknown' | 'differ'
const OUTCOME = {ok: 'delivered', refused: 'refused', timeout: 'dropped', bind: 'delivered'} as const

/** What the engine says of a packet that the lab sends. */
export function predict(world: World, {id, from, proto, src, sport, dst, dport}: Shot): SimulateLine {
  const origin = from === 'client' ? {external: src} : from === 'router' ? {node: NODE} : {pod: `default/${from}`}
  try {
    return simulate(world, {
      id,
      from: origin,
      enter: NODE,
      to: dst.includes(':') ? `[${dst}]:${dport}` : `${dst}:${dport}`,
      proto,
      sport,
    })
  } catch (error) {
    return {id, error: (error as Error).stack ?? String(error)}
  }
}

/** The packet reaches a pod at a port on which nobody there listens; the engine does not look into pods. */
const closed = ({address, pod}: {address: string; pod?: string}): boolean =>
  pod !== undefined && !PORTS.includes(Number(address.split(':').at(-1)))

/** Does the prediction leave room for what the kernel did? */
export function judge(answer: SimulateLine, seen: Seen): Verdict {
  if ('error' in answer) return 'differ'
  const {outcomes, backends} = answer
  if ((outcomes.unknown ?? 0) > 0) return 'unknown'
  if (seen.fate === 'refused' && backends.some(closed)) return 'agree'
  if (!((outcomes[OUTCOME[seen.fate]] ?? 0) > 0)) return 'differ'
  if (seen.fate !== 'ok' || seen.address === null) return 'agree'
  return backends.some(({address, source}) => address === seen.address && source === seen.source) ? 'agree' : 'differ'
}
