import {expect} from 'chai'
import {spawnSync} from 'node:child_process'
import {readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {scratch} from '../../helpers/scratch.js'
import {resolveArgv} from '../../../src/cli/resolve-argv.js'
import {snapshotFiles} from '../../helpers/corpus.js'
import {saveSnapshot} from '../../../src/snapshot/save.js'

const ROOT = join(import.meta.dirname, '../../..')
const EXAMPLE = join(ROOT, 'examples/missing-nodeport.tar.gz')
const HEALTHY = join(ROOT, 'examples/healthy-ipvs.tar.gz')

function cli(args: readonly string[], input = ''): {code: number | null; out: string; err: string} {
  const env = {...process.env, NO_COLOR: '1', KUBECONFIG: '/nonexistent/config'}
  const {status, stdout, stderr} = spawnSync('node', [join(ROOT, 'bin/run.js'), ...args], {
    encoding: 'utf8',
    input,
    env,
    maxBuffer: 1 << 28,
  })
  return {code: status, out: stdout, err: stderr}
}

describe('NAME or COMMAND', () => {
  const rules = {
    ids: new Set(['check', 'trace', 'snapshot']),
    fallback: 'trace',
    valueFlags: new Set(['-n', '--namespace', '-o']),
  }
  const table: [string, string][] = [
    ['web', 'trace web'],
    ['-n prod check', 'check -n prod'],
    ['-nprod check', 'check -nprod'],
    ['--namespace=prod web', 'trace --namespace=prod web'],
    ['-- check', 'trace -- check'],
    ['help check', 'check --help'],
    ['svc/check', 'trace svc/check'],
    ['snap', 'trace snap'],
    ['', ''],
    ['--help', '--help'],
    ['-n check web', 'trace -n check web'],
    ['version', '--version'],
  ]
  for (const [given, wanted] of table)
    it(`«${given}» is «${wanted}»`, () =>
      expect(resolveArgv(given.split(' ').filter(Boolean), rules).join(' ')).to.equal(wanted))
})

describe('exit codes and errors', () => {
  const cases: [string, string[], number, RegExp][] = [
    ['findings', ['dempapp', '--snapshot', EXAMPLE], 1, /^$/],
    ['--fail-on never', ['dempapp', '--snapshot', HEALTHY, '--fail-on', 'never', '--allow-incomplete'], 0, /^$/],
    ['healthy', ['check', 'web', '--snapshot', HEALTHY, '--allow-incomplete'], 0, /^$/],
    [
      'unknown Service',
      ['nope', '--snapshot', EXAMPLE],
      2,
      /^error: services "nope" not found in namespace default\nhint: .*\n$/,
    ],
    ['unknown flag', ['web', '--bogus'], 2, /^error: Nonexistent flag: --bogus\nhint/],
    [
      'no snapshot',
      ['web', '--snapshot', '/nonexistent'],
      2,
      /^error: cannot read snapshot \/nonexistent: no such file or folder\n$/,
    ],
    ['no kubeconfig', ['web'], 2, /^error: no kubeconfig: \/nonexistent\/config does not exist\nhint: .*\n$/],
    [
      'unknown format',
      ['check', '-A', '-o', 'xml', '--snapshot', EXAMPLE],
      2,
      /^error: unknown output format "xml"\nhint/,
    ],
    ['unknown code', ['explain', 'SVT999'], 2, /^error: there is no finding "SVT999"/],
    ['bad --from', ['web', '--from', 'moon', '--snapshot', EXAMPLE], 2, /^error: --from moon is not understood/],
    ['unknown node', ['web', '--node', 'nope', '--snapshot', EXAMPLE], 2, /^error: node "nope" was not read/],
  ]
  for (const [what, args, code, err] of cases) {
    it(`${what}: ${code}`, () => {
      const result = cli(args)
      expect(result.code, result.err).to.equal(code)
      expect(result.err).to.match(err)
    })
  }

  it('a broken archive is one line and 2', () => {
    const file = join(scratch(), 'x.tar.gz')
    writeFileSync(file, 'not an archive')
    const {code, err} = cli(['web', '--snapshot', file])
    expect(code).to.equal(2)
    expect(err.split('\n')[0]).to.match(/^error: .*x\.tar\.gz is not a snapshot/)
    expect(err).to.not.contain('    at ')
  })

  it('every name form finds the Service', () => {
    for (const name of [
      'dempapp',
      'svc/dempapp',
      'service/dempapp',
      'default/dempapp',
      'dempapp.default',
      'dempapp.default.svc.cluster.local',
    ]) {
      expect(cli([name, '-o', 'name', '--snapshot', EXAMPLE]).out, name).to.equal('service/dempapp\n')
    }
  })

  it('explains a finding for each mode of kube-proxy, or for all at once', () => {
    const {out} = cli(['explain', 'SVT131'])
    expect(out).to.match(
      /How it looks\n {2}iptables {2}KUBE-NODEPORTS .*\n( {12}\S.*\n)* {2}ipvs {6}.*KUBE-NODE-PORT-TCP/,
    )
    expect(out).to.match(/^ {2}nftables {2}.*\n?.*service-nodeports/m)
    for (const line of out.split('\n')) expect(line.length, line).to.be.at.most(80)
    expect(cli(['explain', 'stale-conntrack']).out).to.match(/How it looks\n {2}conntrack -L .*\n\nWhat to do/)
  })

  it('a reader that closes early is no failure', () => {
    const {status, stderr} = spawnSync(
      'sh',
      ['-c', `node ${join(ROOT, 'bin/run.js')} check -A -o json --snapshot ${EXAMPLE} | head -1`],
      {encoding: 'utf8'},
    )
    expect(status).to.equal(0)
    expect(stderr).to.equal('')
  })
})

describe('outputs', () => {
  it('json, yaml, junit, sarif, github, markdown, prometheus at once', () => {
    const dir = scratch()
    const formats = [
      'json',
      'yaml',
      'junit',
      'sarif',
      'github',
      'markdown',
      'prometheus',
      'table',
      'text',
      'wide',
      'name',
    ]
    const {code} = cli([
      'check',
      '-A',
      '--snapshot',
      EXAMPLE,
      ...formats.flatMap((format) => ['-o', `${format}=${join(dir, format)}`]),
    ])
    expect(code).to.equal(1)
    const read = (format: string): string => readFileSync(join(dir, format), 'utf8')
    const report = JSON.parse(read('json')) as {kind: string; findings: {code: string; evidence: {line: number}[]}[]}
    expect(report.kind).to.equal('CheckReport')
    expect(report.findings[0]).to.include({
      code: 'SVT131',
      service: 'default/dempapp',
      node: 'node2',
      severity: 'error',
      port: '80/TCP',
    })
    expect((JSON.parse(read('sarif')) as {version: string}).version).to.equal('2.1.0')
    expect(read('junit')).to.match(/<testsuites name="svc-trace" tests="\d+" failures="[1-9]\d*"/)
    expect(read('github')).to.contain('::error title=SVT131 node-port-not-programmed::')
    expect(read('prometheus')).to.match(
      /^svc_trace_finding\{code="SVT131",.*service="default\/dempapp",node="node2"\} 1$/m,
    )
    expect(read('markdown')).to.contain('| error | SVT131')
  })

  it('simulate answers in order, and a bad line does not stop the rest', () => {
    const lines = [
      '{"id":"a","from":{"node":"node1"},"to":"10.96.239.180:80"}',
      'garbage',
      '{"id":"b","from":{"pod":"no/such"},"to":"10.96.239.180:80"}',
      '{"id":"c","from":{"external":"203.0.113.9"},"to":"172.18.0.12:32327","proto":"tcp"}',
    ]
    const {code, out} = cli(['simulate', '--packets', '-', '--snapshot', EXAMPLE], `${lines.join('\n')}\n`)
    const answers = out
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as {id: string; error?: string; outcomes?: object})
    expect(answers.map(({id}) => id)).to.deep.equal(['a', '', 'b', 'c'])
    expect(answers[0]!.outcomes).to.deep.equal({delivered: 1})
    expect(answers[3]!.outcomes).to.deep.equal({refused: 1})
    expect(code).to.equal(3)
  })

  it('nothing from a dump reaches the terminal raw', async () => {
    const files = await snapshotFiles('k136-iptables-v4')
    const evil = '\u001b]0;pwned\u0007\u001b[31m\u202E'
    files.set(
      'nodes/node2/iptables-save.txt',
      files
        .get('nodes/node2/iptables-save.txt')!
        .replace('*filter\n', '*filter\n:FORWARD DROP [0:0]\n')
        .replace('COMMIT', `-A FORWARD -m comment --comment "${evil}" -j DROP\nCOMMIT`),
    )
    const file = join(scratch(), 'evil.tar.gz')
    await saveSnapshot(files, file)
    for (const format of ['text', 'wide', 'table', 'markdown', 'github'])
      expect(cli(['check', '-A', '--snapshot', file, '-o', format]).out, format).to.not.match(/[\u001b\u0007\u202E]/)
    expect(cli(['web', '-o', 'wide', '--snapshot', file]).out).to.not.match(/[\u001b\u0007\u202E]/)
  })
})

