import {expect} from 'chai'
import {checkIngresses} from '../../../src/checks/ingress.js'
import {balancerOf, endpointWriters} from '../../../src/discovery/balancer.js'
import {allRoutes, backendPort, classOf, controllerService, plainPorts} from '../../../src/discovery/ingress.js'
import {buildWorld} from '../../../src/engine.js'
import {ingressTraceText} from '../../../src/report/ingress-trace.js'
import {snapshotFromFiles, type Snapshot} from '../../../src/snapshot/snapshot.js'
import {trace} from '../../../src/trace.js'
import {traceIngress, type IngressTrace} from '../../../src/trace-ingress.js'
import {oneNode} from '../../helpers/node.js'

const items = (...list: object[]): string => JSON.stringify({items: list})
const meta = (name: string, namespace = 'default', more: object = {}): object => ({name, namespace, ...more})

/** A shop behind ingress-nginx, whose pod is default/a; the shop's pod is default/b. */
function shop(change: (files: Map<string, string>) => void = () => undefined): Snapshot {
  const iptables =
    '*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 203.0.113.80/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.1.1.2:8443\nCOMMIT\n'
  const files = oneNode({iptables})
  const service = (name: string, spec: object, labels: object = {}, status: object = {}): object => ({
    metadata: meta(name, 'default', {labels}),
    spec,
    status,
  })
  files.set(
    'api/services.json',
    items(
      service('web', {clusterIP: '10.96.0.1', ports: [{name: 'http', port: 80, targetPort: 8080, protocol: 'TCP'}]}),
      service(
        'entry',
        {
          type: 'LoadBalancer',
          clusterIP: '10.96.0.2',
          ports: [
            {name: 'http', port: 80, targetPort: 8080, nodePort: 30080, protocol: 'TCP'},
            {name: 'https', port: 443, targetPort: 8443, nodePort: 30443, protocol: 'TCP'},
          ],
        },
        {'app.kubernetes.io/name': 'ingress-nginx'},
        {loadBalancer: {ingress: [{ip: '203.0.113.80'}]}},
      ),
    ),
  )
  const slice = (owner: string, address: string, pod: string, ports: object[]): object => ({
    metadata: meta(`${owner}-1`, 'default', {labels: {'kubernetes.io/service-name': owner}}),
    addressType: 'IPv4',
    ports,
    endpoints: [
      {
        addresses: [address],
        nodeName: 'n1',
        conditions: {ready: true},
        targetRef: {kind: 'Pod', namespace: 'default', name: pod},
      },
    ],
  })
  files.set(
    'api/endpointslices.json',
    items(
      slice('web', '10.1.1.3', 'b', [{name: 'http', port: 8080, protocol: 'TCP'}]),
      slice('entry', '10.1.1.2', 'a', [
        {name: 'http', port: 8080, protocol: 'TCP'},
        {name: 'https', port: 8443, protocol: 'TCP'},
      ]),
    ),
  )
  files.set('api/ingressclasses.json', items({metadata: {name: 'nginx'}, spec: {controller: 'k8s.io/ingress-nginx'}}))
  files.set('api/ingresses.json', items({metadata: meta('shop'), spec: SPEC}))
  change(files)
  return snapshotFromFiles(files)
}

const SPEC = {
  ingressClassName: 'nginx',
  tls: [{hosts: ['shop.example.com'], secretName: 'shop-tls'}],
  rules: [
    {
      host: 'shop.example.com',
      http: {paths: [{path: '/', pathType: 'Prefix', backend: {service: {name: 'web', port: {number: 80}}}}]},
    },
  ],
}
const ingress = (metadata: object, spec: object, status: object = {}): string =>
  items({metadata: meta('shop', 'default', metadata), spec: {...SPEC, ...spec}, status})

