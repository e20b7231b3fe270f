import {expect} from 'chai'
import {gatewayRoutes, type GatewayRoute} from '../../../src/discovery/gateway.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

interface World {
  readonly gateways?: object[]
  readonly httproutes?: object[]
  readonly tcproutes?: object[]
  readonly tlsroutes?: object[]
  readonly referencegrants?: object[]
}

const service = (name: string, namespace: string): object => ({
  metadata: {name, namespace},
  spec: {
    type: 'ClusterIP',
    clusterIP: '10.96.0.1',
    clusterIPs: ['10.96.0.1'],
    ports: [{name: 'http', port: 80, targetPort: 8080, protocol: 'TCP'}],
  },
})
const namespace = (name: string, labels: object = {}): object => ({
  metadata: {name, labels: {'kubernetes.io/metadata.name': name, ...labels}},
})

/** Namespaces d (team=red), e (team=blue, open=yes) and infra; Services d/web, d/api and e/web with port 80. */
function routes(world: World): GatewayRoute[] {
  const files = new Map<string, string>()
  const put = (name: string, items: object[]): unknown => files.set(`api/${name}.json`, JSON.stringify({items}))
  put('services', [service('web', 'd'), service('api', 'd'), service('web', 'e')])
  put('namespaces', [namespace('d', {team: 'red'}), namespace('e', {team: 'blue', open: 'yes'}), namespace('infra')])
  const lists = {gateways: [], httproutes: [], tcproutes: [], tlsroutes: [], referencegrants: [], ...world}
  for (const [name, items] of Object.entries(lists)) put(name, items)
  return gatewayRoutes(snapshotFromFiles(files).cluster)
}

const API = 'gateway.networking.k8s.io'
const listener = (more: object = {}): object => ({name: 'http', port: 80, protocol: 'HTTP', ...more})
const gateway = (listeners: object[], name = 'gw', ns = 'd'): object => ({
  apiVersion: `${API}/v1`,
  kind: 'Gateway',
  metadata: {name, namespace: ns},
  spec: {gatewayClassName: 'c', listeners},
})
const backend = (more: object = {}): object => ({name: 'web', port: 80, ...more})
const routeOf = (kind: string, spec: object, ns = 'd'): object => ({
  apiVersion: `${API}/v1`,
  kind,
  metadata: {name: 'r', namespace: ns},
  spec: {parentRefs: [{name: 'gw'}], rules: [{backendRefs: [backend()]}], ...spec},
})
const http = (spec: object = {}, ns = 'd'): object => routeOf('HTTPRoute', spec, ns)
const from = (namespaces: object): object => ({allowedRoutes: {namespaces}})
const kinds = (...list: object[]): object => ({allowedRoutes: {kinds: list}})
const selector = (labels: object): object => from({from: 'Selector', selector: labels})
const TLS = {protocol: 'TLS', port: 443, tls: {mode: 'Passthrough'}}
const HTTPS = {protocol: 'HTTPS', port: 443, tls: {mode: 'Terminate', certificateRefs: [{name: 's'}]}}
/** A route of namespace e to its own Service, that asks for d/gw. */
const away = http({parentRefs: [{name: 'gw', namespace: 'd'}]}, 'e')

