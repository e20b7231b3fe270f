import type {ClusterState, Endpoint, EndpointPort, Pod, Service} from '../model/kube.js'
import {parseAddress} from '../util/ip.js'

/** One record that the cluster DNS must have. Names are absolute and lower-case, without the dot at the end. */
export interface DnsRecord {
  readonly name: string
  readonly type: 'A' | 'AAAA' | 'CNAME' | 'SRV' | 'PTR'
  /** An address, a name, or `PORT NAME` for SRV (priority and weight are the server's own choice). */
  readonly data: string
  /** The name or the target is the server's own choice (an endpoint without a hostname), so its answer may differ. */
  readonly free?: true
}

/** The zone when nothing tells it: kubelet's and CoreDNS' default. */
const DEFAULT_DOMAIN = 'cluster.local'

/** The zone of the cluster, as CoreDNS' configuration names it (`kubernetes cluster.local in-addr.arpa …`). */
export function clusterDomain({raw}: ClusterState): {readonly domain: string; readonly assumed: boolean} {
  for (const {metadata, data} of raw['configmaps'] ?? []) {
    if (metadata.name !== 'coredns' || metadata.namespace !== 'kube-system') continue
    const zones =
      /^[ \t]*kubernetes[ \t]+([^{\n]+)/m
        .exec(data?.['Corefile'] ?? '')?.[1]
        ?.trim()
        .split(/\s+/) ?? []
    const zone = zones.find((name) => /^[\w.-]+$/.test(name) && !name.endsWith('.arpa'))
    if (zone !== undefined) return {domain: zone.replace(/\.$/, '').toLowerCase(), assumed: false}
  }
  return {domain: DEFAULT_DOMAIN, assumed: true}
}

const serviceName = ({name, namespace}: Service, domain: string): string => `${name}.${namespace}.svc.${domain}`

/** The names that lead to a Service, and who may use them (Kubernetes DNS-Based Service Discovery; pod search lists). */
export function namesOf({name, namespace}: Service, domain: string): {readonly name: string; readonly from: string}[] {
  return [
    {name, from: `pods of namespace ${namespace}`},
    {name: `${name}.${namespace}`, from: 'pods of any namespace'},
    {name: `${name}.${namespace}.svc`, from: 'pods of any namespace'},
    {name: `${name}.${namespace}.svc.${domain}`, from: 'everyone who asks the cluster DNS'},
  ]
}

/**
 * The records of one Service (Kubernetes DNS-Based Service Discovery 1.1.0): 2.3 with a cluster IP, 2.4 headless,
 * 2.5 ExternalName.
 */
export function recordsOf(cluster: ClusterState, service: Service, domain: string): DnsRecord[] {
  const name = serviceName(service, domain)
  if (service.type === 'ExternalName')
    return service.externalName === undefined ? [] : [{name, type: 'CNAME', data: absolute(service.externalName)}]
  return service.headless ? headlessRecords(cluster, service, domain) : virtualRecords(service, domain)
}

const absolute = (name: string): string => name.replace(/\.$/, '').toLowerCase()

/** 2.3.1 A/AAAA, 2.3.2 SRV for every named port, 2.3.3 PTR. */
function virtualRecords(service: Service, domain: string): DnsRecord[] {
  const name = serviceName(service, domain)
  return [
    ...service.clusterIPs.map((ip) => addressRecord(name, ip)),
    ...service.ports.flatMap((port) => srvRecord(port, {name, target: name})),
    ...service.clusterIPs.flatMap((ip) => pointer(ip, name)),
  ]
}

/** 2.4.1 A/AAAA for every ready endpoint, under the Service's name and under the endpoint's own; 2.4.2 SRV; 2.4.3 PTR where a hostname is set. */
function headlessRecords(cluster: ClusterState, service: Service, domain: string): DnsRecord[] {
  const name = serviceName(service, domain)
  const records = cluster.slices
    .filter((slice) => slice.service === service.id && slice.family !== undefined)
    .flatMap(({endpoints, ports}) =>
      endpoints
        .filter(({ready}) => ready || service.publishNotReadyAddresses)
        .flatMap((endpoint) => endpointRecords(endpoint, ports, name)),
    )
  return [...new Map(records.map((record) => [keyOf(record), record])).values()]
}

function endpointRecords({address, hostname}: Endpoint, ports: readonly EndpointPort[], service: string): DnsRecord[] {
  const own = `${(hostname ?? dashed(address)).toLowerCase()}.${service}`
  const free = hostname === undefined ? ({free: true} as const) : {}
  return [
    addressRecord(service, address),
    {...addressRecord(own, address), ...free},
    ...ports.flatMap(({name, port, protocol}) =>
      port === undefined
        ? []
        : srvRecord({name, port, protocol}, {name: service, target: own}).map((record) => ({...record, ...free})),
    ),
    ...(hostname === undefined ? [] : pointer(address, own)),
  ]
}

/** Where no hostname is set, the server chooses a label; CoreDNS and kube-dns take the address. */
const dashed = (address: string): string => address.replaceAll(/[.:]/g, '-')

const addressRecord = (name: string, ip: string): DnsRecord => ({name, type: ip.includes(':') ? 'AAAA' : 'A', data: ip})

const srvRecord = (
  port: {name: string; port: number; protocol: string},
  {name, target}: {name: string; target: string},
): DnsRecord[] =>
  port.name === ''
    ? []
    : [
        {
          name: `_${port.name}._${port.protocol.toLowerCase()}.${name}`,
          type: 'SRV',
          data: `${port.port} ${target}`,
        },
      ]

function pointer(ip: string, target: string): DnsRecord[] {
  const name = reverseName(ip)
  return name === undefined ? [] : [{name, type: 'PTR', data: target}]
}

/** `1.0.96.10.in-addr.arpa`, or the nibbles under ip6.arpa (RFC 1035 3.5, RFC 3596 2.5). */
export function reverseName(ip: string): string | undefined {
  const address = parseAddress(ip)
  if (address === undefined) return undefined
  if (typeof address === 'number')
    return `${[0, 8, 16, 24].map((shift) => (address >>> shift) & 255).join('.')}.in-addr.arpa`
  const nibbles = address.toString(16).padStart(32, '0').split('').reverse()
  return `${nibbles.join('.')}.ip6.arpa`
}

const keyOf = ({name, type, data}: DnsRecord): string => `${type} ${name} ${data}`

/** The name of a pod by its address (`10-1-2-3.namespace.pod.cluster.local`), where the server is told to answer it. */
export const podName = ({namespace}: Pod, ip: string, domain: string): string =>
  `${dashed(ip)}.${namespace}.pod.${domain}`

/** What a program's resolver goes by: a resolv.conf. */
export interface Resolver {
  readonly nameservers: readonly string[]
  readonly searches: readonly string[]
  readonly ndots: number
  /** Where it comes from, and what is not known of it. */
  readonly notes: readonly string[]
}

/** The Service that answers DNS: kubelet's --cluster-dns is not in the API, but the label is everyone's (CoreDNS too). */
export const dnsService = ({services}: ClusterState): Service | undefined =>
  services.find(({namespace, labels}) => namespace === 'kube-system' && labels['k8s-app'] === 'kube-dns') ??
  services.find(({namespace, name}) => namespace === 'kube-system' && (name === 'kube-dns' || name === 'coredns'))

/** kubelet hands on no more than these (pkg/apis/core/validation: MaxDNSNameservers, MaxDNSSearchPaths). */
const MOST_NAMESERVERS = 3
const MOST_SEARCHES = 32
const MOST_SEARCH_CHARACTERS = 2048
/** glibc's RES_MAXNDOTS. */
const MOST_NDOTS = 15

function shortened(searches: readonly string[]): string[] {
  const kept = searches.slice(0, MOST_SEARCHES)
  while (kept.join(' ').length > MOST_SEARCH_CHARACTERS) kept.pop()
  return kept
}

/**
 * The resolv.conf that kubelet writes for a pod (pkg/kubelet/network/dns/dns.go): dnsPolicy first, then dnsConfig added.
 * `nodeText` is the node's own resolv.conf where it was read.
 */
export function resolverOf(cluster: ClusterState, pod: Pod, nodeText?: string): Resolver {
  const base = policyResolver(cluster, pod, nodeText)
  const {nameservers = [], searches = [], options = []} = pod.dnsConfig ?? {}
  const ndots = options.find(({name}) => name === 'ndots')?.value
  return {
    nameservers: unique([...base.nameservers, ...nameservers]).slice(0, MOST_NAMESERVERS),
    searches: shortened(unique([...base.searches, ...searches.map(absolute)])),
    ndots: Math.min(ndots === undefined ? base.ndots : Number(ndots) || 0, MOST_NDOTS),
    notes: base.notes,
  }
}

function policyResolver(
  cluster: ClusterState,
  {dnsPolicy, hostNetwork, namespace, node}: Pod,
  nodeText?: string,
): Resolver {
  const policy = dnsPolicy === 'ClusterFirst' && hostNetwork ? 'Default' : dnsPolicy
  if (policy === 'None') return {nameservers: [], searches: [], ndots: 1, notes: ['dnsPolicy None: dnsConfig alone']}
  // kubelet reads no `domain` lines
  const own = nodeText === undefined ? undefined : parseResolvConf(nodeText.replaceAll(/^\s*domain\s.*$/gm, ''))
  const unread = own ? [] : [`the resolv.conf of node ${node ?? '?'} was not read`]
  if (policy === 'Default')
    return {
      ...(own ?? {nameservers: [], searches: [], ndots: 1}),
      notes: [
        hostNetwork && dnsPolicy === 'ClusterFirst'
          ? 'hostNetwork with dnsPolicy ClusterFirst: the node’s own DNS (ClusterFirstWithHostNet would ask the cluster DNS)'
          : 'dnsPolicy Default: the node’s own DNS',
        ...unread,
      ],
    }
  const {domain, assumed} = clusterDomain(cluster)
  const server = dnsService(cluster)
  return {
    nameservers: server?.clusterIPs ?? [],
    searches: [`${namespace}.svc.${domain}`, `svc.${domain}`, domain, ...(own?.searches ?? [])],
    ndots: 5,
    notes: [
      ...unread,
      ...(assumed ? [`cluster domain ${domain} is assumed`] : []),
      ...(server ? [] : ['no cluster DNS Service was found in kube-system']),
    ],
  }
}

const unique = (names: readonly string[]): string[] => [...new Set(names)]

/** resolv.conf(5): the last `search` or `domain` counts; `#` and `;` begin comments. */
export function parseResolvConf(text: string): Pick<Resolver, 'nameservers' | 'searches' | 'ndots'> {
  const nameservers: string[] = []
  let searches: string[] = []
  let ndots = 1
  for (const line of text.split('\n')) {
    const [word, ...values] = line.trim().split(/\s+/)
    if (word === 'nameserver' && values[0] !== undefined) nameservers.push(values[0])
    else if (word === 'search') searches = values.filter((name) => name !== '.').map(absolute)
    else if (word === 'domain' && values[0] !== undefined) searches = [absolute(values[0])]
    else if (word === 'options')
      for (const value of values)
        if (value.startsWith('ndots:')) ndots = Math.min(Number(value.slice(6)) || 0, MOST_NDOTS)
  }
  return {nameservers, searches, ndots}
}

/** One question that the resolver asks, and what must come of it. */
export interface LookupStep {
  readonly question: string
  readonly answer: 'found' | 'no such name' | 'asked outside the cluster'
  readonly records: readonly DnsRecord[]
}

/** All names of the cluster, made once for each state. */
const zones = new WeakMap<ClusterState, Map<string, DnsRecord[]>>()

export function zoneOf(cluster: ClusterState): ReadonlyMap<string, readonly DnsRecord[]> {
  let zone = zones.get(cluster)
  if (zone) return zone
  zone = new Map<string, DnsRecord[]>()
  zones.set(cluster, zone)
  const {domain} = clusterDomain(cluster)
  for (const service of cluster.services)
    for (const record of recordsOf(cluster, service, domain)) {
      const known = zone.get(record.name)
      if (known) known.push(record)
      else zone.set(record.name, [record])
    }
  return zone
}

/** `a-b-c-d.NAMESPACE.pod.DOMAIN` (section 2.6, deprecated; CoreDNS answers it by default in kubeadm's clusters). */
function podRecords({pods}: ClusterState, question: string, domain: string): DnsRecord[] {
  if (!question.endsWith(`.pod.${domain}`)) return []
  return (pods ?? []).flatMap((pod) =>
    pod.ips.filter((ip) => podName(pod, ip, domain) === question).map((ip) => addressRecord(question, ip)),
  )
}

/**
 * The questions that glibc's resolver asks for a name, in order, until one has an answer: with fewer dots than ndots the
 * search list first, else the name itself first (resolv.conf(5), res_search). An outside name ends the walk: who knows.
 */
export function lookupSteps(cluster: ClusterState, name: string, resolver: Resolver): LookupStep[] {
  const {domain} = clusterDomain(cluster)
  const zone = zoneOf(cluster)
  const steps: LookupStep[] = []
  for (const question of questionsFor(name, resolver)) {
    const records = zone.get(question) ?? podRecords(cluster, question, domain)
    const inside = question === domain || question.endsWith(`.${domain}`)
    steps.push({
      question,
      answer: records.length > 0 ? 'found' : inside ? 'no such name' : 'asked outside the cluster',
      records,
    })
    if (records.length > 0) break
  }
  return steps
}

function questionsFor(name: string, {searches, ndots}: Resolver): string[] {
  if (name.endsWith('.')) return [absolute(name)]
  const plain = absolute(name)
  // the root as a search domain is the name itself (KEP-4427)
  const searched = searches.map((suffix) => (suffix === '' ? plain : `${plain}.${suffix}`))
  return name.split('.').length - 1 >= ndots ? unique([plain, ...searched]) : unique([...searched, plain])
}

/** Where an ExternalName leads, name by name. */
export interface CnameChain {
  readonly names: readonly string[]
  /** `outside`: a name that is not the cluster's; what it is, only the DNS outside knows. */
  readonly end: 'outside' | 'service' | 'missing' | 'loop'
  /** `namespace/name` of the Service at the end. */
  readonly service?: string
}

export function followCname(cluster: ClusterState, service: Service): CnameChain {
  const {domain} = clusterDomain(cluster)
  const names: string[] = []
  const byName = new Map(cluster.services.map((one) => [serviceName(one, domain), one]))
  let current: Service = service
  for (;;) {
    const next = absolute(current.externalName ?? '')
    if (names.includes(next) || next === serviceName(service, domain)) return {names: [...names, next], end: 'loop'}
    names.push(next)
    const found = byName.get(next)
    if (!found) return {names, end: endOf(cluster, next, domain)}
    if (found.type !== 'ExternalName') return {names, end: 'service', service: found.id}
    current = found
  }
}

/** A name under the cluster's domain that only a Service can have, and none has, is missing. */
function endOf(cluster: ClusterState, name: string, domain: string): CnameChain['end'] {
  if (zoneOf(cluster).has(name) || podRecords(cluster, name, domain).length > 0) return 'service'
  const labels = name.endsWith(`.svc.${domain}`) ? name.slice(0, -`.svc.${domain}`.length).split('.') : []
  const isStrange = name.endsWith(`.${domain}`) && !/\.(svc|pod)\.|^(svc|pod)\./.test(name)
  return labels.length === 2 || isStrange ? 'missing' : 'outside'
}