function traced(snapshot: Snapshot): IngressTrace {
  const [route] = allRoutes(snapshot.cluster)
  const service = snapshot.cluster.services.find(({id}) => id === route!.service)!
  const port = backendPort(service, route!)!
  return traceIngress(snapshot, buildWorld(snapshot), {route: route!, service, port, options: {}})
}

describe('the whole way through an Ingress', () => {
  it('goes to the controller from outside, and from its pod straight to the endpoints', () => {
    const {entry, backend, how} = traced(shop())
    expect(entry?.service.name).to.equal('entry')
    expect(new Set(entry?.paths.map(({frontend}) => frontend.port))).to.deep.equal(new Set([443, 30443]))
    expect(how).to.equal('pod')
    expect(backend.paths.map(({frontend, origin, outcome}) => [frontend.kind, origin.name, outcome])).to.deep.equal([
      ['endpoint', 'pod default/a', 'delivered'],
    ])
  })

  it('goes by the Service’s own address with service-upstream', () => {
    const files = (all: Map<string, string>): void =>
      void all.set(
        'api/ingresses.json',
        ingress({annotations: {'nginx.ingress.kubernetes.io/service-upstream': 'true'}}, {}),
      )
    const {backend, how} = traced(shop(files))
    expect(how).to.equal('service')
    expect(backend.paths.map(({frontend}) => frontend.kind)).to.deep.equal(['clusterIP'])
  })

  it('says when the controller listens on the nodes, or is not found', () => {
    const alone = (all: Map<string, string>): void => {
      const services = JSON.parse(all.get('api/services.json')!) as {items: object[]}
      all.set('api/services.json', items(services.items[0]!))
    }
    expect(traced(shop(alone)).notes.join()).to.contain('was not found')
    const onNode = (all: Map<string, string>): void => {
      alone(all)
      const pods = JSON.parse(all.get('api/pods.json')!) as {items: object[]}
      const own = {
        metadata: meta('edge', 'ingress', {labels: {'app.kubernetes.io/name': 'ingress-nginx'}}),
        spec: {nodeName: 'n1', hostNetwork: true, containers: []},
        status: {phase: 'Running', podIP: '192.0.2.11', conditions: [{type: 'Ready', status: 'True'}]},
      }
      all.set('api/pods.json', items(...pods.items, own))
    }
    expect(traced(shop(onNode)).notes.join()).to.contain('listens on the nodes themselves: ingress/edge on n1')
    expect(traced(shop(onNode)).entry).to.equal(undefined)
    const named = (all: Map<string, string>): void => {
      onNode(all)
      const services = JSON.parse(all.get('api/services.json')!) as {items: object[]}
      const metadata = meta('edge', 'ingress', {labels: {'app.kubernetes.io/name': 'ingress-nginx'}})
      const ports = [{name: 'https', port: 443, targetPort: 443, protocol: 'TCP'}]
      all.set('api/services.json', items(...services.items, {metadata, spec: {clusterIP: 'None', ports}}))
      const slices = JSON.parse(all.get('api/endpointslices.json')!) as {items: object[]}
      const edge = {
        metadata: meta('edge-1', 'ingress', {labels: {'kubernetes.io/service-name': 'edge'}}),
        addressType: 'IPv4',
        ports: [{name: 'https', port: 443, protocol: 'TCP'}],
        endpoints: [{addresses: ['192.0.2.11'], nodeName: 'n1', conditions: {ready: true}}],
      }
      all.set('api/endpointslices.json', items(...slices.items, edge))
    }
    const {entry} = traced(shop(named))
    expect(
      entry?.paths.map(({frontend, origin}) => [frontend.kind, frontend.address, frontend.port, origin.kind]),
    ).to.deep.equal([['endpoint', '192.0.2.11', 443, 'external']])
  })

  it('begins where the client is, and behind the controller with the controller', () => {
    const snapshot = shop()
    const [route] = allRoutes(snapshot.cluster)
    const service = snapshot.cluster.services[0]!
    const {entry, backend} = traceIngress(snapshot, buildWorld(snapshot), {
      route: route!,
      service,
      port: backendPort(service, route!)!,
      options: {from: {kind: 'pod', pod: 'default/b'}},
    })
    expect(new Set(entry?.paths.map(({origin}) => origin.name))).to.deep.equal(new Set(['pod default/b']))
    expect(new Set(backend.paths.map(({origin}) => origin.name))).to.deep.equal(new Set(['pod default/a']))
  })

  it('says what is a guess: a controller found by its labels, how an unknown one sends', () => {
    expect(traced(shop()).notes.join()).to.contain('is a guess by its labels')
    const other = shop((all) =>
      all.set(
        'api/ingressclasses.json',
        items({metadata: {name: 'nginx'}, spec: {controller: 'example.com/ingress-nginx.x'}}),
      ),
    )
    expect(traced(other).notes.join()).to.contain('is not known')
  })

  it('is told in order: the route, the controller, the backend', () => {
    const text = ingressTraceText(traced(shop()), {color: false, width: 80, wide: false})
    const places = ['Ingress default/shop', 'to the controller: default/entry', 'to the backend: default/web'].map(
      (part) => text.indexOf(part),
    )
    expect(
      places.every((place, at) => place >= 0 && (at === 0 || place > places[at - 1]!)),
      text,
    ).to.equal(true)
  })
})

