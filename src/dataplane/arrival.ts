import type {Cause} from '../model/trace.js'
import type {Machine} from './machine.js'
import type {End} from './walker.js'
import type {PodPlace, ProxySocket} from './world.js'

/** The packet reached somebody: a pod, a process of a node, or a host outside. */
export interface Arrival {
  readonly kind: 'pod' | 'socket' | 'external'
  readonly machine: Machine
  readonly pod?: PodPlace
  /** For a socket: does anybody listen? */
  readonly listening: boolean
  /** For a socket: what the proxy does whose own it is. */
  readonly proxy?: ProxySocket
}

export type Result = Arrival | End

export const isArrival = (result: Result): result is Arrival => 'kind' in result

export const dropped = (cause: Cause, reason: string): End => ({outcome: 'dropped', cause, reason})
export const refused = (cause: Cause, reason: string): End => ({outcome: 'refused', cause, reason})
export const unknown = (reason: string): End => ({outcome: 'unknown', cause: 'unknown', reason})
