import {SvcTraceError} from '../model/errors.js'
import type {Snapshot} from '../snapshot/snapshot.js'
import type {ChooseNodes, LiveFlags} from './live.js'

export interface SnapshotFlags extends LiveFlags {
  readonly snapshot?: string | undefined
}

/** The saved snapshot that was named, or one taken now. */
export async function getSnapshot(flags: SnapshotFlags, choose?: ChooseNodes): Promise<Snapshot> {
  if (flags.snapshot !== undefined) {
    if (flags['ask-dns'])
      throw new SvcTraceError(
        'BadUsage',
        '--ask-dns asks a live cluster; a snapshot holds what was asked when it was taken',
      )
    const {loadSnapshot} = await import('../snapshot/load.js')
    return loadSnapshot(flags.snapshot)
  }
  const {takeSnapshot} = await import('./live.js')
  return takeSnapshot(flags, choose)
}
