/** The tables by which VXLAN finds another node: what the real kernel does with each loss is what the walk says of its dumps. */
import {execFileSync, spawnSync} from 'node:child_process'
import {expect} from 'chai'
import {check} from '../../src/checks/check.js'
import {buildWorld} from '../../src/engine.js'
import {simulate} from '../../src/simulate.js'
import {snapshotFromFiles} from '../../src/snapshot/snapshot.js'
import {obstacle} from './lab.js'

const ID = process.pid % 10000
const NODES = [1, 2] as const
type Own = (typeof NODES)[number]
const other = (own: Own): Own => (own === 1 ? 2 : 1)
const node = (own: Own): string => `vx${ID}n${own}`
const pod = (own: Own): string => `vx${ID}p${own}`
const mac = (own: Own): string => `02:00:00:00:00:0${own}`
const run = (line: string): string => execFileSync('ip', line.split(' '), {encoding: 'utf8'})
const inside = (own: Own, line: string): void =>
  void execFileSync('ip', ['netns', 'exec', node(own), ...line.split(' ')])

/** Two nodes and a pod on each, as flannel makes them: its agent writes a neighbour and a forwarding entry for every other node. */
function setUp(): void {
  for (const own of NODES) for (const name of [node(own), pod(own)]) run(`netns add ${name}`)
  run(`-n ${node(1)} link add eth0 type veth peer name eth0 netns ${node(2)}`)
  for (const own of NODES) {
    const [on, of] = [node(own), pod(own)]
    for (const line of [
      `-n ${on} link set lo up`,
      `-n ${on} addr add 192.0.2.1${own}/24 dev eth0`,
      `-n ${on} link set eth0 up`,
      `-n ${on} route add default via 192.0.2.1`,
      `-n ${on} link add flannel.1 address ${mac(own)} type vxlan id 1 local 192.0.2.1${own} dev eth0 dstport 8472 nolearning`,
      `-n ${on} addr add 10.1.${own}.0/32 dev flannel.1`,
      `-n ${on} link set flannel.1 up`,
      `-n ${on} route add 10.1.${other(own)}.0/24 via 10.1.${other(own)}.0 dev flannel.1 onlink`,
      `-n ${on} link add veth1 type veth peer name eth0 netns ${of}`,
      `-n ${on} addr add 10.1.${own}.1/24 dev veth1`,
      `-n ${on} link set veth1 up`,
      `-n ${of} addr add 10.1.${own}.2/24 dev eth0`,
      `-n ${of} link set eth0 up`,
      `-n ${of} route add default via 10.1.${own}.1`,
    ])
      run(line)
    inside(own, 'sysctl -qw net.ipv4.ip_forward=1')
  }
}

/** What the agent writes on this node of the other one. */
function agent(own: Own): void {
  const far = other(own)
  run(`-n ${node(own)} neigh replace 10.1.${far}.0 lladdr ${mac(far)} dev flannel.1 nud permanent`)
  inside(own, `bridge fdb replace ${mac(far)} dev flannel.1 dst 192.0.2.1${far}`)
}

const arrives = (): boolean =>
  spawnSync('ip', ['netns', 'exec', pod(1), 'ping', '-c1', '-W1', '10.1.2.2'], {stdio: 'ignore'}).status === 0

const SERVICE = {name: 'web', namespace: 'd', labels: {'kubernetes.io/service-name': 'web'}}
const DNAT = '-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.2.2:80'
const NAT = `*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A PREROUTING ${DNAT}\n-A OUTPUT ${DNAT}\n-A POSTROUTING -s 10.1.2.2/32 -d 10.1.2.2/32 -j MASQUERADE\nCOMMIT\n`

