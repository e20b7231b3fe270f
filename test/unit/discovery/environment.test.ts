import {expect} from 'chai'
import {missingVariables, variablesOf} from '../../../src/discovery/environment.js'
import type {ClusterState} from '../../../src/model/kube.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

function clusterOf(services: object[], pods: object[] = []): ClusterState {
  return snapshotFromFiles(
    new Map([
      ['api/services.json', JSON.stringify({items: services})],
      ['api/pods.json', JSON.stringify({items: pods})],
    ]),
  ).cluster
}

const service = (name: string, spec: object, more: object = {}): object => ({
  metadata: {name, namespace: 'default', creationTimestamp: '2024-05-01T12:00:00Z', ...more},
  spec: {type: 'ClusterIP', clusterIP: '10.0.0.11', clusterIPs: ['10.0.0.11'], ...spec},
})
const tcp = (port: number, name?: string): object => ({port, protocol: 'TCP', ...(name === undefined ? {} : {name})})

const VARIABLES: [section: string, service: object, variables: string[]][] = [
  [
    'Kubernetes docs, Environment variables: redis-primary',
    service('redis-primary', {ports: [tcp(6379)]}),
    [
      'REDIS_PRIMARY_SERVICE_HOST=10.0.0.11',
      'REDIS_PRIMARY_SERVICE_PORT=6379',
      'REDIS_PRIMARY_PORT=tcp://10.0.0.11:6379',
      'REDIS_PRIMARY_PORT_6379_TCP=tcp://10.0.0.11:6379',
      'REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp',
      'REDIS_PRIMARY_PORT_6379_TCP_PORT=6379',
      'REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.0.0.11',
    ],
  ],
  [
    'FromServices: a variable more for each named port',
    service('web', {ports: [{name: 'h-t-t-p', port: 80, targetPort: 8080, protocol: 'TCP'}]}),
    [
      'WEB_SERVICE_HOST=10.0.0.11',
      'WEB_SERVICE_PORT=80',
      'WEB_SERVICE_PORT_H_T_T_P=80',
      'WEB_PORT=tcp://10.0.0.11:80',
      'WEB_PORT_80_TCP=tcp://10.0.0.11:80',
      'WEB_PORT_80_TCP_PROTO=tcp',
      'WEB_PORT_80_TCP_PORT=80',
      'WEB_PORT_80_TCP_ADDR=10.0.0.11',
    ],
  ],
  [
    'FromServices: the first port has the old names; makeLinkVariables: one number by two protocols',
    service('dns', {
      ports: [
        {name: 'dns', port: 53, protocol: 'UDP'},
        {name: 'dns-tcp', port: 53, protocol: 'TCP'},
      ],
    }),
    [
      'DNS_SERVICE_HOST=10.0.0.11',
      'DNS_SERVICE_PORT=53',
      'DNS_SERVICE_PORT_DNS=53',
      'DNS_SERVICE_PORT_DNS_TCP=53',
      'DNS_PORT=udp://10.0.0.11:53',
      'DNS_PORT_53_UDP=udp://10.0.0.11:53',
      'DNS_PORT_53_UDP_PROTO=udp',
      'DNS_PORT_53_UDP_PORT=53',
      'DNS_PORT_53_UDP_ADDR=10.0.0.11',
      'DNS_PORT_53_TCP=tcp://10.0.0.11:53',
      'DNS_PORT_53_TCP_PROTO=tcp',
      'DNS_PORT_53_TCP_PORT=53',
      'DNS_PORT_53_TCP_ADDR=10.0.0.11',
    ],
  ],
  [
    'makeLinkVariables: an IPv6 address in brackets (net.JoinHostPort), and only there',
    service('six', {clusterIP: 'fd00::b', clusterIPs: ['fd00::b'], ports: [tcp(80)]}),
    [
      'SIX_SERVICE_HOST=fd00::b',
      'SIX_SERVICE_PORT=80',
      'SIX_PORT=tcp://[fd00::b]:80',
      'SIX_PORT_80_TCP=tcp://[fd00::b]:80',
      'SIX_PORT_80_TCP_PROTO=tcp',
      'SIX_PORT_80_TCP_PORT=80',
      'SIX_PORT_80_TCP_ADDR=fd00::b',
    ],
  ],
  [
    'FromServices: spec.clusterIP, the first of two families; no protocol is TCP; NodePort like any',
    service('two', {type: 'NodePort', clusterIPs: ['10.0.0.11', 'fd00::b'], ports: [{port: 80, nodePort: 30080}]}),
    [
      'TWO_SERVICE_HOST=10.0.0.11',
      'TWO_SERVICE_PORT=80',
      'TWO_PORT=tcp://10.0.0.11:80',
      'TWO_PORT_80_TCP=tcp://10.0.0.11:80',
      'TWO_PORT_80_TCP_PROTO=tcp',
      'TWO_PORT_80_TCP_PORT=80',
      'TWO_PORT_80_TCP_ADDR=10.0.0.11',
    ],
  ],
  [
    'makeLinkVariables: SCTP',
    service('sig', {ports: [{port: 36412, protocol: 'SCTP'}]}),
    [
      'SIG_SERVICE_HOST=10.0.0.11',
      'SIG_SERVICE_PORT=36412',
      'SIG_PORT=sctp://10.0.0.11:36412',
      'SIG_PORT_36412_SCTP=sctp://10.0.0.11:36412',
      'SIG_PORT_36412_SCTP_PROTO=sctp',
      'SIG_PORT_36412_SCTP_PORT=36412',
      'SIG_PORT_36412_SCTP_ADDR=10.0.0.11',
    ],
  ],
  [
    'IsServiceIPSet: a headless Service has none',
    service('none', {clusterIP: 'None', clusterIPs: ['None'], ports: [tcp(80)]}),
    [],
  ],
  [
    'IsServiceIPSet: ExternalName has none',
    {metadata: {name: 'out', namespace: 'default'}, spec: {type: 'ExternalName', externalName: 'x', ports: [tcp(80)]}},
    [],
  ],
]

