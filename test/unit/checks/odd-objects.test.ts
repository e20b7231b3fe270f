import {expect} from 'chai'
import {check} from '../../../src/checks/check.js'
import {plainPorts} from '../../../src/discovery/ingress.js'
import {buildWorld} from '../../../src/engine.js'
import {formatTrace} from '../../../src/report/trace-formats.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {trace} from '../../../src/trace.js'
import {oneNode} from '../../helpers/node.js'

const items = (...list: object[]): string => JSON.stringify({items: list})
const SERVICE = {
  metadata: {name: 'web', namespace: 'default'},
  spec: {type: 'LoadBalancer', clusterIP: '10.96.0.1', ports: [{port: 80, protocol: 'TCP'}]},
}

/** API objects and files that no API server and no collector of ours would write: read as far as they go, never a crash. */
const ODD: Readonly<Record<string, (files: Map<string, string>) => void>> = {
  'dns.json is empty': (files) => files.set('nodes/n1/dns.json', ''),
  'dns.json is no JSON': (files) => files.set('nodes/n1/dns.json', 'SERVFAIL'),
  'dns.json is of another shape': (files) => files.set('nodes/n1/dns.json', '{"asked":[{"answers":[7,null]}]}'),
  'plain ports are no text': (files) =>
    files.set(
      'api/configmaps.json',
      items({metadata: {name: 'tcp-services', namespace: 'ingress-nginx'}, data: {9000: 5}}),
    ),
  'labels are text': (files) =>
    files.set('api/nodes.json', items({metadata: {name: 'n1', labels: 'x'}, spec: {}, status: {}})),
  'an annotation is a number': (files) =>
    files.set(
      'api/services.json',
      items({
        ...SERVICE,
        metadata: {...SERVICE.metadata, annotations: {'service.beta.kubernetes.io/load-balancer-source-ranges': 5}},
      }),
    ),
  'a dnsConfig of nulls': (files) =>
    files.set(
      'api/pods.json',
      items({
        metadata: {name: 'a', namespace: 'default'},
        spec: {nodeName: 'n1', containers: [], dnsConfig: {searches: null, nameservers: [null], options: [null, {}]}},
        status: {phase: 'Running', podIP: '10.1.1.2'},
      }),
    ),
  'routes of nulls': (files) =>
    files.set(
      'api/httproutes.json',
      items({metadata: {name: 'r'}, spec: {parentRefs: [null], rules: [null, {backendRefs: [null]}]}}),
    ),
  'an Ingress of nulls': (files) =>
    files.set(
      'api/ingresses.json',
      items({metadata: {name: 'i'}, spec: {rules: [null, {http: {paths: [null]}}], tls: [null]}}),
    ),
}

