import {expect} from 'chai'
import type {SimulateAnswer} from '../../../src/simulate.js'
import {askNode, oneNode, type NodeDump} from '../../helpers/node.js'

const VIP = '10.96.0.1:80'
const PORTALS = `*nat
:PREROUTING ACCEPT [0:0]
:KUBE-PORTALS-CONTAINER - [0:0]
:KUBE-NODEPORT-CONTAINER - [0:0]
-A PREROUTING -j KUBE-PORTALS-CONTAINER
-A PREROUTING -m addrtype --dst-type LOCAL -j KUBE-NODEPORT-CONTAINER
-A KUBE-PORTALS-CONTAINER -d 10.96.0.1/32 -p tcp -m comment --comment "default/web:" -m tcp --dport 80 -j REDIRECT --to-ports 41000
-A KUBE-NODEPORT-CONTAINER -p tcp -m comment --comment "default/web:" -m tcp --dport 30080 -j REDIRECT --to-ports 41000
COMMIT
`
const socket = (port: number, process: string, proto = 'tcp'): string =>
  `${proto}   ${proto === 'tcp' ? 'LISTEN' : 'UNCONN'} 0      4096            *:${port}      *:*    users:(("${process}",pid=7,fd=3))\n`
const SERVICE = (protocol: string): object => ({
  metadata: {name: 'web', namespace: 'default'},
  spec: {
    type: 'NodePort',
    clusterIP: '10.96.0.1',
    clusterIPs: ['10.96.0.1'],
    ports: [{port: 80, protocol, targetPort: 8080, nodePort: 30080}],
  },
})

/** A node with kube-proxy in the given mode, and Endpoints of default/web. */
function ask(
  dump: NodeDump,
  {
    to = VIP,
    mode = 'userspace',
    version = 'v1.20.2',
    endpoints = ['10.1.1.2', '10.1.1.3'],
    proto = 'TCP',
    sockets = true,
  }: {to?: string; mode?: string; version?: string; endpoints?: string[]; proto?: string; sockets?: boolean} = {},
): SimulateAnswer {
  const files = oneNode({
    ...dump,
    files: {
      'proxymode.txt': `${mode}\n`,
      ...(version ? {'kube-proxy-version.txt': `Kubernetes ${version}\n`} : {}),
      ...dump.files,
    },
  })
  if (!sockets) {
    files.delete('nodes/n1/ss.txt')
    files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace('ss.txt rc=0\n', ''))
  }
  files.set('api/services.json', JSON.stringify({items: [SERVICE(proto)]}))
  files.set(
    'api/endpoints.json',
    JSON.stringify({
      items: [
        {
          metadata: {name: 'web', namespace: 'default'},
          subsets:
            endpoints.length > 0
              ? [{addresses: endpoints.map((ip) => ({ip})), ports: [{port: 8080, protocol: proto}]}]
              : [],
        },
      ],
    }),
  )
  return askNode(files, {to, proto})
}

const shares = ({backends}: SimulateAnswer): unknown =>
  backends.map(({address, share, source}) => [address, share, source])

