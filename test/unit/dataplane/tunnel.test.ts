import {expect} from 'chai'
import {buildWorld} from '../../../src/engine.js'
import {simulate, type SimulateAnswer} from '../../../src/simulate.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

interface Site {
  readonly filter?: Partial<Record<'n1' | 'n2', string>>
  readonly mangle?: Partial<Record<'n1' | 'n2', string>>
  readonly vxlan?: object
  /** IP in IP instead, as Calico makes it: by the other node's own address. */
  readonly ipip?: boolean
  readonly wireguard?: boolean
  readonly ss?: string
  /** The API names an IPv6 address of each node before the others. */
  readonly v6First?: boolean
  /** Flags of the tunnel's device on the second node. */
  readonly flags?: readonly string[]
}

/** Two nodes as flannel makes them: pods of the other one by flannel.1, a VXLAN device. */
function ask({
  filter = {},
  mangle = {},
  vxlan = {port: 8472},
  ipip = false,
  flags = ['UP'],
  wireguard = false,
  ss = '',
  v6First = false,
}: Site = {}): SimulateAnswer {
  const tunnel = ipip ? 'tunl0' : wireguard ? 'wg0' : 'flannel.1'
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
      `*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n${filter[`n${own}`] ?? ''}COMMIT\n*mangle\n:PREROUTING ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n${mangle[`n${own}`] ?? ''}COMMIT\n`,
    )
    put(`${node}/ip-link.json`, [
      link('lo', {flags: ['LOOPBACK', 'UP']}),
      link('eth0'),
      link('cni0', {linkinfo: {info_kind: 'bridge'}}),
      ipip
        ? link(tunnel, {
            link_type: 'ipip',
            linkinfo: {info_kind: 'ipip', info_data: {proto: 'any', remote: 'any', local: 'any'}},
            ...(own === 2 ? {flags} : {}),
          })
        : wireguard
          ? link(tunnel, {linkinfo: {info_kind: 'wireguard'}})
          : link(tunnel, {linkinfo: {info_kind: 'vxlan', info_data: {id: 1, local: `192.0.2.1${own}`, ...vxlan}}}),
    ])
    const address = (ifname: string, local: string, prefixlen: number): object => ({
      ifname,
      flags: ['UP'],
      addr_info: [{local, prefixlen, scope: 'global'}],
    })
    put(`${node}/ip-addr.json`, [
      address('eth0', `192.0.2.1${own}`, 24),
      address('cni0', `10.1.${own}.1`, 24),
      address(tunnel, `10.1.${own}.0`, 32),
    ])
    put(`${node}/ip-route.json`, [
      {dst: '192.0.2.0/24', dev: 'eth0', scope: 'link', prefsrc: `192.0.2.1${own}`},
      {dst: `10.1.${own}.0/24`, dev: 'cni0', scope: 'link', prefsrc: `10.1.${own}.1`},
      {
        dst: `10.1.${other}.0/24`,
        gateway: ipip ? `192.0.2.1${other}` : `10.1.${other}.0`,
        dev: tunnel,
        flags: ['onlink'],
      },
    ])
    put(`${node}/sysctl.txt`, 'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n')
    for (const empty of ['ipset-save.txt', 'ipvsadm-Sn.txt', 'nft.txt']) put(`${node}/${empty}`, '')
    put(`${node}/ss.txt`, ss)
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
      status: {
        addresses: [
          ...(v6First ? [{type: 'InternalIP', address: `2001:db8::${own}`}] : []),
          {type: 'InternalIP', address: `192.0.2.1${own}`},
        ],
      },
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
    proto: 'TCP',
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

