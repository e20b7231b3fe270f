import {expect} from 'chai'
import {buildWorld} from '../../../src/engine.js'
import {simulate, type SimulateAnswer} from '../../../src/simulate.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

interface Site {
  readonly filter?: string
  /** What leads out of the bridge: a network card, a veth pair whose other end is on the node, or nothing. */
  readonly uplink?: 'card' | 'pair' | 'none'
  readonly isolated?: boolean
  readonly bridgeNf?: 0 | 1
  readonly rpFilter?: 0 | 1 | 2
  /** The second node's default route leads by this device. */
  readonly out?: 'eth0' | 'eth1'
  /** eth0 has a router as well. */
  readonly second?: boolean
}

/** Two nodes: pods 10.32.0.2 on n1 and 10.32.1.2 on n2, in one network that the bridges of both share (Weave, Azure's bridge mode). */
function site({
  filter = '',
  uplink = 'card',
  isolated = false,
  bridgeNf = 1,
  rpFilter = 0,
  out = 'eth0',
  second = false,
}: Site): Map<string, string> {
  const files = new Map<string, string>()
  for (const own of [1, 2]) {
    const put = (name: string, value: unknown): void =>
      void files.set(`nodes/n${own}/${name}`, typeof value === 'string' ? value : JSON.stringify(value))
    const link = (ifname: string, more: object = {}): object => ({ifindex: 1, ifname, flags: ['UP'], ...more})
    const address = (ifname: string, local: string, prefixlen: number): object => ({
      ifname,
      flags: ['UP'],
      addr_info: [{local, prefixlen, scope: 'global'}],
    })
    put(
      'iptables-save.txt',
      `*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n${own === 2 ? filter : ''}COMMIT\n`,
    )
    put('ip-link.json', [
      link('lo', {flags: ['LOOPBACK', 'UP']}),
      link('eth0'),
      link('eth1'),
      link('weave', {linkinfo: {info_kind: 'bridge'}}),
      ...['veth1', 'veth2'].map((name) =>
        link(name, {
          master: 'weave',
          linkinfo: {info_kind: 'veth', info_slave_kind: 'bridge', info_slave_data: {hairpin: true, isolated}},
        }),
      ),
      ...(uplink === 'card' ? [link('eth2', {master: 'weave'})] : []),
      ...(uplink === 'pair' ? [link('up', {master: 'weave', link: 'datapath', linkinfo: {info_kind: 'veth'}})] : []),
    ])
    put('ip-addr.json', [
      address('eth0', `192.0.2.1${own}`, 24),
      address('eth1', `203.0.113.1${own}`, 24),
      address('weave', `10.32.${own - 1}.1`, 12),
    ])
    const local = (dst: string, dev: string): object => ({
      type: 'local',
      dst,
      dev,
      table: 'local',
      scope: 'host',
      flags: [],
    })
    put('ip-route.json', [
      {dst: 'default', gateway: out === 'eth0' ? '192.0.2.1' : '203.0.113.1', dev: out, flags: []},
      ...(second ? [{dst: 'default', gateway: '192.0.2.1', dev: 'eth0', table: '100', flags: []}] : []),
      {dst: '192.0.2.0/24', dev: 'eth0', scope: 'link', prefsrc: `192.0.2.1${own}`, flags: []},
      {dst: '203.0.113.0/24', dev: 'eth1', scope: 'link', prefsrc: `203.0.113.1${own}`, flags: []},
      {
        dst: '10.32.0.0/12',
        dev: 'weave',
        scope: 'link',
        prefsrc: `10.32.${own - 1}.1`,
        flags: [],
      },
      local(`192.0.2.1${own}`, 'eth0'),
      local(`203.0.113.1${own}`, 'eth1'),
      local(`10.32.${own - 1}.1`, 'weave'),
    ])
    put('ip-rule.json', [])
    put(
      'sysctl.txt',
      `net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = ${bridgeNf}\nnet.ipv4.conf.all.rp_filter = ${rpFilter}\n`,
    )
    put('ss.txt', 'tcp LISTEN 0 9 0.0.0.0:8080 0.0.0.0:* users:(("web",pid=1,fd=3))\n')
    for (const empty of ['ipset-save.txt', 'ipvsadm-Sn.txt', 'nft.txt']) put(empty, '')
    const names = [...files.keys()].filter((name) => name.startsWith(`nodes/n${own}/`))
    put('rc.txt', names.map((name) => `${name.split('/')[2]} rc=0`).join('\n'))
  }
  const items = (make: (own: number) => object): string => JSON.stringify({items: [1, 2].map(make)})
  files.set(
    'api/nodes.json',
    items((own) => ({
      metadata: {name: `n${own}`},
      spec: {},
      status: {addresses: [{type: 'InternalIP', address: `192.0.2.1${own}`}]},
    })),
  )
  files.set(
    'api/pods.json',
    items((own) => ({
      metadata: {name: `p${own}`, namespace: 'd'},
      spec: {nodeName: `n${own}`, containers: []},
      status: {phase: 'Running', podIP: `10.32.${own - 1}.2`},
    })),
  )
  files.set('api/services.json', JSON.stringify({items: []}))
  return files
}