/** One route with one backend; is it free of problems? */
const ATTACH: [section: string, world: World, taken: boolean][] = [
  [
    'ParentReference: the Gateway of its own namespace',
    {gateways: [gateway([listener()])], httproutes: [http()]},
    true,
  ],
  ['ParentReference: no such Gateway', {gateways: [gateway([listener()], 'other')], httproutes: [http()]}, false],
  [
    'ParentReference.namespace: left out, that of the route',
    {gateways: [gateway([listener(from({from: 'All'}))], 'gw', 'e')], httproutes: [http()]},
    false,
  ],
  [
    'CommonRouteSpec.parentRefs: none',
    {gateways: [gateway([listener()])], httproutes: [http({parentRefs: []})]},
    false,
  ],
  [
    'CommonRouteSpec.parentRefs: one of two takes it',
    {gateways: [gateway([listener()])], httproutes: [http({parentRefs: [{name: 'gone'}, {name: 'gw'}]})]},
    true,
  ],
  [
    'ParentReference.group and kind: written out',
    {gateways: [gateway([listener()])], httproutes: [http({parentRefs: [{group: API, kind: 'Gateway', name: 'gw'}]})]},
    true,
  ],
  [
    'ParentReference.group: what another API’s Gateway takes, nobody here knows',
    {
      gateways: [gateway([listener()])],
      httproutes: [http({parentRefs: [{group: 'networking.example.com', kind: 'Gateway', name: 'gw'}]})],
    },
    true,
  ],
  [
    'ParentReference.kind: a ListenerSet or a mesh is not accused',
    {httproutes: [http({parentRefs: [{group: 'policy.linkerd.io', kind: 'EgressNetwork', name: 'all'}]})]},
    true,
  ],
  [
    'ProtocolType: a protocol of an implementation takes what it takes',
    {gateways: [gateway([listener({protocol: 'HBONE'})])], httproutes: [http({})]},
    true,
  ],

  [
    'ParentReference.sectionName: the name of a listener',
    {gateways: [gateway([listener()])], httproutes: [http({parentRefs: [{name: 'gw', sectionName: 'http'}]})]},
    true,
  ],
  [
    'ParentReference.sectionName: no such listener',
    {gateways: [gateway([listener()])], httproutes: [http({parentRefs: [{name: 'gw', sectionName: 'https'}]})]},
    false,
  ],
  [
    'ParentReference.sectionName: the other listener would take it',
    {
      gateways: [gateway([listener(), listener({name: 'b', port: 81, ...kinds({kind: 'GRPCRoute'})})])],
      httproutes: [http({parentRefs: [{name: 'gw', sectionName: 'b'}]})],
    },
    false,
  ],
  [
    'ParentReference.sectionName: left out, one of two listeners takes it',
    {
      gateways: [gateway([listener({name: 'b', port: 81, ...kinds({kind: 'GRPCRoute'})}), listener()])],
      httproutes: [http()],
    },
    true,
  ],
  [
    'ParentReference.port: that of a listener',
    {gateways: [gateway([listener()])], httproutes: [http({parentRefs: [{name: 'gw', port: 80}]})]},
    true,
  ],
  [
    'ParentReference.port: of no listener',
    {gateways: [gateway([listener()])], httproutes: [http({parentRefs: [{name: 'gw', port: 8080}]})]},
    false,
  ],
  [
    'ParentReference.port: name and port must both match',
    {
      gateways: [gateway([listener(), listener({name: 'b', port: 81})])],
      httproutes: [http({parentRefs: [{name: 'gw', sectionName: 'http', port: 81}]})],
    },
    false,
  ],

  ['AllowedRoutes.namespaces: Same by default', {gateways: [gateway([listener()])], httproutes: [away]}, false],
  ['RouteNamespaces.from: Same by default', {gateways: [gateway([listener(from({}))])], httproutes: [away]}, false],
  ['RouteNamespaces.from: Same', {gateways: [gateway([listener(from({from: 'Same'}))])], httproutes: [away]}, false],
  ['RouteNamespaces.from: All', {gateways: [gateway([listener(from({from: 'All'}))])], httproutes: [away]}, true],
  [
    'AllowedRoutes.namespaces: needs no ReferenceGrant, nor does one help',
    {
      gateways: [gateway([listener()])],
      httproutes: [away],
      referencegrants: [
        {
          metadata: {name: 'g', namespace: 'd'},
          spec: {from: [{group: API, kind: 'HTTPRoute', namespace: 'e'}], to: [{group: API, kind: 'Gateway'}]},
        },
      ],
    },
    false,
  ],
  ...(
    [
      ['matchLabels', {matchLabels: {team: 'blue'}}, true],
      ['matchLabels of another namespace', {matchLabels: {team: 'red'}}, false],
      ['matchLabels, all of them', {matchLabels: {team: 'blue', open: 'no'}}, false],
      ['the label that the API sets', {matchLabels: {'kubernetes.io/metadata.name': 'e'}}, true],
      ['In', {matchExpressions: [{key: 'team', operator: 'In', values: ['green', 'blue']}]}, true],
      ['In, another value', {matchExpressions: [{key: 'team', operator: 'In', values: ['green']}]}, false],
      ['In, no such label', {matchExpressions: [{key: 'tier', operator: 'In', values: ['blue']}]}, false],
      ['NotIn', {matchExpressions: [{key: 'team', operator: 'NotIn', values: ['blue']}]}, false],
      ['NotIn, another value', {matchExpressions: [{key: 'team', operator: 'NotIn', values: ['red']}]}, true],
      ['NotIn, no such label', {matchExpressions: [{key: 'tier', operator: 'NotIn', values: ['blue']}]}, true],
      ['Exists', {matchExpressions: [{key: 'open', operator: 'Exists'}]}, true],
      ['Exists, no such label', {matchExpressions: [{key: 'tier', operator: 'Exists'}]}, false],
      ['DoesNotExist', {matchExpressions: [{key: 'open', operator: 'DoesNotExist'}]}, false],
      ['DoesNotExist, no such label', {matchExpressions: [{key: 'tier', operator: 'DoesNotExist'}]}, true],
      [
        'labels and expressions are joined by and',
        {matchLabels: {team: 'blue'}, matchExpressions: [{key: 'open', operator: 'DoesNotExist'}]},
        false,
      ],
      ['an empty selector selects all (LabelSelector)', {}, true],
    ] as [string, object, boolean][]
  ).map(([name, labels, taken]): [string, World, boolean] => [
    `RouteNamespaces.selector: ${name}`,
    {gateways: [gateway([listener(selector(labels))])], httproutes: [away]},
    taken,
  ]),
  [
    'RouteNamespaces.selector: its own namespace must be selected, too',
    {gateways: [gateway([listener(selector({matchLabels: {team: 'blue'}}))])], httproutes: [http()]},
    false,
  ],
  [
    'RouteNamespaces.selector: ignored for other values of from',
    {
      gateways: [gateway([listener(from({from: 'All', selector: {matchLabels: {team: 'red'}}}))])],
      httproutes: [away],
    },
    true,
  ],

  ['AllowedRoutes.kinds: of the protocol, HTTPS', {gateways: [gateway([listener(HTTPS)])], httproutes: [http()]}, true],
  [
    'AllowedRoutes.kinds: of the protocol, HTTPRoute not by TCP',
    {gateways: [gateway([listener({protocol: 'TCP'})])], httproutes: [http()]},
    false,
  ],
  [
    'AllowedRoutes.kinds: of the protocol, HTTPRoute not by TLS',
    {gateways: [gateway([listener(TLS)])], httproutes: [http()]},
    false,
  ],
  [
    'AllowedRoutes.kinds: of the protocol, HTTPRoute not by UDP',
    {gateways: [gateway([listener({protocol: 'UDP'})])], httproutes: [http()]},
    false,
  ],
  [
    'AllowedRoutes.kinds: of the protocol, TCPRoute by TCP',
    {gateways: [gateway([listener({protocol: 'TCP'})])], tcproutes: [routeOf('TCPRoute', {})]},
    true,
  ],
  [
    'AllowedRoutes.kinds: of the protocol, TCPRoute not by HTTP',
    {gateways: [gateway([listener()])], tcproutes: [routeOf('TCPRoute', {})]},
    false,
  ],
  [
    'AllowedRoutes.kinds: of the protocol, TLSRoute by TLS',
    {gateways: [gateway([listener(TLS)])], tlsroutes: [routeOf('TLSRoute', {hostnames: ['a.example.com']})]},
    true,
  ],
  [
    'AllowedRoutes.kinds: of the protocol, TLSRoute not by HTTPS',
    {gateways: [gateway([listener(HTTPS)])], tlsroutes: [routeOf('TLSRoute', {hostnames: ['a.example.com']})]},
    false,
  ],
  [
    'ProtocolType: core values are compared without case',
    {gateways: [gateway([listener({protocol: 'http'})])], httproutes: [http()]},
    true,
  ],
  [
    'AllowedRoutes.kinds: an empty list is like none',
    {gateways: [gateway([listener(kinds())])], httproutes: [http()]},
    true,
  ],
  [
    'AllowedRoutes.kinds: named',
    {gateways: [gateway([listener(kinds({kind: 'GRPCRoute'}, {kind: 'HTTPRoute'}))])], httproutes: [http()]},
    true,
  ],
  [
    'AllowedRoutes.kinds: not named',
    {gateways: [gateway([listener(kinds({kind: 'GRPCRoute'}))])], httproutes: [http()]},
    false,
  ],
  [
    'RouteGroupKind.group: written out',
    {gateways: [gateway([listener(kinds({group: API, kind: 'HTTPRoute'}))])], httproutes: [http()]},
    true,
  ],
  [
    'RouteGroupKind.group: the HTTPRoute of another API',
    {gateways: [gateway([listener(kinds({group: 'example.com', kind: 'HTTPRoute'}))])], httproutes: [http()]},
    false,
  ],

  ...(
    [
      [undefined, ['test.example.com'], true],
      ['test.example.com', undefined, true],
      ['test.example.com', [], true],
      ['test.example.com', ['test.example.com'], true],
      ['test.example.com', ['*.example.com'], true],
      ['test.example.com', ['other.example.com'], false],
      ['test.example.com', ['other.example.com', 'test.example.com'], true],
      ['*.example.com', undefined, true],
      ['*.example.com', ['*.example.com'], true],
      ['*.example.com', ['test.example.com'], true],
      ['*.example.com', ['foo.test.example.com'], true],
      ['*.example.com', ['example.com'], false],
      ['*.example.com', ['test.example.net'], false],
      ['*.example.com', ['testexample.com'], false],
      ['*.example.com', ['*.test.example.com'], true],
      ['*.test.example.com', ['*.example.com'], true],
      ['*.test.example.com', ['*.other.example.com'], false],
      ['foo.test.example.com', ['*.example.com'], true],
      ['example.com', ['*.example.com'], false],
      ['*.example.com', ['test.example.net', 'test.example.com'], true],
    ] as [string | undefined, string[] | undefined, boolean][]
  ).map(([host, hostnames, taken]): [string, World, boolean] => [
    `HTTPRouteSpec.hostnames: ${hostnames?.join(' and ') ?? 'none'} at ${host ?? 'a listener without one'}`,
    {gateways: [gateway([listener({hostname: host})])], httproutes: [http({hostnames})]},
    taken,
  ]),
  [
    'TLSRouteSpec.hostnames: must intersect, too',
    {
      gateways: [gateway([listener({...TLS, hostname: '*.example.com'})])],
      tlsroutes: [routeOf('TLSRoute', {hostnames: ['a.example.net']})],
    },
    false,
  ],
  [
    'Listener.hostname: ignored for protocols without hostnames',
    {
      gateways: [gateway([listener({protocol: 'TCP', hostname: 'a.example.com'})])],
      tcproutes: [routeOf('TCPRoute', {})],
    },
    true,
  ],

  [
    'ParentReference: one listener must take it in every respect',
    {
      gateways: [
        gateway([
          listener({name: 'a', hostname: 'a.example.com'}),
          listener({name: 'b', hostname: 'b.example.com', ...from({from: 'All'})}),
        ]),
      ],
      httproutes: [http({parentRefs: [{name: 'gw', namespace: 'd'}], hostnames: ['a.example.com']}, 'e')],
    },
    false,
  ],
  [
    'ParentReference.sectionName: the named listener has the wrong hostname',
    {
      gateways: [gateway([listener({hostname: 'a.example.com'}), listener({name: 'b', hostname: 'b.example.com'})])],
      httproutes: [http({parentRefs: [{name: 'gw', sectionName: 'b'}], hostnames: ['a.example.com']})],
    },
    false,
  ],

  [
    'BackendObjectReference: no such Service',
    {gateways: [gateway([listener()])], httproutes: [http({rules: [{backendRefs: [backend({name: 'gone'})]}]})]},
    false,
  ],
  [
    'BackendObjectReference.port: the Service has no such port',
    {gateways: [gateway([listener()])], httproutes: [http({rules: [{backendRefs: [backend({port: 81})]}]})]},
    false,
  ],
  [
    'BackendObjectReference.port: the port of the Service, not the target port',
    {gateways: [gateway([listener()])], httproutes: [http({rules: [{backendRefs: [backend({port: 8080})]}]})]},
    false,
  ],
  [
    'BackendObjectReference.group and kind: written out',
    {
      gateways: [gateway([listener()])],
      httproutes: [http({rules: [{backendRefs: [backend({group: '', kind: 'Service'})]}]})],
    },
    true,
  ],
  [
    'BackendObjectReference.namespace: that of the route, written out',
    {gateways: [gateway([listener()])], httproutes: [http({rules: [{backendRefs: [backend({namespace: 'd'})]}]})]},
    true,
  ],
]

