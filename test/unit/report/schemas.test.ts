import {spawnSync} from 'node:child_process'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {Ajv} from 'ajv'
import {Ajv2020} from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import {expect} from 'chai'
import {validateXML} from 'xmllint-wasm'
import {check} from '../../../src/checks/check.js'
import {buildWorld} from '../../../src/engine.js'
import {diffSnapshots} from '../../../src/diff.js'
import {diffReport} from '../../../src/report/diff-report.js'
import {checkReport, type CheckReport} from '../../../src/report/check-report.js'
import {formatCheck} from '../../../src/report/formats.js'
import {traceReport} from '../../../src/report/trace-report.js'
import {findService} from '../../../src/select.js'
import {loadSnapshot} from '../../../src/snapshot/load.js'
import {trace} from '../../../src/trace.js'

const ROOT = join(import.meta.dirname, '../../..')
const EXAMPLES = ['missing-nodeport', 'healthy-ipvs', 'dormant-nftables']
const PLAIN = {color: false, width: 80}

async function reportOf(name: string): Promise<CheckReport> {
  const snapshot = await loadSnapshot(join(ROOT, `examples/${name}.tar.gz`))
  return checkReport(check(snapshot, buildWorld(snapshot)), snapshot)
}

/** What is wrong with a document by one of our schemas. */
function problems(schema: string, document: unknown): unknown {
  const ajv = new Ajv({strict: false})
  const validate = ajv.compile(
    JSON.parse(readFileSync(join(ROOT, `schema/${schema}.v1.schema.json`), 'utf8')) as object,
  )
  return validate(JSON.parse(JSON.stringify(document))) ? [] : validate.errors
}

/** What is wrong with a document by the schema of OASIS. */
function sarifProblems(document: unknown): unknown {
  const ajv = new Ajv2020({strict: false})
  addFormats.default(ajv)
  const schema = readFileSync(join(ROOT, 'test/data/schemas/sarif-2.1.0.json'), 'utf8')
  const validate = ajv.compile(JSON.parse(schema) as object)
  return validate(document) ? [] : validate.errors
}

describe('reports keep to their schemas', () => {
  it('which are made from the types', () => {
    const {status, stderr} = spawnSync('node', [join(ROOT, 'tools/make-schema.mjs'), '--check'], {encoding: 'utf8'})
    expect(status, stderr).to.equal(0)
  }).timeout(30_000)

  for (const name of EXAMPLES) {
    it(`check of ${name}: SARIF 2.1.0 (the schema of OASIS)`, async () => {
      const text = await formatCheck(await reportOf(name), 'sarif', PLAIN)
      expect(sarifProblems(JSON.parse(text))).to.deep.equal([])
    }).timeout(30_000)

    it(`check of ${name}: JSON and JUnit (the XSD of Jenkins)`, async () => {
      const report = await reportOf(name)
      expect(problems('check-report', JSON.parse(await formatCheck(report, 'json', PLAIN)))).to.deep.equal([])
      const {valid, errors} = await validateXML({
        xml: [{fileName: 'report.xml', contents: await formatCheck(report, 'junit', PLAIN)}],
        schema: [readFileSync(join(ROOT, 'test/data/schemas/jenkins-junit.xsd'), 'utf8')],
      })
      expect(valid, JSON.stringify(errors)).to.equal(true)
    }).timeout(30_000)
  }

  it('a trace', async () => {
    const snapshot = await loadSnapshot(join(ROOT, 'examples/missing-nodeport.tar.gz'))
    for (const {id} of snapshot.cluster.services) {
      const result = trace(snapshot, buildWorld(snapshot), {service: findService(snapshot, id)})
      expect(problems('trace-report', traceReport(result)), id).to.deep.equal([])
    }
  }).timeout(60_000)

  it('a diff', async () => {
    const [one, other] = await Promise.all(
      ['healthy-ipvs', 'missing-nodeport'].map((name) => loadSnapshot(join(ROOT, `examples/${name}.tar.gz`))),
    )
    expect(problems('diff-report', diffReport(diffSnapshots(one!, other!), 'a', 'b'))).to.deep.equal([])
  }).timeout(30_000)

  it('a schema refuses what is not a report', () => {
    expect(problems('check-report', {apiVersion: 'svc-trace/v2', kind: 'CheckReport'})).not.to.deep.equal([])
    expect(problems('trace-report', {apiVersion: 'svc-trace/v1'})).not.to.deep.equal([])
    expect(sarifProblems({version: '2.1.0'})).not.to.deep.equal([])
    expect(sarifProblems({version: '2.1.0', runs: [{tool: {driver: {}}}]})).not.to.deep.equal([])
  })
})
