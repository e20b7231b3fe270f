/** What runs inside a lab that is up: break, heal, probe. Its first argument is the order, the rest its words. */
import {existsSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {request} from 'node:http'
import {join} from 'node:path'
import {parseArgs} from 'node:util'
import {snapshotFromFiles} from '../../src/snapshot/snapshot.js'
import type {SimulateLine} from '../../src/simulate.js'
import {safeLine} from '../../src/util/text.js'
import {FAULTS, type Node, type ProxyMode} from './faults.js'
import {recorded, restoreAll, stateOf, type LabState} from './inside.js'
import {HOME, Machine, run} from './machine.js'
import {LabError} from './plan-site.js'
import {record, takeSnapshot} from './record.js'
import {judgePairs, originText, pairsOf, type Judged} from './probe.js'
import {CLEAR} from './restore.js'

const BROKEN = join(HOME, 'broken.json')
const MOST_SHOWN = 40

async function main([order, ...words]: readonly string[]): Promise<number> {
  if (order === 'break') return breakNode(words[0]!, words[1])
  if (order === 'heal') return heal()
  if (order === 'probe') return probe(words)
  if (order === 'record') return recordLab(words)
  if (order === 'api') return api(words[0] ?? '{}')
  throw new LabError(`unknown order ${order}`)
}

async function nodeOf(state: LabState, name: string): Promise<Node> {
  const machine = new Machine(state.options.kernel)
  const sh = async (script: string, input?: string): Promise<string> => {
    const text = input === undefined ? script : `{ ${script}; } <<'LAB-END'\n${input}LAB-END`
    const {code, stdout, stderr} = await machine.inside(name, `set -e\n${text}`)
    if (code !== 0) throw new LabError(`on ${name}: ${stderr.trim() || `rc=${code}`}`)
    return stdout
  }
  const saved = await sh('iptables-nft-save -t nat 2>/dev/null || true')
  return {
    name,
    mode: state.options.mode as ProxyMode,
    iptables: saved.includes(':KUBE-SERVICES') ? 'iptables-nft' : 'iptables-legacy',
    snapshot: snapshotFromFiles(recorded()),
    plan: state.plan,
    sh,
  }
}

async function breakNode(name: string, wanted: string | undefined): Promise<number> {
  const state = stateOf()
  const fault = FAULTS[name]
  if (!fault) throw new LabError(`no fault is named ${JSON.stringify(name)}: lab faults lists them`)
  if (!fault.modes.includes(state.options.mode as ProxyMode))
    throw new LabError(`${name} is for mode ${fault.modes.join(', ')}; this lab is ${state.options.mode}`)
  const node = wanted ?? state.plan.nodes.at(-1)!.name
  if (!state.plan.nodes.some((one) => one.name === node)) throw new LabError(`no node is named ${JSON.stringify(node)}`)
  const done = await fault.inflict(await nodeOf(state, node))
  const before = existsSync(BROKEN) ? (JSON.parse(readFileSync(BROKEN, 'utf8')) as object[]) : []
  writeFileSync(BROKEN, JSON.stringify([...before, {fault: name, node, done}]))
  console.log(`${node}: ${done}`)
  return 0
}

async function heal(): Promise<number> {
  const state = stateOf()
  const {plan, options} = state
  if (options.proxy) throw new LabError('a real kube-proxy heals its rules itself; the rest stays as it is')
  const machine = new Machine(options.kernel)
  const batches = plan.nodes.map(
    ({name, ip}) =>
      `ip netns exec ${name} sh -s <<'LAB-END'\n${CLEAR}\nLAB-END\nip -force -n ${name} -batch - <<'LAB-END' 2>/dev/null || true\n${ip.filter((line) => !line.startsWith('rule add')).join('\n')}\nLAB-END`,
  )
  await machine.must(batches.join('\n'))
  await restoreAll(machine, {snapshot: snapshotFromFiles(recorded()), plan, options})
  await tellApi({reset: true})
  rmSync(BROKEN, {force: true})
  console.log('as recorded again')
  return 0
}

function tellApi(faults: object): Promise<string> {
  return new Promise((settle, reject) => {
    const call = request({socketPath: join(HOME, 'api.sock'), method: 'POST'}, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      response.on('end', () => settle(text))
    })
    call.on('error', reject)
    call.end(JSON.stringify(faults))
  })
}

async function api(faults: string): Promise<number> {
  const said = await tellApi(JSON.parse(faults) as object)
  if (said !== 'done') throw new LabError(`the API stand-in: ${said}`)
  return 0
}

