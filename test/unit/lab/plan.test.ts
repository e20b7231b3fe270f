/** Which machines and cables the lab makes of a stranger's snapshot, and what of it never reaches a shell. */
import {expect} from 'chai'
import {snapshotFromFiles, type Snapshot} from '../../../src/snapshot/snapshot.js'
import {planLab} from '../../lab/plan.js'
import {LabError} from '../../lab/plan-site.js'
import {nativeTables, safe, type LeftOut} from '../../lab/restore.js'
import {oneNode} from '../../helpers/node.js'

const json = (items: readonly object[]): string => JSON.stringify({items})
const node = (name: string, address: string, cidr: string): object => ({
  metadata: {name},
  spec: {podCIDR: cidr},
  status: {addresses: [{type: 'InternalIP', address}]},
})
const pod = (name: string, nodeName: string, podIP: string): object => ({
  metadata: {name, namespace: 'default'},
  spec: {nodeName, containers: [{ports: [{containerPort: 80}]}]},
  status: {phase: 'Running', podIP},
})

function snapshot(changes: Record<string, string | undefined>): Snapshot {
  const files = oneNode({})
  for (const [path, text] of Object.entries(changes)) {
    if (text === undefined) files.delete(path)
    else files.set(path, text)
  }
  return snapshotFromFiles(files)
}

