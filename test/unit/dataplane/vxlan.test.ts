import {expect} from 'chai'
import {buildWorld} from '../../../src/engine.js'
import {simulate, type SimulateAnswer} from '../../../src/simulate.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

/** Two nodes as flannel makes them: pods of the other one by flannel.1, a VXLAN device. */
function ask({
  filter = {},
  vxlan = {port: 8472},
  proto = 'TCP',
}: {filter?: Partial<Record<'n1' | 'n2', string>>; vxlan?: object; proto?: string} = {}): SimulateAnswer {
  const files = new Map<string, string>()
  const put = (name: string, value: unknown): void =>
    void files.set(name, typeof value === 'string' ? value : JSON.stringify(value))
  for (const [own, other] of [
    [1, 2],
    [2, 1],
  ] as const) {
    const node = `nodes/n${own}`
    const link = (ifname: string, more: object = {}): object => ({ifindex: 1, ifname, flags: ['UP'], ...more})
    put(
      `${node}/iptables-save.txt`,
      `*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n${filter[`n${own}`] ?? ''}COMMIT\n`,
    )
    put(`${node}/ip-link.json`, [
      link('lo', {flags: ['LOOPBACK', 'UP']}),
      link('eth0'),
      link('cni0', {linkinfo: {info_kind: 'bridge'}}),
      link('flannel.1', {linkinfo: {info_kind: 'vxlan', info_data: {id: 1, local: `192.0.2.1${own}`, ...vxlan}}}),
    ])
    const address = (ifname: string, local: string, prefixlen: number): object => ({
      ifname,
      flags: ['UP'],
      addr_info: [{local, prefixlen, scope: 'global'}],
    })
    put(`${node}/ip-addr.json`, [
      address('eth0', `192.0.2.1${own}`, 24),
      address('cni0', `10.1.${own}.1`, 24),
      address('flannel.1', `10.1.${own}.0`, 32),
    ])
    put(`${node}/ip-route.json`, [
      {dst: '192.0.2.0/24', dev: 'eth0', scope: 'link', prefsrc: `192.0.2.1${own}`},
      {dst: `10.1.${own}.0/24`, dev: 'cni0', scope: 'link', prefsrc: `10.1.${own}.1`},
      {dst: `10.1.${other}.0/24`, gateway: `10.1.${other}.0`, dev: 'flannel.1', flags: ['onlink']},
    ])
    put(`${node}/sysctl.txt`, 'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n')
    for (const empty of ['ipset-save.txt', 'ipvsadm-Sn.txt', 'nft.txt', 'ss.txt']) put(`${node}/${empty}`, '')
    put(`${node}/ip-rule.json`, [])
    const names = [...files.keys()]
      .filter((name) => name.startsWith(`${node}/`))
      .map((name) => `${name.split('/')[2]} rc=0`)
    put(`${node}/rc.txt`, names.join('\n'))
  }
  const items = (make: (own: number) => object): object => ({items: [1, 2].map(make)})
  put(
    'api/nodes.json',
    items((own) => ({
      metadata: {name: `n${own}`},
      spec: {podCIDR: `10.1.${own}.0/24`},
      status: {addresses: [{type: 'InternalIP', address: `192.0.2.1${own}`}]},
    })),
  )
  put(
    'api/pods.json',
    items((own) => ({
      metadata: {name: `p${own}`, namespace: 'd'},
      spec: {nodeName: `n${own}`, containers: []},
      status: {phase: 'Running', podIP: `10.1.${own}.2`},
    })),
  )
  put('api/services.json', {items: []})
  const answer = simulate(buildWorld(snapshotFromFiles(files)), {
    id: '1',
    from: {pod: 'd/p1'},
    to: '10.1.2.2:80',
    proto,
  })
  if ('error' in answer) throw new Error(answer.error)
  return answer
}

describe('VXLAN', () => {
  it('carries packets and their answers between nodes', () => {
    const {outcomes, backends} = ask()
    expect(outcomes).to.deep.equal({delivered: 1})
    expect(backends[0]).to.include({address: '10.1.2.2:80', source: '10.1.1.2'})
  })

  it('is lost where INPUT drops its port, on either node: the answer has to come back, too', () => {
    const drop = '-A INPUT -p udp -m udp --dport 8472 -j DROP\n'
    expect(ask({filter: {n2: drop}}).outcomes).to.deep.equal({dropped: 1})
    expect(ask({filter: {n2: drop}}).why.join(' ')).to.match(
      /VXLAN packet to 192\.0\.2\.12:8472\/UDP of n2 is lost.*filter\/INPUT#1/,
    )
    expect(ask({filter: {n1: drop}}).outcomes).to.deep.equal({dropped: 1})
  })

  it('is lost by a refusal as well: nobody tells the client', () =>
    expect(ask({filter: {n2: '-A INPUT -i eth0 -j REJECT\n'}}).outcomes).to.deep.equal({dropped: 1}))

  it('has the port that its device has', () => {
    const drop = '-A INPUT -p udp -m udp --dport 8472 -j DROP\n'
    expect(ask({filter: {n2: drop}, vxlan: {port: 4789}}).outcomes).to.deep.equal({delivered: 1})
    expect(ask({filter: {n2: drop.replace('8472', '4789')}, vxlan: {port: 4789}}).outcomes).to.deep.equal({dropped: 1})
  })

  it('what is inside meets the rules by the tunnel device, what is outside those by the wire', () => {
    expect(ask({filter: {n2: '-A FORWARD -i flannel.1 -j DROP\n'}}).outcomes).to.deep.equal({dropped: 1})
    expect(ask({filter: {n2: '-A FORWARD -i eth0 -j DROP\n-A INPUT -i flannel.1 -j DROP\n'}}).outcomes).to.deep.equal({
      delivered: 1,
    })
    expect(ask({filter: {n1: '-A OUTPUT -p udp -m udp --dport 8472 -j DROP\n'}}).outcomes).to.deep.equal({dropped: 1})
  })

  it('what hides in INPUT leaves it open', () =>
    expect(ask({filter: {n2: '-A INPUT -p udp -m frobnicate -j DROP\n'}}).outcomes).to.deep.equal({unknown: 1}))
})
