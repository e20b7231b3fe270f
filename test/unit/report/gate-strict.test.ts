import {expect} from 'chai'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {check, type CheckOptions} from '../../../src/checks/check.js'
import {makeFinding} from '../../../src/checks/finding.js'
import {buildWorld} from '../../../src/engine.js'
import {checkReport, type CheckReport} from '../../../src/report/check-report.js'
import {formatCheck, type CheckFormat} from '../../../src/report/formats.js'
import {gate} from '../../../src/report/gate.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {snapshotFiles} from '../../helpers/corpus.js'

const DOCS = join(import.meta.dirname, '../../../docs/findings.md')
const HEALTHY = (_path: string): boolean => true
const NO_NODES = (path: string): boolean => path.startsWith('api/')
const NODE2_BLIND = (path: string): boolean => !/^nodes\/node2\/(ip6?tables|nft|ipvs|ipset|rc\.txt)/.test(path)

async function reportOf(keep: (path: string) => boolean, options: CheckOptions = {}): Promise<CheckReport> {
  const files = new Map([...(await snapshotFiles('k136-iptables-v4'))].filter(([path]) => keep(path)))
  const snapshot = snapshotFromFiles(files)
  return checkReport(check(snapshot, buildWorld(snapshot), options), snapshot)
}

const print = (report: CheckReport, format: CheckFormat): Promise<string> =>
  formatCheck(report, format, {color: false, width: 80})

interface Case {
  readonly head: string
  readonly body: string
}

