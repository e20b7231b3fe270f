import {expect} from 'chai'
import {endpointsOf} from '../../../src/intent/endpoints.js'
import {frontendsOf, nodePortFrontends, type Frontend} from '../../../src/intent/frontends.js'
import {promiseFor, type OriginClass} from '../../../src/intent/promise.js'
import type {ProxyFacts} from '../../../src/intent/proxy-facts.js'
import type {ClusterState, Service} from '../../../src/model/kube.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {formatAddress, formatEndpoint, parseAddress, parseRange} from '../../../src/util/ip.js'

interface Given {
  readonly spec?: object
  readonly endpoints?: readonly object[]
  readonly labels?: object
  readonly annotations?: object
  readonly status?: object
}

const ENDPOINTS = [
  {addresses: ['10.1.1.2'], nodeName: 'n1', conditions: {ready: true}},
  {addresses: ['10.1.2.2'], nodeName: 'n2', conditions: {ready: true}},
]

function cluster({spec = {}, endpoints = ENDPOINTS, labels = {}, annotations = {}, status = {}}: Given): {
  state: ClusterState
  service: Service
} {
  const node = (name: string, ip: string, zone: string): object => ({
    metadata: {name, labels: {'topology.kubernetes.io/zone': zone}},
    status: {
      addresses: [
        {type: 'InternalIP', address: ip},
        {type: 'ExternalIP', address: '198.51.100.1'},
        {type: 'Hostname', address: name},
      ],
    },
  })
  const full = {
    type: 'ClusterIP',
    clusterIP: '10.96.0.1',
    clusterIPs: ['10.96.0.1'],
    ports: [{name: 'http', port: 80, targetPort: 8080, protocol: 'TCP', nodePort: 30080}],
    ...spec,
  }
  const files = new Map([
    [
      'api/services.json',
      JSON.stringify({items: [{metadata: {name: 's', namespace: 'd', labels, annotations}, spec: full, status}]}),
    ],
    ['api/nodes.json', JSON.stringify({items: [node('n1', '192.0.2.1', 'a'), node('n2', '192.0.2.2', 'b')]})],
    [
      'api/endpointslices.json',
      JSON.stringify({
        items: [
          {
            metadata: {name: 's-1', namespace: 'd', labels: {'kubernetes.io/service-name': 's'}},
            addressType: 'IPv4',
            ports: [{name: 'http', port: 8080, protocol: 'TCP'}],
            endpoints,
          },
        ],
      }),
    ],
  ])
  const state = snapshotFromFiles(files).cluster
  return {state, service: state.services[0]!}
}

const proxy = (mode: ProxyFacts['mode'] = 'iptables', node = 'n1', minor = 36): ProxyFacts => ({
  node,
  mode,
  minor,
  config: undefined,
})

const CONFIG = {
  clusterCIDRs: ['10.1.0.0/16'],
  nodePortAddresses: [],
  masqueradeAll: false,
  localhostNodePorts: true,
  strictARP: false,
}

function promised(
  given: Given,
  {
    kind = 'clusterIP',
    origin = 'pod',
    facts = proxy(),
    client,
  }: {kind?: Frontend['kind']; origin?: OriginClass['kind']; facts?: ProxyFacts; client?: string} = {},
): string {
  const {state, service} = cluster(given)
  const port = service.ports[0]!
  const frontend: Frontend = {kind, address: parseAddress('10.96.0.1')!, port: 80, protocol: 'TCP'}
  const range = client === undefined ? undefined : parseRange(client)!
  const {outcome, endpoints, keepsClient} = promiseFor({
    cluster: state,
    service,
    port,
    frontend,
    origin: {kind: origin},
    proxy: facts,
    ...(range ? {client: [range]} : {}),
  })
  return [outcome, ...endpoints.map(({address}) => formatAddress(address)), ...(keepsClient ? ['keeps'] : [])].join(' ')
}

const slice = (address: string, nodeName: string, conditions: object, hints?: object): object => ({
  addresses: [address],
  nodeName,
  conditions,
  ...(hints ? {hints} : {}),
})