describe('Environment variables of a Service (kubelet envvars.go)', () => {
  for (const [section, item, variables] of VARIABLES)
    it(section, () => {
      const found = variablesOf(clusterOf([item]).services[0]!)
      expect(found.map(({name, value}) => `${name}=${value}`)).to.deep.equal(variables)
    })
})

const BEFORE = '2024-05-01T11:59:59Z'
const AT = '2024-05-01T12:00:00Z'
const AFTER = '2024-05-01T12:00:01Z'
const running = (...started: string[]): object => ({
  phase: 'Running',
  containerStatuses: started.map((startedAt, index) => ({
    name: `c${index}`,
    ready: true,
    restartCount: 0,
    state: {running: {startedAt}},
  })),
})
const pod = (status: object, created: string, spec: object = {}, namespace = 'default'): object => ({
  metadata: {name: 'a', namespace, creationTimestamp: created},
  spec: {containers: [{name: 'c0'}], enableServiceLinks: true, ...spec},
  status,
})
const WEB = service('web', {ports: [tcp(80)]})
const OFF = {enableServiceLinks: false}

const MISSING: [section: string, service: object, pods: object[], missing: string[]][] = [
  ['docs: the Service was first', WEB, [pod(running(AFTER), AFTER)], []],
  [
    'docs: the Service must be created before the client Pods',
    WEB,
    [pod(running(BEFORE), BEFORE)],
    ['default/a older'],
  ],
  ['docs: in the same second', WEB, [pod(running(AT), AT)], []],
  ['kubelet: a container that was started again has them', WEB, [pod(running(AFTER), BEFORE)], []],
  [
    'kubelet: each container for itself, the longest-running lacks them',
    WEB,
    [pod(running(AFTER, BEFORE), BEFORE)],
    ['default/a older'],
  ],
  ['kubelet: no container has a start, the pod was first', WEB, [pod({phase: 'Running'}, BEFORE)], ['default/a older']],
  ['kubelet: no container has a start, the Service was first', WEB, [pod({phase: 'Pending'}, AFTER)], []],
  [
    'kubelet: a container that waits to be started again does not count',
    WEB,
    [
      pod(
        {
          phase: 'Running',
          containerStatuses: [
            {name: 'c0', state: {running: {startedAt: AFTER}}},
            {name: 'c1', state: {waiting: {reason: 'CrashLoopBackOff'}}},
          ],
        },
        BEFORE,
      ),
    ],
    [],
  ],
  ['getServiceEnvVarMap: enableServiceLinks false', WEB, [pod(running(AFTER), AFTER, OFF)], ['default/a switched off']],
  ['getServiceEnvVarMap: Pending, too', WEB, [pod({phase: 'Pending'}, AFTER, OFF)], ['default/a switched off']],
  [
    'API: enableServiceLinks is true when it is left out',
    WEB,
    [pod(running(AFTER), AFTER, {enableServiceLinks: undefined})],
    [],
  ],
  [
    'getServiceEnvVarMap: the Services of its namespace only',
    WEB,
    [pod(running(BEFORE), BEFORE, {}, 'other'), pod(running(BEFORE), BEFORE, OFF, 'other')],
    [],
  ],
  ['pods that have ended need none: Succeeded', WEB, [pod({phase: 'Succeeded'}, BEFORE, OFF)], []],
  ['pods that have ended need none: Failed', WEB, [pod({phase: 'Failed'}, BEFORE, OFF)], []],
  [
    'getServiceEnvVarMap: default/kubernetes is given even so',
    service('kubernetes', {ports: [tcp(443, 'https')]}),
    [pod(running(AFTER), AFTER, OFF)],
    [],
  ],
  [
    'getServiceEnvVarMap: kubernetes of another namespace is like any',
    service('kubernetes', {ports: [tcp(443)]}, {namespace: 'other'}),
    [pod(running(AFTER), AFTER, OFF, 'other')],
    ['other/a switched off'],
  ],
  [
    'getServiceEnvVarMap: another Service of default is like any',
    service('kubernetes-ro', {ports: [tcp(443)]}),
    [pod(running(AFTER), AFTER, OFF)],
    ['default/a switched off'],
  ],
  [
    'IsServiceIPSet: a headless Service has no variables to miss',
    service('web', {clusterIP: 'None', clusterIPs: ['None'], ports: [tcp(80)]}),
    [pod(running(BEFORE), BEFORE), pod(running(AFTER), AFTER, OFF)],
    [],
  ],
  [
    'IsServiceIPSet: neither has ExternalName',
    {
      metadata: {name: 'web', namespace: 'default', creationTimestamp: AT},
      spec: {type: 'ExternalName', externalName: 'www.example.com'},
    },
    [pod(running(BEFORE), BEFORE), pod(running(AFTER), AFTER, OFF)],
    [],
  ],
  ['no pods', WEB, [], []],
]

