import type {ClusterState, Service} from '../model/kube.js'
import {formatAddress, parseAddress} from '../util/ip.js'
import {list, record, text} from '../util/json.js'
import {clusterDomain, dnsService, recordsOf, zoneOf, type DnsRecord} from './dns.js'

export interface DnsQuestion {
  readonly name: string
  readonly type: DnsRecord['type']
}

/** What a server said: NOERROR, NXDOMAIN, SERVFAIL … (RFC 6895), or `no answer`. */
export interface DnsAnswer extends DnsQuestion {
  readonly status: string
  readonly records: readonly DnsRecord[]
}

/** One DNS server that was asked from a node. */
export interface AskedServer {
  /** `10.96.0.10:53` */
  readonly server: string
  readonly kind: 'service' | 'replica' | 'node cache'
  /** The replica's pod. */
  readonly pod?: string
  /** Why nothing could be asked there. */
  readonly failure?: string
  readonly answers: readonly DnsAnswer[]
}

/** Questions about one Service: each name and type that has an answer by the specification, and the other address family, which must have none. */
export function questionsFor(cluster: ClusterState, service: Service): DnsQuestion[] {
  const {domain} = clusterDomain(cluster)
  const records = recordsOf(cluster, service, domain)
  const pairs = records.flatMap(({name, type}): DnsQuestion[] =>
    type === 'A' || type === 'AAAA'
      ? [
          {name, type: 'A'},
          {name, type: 'AAAA'},
        ]
      : [{name, type}],
  )
  return [...new Map(pairs.map((question) => [`${question.type} ${question.name}`, question])).values()]
}

/** The servers to ask: the Service, each of its replicas by itself, and NodeLocal DNSCache where its device is (KEP-1024). */
export function serversOf(
  cluster: ClusterState,
  devices: readonly {readonly name: string; readonly addresses: readonly string[]}[],
): Omit<AskedServer, 'answers'>[] {
  const service = dnsService(cluster)
  const port = service?.ports.find(({protocol, port: number}) => protocol === 'TCP' && number === 53)
  if (!service || !port) return []
  const replicas = cluster.slices
    .filter((slice) => slice.service === service.id)
    .flatMap(({ports, endpoints}) => {
      const own = ports.find(({name, protocol}) => name === port.name && protocol === 'TCP')?.port
      return own === undefined
        ? []
        : endpoints
            .filter(({ready}) => ready)
            .map(({address, pod}) => ({
              server: hostPort(address, own),
              kind: 'replica' as const,
              ...(pod === undefined ? {} : {pod}),
            }))
    })
  const caches = devices
    .filter(({name}) => name === 'nodelocaldns')
    .flatMap(({addresses}) => addresses.filter((address) => !service.clusterIPs.includes(address)).slice(0, 1))
  return [
    ...service.clusterIPs.map((ip) => ({server: hostPort(ip, port.port), kind: 'service' as const})),
    ...replicas,
    ...caches.map((address) => ({server: hostPort(address, 53), kind: 'node cache' as const})),
  ]
}

const hostPort = (address: string, port: number): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`

/** The answers that a snapshot holds (`dns.json` of a node). */
export function readAnswers(json: string): AskedServer[] {
  return list(record(JSON.parse(json))['asked']).map((item) => ({
    server: text(item['server']) ?? '',
    kind: item['kind'] === 'replica' || item['kind'] === 'node cache' ? item['kind'] : 'service',
    ...(text(item['pod']) === undefined ? {} : {pod: text(item['pod'])!}),
    ...(text(item['failure']) === undefined ? {} : {failure: text(item['failure'])!}),
    answers: list(item['answers']).map((answer) => ({
      name: text(answer['name']) ?? '',
      type: (text(answer['type']) ?? 'A') as DnsRecord['type'],
      status: text(answer['status']) ?? 'no answer',
      records: list(answer['records']).map((one) => ({
        name: text(one['name']) ?? '',
        type: (text(one['type']) ?? 'A') as DnsRecord['type'],
        data: text(one['data']) ?? '',
      })),
    })),
  }))
}

/** How an answer differs from the specification; undefined when it does not. */
export function differenceOf(cluster: ClusterState, answer: DnsAnswer): string | undefined {
  const {name, type, status, records} = answer
  const question = `${name} ${type}`
  if (status === 'no answer') return `${question}: no answer`
  if (status !== 'NOERROR') return `${question}: ${status}`
  const wanted = wantedFor(cluster, answer)
  const got = new Set(records.filter((one) => one.type === type && one.name === name).map(({data}) => dataOf(data)))
  const missing = [...wanted].filter((data) => !got.has(data))
  const extra = [...got].filter((data) => !wanted.has(data))
  if (missing.length === 0 && extra.length === 0) return undefined
  return [
    missing.length > 0 ? `${question} lacks ${missing.join(', ')}` : '',
    extra.length > 0 ? `${question} has ${extra.join(', ')}, which the API does not know (stale?)` : '',
  ]
    .filter(Boolean)
    .join('; ')
}

const wantedFor = (cluster: ClusterState, {name, type}: DnsQuestion): Set<string> =>
  new Set((zoneOf(cluster).get(name) ?? []).filter((record) => record.type === type).map(({data}) => dataOf(data)))

/** Addresses in one spelling. */
function dataOf(data: string): string {
  const address = parseAddress(data)
  return address === undefined ? data.toLowerCase() : formatAddress(address)
}