function snapshot(): Map<string, string> {
  const files = new Map<string, string>()
  for (const own of NODES) {
    const dump = (words: string): string => run(`-n ${node(own)} ${words}`)
    const dumps: Record<string, string> = {
      'ip-link.json': dump('-j -d link'),
      'ip-addr.json': dump('-j addr'),
      'ip-route.json': dump('-j route show table all'),
      'ip-rule.json': dump('-j rule'),
      'ip-neigh.json': dump('-j neigh'),
      'bridge-fdb.json': execFileSync('ip', ['netns', 'exec', node(own), 'bridge', '-j', 'fdb', 'show'], {
        encoding: 'utf8',
      }),
      'iptables-save.txt': NAT,
      'sysctl.txt': 'net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.rp_filter = 0\nnet.ipv4.conf.all.route_localnet = 0\n',
      ...Object.fromEntries(['ipset-save.txt', 'ipvsadm-Sn.txt', 'nft.txt', 'ss.txt'].map((name) => [name, ''])),
    }
    for (const [name, text] of Object.entries(dumps)) files.set(`nodes/n${own}/${name}`, text)
    files.set(
      `nodes/n${own}/rc.txt`,
      Object.keys(dumps)
        .map((name) => `${name} rc=0`)
        .join('\n'),
    )
  }
  const list = (name: string, make: (own: Own) => object): void =>
    void files.set(`api/${name}.json`, JSON.stringify({items: NODES.map(make)}))
  list('nodes', (own) => ({
    metadata: {name: `n${own}`},
    spec: {podCIDR: `10.1.${own}.0/24`},
    status: {addresses: [{type: 'InternalIP', address: `192.0.2.1${own}`}]},
  }))
  list('pods', (own) => ({
    metadata: {name: `p${own}`, namespace: 'd'},
    spec: {nodeName: `n${own}`, containers: []},
    status: {phase: 'Running', podIP: `10.1.${own}.2`},
  }))
  const items = (object: object): string => JSON.stringify({items: [{metadata: SERVICE, ...object}]})
  files.set(
    'api/services.json',
    items({
      spec: {clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'], ports: [{port: 80, targetPort: 80, protocol: 'TCP'}]},
    }),
  )
  files.set(
    'api/endpointslices.json',
    items({
      addressType: 'IPv4',
      ports: [{name: '', port: 80, protocol: 'TCP'}],
      endpoints: [{addresses: ['10.1.2.2'], nodeName: 'n2', targetRef: {kind: 'Pod', namespace: 'd', name: 'p2'}}],
    }),
  )
  return files
}

/** What is wrong, where, and the first evidence. */
function found(): string[] {
  const snap = snapshotFromFiles(snapshot())
  return check(snap, buildWorld(snap))
    .findings.filter(({severity}) => severity === 'error')
    .map(({name, node, evidence}) => `${name} on ${node}: ${evidence[0]!.source}`)
}

const told = (): object => {
  const answer = simulate(buildWorld(snapshotFromFiles(snapshot())), {id: 'x', from: {pod: 'd/p1'}, to: '10.1.2.2:80'})
  if ('error' in answer) throw new Error(answer.error)
  return answer.outcomes
}

/** The way there, and the way of the answer. */
const LOSSES: readonly (readonly [name: string, lose: (own: Own) => void])[] = [
  ['no neighbour entry', (own) => void run(`-n ${node(own)} neigh del 10.1.${other(own)}.0 dev flannel.1`)],
  ['no forwarding entry', (own) => inside(own, `bridge fdb del ${mac(other(own))} dev flannel.1`)],
  [
    'a forwarding entry to nobody',
    (own) => inside(own, `bridge fdb replace ${mac(other(own))} dev flannel.1 dst 192.0.2.99`),
  ],
  [
    'the neighbour entry of a node that was replaced',
    (own) => {
      run(`-n ${node(own)} neigh replace 10.1.${other(own)}.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent`)
      inside(own, `bridge fdb append 02:00:00:00:00:99 dev flannel.1 dst 192.0.2.1${other(own)}`)
    },
  ],
]

/** Where frames go whose hardware address no entry has. */
const flood = (own: Own, to: string): void => inside(own, `bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst ${to}`)

describe('VXLAN’s tables', function () {
  this.timeout(60_000)
  before(function () {
    const why = obstacle()
    if (why !== undefined) {
      if (process.env['CI']) throw new Error(why)
      this.skip()
    }
    setUp()
  })
  beforeEach(() => {
    for (const own of NODES) agent(own)
  })
  after(() => {
    if (obstacle() === undefined)
      for (const own of NODES) for (const name of [node(own), pod(own)]) run(`netns del ${name}`)
  })

  it('whole: it arrives', () => {
    expect(arrives()).to.equal(true)
    expect(told()).to.deep.equal({delivered: 1})
    expect(found()).to.deep.equal([])
  })
  it('a flood to the other node finds it without entries, one to nobody does not', () => {
    for (const [to, expected] of [
      ['192.0.2.12', {delivered: 1}],
      ['192.0.2.99', {dropped: 1}],
    ] as const) {
      run(`-n ${node(1)} neigh flush dev flannel.1 nud all`)
      flood(1, to)
      expect(arrives(), to).to.equal('delivered' in expected)
      run(`-n ${node(1)} neigh flush dev flannel.1 nud all`)
      expect(told(), to).to.deep.equal(expected)
      inside(1, `bridge fdb del 00:00:00:00:00:00 dev flannel.1 dst ${to}`)
    }
  })
  it('is told once, where the entry lacks', () => {
    inside(1, `bridge fdb del ${mac(2)} dev flannel.1`)
    expect(found()).to.deep.equal(['tunnel-entry-missing on n1: nodes/n1/bridge-fdb.json'])
    agent(1)
    run(`-n ${node(2)} neigh del 10.1.1.0 dev flannel.1`)
    expect(found()).to.deep.equal(['tunnel-entry-missing on n2: nodes/n2/ip-neigh.json'])
  })
  for (const own of NODES)
    for (const [name, lose] of LOSSES)
      it(`${name}, on the node of ${own === 1 ? 'the client' : 'the server'}`, () => {
        lose(own)
        expect(arrives(), 'the kernel').to.equal(false)
        expect(told(), 'the walk').to.deep.equal({dropped: 1})
      })
})
