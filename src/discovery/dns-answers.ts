import type {ClusterState, Service} from '../model/kube.js'
import {formatAddress, parseAddress} from '../util/ip.js'
import {list, record, text, texts, type Json} from '../util/json.js'
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
  /** Why it could not be reached. */
  readonly failure?: string
  /** Why it could not be asked at all: that says nothing about the server. */
  readonly unasked?: string
  readonly answers: readonly DnsAnswer[]
}

/** Questions about one Service: each name and type that has an answer by the specification, and the other address family, which must have none. */
export function questionsFor(cluster: ClusterState, service: Service): DnsQuestion[] {
  const {domain} = clusterDomain(cluster)
  const records = recordsOf(cluster, service, domain)
  const free = new Set(records.filter((one) => one.free).map(keyOf))
  const both = (name: string): DnsQuestion[] => [
    {name, type: 'A'},
    {name, type: 'AAAA'},
  ]
  const pairs = [
    // a headless Service without endpoints has no address: that must be asked as well
    ...(service.type === 'ExternalName' ? [] : both(`${service.name}.${service.namespace}.svc.${domain}`)),
    ...records.flatMap(({name, type}) => (type === 'A' || type === 'AAAA' ? both(name) : [{name, type}])),
  ]
  const names = new Set(records.filter(({free: own, type}) => own && type !== 'SRV').map(({name}) => name))
  return [...new Map(pairs.map((question) => [keyOf(question), question])).values()].filter(
    (question) => !free.has(keyOf(question)) && !names.has(question.name),
  )
}

const keyOf = ({name, type}: DnsQuestion): string => `${type} ${name}`

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

/** What a node's `dns.json` holds. */
export interface AskedDns {
  readonly asked: readonly AskedServer[]
  /** Why not all was asked that should have been. */
  readonly incomplete: readonly string[]
}

/** Reads a node's `dns.json`; what is no such file has asked nothing. */
export function readAnswers(json: string): AskedDns {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    return {asked: [], incomplete: ['dns.json is not valid JSON']}
  }
  return {asked: list(record(value)['asked']).map(readServer), incomplete: texts(record(value)['incomplete'])}
}

function readServer(item: Json): AskedServer {
  const [pod, failure, unasked] = [text(item['pod']), text(item['failure']), text(item['unasked'])]
  return {
    server: text(item['server']) ?? '',
    kind: item['kind'] === 'replica' || item['kind'] === 'node cache' ? item['kind'] : 'service',
    ...(pod === undefined ? {} : {pod}),
    ...(failure === undefined ? {} : {failure}),
    ...(unasked === undefined ? {} : {unasked}),
    answers: list(item['answers']).map((answer) => ({
      ...readRecord(answer),
      status: text(answer['status']) ?? 'no answer',
      records: list(answer['records']).map(readRecord),
    })),
  }
}

const readRecord = (item: Json): DnsRecord => ({
  name: text(item['name']) ?? '',
  type: (text(item['type']) ?? 'A') as DnsRecord['type'],
  data: text(item['data']) ?? '',
})

/** How an answer differs from the specification; undefined when it does not. */
export function differenceOf(cluster: ClusterState, answer: DnsAnswer): string | undefined {
  const {name, type, status, records} = answer
  const question = `${name} ${type}`
  if (status === 'no answer') return `${question}: no answer`
  const wanted = wantedFor(cluster, answer)
  if (status !== 'NOERROR') return status === 'NXDOMAIN' && wanted.size === 0 ? undefined : `${question}: ${status}`
  const got = new Set(records.filter((one) => one.type === type && one.name === name).map(({data}) => dataOf(data)))
  const missing = [...wanted].filter((data) => !got.has(data))
  // servers may name an address once for each Service that it is an endpoint of
  const extra = type === 'PTR' ? [] : [...got].filter((data) => !wanted.has(data))
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
