import {readFileSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {gunzipSync, gzipSync} from 'node:zlib'
import {expect} from 'chai'
import {walk} from '../../src/dataplane/walk.js'
import {buildWorld} from '../../src/engine.js'
import {SvcTraceError} from '../../src/model/errors.js'
import {loadFiles} from '../../src/snapshot/load.js'
import {NodeState} from '../../src/snapshot/node-state.js'
import {snapshotFromFiles} from '../../src/snapshot/snapshot.js'
import {parseAddress} from '../../src/util/ip.js'
import {oneNode} from '../helpers/node.js'
import {Dice} from '../kernel/grammar.js'

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
const INPUTS = Number(process.env['INPUTS'] ?? 200_000)
const MINUTES = Number(process.env['MINUTES'] ?? 0)
const WALKS = Number(process.env['WALKS'] ?? 4000)
const ARCHIVES = Number(process.env['ARCHIVES'] ?? 200)
const EXAMPLES = ['missing-nodeport', 'healthy-ipvs', 'dormant-nftables'].map((name) =>
  join(import.meta.dirname, `../../examples/${name}.tar.gz`),
)
/** No single input may take longer (milliseconds). */
const SLOWEST = 1000
const BIGGEST = 1024 ** 3

const NOISE = [
  '',
  ' ',
  '\n',
  '\t',
  '\0',
  '-',
  '!',
  '"',
  '\\',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '/',
  '0',
  '-1',
  '4294967296',
  '99999999999999999999',
  'null',
  '-j',
  '-A',
  '*nat',
  'COMMIT',
  'ü',
  '\u202e',
  '\ud800',
  '__proto__',
  'constructor',
]

/** A piece of a dump with something wrong in it. */
function mutated(dice: Dice, text: string): string {
  let piece = fragment(dice, text)
  for (let times = dice.int(1, 4); times > 0; times--) {
    const at = dice.int(0, piece.length)
    const length = dice.int(0, 12)
    switch (dice.int(0, 5)) {
      case 0:
        piece = piece.slice(0, at) + dice.pick(NOISE) + piece.slice(at)
        break
      case 1:
        piece = piece.slice(0, at) + piece.slice(at + length)
        break
      case 2:
        piece = piece.slice(0, at) + dice.pick(NOISE) + piece.slice(at + length)
        break
      case 3:
        piece = piece.slice(0, at)
        break
      case 4:
        piece = piece.slice(0, at) + piece.slice(at, at + length * 20).repeat(2) + piece.slice(at + length)
        break
      default:
        piece =
          piece.slice(0, at) + String.fromCharCode(piece.charCodeAt(at) ^ (1 << dice.int(0, 7))) + piece.slice(at + 1)
    }
  }
  return piece
}

/** A few lines from somewhere; a line that is a whole dump by itself (JSON) loses its middle. */
function fragment(dice: Dice, text: string): string {
  const lines = text.split('\n')
  if (lines.length < 4) return text.length < 3000 ? text : text.slice(0, 1500) + text.slice(-1500)
  const at = dice.int(0, lines.length - 1)
  return [...lines.slice(0, dice.int(0, 3)), ...lines.slice(at, at + dice.int(1, 15))].join('\n')
}

/** Reads all that a node said, as a check does. */
function readAll(state: NodeState): void {
  for (const family of [4, 6] as const)
    for (const {tables} of state.iptables(family))
      for (const {chains} of tables.values()) for (const {rules} of chains.values()) void rules.length
  void [state.nft, state.ipsets, state.ipvs, state.links, state.addresses, state.routes, state.policyRules]
  void [
    state.neighbours,
    state.bridgeFdb,
    state.sysctls,
    state.sockets,
    state.conntrack,
    state.proxyMode,
    state.proxyVersion,
  ]
}

describe('mutated dumps', function () {
  this.timeout(MINUTES * 60_000 + 600_000)
  const dumps: [file: string, text: string][] = []

  before(async () => {
    console.log(`fuzz: SEED=${SEED}`)
    for (const example of EXAMPLES)
      for (const [path, text] of await loadFiles(example)) {
        const file = path.split('/').at(-1)!
        if (path.startsWith('nodes/node1/') && text.length > 20) dumps.push([file, text])
      }
    expect(dumps.length).to.be.above(20)
  })

  it('crash nothing, hang nothing, blow nothing up', () => {
    const dice = new Dice(SEED)
    const begin = Date.now()
    const before = process.memoryUsage().rss
    let slowest = 0
    let count = 0
    for (; MINUTES > 0 ? Date.now() - begin < MINUTES * 60_000 : count < INPUTS; count++) {
      const [file, text] = dice.pick(dumps)
      const input = mutated(dice, text)
      const start = performance.now()
      try {
        readAll(new NodeState('n', new Map([[file, input]])))
      } catch (error) {
        throw new Error(`SEED=${SEED} input ${count}: ${file} ${JSON.stringify(input)}`, {cause: error})
      }
      const took = performance.now() - start
      if (took > SLOWEST)
        throw new Error(`SEED=${SEED} input ${count}: ${took} ms for ${file} ${JSON.stringify(input)}`)
      slowest = Math.max(slowest, took)
    }
    expect(process.memoryUsage().rss - before).to.be.below(BIGGEST)
    console.log(
      `fuzz: ${count} inputs, slowest ${slowest.toFixed(0)} ms, ${((Date.now() - begin) / 1000).toFixed(0)} s`,
    )
  })

  it('never deliver by a line that was not understood', () => {
    const dice = new Dice(SEED + 1)
    const rules = [
      '-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A',
      '-A KUBE-SVC-A -m comment --comment "d/web -> 10.1.1.2:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-B',
      '-A KUBE-SVC-A -j KUBE-SEP-C',
      '-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.1.2:8080',
      '-A KUBE-SEP-C -p tcp -m tcp -j DNAT --to-destination 10.1.1.3:8080',
      '-A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
      '-A POSTROUTING -j MASQUERADE --random-fully',
    ]
    const heads =
      ':PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SVC-A - [0:0]\n:KUBE-SEP-B - [0:0]\n:KUBE-SEP-C - [0:0]\n'
    let delivered = 0
    for (let at = 0; at < WALKS; at++) {
      const lines = [...rules]
      const victim = dice.int(0, lines.length - 1)
      const line = lines[victim]!
      const cut = dice.int(0, line.length)
      lines[victim] = line.slice(0, cut) + dice.pick(NOISE) + line.slice(cut + dice.int(0, 6))
      const snapshot = snapshotFromFiles(oneNode({iptables: `*nat\n${heads}${lines.join('\n')}\nCOMMIT\n`}))
      const {parts} = walk(buildWorld(snapshot), {
        origin: {
          kind: 'external',
          enter: 'n1',
          ranges: [{lo: parseAddress('198.51.100.7')!, hi: parseAddress('198.51.100.7')!}],
        },
        destination: parseAddress('10.96.0.1')!,
        port: 80,
        protocol: 'TCP',
      })
      const bad = new Set(snapshot.nodes.get('n1')!.problems.map(({file, line: number}) => `${file}:${number}`))
      for (const {outcome, hops} of parts.flatMap(({fates}) => fates)) {
        if (outcome !== 'delivered') continue
        delivered++
        for (const {evidence} of hops)
          if (evidence) expect(bad.has(`${evidence.source}:${evidence.line}`), lines.join('\n')).to.equal(false)
      }
    }
    expect(delivered, 'a test that never delivers proves nothing').to.be.above(WALKS / 10)
  })

  it('in an archive are refused with a reason, or read', async () => {
    const dice = new Dice(SEED + 2)
    const folder = mkdtempSync(join(tmpdir(), 'svct-fuzz-'))
    try {
      const plain = gunzipSync(readFileSync(EXAMPLES[0]!)).subarray(0, 200_000)
      for (let at = 0; at < ARCHIVES; at++) {
        const bytes = Buffer.from(plain)
        for (let times = dice.int(1, 20); times > 0; times--) bytes[dice.int(0, bytes.length - 1)] = dice.int(0, 255)
        const packed = gzipSync(bytes, {level: 1})
        if (dice.chance(0.3)) packed[dice.int(0, packed.length - 1)] = dice.int(0, 255)
        const file = join(folder, 'x.tar.gz')
        writeFileSync(file, packed)
        try {
          for (const path of (await loadFiles(file)).keys()) expect(path).not.to.match(/(^|\/)\.\.(\/|$)|^\//)
        } catch (error) {
          if (!(error instanceof SvcTraceError)) throw new Error(`SEED=${SEED} archive ${at}`, {cause: error})
        }
      }
    } finally {
      rmSync(folder, {recursive: true})
    }
  })
})