describe('Pods without the variables of a Service', () => {
  for (const [section, item, pods, missing] of MISSING)
    it(section, () => {
      const cluster = clusterOf([item], pods)
      const found = missingVariables(cluster, cluster.services[0]!)
      expect(found.map(({pod: id, why}) => `${id} ${why}`)).to.deep.equal(missing)
    })

  it('getServiceEnvVarMap: older and switched off is one pod', () => {
    const cluster = clusterOf([WEB], [pod(running(BEFORE), BEFORE, OFF)])
    expect(missingVariables(cluster, cluster.services[0]!).map(({pod: id}) => id)).to.deep.equal(['default/a'])
  })

  it('fractions of a second and other time zones are compared as times', () => {
    const cluster = clusterOf([WEB], [pod(running('2024-05-01T11:59:59.5Z'), AT)])
    expect(missingVariables(cluster, cluster.services[0]!)).to.deep.equal([{pod: 'default/a', why: 'older'}])
    const zoned = clusterOf([WEB], [pod(running('2024-05-01T14:00:01+02:00'), '2024-05-01T14:00:01+02:00')])
    expect(missingVariables(zoned, zoned.services[0]!)).to.deep.equal([])
  })

  it('pods that were not read are not accused', () => {
    const {cluster} = snapshotFromFiles(new Map([['api/services.json', JSON.stringify({items: [WEB]})]]))
    expect(missingVariables(cluster, cluster.services[0]!)).to.deep.equal([])
  })
})