function ask(files: Map<string, string>, packet: object): SimulateAnswer {
  const answer = simulate(buildWorld(snapshotFromFiles(files)), {
    id: '1',
    from: {pod: 'd/p1'},
    to: '10.32.1.2:80',
    ...packet,
  })
  if ('error' in answer) throw new Error(answer.error)
  return answer
}

describe('a network that the bridges of several nodes share', () => {
  it('leads to the pod on the other node, whether frames pass iptables or not', () => {
    for (const bridgeNf of [0, 1] as const) {
      const {outcomes, backends} = ask(site({bridgeNf}), {})
      expect(outcomes, `bridge-nf ${bridgeNf}`).to.deep.equal({delivered: 1})
      expect(backends[0]).to.include({source: '10.32.0.2'})
    }
    expect(ask(site({}), {from: {node: 'n1'}}).outcomes).to.deep.equal({delivered: 1})
  })

  it('is one where something leads out of the bridge; where that goes on inside the node, nobody knows', () => {
    for (const from of [{pod: 'd/p1'}, {node: 'n1'}]) {
      expect(ask(site({uplink: 'none'}), {from}).outcomes).to.deep.equal({dropped: 1})
      expect(ask(site({uplink: 'pair'}), {from}).outcomes).to.deep.equal({unknown: 1})
    }
  })

  it('isolated ports reach the uplink', () => {
    expect(ask(site({isolated: true}), {}).outcomes).to.deep.equal({delivered: 1})
    expect(ask(site({isolated: true, bridgeNf: 0}), {}).outcomes).to.deep.equal({delivered: 1})
  })

  it('passes the other node’s FORWARD where frames do', () => {
    const filter = '-A FORWARD -d 10.32.1.2/32 -j DROP\n'
    expect(ask(site({filter}), {}).outcomes).to.deep.equal({dropped: 1})
    expect(ask(site({filter, bridgeNf: 0}), {}).outcomes).to.deep.equal({delivered: 1})
  })
})

describe('a node with two networks', () => {
  const client = {from: {external: '198.51.100.7'}, enter: 'n2', to: '192.0.2.12:8080'}

  it('answers by another device than the packet came by, unless rp_filter is strict', () => {
    for (const rpFilter of [0, 2] as const)
      expect(ask(site({out: 'eth1', second: true, rpFilter}), client).outcomes, `rp_filter ${rpFilter}`).to.deep.equal({
        delivered: 1,
      })
    const strict = ask(site({out: 'eth1', second: true, rpFilter: 1}), client)
    expect(strict.outcomes).to.deep.equal({dropped: 1})
    expect(strict.why.join(' ')).to.match(/rp_filter=1 on eth0 of n2/)
  })

  it('clients of the network itself, and those that have their route there, get in', () => {
    for (const external of ['192.0.2.99'])
      expect(
        ask(site({out: 'eth1', second: true, rpFilter: 1}), {...client, from: {external}}).outcomes,
        external,
      ).to.deep.equal({delivered: 1})
  })

  it('a network without a router has no clients behind one', () =>
    expect(ask(site({out: 'eth1', rpFilter: 1}), client).outcomes).to.deep.equal({delivered: 1}))
})