describe("a Service proxy's own process", () => {
  const userspace = {iptables: PORTALS, ss: socket(41000, 'kube-proxy') + socket(30080, 'kube-proxy')}

  it('opens connections of its own, from the node, to each endpoint (userspace mode)', () => {
    for (const to of [VIP, '192.0.2.11:30080'])
      expect(shares(ask(userspace, {to}))).to.deep.equal([
        ['10.1.1.2:8080', 0.5, '10.1.1.1'],
        ['10.1.1.3:8080', 0.5, '10.1.1.1'],
      ])
  })

  it('tries the next endpoint where one refuses or is silent; four times for TCP, once for UDP', () => {
    const gone = ['10.1.1.2', '10.1.1.77']
    expect(ask(userspace, {endpoints: gone}).outcomes).to.deep.equal({delivered: 1})
    const udp = {
      iptables: PORTALS.replaceAll('tcp', 'udp'),
      ss: socket(41000, 'kube-proxy', 'udp'),
    }
    expect(ask(udp, {endpoints: gone, proto: 'UDP'}).outcomes).to.deep.equal({delivered: 0.5, dropped: 0.5})
    const many = ['10.1.1.71', '10.1.1.72', '10.1.1.73', '10.1.1.74', '10.1.1.2']
    expect(ask(userspace, {endpoints: many}).outcomes).to.deep.equal({refused: 0.2, delivered: 0.8})
  })

  it('closes what it cannot pass on; datagrams are lost', () => {
    expect(ask(userspace, {endpoints: []}).outcomes).to.deep.equal({refused: 1})
    const udp = {iptables: PORTALS.replaceAll('tcp', 'udp'), ss: socket(41000, 'kube-proxy', 'udp')}
    expect(ask(udp, {endpoints: [], proto: 'UDP'}).outcomes).to.deep.equal({dropped: 1})
  })

  it('is not there when kube-proxy is stopped, and no other process stands in for it', () => {
    expect(ask({...userspace, ss: ''}).outcomes).to.deep.equal({refused: 1})
    expect(shares(ask({...userspace, ss: socket(41000, 'nginx')}))).to.deep.equal([
      ['192.0.2.11:41000', 1, '198.51.100.7'],
    ])
  })

  it('meets the rules of its own node on the way on', () => {
    const filter = '*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -d 10.1.1.3/32 -j DROP\nCOMMIT\n'
    expect(shares(ask({...userspace, iptables: PORTALS + filter, ss: socket(41000, 'kube-proxy')}))).to.deep.equal([
      ['10.1.1.2:8080', 1, '10.1.1.1'],
    ])
  })

  it('sockets that were not asked for: the rules tell', () => {
    expect(ask(userspace, {sockets: false}).outcomes).to.deep.equal({delivered: 1})
    expect(ask({iptables: ''}, {to: '192.0.2.11:41000', sockets: false}).outcomes).to.deep.equal({refused: 1})
  })

  it('rules that lead two Services to one port leave open which it serves', () => {
    const files = oneNode({
      ...userspace,
      iptables: PORTALS.replace('--dport 30080', '--dport 30081'),
      files: {'proxymode.txt': 'userspace\n'},
    })
    const other = {
      ...SERVICE('TCP'),
      metadata: {name: 'other', namespace: 'default'},
      spec: {
        clusterIP: '10.96.0.2',
        clusterIPs: ['10.96.0.2'],
        type: 'NodePort',
        ports: [{port: 80, protocol: 'TCP', nodePort: 30081}],
      },
    }
    files.set('api/services.json', JSON.stringify({items: [SERVICE('TCP'), other]}))
    expect(askNode(files, {to: VIP}).outcomes).to.deep.equal({unknown: 1})
  })
})

describe('a NodePort that kube-proxy only holds', () => {
  const to = '192.0.2.11:30080'
  const held = {ss: socket(30080, 'kube-proxy')}

  it('never answers, in any mode, although the kernel takes the connection', () => {
    for (const mode of ['iptables', 'ipvs', 'userspace'])
      expect(ask(held, {to, mode}).outcomes, mode).to.deep.equal({dropped: 1})
  })

  it('by a distribution that has kube-proxy inside, too', () => {
    for (const process of ['k3s-server', 'k3s', 'hyperkube', 'kubelite'])
      expect(ask({ss: socket(30080, process)}, {to, mode: 'iptables'}).outcomes, process).to.deep.equal({dropped: 1})
  })

  it('another process answers', () => {
    expect(ask({ss: socket(30080, 'nginx')}, {to, mode: 'iptables'}).outcomes).to.deep.equal({delivered: 1})
  })

  it('a nameless one is kube-proxy before 1.24, not after, and open where nobody knows the version', () => {
    const nameless = {ss: 'tcp   LISTEN 0      4096            *:30080      *:*\n'}
    expect(ask(nameless, {to, mode: 'iptables'}).outcomes).to.deep.equal({dropped: 1})
    expect(ask(nameless, {to, mode: 'iptables', version: 'v1.24.0'}).outcomes).to.deep.equal({delivered: 1})
    expect(ask(nameless, {to, mode: 'iptables', version: ''}).outcomes).to.deep.equal({unknown: 1})
  })

  it('other ports of kube-proxy answer', () => {
    expect(ask({ss: socket(10256, 'kube-proxy')}, {to: '192.0.2.11:10256'}).outcomes).to.deep.equal({delivered: 1})
  })
})
