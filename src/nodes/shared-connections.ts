import {spawnSync} from 'node:child_process'
import {mkdtempSync, rmSync} from 'node:fs'

/** Seconds that a connection waits for the next session, should this process die without ending it. */
const WAITS = 60
/** A short path: with what ssh appends it must fit into a socket's name of about 100 bytes. */
const PLACE = '/tmp/svct-'
/** Milliseconds to end all of them. */
const END_LIMIT = 3000

let folder: string | undefined

/**
 * Options that make sessions with the same host share one connection (ssh_config(5), ControlMaster): whoever unlocks a key or
 * touches a token does it once. They end with this process.
 */
export function sharedConnection(): string[] {
  if (process.platform === 'win32') return []
  if (folder === undefined) {
    folder = mkdtempSync(PLACE)
    process.once('exit', endSharedConnections)
  }
  return ['-o', 'ControlMaster=auto', '-o', `ControlPath=${folder}/%C`, '-o', `ControlPersist=${WAITS}`]
}

const END_ALL = 'for at in "$0"/*; do if [ -S "$at" ]; then ssh -F none -S "$at" -O exit x & fi; done; wait'

export function endSharedConnections(): void {
  if (folder === undefined) return
  spawnSync('sh', ['-c', END_ALL, folder], {timeout: END_LIMIT, stdio: 'ignore'})
  rmSync(folder, {recursive: true, force: true})
  folder = undefined
}
