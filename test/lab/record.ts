/** A lab as a capture in the corpus' own layout: its snapshot, and what real packets did (`truth.jsonl`, `listeners.json`). */
import {mkdirSync, writeFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {loadFiles} from '../../src/snapshot/load.js'
import type {Truth} from '../helpers/corpus.js'
import {HOME, run} from './machine.js'
import type {Plan} from './plan.js'
import {LabError} from './plan-site.js'
import {listenersOf, type Judged, type Pair} from './probe.js'

/** Dumps that no walk reads twice, and the tool's own note. */
const LEFT_OUT = /^snapshot\.json$|\/(iptables-nft-save|ip6tables-nft-save|conntrack6?)\.txt(\.stderr)?$/

/** Reads the lab as a user would. */
export async function takeSnapshot(): Promise<string> {
  const path = join(HOME, 'record.tar.gz')
  const {code, stderr} = await run(['kubectl', 'svc-trace', 'snapshot', '-f', path, '--timeout', '5m'])
  if (code !== 0) throw new LabError(`svc-trace snapshot failed (${code}): ${stderr}`)
  return path
}

/** `node`: a fault's capture, which holds that node's dumps alone. */
export async function record(
  folder: string,
  {plan, judged, snapshot, node}: {plan: Plan; judged: readonly Judged[]; snapshot: string; node: string | undefined},
): Promise<void> {
  const files = await loadFiles(snapshot)
  for (const [path, text] of files) {
    if (LEFT_OUT.test(path) || (node !== undefined && !path.startsWith(`nodes/${node}/`))) continue
    const kept = path.endsWith('/rc.txt') ? text.replaceAll(/^\S+ rc=.*\n/gm, (line) => asked(line, path)) : text
    put(join(folder, path), kept)
  }
  put(
    join(folder, 'truth.jsonl'),
    judged.map(({pair, truth}) => `${JSON.stringify(lineOf(pair, truth, plan))}\n`).join(''),
  )
  if (node === undefined) put(join(folder, 'listeners.json'), JSON.stringify(listenersOf(plan)))
}

/** rc.txt must not promise files that are left out. */
const asked = (line: string, path: string): string =>
  LEFT_OUT.test(`${dirname(path)}/${line.split(' ')[0]}`) ? '' : line

function lineOf({packet: {from, enter}, origin}: Pair, truth: Truth, plan: Plan): Truth {
  const client = plan.clients.find(({addresses}) => addresses.includes(from.external ?? ''))
  const name = from.node ?? from.pod ?? client?.namespace ?? from.external
  const node = from.node ?? enter ?? plan.pods.find(({id}) => id === from.pod)?.node
  return {...truth, origin: `${origin}:${name}`, node: node ?? ''}
}

function put(path: string, text: string): void {
  mkdirSync(dirname(path), {recursive: true})
  writeFileSync(path, text)
}