describe('the controller of an Ingress', () => {
  const state = (metadata: object, spec: object, status: object = {}): Snapshot =>
    shop((all) => all.set('api/ingresses.json', ingress(metadata, spec, status)))
  const codes = ({cluster}: Snapshot): string[] => checkIngresses(cluster, cluster.services).map(({name}) => name)

  it('is found by the address in the status, else by its labels', () => {
    for (const snapshot of [
      state({}, {}),
      state({}, {ingressClassName: undefined}, {loadBalancer: {ingress: [{ip: '203.0.113.80'}]}}),
    ]) {
      const [route] = allRoutes(snapshot.cluster)
      expect(controllerService(snapshot.cluster, route!)?.service.name).to.equal('entry')
    }
  })

  it('is missing for a class that does not exist, or where there is no default', () => {
    expect(codes(state({}, {}))).to.deep.equal([])
    expect(codes(state({}, {ingressClassName: 'gone'}))).to.deep.equal(['ingress-without-class'])
    expect(codes(state({}, {ingressClassName: undefined}))).to.deep.equal(['ingress-without-class'])
    // the old annotation names no IngressClass, and an address in the status shows that somebody took it
    const annotations = {'kubernetes.io/ingress.class': 'gce'}
    expect(codes(state({annotations}, {ingressClassName: undefined}))).to.deep.equal([])
    const taken = {loadBalancer: {ingress: [{ip: '203.0.113.9'}]}}
    expect(codes(state({}, {ingressClassName: undefined}, taken))).to.deep.equal([])
    const marked = shop((all) => {
      all.set('api/ingresses.json', ingress({}, {ingressClassName: undefined}))
      all.set(
        'api/ingressclasses.json',
        items({
          metadata: {name: 'nginx', annotations: {'ingressclass.kubernetes.io/is-default-class': 'true'}},
          spec: {},
        }),
      )
    })
    expect(codes(marked)).to.deep.equal([])
    expect(classOf(marked.cluster, allRoutes(marked.cluster)[0]!).name).to.equal('nginx')
  })

  it('lacks a certificate where the Secret is missing; nobody is accused where Secrets were not listed', () => {
    const secrets = (...names: string[]): Snapshot =>
      shop((all) => all.set('api/secrets.json', items(...names.map((name) => ({metadata: meta(name)})))))
    expect(codes(secrets('shop-tls'))).to.deep.equal([])
    expect(codes(secrets('other'))).to.deep.equal(['ingress-tls-secret-missing'])
    expect(codes(shop())).to.deep.equal([])
    const fallback = {rules: [], defaultBackend: {service: {name: 'web', port: {number: 80}}}}
    const alone = shop((all) => {
      all.set('api/ingresses.json', ingress({}, fallback))
      all.set('api/secrets.json', items())
    })
    expect(codes(alone)).to.deep.equal(['ingress-tls-secret-missing'])
  })

  it('passes on plain ports (ingress-nginx, "Exposing TCP and UDP services")', () => {
    const {cluster} = shop((all) =>
      all.set(
        'api/configmaps.json',
        items(
          {metadata: meta('tcp-services', 'ingress-nginx'), data: {9000: 'default/web:80:PROXY', x: 'y'}},
          {metadata: meta('udp-services', 'ingress-nginx'), data: {53: 'kube-system/kube-dns:53'}},
        ),
      ),
    )
    expect(plainPorts(cluster)).to.deep.equal([
      {port: 9000, protocol: 'TCP', service: 'default/web', servicePort: '80'},
      {port: 53, protocol: 'UDP', service: 'kube-system/kube-dns', servicePort: '53'},
    ])
  })
})

