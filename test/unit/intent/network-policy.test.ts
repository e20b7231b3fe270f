import {expect} from 'chai'
import {check} from '../../../src/checks/check.js'
import {buildWorld} from '../../../src/engine.js'
import {deniedBy, type PolicyPeer} from '../../../src/intent/network-policy.js'
import {selects} from '../../../src/util/label-selector.js'
import type {ClusterState, Pod} from '../../../src/model/kube.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {parseRange} from '../../../src/util/ip.js'

const pod = (name: string, namespace: string, ip: string, more: object = {}): object => ({
  metadata: {name, namespace, labels: {app: name}},
  spec: {nodeName: 'n1', containers: [{ports: [{name: 'http', containerPort: 8080, protocol: 'TCP'}]}], ...more},
  status: {podIP: ip, podIPs: [{ip}], phase: 'Running'},
})

const policy = (spec: object, namespace = 'd'): object => ({metadata: {name: 'p', namespace}, spec})

function cluster(...policies: object[]): ClusterState {
  const items = (list: object[]): string => JSON.stringify({items: list})
  return snapshotFromFiles(
    new Map([
      ['api/services.json', items([])],
      ['api/namespaces.json', items([{metadata: {name: 'd'}}, {metadata: {name: 'other', labels: {team: 'blue'}}}])],
      [
        'api/pods.json',
        items([
          pod('web', 'd', '10.1.1.2'),
          pod('near', 'd', '10.1.1.3'),
          pod('far', 'other', '10.1.1.4'),
          pod('host', 'd', '192.0.2.1', {hostNetwork: true}),
        ]),
      ],
      ['api/networkpolicies.json', items(policies)],
    ]),
  ).cluster
}

const podOf = (state: ClusterState, name: string): Pod => state.pods!.find((one) => one.name === name)!

type Client = 'near' | 'far' | 'host' | 'own-node' | string

function peer(state: ClusterState, client: Client): PolicyPeer {
  if (client === 'own-node') return {addresses: [], node: 'n1'}
  if (/^[\d.]+(\/\d+)?$/.test(client)) return {addresses: [parseRange(client)!]}
  const found = podOf(state, client)
  return {pod: found, addresses: found.ips.map((ip) => parseRange(ip)!)}
}

const denied = (
  policies: object[],
  client: Client,
  question: {port?: number; protocol?: 'TCP' | 'UDP'} = {},
): boolean => {
  const state = cluster(...policies)
  const asked = {port: 8080, protocol: 'TCP' as const, ...question}
  return (
    deniedBy(state, {client: peer(state, client), server: {pod: podOf(state, 'web'), addresses: []}, ...asked}).length >
    0
  )
}

const WEB = {podSelector: {matchLabels: {app: 'web'}}}