async function probe(words: readonly string[]): Promise<number> {
  const {values, positionals: services} = parseArgs({
    args: [...words],
    allowPositionals: true,
    options: {json: {type: 'boolean'}, snapshot: {type: 'string'}},
  })
  const judged = await ask(services, values.snapshot)
  console.log(
    values.json ? judged.map((one) => JSON.stringify(one)).join('\n') : probeText(judged, services.length > 0),
  )
  return judged.every(({verdict}) => verdict === 'agree' || verdict === 'unknown') ? 0 : 1
}

/** FOLDER [NODE]: the lab, or one node of it after a fault, as a capture. */
async function recordLab([folder, node]: readonly string[]): Promise<number> {
  if (folder === undefined) throw new LabError('record to which folder?')
  const {plan} = stateOf()
  if (node !== undefined && !plan.nodes.some(({name}) => name === node)) throw new LabError(`no node is named ${node}`)
  const snapshot = await takeSnapshot()
  const judged = await ask([], snapshot)
  await record(folder, {plan, judged, snapshot, node})
  console.log(probeText(judged, false))
  return 0
}

/** Predicts from the live lab, as a user would, or from what was saved of it; then sends. */
async function ask(services: readonly string[], from: string | undefined): Promise<Judged[]> {
  const saved = from === undefined ? [] : ['--snapshot', from]
  const {plan, options} = stateOf()
  const snapshot = snapshotFromFiles(recorded())
  const known = new Set(snapshot.cluster.services.map(({id}) => id))
  const wanted = services.map((name) => (name.includes('/') ? name : `default/${name}`))
  const strange = wanted.find((id) => !known.has(id))
  if (strange !== undefined) throw new LabError(`no Service ${strange} is in this lab`)
  const pairs = pairsOf(snapshot, plan, ({id}) => wanted.length === 0 || wanted.includes(id))
  const packets = join(HOME, 'packets.jsonl')
  writeFileSync(packets, pairs.map(({packet}) => `${JSON.stringify(packet)}\n`).join(''))
  const {code, stdout, stderr} = await run(['kubectl', 'svc-trace', 'simulate', '--packets', packets, ...saved])
  if (code !== 0 && code !== 3) throw new LabError(`svc-trace simulate failed (${code}): ${stderr}`)
  const answers = new Map(
    stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as SimulateLine)
      .map((answer) => [answer.id, answer]),
  )
  const agent = await new Machine(options.kernel).agent()
  try {
    return await judgePairs({agent, plan}, pairs, answers)
  } finally {
    agent.stop()
  }
}

/** What nobody predicted; `all`: everything that was asked for. */
function probeText(judged: readonly Judged[], all: boolean): string {
  const shown = judged
    .filter(({verdict}) => all || verdict !== 'agree')
    .toSorted((one, other) => rank(one) - rank(other))
  const rows = shown.slice(0, MOST_SHOWN).flatMap(({pair, truth, answer, verdict}) => {
    const told = 'error' in answer ? answer.error : counted(answer.outcomes, (share) => `${Math.round(share * 100)} %`)
    return [
      `${originText(pair.packet)} → ${pair.packet.to}/${pair.packet.proto} (${pair.service})`,
      `  predicted ${told}; sent ${counted(truth.outcomes, String)}${verdict === 'agree' ? '' : `  ← ${verdict}`}`,
    ].map(safeLine)
  })
  const count = (what: (one: Judged) => boolean): number => judged.filter(what).length
  const agree = count(({verdict}) => verdict === 'agree')
  const unknown = count(({verdict}) => verdict === 'unknown')
  const more = shown.length > MOST_SHOWN ? [`… and ${shown.length - MOST_SHOWN} more (--json has all)`] : []
  const sum = `${judged.length} pairs: ${agree} agree, ${unknown} unknown, ${judged.length - agree - unknown} differ`
  return [...rows, ...more, sum].join('\n')
}

const rank = ({verdict, truth}: Judged): number =>
  verdict === 'agree' ? (truth.outcomes['ok'] === truth.n ? 3 : 2) : verdict === 'unknown' ? 1 : 0
const counted = (what: object, print: (value: number) => string): string =>
  (Object.entries(what) as [string, number][]).map(([name, value]) => `${name} ${print(value)}`).join(', ')

main(process.argv.slice(2)).then(
  (code) => (process.exitCode = code),
  (error: Error) => {
    console.error(`error: ${error instanceof LabError ? error.message : error.stack}`)
    process.exitCode = 2
  },
)
