import {expect} from 'chai'
import {readdirSync, readFileSync} from 'node:fs'
import {buildWorld} from '../../src/engine.js'
import type {SimulateAnswer, SimulateLine} from '../../src/simulate.js'
import {snapshotFromFiles} from '../../src/snapshot/snapshot.js'
import {freshPort, packets, ruleset} from './generate.js'
import {Dice} from './grammar.js'
import {partToV6, shotToV6} from './ipv6.js'
import {judge, predict} from './judge.js'
import {Lab, obstacle, type Part, type Seen, type Shot} from './lab.js'

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
const CASES = Number(process.env['CASES'] ?? 60)
const MINUTES = Number(process.env['MINUTES'] ?? 0)
const PACKETS = Number(process.env['PACKETS'] ?? 40)
const UNKNOWN_LIMIT = 0.08
/** A router sends no more ICMP errors about routes than one a second to each host (ip_error), whatever its sysctls. */
const ICMP_PAUSE = 1200
/** Rules may copy packets to themselves without an end (TEE of a copy that is routed back): the flood drowns all others. */
const FLOOD = 100_000
const FOLDER = `${import.meta.dirname}/cases`

/** A disagreement that was found once: the rules, the packet, and what the kernel did. */
interface FixedCase {
  readonly why: string
  readonly rules: readonly Part[]
  readonly packet: Omit<Shot, 'id'>
  readonly kernel: Pick<Seen, 'fate' | 'address' | 'source'>
  /** No dump shows what decides. */
  readonly open?: true
}

interface Round {
  readonly shots: readonly Shot[]
  readonly seen: ReadonlyMap<string, Seen>
  readonly answers: ReadonlyMap<string, SimulateLine>
}

/** Loads rules, asks the kernel and the engine. Those who differ are asked again, one by one, so that a busy machine is no bug. */
async function play(lab: Lab, rules: readonly Part[], shots: readonly Shot[]): Promise<Round | string> {
  const failed = lab.load(rules)
  if (failed !== undefined) return failed
  const world = buildWorld(snapshotFromFiles(lab.dump()))
  const before = lab.received()
  const seen = await lab.shoot(shots)
  const answers = new Map(shots.map((shot) => [shot.id, predict(world, shot)]))
  const final = [...shots]
  for (const [at, shot] of shots.entries()) {
    for (const pause of [0, ICMP_PAUSE]) {
      const one = seen.get(shot.id)!
      const answer = answers.get(shot.id)!
      if (one.fate !== 'bind' && judge(answer, one) !== 'differ') break
      if (pause > 0 && !(one.fate === 'timeout' && 'outcomes' in answer && answer.outcomes.refused)) break
      lab.flush()
      await new Promise((done) => setTimeout(done, pause))
      const again = (final[at] = {...shot, sport: freshPort(shot.sport)})
      seen.set(again.id, (await lab.shoot([again], 0.6)).get(again.id)!)
      answers.set(again.id, predict(world, again))
    }
  }
  return lab.received() - before > FLOOD ? 'flood' : {shots: final, seen, answers}
}

/** Every third ruleset and its packets are IPv6. */
const inV6 = ({rules, shots}: {rules: readonly Part[]; shots: readonly Shot[]}): {rules: Part[]; shots: Shot[]} => ({
  rules: rules.flatMap((part) => partToV6(part) ?? []),
  shots: shots.map(shotToV6),
})

const show = (rules: readonly Part[]): string => rules.map(({tool, text}) => `--- ${tool}\n${text.trim()}`).join('\n')
const brief = (answer: SimulateLine): string =>
  'error' in answer
    ? answer.error
    : JSON.stringify(
        {outcomes: answer.outcomes, backends: answer.backends, why: (answer as SimulateAnswer).why},
        undefined,
        1,
      )

describe('the kernel as oracle', function () {
  this.timeout(20_000)
  let lab: Lab | undefined

  before(async function () {
    const why = obstacle()
    if (why === undefined) {
      lab = await Lab.build()
      return
    }
    if (process.env['CI'] === 'true') throw new Error(`the kernel tests cannot run: ${why}`)
    console.log(`kernel tests skipped: ${why}`)
    this.skip()
  })

  after(() => lab?.destroy())

  for (const file of readdirSync(FOLDER).filter((name) => name.endsWith('.json'))) {
    it(`does as the kernel did: ${file}`, async () => {
      const fixed = JSON.parse(readFileSync(`${FOLDER}/${file}`, 'utf8')) as FixedCase
      const round = await play(lab!, fixed.rules, [{...fixed.packet, id: '0'}])
      if (typeof round === 'string') throw new Error(`the rules do not load: ${round}`)
      const {fate, address, source} = round.seen.get('0')!
      const answer = round.answers.get('0')!
      expect({fate, address, source}, 'the kernel itself').to.deep.equal(fixed.kernel)
      expect(judge(answer, round.seen.get('0')!), `${fixed.why}\n${brief(answer)}`).to.equal(
        fixed.open ? 'unknown' : 'agree',
      )
    })
  }

  it('predicts what random rules do to random packets', async function () {
    this.timeout(MINUTES * 60_000 + 240_000)
    const count = {agree: 0, unknown: 0, differ: 0, half: 0, unloaded: 0, floods: 0, rulesets: 0}
    const fates = {ok: 0, refused: 0, timeout: 0, bind: 0}
    const begin = Date.now()
    console.log(`kernel: SEED=${SEED}`)
    for (let at = 0; MINUTES > 0 ? Date.now() - begin < MINUTES * 60_000 : at < CASES; at++) {
      const dice = new Dice(SEED + at)
      const four = {rules: ruleset(dice), shots: packets(dice, PACKETS)}
      const {rules, shots} = (SEED + at) % 3 === 0 ? inV6(four) : four
      const round = await play(lab!, rules, shots)
      count.rulesets++
      if (round === 'flood') {
        count.floods++
        console.log(`SEED=${SEED + at}: these rules flood the router with copies of packets`)
        continue
      }
      if (typeof round === 'string') {
        count.unloaded++
        console.log(`SEED=${SEED + at}: the rules do not load: ${round.trim().slice(0, 500)}`)
        continue
      }
      let told = false
      for (const shot of round.shots) {
        const seen = round.seen.get(shot.id)!
        const answer = round.answers.get(shot.id)!
        const verdict = judge(answer, seen)
        count[verdict]++
        fates[seen.fate]++
        if (seen.fate === 'ok' && seen.address === null) count.half++
        if (verdict === 'unknown' && process.env['UNKNOWN']) console.log(`SEED=${SEED + at} unknown: ${brief(answer)}`)
        if (verdict !== 'differ') continue
        if (!told) console.log(show(rules))
        told = true
        console.log(
          `DIFFERS: SEED=${SEED + at} CASES=1\npacket ${JSON.stringify(shot)}\nkernel ${JSON.stringify(seen)}\nengine ${brief(answer)}\n`,
        )
      }
    }
    console.log(
      `kernel: ${JSON.stringify(count)} ${JSON.stringify(fates)} in ${((Date.now() - begin) / 1000).toFixed(0)} s`,
    )
    const cases = count.agree + count.unknown + count.differ
    expect(count.differ, 'disagreements').to.equal(0)
    expect(count.unknown / Math.max(cases, 1), 'share of unknown').to.be.at.most(UNKNOWN_LIMIT)
    expect(count.floods, 'floods').to.be.at.most(1 + count.rulesets / 100)
    expect(count.unloaded / Math.max(count.rulesets, 1), 'share of rulesets that do not load').to.be.at.most(0.05)
  })
})