const GRANT = {
  from: [{group: API, kind: 'HTTPRoute', namespace: 'd'}],
  to: [{group: '', kind: 'Service'}],
}
const grant = (spec: object = {}, ns = 'e', name = 'g'): object => ({
  metadata: {name, namespace: ns},
  spec: {...GRANT, ...spec},
})

/** An HTTPRoute of namespace d with the backend e/web. */
const GRANTS: [section: string, grants: object[], allowed: boolean][] = [
  ['BackendObjectReference.namespace: none at all', [], false],
  ['ReferenceGrant: in the namespace of the backend', [grant()], true],
  ['ReferenceGrant: in the namespace of the route', [grant({}, 'd')], false],
  ['ReferenceGrant: in a third one', [grant({}, 'infra')], false],
  [
    'ReferenceGrantFrom.namespace: another',
    [grant({from: [{group: API, kind: 'HTTPRoute', namespace: 'infra'}]})],
    false,
  ],
  ['ReferenceGrantFrom.kind: another', [grant({from: [{group: API, kind: 'TCPRoute', namespace: 'd'}]})], false],
  [
    'ReferenceGrantFrom.group: another',
    [grant({from: [{group: 'example.com', kind: 'HTTPRoute', namespace: 'd'}]})],
    false,
  ],
  [
    'ReferenceGrantSpec.from: joined by or',
    [
      grant({
        from: [
          {group: API, kind: 'TCPRoute', namespace: 'infra'},
          {group: API, kind: 'HTTPRoute', namespace: 'd'},
        ],
      }),
    ],
    true,
  ],
  [
    'ReferenceGrantSpec.from: no entry has all of it',
    [
      grant({
        from: [
          {group: API, kind: 'TCPRoute', namespace: 'd'},
          {group: API, kind: 'HTTPRoute', namespace: 'infra'},
        ],
      }),
    ],
    false,
  ],
  ['ReferenceGrantTo.kind: another', [grant({to: [{group: '', kind: 'Secret'}]})], false],
  ['ReferenceGrantTo.group: another', [grant({to: [{group: 'example.com', kind: 'Service'}]})], false],
  ['ReferenceGrantTo.name: that of the backend', [grant({to: [{group: '', kind: 'Service', name: 'web'}]})], true],
  ['ReferenceGrantTo.name: another', [grant({to: [{group: '', kind: 'Service', name: 'api'}]})], false],
  [
    'ReferenceGrantSpec.to: joined by or',
    [
      grant({
        to: [
          {group: '', kind: 'Service', name: 'api'},
          {group: '', kind: 'Service', name: 'web'},
        ],
      }),
    ],
    true,
  ],
  [
    'ReferenceGrant: additional grants add to the trusted',
    [grant({to: [{group: '', kind: 'Secret'}]}), grant({}, 'e', 'h')],
    true,
  ],
  [
    'ReferenceGrant: two halves are no whole',
    [
      grant({to: [{group: '', kind: 'Secret'}]}),
      grant({from: [{group: API, kind: 'TCPRoute', namespace: 'd'}]}, 'e', 'h'),
    ],
    false,
  ],
]

