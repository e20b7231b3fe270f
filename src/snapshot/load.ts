import {existsSync, readdirSync, readFileSync, statSync} from 'node:fs'
import {join} from 'node:path'
import {SvcTraceError} from '../model/errors.js'
import {snapshotFromFiles, type Snapshot} from './snapshot.js'

/** Larger members of an archive are refused: no dump of a node is that big. */
const MAX_FILE = 256 * 1024 * 1024
const MAX_TOTAL = 2 * 1024 * 1024 * 1024

/** Files that are only read where a more exact form of the same dump is missing. */
const SECOND_CHOICE: Readonly<Record<string, string>> = {
  'iptables-nat-L.txt': 'iptables-save.txt',
  'ipset-list.txt': 'ipset-save.txt',
  'ipvsadm-Ln.txt': 'ipvsadm-Sn.txt',
  'proc-net-ip_vs.txt': 'ipvsadm-Sn.txt',
}

/** Loads a snapshot from a folder or a `.tar.gz` in the layout of docs/snapshot.md. */
export async function loadSnapshot(path: string): Promise<Snapshot> {
  const files = await loadFiles(path)
  const snapshot = snapshotFromFiles(files)
  // they are objects now, and nobody reads them again
  for (const name of files.keys()) if (name.startsWith('api/')) files.delete(name)
  if (snapshot.nodes.size === 0 && snapshot.cluster.services.length === 0) {
    const [problem] = snapshot.problems
    throw new SvcTraceError(
      'BadSnapshot',
      `${path} is not a snapshot: it has neither nodes/ nor api/services.json${problem ? ` (${problem.file}: ${problem.message})` : ''}`,
      'see docs/snapshot.md for the layout, or take one with: kubectl svc-trace snapshot -f FILE',
    )
  }
  return {...snapshot, reread: (names) => rereadFiles(path, names)}
}

/** Its files as they are, by their paths inside of it. */
export async function loadFiles(path: string): Promise<Map<string, string>> {
  return kindOf(path) === 'folder' ? readFolder(path) : readArchive(path)
}

async function rereadFiles(path: string, names: ReadonlySet<string>): Promise<Map<string, string>> {
  if (names.size === 0) return new Map()
  if (kindOf(path) === 'archive') return readArchive(path, names)
  const present = [...names].filter((name) => existsSync(join(path, name)))
  return new Map(present.map((name) => [name, readFileSync(join(path, name), 'utf8')]))
}

function kindOf(path: string): 'folder' | 'archive' {
  try {
    return statSync(path).isDirectory() ? 'folder' : 'archive'
  } catch (error) {
    throw new SvcTraceError(
      'BadSnapshot',
      `cannot read snapshot ${path}: ${(error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file or folder' : (error as Error).message}`,
      undefined,
      {cause: error},
    )
  }
}

function readFolder(root: string): Map<string, string> {
  const files = new Map<string, string>()
  const readInto = (folder: string, prefix: string): void => {
    const names = entries(join(root, folder))
    for (const {name, isFile} of names) {
      if (!isFile) continue
      const better = SECOND_CHOICE[name]
      if (better !== undefined && names.some((other) => other.name === better) && isWhole(join(root, folder, better)))
        continue
      files.set(`${prefix}${name}`, readFileSync(join(root, folder, name), 'utf8'))
    }
  }
  for (const {name} of entries(root).filter(({isFile, name: file}) => isFile && file === 'snapshot.json'))
    files.set(name, readFileSync(join(root, name), 'utf8'))
  readInto('api', 'api/')
  for (const {name, isFile} of entries(join(root, 'nodes'))) {
    if (isFile) continue
    files.set(`nodes/${name}/.`, '')
    readInto(join('nodes', name), `nodes/${name}/`)
  }
  return files
}

function entries(folder: string): {name: string; isFile: boolean}[] {
  try {
    return readdirSync(folder, {withFileTypes: true})
      .filter((entry) => entry.isFile() || entry.isDirectory())
      .map((entry) => ({name: entry.name, isFile: entry.isFile()}))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** Not empty, and no `iptables-save -t nat`, which a listing of another table may stand beside. */
function isWhole(path: string): boolean {
  if (statSync(path).size === 0) return false
  const text = readFileSync(path, 'utf8')
  return !path.endsWith('tables-save.txt') || (text.includes('*nat') && text.includes('*filter'))
}

/** Only plain files at known places are taken; anything else in the archive is passed over. */
async function readArchive(path: string, only?: ReadonlySet<string>): Promise<Map<string, string>> {
  const {Parser} = await import('tar')
  const {createReadStream} = await import('node:fs')
  const files = new Map<string, string>()
  let total = 0
  await new Promise<void>((resolve, reject) => {
    const bad = (message: string): void =>
      reject(
        new SvcTraceError(
          'BadSnapshot',
          `${path} is not a snapshot archive: ${message}`,
          'it should be a .tar.gz as "kubectl svc-trace snapshot -f" writes it',
        ),
      )
    const source = createReadStream(path)
    const parser = new Parser({
      strict: false,
      onReadEntry: (entry) => {
        const name = placeOf(entry.path)
        total += entry.size
        if (total > MAX_TOTAL || entry.size > MAX_FILE) {
          source.destroy()
          return bad(`${entry.path} is too large`)
        }
        if (entry.type !== 'File' || name === undefined || (only && !only.has(name))) return entry.resume()
        const chunks: Buffer[] = []
        entry.on('data', (chunk: Buffer) => chunks.push(chunk))
        entry.on('end', () => files.set(name, Buffer.concat(chunks).toString('utf8')))
      },
    })
    // what tar itself would only warn of: a dump that is cut must not pass for a whole one
    parser.on('warn', (code: string, message: string | Error) => {
      if (/^TAR_(BAD_ARCHIVE|ENTRY_INVALID|ENTRY_ERROR|ABORT)$/.test(code))
        bad(message instanceof Error ? message.message : message)
    })
    parser.on('end', () => resolve())
    parser.on('error', (error: Error) => bad(error.message))
    source.on('error', (error) => bad(error.message))
    source.pipe(parser)
  })
  return files
}

/** `./any/api/x.json` → `api/x.json`; undefined for names that lead elsewhere. */
function placeOf(name: string): string | undefined {
  if (name.split('/').includes('..')) return undefined
  return /(?:^|\/)(snapshot\.json|api\/[\w.-]+|nodes\/[^/\0]+\/[\w.-]+)$/.exec(name)?.[1]
}
