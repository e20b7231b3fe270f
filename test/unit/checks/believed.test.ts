import {expect} from 'chai'
import {check} from '../../../src/checks/check.js'
import type {Finding} from '../../../src/checks/finding.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {oneNode} from '../../helpers/node.js'

const items = (...list: object[]): string => JSON.stringify({items: list})
const ready = (address: string, nodeName = 'n1', more: object = {}): object => ({
  addresses: [address],
  nodeName,
  conditions: {ready: true},
  ...more,
})

/** The one slice of d/s. */
const slice = (endpoints: readonly object[]): string =>
  items({
    metadata: {name: 's-x', namespace: 'd', labels: {'kubernetes.io/service-name': 's'}},
    addressType: 'IPv4',
    ports: [{name: 'http', port: 8080, protocol: 'TCP'}],
    endpoints,
  })

interface Site {
  readonly version?: string
  readonly mode?: string
  readonly nat?: string
  readonly filter?: string
  readonly spec?: object
  readonly status?: object
  readonly endpoints?: readonly object[]
  readonly ports?: readonly object[]
}

const PORT = {name: 'http', port: 80, targetPort: 8080, protocol: 'TCP'}

/** One Service d/s at 10.96.0.10 of one node without kube-proxy's ConfigMap: 10.1.1.3 is an endpoint of it, 10.1.1.2 none. */
function found({
  version = 'v1.33.0',
  nat = '',
  filter = '',
  spec = {},
  status = {},
  endpoints = [ready('10.1.1.3')],
  ports = [PORT],
}: Site): Finding[] {
  const files = oneNode({
    iptables: `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SVL-A - [0:0]
:KUBE-EXT-A - [0:0]
:KUBE-FW-A - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SEP-C - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SEP-A -s 10.1.1.3/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.1.1.3:8080
${nat}-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
${filter}COMMIT
`,
    sysctl: 'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\nnet.ipv4.conf.all.route_localnet = 1\n',
    files: {'proxymode.txt': 'iptables\n', 'kube-proxy-version.txt': `Kubernetes ${version}\n`},
  })
  files.set(
    'api/services.json',
    items({
      metadata: {name: 's', namespace: 'd'},
      spec: {type: 'ClusterIP', clusterIP: '10.96.0.10', clusterIPs: ['10.96.0.10'], ports, ...spec},
      status,
    }),
  )
  files.set('api/endpointslices.json', slice(endpoints))
  const snapshot = snapshotFromFiles(files)
  return check(snapshot, buildWorld(snapshot)).findings.filter(
    ({severity, code}) => severity !== 'info' && !code.startsWith('SVT3'),
  )
}
const codes = (site: Site): string[] => found(site).map(({code}) => code)

const SERVICES = '-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A\n'
const ALL = '-A KUBE-SVC-A -j KUBE-SEP-A\n'

