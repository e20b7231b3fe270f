import {expect} from 'chai'
import {
  clusterDomain,
  followCname,
  lookupSteps,
  namesOf,
  parseResolvConf,
  podName,
  recordsOf,
  resolverOf,
  reverseName,
  type Resolver,
} from '../../../src/discovery/dns.js'
import type {ClusterState, Pod, Service} from '../../../src/model/kube.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

function clusterOf(lists: Record<string, object[]>): ClusterState {
  const all: Record<string, object[]> = {services: [], pods: [], ...lists}
  return snapshotFromFiles(
    new Map(Object.entries(all).map(([name, items]) => [`api/${name}.json`, JSON.stringify({items})])),
  ).cluster
}

const HTTP = {name: 'http', port: 8080, targetPort: 8080, protocol: 'TCP'}

const service = (name: string, spec: object = {}, namespace = 'default'): object => ({
  metadata: {name, namespace},
  spec: {type: 'ClusterIP', clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'], ports: [HTTP], ...spec},
})
const headless = (name: string, spec: object = {}): object =>
  service(name, {clusterIP: 'None', clusterIPs: ['None'], ...spec})
const external = (name: string, externalName: string): object => ({
  metadata: {name, namespace: 'default'},
  spec: {type: 'ExternalName', externalName, ports: [HTTP]},
})
const slice = (name: string, endpoints: object[], more: object = {}): object => ({
  metadata: {name: `${name}-1`, namespace: 'default', labels: {'kubernetes.io/service-name': name}},
  addressType: 'IPv4',
  ports: [{name: 'http', port: 8080, protocol: 'TCP'}],
  endpoints,
  ...more,
})
const PLAIN = {ports: [{port: 80, protocol: 'TCP'}]}
const PLAIN_SLICE = {ports: [{name: '', port: 80, protocol: 'TCP'}]}
const endpoint = (address: string, more: object = {}): object => ({
  addresses: [address],
  conditions: {ready: true, serving: true, terminating: false},
  ...more,
})
const corefile = (text: string): object => ({
  metadata: {name: 'coredns', namespace: 'kube-system'},
  data: {Corefile: text},
})
const named = ({services}: ClusterState, name: string): Service => services.find((each) => each.name === name)!

describe('DNS: the cluster domain (CoreDNS plugin kubernetes, syntax)', () => {
  const CASES: [name: string, text: string | undefined, domain: string, assumed: boolean][] = [
    ['no ConfigMap', undefined, 'cluster.local', true],
    ['no kubernetes plugin', '.:53 {\n    forward . /etc/resolv.conf\n}\n', 'cluster.local', true],
    ['a zone', '.:53 {\n    kubernetes cluster.example in-addr.arpa ip6.arpa {\n    }\n}\n', 'cluster.example', false],
    [
      'a zone, indented by tabs',
      '.:53 {\n\tkubernetes cluster.example in-addr.arpa {\n\t}\n}\n',
      'cluster.example',
      false,
    ],
    ['without a block', '.:53 {\n    kubernetes cluster.example\n}\n', 'cluster.example', false],
    [
      'with the root dot',
      '.:53 {\n    kubernetes cluster.example. in-addr.arpa. {\n    }\n}\n',
      'cluster.example',
      false,
    ],
    ['in capitals', '.:53 {\n    kubernetes Cluster.EXAMPLE in-addr.arpa {\n    }\n}\n', 'cluster.example', false],
    [
      'cluster.local by name',
      '.:53 {\n    kubernetes cluster.local in-addr.arpa {\n    }\n}\n',
      'cluster.local',
      false,
    ],
    [
      'behind a comment',
      '.:53 {\n    # kubernetes old.example in-addr.arpa {\n    kubernetes cluster.example {\n    }\n}\n',
      'cluster.example',
      false,
    ],
    [
      'the first zone that is not a reverse one is the primary',
      '.:53 {\n    kubernetes in-addr.arpa ip6.arpa cluster.example {\n    }\n}\n',
      'cluster.example',
      false,
    ],
  ]
  for (const [name, text, domain, assumed] of CASES)
    it(name, () => {
      const cluster = clusterOf(text === undefined ? {} : {configmaps: [corefile(text)]})
      expect(clusterDomain(cluster)).to.deep.equal({domain, assumed})
    })

  it('a coredns ConfigMap of another namespace says nothing', () => {
    const other = {metadata: {name: 'coredns', namespace: 'd'}, data: {Corefile: 'kubernetes cluster.example {\n}\n'}}
    expect(clusterDomain(clusterOf({configmaps: [other]}))).to.deep.equal({domain: 'cluster.local', assumed: true})
  })
})

describe('DNS: the names of a Service (Kubernetes docs, DNS for Services and Pods)', () => {
  it('from the shortest to the whole', () => {
    const names = namesOf(named(clusterOf({services: [service('web', {}, 'shop')]}), 'web'), 'cluster.example')
    expect(names.map(({name}) => name)).to.deep.equal([
      'web',
      'web.shop',
      'web.shop.svc',
      'web.shop.svc.cluster.example',
    ])
    for (const {from} of names) expect(from).to.be.a('string').and.not.equal('')
  })
})

const WEB = 'web.default.svc.cluster.local'

/** What DNS-Based Service Discovery 1.1.0 has for `web`. */
const RECORDS: [section: string, lists: Record<string, object[]>, records: string[]][] = [
  [
    '2.3.1 A, 2.3.2 SRV and 2.3.3 PTR of a cluster IP',
    {services: [service('web')]},
    [`${WEB} A 10.96.0.1`, `_http._tcp.${WEB} SRV 8080 ${WEB}`, `1.0.96.10.in-addr.arpa PTR ${WEB}`],
  ],
  [
    '2.3.1 AAAA of the second family, 2.3.3 PTR in nibbles',
    {services: [service('web', {clusterIPs: ['10.96.0.1', 'fd00::a'], ports: [{port: 80, protocol: 'TCP'}]})]},
    [
      `${WEB} A 10.96.0.1`,
      `${WEB} AAAA fd00::a`,
      `1.0.96.10.in-addr.arpa PTR ${WEB}`,
      `a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR ${WEB}`,
    ],
  ],
  [
    '2.3.2 an unnamed port has no SRV',
    {services: [service('web', {ports: [{port: 80, protocol: 'TCP'}]})]},
    [`${WEB} A 10.96.0.1`, `1.0.96.10.in-addr.arpa PTR ${WEB}`],
  ],
  [
    '2.3.2 the number is that of the Service port, one SRV for each named port and its protocol',
    {
      services: [
        service('web', {
          ports: [
            {name: 'http', port: 80, targetPort: 8080, protocol: 'TCP'},
            {name: 'dns', port: 53, protocol: 'UDP'},
            {name: 'dns-tcp', port: 53, protocol: 'TCP'},
            {name: 'sig', port: 36412, protocol: 'SCTP'},
          ],
        }),
      ],
    },
    [
      `${WEB} A 10.96.0.1`,
      `_http._tcp.${WEB} SRV 80 ${WEB}`,
      `_dns._udp.${WEB} SRV 53 ${WEB}`,
      `_dns-tcp._tcp.${WEB} SRV 53 ${WEB}`,
      `_sig._sctp.${WEB} SRV 36412 ${WEB}`,
      `1.0.96.10.in-addr.arpa PTR ${WEB}`,
    ],
  ],
  [
    '2.3 a cluster IP needs no endpoints',
    {services: [service('web', {ports: []})], endpointslices: [slice('web', [endpoint('10.1.1.2', {hostname: 'a'})])]},
    [`${WEB} A 10.96.0.1`, `1.0.96.10.in-addr.arpa PTR ${WEB}`],
  ],
  [
    '2.3 NodePort and LoadBalancer are Services with a cluster IP',
    {
      services: [
        {
          ...service('web', {type: 'LoadBalancer', ports: [{port: 80, nodePort: 30080, protocol: 'TCP'}]}),
          status: {loadBalancer: {ingress: [{ip: '192.0.2.80'}]}},
        },
      ],
    },
    [`${WEB} A 10.96.0.1`, `1.0.96.10.in-addr.arpa PTR ${WEB}`],
  ],
  [
    '2.4.1 and 2.4.2 headless with hostnames, 2.4.3 PTR of each',
    {
      services: [headless('web')],
      endpointslices: [
        slice('web', [endpoint('10.1.1.2', {hostname: 'web-0'}), endpoint('10.1.1.3', {hostname: 'web-1'})]),
      ],
    },
    [
      `${WEB} A 10.1.1.2`,
      `${WEB} A 10.1.1.3`,
      `web-0.${WEB} A 10.1.1.2`,
      `web-1.${WEB} A 10.1.1.3`,
      `_http._tcp.${WEB} SRV 8080 web-0.${WEB}`,
      `_http._tcp.${WEB} SRV 8080 web-1.${WEB}`,
      `2.1.1.10.in-addr.arpa PTR web-0.${WEB}`,
      `3.1.1.10.in-addr.arpa PTR web-1.${WEB}`,
    ],
  ],
  [
    '2.1 a hostname of the system: the address with dashes, and no PTR',
    {services: [headless('web')], endpointslices: [slice('web', [endpoint('10.1.1.2')])]},
    [`${WEB} A 10.1.1.2`, `10-1-1-2.${WEB} A 10.1.1.2`, `_http._tcp.${WEB} SRV 8080 10-1-1-2.${WEB}`],
  ],
  [
    '2.4.1 AAAA',
    {
      services: [headless('web', {ipFamilies: ['IPv6'], ...PLAIN})],
      endpointslices: [slice('web', [endpoint('fd00::1:2')], {...PLAIN_SLICE, addressType: 'IPv6'})],
    },
    [`${WEB} AAAA fd00::1:2`, `fd00--1-2.${WEB} AAAA fd00::1:2`],
  ],
  [
    '2.4.1 several addresses of one hostname, in slices of both families',
    {
      services: [headless('web')],
      endpointslices: [
        slice('web', [endpoint('10.1.1.2', {hostname: 'web-0'})]),
        slice('web', [endpoint('fd00::2', {hostname: 'web-0'})], {
          metadata: {name: 'web-2', namespace: 'default', labels: {'kubernetes.io/service-name': 'web'}},
          addressType: 'IPv6',
        }),
      ],
    },
    [
      `${WEB} A 10.1.1.2`,
      `${WEB} AAAA fd00::2`,
      `web-0.${WEB} A 10.1.1.2`,
      `web-0.${WEB} AAAA fd00::2`,
      `_http._tcp.${WEB} SRV 8080 web-0.${WEB}`,
      `2.1.1.10.in-addr.arpa PTR web-0.${WEB}`,
      `2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR web-0.${WEB}`,
    ],
  ],
  [
    '2.4.1 only ready endpoints',
    {
      services: [headless('web', PLAIN)],
      endpointslices: [
        slice(
          'web',
          [
            endpoint('10.1.1.2'),
            endpoint('10.1.1.3', {conditions: {ready: false, serving: false, terminating: false}}),
            endpoint('10.1.1.4', {conditions: {ready: false, serving: true, terminating: true}}),
          ],
          PLAIN_SLICE,
        ),
      ],
    },
    [`${WEB} A 10.1.1.2`, `10-1-1-2.${WEB} A 10.1.1.2`],
  ],
  [
    '2.4.1 a condition that is not set counts as ready (EndpointSlice v1, conditions.ready)',
    {
      services: [headless('web', PLAIN)],
      endpointslices: [
        slice('web', [{addresses: ['10.1.1.2'], conditions: {}}, {addresses: ['10.1.1.3']}], PLAIN_SLICE),
      ],
    },
    [`${WEB} A 10.1.1.2`, `${WEB} A 10.1.1.3`, `10-1-1-2.${WEB} A 10.1.1.2`, `10-1-1-3.${WEB} A 10.1.1.3`],
  ],
  [
    '2.1 ready: publishNotReadyAddresses',
    {
      services: [headless('web', {publishNotReadyAddresses: true, ...PLAIN})],
      endpointslices: [
        slice(
          'web',
          [endpoint('10.1.1.3', {conditions: {ready: false, serving: false, terminating: false}})],
          PLAIN_SLICE,
        ),
      ],
    },
    [`${WEB} A 10.1.1.3`, `10-1-1-3.${WEB} A 10.1.1.3`],
  ],
  [
    '2.4.1 no ready endpoint, no name at all',
    {
      services: [headless('web')],
      endpointslices: [slice('web', [endpoint('10.1.1.3', {hostname: 'web-0', conditions: {ready: false}})])],
    },
    [],
  ],
  ['2.4.1 no slice, no name at all', {services: [headless('web')]}, []],
  [
    '2.4.2 N ready endpoints and M named ports make N × M SRV',
    {
      services: [
        headless('web', {
          ports: [HTTP, {name: 'peer', port: 7000, targetPort: 7000, protocol: 'UDP'}, {port: 9, protocol: 'TCP'}],
        }),
      ],
      endpointslices: [
        slice('web', [endpoint('10.1.1.2'), endpoint('10.1.1.3')], {
          ports: [
            {name: 'http', port: 8080, protocol: 'TCP'},
            {name: 'peer', port: 7000, protocol: 'UDP'},
            {name: '', port: 9, protocol: 'TCP'},
          ],
        }),
      ],
    },
    [
      `${WEB} A 10.1.1.2`,
      `${WEB} A 10.1.1.3`,
      `10-1-1-2.${WEB} A 10.1.1.2`,
      `10-1-1-3.${WEB} A 10.1.1.3`,
      `_http._tcp.${WEB} SRV 8080 10-1-1-2.${WEB}`,
      `_http._tcp.${WEB} SRV 8080 10-1-1-3.${WEB}`,
      `_peer._udp.${WEB} SRV 7000 10-1-1-2.${WEB}`,
      `_peer._udp.${WEB} SRV 7000 10-1-1-3.${WEB}`,
    ],
  ],
  [
    '2.4 an endpoint in two slices is one (EndpointSlice docs, Duplicate endpoints)',
    {
      services: [headless('web')],
      endpointslices: [
        slice('web', [endpoint('10.1.1.2', {hostname: 'web-0'})]),
        slice('web', [endpoint('10.1.1.2', {hostname: 'web-0'})], {
          metadata: {name: 'web-2', namespace: 'default', labels: {'kubernetes.io/service-name': 'web'}},
        }),
      ],
    },
    [
      `${WEB} A 10.1.1.2`,
      `web-0.${WEB} A 10.1.1.2`,
      `_http._tcp.${WEB} SRV 8080 web-0.${WEB}`,
      `2.1.1.10.in-addr.arpa PTR web-0.${WEB}`,
    ],
  ],
  [
    '2.4 the slices of other Services and namespaces are not its own',
    {
      services: [headless('web'), headless('api')],
      endpointslices: [
        slice('api', [endpoint('10.1.1.2')]),
        slice('web', [endpoint('10.1.1.3')], {
          metadata: {name: 'web-1', namespace: 'other', labels: {'kubernetes.io/service-name': 'web'}},
        }),
      ],
    },
    [],
  ],
  ['2.5 CNAME, and nothing else', {services: [external('web', 'www.example.com')]}, [`${WEB} CNAME www.example.com`]],
  ['2.5 the root dot is left out', {services: [external('web', 'www.example.com.')]}, [`${WEB} CNAME www.example.com`]],
  [
    '2.1 names are compared in lower case',
    {services: [external('web', 'WWW.Example.COM')]},
    [`${WEB} CNAME www.example.com`],
  ],
  [
    '2.5 an address as externalName is still a name (Kubernetes docs, type ExternalName)',
    {services: [external('web', '192.0.2.53')]},
    [`${WEB} CNAME 192.0.2.53`],
  ],
]

describe('DNS: records (DNS-Based Service Discovery 1.1.0)', () => {
  for (const [section, lists, records] of RECORDS)
    it(section, () => {
      const cluster = clusterOf(lists)
      const found = recordsOf(cluster, named(cluster, 'web'), 'cluster.local')
      expect(found.map(({name, type, data}) => `${name} ${type} ${data}`).sort()).to.deep.equal([...records].sort())
    })

  it('2.1 <zone> is the configured domain', () => {
    const cluster = clusterOf({services: [service('web', {}, 'shop')]})
    expect(recordsOf(cluster, named(cluster, 'web'), 'k.example').map(({name}) => name)).to.have.members([
      'web.shop.svc.k.example',
      '_http._tcp.web.shop.svc.k.example',
      '1.0.96.10.in-addr.arpa',
    ])
  })

  const REVERSE: [section: string, ip: string, name: string][] = [
    ['2.3.3 IPv4', '10.3.0.1', '1.0.3.10.in-addr.arpa'],
    [
      '2.3.3 IPv6, without any simplification',
      '2001:db8::567:89ab',
      'b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa',
    ],
    ['2.3.3 IPv6 in capitals', 'FD00::A', 'a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa'],
    [
      '2.3.3 IPv6 in full',
      '2001:0db8:0000:0000:0000:0000:0000:0001',
      '1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa',
    ],
  ]
  for (const [section, ip, name] of REVERSE) it(section, () => expect(reverseName(ip)).to.equal(name))

  it('what is no address has no reverse name', () => expect(reverseName('web')).to.equal(undefined))

  const POD_NAMES: [section: string, ip: string, name: string][] = [
    ['2.6 the name of a pod', '10.1.2.3', '10-1-2-3.shop.pod.cluster.example'],
    ['2.6 the name of a pod, IPv6', '2001:db8::1', '2001-db8--1.shop.pod.cluster.example'],
  ]
  for (const [section, ip, name] of POD_NAMES)
    it(section, () => {
      const pod = {metadata: {name: 'a', namespace: 'shop'}, spec: {}, status: {podIP: ip}}
      expect(podName(clusterOf({pods: [pod]}).pods![0]!, ip, 'cluster.example')).to.equal(name)
    })
})

describe('DNS: resolv.conf(5)', () => {
  const CASES: [section: string, text: string, expected: ReturnType<typeof parseResolvConf>][] = [
    ['an empty file: ndots is 1', '', {nameservers: [], searches: [], ndots: 1}],
    [
      'nameserver: one per keyword, in order',
      'nameserver 192.0.2.1\nnameserver 2001:db8::1\n',
      {nameservers: ['192.0.2.1', '2001:db8::1'], searches: [], ndots: 1},
    ],
    [
      'search: spaces or tabs separate the names',
      'search\ta.example  b.example\tc.example\nnameserver\t192.0.2.1',
      {nameservers: ['192.0.2.1'], searches: ['a.example', 'b.example', 'c.example'], ndots: 1},
    ],
    [
      'search: the last instance wins',
      'search a.example b.example\nsearch c.example\n',
      {nameservers: [], searches: ['c.example'], ndots: 1},
    ],
    ['domain: a search list of one', 'domain a.example\n', {nameservers: [], searches: ['a.example'], ndots: 1}],
    [
      'domain and search exclude each other: search last',
      'domain a.example\nsearch b.example c.example\n',
      {nameservers: [], searches: ['b.example', 'c.example'], ndots: 1},
    ],
    [
      'domain and search exclude each other: domain last',
      'search b.example c.example\ndomain a.example\n',
      {nameservers: [], searches: ['a.example'], ndots: 1},
    ],
    [
      'comments: # or ; in the first column',
      '# nameserver 192.0.2.9\n;search x.example\n#options ndots:9\nnameserver 192.0.2.1\n',
      {nameservers: ['192.0.2.1'], searches: [], ndots: 1},
    ],
    ['options: ndots among others', 'options rotate ndots:3 timeout:2\n', {nameservers: [], searches: [], ndots: 3}],
    ['options: ndots:0', 'options ndots:0\n', {nameservers: [], searches: [], ndots: 0}],
    ['options: a later ndots wins', 'options ndots:2\noptions ndots:3\n', {nameservers: [], searches: [], ndots: 3}],
    [
      'options: a later line without ndots leaves it',
      'options ndots:2\noptions timeout:1 edns0\n',
      {nameservers: [], searches: [], ndots: 2},
    ],
    ['options: ndots is silently capped to 15', 'options ndots:20\n', {nameservers: [], searches: [], ndots: 15}],
  ]
  for (const [section, text, expected] of CASES)
    it(section, () => {
      const {nameservers, searches, ndots} = parseResolvConf(text)
      expect({nameservers, searches, ndots}).to.deep.equal(expected)
    })
})

const NODE = 'nameserver 192.0.2.53\nsearch corp.example\noptions ndots:2\n'
const CLUSTER_SEARCH = ['default.svc.cluster.local', 'svc.cluster.local', 'cluster.local']
const many = (count: number): string[] => Array.from({length: count}, (_, index) => `s${index}.example`)
const KUBE_DNS = {
  metadata: {name: 'kube-dns', namespace: 'kube-system', labels: {'k8s-app': 'kube-dns'}},
  spec: {type: 'ClusterIP', clusterIP: '10.96.0.10', clusterIPs: ['10.96.0.10'], ports: []},
}
const FALSE_DNS = {
  metadata: {name: 'kube-dns', namespace: 'default', labels: {'k8s-app': 'kube-dns'}},
  spec: {type: 'ClusterIP', clusterIP: '10.96.0.66', clusterIPs: ['10.96.0.66'], ports: []},
}

type Resolved = [nameservers: string[], searches: string[], ndots: number]

/** pkg/kubelet/network/dns/dns.go, by function. */
const RESOLVERS: [name: string, spec: object, node: string | undefined, resolved: Resolved][] = [
  [
    'getPodDNSType: ClusterFirst',
    {dnsPolicy: 'ClusterFirst'},
    NODE,
    [['10.96.0.10'], [...CLUSTER_SEARCH, 'corp.example'], 5],
  ],
  ['getPodDNSType: no policy is ClusterFirst', {}, NODE, [['10.96.0.10'], [...CLUSTER_SEARCH, 'corp.example'], 5]],
  [
    'getPodDNSType: ClusterFirst with hostNetwork acts as Default',
    {dnsPolicy: 'ClusterFirst', hostNetwork: true},
    NODE,
    [['192.0.2.53'], ['corp.example'], 2],
  ],
  [
    'getPodDNSType: ClusterFirstWithHostNet',
    {dnsPolicy: 'ClusterFirstWithHostNet', hostNetwork: true},
    NODE,
    [['10.96.0.10'], [...CLUSTER_SEARCH, 'corp.example'], 5],
  ],
  ['getPodDNSType: Default', {dnsPolicy: 'Default'}, NODE, [['192.0.2.53'], ['corp.example'], 2]],
  [
    'getPodDNSType: Default, the file of the node has no options',
    {dnsPolicy: 'Default'},
    'nameserver 192.0.2.53\n',
    [['192.0.2.53'], [], 1],
  ],
  [
    'getPodDNSType: None has nothing of the node or the cluster',
    {dnsPolicy: 'None', dnsConfig: {nameservers: ['192.0.2.1'], searches: ['x.example']}},
    NODE,
    [['192.0.2.1'], ['x.example'], 1],
  ],
  [
    'getPodDNSType: None with options',
    {dnsPolicy: 'None', dnsConfig: {nameservers: ['192.0.2.1'], options: [{name: 'ndots', value: '3'}]}},
    NODE,
    [['192.0.2.1'], [], 3],
  ],
  [
    'generateSearchesForDNSClusterFirst: without the file of the node',
    {dnsPolicy: 'ClusterFirst'},
    undefined,
    [['10.96.0.10'], CLUSTER_SEARCH, 5],
  ],
  [
    'generateSearchesForDNSClusterFirst: duplicates of the node are left out',
    {dnsPolicy: 'ClusterFirst'},
    'search cluster.local corp.example corp.example\n',
    [['10.96.0.10'], [...CLUSTER_SEARCH, 'corp.example'], 5],
  ],
  [
    'generateSearchesForDNSClusterFirst: ndots of the node does not count',
    {dnsPolicy: 'ClusterFirst'},
    'options ndots:1\n',
    [['10.96.0.10'], CLUSTER_SEARCH, 5],
  ],
  [
    'parseResolvConf: a trailing dot of a search domain is taken off',
    {dnsPolicy: 'ClusterFirst'},
    'search cluster.local. corp.example.\n',
    [['10.96.0.10'], [...CLUSTER_SEARCH, 'corp.example'], 5],
  ],
  [
    'parseResolvConf: the last search line wins',
    {dnsPolicy: 'Default'},
    'nameserver 192.0.2.53\nsearch a.example\nsearch b.example\n',
    [['192.0.2.53'], ['b.example'], 1],
  ],
  [
    'parseResolvConf: the search domain "." of the node is left out',
    {dnsPolicy: 'ClusterFirst'},
    'nameserver 192.0.2.53\nsearch .\n',
    [['10.96.0.10'], CLUSTER_SEARCH, 5],
  ],
  [
    'parseResolvConf: a domain line is not read',
    {dnsPolicy: 'ClusterFirst'},
    'nameserver 192.0.2.53\ndomain corp.example\n',
    [['10.96.0.10'], CLUSTER_SEARCH, 5],
  ],
  [
    'appendDNSConfig: nameservers and searches come after, without duplicates',
    {
      dnsPolicy: 'ClusterFirst',
      dnsConfig: {
        nameservers: ['10.96.0.10', '192.0.2.1'],
        searches: ['x.example', 'svc.cluster.local', 'corp.example', 'y.example'],
      },
    },
    NODE,
    [['10.96.0.10', '192.0.2.1'], [...CLUSTER_SEARCH, 'corp.example', 'x.example', 'y.example'], 5],
  ],
  [
    'mergeDNSOptions: ndots of the pod overrides 5',
    {dnsPolicy: 'ClusterFirst', dnsConfig: {options: [{name: 'ndots', value: '2'}, {name: 'edns0'}]}},
    undefined,
    [['10.96.0.10'], CLUSTER_SEARCH, 2],
  ],
  [
    'mergeDNSOptions: ndots of the pod overrides that of the node',
    {dnsPolicy: 'Default', dnsConfig: {options: [{name: 'ndots', value: '4'}]}},
    NODE,
    [['192.0.2.53'], ['corp.example'], 4],
  ],
  [
    'mergeDNSOptions: other options leave ndots',
    {dnsPolicy: 'ClusterFirst', dnsConfig: {options: [{name: 'single-request-reopen'}]}},
    NODE,
    [['10.96.0.10'], [...CLUSTER_SEARCH, 'corp.example'], 5],
  ],
  [
    'formDNSNameserversFitsLimits: three nameservers',
    {dnsPolicy: 'ClusterFirst', dnsConfig: {nameservers: ['192.0.2.1', '192.0.2.2', '192.0.2.3']}},
    undefined,
    [['10.96.0.10', '192.0.2.1', '192.0.2.2'], CLUSTER_SEARCH, 5],
  ],
  [
    'formDNSNameserversFitsLimits: three nameservers of the node',
    {dnsPolicy: 'Default'},
    [1, 2, 3, 4].map((last) => `nameserver 192.0.2.${last}\n`).join(''),
    [['192.0.2.1', '192.0.2.2', '192.0.2.3'], [], 1],
  ],
  [
    'formDNSSearchFitsLimits: 32 search domains fit',
    {dnsPolicy: 'ClusterFirst', dnsConfig: {searches: many(29)}},
    undefined,
    [['10.96.0.10'], [...CLUSTER_SEARCH, ...many(29)], 5],
  ],
  [
    'formDNSSearchFitsLimits: the 33rd is left out',
    {dnsPolicy: 'ClusterFirst', dnsConfig: {searches: many(31)}},
    'search corp.example\n',
    [['10.96.0.10'], [...CLUSTER_SEARCH, 'corp.example', ...many(28)], 5],
  ],
]

const podOf = (spec: object): object => ({
  metadata: {name: 'a', namespace: 'default'},
  spec,
  status: {phase: 'Running', podIP: '10.1.2.3', podIPs: [{ip: '10.1.2.3'}]},
})
function resolve(lists: Record<string, object[]>, spec: object, node: string | undefined): Resolver {
  const cluster = clusterOf({...lists, pods: [podOf(spec)]})
  return resolverOf(cluster, (cluster.pods as Pod[])[0]!, node)
}

describe('DNS: the resolver of a pod (kubelet dns.go)', () => {
  for (const [name, spec, node, [nameservers, searches, ndots]] of RESOLVERS)
    it(name, () => {
      const {notes, ...found} = resolve({services: [FALSE_DNS, KUBE_DNS]}, spec, node)
      expect(found).to.deep.equal({nameservers, searches, ndots})
      expect(notes).to.be.an('array')
    })

  it('generateSearchesForDNSClusterFirst: the domain of the cluster', () => {
    const lists = {
      services: [KUBE_DNS],
      configmaps: [corefile('.:53 {\n  kubernetes k.example in-addr.arpa {\n  }\n}')],
    }
    const {searches} = resolve(lists, {dnsPolicy: 'ClusterFirst'}, undefined)
    expect(searches).to.deep.equal(['default.svc.k.example', 'svc.k.example', 'k.example'])
  })

  it('GetPodDNS: a cluster DNS that is not known is said', () => {
    expect(resolve({services: [FALSE_DNS]}, {dnsPolicy: 'ClusterFirst'}, NODE).notes).not.to.deep.equal([])
  })

  it('getHostDNSConfig: a file of the node that is not known is said', () => {
    const {nameservers, searches, notes} = resolve({services: [KUBE_DNS]}, {dnsPolicy: 'Default'}, undefined)
    expect({nameservers, searches}).to.deep.equal({nameservers: [], searches: []})
    expect(notes).not.to.deep.equal([])
  })
})

const ZONE = {
  services: [
    service('web'),
    service('api', {clusterIP: '10.96.0.2', clusterIPs: ['10.96.0.2']}, 'other'),
    headless('pets'),
    headless('empty'),
    external('out', 'www.example.com'),
  ],
  endpointslices: [slice('pets', [endpoint('10.1.1.2', {hostname: 'pets-0'})])],
  pods: [podOf({})],
}
const SEARCHES = [...CLUSTER_SEARCH, 'corp.example']
const NONE = 'no such name'
const OUT = 'asked outside the cluster'
const FOUND = 'found'

/** `as is` after or before the search list: resolv.conf(5), options ndots; glibc res_nsearch. */
const LOOKUPS: [
  name: string,
  asked: string,
  resolver: Partial<Resolver>,
  steps: [question: string, answer: string][],
][] = [
  ['ndots: fewer dots, the search list first', 'web', {}, [[WEB, FOUND]]],
  [
    'search: each domain in turn, until the first match',
    'api.other',
    {},
    [
      ['api.other.default.svc.cluster.local', NONE],
      ['api.other.svc.cluster.local', FOUND],
    ],
  ],
  [
    'search: the third domain',
    'api.other.svc',
    {},
    [
      ['api.other.svc.default.svc.cluster.local', NONE],
      ['api.other.svc.svc.cluster.local', NONE],
      ['api.other.svc.cluster.local', FOUND],
    ],
  ],
  [
    'ndots: the whole name without a last dot has four dots, and is asked last',
    WEB,
    {},
    [
      [`${WEB}.default.svc.cluster.local`, NONE],
      [`${WEB}.svc.cluster.local`, NONE],
      [`${WEB}.cluster.local`, NONE],
      [`${WEB}.corp.example`, OUT],
      [WEB, FOUND],
    ],
  ],
  ['ndots: as many dots, as is first', WEB, {ndots: 4}, [[WEB, FOUND]]],
  [
    'ndots: more dots, as is first, the search list after',
    'api.other.svc',
    {ndots: 1},
    [
      ['api.other.svc', OUT],
      ['api.other.svc.default.svc.cluster.local', NONE],
      ['api.other.svc.svc.cluster.local', NONE],
      ['api.other.svc.cluster.local', FOUND],
    ],
  ],
  [
    'ndots: as many dots and no answer, as is is asked once',
    'x.default.svc.cluster.local',
    {ndots: 4, searches: ['svc.cluster.local']},
    [
      ['x.default.svc.cluster.local', NONE],
      ['x.default.svc.cluster.local.svc.cluster.local', NONE],
    ],
  ],
  [
    'ndots: 0, as is first even without a dot',
    'web',
    {ndots: 0},
    [
      ['web', OUT],
      [WEB, FOUND],
    ],
  ],
  [
    'search: nothing found, as is last',
    'nosuch',
    {},
    [
      ['nosuch.default.svc.cluster.local', NONE],
      ['nosuch.svc.cluster.local', NONE],
      ['nosuch.cluster.local', NONE],
      ['nosuch.corp.example', OUT],
      ['nosuch', OUT],
    ],
  ],
  ['search: an empty list', 'web', {searches: []}, [['web', OUT]]],
  ['a trailing dot: absolute', `${WEB}.`, {}, [[WEB, FOUND]]],
  ['a trailing dot: absolute, and nothing after it', 'web.', {}, [['web', OUT]]],
  [
    'a trailing dot: absolute, no such name',
    'nosuch.default.svc.cluster.local.',
    {},
    [['nosuch.default.svc.cluster.local', NONE]],
  ],
  ['2.1 case-insensitive', 'WEB.Default.SVC.cluster.LOCAL.', {}, [[WEB, FOUND]]],
  ['2.3.2 an SRV name', `_http._tcp.${WEB}.`, {}, [[`_http._tcp.${WEB}`, FOUND]]],
  ['2.3.3 a reverse name', '1.0.96.10.in-addr.arpa.', {}, [['1.0.96.10.in-addr.arpa', FOUND]]],
  ['2.4.1 headless', 'pets', {}, [['pets.default.svc.cluster.local', FOUND]]],
  ['2.4.1 the hostname of an endpoint', 'pets-0.pets', {}, [['pets-0.pets.default.svc.cluster.local', FOUND]]],
  [
    '2.4.1 no ready endpoint: NXDOMAIN',
    'empty.default.svc.cluster.local.',
    {},
    [['empty.default.svc.cluster.local', NONE]],
  ],
  ['2.5 a CNAME', 'out', {}, [['out.default.svc.cluster.local', FOUND]]],
  ['2.6 the name of a pod', '10-1-2-3.default.pod.cluster.local.', {}, [['10-1-2-3.default.pod.cluster.local', FOUND]]],
  ['2.1 <zone> ends at a label', 'web.default.svc.mycluster.local.', {}, [['web.default.svc.mycluster.local', OUT]]],
  [
    '2.1 <zone> is the end of the name',
    'web.default.svc.cluster.local.example.com.',
    {},
    [['web.default.svc.cluster.local.example.com', OUT]],
  ],
]

describe('DNS: lookups (resolv.conf(5), DNS-Based Service Discovery 1.1.0)', () => {
  const ask = (asked: string, resolver: Partial<Resolver> = {}): ReturnType<typeof lookupSteps> =>
    lookupSteps(clusterOf(ZONE), asked, {
      nameservers: ['10.96.0.10'],
      searches: SEARCHES,
      ndots: 5,
      notes: [],
      ...resolver,
    })

  for (const [name, asked, resolver, steps] of LOOKUPS)
    it(name, () => {
      const found = ask(asked, resolver).map(({question, answer}) => [question.replace(/\.$/, ''), answer])
      expect(found).to.deep.equal(steps)
    })

  const ANSWERS: [section: string, asked: string, records: string[]][] = [
    ['2.3.1', 'web', [`${WEB} A 10.96.0.1`]],
    ['2.4.1', 'pets', ['pets.default.svc.cluster.local A 10.1.1.2']],
  ]
  for (const [section, asked, records] of ANSWERS)
    it(`${section} the records of ${asked}`, () => {
      const last = ask(asked).at(-1)!
      expect(last.records.map(({name, type, data}) => `${name} ${type} ${data}`)).to.deep.equal(records)
    })

  const OF_POD: [name: string, searches: string[], asked: string, steps: [question: string, answer: string][]][] = [
    [
      'a search domain with the root dot',
      ['other.svc.cluster.local.'],
      'api',
      [['api.other.svc.cluster.local', FOUND]],
    ],
    [
      'a search domain that is the root (KEP-4427) is as is, and as is is asked once (glibc root_on_list)',
      ['.', 'default.svc.cluster.local'],
      'nosuch',
      [
        ['nosuch', OUT],
        ['nosuch.default.svc.cluster.local', NONE],
      ],
    ],
  ]
  for (const [name, searches, asked, steps] of OF_POD)
    it(`the dnsConfig of a pod: ${name}`, () => {
      const resolver = resolve(ZONE, {dnsPolicy: 'None', dnsConfig: {nameservers: ['10.96.0.10'], searches}}, undefined)
      expect(ask(asked, resolver).map(({question, answer}) => [question.replace(/\.$/, ''), answer])).to.deep.equal(
        steps,
      )
    })

  it('2.5 the records of out begin with its CNAME', () => {
    expect(ask('out')[0]!.records[0]).to.deep.equal({
      name: 'out.default.svc.cluster.local',
      type: 'CNAME',
      data: 'www.example.com',
    })
  })

  it('2.4.1 NXDOMAIN has no records', () =>
    expect(ask('empty.default.svc.cluster.local.')[0]!.records).to.deep.equal([]))

  it('2.1 <zone> is the configured domain', () => {
    const cluster = clusterOf({
      ...ZONE,
      configmaps: [corefile('.:53 {\n  kubernetes k.example in-addr.arpa {\n  }\n}')],
    })
    const steps = (name: string): string[] =>
      lookupSteps(cluster, name, {nameservers: [], searches: [], ndots: 5, notes: []}).map(({answer}) => answer)
    expect(steps('web.default.svc.k.example.')).to.deep.equal([FOUND])
    expect(steps(`${WEB}.`)).to.deep.equal([OUT])
  })
})

describe('DNS: following ExternalName (DNS-Based Service Discovery 1.1.0, 2.5)', () => {
  const at = (name: string): string => `${name}.default.svc.cluster.local`
  const CASES: [name: string, services: object[], end: string, last: string[], service?: string][] = [
    ['a name of the outside', [external('x', 'www.example.com')], 'outside', ['www.example.com']],
    ['the root dot', [external('x', 'www.example.com.')], 'outside', ['www.example.com']],
    ['a Service', [external('x', WEB), service('web')], 'service', [WEB], 'default/web'],
    ['a Service, with the root dot', [external('x', `${WEB}.`), service('web')], 'service', [WEB], 'default/web'],
    [
      'a Service of another namespace',
      [external('x', 'api.other.svc.cluster.local'), service('api', {}, 'other')],
      'service',
      ['api.other.svc.cluster.local'],
      'other/api',
    ],
    [
      '2.1 in capitals',
      [external('x', 'Web.default.svc.Cluster.Local'), service('web')],
      'service',
      [WEB],
      'default/web',
    ],
    [
      'through another ExternalName',
      [external('x', at('y')), external('y', WEB), service('web')],
      'service',
      [at('y'), WEB],
      'default/web',
    ],
    [
      'through another ExternalName to the outside',
      [external('x', at('y')), external('y', 'www.example.com')],
      'outside',
      [at('y'), 'www.example.com'],
    ],
    ['a Service that is not there', [external('x', at('gone'))], 'missing', [at('gone')]],
    [
      'through another ExternalName to a Service that is not there',
      [external('x', at('y')), external('y', at('gone'))],
      'missing',
      [at('y'), at('gone')],
    ],
    [
      '<extname>. is absolute: no search list',
      [external('x', 'web.default'), service('web')],
      'outside',
      ['web.default'],
    ],
    [
      '<extname>. is absolute: without the zone',
      [external('x', 'web.default.svc'), service('web')],
      'outside',
      ['web.default.svc'],
    ],
    [
      '2.1 <zone> is the end of the name',
      [external('x', `${WEB}.example.com`), service('web')],
      'outside',
      [`${WEB}.example.com`],
    ],
  ]
  for (const [name, services, end, last, id] of CASES)
    it(name, () => {
      const cluster = clusterOf({services})
      const chain = followCname(cluster, named(cluster, 'x'))
      expect(chain.end).to.equal(end)
      expect(chain.names.slice(-last.length)).to.deep.equal(last)
      expect(chain.service).to.equal(id)
    })

  const LOOPS: [name: string, services: object[]][] = [
    ['of one', [external('x', at('x'))]],
    ['of two', [external('x', at('y')), external('y', at('x'))]],
    ['that is entered from outside of it', [external('x', at('y')), external('y', at('z')), external('z', at('y'))]],
    ['in capitals', [external('x', at('Y').toUpperCase()), external('y', at('X').toUpperCase())]],
  ]
  for (const [name, services] of LOOPS)
    it(`a loop ${name}`, () => {
      const cluster = clusterOf({services})
      const {end, service: id} = followCname(cluster, named(cluster, 'x'))
      expect({end, id}).to.deep.equal({end: 'loop', id: undefined})
    })
})
