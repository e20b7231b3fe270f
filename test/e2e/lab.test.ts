/** The whole CLI in a lab of real kernels: what it predicts is sent, what is broken is found, what is healed is silent. */
import {existsSync} from 'node:fs'
import {join, resolve} from 'node:path'
import {expect} from 'chai'
import {FAULTS} from '../lab/faults.js'
import type {Outcome} from '../lab/machine.js'
import type {Judged} from '../lab/probe.js'
import {
  findLab,
  inLab,
  labs,
  obstacle,
  startLab,
  stateOfLab,
  stopLab,
  type RecordedMode,
  type RunningLab,
} from '../lab/start.js'

interface Finding {
  readonly code: string
  readonly severity: string
  readonly node?: string
  readonly services: readonly string[]
  readonly message: string
  readonly evidence: readonly {readonly source: string; readonly text: string; readonly object?: string}[]
}

const ROOT = resolve(import.meta.dirname, '../..')
const ORDERS = join(ROOT, 'test/lab/orders.ts')
const SAVED = '/run/lab/saved.tar.gz'
const MOST_UNKNOWN = 0.01
const LEAST_PAIRS = 1000

interface Setting {
  readonly title: string
  readonly mode: RecordedMode
  readonly dual?: boolean
  /** Breaking and healing; the others are told apart by their rules alone. */
  readonly faults: boolean
}

const SETTINGS: readonly Setting[] = [
  {title: 'iptables-legacy', mode: 'iptables-legacy', faults: false},
  {title: 'iptables-nft', mode: 'iptables-nft', faults: true},
  {title: 'iptables-nft, dual-stack', mode: 'iptables-nft', dual: true, faults: false},
  {title: 'nftables', mode: 'nftables', faults: true},
  {title: 'ipvs in user-mode Linux', mode: 'ipvs', faults: true},
]

/** What was just read from the API has no lines yet, and the same in a file has. */
const withoutApiLines = (finding: Finding): Finding => ({
  ...finding,
  evidence: finding.evidence.map((one) => (one.object === undefined ? one : {...one, line: 0})),
})

const WANTED = process.env['LAB_MODE']

