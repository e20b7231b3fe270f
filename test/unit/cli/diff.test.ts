import {spawnSync} from 'node:child_process'
import {join} from 'node:path'
import {expect} from 'chai'
import {diffNodes, diffSnapshots, type DiffResult} from '../../../src/diff.js'
import {diffReport, diffText} from '../../../src/report/diff-report.js'
import {loadFiles} from '../../../src/snapshot/load.js'
import {snapshotFromFiles, type Snapshot} from '../../../src/snapshot/snapshot.js'
import {oneNode, type NodeDump} from '../../helpers/node.js'

const ROOT = join(import.meta.dirname, '../../..')
const run = (...words: string[]): {status: number | null; stdout: string; stderr: string} =>
  spawnSync(process.execPath, [join(ROOT, 'bin/run.js'), 'diff', ...words], {encoding: 'utf8', cwd: ROOT})
const of = (dump: NodeDump, changes: Record<string, string> = {}): Snapshot => {
  const files = oneNode(dump)
  for (const [path, text] of Object.entries(changes)) files.set(path, text)
  return snapshotFromFiles(files)
}
const told = ({changes}: DiffResult): string[] =>
  changes.map(({sign, place, text, line}) => `${sign} ${place}: ${text} (${line})`)
const rules = (...lines: string[]): NodeDump => ({
  iptables: ['*nat', ':PREROUTING ACCEPT [0:0]', ':A - [0:0]', ...lines, 'COMMIT'].join('\n'),
})

