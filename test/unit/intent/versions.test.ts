import {expect} from 'chai'
import {closedFrontends, frontendsOf, nodePortFrontends, type Frontend} from '../../../src/intent/frontends.js'
import {promiseFor, type OriginClass} from '../../../src/intent/promise.js'
import type {ProxyFacts} from '../../../src/intent/proxy-facts.js'
import {snapshotFromFiles, type Snapshot} from '../../../src/snapshot/snapshot.js'
import {formatAddress, formatEndpoint, parseAddress, parseRange} from '../../../src/util/ip.js'

const CONFIG = {
  clusterCIDRs: ['10.1.0.0/16'],
  nodePortAddresses: [] as string[],
  masqueradeAll: false,
  localhostNodePorts: true,
  strictARP: false,
}
const proxy = (mode: ProxyFacts['mode'], minor: number | undefined, config = CONFIG): ProxyFacts => ({
  node: 'n1',
  mode,
  minor,
  config,
})

interface Given {
  readonly spec?: object
  readonly labels?: object
  readonly annotations?: object
  readonly status?: object
  /** Of the slices: [address, node]. */
  readonly endpoints?: readonly (readonly [string, string])[]
  /** Of the Endpoints object. */
  readonly legacy?: readonly string[]
}

const BOTH: readonly (readonly [string, string])[] = [
  ['10.1.1.2', 'n1'],
  ['10.1.2.2', 'n2'],
  ['fd01::2', 'n1'],
  ['fd02::2', 'n2'],
]
const REMOTE: readonly (readonly [string, string])[] = [
  ['10.1.2.2', 'n2'],
  ['fd02::2', 'n2'],
]