describe('Gateway API: which listener takes a route', () => {
  for (const [section, world, taken] of ATTACH)
    it(section, () => {
      const found = routes(world)
      expect(found).to.have.length(1)
      if (taken) expect(found[0]!.problems).to.deep.equal([])
      else expect(found[0]!.problems).not.to.deep.equal([])
    })

  it('ParentReference: gateways are the parents by namespace and name', () => {
    const [found] = routes({gateways: [gateway([listener()])], httproutes: [http()]})
    expect(found!.gateways).to.have.length(1)
    expect(found!.gateways[0]).to.contain('d/gw')
  })

  it('ParentReference: a route of several Gateways', () => {
    const [found] = routes({
      gateways: [gateway([listener()]), gateway([listener(from({from: 'All'}))], 'edge', 'infra')],
      httproutes: [http({parentRefs: [{name: 'gw'}, {name: 'edge', namespace: 'infra'}]})],
    })
    expect(found!.gateways).to.have.length(2)
    expect(found!.gateways.join()).to.contain('d/gw').and.to.contain('infra/edge')
    expect(found!.problems).to.deep.equal([])
  })
})

describe('Gateway API: references to another namespace', () => {
  for (const [section, referencegrants, allowed] of GRANTS)
    it(section, () => {
      const [found] = routes({
        gateways: [gateway([listener()])],
        httproutes: [http({rules: [{backendRefs: [backend({namespace: 'e'})]}]})],
        referencegrants,
      })
      expect(found!.service).to.equal('e/web')
      if (allowed) expect(found!.problems).to.deep.equal([])
      else expect(found!.problems).not.to.deep.equal([])
    })

  it('ReferenceGrantFrom.kind: TCPRoute', () => {
    const world = (kind: string): World => ({
      gateways: [gateway([listener({protocol: 'TCP'})])],
      tcproutes: [routeOf('TCPRoute', {rules: [{backendRefs: [backend({namespace: 'e'})]}]})],
      referencegrants: [grant({from: [{group: API, kind, namespace: 'd'}]})],
    })
    expect(routes(world('TCPRoute'))[0]!.problems).to.deep.equal([])
    expect(routes(world('HTTPRoute'))[0]!.problems).not.to.deep.equal([])
  })

  it('ReferenceGrant: a grant is no Service', () => {
    const [found] = routes({
      gateways: [gateway([listener()])],
      httproutes: [http({rules: [{backendRefs: [backend({name: 'gone', namespace: 'e'})]}]})],
      referencegrants: [grant()],
    })
    expect(found!.problems).not.to.deep.equal([])
  })
})

