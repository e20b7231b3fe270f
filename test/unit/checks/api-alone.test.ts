/** What the API alone tells of a Service: its endpoints, their families, ports and states, and who claims what. */
import {expect} from 'chai'
import {check} from '../../../src/checks/check.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

interface Objects {
  readonly spec?: object
  readonly status?: object
  readonly slices?: readonly object[]
  readonly pods?: readonly object[]
  readonly more?: Readonly<Record<string, readonly object[]>>
}

const slice = (address: string, more: object = {}): object => ({
  metadata: {
    name: `web-${address.replaceAll(/[.:]/g, '-')}`,
    namespace: 't',
    labels: {
      'kubernetes.io/service-name': 'web',
      'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
    },
  },
  addressType: address.includes(':') ? 'IPv6' : 'IPv4',
  ports: [{name: '', port: 8080, protocol: 'TCP'}],
  endpoints: [
    {
      addresses: [address],
      nodeName: 'n1',
      conditions: {ready: true},
      targetRef: {kind: 'Pod', namespace: 't', name: 'web-0'},
    },
  ],
  ...more,
})
const state = (address: string, conditions: object): object =>
  slice(address, {endpoints: [{addresses: [address], nodeName: 'n1', conditions}]})
const pod = (spec: object = {}, status: object = {}): object => ({
  metadata: {name: 'web-0', namespace: 't', labels: {app: 'web'}},
  spec: {nodeName: 'n1', containers: [{name: 'c', ports: [{containerPort: 8080}]}], ...spec},
  status: {
    phase: 'Running',
    podIP: '10.1.1.2',
    podIPs: [{ip: '10.1.1.2'}, {ip: 'fd00::2'}],
    conditions: [{type: 'Ready', status: 'True'}],
    ...status,
  },
})

/** A pod whose condition Ready last changed then. */
const readyAt = (lastTransitionTime: string, status: object = {}, ready = 'True'): object =>
  pod({}, {conditions: [{type: 'Ready', status: ready, lastTransitionTime}], ...status})
/** The lists are of one o'clock: a kubelet spoke then. */
const SEEN = {
  nodes: [
    {
      metadata: {name: 'n1'},
      status: {
        addresses: [{type: 'InternalIP', address: '192.0.2.1'}],
        conditions: [{type: 'Ready', status: 'True', lastHeartbeatTime: '2026-01-01T01:00:00Z'}],
      },
    },
  ],
}

function told({spec = {}, status = {}, slices = [slice('10.1.1.2')], pods = [pod()], more = {}}: Objects): string[] {
  const service = {
    metadata: {name: 'web', namespace: 't'},
    spec: {
      clusterIP: '10.96.0.1',
      clusterIPs: ['10.96.0.1'],
      selector: {app: 'web'},
      ports: [{port: 80, targetPort: 8080, protocol: 'TCP'}],
      ...spec,
    },
    status,
  }
  const node = {metadata: {name: 'n1'}, status: {addresses: [{type: 'InternalIP', address: '192.0.2.1'}]}}
  const lists: Record<string, readonly object[]> = {
    services: [service],
    endpointslices: slices,
    pods,
    nodes: [node],
    ...more,
  }
  const snapshot = snapshotFromFiles(
    new Map(Object.entries(lists).map(([name, items]) => [`api/${name}.json`, JSON.stringify({items})])),
  )
  const {findings} = check(snapshot, buildWorld(snapshot), {apiOnly: true, services: snapshot.cluster.services})
  return findings.filter(({severity}) => severity !== 'info').map(({severity, name}) => `${severity} ${name}`)
}

const DUAL = {clusterIPs: ['10.96.0.1', 'fd00:96::1'], ipFamilies: ['IPv4', 'IPv6'], ipFamilyPolicy: 'RequireDualStack'}
const HEADLESS = {clusterIP: 'None', clusterIPs: ['None']}
const LOCAL = {type: 'LoadBalancer', externalTrafficPolicy: 'Local'}
const VIP = {loadBalancer: {ingress: [{ip: '203.0.113.7'}]}}
const PORTS = (ports: object[]): object => ({containers: [{name: 'c', ports}]})