/** networking.k8s.io/v1 NetworkPolicy, as its API reference describes each field. */
const CASES: [string, object[], Client, boolean, {port?: number; protocol?: 'TCP' | 'UDP'}?][] = [
  ['no policy', [], 'near', false],
  ['a policy without rules isolates', [policy(WEB)], 'near', true],
  ['one empty rule allows all', [policy({...WEB, ingress: [{}]})], '198.51.100.1', false],
  ['a policy of another namespace', [policy(WEB, 'other')], 'near', false],
  ['a policy that selects other pods', [policy({podSelector: {matchLabels: {app: 'x'}}})], 'near', false],
  ['the empty selector selects all', [policy({podSelector: {}})], 'near', true],
  ['policyTypes Egress leaves ingress alone', [policy({...WEB, policyTypes: ['Egress']})], 'near', false],
  [
    'a pod by label',
    [policy({...WEB, ingress: [{from: [{podSelector: {matchLabels: {app: 'near'}}}]}]})],
    'near',
    false,
  ],
  ['podSelector alone stays in its namespace', [policy({...WEB, ingress: [{from: [{podSelector: {}}]}]})], 'far', true],
  [
    'namespaceSelector by label',
    [policy({...WEB, ingress: [{from: [{namespaceSelector: {matchLabels: {team: 'blue'}}}]}]})],
    'far',
    false,
  ],
  [
    'namespaceSelector by the name label',
    [policy({...WEB, ingress: [{from: [{namespaceSelector: {matchLabels: {'kubernetes.io/metadata.name': 'd'}}}]}]})],
    'near',
    false,
  ],
  [
    'both selectors must hold',
    [
      policy({
        ...WEB,
        ingress: [{from: [{namespaceSelector: {matchLabels: {team: 'blue'}}, podSelector: {matchLabels: {app: 'x'}}}]}],
      }),
    ],
    'far',
    true,
  ],
  ['ipBlock', [policy({...WEB, ingress: [{from: [{ipBlock: {cidr: '198.51.100.0/24'}}]}]})], '198.51.100.9', false],
  [
    'outside ipBlock',
    [policy({...WEB, ingress: [{from: [{ipBlock: {cidr: '198.51.100.0/24'}}]}]})],
    '203.0.113.9',
    true,
  ],
  [
    'ipBlock except',
    [policy({...WEB, ingress: [{from: [{ipBlock: {cidr: '198.51.100.0/24', except: ['198.51.100.8/29']}}]}]})],
    '198.51.100.9',
    true,
  ],
  ['another port', [policy({...WEB, ingress: [{ports: [{port: 9090}]}]})], 'near', true],
  ['a port range', [policy({...WEB, ingress: [{ports: [{port: 8000, endPort: 8100}]}]})], 'near', false],
  ['beyond a port range', [policy({...WEB, ingress: [{ports: [{port: 8000, endPort: 8079}]}]})], 'near', true],
  ['a port by name', [policy({...WEB, ingress: [{ports: [{port: 'http'}]}]})], 'near', false],
  ['a name that no container has', [policy({...WEB, ingress: [{ports: [{port: 'metrics'}]}]})], 'near', true],
  [
    'protocol is TCP by default',
    [policy({...WEB, ingress: [{ports: [{port: 8080}]}]})],
    'near',
    true,
    {protocol: 'UDP'},
  ],
  [
    'rules are alternatives',
    [policy({...WEB, ingress: [{ports: [{port: 1}]}, {ports: [{port: 8080}]}]})],
    'near',
    false,
  ],
  ['policies add up', [policy(WEB), policy({...WEB, ingress: [{}]})], 'near', false],
  ['a pod’s own node is always let in', [policy(WEB)], 'own-node', false],
  ['a hostNetwork pod is no pod peer', [policy({...WEB, ingress: [{from: [{podSelector: {}}]}]})], 'host', true],
  [
    'egress of the client',
    [policy({podSelector: {matchLabels: {app: 'near'}}, policyTypes: ['Egress']})],
    'near',
    true,
  ],
  [
    'egress to the pod allowed',
    [policy({podSelector: {matchLabels: {app: 'near'}}, policyTypes: ['Egress'], egress: [{to: [WEB]}]})],
    'near',
    false,
  ],
  ['egress rules without policyTypes isolate ingress too', [policy({...WEB, egress: [{}]})], 'near', true],
]

describe('NetworkPolicy', () => {
  for (const [name, policies, client, expected, question] of CASES)
    it(name, () => {
      expect(denied(policies, client, question)).to.equal(expected)
    })

  it('matchExpressions: every operator', () => {
    const holds = (operator: string, values?: string[]): boolean =>
      selects({matchExpressions: [{key: 'a', operator, ...(values ? {values} : {})}]}, {a: '1'})
    expect([holds('In', ['1']), holds('In', ['2']), holds('NotIn', ['1']), holds('NotIn', ['2'])]).to.deep.equal([
      true,
      false,
      false,
      true,
    ])
    expect([holds('Exists'), holds('DoesNotExist'), holds('Bogus')]).to.deep.equal([true, false, false])
  })
})

