import {readFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {Readable} from 'node:stream'
import {fileURLToPath} from 'node:url'
import {brotliDecompressSync} from 'node:zlib'
import {Parser} from 'tar'
import {snapshotFromFiles, type Snapshot} from '../../src/snapshot/snapshot.js'

const ARCHIVE = join(dirname(fileURLToPath(import.meta.url)), '../data/corpus.tar.br')
let loaded: Promise<Map<string, string>> | undefined

/** All files of the embedded captures, by path (`cluster/nodes/…`, `cluster/faults/NAME/…`). */
export function corpusFiles(): Promise<Map<string, string>> {
  loaded ??= (async () => {
    const files = new Map<string, string>()
    const parser = new Parser({
      onReadEntry: (entry) => {
        const chunks: Buffer[] = []
        entry.on('data', (chunk: Buffer) => chunks.push(chunk))
        entry.on('end', () => {
          if (entry.type === 'File') files.set(entry.path, Buffer.concat(chunks).toString('utf8'))
        })
      },
    })
    await new Promise<void>((resolve, reject) => {
      parser.on('end', () => resolve())
      parser.on('error', reject)
      Readable.from([brotliDecompressSync(readFileSync(ARCHIVE))]).pipe(parser as unknown as NodeJS.WritableStream)
    })
    return files
  })()
  return loaded
}

export async function clusters(): Promise<string[]> {
  return [
    ...new Set(
      [...(await corpusFiles()).keys()]
        .filter((path) => path.endsWith('/truth.jsonl') && !path.includes('/faults/'))
        .map((path) => path.split('/')[0]!),
    ),
  ]
}

export async function faultsOf(cluster: string): Promise<string[]> {
  const prefix = `${cluster}/faults/`
  return [
    ...new Set(
      [...(await corpusFiles()).keys()]
        .filter((path) => path.startsWith(prefix))
        .map((path) => path.slice(prefix.length).split('/')[0]!),
    ),
  ].sort()
}

/** The files of a cluster, with one fault laid over: the faulty node's folder replaces the healthy one. */
export async function snapshotFiles(cluster: string, fault?: string): Promise<Map<string, string>> {
  const all = await corpusFiles()
  const files = new Map<string, string>()
  const take = (prefix: string): void => {
    for (const [path, text] of all)
      if (path.startsWith(prefix) && /^(api|nodes)\//.test(path.slice(prefix.length)))
        files.set(path.slice(prefix.length), text)
  }
  take(`${cluster}/`)
  if (fault === undefined) return files
  const prefix = `${cluster}/faults/${fault}/`
  const replaced = new Set(
    [...all.keys()].flatMap((path) =>
      path.startsWith(`${prefix}nodes/`) ? [path.slice(prefix.length).split('/')[1]!] : [],
    ),
  )
  for (const path of files.keys())
    if (replaced.has(path.split('/')[1]!) && path.startsWith('nodes/')) files.delete(path)
  take(prefix)
  return files
}

export async function corpusSnapshot(cluster: string, fault?: string): Promise<Snapshot> {
  return snapshotFromFiles(await snapshotFiles(cluster, fault))
}

/** One origin × destination that was tried with real packets. */
export interface Truth {
  readonly origin: string
  readonly originIP: string
  readonly node: string
  readonly kind: string
  readonly dst: string
  readonly proto: string
  readonly service: string
  readonly outcomes: Readonly<Record<string, number>>
  readonly backends: Readonly<Record<string, number>>
  readonly srcSeen: readonly string[]
  readonly n: number
  readonly sticky?: boolean
}

export async function truthOf(cluster: string, fault?: string): Promise<Truth[]> {
  const text =
    (await corpusFiles()).get(
      fault === undefined ? `${cluster}/truth.jsonl` : `${cluster}/faults/${fault}/truth.jsonl`,
    ) ?? ''
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Truth)
}

export interface FaultInfo {
  readonly node: string
  readonly nodes?: readonly string[]
  readonly services: readonly string[]
  readonly changesTraffic: boolean
}

export async function faultInfo(cluster: string, fault: string): Promise<FaultInfo> {
  return JSON.parse((await corpusFiles()).get(`${cluster}/faults/${fault}/fault.json`)!) as FaultInfo
}

/** Ports that pods really serve: an endpoint where nothing listens refuses, and no dump of a node shows it. */
export async function listenersOf(cluster: string): Promise<Record<string, string[]>> {
  return JSON.parse((await corpusFiles()).get(`${cluster}/listeners.json`) ?? '{}') as Record<string, string[]>
}
