import {expect} from 'chai'
import {buildWorld} from '../../../src/engine.js'
import type {World} from '../../../src/dataplane/world.js'
import type {SimulateAnswer, SimulateLine} from '../../../src/simulate.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {freshPort} from '../generate.js'
import {Dice} from '../grammar.js'
import {judge, predict, type Verdict} from '../judge.js'
import {apiOf, NODE, type Seen, type Shot} from '../lab.js'
import {inV6, ipvsCase, type IpvsCase} from './generate.js'
import {KNOWN} from './known.js'
import {boot, obstacle, type Job, type JobResult} from './uml.js'

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
const CASES = Number(process.env['CASES'] ?? 32)
const PACKETS = Number(process.env['PACKETS'] ?? 12)
const UNKNOWN_LIMIT = 0.05
const TIMEOUT = 0.4
/** For the second look: a router sends one ICMP error a second about routes, whatever its sysctls. */
const LONG = 1.1
/** Most packets that get a second look. */
const MOST_AGAIN = 60

type Loaded = Exclude<JobResult, {error: string}>

function worldOf(vips: readonly string[], {files}: Loaded): World {
  const snapshot = new Map(apiOf(vips))
  for (const [name, {text}] of Object.entries(files)) snapshot.set(`nodes/${NODE}/${name}`, text)
  const codes = Object.entries(files).map(([name, {rc}]) => `${name} rc=${rc}`)
  return buildWorld(snapshotFromFiles(snapshot.set(`nodes/${NODE}/rc.txt`, codes.join('\n'))))
}

interface Judged {
  readonly at: number
  readonly shot: Shot
  readonly seen: Seen
  readonly answer: SimulateLine
  readonly verdict: Verdict
}

function judgeAll(one: IpvsCase, at: number, {job, result}: {job: Job; result: Loaded}): Judged[] {
  const world = worldOf(one.vips, result)
  return job.shots.map((shot) => {
    const seen = result.seen.find(({id}) => id === shot.id)!
    const answer = predict(world, shot)
    return {at, shot, seen, answer, verdict: seen.fate === 'bind' ? 'differ' : judge(answer, seen)}
  })
}

const brief = (answer: SimulateLine): string =>
  'error' in answer
    ? answer.error
    : JSON.stringify(
        {outcomes: answer.outcomes, backends: answer.backends, why: (answer as SimulateAnswer).why},
        undefined,
        1,
      )

/** `told`: the state was shown before. */
function report({shot, seen, answer}: Judged, result: Loaded, told: boolean): string {
  const state = ['ipvsadm-Sn.txt', 'iptables-legacy-save.txt', 'ipset-save.txt'].map(
    (name) => `--- ${name}\n${result.files[name]!.text.trim()}`,
  )
  const settings = result.files['sysctl.txt']!.text.split('\n').filter((line) =>
    /^net\.(ipv4\.(ip_forward|vs\.(conntrack|snat_reroute)|conf\.all\.route_localnet)|bridge\.\S+-iptables)/.test(line),
  )
  return [
    ...(told ? [] : state.map((text) => text.replace(/^(add KUBE-LOOP-BACK|#).*\n/gm, ''))),
    settings.join(', '),
    `packet ${JSON.stringify(shot)}`,
    `kernel ${JSON.stringify(seen)}`,
    `engine ${brief(answer)}\n`,
  ].join('\n')
}

/** One boot for all; those who differ are played again, each alone, so that a busy machine is no bug. */
async function play(cases: readonly IpvsCase[]): Promise<{judged: Judged[]; results: JobResult[]}> {
  const jobs = cases.map(({load, shots}): Job => ({load, shots, timeout: TIMEOUT}))
  const results = await boot(jobs)
  const judged = results.flatMap((result, at) =>
    'error' in result ? [] : judgeAll(cases[at]!, at, {job: jobs[at]!, result}),
  )
  const doubtful = judged.filter(({verdict}) => verdict === 'differ').slice(0, MOST_AGAIN)
  if (doubtful.length === 0) return {judged, results}
  const again = doubtful.map(({at, shot}): Job => ({
    load: cases[at]!.load,
    shots: [{...shot, sport: freshPort(shot.sport)}],
    timeout: LONG,
  }))
  const second = await boot(again)
  const settled = new Map<Judged, Judged>()
  for (const [number, result] of second.entries()) {
    const {at} = doubtful[number]!
    if ('error' in result) continue
    const [one] = judgeAll(cases[at]!, at, {job: again[number]!, result})
    settled.set(doubtful[number]!, one!)
  }
  return {judged: judged.map((one) => settled.get(one) ?? one), results}
}

describe('the kernel as oracle: IPVS', function () {
  this.timeout(600_000)
  let judged: Judged[] = []
  let results: JobResult[] = []
  let seconds = 0

  before(async function () {
    const why = obstacle()
    if (why !== undefined) {
      if (process.env['CI'] === 'true') throw new Error(`the IPVS kernel tests cannot run: ${why}`)
      console.log(`IPVS kernel tests skipped: ${why}`)
      this.skip()
    }
    console.log(`ipvs: SEED=${SEED}`)
    const begin = Date.now()
    const random = Array.from({length: CASES}, (_, at) => {
      const four = ipvsCase(new Dice(SEED + at), SEED + at, PACKETS)
      return (SEED + at) % 3 === 0 ? inV6(four) : four
    })
    ;({judged, results} = await play([...KNOWN, ...random]))
    seconds = (Date.now() - begin) / 1000
  })

  for (const [number, {why, kernel, verdict: wanted = 'agree'}] of KNOWN.entries()) {
    it(`does as the kernel did: ${why}`, () => {
      const result = results[number]!
      if ('error' in result) throw new Error(`it does not load: ${result.error}`)
      const {seen, answer, verdict} = judged.find(({at}) => at === number)!
      const {fate, address, source} = seen
      expect({fate, address, source}, 'the kernel itself').to.deep.equal(kernel)
      expect(verdict, brief(answer)).to.equal(wanted)
    })
  }

  it('predicts what IPVS and random rules do to random packets', () => {
    const count = {agree: 0, unknown: 0, differ: 0, unloaded: 0, rulesets: CASES}
    const fates = {ok: 0, refused: 0, timeout: 0, bind: 0}
    for (const [at, result] of results.entries()) {
      if (at < KNOWN.length || !('error' in result)) continue
      count.unloaded++
      console.log(`SEED=${SEED + at - KNOWN.length}: the rules do not load: ${result.error.slice(0, 500)}`)
    }
    const told = new Set<number>()
    const random = judged.filter(({at}) => at >= KNOWN.length)
    for (const one of random) {
      const {at, shot, seen, answer, verdict} = one
      const seed = SEED + at - KNOWN.length
      count[verdict]++
      fates[seen.fate]++
      if (verdict === 'differ') {
        console.log(`DIFFERS: SEED=${seed} CASES=1\n${report(one, results[at] as Loaded, told.has(at))}`)
        told.add(at)
      }
      if (verdict === 'unknown' && process.env['UNKNOWN'])
        console.log(`SEED=${seed} unknown: ${JSON.stringify(shot)} ${brief(answer)}`)
    }
    console.log(`ipvs: ${JSON.stringify(count)} ${JSON.stringify(fates)} in ${seconds.toFixed(0)} s`)
    expect(count.differ, 'disagreements').to.equal(0)
    expect(count.unknown / Math.max(random.length, 1), 'share of unknown').to.be.at.most(UNKNOWN_LIMIT)
    expect(count.unloaded / CASES, 'share of rulesets that do not load').to.be.at.most(0.05)
  })
})