describe('check: what kube-proxy believes of a Service is one cause', () => {
  it('a Service as it should be', () => expect(codes({nat: SERVICES + ALL})).to.deep.equal([]))

  it('an endpoint that is none, where nobody knows what its address leads to', () => {
    const nat = `${SERVICES}-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-B\n${ALL}-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.180.2.99:8080\n`
    const [first, ...others] = found({nat})
    expect([first?.code, first?.evidence[0]?.text, others]).to.deep.equal([
      'SVT140',
      '-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.180.2.99:8080',
      [],
    ])
  })

  it('a wrong port, also where the endpoint asks itself and is not masqueraded', () => {
    const nat = `${SERVICES}-A KUBE-SVC-A -j KUBE-SEP-B\n-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.1.3:8099\n`
    expect(codes({nat})).to.deep.equal(['SVT140'])
  })

  it('several stale endpoints are one finding with a line for each', () => {
    const nat = `${SERVICES}-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-B\n-A KUBE-SVC-A -j KUBE-SEP-C\n-A KUBE-SEP-C -p tcp -m tcp -j DNAT --to-destination 10.1.1.2:81\n-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.1.2:80\n`
    const all = found({nat})
    expect(all.map(({code}) => code)).to.deep.equal(['SVT140'])
    expect(all[0]!.evidence.filter(({text}) => text.includes('DNAT'))).to.have.length(2)
  })

  it('only one that ends gets packets, while others are ready', () => {
    const going = ready('10.1.1.2', 'n1', {conditions: {ready: false, serving: true, terminating: true}})
    const nat = `${SERVICES}-A KUBE-SVC-A -j KUBE-SEP-B\n-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.1.2:8080\n`
    expect(codes({nat, endpoints: [ready('10.1.1.3'), going]})).to.include('SVT141')
  })

  it('one port of two is missing, and the Service is not', () => {
    const ports = [PORT, {...PORT, name: 'http', port: 81}]
    const all = found({nat: SERVICES + ALL, ports, spec: {externalIPs: ['192.0.2.200']}})
    expect(all.map(({code}) => code)).to.not.include('SVT134')
  })

  it('affinity that nobody asks for', () => {
    const nat = `${SERVICES}-A KUBE-SVC-A -m comment --comment "d/s:http -> 10.1.1.3:8080" -m recent --rcheck --seconds 100 --reap --name KUBE-SEP-A --mask 255.255.255.255 --rsource -j KUBE-SEP-A\n${ALL}`
    expect(codes({nat})).to.deep.equal(['SVT144'])
  })

  it('an endpoint outside that is said to be of a node is outside all the same', () => {
    for (const address of ['203.0.113.9', '192.0.2.212']) {
      const nat = `${SERVICES}-A KUBE-SVC-A -j KUBE-SEP-B\n-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination ${address}:8080\n-A POSTROUTING -j MASQUERADE\n`
      expect(codes({nat, endpoints: [ready(address)]}), address).to.deep.equal([])
    }
  })

  it('a wrong port beside stale endpoints is told by itself', () => {
    const nat = `${SERVICES}-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-B\n-A KUBE-SVC-A -j KUBE-SEP-C\n-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.1.99:8080\n-A KUBE-SEP-C -p tcp -m tcp -j DNAT --to-destination 10.1.1.3:9999\n`
    expect(
      found({nat})
        .map(({message}) => / not the port of that endpoint/.test(message))
        .sort(),
    ).to.deep.equal([false, true])
  })

  it('NodePorts of one Service that are all missing are one finding', () => {
    const spec = {
      type: 'NodePort',
      ports: [
        {...PORT, nodePort: 30080},
        {...PORT, name: 'https', port: 443, nodePort: 30443},
      ],
    }
    expect(codes({nat: SERVICES + ALL, spec}).filter((code) => code === 'SVT131')).to.have.length(1)
  })

  it('an endpoint of the node that no pod is named for is no host outside', () => {
    const nat = `${SERVICES}-A KUBE-SVC-A -j KUBE-SEP-B\n-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.1.77:8080\n`
    expect(codes({nat, endpoints: [ready('10.1.1.77')]})).to.deep.equal([])
  })
})