describe('diff', () => {
  it('of a snapshot and itself is nothing', () => {
    const {status, stdout} = run('examples/healthy-ipvs.tar.gz', 'examples/healthy-ipvs.tar.gz')
    expect([status, stdout]).to.deep.equal([
      0,
      'no difference between examples/healthy-ipvs.tar.gz and examples/healthy-ipvs.tar.gz\n',
    ])
  })

  it('tells rules that came and went, with their lines, and no counters', () => {
    const before = of(rules('[5:300] -A A -d 10.0.0.1/32 -j RETURN', '-A A -d 10.0.0.2/32 -j RETURN'))
    const after = of(rules('-A A -d 10.0.0.3/32 -j RETURN', '[9:900] -A A -d 10.0.0.1/32 -j RETURN'))
    expect(told(diffSnapshots(before, after))).to.deep.equal([
      '- iptables-legacy nat/A: -A A -d 10.0.0.2/32 -j RETURN (5)',
      '+ iptables-legacy nat/A: -A A -d 10.0.0.3/32 -j RETURN (4)',
    ])
  })

  it('counts what is there twice', () => {
    const before = of(rules('-A A -j RETURN'))
    const after = of(rules('-A A -j RETURN', '-A A -j RETURN'))
    expect(told(diffSnapshots(before, after))).to.deep.equal(['+ iptables-legacy nat/A: -A A -j RETURN (5)'])
  })

  it('tells sets, virtual servers, policies, routes, settings and the API', () => {
    const before = of(
      {
        iptables: '*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT',
        ipset: 'create S hash:ip\nadd S 10.0.0.1',
        ipvs: '-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.1.2:80 -m -w 1',
        sysctl: 'net.ipv4.ip_forward = 1\nnet.netfilter.nf_conntrack_count = 5',
      },
      {
        'api/services.json': JSON.stringify({
          items: [{metadata: {name: 's', namespace: 'd'}, spec: {clusterIP: '10.96.0.1', ports: [{port: 80}]}}],
        }),
      },
    )
    const after = of(
      {
        iptables: '*filter\n:FORWARD DROP [0:0]\nCOMMIT',
        ipset: 'create S hash:ip\nadd S 10.0.0.2',
        ipvs: '-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.1.2:80 -m -w 0',
        sysctl: 'net.ipv4.ip_forward = 0\nnet.netfilter.nf_conntrack_count = 9',
      },
      {
        'api/services.json': JSON.stringify({
          items: [{metadata: {name: 's', namespace: 'd'}, spec: {clusterIP: '10.96.0.2', ports: [{port: 80}]}}],
        }),
      },
    )
    expect(told(diffSnapshots(before, after))).to.deep.equal([
      '- Service d/s: cluster IP 10.96.0.1 (0)',
      '+ Service d/s: cluster IP 10.96.0.2 (0)',
      '- iptables-legacy filter/FORWARD: policy ACCEPT (2)',
      '- ipset S: 10.0.0.1 (2)',
      '- virtual server TCP 10.0.0.1:80: real server 10.1.1.2:80 Masq weight 1 (2)',
      '- sysctls: net.ipv4.ip_forward = 1 (1)',
      '+ iptables-legacy filter/FORWARD: policy DROP (2)',
      '+ ipset S: 10.0.0.2 (2)',
      '+ virtual server TCP 10.0.0.1:80: real server 10.1.1.2:80 Masq weight 0 (2)',
      '+ sysctls: net.ipv4.ip_forward = 0 (1)',
    ])
  })

  it('of two nodes calls their own addresses and networks the same', () => {
    const node = (name: string, last: number): object => ({
      metadata: {name},
      spec: {podCIDR: `10.1.${last}.0/24`},
      status: {addresses: [{type: 'InternalIP', address: `192.0.2.${last}`}]},
    })
    const address = (last: number): string =>
      JSON.stringify([{ifname: 'eth0', flags: ['UP'], addr_info: [{local: `192.0.2.${last}`, prefixlen: 24}]}])
    const save = (last: number, extra = ''): string =>
      `*nat\n:A - [0:0]\n-A A -d 192.0.2.${last}/32 -s 10.1.${last}.0/24 -j RETURN\n-A A -d 192.0.2.${last}1/32 -j RETURN\n${extra}COMMIT`
    const snapshot = snapshotFromFiles(
      new Map([
        ['api/nodes.json', JSON.stringify({items: [node('n1', 1), node('n2', 2)]})],
        ['nodes/n1/iptables-save.txt', save(1)],
        ['nodes/n2/iptables-save.txt', save(2, '-A A -j DROP\n')],
        ['nodes/n1/ip-addr.json', address(1)],
        ['nodes/n2/ip-addr.json', address(2)],
      ]),
    )
    expect(told(diffNodes(snapshot, 'n1', 'n2'))).to.deep.equal([
      '- iptables-legacy nat/A: -A A -d 192.0.2.11/32 -j RETURN (4)',
      '+ iptables-legacy nat/A: -A A -d 192.0.2.21/32 -j RETURN (4)',
      '+ iptables-legacy nat/A: -A A -j DROP (5)',
    ])
    expect(() => diffNodes(snapshot, 'n1', 'n9')).to.throw(/node "n9" was not read/)
  })

  it('puts findings that came and went first, and nothing raw on a terminal', () => {
    const {status, stdout} = run('examples/healthy-ipvs.tar.gz', 'examples/missing-nodeport.tar.gz')
    expect(status).to.equal(1)
    expect(stdout).to.match(
      /^\d+ findings? came, \d+ went, \d+ changes\n- examples\/healthy-ipvs\.tar\.gz\n\+ examples\/missing-nodeport\.tar\.gz\n/,
    )
    expect(stdout.indexOf('SVT131')).to.be.lessThan(stdout.indexOf('Service '))
    const evil = diffSnapshots(of(rules()), of(rules('-A A -m comment --comment "\u001b[31mx" -j RETURN')))
    expect(diffText(diffReport(evil, 'a', 'b'), {color: false, width: 80, wide: false})).not.to.include('\u001b')
    expect(JSON.stringify(diffReport(evil, 'a', 'b'))).not.to.include('\u001b')
  })

  it('says what it could not compare, and takes nothing of it for a change', () => {
    const whole = of(rules('-A A -j RETURN'))
    const torn = of(rules('-A A -j RETURN'), {
      'nodes/n1/iptables-save.txt': '',
      'nodes/n1/iptables-save.txt.stderr': 'Permission denied (you must be root)',
      'nodes/n1/rc.txt':
        'iptables-save.txt rc=4\nip6tables-save.txt rc=0\nipset-save.txt rc=0\nipvsadm-Sn.txt rc=0\nnft.txt rc=0\nip-addr.json rc=0\nip-link.json rc=0\nip-route.json rc=0\nip-route6.json rc=0\nip-rule.json rc=0\nsysctl.txt rc=0\nss.txt rc=0',
    })
    for (const [one, other] of [
      [whole, torn],
      [torn, whole],
      [torn, torn],
    ] as const) {
      const result = diffSnapshots(one, other)
      expect(told(result)).to.deep.equal([])
      expect(result.findings).to.deep.equal([])
      expect(result.incomplete.map(({reason}) => reason).join('\n')).to.match(
        /iptables: .*could not be read: rc=4: Permission denied/,
      )
      expect(diffText(diffReport(result, 'a', 'b'), {color: false, width: 80, wide: false})).to.match(
        /^no difference in what both have read.*\n\nnot compared\n/,
      )
    }
  })

  it('a finding that got worse is a difference', async () => {
    const files = await loadFiles(join(ROOT, 'examples/missing-nodeport.tar.gz'))
    const full = (count: number): Snapshot => {
      const sysctl = `${files.get('nodes/node1/sysctl.txt')}\nnet.netfilter.nf_conntrack_max = 100\nnet.netfilter.nf_conntrack_count = ${count}\n`
      return snapshotFromFiles(new Map([...files, ['nodes/node1/sysctl.txt', sysctl]]))
    }
    const {findings, changes} = diffSnapshots(full(91), full(100))
    expect(findings.map(({sign, finding}) => `${sign} ${finding.code} ${finding.severity}`)).to.deep.equal([
      '+ SVT172 error',
      '- SVT172 warning',
    ])
    expect(changes).to.deep.equal([])
  })

  it('refuses what it cannot read, in one sentence', () => {
    const {status, stderr} = run('examples/healthy-ipvs.tar.gz', '/nope')
    expect(status).to.equal(2)
    expect(stderr).to.match(/^error: cannot read snapshot \/nope: no such file or folder\n/)
    expect(run('a').status).to.equal(2)
    expect(run('--nodes', 'node1', 'nope', '--snapshot', 'examples/healthy-ipvs.tar.gz').stderr).to.match(
      /^error: node "nope" was not read\nhint: nodes: node1/,
    )
  })
})