const CASES: readonly (readonly [name: string, objects: Objects, told: readonly string[]])[] = [
  ['all is well', {}, []],
  [
    'one family of two is not ready',
    {spec: DUAL, slices: [state('10.1.1.2', {ready: false}), slice('fd00::2')]},
    ['error no-ready-endpoint'],
  ],
  ['one family of two has none', {spec: DUAL}, ['error no-endpoints']],
  [
    'headless, of two families, and one has none',
    {spec: {...HEADLESS, ...DUAL, clusterIPs: ['None']}},
    ['error no-endpoints'],
  ],
  ['headless without ports', {spec: {...HEADLESS, ports: undefined}}, []],
  [
    'headless without ports, not ready',
    {spec: {...HEADLESS, ports: undefined}, slices: [state('10.1.1.2', {ready: false})]},
    ['error no-ready-endpoint'],
  ],
  [
    'headless without ports and without slices',
    {spec: {...HEADLESS, ports: undefined}, slices: []},
    ['error no-endpoints'],
  ],
  [
    'pods that nobody has scheduled',
    {slices: [], pods: [pod({}, {phase: 'Pending', podIP: undefined, podIPs: undefined, conditions: []})]},
    ['error no-ready-endpoint'],
  ],
  [
    'ready pods in no slice, for long',
    {slices: [], pods: [readyAt('2026-01-01T00:00:00Z')], more: SEEN},
    ['error slices-behind'],
  ],
  [
    'ready pods in no slice, just now',
    {slices: [], pods: [readyAt('2026-01-01T00:59:00Z')], more: SEEN},
    ['error no-endpoints'],
  ],
  [
    'one ready pod of two in no slice',
    {
      pods: [
        pod(),
        {
          ...readyAt('2026-01-01T00:00:00Z', {podIP: '10.1.1.3', podIPs: [{ip: '10.1.1.3'}]}),
          metadata: {name: 'web-1', namespace: 't', labels: {app: 'web'}},
        },
      ],
      more: SEEN,
    },
    ['warning slices-behind'],
  ],
  [
    'a ready pod that its slice calls not ready',
    {slices: [state('10.1.1.2', {ready: false})], pods: [readyAt('2026-01-01T00:00:00Z')], more: SEEN},
    ['error slices-behind'],
  ],
  [
    'a ready pod in the slices of somebody else’s controller',
    {
      slices: [
        state('10.1.1.9', {ready: true}),
        slice('10.1.1.8', {
          endpoints: [{addresses: ['10.1.1.8'], conditions: {ready: true}}],
          metadata: {
            name: 'own',
            namespace: 't',
            labels: {'kubernetes.io/service-name': 'web', 'endpointslice.kubernetes.io/managed-by': 'example.com'},
          },
        }),
      ],
      pods: [readyAt('2026-01-01T00:00:00Z')],
      more: SEEN,
    },
    [],
  ],
  [
    'a pod that has not been ready for long, and is called so',
    {pods: [readyAt('2026-01-01T00:00:00Z', {}, 'False')], more: SEEN},
    ['warning slices-behind'],
  ],
  [
    'a pod that is not ready, and is asked for all the same',
    {spec: {publishNotReadyAddresses: true}, pods: [readyAt('2026-01-01T00:00:00Z', {}, 'False')], more: SEEN},
    [],
  ],
  ['pods that have ended', {slices: [], pods: [pod({}, {phase: 'Succeeded'})]}, ['error nothing-selected']],
  [
    'policy Local, and every endpoint is about to end',
    {spec: LOCAL, status: VIP, slices: [state('10.1.1.2', {ready: false, serving: true, terminating: true})]},
    ['warning no-node-for-load-balancer'],
  ],
  [
    'a slice with another port than the Service',
    {slices: [slice('10.1.1.2', {ports: [{name: '', port: 9999, protocol: 'TCP'}]})]},
    ['warning endpoints-disagree'],
  ],
  [
    'a port name of another protocol',
    {
      spec: {ports: [{port: 53, targetPort: 'dns', protocol: 'UDP'}]},
      pods: [pod(PORTS([{name: 'dns', containerPort: 53, protocol: 'TCP'}]))],
    },
    ['error named-port-missing'],
  ],
  [
    'a port name of an init container',
    {
      spec: {ports: [{port: 80, targetPort: 'http'}]},
      pods: [
        pod({containers: [{name: 'c'}], initContainers: [{name: 'i', ports: [{name: 'http', containerPort: 80}]}]}),
      ],
    },
    ['error named-port-missing'],
  ],
  [
    'a port name of a sidecar',
    {
      spec: {ports: [{port: 80, targetPort: 'http', protocol: 'TCP'}]},
      pods: [
        pod({
          containers: [{name: 'c'}],
          initContainers: [{name: 'i', restartPolicy: 'Always', ports: [{name: 'http', containerPort: 8080}]}],
        }),
      ],
    },
    [],
  ],
  [
    'a port that no container declares',
    {pods: [pod(PORTS([{containerPort: 9090}]))]},
    ['warning target-port-undeclared'],
  ],
  [
    'a port that a container may have all the same',
    {pods: [pod({containers: [{name: 'c'}, {name: 'proxy', ports: [{containerPort: 15090}]}]})]},
    [],
  ],
  [
    'an address of a load balancer that proxies belongs to no node',
    {spec: {type: 'LoadBalancer'}, status: {loadBalancer: {ingress: [{ip: '203.0.113.7', ipMode: 'Proxy'}]}}},
    [],
  ],
]