describe('check: the pod network that kube-proxy itself knows', () => {
  const spec = {type: 'NodePort', externalTrafficPolicy: 'Local', ports: [{...PORT, nodePort: 30080}]}
  const endpoints = [
    ready('10.1.1.3'),
    ready('10.1.2.9', 'n2', {targetRef: {kind: 'Pod', namespace: 'd', name: 'far'}}),
  ]
  const nat = `${SERVICES}${ALL}-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-A
-A KUBE-EXT-A -s 10.1.0.0/16 -j KUBE-SVC-A
-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-SVC-A
-A KUBE-EXT-A -j KUBE-SVL-A
-A KUBE-SVL-A -j KUBE-SEP-A
-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.2.9:8080
`.replace(ALL, `-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-B\n${ALL}`)
  it('holds no clients outside, where no ConfigMap tells of it', () =>
    expect(codes({spec, endpoints, nat}).filter((code) => code !== 'SVT140')).to.deep.equal([]))
  it('is no range without pods, and not everything', () => {
    for (const wrong of ['198.51.0.0/16', '0.0.0.0/0']) {
      const drops = '-A FORWARD -s 198.51.100.0/24 -p tcp -m tcp --dport 8080 -j DROP\n'
      const given = {spec, endpoints: [ready('10.1.1.3')], nat: nat.replaceAll('10.1.0.0/16', wrong)}
      expect(codes({...given, filter: drops}), wrong).to.include('SVT201')
      expect(codes(given), wrong).to.not.include('SVT114')
    }
  })
  it('policy Local that leads to another node is the policy, not a missing masquerade', () => {
    const all = found({spec, endpoints, nat: nat.replace('-A KUBE-EXT-A -j KUBE-SVL-A', '-A KUBE-EXT-A -j KUBE-SVC-A')})
    expect(all[0]?.code).to.equal('SVT151')
    expect(all.map(({code}) => code)).to.not.include('SVT120')
  })
})

describe('check: what versions promise', () => {
  const EXTERNAL = {externalIPs: ['192.0.2.200'], externalTrafficPolicy: 'Local'}
  const nat = `${SERVICES}${ALL}-A KUBE-SERVICES -d 192.0.2.200/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ\n-A KUBE-SERVICES -d 192.0.2.200/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A\n`
  it('policy Local of external IPs counts since 1.18', () => {
    expect(codes({version: 'v1.17.3', spec: EXTERNAL, nat})).to.deep.equal([])
    expect(codes({version: 'v1.22.3', spec: EXTERNAL, nat})).to.deep.equal(['SVT152'])
  })
  it('before 1.14 nothing refuses cluster IPs to pods', () => {
    const refuses =
      '-A OUTPUT -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable\n'
    expect(codes({version: 'v1.13.4', endpoints: [], filter: refuses})).to.deep.equal([])
    expect(codes({version: 'v1.16.4', endpoints: [], filter: refuses})).to.deep.equal(['SVT153'])
  })
  it('pods outside of loadBalancerSourceRanges are kept out as well', () => {
    const spec = {
      type: 'LoadBalancer',
      loadBalancerSourceRanges: ['203.0.113.0/24'],
      ports: [{...PORT, nodePort: 30080}],
    }
    const status = {loadBalancer: {ingress: [{ip: '192.0.2.200'}]}}
    const balanced = (more: string): string =>
      `${SERVICES}${ALL}-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-A\n-A KUBE-SERVICES -d 192.0.2.200/32 -p tcp -m tcp --dport 80 -j KUBE-FW-A\n-A KUBE-EXT-A -j KUBE-MARK-MASQ\n-A KUBE-EXT-A -j KUBE-SVC-A\n-A KUBE-FW-A -s 203.0.113.0/24 -j KUBE-EXT-A\n${more}`
    const drops =
      '-A INPUT -d 192.0.2.200/32 -p tcp -m tcp --dport 80 -j DROP\n-A FORWARD -d 192.0.2.200/32 -p tcp -m tcp --dport 80 -j DROP\n'
    expect(codes({spec, status, filter: drops, nat: balanced('')})).to.deep.equal([])
    const [first] = found({spec, status, filter: drops, nat: balanced('-A KUBE-FW-A -s 10.1.0.0/16 -j KUBE-EXT-A\n')})
    expect([first?.code, first?.evidence[0]?.text]).to.deep.equal([
      'SVT150',
      '-A KUBE-FW-A -s 10.1.0.0/16 -j KUBE-EXT-A',
    ])
  })
  it('1.14 leads pods past policy Local, and 1.16 the node itself', () => {
    const spec = {type: 'NodePort', externalTrafficPolicy: 'Local', ports: [{...PORT, nodePort: 30080}]}
    const far = [ready('10.1.2.9', 'n2')]
    const lost = `${SERVICES}-A KUBE-SVC-A -j KUBE-SEP-B\n-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.1.2.9:8080\n`
    expect(codes({version: 'v1.17.0', spec, endpoints: far, nat: lost})).to.include('SVT131')
  })
})

