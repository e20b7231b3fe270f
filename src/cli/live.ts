import type {Snapshot} from '../snapshot/snapshot.js'
import {SvcTraceError} from '../model/errors.js'

export interface LiveFlags {
  readonly namespace?: string | undefined
}

/** Takes a snapshot of the live cluster. */
export async function takeSnapshot(_flags: LiveFlags, _wanted?: unknown): Promise<Snapshot> {
  throw new SvcTraceError('ApiUnreachable', 'live collection is not there yet; use --snapshot')
}