describe('the article', () => {
  it('gives the article’s own path, under stated assumptions, and exit code 3', async () => {
    const file = join(scratch(), 'article.tar.gz')
    await saveSnapshot(await snapshotFiles('article-nodeport-ipvs'), file)
    const {code, out} = cli(['dempapp', '--snapshot', file, '--to', 'nodePort', '--from', 'external'])
    expect(code).to.equal(3)
    for (const part of [
      'unknown – delivered',
      'cali-PREROUTING',
      'KUBE-CLUSTER-IP',
      '32327 is in ipset KUBE-NODE-PORT-TCP',
      '0x4000',
      'IPVS TCP 172.20.200.5:32327 rr',
      '10.244.48.9:80',
    ])
      expect(out.replaceAll(/\s+/g, ' ')).to.contain(part)
  })

  it('finds the missing NodePort entry when the set or the virtual server lacks it', async () => {
    const files = await snapshotFiles('article-nodeport-ipvs')
    for (const [path, edit] of [
      ['ipset-list.txt', (text: string) => text.replace('\n32327', '').replace('entries: 4', 'entries: 3')],
      ['ipvsadm-Ln.txt', (text: string) => text.replace(/TCP {2}172.20.200.5:32327 rr\n.*\n/, '')],
    ] as const) {
      const name = `nodes/hybirdnet-node1/${path}`
      const changed = new Map(files).set(name, edit(files.get(name)!))
      const file = join(scratch(), 'article.tar.gz')
      await saveSnapshot(changed, file)
      const {out} = cli(['dempapp', '--snapshot', file])
      expect(out, path).to.contain('SVT131 node-port-not-programmed')
    }
  })
})
