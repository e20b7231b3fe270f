import {expect} from 'chai'
import {differenceOf, questionsFor, serversOf, type DnsAnswer} from '../../../src/discovery/dns-answers.js'
import type {ClusterState} from '../../../src/model/kube.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

const items = (...list: object[]): string => JSON.stringify({items: list})
const slice = (service: string, namespace: string, ports: object[], endpoints: object[]): object => ({
  metadata: {name: `${service}-1`, namespace, labels: {'kubernetes.io/service-name': service}},
  addressType: 'IPv4',
  ports,
  endpoints,
})
const endpoint = (address: string, more: object = {}): object => ({
  addresses: [address],
  conditions: {ready: true},
  ...more,
})

function cluster(): ClusterState {
  const spec = (clusterIP: string, ports: object[]): object => ({clusterIP, clusterIPs: [clusterIP], ports})
  const dns = [
    {name: 'dns', port: 53, protocol: 'UDP'},
    {name: 'dns-tcp', port: 53, protocol: 'TCP'},
  ]
  return snapshotFromFiles(
    new Map([
      [
        'api/services.json',
        items(
          {
            metadata: {name: 'kube-dns', namespace: 'kube-system', labels: {'k8s-app': 'kube-dns'}},
            spec: spec('10.96.0.10', dns),
          },
          {
            metadata: {name: 'web', namespace: 'd'},
            spec: spec('10.96.0.7', [{name: 'http', port: 80, protocol: 'TCP'}]),
          },
          {metadata: {name: 'db', namespace: 'd'}, spec: spec('None', [{name: 'pg', port: 5432, protocol: 'TCP'}])},
          {metadata: {name: 'empty', namespace: 'd'}, spec: spec('None', [])},
        ),
      ],
      [
        'api/endpointslices.json',
        items(
          slice(
            'kube-dns',
            'kube-system',
            [{name: 'dns-tcp', port: 5353, protocol: 'TCP'}],
            [
              endpoint('10.1.1.5', {targetRef: {kind: 'Pod', namespace: 'kube-system', name: 'coredns-a'}}),
              endpoint('10.1.1.6', {conditions: {ready: false}}),
            ],
          ),
          slice('db', 'd', [{name: 'pg', port: 5432, protocol: 'TCP'}], [endpoint('10.1.1.9')]),
        ),
      ],
    ]),
  ).cluster
}

describe('asking the DNS servers', () => {
  it('means the Service, each replica that is ready, and the cache of the node (KEP-1024)', () => {
    const devices = [
      {name: 'eth0', addresses: ['192.0.2.1']},
      {name: 'nodelocaldns', addresses: ['10.96.0.10', '169.254.20.10']},
    ]
    expect(serversOf(cluster(), devices).map(({server, kind, pod}) => [server, kind, pod])).to.deep.equal([
      ['10.96.0.10:53', 'service', undefined],
      ['10.1.1.5:5353', 'replica', 'kube-system/coredns-a'],
      ['169.254.20.10:53', 'node cache', undefined],
    ])
  })

  it('asks both families of each name, and not for names that the server chooses', () => {
    const {services} = cluster()
    const asked = (name: string): string[] =>
      questionsFor(
        cluster(),
        services.find((service) => service.name === name)!,
      ).map((one) => `${one.type} ${one.name}`)
    expect(asked('web')).to.deep.equal([
      'A web.d.svc.cluster.local',
      'AAAA web.d.svc.cluster.local',
      'SRV _http._tcp.web.d.svc.cluster.local',
      'PTR 7.0.96.10.in-addr.arpa',
    ])
    expect(asked('db')).to.deep.equal(['A db.d.svc.cluster.local', 'AAAA db.d.svc.cluster.local'])
    expect(asked('empty')).to.deep.equal(['A empty.d.svc.cluster.local', 'AAAA empty.d.svc.cluster.local'])
  })

  const WEB = 'web.d.svc.cluster.local'
  const answer = (type: DnsAnswer['type'], status: string, name: string, ...data: string[]): DnsAnswer => ({
    name,
    type,
    status,
    records: data.map((one) => ({name, type, data: one})),
  })
  const CASES: [what: string, answer: DnsAnswer, difference: RegExp | undefined][] = [
    ['right', answer('A', 'NOERROR', WEB, '10.96.0.7'), undefined],
    ['no such family', answer('AAAA', 'NOERROR', WEB), undefined],
    ['wrong family', answer('AAAA', 'NOERROR', WEB, 'fd00::7'), /has fd00::7, which the API does not know/],
    ['missing', answer('A', 'NOERROR', WEB), /lacks 10\.96\.0\.7/],
    ['stale', answer('A', 'NOERROR', WEB, '10.96.0.99'), /lacks 10\.96\.0\.7; .*10\.96\.0\.99/],
    ['no such name', answer('A', 'NXDOMAIN', WEB), /NXDOMAIN/],
    ['failing', answer('A', 'SERVFAIL', WEB), /SERVFAIL/],
    ['silent', answer('A', 'no answer', WEB), /no answer/],
    ['nothing, where nothing must be', answer('A', 'NXDOMAIN', 'empty.d.svc.cluster.local'), undefined],
    [
      'something, where nothing must be',
      answer('A', 'NOERROR', 'empty.d.svc.cluster.local', '10.1.1.1'),
      /does not know/,
    ],
    ['a pointer more', answer('PTR', 'NOERROR', '7.0.96.10.in-addr.arpa', WEB, 'other.d.svc.cluster.local'), undefined],
    ['another spelling of the port', answer('SRV', 'NOERROR', `_http._tcp.${WEB}`, `80 ${WEB}`), undefined],
  ]
  for (const [what, given, difference] of CASES)
    it(`an answer that is ${what}`, () => {
      const told = differenceOf(cluster(), given)
      if (difference) expect(told).to.match(difference)
      else expect(told).to.equal(undefined)
    })
})
