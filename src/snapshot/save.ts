import {accessSync, constants} from 'node:fs'
import {mkdir, mkdtemp, rename, rm, writeFile} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import {SvcTraceError} from '../model/errors.js'
import type {SnapshotFiles} from './snapshot.js'

const PRIVATE_FILE = 0o600
const PRIVATE_FOLDER = 0o700

/** Before anything is read: can the file be written at all? */
export function checkTarget(path: string): void {
  try {
    accessSync(dirname(path) || '.', constants.W_OK)
  } catch (error) {
    throw new SvcTraceError('CannotWrite', `cannot write ${path}: ${(error as Error).message}`, undefined, {
      cause: error,
    })
  }
}

/** Writes a snapshot as `.tar.gz` (or as a folder, for a path without that ending): whole or not at all, readable by its owner only. */
export async function saveSnapshot(files: SnapshotFiles, path: string): Promise<void> {
  try {
    const work = await mkdtemp(join(dirname(path) || '.', '.svc-trace-'))
    try {
      await writeTree(files, work)
      if (/\.(tar\.gz|tgz)$/.test(path)) await pack(work, path)
      else await rename(work, path)
    } finally {
      await rm(work, {recursive: true, force: true})
    }
  } catch (error) {
    throw new SvcTraceError('CannotWrite', `cannot write ${path}: ${(error as Error).message}`, undefined, {
      cause: error,
    })
  }
}

async function writeTree(files: SnapshotFiles, root: string): Promise<void> {
  for (const [name, text] of files) {
    if (!/^(snapshot\.json|api\/[\w.-]+|nodes\/[^/\0]+\/[\w.-]+)$/.test(name) || name.split('/').includes('..'))
      throw new Error(`${JSON.stringify(name)} is no place in a snapshot`)
    await mkdir(dirname(join(root, name)), {recursive: true, mode: PRIVATE_FOLDER})
    await writeFile(join(root, name), text, {mode: PRIVATE_FILE})
  }
}

async function pack(work: string, path: string): Promise<void> {
  const {create} = await import('tar')
  const {readdir, chmod} = await import('node:fs/promises')
  const half = `${work}.tar.gz`
  try {
    await create({gzip: true, cwd: work, file: half, portable: true}, await readdir(work))
    await chmod(half, PRIVATE_FILE)
    await rename(half, path)
  } finally {
    await rm(half, {force: true})
  }
}