describe('a plain port of ingress-nginx', () => {
  it('is traced from outside with the Service that it leads to', () => {
    const snapshot = shop((all) =>
      all.set(
        'api/configmaps.json',
        items({metadata: meta('tcp-services', 'ingress-nginx'), data: {443: 'default/web:80'}}),
      ),
    )
    const {plain} = trace(snapshot, buildWorld(snapshot), {service: snapshot.cluster.services[0]!})
    expect(
      plain.map(({service, paths}) => [service.name, new Set(paths.map(({origin}) => origin.kind))]),
    ).to.deep.equal([['entry', new Set(['external'])]])
  })
})

describe('what is behind a load balancer', () => {
  const balancer = (spec: object, change: (all: Map<string, string>) => void = () => undefined): unknown => {
    const snapshot = shop((all) => {
      const services = JSON.parse(all.get('api/services.json')!) as {items: {spec: object}[]}
      Object.assign(services.items[1]!.spec, spec)
      all.set('api/services.json', items(...services.items))
      const nodes = JSON.parse(all.get('api/nodes.json')!) as {items: object[]}
      all.set('api/nodes.json', items(...nodes.items, {metadata: {name: 'n2'}, spec: {}, status: {}}))
      change(all)
    })
    return balancerOf(snapshot.cluster, snapshot.cluster.services[1]!)
  }

  it('are all nodes, or with policy Local those with an endpoint', () => {
    expect(balancer({})).to.deep.include({
      addresses: ['203.0.113.80'],
      nodes: ['n1', 'n2'],
      failing: [],
      nodePorts: [30080, 30443],
    })
    expect(balancer({externalTrafficPolicy: 'Local', healthCheckNodePort: 31000})).to.deep.include({
      nodes: ['n1'],
      failing: ['n2'],
      healthCheckNodePort: 31000,
    })
  })

  it('tells the latest warning of a pending one', () => {
    const event = (lastTimestamp: string, message: string, type = 'Warning'): object => ({
      metadata: meta(message),
      involvedObject: {kind: 'Service', namespace: 'default', name: 'entry'},
      type,
      reason: `Sync_${message}`,
      message,
      lastTimestamp,
    })
    const events = (all: Map<string, string>): void =>
      void all.set(
        'api/events.json',
        items(
          event('2026-01-01T00:00:00Z', 'old'),
          event('2026-01-02T00:00:00Z', 'quota'),
          event('2026-01-03T00:00:00Z', 'fine', 'Normal'),
        ),
      )
    expect(balancer({})).to.deep.include({events: [], eventsRead: false})
    expect(balancer({}, events)).to.deep.include({
      eventsRead: true,
      events: ['Sync_quota', 'Sync_old'],
    })
  })

  it('names who writes the endpoints of a Service without a selector', () => {
    const {cluster} = shop()
    expect(endpointWriters(cluster, cluster.services[0]!)).to.deep.equal(['by hand (web-1)'])
  })
})