const MATCHES: [section: string, rule: object, matches: string[]][] = [
  ['HTTPRouteRule.matches: none is the prefix /', {}, ['/']],
  ['HTTPRouteRule.matches: an empty list, too', {matches: []}, ['/']],
  ['HTTPPathMatch.type: PathPrefix', {matches: [{path: {type: 'PathPrefix', value: '/x'}}]}, ['/x']],
  ['HTTPPathMatch.type: PathPrefix by default', {matches: [{path: {value: '/x'}}]}, ['/x']],
  ['HTTPPathMatch.value: / by default', {matches: [{path: {type: 'PathPrefix'}}]}, ['/']],
  ['HTTPPathMatch.type: Exact', {matches: [{path: {type: 'Exact', value: '/x'}}]}, ['= /x']],
  [
    'HTTPPathMatch.type: RegularExpression',
    {matches: [{path: {type: 'RegularExpression', value: '/x.*'}}]},
    ['~ /x.*'],
  ],
  ['HTTPRouteMatch.method', {matches: [{method: 'GET', path: {type: 'PathPrefix', value: '/x'}}]}, ['GET /x']],
  [
    'HTTPRouteMatch.method: with Exact',
    {matches: [{method: 'POST', path: {type: 'Exact', value: '/x'}}]},
    ['POST = /x'],
  ],
  ['HTTPRouteMatch.path: the prefix / by default', {matches: [{method: 'PUT'}]}, ['PUT /']],
  [
    'HTTPRouteRule.matches: any one of them, in order',
    {matches: [{path: {value: '/b'}}, {path: {type: 'Exact', value: '/a'}}]},
    ['/b', '= /a'],
  ],
]