describe('IP in IP', () => {
  const drop = '-A INPUT -p ipencap -j DROP\n'

  it('carries packets and their answers between nodes', () => {
    const {outcomes, backends} = ask({ipip: true})
    expect(outcomes).to.deep.equal({delivered: 1})
    expect(backends[0]).to.include({address: '10.1.2.2:80', source: '10.1.1.2'})
  })

  it('has no port: UDP rules do not meet it, those for protocol 4 do, on either node', () => {
    expect(ask({ipip: true, filter: {n2: '-A INPUT -p udp -m udp --dport 8472 -j DROP\n'}}).outcomes).to.deep.equal({
      delivered: 1,
    })
    for (const protocol of ['ipencap', 'ipv4', '4'])
      expect(ask({ipip: true, filter: {n2: `-A INPUT -p ${protocol} -j DROP\n`}}).outcomes).to.deep.equal({dropped: 1})
    expect(ask({ipip: true, filter: {n2: '-A INPUT -p ipip -j DROP\n'}}).outcomes).to.deep.equal({delivered: 1})
    expect(ask({ipip: true, filter: {n2: drop}}).why.join(' ')).to.match(
      /IP-in-IP packet to 192\.0\.2\.12 of n2 is lost.*filter\/INPUT#1/,
    )
    expect(ask({ipip: true, filter: {n1: drop}}).outcomes).to.deep.equal({dropped: 1})
    expect(ask({ipip: true, filter: {n1: '-A OUTPUT -p ipencap -j DROP\n'}}).outcomes).to.deep.equal({dropped: 1})
  })

  it('comes out of the device of the tunnel, not of the wire', () => {
    expect(ask({ipip: true, filter: {n2: '-A FORWARD -i tunl0 -j DROP\n'}}).outcomes).to.deep.equal({dropped: 1})
    expect(ask({ipip: true, filter: {n2: '-A FORWARD -i eth0 -j DROP\n'}}).outcomes).to.deep.equal({delivered: 1})
  })

  it('is one connection for both directions: the answer is no new one, and what is new may be known', () => {
    const stateful = '-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A INPUT -i eth0 -j DROP\n'
    expect(ask({ipip: true, filter: {n1: stateful}}).outcomes).to.deep.equal({delivered: 1})
    expect(ask({ipip: true, filter: {n2: stateful}}).outcomes).to.deep.equal({unknown: 1})
    expect(ask({filter: {n2: stateful}}).outcomes).to.deep.equal({dropped: 1})
  })

  it('keeps marks: of the packet inside on its way out, of the one outside on its way in', () => {
    const mark = '-A FORWARD -j MARK --set-xmark 0x77/0xffffffff\n'
    expect(
      ask({ipip: true, mangle: {n1: mark}, filter: {n1: '-A OUTPUT -p ipencap -m mark --mark 0x77 -j DROP\n'}})
        .outcomes,
    ).to.deep.equal({dropped: 1})
    expect(
      ask({
        ipip: true,
        mangle: {n2: '-A PREROUTING -i eth0 -p ipencap -j MARK --set-xmark 0x55/0xffffffff\n'},
        filter: {n2: '-A FORWARD -m mark --mark 0x55 -j DROP\n'},
      }).outcomes,
    ).to.deep.equal({dropped: 1})
  })

  it('ends where the other end is down', () =>
    expect(ask({ipip: true, flags: []}).why.join(' ')).to.match(/device tunl0 of n2 is down/))
})

/** A socket of the kernel's own beside one of a process. */
const WIREGUARD =
  'tcp LISTEN 0 9 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=1,fd=3))\nudp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:*\n'

describe('tunnels of other makes', () => {
  it('WireGuard goes to the one socket that belongs to no process; where there are more, that is said', () => {
    const drop = '-A INPUT -p udp -m udp --dport 51820 -j DROP\n'
    const socket = WIREGUARD
    expect(ask({wireguard: true, ss: socket}).outcomes).to.deep.equal({delivered: 1})
    expect(ask({wireguard: true, ss: socket, filter: {n2: drop}}).outcomes).to.deep.equal({dropped: 1})
    const two = `${socket}udp UNCONN 0 0 0.0.0.0:51821 0.0.0.0:*\n`
    expect(ask({wireguard: true, ss: two, filter: {n2: drop}}).outcomes).to.deep.equal({delivered: 1})
    const nameless = 'udp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:*\n'
    expect(ask({wireguard: true, ss: nameless, filter: {n2: drop}}).outcomes).to.deep.equal({delivered: 1})
  })

  it('WireGuard has one port for both directions and takes marks off', () => {
    const ss = WIREGUARD
    const stateful = '-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A INPUT -i eth0 -j DROP\n'
    expect(ask({wireguard: true, ss, filter: {n2: stateful}}).outcomes).to.deep.equal({unknown: 1})
    expect(ask({wireguard: true, ss, filter: {n1: stateful}}).outcomes).to.deep.equal({delivered: 1})
    const marked = '-A OUTPUT -p udp -m mark --mark 0x77 -j DROP\n'
    const mangle = {n1: '-A FORWARD -j MARK --set-xmark 0x77/0xffffffff\n'}
    expect(ask({wireguard: true, ss, mangle, filter: {n1: marked}}).outcomes).to.deep.equal({delivered: 1})
    expect(ask({mangle, filter: {n1: marked}}).outcomes).to.deep.equal({dropped: 1})
  })

  it('an IPv6 address that the API names first is none for IP in IP', () =>
    expect(ask({ipip: true, v6First: true}).outcomes).to.deep.equal({delivered: 1}))
})