describe('what Kubernetes promises', () => {
  const cases: [string, Given, Parameters<typeof promised>[1], string][] = [
    ['every ready endpoint; a pod keeps its address', {}, {}, 'delivered 10.1.1.2 10.1.2.2 keeps'],
    ['… a node may be masqueraded', {}, {origin: 'node'}, 'delivered 10.1.1.2 10.1.2.2'],
    [
      '… and so may pods with masqueradeAll',
      {},
      {facts: {...proxy(), config: {...CONFIG, masqueradeAll: true}}},
      'delivered 10.1.1.2 10.1.2.2',
    ],
    ['nobody ready: refused', {endpoints: [slice('10.1.1.2', 'n1', {ready: false})]}, {}, 'refused'],
    [
      'KEP-1669: terminating and serving, when nobody is ready',
      {endpoints: [slice('10.1.1.2', 'n1', {ready: false, serving: true, terminating: true})]},
      {},
      'delivered 10.1.1.2 keeps',
    ],
    [
      '… not before 1.26',
      {endpoints: [slice('10.1.1.2', 'n1', {ready: false, serving: true, terminating: true})]},
      {facts: proxy('iptables', 'n1', 20)},
      'refused',
    ],
    [
      '… not while somebody is ready',
      {endpoints: [...ENDPOINTS, slice('10.1.1.9', 'n1', {ready: false, serving: true, terminating: true})]},
      {},
      'delivered 10.1.1.2 10.1.2.2 keeps',
    ],
    ['KEP-2086: internalTrafficPolicy Local', {spec: {internalTrafficPolicy: 'Local'}}, {}, 'delivered 10.1.1.2 keeps'],
    ['… and nobody here: silence', {spec: {internalTrafficPolicy: 'Local'}, endpoints: [ENDPOINTS[1]!]}, {}, 'dropped'],
    [
      'externalTrafficPolicy Local keeps the client',
      {spec: {externalTrafficPolicy: 'Local'}},
      {kind: 'nodePort', origin: 'external'},
      'delivered 10.1.1.2 keeps',
    ],
    [
      '… and nobody here: silence',
      {spec: {externalTrafficPolicy: 'Local'}, endpoints: [ENDPOINTS[1]!]},
      {kind: 'nodePort', origin: 'external'},
      'dropped',
    ],
    [
      '… but pods and nodes may use all',
      {spec: {externalTrafficPolicy: 'Local'}},
      {kind: 'nodePort', origin: 'node'},
      'delivered 10.1.1.2 10.1.2.2',
    ],
    [
      'zone hints when all have them (KEP-2433)',
      {
        endpoints: [
          slice('10.1.1.2', 'n1', {ready: true}, {forZones: [{name: 'a'}]}),
          slice('10.1.2.2', 'n2', {ready: true}, {forZones: [{name: 'b'}]}),
        ],
      },
      {},
      'delivered 10.1.1.2 keeps',
    ],
    [
      '… ignored when one has none',
      {endpoints: [slice('10.1.1.2', 'n1', {ready: true}, {forZones: [{name: 'a'}]}), ENDPOINTS[1]!]},
      {},
      'delivered 10.1.1.2 10.1.2.2 keeps',
    ],
    [
      '… ignored when none is for the zone',
      {endpoints: [slice('10.1.2.2', 'n2', {ready: true}, {forZones: [{name: 'b'}]})]},
      {},
      'delivered 10.1.2.2 keeps',
    ],
    [
      'node hints (KEP-3015)',
      {
        endpoints: [
          slice('10.1.1.2', 'n1', {ready: true}, {forNodes: [{name: 'n1'}], forZones: [{name: 'a'}]}),
          slice('10.1.1.3', 'n2', {ready: true}, {forNodes: [{name: 'n2'}], forZones: [{name: 'a'}]}),
        ],
      },
      {},
      'delivered 10.1.1.2 keeps',
    ],
    [
      'a client outside loadBalancerSourceRanges',
      {spec: {type: 'LoadBalancer', loadBalancerSourceRanges: ['203.0.113.0/24']}},
      {kind: 'loadBalancerIP', origin: 'external', client: '198.51.100.0/24'},
      'dropped',
    ],
    [
      '… and one inside',
      {spec: {type: 'LoadBalancer', loadBalancerSourceRanges: ['203.0.113.0/24']}},
      {kind: 'loadBalancerIP', origin: 'external', client: '203.0.113.7'},
      'delivered 10.1.1.2 10.1.2.2',
    ],
    ['127.0.0.1:nodePort in iptables mode', {}, {kind: 'localhost', origin: 'node'}, 'delivered 10.1.1.2 10.1.2.2'],
    [
      '… is not served in nftables mode (KEP-3866)',
      {},
      {kind: 'localhost', origin: 'node', facts: proxy('nftables')},
      'refused',
    ],
  ]
  for (const [what, given, asked, wanted] of cases) it(what, () => expect(promised(given, asked)).to.equal(wanted))

  it('with policy Local and no endpoint here, what comes from inside is led past the policy, where kube-proxy knows its pods', () => {
    const given = {spec: {externalTrafficPolicy: 'Local'}, endpoints: [ENDPOINTS[1]!]}
    const also = (origin: OriginClass['kind'], facts: ProxyFacts): readonly string[] => {
      const {state, service} = cluster(given)
      const port = service.ports[0]!
      const frontend: Frontend = {kind: 'nodePort', address: parseAddress('192.0.2.1')!, port: 30080, protocol: 'TCP'}
      return promiseFor({cluster: state, service, port, frontend, origin: {kind: origin}, proxy: facts}).also
    }
    expect(also('node', proxy())).to.deep.equal([])
    expect(also('pod', proxy())).to.deep.equal(['dropped', 'refused'])
    expect(also('pod', {...proxy(), config: CONFIG})).to.deep.equal([])
    expect(also('pod', {...proxy(), config: {...CONFIG, clusterCIDRs: []}})).to.deep.equal(['dropped', 'refused'])
    expect(also('node', proxy('ipvs'))).to.deep.equal(['dropped', 'refused'])
    expect(also('node', proxy('nftables', 'n1', 30))).to.deep.equal(['dropped', 'refused'])
    expect(also('node', proxy('nftables'))).to.deep.equal([])
  })

  it('nobody ready is a refusal; it may be silence where the mode or the dump leaves it open', () => {
    const given = {endpoints: [slice('10.1.1.2', 'n1', {ready: false})]}
    const also = (facts: ProxyFacts): readonly string[] => {
      const {state, service} = cluster(given)
      const port = service.ports[0]!
      const frontend: Frontend = {kind: 'clusterIP', address: parseAddress('10.96.0.1')!, port: 80, protocol: 'TCP'}
      return promiseFor({cluster: state, service, port, frontend, origin: {kind: 'pod'}, proxy: facts}).also
    }
    expect(also(proxy())).to.deep.equal([])
    expect(also(proxy('nftables'))).to.deep.equal([])
    expect(also(proxy('ipvs'))).to.deep.equal(['dropped'])
    expect(also({...proxy(), hidesRefusals: true})).to.deep.equal(['dropped'])
  })

  const frontends = (given: Given, facts = proxy()): string[] => {
    const {state, service} = cluster(given)
    return [
      ...frontendsOf(service, service.ports[0]!),
      ...nodePortFrontends(state, service, {port: service.ports[0]!, proxy: facts}),
    ].map(({kind, address, port}) => `${kind} ${formatEndpoint(address, port)}`)
  }

  it('frontends: cluster, external and load-balancer addresses, node ports on internal addresses', () => {
    const given: Given = {
      spec: {type: 'LoadBalancer', externalIPs: ['198.51.100.9']},
      status: {
        loadBalancer: {ingress: [{ip: '203.0.113.5'}, {ip: '203.0.113.6', ipMode: 'Proxy'}, {hostname: 'lb.example'}]},
      },
    }
    expect(frontends(given)).to.deep.equal([
      'clusterIP 10.96.0.1:80',
      'externalIP 198.51.100.9:80',
      'loadBalancerIP 203.0.113.5:80',
      'nodePort 192.0.2.1:30080',
      'localhost 127.0.0.1:30080',
    ])
  })

  it('no frontends: headless, ExternalName, another proxy', () => {
    for (const given of [
      {spec: {clusterIP: 'None', clusterIPs: ['None']}},
      {spec: {type: 'ExternalName', clusterIP: '', clusterIPs: []}},
      {labels: {'service.kubernetes.io/service-proxy-name': 'other'}},
    ])
      expect(frontends(given)).to.deep.equal([])
  })

  it('nodePortAddresses limit node ports', () => {
    const config = {
      clusterCIDRs: [],
      nodePortAddresses: ['198.51.100.0/24'],
      masqueradeAll: false,
      localhostNodePorts: true,
      strictARP: false,
    }
    expect(frontends({}, {...proxy(), config}).filter((text) => text.startsWith('nodePort'))).to.deep.equal([])
  })

  it('an endpoint in two slices counts once, the ready one wins', () => {
    const {state, service} = cluster({
      endpoints: [slice('10.1.1.2', 'n1', {ready: false}), slice('10.1.1.2', 'n1', {ready: true})],
    })
    expect(endpointsOf(state, service, {port: service.ports[0]!, family: 4}).map(({ready}) => ready)).to.deep.equal([
      true,
    ])
  })
})