/** The test cases of a JUnit report. */
const casesOf = (xml: string): Case[] =>
  [...xml.matchAll(/<testcase ([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)].map(([, head, body]) => ({
    head: head!,
    body: body ?? '',
  }))

function expectCount(xml: string): void {
  const cases = casesOf(xml)
  const failing = cases.filter(({body}) => body.includes('<failure'))
  for (const [, tests, failures] of xml.matchAll(/<testsuites? [^>]*tests="(\d+)" failures="(\d+)"/g)) {
    expect(Number(failures), 'failures').to.equal(failing.length)
    expect(Number(tests), 'tests').to.equal(cases.length)
  }
}

describe('JUnit fails for every error', () => {
  it('also for one about a Service that does not exist', async () => {
    const report = await reportOf(HEALTHY)
    const xml = await print(report, 'junit')
    for (const {code, message} of report.findings.filter(({severity}) => severity === 'error'))
      expect(
        casesOf(xml).some(({body}) => body.includes('<failure') && body.includes(code)),
        message,
      ).to.equal(true)
    expect(xml).to.match(/<failure type="SVT314"/)
    expectCount(xml)
  })

  it('also for one about a node that was not looked at, or about nothing that has a name', async () => {
    const {findings: _, ...rest} = await reportOf(HEALTHY, {nodes: ['node1']})
    const [elsewhere, nowhere] = [{services: ['default/web'], node: 'node9'}, {}].map((about) =>
      makeFinding('packet-dropped-by-rule', {...about, message: 'a rule drops it', evidence: []}),
    )
    const xml = await print({...rest, findings: [elsewhere!, nowhere!]}, 'junit')
    expect(casesOf(xml).filter(({body}) => body.includes('<failure'))).to.have.length(2)
    expect(casesOf(xml).find(({head}) => head.includes('node9'))?.body).to.contain('SVT201')
    expectCount(xml)
  })

  it('and not for a warning', async () => {
    const {findings: _, ...rest} = await reportOf(NO_NODES, {apiOnly: true})
    const warning = makeFinding('unequal-shares', {services: ['default/web'], message: 'not even', evidence: []})
    const xml = await print({...rest, findings: [warning]}, 'junit')
    expect(xml).to.contain('SVT143').and.to.not.contain('<failure')
    expectCount(xml)
  })
})

describe('what was not seen is said in every format', () => {
  it('SARIF: notifications of the run, none where all was seen', async () => {
    const notified = async (keep: typeof HEALTHY): Promise<{level: string; message: {text: string}}[]> => {
      const log = JSON.parse(await print(await reportOf(keep), 'sarif')) as {
        runs: {invocations: {toolExecutionNotifications: {level: string; message: {text: string}}[]}[]}[]
      }
      return log.runs[0]!.invocations[0]!.toolExecutionNotifications
    }
    expect(await notified(HEALTHY)).to.deep.equal([])
    const told = await notified(NODE2_BLIND)
    expect(told.map(({level}) => level)).to.include('warning')
    expect(told.map(({message}) => message.text).join('\n')).to.match(/incomplete: node2: /)
  })

  for (const [format, wanted] of [
    ['table', /^incomplete: node2: \S/m],
    ['name', /^incomplete \S+ node2$/m],
    ['text', /incomplete/i],
    ['markdown', /incomplete/i],
    ['github', /incomplete/i],
    ['prometheus', /incomplete.* [1-9]\d*$/m],
  ] as const)
    it(format, async () => expect(await print(await reportOf(NODE2_BLIND), format)).to.match(wanted))

  it('and without findings too', async () => {
    const {findings: _, ...rest} = await reportOf(NODE2_BLIND)
    const report = {...rest, findings: []}
    expect(await print(report, 'table')).to.match(/^incomplete: node2: /m)
    expect(gate(report, {failOn: 'error', allowIncomplete: false})).to.equal(3)
    expect(gate(report, {failOn: 'error', allowIncomplete: true})).to.equal(0)
  })
})

describe('a check of API objects alone', () => {
  it('misses no nodes', async () => {
    const {incomplete, nodes} = await reportOf(NO_NODES, {apiOnly: true})
    expect(incomplete).to.deep.equal([])
    expect(nodes).to.deep.equal([])
  })

  it('without that they are missed', async () => {
    const {incomplete} = await reportOf(NO_NODES)
    expect(incomplete.flatMap(({node}) => node ?? [])).to.include.members(['node1', 'node2', 'node3'])
  })

  it('misses a list that was not read', async () => {
    const {incomplete} = await reportOf((path) => NO_NODES(path) && path !== 'api/pods.json', {apiOnly: true})
    expect(incomplete.map(({reason}) => reason).join('\n')).to.contain('api/pods.json was not read')
  })
})

it('findings in JSON say what their code means and where to read on', async () => {
  const {findings} = JSON.parse(await print(await reportOf(HEALTHY), 'json')) as {
    findings: {code: string; title: string; docs: string}[]
  }
  const page = readFileSync(DOCS, 'utf8')
  for (const {code, title, docs} of findings) {
    expect(title, code).to.match(/\S/)
    expect(docs).to.equal(`docs/findings.md#${code.toLowerCase()}`)
    expect(page).to.match(new RegExp(`^#+ ${code}$|(id|name)="${code.toLowerCase()}"`, 'm'))
  }
})

describe('formats that tell passed from failed go by the gate', () => {
  const judged = async (failOn: 'error' | 'warning' | 'never', allowIncomplete: boolean): Promise<string> =>
    print({...(await reportOf(NODE2_BLIND)), gate: {failOn, allowIncomplete}}, 'junit')

  it('what fails it is a failure, and nothing else', async () => {
    const failures = (xml: string): number => casesOf(xml).filter(({body}) => body.includes('<failure')).length
    const [never, error, warning] = await Promise.all(
      (['never', 'error', 'warning'] as const).map(async (failOn) => failures(await judged(failOn, true))),
    )
    expect(never).to.equal(0)
    expect(error).to.be.greaterThan(0)
    expect(warning).to.be.greaterThan(error!)
  })

  it('what could not be decided is an error, unless that is allowed', async () => {
    expect(await judged('error', false))
      .to.match(/<error type="incomplete"/)
      .and.not.to.match(/<skipped>/)
    expect(await judged('error', true))
      .to.match(/<skipped>/)
      .and.not.to.match(/<error /)
  })
})

describe('what was left out is told in every format', () => {
  const formats: readonly CheckFormat[] = [
    'text',
    'table',
    'json',
    'yaml',
    'junit',
    'sarif',
    'github',
    'markdown',
    'prometheus',
  ]
  for (const format of formats)
    it(format, async () => {
      const report = await reportOf(HEALTHY)
      const text = await print({...report, summary: {...report.summary, ignored: 31, inBaseline: 29}}, format)
      expect(text).to.match(/2 ignored, 29 in the baseline|"?ignored"?[: ]+31/)
    })
})

describe('text for other programs', () => {
  it('Markdown: nothing of a name is markup, a link or a mention', async () => {
    const report = await reportOf(HEALTHY)
    const evil = makeFinding('traffic-hijacked', {
      node: 'no|de<i>',
      services: ['a/*b*'],
      message: '[x](http://evil) @all `x` _y_ ~~z~~ <img src=x> a|b',
      evidence: [],
    })
    const table = (await print({...report, findings: [evil]}, 'markdown'))
      .split('\n')
      .filter((line) => line.startsWith('| error'))
    expect(table).to.have.length(1)
    expect(table[0]!.split('|')).to.have.length(7)
    expect(table[0]).not.to.match(/[[\]*`@~<>]|_y_/)
  })

  it('SARIF: every result has a place', async () => {
    const report = await reportOf(HEALTHY)
    const bare = makeFinding('foreign-service-proxy', {node: 'n', message: 'x', evidence: []})
    const log = JSON.parse(await print({...report, findings: [bare]}, 'sarif')) as {
      runs: {results: {locations: unknown[]}[]}[]
    }
    expect(log.runs[0]!.results[0]!.locations).to.have.length(1)
  })
})