const SHARES: [section: string, weights: (number | undefined)[], shares: number[]][] = [
  ['BackendRef.weight: one backend', [undefined], [1]],
  ['BackendRef.weight: one backend, any weight above 0', [7], [1]],
  ['BackendRef.weight: 1 by default', [undefined, undefined], [0.5, 0.5]],
  ['BackendRef.weight: weight / sum', [90, 10], [0.9, 0.1]],
  ['BackendRef.weight: the sum need not be 100', [1, 3], [0.25, 0.75]],
  ['BackendRef.weight: one by default', [3, undefined], [0.75, 0.25]],
  ['BackendRef.weight: 0 is no traffic', [0, 5], [0, 1]],
  ['BackendRef.weight: one backend, 0', [0], [0]],
  ['BackendRef.weight: all 0', [0, 0], [0, 0]],
]

describe('Gateway API: what a route sends where', () => {
  const GATEWAYS = [gateway([listener(from({from: 'All'}))])]

  for (const [section, rule, matches] of MATCHES)
    it(section, () => {
      const [found] = routes({gateways: GATEWAYS, httproutes: [http({rules: [{backendRefs: [backend()], ...rule}]})]})
      expect(found!.matches).to.deep.equal(matches)
    })

  for (const [section, weights, shares] of SHARES)
    it(section, () => {
      const backendRefs = weights.map((weight, index) => backend({name: ['web', 'api'][index], weight}))
      const found = routes({gateways: GATEWAYS, httproutes: [http({rules: [{backendRefs}]})]})
      expect(found.map(({service: id}) => id)).to.deep.equal(['d/web', 'd/api'].slice(0, weights.length))
      expect(found.map(({share}) => share)).to.deep.equal(shares)
    })

  it('HTTPRouteRule: the sum of weights is that of the rule', () => {
    const rules = [{backendRefs: [backend()]}, {backendRefs: [backend({weight: 5}), backend({name: 'api', weight: 5})]}]
    const found = routes({gateways: GATEWAYS, httproutes: [http({rules})]})
    expect(found.map(({share}) => share)).to.deep.equal([1, 0.5, 0.5])
  })

  it('HTTPRouteRule: an invalid backend keeps its share, and the other has no problem', () => {
    const rules = [{backendRefs: [backend(), backend({name: 'gone'})]}]
    const found = routes({gateways: GATEWAYS, httproutes: [http({rules})]})
    expect(found.map(({service: id, share, problems}) => [id, share, problems.length > 0])).to.deep.equal([
      ['d/web', 0.5, false],
      ['d/gone', 0.5, true],
    ])
  })

  it('HTTPRouteRule.backendRefs: a rule without any (RequestRedirect) sends nothing', () => {
    const rules = [
      {filters: [{type: 'RequestRedirect', requestRedirect: {scheme: 'https'}}]},
      {matches: [{path: {value: '/x'}}], backendRefs: [backend()]},
    ]
    const found = routes({gateways: GATEWAYS, httproutes: [http({rules})]})
    expect(found.map(({matches, service: id}) => [...matches, id])).to.deep.equal([['/x', 'd/web']])
  })

  it('HTTPRouteSpec.rules: none', () => {
    expect(routes({gateways: GATEWAYS, httproutes: [http({rules: undefined})]})).to.deep.equal([])
  })

  const STRANGE: [section: string, reference: object][] = [
    ['kind: another', {group: 'multicluster.x-k8s.io', kind: 'ServiceImport'}],
    ['group: the Service of another API', {group: 'example.com', kind: 'Service'}],
  ]
  for (const [section, reference] of STRANGE)
    it(`BackendObjectReference.${section} is not the Service of that name`, () => {
      const found = routes({gateways: GATEWAYS, httproutes: [http({rules: [{backendRefs: [backend(reference)]}]})]})
      expect(found.filter(({service: id, problems}) => id === 'd/web' && problems.length === 0)).to.deep.equal([])
    })

  it('BackendObjectReference.kind: what is no Service has its part of the weights', () => {
    const backendRefs = [backend(), backend({group: 'example.com', kind: 'Bucket', name: 'b', weight: 3})]
    const found = routes({gateways: GATEWAYS, httproutes: [http({rules: [{backendRefs}]})]})
    expect(found.find(({service: id}) => id === 'd/web')!.share).to.equal(0.25)
  })

  it('the names of routes, Services and hostnames', () => {
    const tcp = {name: 'tcp', port: 90, protocol: 'TCP'}
    const tls = {...TLS, name: 'tls'}
    const found = routes({
      gateways: [gateway([listener(), tcp, tls])],
      httproutes: [http({hostnames: ['a.example.com', '*.b.example.com']})],
      tcproutes: [routeOf('TCPRoute', {})],
      tlsroutes: [routeOf('TLSRoute', {hostnames: ['c.example.com']})],
    })
    const rows = found.map(({route, hostnames, service: id, port, problems}) => ({
      route,
      hostnames,
      id,
      port,
      problems,
    }))
    expect(rows).to.have.deep.members([
      {route: 'HTTPRoute d/r', hostnames: ['a.example.com', '*.b.example.com'], id: 'd/web', port: 80, problems: []},
      {route: 'TCPRoute d/r', hostnames: [], id: 'd/web', port: 80, problems: []},
      {route: 'TLSRoute d/r', hostnames: ['c.example.com'], id: 'd/web', port: 80, problems: []},
    ])
  })

  it('HTTPRouteSpec.hostnames: those that do not match the listener must be ignored', () => {
    const [found] = routes({
      gateways: [gateway([listener({hostname: '*.example.com'})])],
      httproutes: [http({hostnames: ['test.example.com', 'test.example.net']})],
    })
    expect(found!.hostnames).to.deep.equal(['test.example.com'])
  })

  it('no Gateway API in the cluster', () => {
    const {cluster} = snapshotFromFiles(
      new Map([['api/services.json', JSON.stringify({items: [service('web', 'd')]})]]),
    )
    expect(gatewayRoutes(cluster)).to.deep.equal([])
  })
})