describe('the API alone', () => {
  for (const [name, objects, expected] of CASES) it(name, () => expect(told(objects)).to.deep.equal(expected))

  const ingress = (backend: object, more: object = {}): Objects => ({
    more: {
      ingresses: [
        {
          metadata: {name: 'front', namespace: 't', ...more},
          spec: {rules: [{http: {paths: [{path: '/', pathType: 'Prefix', backend}]}}]},
        },
      ],
      ingressclasses: [
        {
          metadata: {name: 'nginx', annotations: {'ingressclass.kubernetes.io/is-default-class': 'true'}},
          spec: {controller: 'k8s.io/ingress-nginx'},
        },
      ],
    },
  })
  const ingresses: readonly (readonly [name: string, objects: Objects, told: boolean])[] = [
    ['a missing Service', ingress({service: {name: 'gone', port: {number: 80}}}), true],
    ['an action of the AWS controller', ingress({service: {name: 'redirect', port: {name: 'use-annotation'}}}), false],
    [
      'an ExternalName without ports',
      {
        spec: {
          type: 'ExternalName',
          externalName: 'db.example.com',
          clusterIP: undefined,
          clusterIPs: undefined,
          selector: undefined,
          ports: undefined,
        },
        ...ingress({service: {name: 'web', port: {number: 443}}}),
      },
      false,
    ],
    ['a port that the Service lacks', ingress({service: {name: 'web', port: {number: 443}}}), true],
  ]
  for (const [name, objects, expected] of ingresses)
    it(`Ingress: ${name}`, () => expect(told(objects).includes('error ingress-backend-missing')).to.equal(expected))

  it('Ingress: two on one path, but for a canary', () => {
    const path = {path: '/', pathType: 'Prefix', backend: {service: {name: 'web', port: {number: 80}}}}
    const other = {path: '/', pathType: 'Prefix', backend: {service: {name: 'web', port: {number: 81}}}}
    const make = (name: string, one: object, annotations: object = {}): object => ({
      metadata: {name, namespace: 't', annotations},
      spec: {rules: [{host: 'a', http: {paths: [one]}}]},
    })
    const both = (annotations: object): string[] =>
      told({
        spec: {
          ports: [
            {port: 80, targetPort: 8080, name: 'a'},
            {port: 81, targetPort: 8080, name: 'b'},
          ],
        },
        slices: [
          slice('10.1.1.2', {
            ports: [
              {name: 'a', port: 8080, protocol: 'TCP'},
              {name: 'b', port: 8080, protocol: 'TCP'},
            ],
          }),
        ],
        more: {ingresses: [make('one', path), make('two', other, annotations)]},
      })
    expect(both({})).to.include('warning ingress-path-conflict')
    expect(both({'nginx.ingress.kubernetes.io/canary': 'true'})).not.to.include('warning ingress-path-conflict')
  })
})