/** One node, one pod, one ClusterIP; the client is the node's other pod. */
function lab(rule: string, policies: object[]): ReturnType<typeof check> {
  const items = (list: object[]): string => JSON.stringify({items: list})
  const snapshot = snapshotFromFiles(
    new Map([
      [
        'api/services.json',
        items([
          {
            metadata: {name: 'web', namespace: 'd'},
            spec: {
              type: 'ClusterIP',
              clusterIP: '10.96.0.10',
              clusterIPs: ['10.96.0.10'],
              selector: {app: 'web'},
              ports: [{port: 80, targetPort: 8080, protocol: 'TCP'}],
            },
          },
        ]),
      ],
      [
        'api/endpointslices.json',
        items([
          {
            metadata: {name: 'web-1', namespace: 'd', labels: {'kubernetes.io/service-name': 'web'}},
            addressType: 'IPv4',
            ports: [{name: '', port: 8080, protocol: 'TCP'}],
            endpoints: [
              {
                addresses: ['10.1.1.2'],
                nodeName: 'n1',
                conditions: {ready: true},
                targetRef: {kind: 'Pod', namespace: 'd', name: 'web'},
              },
            ],
          },
        ]),
      ],
      ['api/pods.json', items([pod('web', 'd', '10.1.1.2'), pod('near', 'd', '10.1.1.3')])],
      [
        'api/nodes.json',
        items([
          {
            metadata: {name: 'n1'},
            spec: {podCIDR: '10.1.1.0/24'},
            status: {addresses: [{type: 'InternalIP', address: '192.0.2.1'}]},
          },
        ]),
      ],
      ['api/networkpolicies.json', items(policies)],
      [
        'nodes/n1/iptables-legacy-save.txt',
        [
          '*nat',
          ':PREROUTING ACCEPT [0:0]',
          ':OUTPUT ACCEPT [0:0]',
          ':POSTROUTING ACCEPT [0:0]',
          '-A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.2:8080',
          '-A OUTPUT -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.2:8080',
          '-A POSTROUTING -s 10.1.1.2/32 -d 10.1.1.2/32 -j MASQUERADE',
          'COMMIT',
          '*filter',
          ':INPUT ACCEPT [0:0]',
          ':FORWARD ACCEPT [0:0]',
          ':OUTPUT ACCEPT [0:0]',
          rule,
          'COMMIT',
          '',
        ].join('\n'),
      ],
      [
        'nodes/n1/ip-addr.json',
        JSON.stringify([
          {
            ifname: 'eth0',
            flags: ['UP', 'LOWER_UP'],
            addr_info: [{family: 'inet', local: '192.0.2.1', prefixlen: 24, scope: 'global'}],
          },
          {
            ifname: 'cni0',
            flags: ['UP', 'LOWER_UP'],
            addr_info: [{family: 'inet', local: '10.1.1.1', prefixlen: 24, scope: 'global'}],
          },
        ]),
      ],
      [
        'nodes/n1/ip-route.json',
        JSON.stringify([
          {dst: 'default', gateway: '192.0.2.254', dev: 'eth0', flags: []},
          {dst: '10.1.1.0/24', dev: 'cni0', protocol: 'kernel', scope: 'link', prefsrc: '10.1.1.1', flags: []},
        ]),
      ],
      ['nodes/n1/sysctl.txt', 'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n'],
    ]),
  )
  return check(snapshot, buildWorld(snapshot))
}

describe('check and NetworkPolicy', () => {
  const DROP = '-A FORWARD -s 10.1.1.3/32 -d 10.1.1.2/32 -j DROP'
  const names = (result: ReturnType<typeof check>): string[] => result.findings.map(({name}) => name)

  it('explains a drop that a policy wants, and names the policy', () => {
    const result = lab(DROP, [policy(WEB)])
    expect(names(result)).to.include('network-policy-denies').and.not.include('packet-dropped-by-rule')
    expect(result.findings.find(({name}) => name === 'network-policy-denies')!.message).to.contain('d/p')
  })

  it('calls a drop that no policy wants an error', () => {
    expect(names(lab(DROP, [policy({...WEB, ingress: [{}]})]))).to.include('packet-dropped-by-rule')
    expect(names(lab(DROP, []))).to.include('packet-dropped-by-rule')
  })

  it('says when no rule enforces a policy', () => {
    expect(names(lab('-A FORWARD -s 203.0.113.1/32 -j DROP', [policy(WEB)]))).to.include('network-policy-unseen')
    expect(names(lab('-A FORWARD -s 203.0.113.1/32 -j DROP', []))).not.to.include('network-policy-unseen')
  })
})