for (const {title, mode, dual, faults} of SETTINGS.filter(
  (one) => WANTED === undefined || one.title.startsWith(WANTED),
))
  describe(`the lab, ${title}`, function () {
    this.timeout(300_000)
    let lab: RunningLab
    let healthy: Finding[] = []
    let predicted: readonly Judged[] = []

    const order = (...words: string[]): Promise<Outcome> =>
      inLab(lab, [process.execPath, '--import', 'tsx', ORDERS, ...words])
    const svcTrace = (...words: string[]): Promise<Outcome> => inLab(lab, ['kubectl', 'svc-trace', ...words])
    const check = async (...flags: string[]): Promise<Finding[]> => {
      const {code, stdout, stderr} = await svcTrace('check', '-A', '-o', 'json', ...flags)
      expect(code, stderr).to.be.oneOf([0, 1])
      const {findings} = JSON.parse(stdout) as {findings: Finding[]}
      return findings.filter(({severity}) => severity !== 'info').map(withoutApiLines)
    }
    /** The nodes are read once for all questions about one state: reading takes most of the time. */
    const save = async (): Promise<void> => {
      const {code, stderr} = await svcTrace('snapshot', '-f', SAVED)
      expect(code, stderr).to.equal(0)
    }
    const probe = async (...words: string[]): Promise<Judged[]> => {
      const {code, stdout, stderr} = await order('probe', '--json', ...words)
      expect(code, stderr).to.be.oneOf([0, 1])
      return stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Judged)
    }

    before(async function () {
      const why = obstacle(mode)
      if (why !== undefined) {
        if (process.env['CI'] === 'true') throw new Error(why)
        console.log(`lab test skipped: ${why}`)
        this.skip()
      }
      lab = await startLab({name: `test-${process.pid}-${title.replaceAll(/\W+/g, '-')}`, mode, dual, withMe: true})
      healthy = await check()
    })
    after(async () => {
      if (lab) await stopLab(lab)
    })

    afterEach(async function () {
      if (this.currentTest?.state === 'failed') await order('heal')
    })

    it('came up soon, and left nothing out', () => {
      const {seconds, leftOut} = stateOfLab(lab)
      expect(leftOut).to.deep.equal([])
      console.log(`lab ${title}: up in ${seconds.toFixed(1)} s`)
    })

    it('is a cluster to kubectl and the doctor', async () => {
      const services = await inLab(lab, ['kubectl', 'get', 'svc', '-l', 'no-such-label', '-A', '-o', 'name'])
      expect(services).to.deep.include({code: 0, stdout: ''})
      const {code, stdout} = await svcTrace('doctor')
      expect(code, stdout).to.equal(0)
      expect(stdout.match(/^ok +node node\d: everything is readable/gm)).to.have.length(3)
    })

    it('traces, checks and saves a snapshot', async () => {
      const traced = await svcTrace('web')
      expect(traced.code, traced.stderr).to.equal(0)
      expect(traced.stdout).to.match(/delivered on all \d+ ways\n/)
      expect((await svcTrace('check', 'web', 'dempapp')).code).to.equal(0)
      expect((await svcTrace('check', 'web', '--via', 'exec')).code).to.equal(0)
      await save()
      expect(await check('--snapshot', SAVED)).to.deep.equal(healthy)
    })

    it('predicts what real packets do, from every origin to every destination', async () => {
      predicted = await probe()
      const count = (what: string): number => predicted.filter(({verdict}) => verdict === what).length
      const summary = `${predicted.length} pairs, ${count('agree')} agree, ${count('unknown')} unknown`
      console.log(`lab ${title}: ${summary}, ${wrong(predicted).length} differ`)
      expect(wrong(predicted)).to.deep.equal([])
      expect(predicted.length).to.be.at.least(LEAST_PAIRS)
      expect(count('unknown') / predicted.length).to.be.at.most(MOST_UNKNOWN)
    })

    const kinds = {
      'iptables-legacy': 'iptables',
      'iptables-nft': 'iptables',
      iptables: 'iptables',
      nftables: 'nftables',
      ipvs: 'ipvs',
    } as const
    for (const [name] of faults ? Object.entries(FAULTS).filter(([, {modes}]) => modes.includes(kinds[mode])) : [])
      it(`finds ${name}, and packets confirm it`, async () => {
        const broken = await order('break', name, 'node3')
        expect(broken.code, broken.stderr).to.equal(0)
        await save()
        const known = new Set(healthy.map(key))
        const news = (await check('--snapshot', SAVED)).filter((finding) => !known.has(key(finding)))
        const error = news.find(({severity, node}) => severity === 'error' && node === 'node3')
        expect(error, `${broken.stdout}${JSON.stringify(news, undefined, 1)}`).not.to.equal(undefined)
        expect(error!.evidence).not.to.deep.equal([])
        // affinity hides what one of several endpoints does
        const before = predicted.filter(({pair}) => !pair.sticky && error!.services.includes(pair.service))
        // 127.0.0.1 is not among the destinations: a Service that is hurt only there shows nothing
        const services = [...new Set(before.map(({pair}) => pair.service))].slice(0, MOST_PROBED)
        let changed = false
        for (const service of services) {
          if (changed) break
          const during = await probe('--snapshot', SAVED, service)
          expect(wrong(during)).to.deep.equal([])
          const was = before.filter(({pair}) => pair.service === service).map(fate)
          changed = JSON.stringify(during.map(fate)) !== JSON.stringify(was)
        }
        expect(changed, `nothing happens to packets for ${services.join(', ')}`).to.equal(true)
        const healed = await order('heal')
        expect(healed.code, healed.stderr).to.equal(0)
        if (mode === 'ipvs') return // reading takes its time in there: once for all, below
        await save()
        expect(await check('--snapshot', SAVED)).to.deep.equal(healthy)
      })

    if (faults)
      it('is silent when all is healed', async () => {
        await save()
        expect(await check('--snapshot', SAVED)).to.deep.equal(healthy)
      })
  })

/** Services of a finding that are tried until packets of one show it. */
const MOST_PROBED = 4

const wrong = (judged: readonly Judged[]): string[] =>
  judged.flatMap(({pair, truth, answer, verdict}) =>
    verdict === 'agree' || verdict === 'unknown' ? [] : JSON.stringify({verdict, pair, truth, answer}),
  )
const key = ({code, node, services}: Finding): string => JSON.stringify([code, node, services])
/** What became of a pair's packets, but for the dice. */
const fate = ({truth: {outcomes, srcSeen}}: Judged): string =>
  JSON.stringify([Object.keys(outcomes).toSorted(), srcSeen.toSorted()])

describe('labs', function () {
  this.timeout(60_000)
  const names = [`one-${process.pid}`, `two-${process.pid}`]

  before(function () {
    const why = obstacle()
    if (why === undefined) return
    if (process.env['CI'] === 'true') throw new Error(why)
    console.log(`test of labs skipped: ${why}`)
    this.skip()
  })

  it('run beside each other, and leave nothing behind', async () => {
    const [one, two] = await Promise.all(names.map((name) => startLab({name, withMe: true})))
    const node = (lab: RunningLab): Promise<Outcome> =>
      inLab(lab, ['ip', 'netns', 'exec', 'node1', 'iptables-nft-save', '-t', 'nat'])
    await inLab(one!, ['ip', 'netns', 'exec', 'node1', 'iptables-nft', '-t', 'nat', '-F'])
    expect((await node(one!)).stdout).not.to.include('-A KUBE-SVC')
    expect((await node(two!)).stdout).to.include('-A KUBE-SVC')
    await Promise.all([stopLab(one!), stopLab(two!)])
    expect(labs().filter(({name}) => names.includes(name))).to.deep.equal([])
    expect(findLab(names[0]!)).to.equal(undefined)
    expect(existsSync('/run/lab')).to.equal(false)
    expect(existsSync('/run/netns/node1')).to.equal(false)
  })
})