describe('odd objects', () => {
  for (const [name, change] of Object.entries(ODD))
    it(name, () => {
      const files = oneNode({}).set('api/services.json', items(SERVICE))
      change(files)
      const snapshot = snapshotFromFiles(files)
      const world = buildWorld(snapshot)
      expect(check(snapshot, world).services).to.deep.equal(['default/web'])
      const from = {kind: 'pod', pod: 'default/a'} as const
      expect(trace(snapshot, world, {service: snapshot.cluster.services[0]!, options: {from}}).service.name).to.equal(
        'web',
      )
      expect(plainPorts(snapshot.cluster)).to.deep.equal([])
    })

  it('what a server would have to be asked and was not is incomplete', () => {
    const files = oneNode({}).set('api/services.json', items(SERVICE))
    const reasons = (dns: object): string => {
      const snapshot = snapshotFromFiles(files.set('nodes/n1/dns.json', JSON.stringify(dns)))
      return check(snapshot, buildWorld(snapshot))
        .incomplete.map(({reason}) => reason)
        .join()
    }
    const server = {server: '10.96.0.10:53', kind: 'service'}
    expect(reasons({asked: [], incomplete: ['nobody to ask']})).to.contain('nobody to ask')
    expect(reasons({asked: [{...server, unasked: 'prohibited', answers: []}]})).to.contain(
      'could not be asked: prohibited',
    )
    const answers = [{name: 'other', type: 'A', status: 'NOERROR', records: []}]
    expect(reasons({asked: [{...server, answers}]})).to.contain('was not asked all about 1 Service: default/web')
  })

  it('a domain that is only assumed accuses no server that knows none of its names', () => {
    const names = ['A', 'AAAA'].map((type) => ({
      name: 'web.default.svc.cluster.local',
      type,
      status: 'NXDOMAIN',
      records: [],
    }))
    const dns = JSON.stringify({asked: [{server: '10.96.0.10:53', kind: 'service', answers: names}]})
    const told = (corefile?: string): [string[], string] => {
      const files = oneNode({}).set('api/services.json', items(SERVICE)).set('nodes/n1/dns.json', dns)
      if (corefile !== undefined)
        files.set(
          'api/configmaps.json',
          items({metadata: {name: 'coredns', namespace: 'kube-system'}, data: {Corefile: corefile}}),
        )
      const snapshot = snapshotFromFiles(files)
      const {findings, incomplete} = check(snapshot, buildWorld(snapshot))
      return [
        findings.map(({code}) => code).filter((code) => code === 'SVT330'),
        incomplete.map(({reason}) => reason).join(),
      ]
    }
    expect(told()[0]).to.deep.equal([])
    expect(told()[1]).to.contain('may not be the cluster’s domain')
    expect(told(' kubernetes cluster.local {')[0]).to.deep.equal(['SVT330'])
  })

  it('a Service of a namespace that nobody may read is not missing', () => {
    const found = (forbidden: object): string[] => {
      const backend = {service: {name: 'gone', port: {number: 80}}}
      const files = oneNode({})
        .set('api/services.json', items(SERVICE))
        .set(
          'api/ingresses.json',
          items({metadata: {name: 'i', namespace: 'other'}, spec: {rules: [{http: {paths: [{path: '/', backend}]}}]}}),
        )
        .set('snapshot.json', JSON.stringify({forbidden}))
      const snapshot = snapshotFromFiles(files)
      return check(snapshot, buildWorld(snapshot)).findings.flatMap(({code}) => (code === 'SVT314' ? code : []))
    }
    expect(found({})).to.deep.equal(['SVT314'])
    expect(found({services: 'only default was read'})).to.deep.equal([])
  })

  it('nodes that were left out are named in the result', async () => {
    const files = oneNode({}).set('api/services.json', items(SERVICE)).set('snapshot.json', '{"skipped":["n2","n3"]}')
    const snapshot = snapshotFromFiles(files)
    const result = trace(snapshot, buildWorld(snapshot), {service: snapshot.cluster.services[0]!})
    expect(result.leftOut).to.deep.equal(['n2', 'n3'])
    expect(await formatTrace(result, 'text', {color: false, width: 80})).to.contain(
      '2 nodes (n2, n3): nothing is said about them',
    )
  })

  it('no form of output sends a control sequence to the terminal', async () => {
    const evil = 'x\u001b]0;y\u0007\u009b2J\u202e'
    const files = oneNode({})
      .set('api/services.json', items(SERVICE))
      .set(
        'api/configmaps.json',
        items({metadata: {name: 'coredns', namespace: 'kube-system'}, data: {Corefile: ` kubernetes ${evil} {`}}),
      )
      .set(
        'api/ingresses.json',
        items({
          metadata: {name: 'i', namespace: 'default'},
          spec: {
            rules: [{host: evil, http: {paths: [{path: evil, backend: {service: {name: 'web', port: {number: 80}}}}]}}],
          },
        }),
      )
    const snapshot = snapshotFromFiles(files)
    const result = trace(snapshot, buildWorld(snapshot), {service: snapshot.cluster.services[0]!})
    for (const format of ['text', 'wide', 'json', 'yaml'])
      expect(await formatTrace(result, format, {color: false, width: 80}), format).not.to.match(
        /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/,
      )
  })
})
