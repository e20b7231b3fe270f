import {expect} from 'chai'
import {check} from '../../../src/checks/check.js'
import {buildWorld} from '../../../src/engine.js'
import type {Finding} from '../../../src/checks/finding.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {oneNode, type NodeDump} from '../../helpers/node.js'

const CODES = new Set(['SVT170', 'SVT171', 'SVT172'])
const json = (items: readonly object[]): string => JSON.stringify({items})
const node = (name: string, address: string, cidr: string): object => ({
  metadata: {name},
  spec: {podCIDR: cidr},
  status: {addresses: [{type: 'InternalIP', address}]},
})
const link = (ifname: string, mtu: number, more: object = {}): object => ({ifname, mtu, flags: ['UP'], ...more})
const links = (cni: number, out: number): string =>
  JSON.stringify([
    link('lo', 65536, {flags: ['UP', 'LOOPBACK']}),
    link('eth0', 1500),
    link('cni0', cni),
    link('flannel.1', out, {linkinfo: {info_kind: 'vxlan'}}),
  ])
const route = (dst: string, dev: string): object => ({dst, dev, flags: []})

function found(dump: NodeDump, changes: Record<string, string> = {}): Finding[] {
  const files = oneNode(dump)
  files.set('api/nodes.json', json([node('n1', '192.0.2.11', '10.1.1.0/24'), node('n2', '192.0.2.12', '10.1.2.0/24')]))
  for (const [path, text] of Object.entries(changes)) files.set(path, text)
  const snapshot = snapshotFromFiles(files)
  return check(snapshot, buildWorld(snapshot)).findings.filter(({code}) => CODES.has(code))
}

describe('what one small packet does not meet', () => {
  const routes = JSON.stringify([
    route('10.1.1.0/24', 'cni0'),
    route('10.1.2.0/24', 'flannel.1'),
    route('192.0.2.0/24', 'eth0'),
  ])

  it('a bridge with a larger MTU than the tunnel', () => {
    const pods = {'api/pods.json': json([pod('a', 'n1', '10.1.1.2'), pod('c', 'n2', '10.1.2.2')])}
    const [finding, ...more] = found({files: {'ip-link.json': links(1500, 1450), 'ip-route.json': routes}}, pods)
    expect(more).to.deep.equal([])
    expect(finding).to.deep.include({code: 'SVT170', severity: 'warning', node: 'n1'})
    expect(finding!.message).to.match(/packets of 1500 bytes \(cni0\).*takes 1450 \(flannel\.1\)/)
    expect(finding!.evidence.map(({text}) => text)).to.deep.equal(['cni0 mtu 1500', 'flannel.1 mtu 1450'])
  })

  const pod = (name: string, nodeName: string, podIP: string, phase = 'Running'): object => ({
    metadata: {name, namespace: 'default'},
    spec: {nodeName, containers: []},
    status: {phase, podIP},
  })
  const far = {'api/pods.json': json([pod('a', 'n1', '10.1.1.2'), pod('c', 'n2', '10.1.2.2')])}

  it('an address of a pod that has ended leads nowhere', () => {
    const hosts = JSON.stringify([
      route('10.1.1.2', 'cni0'),
      route('10.1.2.0/24', 'flannel.1'),
      {dst: 'default', gateway: '192.0.2.1', dev: 'eth0', flags: []},
    ])
    const pods = {
      'api/pods.json': json([
        pod('a', 'n1', '10.1.1.2'),
        pod('job', 'n1', '10.1.1.9', 'Succeeded'),
        pod('lost', 'n1', '10.1.1.8'),
        pod('c', 'n2', '10.1.2.2'),
      ]),
    }
    expect(found({files: {'ip-link.json': links(1450, 1450), 'ip-route.json': hosts}}, pods)).to.deep.equal([])
  })

  for (const [what, dump] of [
    ['the same MTU', {'ip-link.json': links(1450, 1450), 'ip-route.json': routes}],
    ['a smaller MTU', {'ip-link.json': links(1400, 1450), 'ip-route.json': routes}],
    ['no route to the other node’s pods but the default', {'ip-link.json': links(1500, 1450)}],
  ] as const)
    it(`${what} is well`, () => expect(found({files: dump}, far)).to.deep.equal([]))

  const vip = (ip: string): Record<string, string> => ({
    'api/services.json': json([
      {
        metadata: {name: 's', namespace: 'default'},
        spec: {type: 'LoadBalancer', clusterIP: '10.96.0.1', ports: [{port: 80}]},
        status: {loadBalancer: {ingress: [{ip}]}},
      },
    ]),
  })
  const held = (ip: string): string =>
    JSON.stringify([
      {ifname: 'eth0', flags: ['UP'], addr_info: [{local: '192.0.2.11', prefixlen: 24, scope: 'global'}]},
      {ifname: 'kube-ipvs0', flags: [], addr_info: [{local: ip, prefixlen: 32, scope: 'global'}]},
    ])
  const sysctl = (all: number, eth0: number): string =>
    `net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.arp_ignore = ${all}\nnet.ipv4.conf.eth0.arp_ignore = ${eth0}\n`
  const ipvs = (ip: string, all = 0, eth0 = 0): Finding[] =>
    found({sysctl: sysctl(all, eth0), files: {'ip-addr.json': held(ip), 'proxymode.txt': 'ipvs'}}, vip(ip)).filter(
      ({code}) => code === 'SVT171',
    )

  it('a load-balancer address in the nodes’ own network, for which all answer', () => {
    const [finding] = ipvs('192.0.2.50')
    expect(finding).to.deep.include({services: ['default/s'], frontends: ['192.0.2.50'], severity: 'warning'})
    expect(finding!.message).to.match(/answers ARP for 192\.0\.2\.50 on eth0/)
    expect(finding!.evidence).to.deep.equal([
      {source: 'nodes/n1/sysctl.txt', line: 2, text: 'net.ipv4.conf.all.arp_ignore = 0'},
    ])
  })

  it('not where strictARP is on, nor for an address of elsewhere', () => {
    expect(ipvs('192.0.2.50', 1, 0)).to.deep.equal([])
    expect(ipvs('192.0.2.50', 0, 1)).to.deep.equal([])
    expect(ipvs('198.51.100.1')).to.deep.equal([])
  })

  for (const [count, severity] of [
    [89, undefined],
    [90, 'warning'],
    [100, 'error'],
  ] as const)
    it(`a connection table with ${count} of 100 entries`, () => {
      const text = `net.ipv4.ip_forward = 1\nnet.netfilter.nf_conntrack_max = 100\nnet.netfilter.nf_conntrack_count = ${count}\n`
      const [finding] = found({sysctl: text}).filter(({code}) => code === 'SVT172')
      expect(finding?.severity).to.equal(severity)
      if (finding) expect(finding.evidence[0]).to.include({line: 3})
    })
})
