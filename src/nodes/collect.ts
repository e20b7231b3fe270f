import {readFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import {readFrames, type CollectedNode} from './frames.js'
import {limited} from '../util/limited.js'
import {PackedFiles} from '../util/packed-files.js'
import {unpack} from './output.js'
import {NodeUnreachable, type NodeTarget, type Transport, type Way} from './transport.js'

export interface CollectOptions {
  readonly sudo: 'auto' | 'never' | 'always'
  readonly parallel: number
  /** Milliseconds for one node. */
  readonly timeout: number
  /** Milliseconds for all of them; 0 or none: no limit. */
  readonly limit?: number
  readonly signal: AbortSignal
  /** Called at every change and every second, for a progress line. */
  readonly progress: (state: CollectState) => void
  /** Called when a node is done. */
  readonly finished?: (result: NodeResult, seconds: number) => void
}

export interface CollectState {
  readonly read: number
  readonly failed: number
  /** Not done yet. */
  readonly waiting: number
  /** The node that is being read for the longest time. */
  readonly slowest?: {readonly node: string; readonly seconds: number}
}

export interface NodeResult {
  readonly node: string
  readonly files: PackedFiles
  /** How it was reached. */
  readonly way?: Way
  /** Why it could not be read, or not to its end. */
  readonly failure?: string
  readonly hint?: string
}

/** The script that runs on every node, whatever the way in. */
export function collectorScript(): string {
  const here = dirname(fileURLToPath(import.meta.url))
  for (const path of [join(here, 'collector.sh'), join(here, '../../src/nodes/collector.sh')]) {
    try {
      return readFileSync(path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
  throw new Error('collector.sh is missing from the installation')
}

/** Reads nodes in parallel; one that fails costs itself only. */
export async function collectNodes(
  targets: readonly NodeTarget[],
  transport: Transport,
  options: CollectOptions,
): Promise<NodeResult[]> {
  await transport.prepare?.(targets)
  const script = `SVC_TRACE_SUDO=${options.sudo}\n${collectorScript()}`
  const results: NodeResult[] = []
  const running = new Map<string, number>()
  const queue = [...targets]
  const signal = options.limit ? limited(options.signal, options.limit) : options.signal
  const tell = (): void => options.progress(stateOf(results, targets.length, running))
  const worker = async (): Promise<void> => {
    for (let target = queue.shift(); target && !signal.aborted; target = queue.shift()) {
      running.set(target.node, performance.now())
      const result = await collectNode(target, transport, {script, options: {...options, signal}})
      options.finished?.(result, secondsSince(running.get(target.node)!))
      running.delete(target.node)
      results.push(result)
      tell()
    }
  }
  tell()
  const ticking = setInterval(tell, 1000)
  try {
    await Promise.all(Array.from({length: Math.max(1, Math.min(options.parallel, targets.length))}, worker))
  } finally {
    clearInterval(ticking)
  }
  const late =
    signal.aborted && !options.signal.aborted
      ? 'the time limit of all nodes (--timeout) was over before it was its turn'
      : undefined
  return targets.map(
    ({node}) =>
      results.find((result) => result.node === node) ?? {
        node,
        files: new PackedFiles(),
        failure: late ?? 'interrupted before it was its turn',
      },
  )
}

const secondsSince = (start: number): number => (performance.now() - start) / 1000

function stateOf(results: readonly NodeResult[], total: number, running: ReadonlyMap<string, number>): CollectState {
  const failed = results.filter(({failure}) => failure !== undefined).length
  // the one that began first
  const [slowest] = running
  return {
    read: results.length - failed,
    failed,
    waiting: total - results.length,
    ...(slowest ? {slowest: {node: slowest[0], seconds: secondsSince(slowest[1])}} : {}),
  }
}

async function collectNode(
  target: NodeTarget,
  transport: Transport,
  {script, options}: {script: string; options: CollectOptions},
): Promise<NodeResult> {
  const signal = limited(options.signal, options.timeout)
  const way = await wayOf(transport, target)
  try {
    const {files, complete} = await framesOf(await persistently(() => transport.run(target, script, signal), signal))
    return {
      node: target.node,
      files: new PackedFiles(files),
      way,
      ...(complete ? {} : {failure: 'the output of the collector is cut short'}),
    }
  } catch (error) {
    if (!(error instanceof NodeUnreachable)) throw error
    // what arrived may be too much itself; then nothing of it is kept
    const {files} = await framesOf(error.partial).catch(() => readFrames(''))
    return {
      node: target.node,
      files: new PackedFiles(files),
      way,
      failure: error.message,
      ...(error.hint === undefined ? {} : {hint: error.hint}),
    }
  }
}

const framesOf = async (sent: Buffer): Promise<CollectedNode> => readFrames(await unpack(sent))

/** A host whose settings cannot be read is told of by the attempt itself. */
async function wayOf(transport: Transport, target: NodeTarget): Promise<Way> {
  try {
    return (await transport.way?.(target)) ?? {name: transport.name, why: ''}
  } catch (error) {
    if (!(error instanceof NodeUnreachable)) throw error
    return {name: transport.name, why: ''}
  }
}

/** How often a node is tried that only broke the connection, and how long we wait before the second time (ms). */
const TRIES = 3
const FIRST_PAUSE = 400

async function persistently(run: () => Promise<Buffer>, signal: AbortSignal): Promise<Buffer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await run()
    } catch (error) {
      if (!(error instanceof NodeUnreachable) || !error.transient || attempt === TRIES || signal.aborted) throw error
      await sleep(FIRST_PAUSE * 2 ** (attempt - 1), undefined, {signal}).catch(() => undefined)
    }
  }
}