describe('check: what a dump does not show, and who else is there', () => {
  const site = (change: (files: Map<string, string>) => void): {codes: string[]; reasons: string} => {
    const files = oneNode({})
    files.set(
      'api/services.json',
      items({
        metadata: {name: 's', namespace: 'd'},
        spec: {clusterIP: '10.96.0.10', clusterIPs: ['10.96.0.10'], ports: [PORT]},
      }),
    )
    files.set('api/endpointslices.json', slice([ready('10.1.1.3')]))
    change(files)
    const snapshot = snapshotFromFiles(files)
    const {findings, incomplete} = check(snapshot, buildWorld(snapshot))
    return {
      codes: findings.filter(({severity}) => severity === 'error').map(({code}) => code),
      reasons: incomplete.map(({reason}) => reason).join('\n'),
    }
  }
  const save = (text: string): ReturnType<typeof site> =>
    site((files) => void files.set('nodes/n1/iptables-save.txt', text))

  it('the filter table alone tells nothing of Services', () => {
    const rules = '-N KUBE-FORWARD\n-A FORWARD -j KUBE-FORWARD\n'
    for (const text of [
      `-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n${rules}`,
      `*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\nCOMMIT\n`,
    ]) {
      const {codes: errors, reasons} = save(text)
      expect(errors, text).to.deep.equal([])
      expect(reasons).to.match(/the nat table is not in/)
    }
  })
  it('a save of other tables without nat is a node without nat', () => {
    const {codes: errors} = save(
      '*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\nCOMMIT\n',
    )
    expect(errors).to.deep.equal(['SVT130'])
  })
  const others: readonly (readonly [name: string, chain: string, rule: string])[] = [
    ['Cilium', 'CILIUM_PRE_nat', '-A PREROUTING -j CILIUM_PRE_nat'],
    ['OVN-Kubernetes', 'OVN-KUBE-NODEPORT', '-A PREROUTING -j OVN-KUBE-NODEPORT'],
    ['Antrea', 'ANTREA-PREROUTING', '-A PREROUTING -j ANTREA-PREROUTING'],
    [
      'Calico \\(eBPF\\)',
      'cali-PREROUTING',
      '-A PREROUTING -m comment --comment "Pre-approved by BPF programs." -m mark --mark 0x3000000/0x3000000 -j ACCEPT',
    ],
  ]
  for (const [name, chain, rule] of others)
    it(`${name} is known by its rules`, () => {
      const {codes: errors, reasons} = save(
        `*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:${chain} - [0:0]\n${rule}\nCOMMIT\n`,
      )
      expect(errors).to.deep.equal([])
      expect(reasons).to.match(new RegExp(`handled by ${name}`))
    })
  it("kube-router's own chains are no kube-proxy", () => {
    const {codes: errors} = site((files) => {
      files.set(
        'nodes/n1/iptables-save.txt',
        '*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-ROUTER-SERVICES - [0:0]\n-A INPUT -j KUBE-ROUTER-SERVICES\nCOMMIT\n',
      )
      files.set('nodes/n1/ipvsadm-Sn.txt', '-A -t 10.96.0.99:80 -s rr\n')
    })
    expect(errors).to.deep.equal([])
  })
  it('problems of lines are told, though dumps are read late', () => {
    const files = oneNode({iptables: '*nat\n:PREROUTING ACCEPT [0:0]\nwhat is this\nCOMMIT\n'})
    const snapshot = snapshotFromFiles(files)
    expect(check(snapshot, buildWorld(snapshot)).problems.map(({text}) => text)).to.include('what is this')
  })
})
