/** Nothing in a name, an annotation or a dump is obeyed: not by a terminal, not by a shell, not by a parser of our reports. */
import {existsSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {expect} from 'chai'
import {check} from '../../../src/checks/check.js'
import {diffSnapshots} from '../../../src/diff.js'
import {buildWorld} from '../../../src/engine.js'
import {checkReport} from '../../../src/report/check-report.js'
import {diffReport, diffText} from '../../../src/report/diff-report.js'
import {CHECK_FORMATS, formatCheck} from '../../../src/report/formats.js'
import {formatTrace} from '../../../src/report/trace-formats.js'
import {snapshotFromFiles, type Snapshot} from '../../../src/snapshot/snapshot.js'
import {trace} from '../../../src/trace.js'
import {snapshotFiles} from '../../helpers/corpus.js'

const PROOF = join(tmpdir(), `svct-proof-${process.pid}`)
/** Colours, a title, a bell, a direction, a line of its own, and commands. */
const EVIL = `\u001b[31m\u001b]0;owned\u0007\u009b2J\u202e\u2066$(touch ${PROOF})\`touch ${PROOF}\`\r\n::error::x <b>&"'|;${'A'.repeat(3000)}`
/** What a terminal would obey, and marks that turn text around. */
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/
const PLAIN = {color: false, width: 80}

/** Words that decide about traffic stay; every other text gets something nasty behind it. */
const MEANT =
  /^([\d.:a-fA-F/]*|TCP|UDP|SCTP|IPv[46]|ClusterIP|NodePort|LoadBalancer|ExternalName|None|Cluster|Local|Running|True|False|Ready|InternalIP|Hostname|Pod|Node|Service|v1|[\w.-]+\/v1|\w+List|\d{4}-.*Z)$/

function spoil(value: unknown, key = ''): unknown {
  if (typeof value === 'string') return MEANT.test(value) || key === 'nodeName' ? value : `${value}${EVIL}`
  if (Array.isArray(value)) return value.map((item) => spoil(item))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [
      /^[a-zA-Z]+$/.test(name) ? name : `${name}${EVIL}`,
      spoil(item, name),
    ]),
  )
}

/** Nodes keep their names, for their folders have them. */
async function spoiled(cluster: string): Promise<Snapshot> {
  const files = new Map(await snapshotFiles(cluster))
  const nasty = EVIL.replaceAll(/[\r\n"]/g, '')
  for (const [path, text] of files) {
    if (path.startsWith('api/') && path !== 'api/nodes.json') files.set(path, JSON.stringify(spoil(JSON.parse(text))))
    else if (/tables-.*save\.txt$/.test(path))
      files.set(
        path,
        text
          .replaceAll(/--comment "?([\w/:-]+)/g, `--comment "$1${nasty}" -m comment --comment "x`)
          .replaceAll('KUBE-NODEPORTS', `KUBE-\u001b]0;x\u0007${'N'.repeat(9)}`),
      )
    else if (path.endsWith('ss.txt')) files.set(path, text.replaceAll('"kube-proxy"', `"${nasty}"`))
  }
  files.set(`nodes/evil\u001b[31m/iptables-save.txt`, '*nat\nCOMMIT\n')
  return snapshotFromFiles(files)
}

describe('a snapshot with something nasty in every field', function () {
  this.timeout(60_000)
  for (const cluster of ['k136-iptables-v4', 'k136-ipvs-v4']) {
    let snapshot: Snapshot
    before(async () => (snapshot = await spoiled(cluster)))

    it(`${cluster}: every format of check shows it, and obeys none of it`, async () => {
      const report = checkReport(check(snapshot, buildWorld(snapshot)), snapshot)
      expect(report.findings.length).to.be.greaterThan(5)
      for (const format of CHECK_FORMATS) {
        const text = await formatCheck(report, format, PLAIN)
        expect(
          OBEYED.exec(text)?.[0].charCodeAt(0),
          `${format}: ${JSON.stringify(OBEYED.exec(text)?.input.slice(Math.max(0, OBEYED.exec(text)!.index - 60), OBEYED.exec(text)!.index + 20))}`,
        ).to.equal(undefined)
        if (format === 'github')
          for (const line of text.split('\n').filter(Boolean))
            expect(line)
              .to.match(/^(::(error|warning|notice) |::|[^:])/)
              .and.not.match(/^::error::x/)
      }
    })

    it(`${cluster}: so does every trace`, async () => {
      const world = buildWorld(snapshot)
      for (const service of snapshot.cluster.services.slice(0, 12))
        for (const format of ['text', 'wide', 'json', 'yaml', 'name']) {
          const text = await formatTrace(trace(snapshot, world, {service}), format, PLAIN).catch(
            (error: Error) => error.message,
          )
          expect(OBEYED.test(text), `${format} of ${JSON.stringify(service.id.slice(0, 40))}`).to.equal(false)
        }
    })

    it(`${cluster}: and what has changed`, () => {
      const report = diffReport(diffSnapshots(snapshotFromFiles(new Map()), snapshot), EVIL, EVIL)
      expect(report.changes.length).to.be.greaterThan(100)
      expect(OBEYED.test(diffText(report, {...PLAIN, wide: true}))).to.equal(false)
    })
  }

  it('nothing was run', () => expect(existsSync(PROOF)).to.equal(false))
})