describe('the plan of a lab', () => {
  it('has a bridge for pods that hang on one', () => {
    const {pods, nodes, clients, listeners} = planLab(snapshot({}))
    expect(pods[0]).to.deep.include({id: 'default/a', node: 'n1', namespace: 'pod0', bridge: 'cni0', cable: 'veth1'})
    expect(pods[0]!.inside).to.deep.equal([
      'addr add 10.1.1.2/24 dev eth0',
      'link set eth0 up',
      'route add 0.0.0.0/0 via 10.1.1.1',
    ])
    expect(nodes[0]!.ip).to.include.members([
      'link add cni0 type bridge',
      'addr replace 10.1.1.1/24 dev cni0',
      'route replace 0.0.0.0/0 via 192.0.2.1 dev eth0',
    ])
    expect(clients[0]).to.deep.include({node: 'n1', addresses: ['192.0.2.101']})
    expect(listeners).to.deep.equal([])
  })

  it('has a host route for pods of Calico', () => {
    const {pods} = planLab(
      snapshot({
        'nodes/n1/ip-addr.json': JSON.stringify([
          {ifname: 'eth0', flags: ['UP'], addr_info: [{local: '192.0.2.11', prefixlen: 24}]},
        ]),
        'nodes/n1/ip-link.json': JSON.stringify([
          {ifname: 'eth0', flags: ['UP']},
          {ifname: 'cali7', flags: ['UP']},
        ]),
        'nodes/n1/ip-route.json': JSON.stringify([{dst: '10.1.1.2', dev: 'cali7', scope: 'link', flags: []}]),
      }),
    )
    expect(pods[0]).to.deep.include({
      cable: 'cali7',
      outside: [
        'link set cali7 up',
        'addr add 169.254.1.1/32 dev cali7 scope link',
        'route replace 10.1.1.2/32 dev cali7',
      ],
    })
  })

  it('goes straight to the node where a tunnel was, and says so', () => {
    const {nodes, notes} = planLab(
      snapshot({
        'api/nodes.json': json(
          [node('n1', '192.0.2.11', '10.1.1.0/24')].concat(node('n2', '192.0.2.12', '10.1.2.0/24')),
        ),
        'nodes/n2/rc.txt': '',
        'nodes/n1/ip-link.json': JSON.stringify([
          {ifname: 'eth0', flags: []},
          {ifname: 'flannel.1', flags: [], linkinfo: {info_kind: 'vxlan'}},
        ]),
        'nodes/n1/ip-route.json': JSON.stringify([
          {dst: '10.1.2.0/24', gateway: '10.1.2.0', dev: 'flannel.1', flags: ['onlink']},
        ]),
      }),
    )
    expect(nodes[0]!.ip).to.include('route replace 10.1.2.0/24 via 192.0.2.12 dev eth0')
    expect(notes.join('\n')).to.match(/n1: flannel\.1 \(vxlan\) is not built/)
  })

  it('serves what pods declare, and hosts outside that are endpoints', () => {
    const slice = {
      metadata: {name: 's', namespace: 'default', labels: {'kubernetes.io/service-name': 's'}},
      addressType: 'IPv4',
      ports: [{port: 5432}],
      endpoints: [{addresses: ['192.0.2.50']}],
    }
    const {listeners, hub} = planLab(
      snapshot({'api/pods.json': json([pod('a', 'n1', '10.1.1.2')]), 'api/endpointslices.json': json([slice])}),
    )
    expect(listeners).to.deep.equal([
      {namespace: 'pod0', name: 'default/a', pod: true, proto: 'tcp', address: '', port: 80},
      {namespace: '', name: '192.0.2.50', pod: false, proto: 'tcp', address: '192.0.2.50', port: 5432},
    ])
    expect(hub).to.include('addr add 192.0.2.50/24 dev br0')
  })

  for (const [what, changes, message] of [
    ['no nodes', {'api/nodes.json': json([])}, /no nodes/],
    [
      'a node that was not dumped',
      {'api/nodes.json': json([node('n9', '192.0.2.9', '10.1.9.0/24')])},
      /nodes\/n9\/ is not in the snapshot/,
    ],
    [
      'a node with the name of a path',
      {'api/nodes.json': json([node('../n1', '192.0.2.9', '10.1.9.0/24')])},
      /not one that Kubernetes allows/,
    ],
    [
      'a node with the name of a command',
      {'api/nodes.json': json([node('$(id)', '192.0.2.9', '10.1.9.0/24')])},
      /not one that Kubernetes allows/,
    ],
    [
      'a device with the name of a command',
      {'nodes/n1/ip-addr.json': JSON.stringify([{ifname: '$(id)', addr_info: [{local: '192.0.2.11', prefixlen: 24}]}])},
      /not a name of a device/,
    ],
  ] as const)
    it(`is refused for ${what}`, () => expect(() => planLab(snapshot(changes))).to.throw(LabError, message))

  it('puts nothing into a script that a shell could take for more', () => {
    const evil = '$(touch /tmp/x);`id`'
    const plan = planLab(
      snapshot({
        'api/pods.json': json([pod(evil, 'n1', '10.1.1.2')]),
        'nodes/n1/ip-link.json': JSON.stringify([{ifname: evil, flags: [], linkinfo: {info_kind: 'bridge'}}]),
        'nodes/n1/ip-route.json': JSON.stringify([
          {dst: '10.9.0.0/16', dev: evil, table: evil, flags: []},
          {dst: '10.8.0.0/16', dev: 'eth0', table: evil, flags: []},
        ]),
        'nodes/n1/ip-rule.json': JSON.stringify([
          {priority: 5, src: 'all', table: evil},
          {priority: 6, src: 'all', iif: evil, table: '9'},
        ]),
      }),
    )
    const lines = [
      ...plan.hub,
      ...plan.nodes.flatMap(({ip, name, uplink}) => [...ip, name, uplink]),
      ...plan.pods.flatMap(({inside, outside, cable, namespace}) => [...inside, ...outside, cable, namespace]),
      ...plan.clients.flatMap(({ip}) => ip),
    ]
    expect(lines.filter((line) => /[$`;'"|&<>\\\n]/.test(line))).to.deep.equal([])
  })
})

describe("a stranger's dump", () => {
  const state = (files: Record<string, string>): ReturnType<Snapshot['nodes']['get']> & object =>
    snapshot(Object.fromEntries(Object.entries(files).map(([file, text]) => [`nodes/n1/${file}`, text]))).nodes.get(
      'n1',
    )!

  it('runs no program: rules that name one are left out, and lines keep their numbers', () => {
    const left: LeftOut[] = []
    const text = [
      '*nat',
      ':A - [0:0]',
      '-A A -j B --modprobe=/tmp/evil',
      '-A A -M /tmp/evil -j B',
      '-A A -m statistic --mode random --probability 0.5 -j B',
      'rm -rf /',
      'COMMIT',
    ].join('\n')
    const kept = safe(state({'iptables-save.txt': text}), {
      file: 'iptables-save.txt',
      allowed: /^(\*\w+$|:|-A |COMMIT$|#)/,
      left,
    })
    expect(kept.split('\n')).to.deep.equal([
      '*nat',
      ':A - [0:0]',
      '',
      '',
      '-A A -m statistic --mode random --probability 0.5 -j B',
      '',
      'COMMIT',
    ])
    expect(left.map(({place, why}) => `${place} ${why}`)).to.deep.equal([
      'nodes/n1/iptables-save.txt:3 it names a program',
      'nodes/n1/iptables-save.txt:4 it names a program',
      'nodes/n1/iptables-save.txt:6 not a line of this dump',
    ])
  })

  it('of nft keeps the tables that iptables-nft does not own, and includes no file', () => {
    const text = nativeTables(
      state({
        'iptables-nft-save.txt': '# Generated by iptables-nft-save v1.8.9\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n',
        'nft.txt':
          'table ip nat {\n\tchain PREROUTING {\n\t}\n}\ntable ip kube-proxy {\n\tinclude "/etc/shadow"\n\tchain x {\n\t}\n}',
      }),
    )
    expect(text.split('\n').filter(Boolean)).to.deep.equal(['table ip kube-proxy {', '\tchain x {', '\t}', '}'])
  })
})