function snapshot({spec = {}, labels = {}, annotations = {}, status = {}, endpoints = BOTH, legacy}: Given): Snapshot {
  const ports = [{name: 'http', port: 80, targetPort: 8080, protocol: 'TCP', nodePort: 30080}]
  const service = {
    metadata: {name: 's', namespace: 'd', labels, annotations},
    spec: {type: 'LoadBalancer', clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1', 'fd96::1'], ports, ...spec},
    status,
  }
  const slices = ([4, 6] as const).map((family) => ({
    metadata: {name: `s-${family}`, namespace: 'd', labels: {'kubernetes.io/service-name': 's'}},
    addressType: `IPv${family}`,
    ports: [{name: 'http', port: 8080, protocol: 'TCP'}],
    endpoints: endpoints
      .filter(([address]) => address.includes(':') === (family === 6))
      .map(([address, nodeName]) => ({addresses: [address], nodeName, conditions: {ready: true}})),
  }))
  const addresses = ['192.0.2.1', 'fd00::1'].map((address) => ({type: 'InternalIP', address}))
  const files: [string, unknown][] = [
    ['services', [service]],
    ['endpointslices', slices],
    [
      'nodes',
      [{metadata: {name: 'n1'}, status: {addresses: [{type: 'ExternalIP', address: '198.51.100.1'}, ...addresses]}}],
    ],
  ]
  if (legacy)
    files.push([
      'endpoints',
      [
        {
          metadata: {name: 's', namespace: 'd'},
          subsets: [{addresses: legacy.map((ip) => ({ip})), ports: [{name: 'http', port: 8080, protocol: 'TCP'}]}],
        },
      ],
    ])
  return snapshotFromFiles(new Map(files.map(([name, items]) => [`api/${name}.json`, JSON.stringify({items})])))
}

/** `outcome (also …) endpoints`, of tolerated ones with `~`. */
function promised(
  given: Given,
  facts: ProxyFacts,
  {
    kind = 'clusterIP',
    to = '10.96.0.1',
    from = 'external',
    client,
  }: {kind?: Frontend['kind']; to?: string; from?: OriginClass['kind']; client?: string} = {},
): string {
  const {cluster} = snapshot(given)
  const service = cluster.services[0]!
  const range = client === undefined ? undefined : parseRange(client)!
  const found = promiseFor({
    cluster,
    service,
    port: service.ports[0]!,
    frontend: {kind, address: parseAddress(to)!, port: 80, protocol: 'TCP'},
    origin: {kind: from},
    proxy: facts,
    ...(range ? {client: [range]} : {}),
  })
  const chosen = found.endpoints.map(({address}) => formatAddress(address))
  const spare = found.tolerated
    .map(({address}) => `~${formatAddress(address)}`)
    .filter((text) => !chosen.includes(text.slice(1)))
  return [found.outcome, ...(found.also.length > 0 ? [`(or ${found.also.join(', ')})`] : []), ...chosen, ...spare].join(
    ' ',
  )
}

describe('what kube-proxies of other versions and modes promise', () => {
  const LOCAL_IN: Given = {spec: {internalTrafficPolicy: 'Local'}, endpoints: REMOTE}

  it('internalTrafficPolicy is heeded since 1.22, and overrode or was overridden until 1.24', () => {
    expect(promised(LOCAL_IN, proxy('iptables', 20))).to.equal('delivered 10.1.2.2')
    expect(promised(LOCAL_IN, proxy('iptables', 24))).to.equal('dropped (or refused)')
    expect(promised(LOCAL_IN, proxy('iptables', undefined))).to.equal('dropped (or refused)')
    expect(promised(LOCAL_IN, proxy('iptables', 23))).to.equal('dropped (or refused)')
    expect(promised(LOCAL_IN, proxy('iptables', 23), {kind: 'nodePort'})).to.equal(
      'delivered (or dropped, refused) 10.1.2.2',
    )
    expect(promised(LOCAL_IN, proxy('iptables', 25), {kind: 'nodePort'})).to.equal('delivered 10.1.2.2')
  })

  it('1.22 and 1.23: the internal policy alone decides for every frontend, and none where both are Local', () => {
    const one: Given = {spec: {internalTrafficPolicy: 'Local'}}
    const both: Given = {spec: {internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local'}}
    const old = proxy('iptables', 23)
    expect(promised(one, old, {kind: 'nodePort'})).to.equal('delivered 10.1.1.2 ~10.1.2.2')
    expect(promised(both, old, {kind: 'nodePort'})).to.equal('delivered 10.1.1.2')
    expect(promised(both, old)).to.equal('delivered 10.1.1.2 ~10.1.2.2')
    expect(promised({...both, endpoints: REMOTE}, old)).to.equal('dropped (or refused, delivered) ~10.1.2.2')
  })

  it('external IPs from inside: 1.20 in iptables mode leaves them to the network', () => {
    const asked = {kind: 'externalIP', from: 'pod'} as const
    expect(promised({}, proxy('iptables', 20), asked)).to.equal('delivered (or dropped, refused) 10.1.1.2 10.1.2.2')
    expect(promised({}, proxy('iptables', 21), asked)).to.equal('delivered 10.1.1.2 10.1.2.2')
    expect(promised({}, proxy('ipvs', 20), asked)).to.equal('delivered 10.1.1.2 10.1.2.2')
    expect(promised({}, proxy('iptables', 20), {kind: 'externalIP'})).to.equal('delivered 10.1.1.2 10.1.2.2')
  })

  it('ipMode Proxy closes the address since 1.30', () => {
    const {cluster} = snapshot({status: {loadBalancer: {ingress: [{ip: '198.51.100.9', ipMode: 'Proxy'}]}}})
    const [service] = cluster.services
    const closed = (minor: number | undefined): number =>
      closedFrontends(cluster, service!, {port: service!.ports[0]!, proxy: proxy('iptables', minor)}).length
    expect([29, 30, undefined].map(closed)).to.deep.equal([0, 1, 1])
  })

  it('1.18, and userspace mode, read Endpoints objects', () => {
    const given: Given = {legacy: ['10.1.3.3']}
    expect(promised(given, proxy('iptables', 18))).to.equal('delivered 10.1.3.3')
    expect(promised(given, proxy('iptables', 19))).to.equal('delivered 10.1.1.2 10.1.2.2')
    expect(promised(given, proxy('userspace', 25))).to.equal('delivered 10.1.3.3')
    expect(promised({}, proxy('iptables', 18)), 'where they were not read').to.equal('delivered 10.1.1.2 10.1.2.2')
  })

  it('userspace mode knows no policy, source ranges or nodePortAddresses', () => {
    const given: Given = {
      spec: {
        externalTrafficPolicy: 'Local',
        internalTrafficPolicy: 'Local',
        loadBalancerSourceRanges: ['203.0.113.0/24'],
      },
      endpoints: REMOTE,
    }
    const facts = proxy('userspace', 20, {...CONFIG, nodePortAddresses: ['203.0.113.0/24']})
    for (const kind of ['clusterIP', 'nodePort', 'loadBalancerIP'] as const)
      expect(promised(given, facts, {kind, client: '198.51.100.7/32'}), kind).to.equal('delivered 10.1.2.2')
    const {cluster} = snapshot(given)
    const port = cluster.services[0]!.ports[0]!
    expect(closedFrontends(cluster, cluster.services[0]!, {port, proxy: facts})).to.deep.equal([])
    expect(nodePortFrontends(cluster, cluster.services[0]!, {port, proxy: facts}).length).to.be.above(1)
  })

  describe('loadBalancerSourceRanges', () => {
    const asked = {kind: 'loadBalancerIP', client: '198.51.100.7/32'} as const
    const spec = {loadBalancerSourceRanges: ['203.0.113.0/24']}

    it('hold back strangers; who refuses them holds them back as well', () => {
      expect(promised({spec}, proxy('iptables', 30), asked)).to.equal('dropped (or refused)')
      expect(promised({spec, endpoints: []}, proxy('iptables', 30), asked)).to.equal('dropped (or refused)')
    })
    it('of one family do not restrict the other', () => {
      const v6 = {...asked, to: 'fd96::1', client: '2001:db8::7/128'}
      expect(promised({spec}, proxy('iptables', 30), v6)).to.equal('delivered fd01::2 fd02::2')
      expect(promised({spec: {loadBalancerSourceRanges: ['2001:db8:1::/48']}}, proxy('iptables', 30), v6)).to.equal(
        'dropped (or refused)',
      )
    })
    it('are a field: kube-proxy reads no annotation', () => {
      const annotations = {'service.beta.kubernetes.io/load-balancer-source-ranges': '203.0.113.0/24'}
      expect(promised({annotations}, proxy('iptables', 30), asked)).to.equal('delivered 10.1.1.2 10.1.2.2')
    })
  })

  describe('nodePortAddresses', () => {
    const opened = (mode: ProxyFacts['mode'], ranges: string[]): string[] => {
      const {cluster} = snapshot({})
      const [service] = cluster.services
      const facts = {
        ...proxy(mode, 36, {...CONFIG, nodePortAddresses: ranges}),
        own: new Set([parseAddress('198.51.100.1')!]),
      }
      return nodePortFrontends(cluster, service!, {port: service!.ports[0]!, proxy: facts})
        .filter(({kind}) => kind === 'nodePort')
        .map(({address, port}) => formatEndpoint(address, port))
    }
    it('of one family do not restrict the other', () =>
      expect(opened('iptables', ['192.0.2.0/24'])).to.deep.equal(['192.0.2.1:30080', '[fd00::1]:30080']))
    it('primary is the internal address, whatever stands first', () => {
      for (const ranges of [['primary'], []])
        expect(opened('nftables', ranges)).to.deep.equal(['192.0.2.1:30080', '[fd00::1]:30080'])
      expect(opened('iptables', [])).to.deep.equal(['192.0.2.1:30080', '198.51.100.1:30080', '[fd00::1]:30080'])
    })
    it('of IPv6 alone leave 127.0.0.1 open, primary closes it', () => {
      const localhost = (ranges: string[]): string =>
        promised({}, proxy('iptables', 36, {...CONFIG, nodePortAddresses: ranges}), {
          kind: 'localhost',
          to: '127.0.0.1',
          from: 'node',
        }).split(' ')[0]!
      expect([['fd00::/64'], ['127.0.0.0/8'], ['192.0.2.0/24'], ['primary']].map(localhost)).to.deep.equal([
        'delivered',
        'delivered',
        'refused',
        'refused',
      ])
    })
  })

  describe('externalTrafficPolicy: Local, asked by a pod', () => {
    const local: Given = {spec: {externalTrafficPolicy: 'Local'}}
    const asked = {kind: 'nodePort', from: 'pod'} as const
    it('may use every endpoint where kube-proxy can tell pods of that family', () => {
      expect(promised(local, proxy('iptables', 36), asked)).to.equal('delivered 10.1.1.2 10.1.2.2')
      expect(promised({...local, endpoints: REMOTE}, proxy('iptables', 36), asked)).to.equal('delivered 10.1.2.2')
    })
    it('is held to local ones where it cannot: no cluster CIDR of the family, or no configuration', () => {
      const v6 = {...asked, to: 'fd96::1'}
      expect(promised(local, proxy('iptables', 36), v6)).to.equal('delivered fd01::2 ~fd02::2')
      expect(promised({...local, endpoints: REMOTE}, proxy('iptables', 36), v6)).to.equal(
        'delivered (or dropped, refused) fd02::2',
      )
      expect(promised(local, {...proxy('iptables', 36), config: undefined}, asked)).to.equal(
        'delivered 10.1.1.2 ~10.1.2.2',
      )
    })
  })

  it('no endpoint: iptables mode refuses external addresses in INPUT and FORWARD alone', () => {
    const given: Given = {endpoints: []}
    const say = (facts: ProxyFacts, kind: Frontend['kind'], from: OriginClass['kind']): string =>
      promised(given, facts, {kind, from})
    expect(say(proxy('iptables', 36), 'externalIP', 'node')).to.equal('refused (or dropped)')
    expect(say(proxy('iptables', 36), 'externalIP', 'external')).to.equal('refused')
    expect(say(proxy('iptables', 19), 'externalIP', 'external')).to.equal('refused (or dropped)')
    expect(say(proxy('iptables', 36), 'nodePort', 'node')).to.equal('refused')
    expect(say(proxy('nftables', 36), 'externalIP', 'node')).to.equal('refused')
  })

  it('a Service with the headless label is not proxied', () => {
    const {cluster} = snapshot({labels: {'service.kubernetes.io/headless': ''}})
    expect(frontendsOf(cluster.services[0]!, cluster.services[0]!.ports[0]!)).to.deep.equal([])
  })
})
