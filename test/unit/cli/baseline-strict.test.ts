import {expect} from 'chai'
import {spawnSync} from 'node:child_process'
import {readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {check, type CheckResult} from '../../../src/checks/check.js'
import {makeFinding, type FindingParts} from '../../../src/checks/finding.js'
import {loadGateConfig} from '../../../src/cli/gate-config.js'
import {buildWorld} from '../../../src/engine.js'
import {saveSnapshot} from '../../../src/snapshot/save.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {snapshotFiles} from '../../helpers/corpus.js'
import {scratch} from '../../helpers/scratch.js'

const ROOT = join(import.meta.dirname, '../../..')
const EXAMPLE = join(ROOT, 'examples/missing-nodeport.tar.gz')

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

function checkWith(...args: readonly string[]): Ended {
  const env = {...process.env, NO_COLOR: '1', KUBECONFIG: '/nonexistent/config'}
  const all = [join(ROOT, 'bin/run.js'), 'check', ...args]
  const {status, stdout, stderr} = spawnSync('node', all, {encoding: 'utf8', env, cwd: scratch()})
  return {code: status, out: stdout, err: stderr}
}

/** One clear line, maybe with a hint: nothing that looks like a bug of ours. */
function expectRefusal({code, out, err}: Ended, why: RegExp): void {
  expect(err).to.match(/^error: [^\n]+\n(hint: [^\n]+\n)?$/)
  expect(err).to.match(why)
  expect(out).to.equal('')
  expect(code, err).to.equal(2)
}

function file(name: string, text: string): string {
  const path = join(scratch(), name)
  writeFileSync(path, text)
  return path
}

const known = (path: string): string[] => (JSON.parse(readFileSync(path, 'utf8')) as {findings: string[]}).findings

describe('the same finding tomorrow', () => {
  const parts = (source: string, text: string): FindingParts => ({
    node: 'n1',
    services: ['default/web'],
    message: 'x',
    evidence: [{source: `nodes/n1/${source}`, line: 1, text}],
  })
  const pairs: [string, string, string, string][] = [
    ['counters of iptables-save', 'iptables-save.txt', '[1:60] -A X -j DROP', '[7:420] -A X -j DROP'],
    ['counters of nft', 'nft.txt', 'counter packets 1 bytes 60 drop', 'counter packets 2 bytes 120 drop'],
    [
      'counters in nft.json',
      'nft.json',
      '{"counter":{"packets":5,"bytes":300}}',
      '{"counter":{"packets":77,"bytes":4}}',
    ],
    [
      'connections of a real server',
      'ipvsadm-Ln.txt',
      '  -> 10.1.1.2:80    Masq    0      3          12',
      '  -> 10.1.1.2:80    Masq    0      0          9',
    ],
    [
      'counters of iptables -L',
      'iptables-nat-L.txt',
      '    5   300 DNAT       tcp  --  *      *       0.0.0.0/0   0.0.0.0/0   tcp to:10.1.1.2:80',
      '  12K  720M DNAT       tcp  --  *      *       0.0.0.0/0   0.0.0.0/0   tcp to:10.1.1.2:80',
    ],
    [
      'another pod of the same network behind a route',
      'ip-route.json',
      'n1 has no route to 10.244.2.13',
      'n1 has no route to 10.244.2.77',
    ],
    ['other members of the set', 'ipset-save.txt', 'KUBE-X (21 members)', 'KUBE-X (22 members)'],
  ]
  for (const [what, source, before, after] of pairs)
    it(what, async () => expect(await leftOf(parts(source, before), parts(source, after))).to.equal(0))
  it('a route to another network is another finding', async () =>
    expect(
      await leftOf(
        parts('ip-route.json', 'n1 has no route to 10.244.2.13'),
        parts('ip-route.json', 'n1 has no route to 10.244.3.13'),
      ),
    ).to.equal(1))
  it('another Ingress is another finding', async () => {
    const of = (object: string): FindingParts => ({
      services: ['t/gone'],
      message: 'x',
      evidence: [{source: 'api/ingresses.json', line: 1, text: `${object}: a/`, object}],
    })
    expect(await leftOf(of('t/i'), of('t/i'))).to.equal(0)
    expect(await leftOf(of('t/i'), of('t/j'))).to.equal(1)
  })
  it('another weight is another finding', async () =>
    expect(
      await leftOf(
        parts('ipvsadm-Ln.txt', '  -> 10.1.1.2:80    Masq    1      3          12'),
        parts('ipvsadm-Ln.txt', '  -> 10.1.1.2:80    Masq    0      3          12'),
      ),
    ).to.equal(1))
})

/** What is left of `after` where `before` is known. */
async function leftOf(before: FindingParts, after: FindingParts): Promise<number> {
  const path = join(scratch(), 'known.json')
  const result = (parts: FindingParts): CheckResult => ({
    findings: [makeFinding('packet-dropped-by-rule', parts)],
    incomplete: [],
    services: [],
    nodes: [],
    walks: 0,
    problems: [],
  })
  await (await loadGateConfig({'write-baseline': path})).writeBaseline(result(before))
  return (await loadGateConfig({baseline: path})).apply(result(after)).findings.length
}

describe('a finding is known', () => {
  const rule = (text: string, line = 7): FindingParts['evidence'] => [
    {source: 'nodes/node2/iptables-save.txt', line, text},
  ]
  const DROP = '-A FORWARD -p tcp -m tcp --dport 8080 -j DROP'
  const before: FindingParts = {
    severity: 'warning',
    node: 'node2',
    services: ['default/web', 'shop/lb'],
    message: 'it is dropped',
    evidence: rule(DROP),
  }
  const cases: [what: string, change: Partial<FindingParts>, left: 0 | 1][] = [
    ['when it is the same', {}, 0],
    ['in other words', {message: 'it is dropped there'}, 0],
    ['when its rule stands elsewhere', {evidence: rule(DROP, 99)}, 0],
    ['when its rule has counted on', {evidence: rule(`[12:720] ${DROP}`)}, 0],
    ['with its victims in another order', {services: ['shop/lb', 'default/web']}, 0],
    ['but not when it has become an error', {severity: 'error'}, 1],
    [
      'but not when another rule drops the same',
      {evidence: rule('-A FORWARD -p tcp -m tcp --dport 8080:8090 -j DROP')},
      1,
    ],
    ['but not on another node', {node: 'node3'}, 1],
    ['but not with one more victim', {services: ['default/web', 'shop/lb', 'shop/big']}, 1],
  ]
  for (const [what, change, left] of cases)
    it(what, async () => expect(await leftOf(before, {...before, ...change})).to.equal(left))
})

describe('a baseline of a cluster', () => {
  const RULE = 'nodes/node2/iptables-save.txt'

  async function saved(change: (text: string) => string): Promise<string> {
    const files = await snapshotFiles('k136-iptables-v4', 'admin-drop-forward-targetport')
    const path = join(scratch(), 'cluster.tar.gz')
    await saveSnapshot(files.set(RULE, change(files.get(RULE)!)), path)
    return path
  }

  it('hides the rule that drops, and no other one with the same victims', async () => {
    const path = join(scratch(), 'known.json')
    const written = checkWith('-A', '--snapshot', await saved((text) => text), '--write-baseline', path)
    expect(written.code, written.err).to.equal(0)
    const gated = async (change: (text: string) => string): Promise<Ended> =>
      checkWith('-A', '--snapshot', await saved(change), '--baseline', path, '--allow-incomplete', '-o', 'name')
    const same = await gated((text) =>
      text.replaceAll(/^\[\d+:\d+\]/gm, '[3:180]').replace('*filter\n', '# one line more\n*filter\n'),
    )
    expect(same.code, same.out).to.equal(0)
    const other = await gated((text) => text.replace(/"corp hardening[^"]*"/, '"someone else"'))
    expect(other.code, other.out).to.equal(1)
    expect(other.out).to.match(/^SVT201\/packet-dropped-by-rule /m)
  }).timeout(60_000)

  it('a warning that is known does not hide the error', async () => {
    const files = await snapshotFiles('k136-iptables-v4')
    const snapshot = snapshotFromFiles(files)
    const result = check(snapshot, buildWorld(snapshot))
    const path = join(scratch(), 'known.json')
    const warnings = result.findings.map((finding) => ({...finding, severity: 'warning' as const}))
    await (await loadGateConfig({'write-baseline': path})).writeBaseline({...result, findings: warnings})
    const errors = result.findings.filter(({severity}) => severity === 'error')
    const {findings, ignored} = (await loadGateConfig({baseline: path})).apply(result)
    expect(findings.filter(({severity}) => severity === 'error')).to.deep.equal(errors)
    expect(errors).to.not.be.empty
    expect(ignored).to.equal(result.findings.filter(({severity}) => severity === 'warning').length)
  })

  it('holds each finding once, however it is asked for', () => {
    const path = join(scratch(), 'known.json')
    expect(checkWith('-A', '--snapshot', EXAMPLE, '--write-baseline', path).code).to.equal(0)
    expect(new Set(known(path)).size).to.equal(known(path).length)
    expect(checkWith('-A', '--snapshot', EXAMPLE, '--baseline', path, '--allow-incomplete').code).to.equal(0)
  })
})

describe('what cannot be used is refused with one line and 2', () => {
  const snapshot = ['-A', '--snapshot', EXAMPLE]
  const report = (): string => {
    const path = join(scratch(), 'report.json')
    checkWith(...snapshot, '-o', `json=${path}`)
    return path
  }
  const cases: [what: string, args: () => string[], why: RegExp][] = [
    ['a report as a baseline', () => ['--baseline', report()], /cannot read baseline .*"CheckReport"/],
    ['a baseline that is no JSON', () => ['--baseline', file('b.json', '{')], /cannot read baseline/],
    ['a baseline that is null', () => ['--baseline', file('b.json', 'null')], /cannot read baseline/],
    [
      'a baseline of other things than findings',
      () => ['--baseline', file('b.json', '{"kind":"Baseline","findings":[1]}')],
      /cannot read baseline/,
    ],
    ['a baseline that is not there', () => ['--baseline', '/nonexistent/b.json'], /cannot read baseline/],
    [
      'a baseline to a folder that is not there',
      () => ['--write-baseline', '/nonexistent/x'],
      /cannot write .*\/nonexistent\/x/,
    ],
    [
      'a rule with a reason alone',
      () => ['--config', file('c.yaml', 'ignore: [{reason: noise}]\n')],
      /would ignore everything/,
    ],
    [
      'a rule with a reason and a date',
      () => ['--config', file('c.yaml', 'ignore: [{reason: noise, until: 2099-01-01}]\n')],
      /would ignore everything/,
    ],
    [
      'a rule without a reason',
      () => ['--config', file('c.yaml', 'ignore: [{code: SVT131}]\n')],
      /"reason" is missing/,
    ],
    [
      'a rule for a code that is none',
      () => ['--config', file('c.yaml', 'ignore: [{code: SVT999, reason: x}]\n')],
      /no code "SVT999"/,
    ],
    [
      'a rule for codes that are none',
      () => ['--config', file('c.yaml', 'ignore: [{code: SVT9*, reason: x}]\n')],
      /no code "SVT9\*"/,
    ],
    ...['2027-02-30', '2026-13-01', 'next 2027', '12.11.2027'].map((until): [string, () => string[], RegExp] => [
      `until ${until}`,
      () => ['--config', file('c.yaml', `ignore: [{code: SVT131, until: "${until}", reason: x}]\n`)],
      /"until" is not a date/,
    ]),
  ]
  for (const [what, args, why] of cases)
    it(what, () => expectRefusal(checkWith(...snapshot, ...args()), why)).timeout(30_000)
})

describe('--max-age', () => {
  async function aged(info: object | undefined): Promise<Ended> {
    const files = await snapshotFiles('k136-ipvs-v4')
    if (info) files.set('snapshot.json', JSON.stringify(info))
    const path = join(scratch(), 'aged.tar.gz')
    await saveSnapshot(files, path)
    return checkWith('web', '--snapshot', path, '--max-age', '10m', '--allow-incomplete')
  }

  const refused: [what: string, info: object | undefined, why: RegExp][] = [
    ['no time at all', {taken: 'yesterday'}, /"yesterday".*no time/],
    ['a time in the future', {taken: '2099-01-01T00:00:00Z'}, /2099.*future/],
    ['a time long ago', {taken: '2020-01-01T00:00:00Z'}, /longer ago/],
    ['a snapshot that says nothing', {}, /does not say when/],
    ['a snapshot without snapshot.json', undefined, /does not say when/],
    ['null', {taken: null}, /no time/],
    ['a number', {taken: 20261120}, /no time/],
  ]
  for (const [what, info, why] of refused) it(`refuses ${what}`, async () => expectRefusal(await aged(info), why))

  it('takes what was made just now', async () => {
    const {code, err} = await aged({taken: new Date().toISOString()})
    expect(err).to.equal('')
    expect(code).to.equal(0)
  })
})

it('--api-only needs no nodes', async () => {
  const files = [...(await snapshotFiles('k136-ipvs-v4'))].filter(([path]) => path.startsWith('api/'))
  const path = join(scratch(), 'api.tar.gz')
  await saveSnapshot(new Map(files), path)
  expect(checkWith('web', '--api-only', '--snapshot', path).code).to.equal(0)
  expect(checkWith('web', '--snapshot', path).code).to.equal(3)
})

describe('what a gate refuses', () => {
  const refusals: readonly (readonly [rule: string, why: RegExp])[] = [
    ["{code: '*', reason: x}", /would ignore everything/],
    ["{node: '*', service: '**', reason: x}", /would ignore everything/],
    ['{code: SVT306, reason: null}', /"reason" is not a text/],
    ["{code: SVT306, reason: ' '}", /"reason" is not a text/],
    ['{code: SVT306, reason: false}', /"reason" is not a text/],
    ['{code: [SVT306], reason: x}', /"code" is not a text/],
    ['{service: {a: b}, reason: x}', /"service" is not a text/],
    ['{code: SVT306, until: 2030-02-30, reason: x}', /"until" is not a date/],
    ['[]', /not a mapping/],
  ]
  for (const [rule, why] of refusals)
    it(rule, () => {
      const config = file('config.yaml', `ignore:\n  - ${rule}\n`)
      expectRefusal(checkWith('-A', '--api-only', '--snapshot', EXAMPLE, '--config', config), why)
    })

  it('a file that is a list', () => {
    expectRefusal(
      checkWith('-A', '--snapshot', EXAMPLE, '--config', file('config.yaml', '- {code: SVT306, reason: x}\n')),
      /not a mapping/,
    )
  })

  it('names beside -A or -l, which would be passed over', () => {
    expectRefusal(checkWith('dempapp', '-A', '--snapshot', EXAMPLE), /names and -A do not go together/)
    expectRefusal(checkWith('dempapp', '-l', 'a=b', '--snapshot', EXAMPLE), /names and -l do not go together/)
  })

  it('two outputs into one file', () => {
    const path = join(scratch(), 'out')
    const outputs = ['-o', `json=${path}`, '-o', `junit=${path}`]
    expectRefusal(checkWith('-A', '--api-only', '--snapshot', EXAMPLE, ...outputs), /two outputs go to/)
  })

  it('one output that cannot be written keeps nobody from the others', () => {
    const path = join(scratch(), 'good.json')
    const {code, err} = checkWith(
      '-A',
      '--api-only',
      '--snapshot',
      EXAMPLE,
      '-o',
      'text=/nonexistent/x',
      '-o',
      `json=${path}`,
    )
    expect(code).to.equal(2)
    expect(err).to.match(/cannot write \/nonexistent\/x/)
    expect(JSON.parse(readFileSync(path, 'utf8'))).to.include({kind: 'CheckReport'})
  })

  it('a name twice is one Service', () => {
    const {out} = checkWith('dempapp', 'default/dempapp', '--api-only', '--snapshot', EXAMPLE)
    expect(out).to.match(/: 1 Service on 0 nodes/)
  })

  it('a full disk is no finding', function () {
    if (process.platform !== 'linux') this.skip()
    const command = `node ${join(ROOT, 'bin/run.js')} check -A --api-only --snapshot ${EXAMPLE} > /dev/full`
    const {status, stderr} = spawnSync('sh', ['-c', command], {encoding: 'utf8'})
    expect(stderr).to.match(/^error: cannot write the output: .*\n$/)
    expect(status).to.equal(2)
  })
})
