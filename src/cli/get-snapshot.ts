import type {Snapshot} from '../snapshot/snapshot.js'
import type {LiveFlags} from './live.js'

export interface SnapshotFlags extends LiveFlags {
  readonly snapshot?: string | undefined
}

/** The saved snapshot that was named, or one taken now. */
export async function getSnapshot(flags: SnapshotFlags): Promise<Snapshot> {
  if (flags.snapshot !== undefined) {
    const {loadSnapshot} = await import('../snapshot/load.js')
    return loadSnapshot(flags.snapshot)
  }
  const {takeSnapshot} = await import('./live.js')
  return takeSnapshot(flags)
}
