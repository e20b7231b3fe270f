import {load as parseYaml} from 'js-yaml'
import type {
  ClusterState,
  ContainerPort,
  Endpoint,
  EndpointPort,
  EndpointSlice,
  KubeObject,
  KubeProxyConfig,
  LoadBalancerIngress,
  Node,
  NodeAddress,
  Pod,
  Protocol,
  Service,
  ServicePort,
} from '../model/kube.js'
import type {Problem} from '../parse/problem.js'

/** The files of `api/` and the name under which their objects are kept. */
export const API_LISTS = [
  'namespaces',
  'nodes',
  'services',
  'endpoints',
  'endpointslices',
  'pods',
  'ingresses',
  'ingressclasses',
  'networkpolicies',
  'daemonsets',
  'gateways',
  'gatewayclasses',
  'httproutes',
  'tcproutes',
  'tlsroutes',
  'referencegrants',
  'events',
  'configmaps',
  'servicecidrs',
] as const

type Json = Record<string, unknown>
const record = (value: unknown): Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {}
const list = (value: unknown): Json[] => (Array.isArray(value) ? value.map(record) : [])
const string = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined)
const number = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined)
const strings = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : []
const labelsOf = (value: unknown): Record<string, string> =>
  Object.fromEntries(
    Object.entries(record(value)).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  )

/** An optional field that is left out, not set to undefined. */
const maybe = <K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> =>
  value === undefined ? {} : ({[key]: value} as Record<K, V>)

/** Reads the `api/` folder of a snapshot; a broken list is a problem and counts as not there. */
export function readCluster(read: (path: string) => string | undefined, problems: Problem[]): ClusterState {
  const raw: Record<string, readonly KubeObject[] | undefined> = {}
  for (const name of API_LISTS) raw[name] = readList(`api/${name}.json`, read, problems)
  const endpoints = raw['endpoints'] && subsetsToSlices(raw['endpoints'])
  const slices = raw['endpointslices']?.map(sliceOf).filter((slice) => slice !== undefined)
  const config = kubeProxyConfig(read, problems)
  return {
    ...maybe('version', string(readJson('api/version.json', read, problems)?.['gitVersion'])),
    namespaces: raw['namespaces']?.map(({metadata}) => ({name: metadata.name, labels: metadata.labels ?? {}})),
    services: (raw['services'] ?? []).map(serviceOf),
    slices: slices ?? endpoints ?? [],
    legacyEndpoints: endpoints,
    pods: raw['pods']?.map(podOf),
    nodes: (raw['nodes'] ?? []).map(nodeOf),
    ...maybe('kubeProxy', config),
    raw,
  }
}

function readJson(path: string, read: (path: string) => string | undefined, problems: Problem[]): Json | undefined {
  const text = read(path)
  if (text === undefined || text.trim() === '') return undefined
  try {
    return record(JSON.parse(text))
  } catch (error) {
    problems.push({file: path, line: 0, message: `not valid JSON: ${(error as Error).message}`})
    return undefined
  }
}

function readList(
  path: string,
  read: (path: string) => string | undefined,
  problems: Problem[],
): KubeObject[] | undefined {
  const json = readJson(path, read, problems)
  if (!json) return undefined
  if (!Array.isArray(json['items'])) {
    problems.push({file: path, line: 0, message: 'not a list as kubectl get -o json prints it (no "items")'})
    return undefined
  }
  return list(json['items']).filter((item, at) => {
    if (string(record(item['metadata'])['name']) !== undefined) return true
    problems.push({file: path, line: 0, message: `item ${at + 1} has no metadata.name`})
    return false
  }) as unknown as KubeObject[]
}

const protocolOf = (value: unknown): Protocol => (value === 'UDP' || value === 'SCTP' ? value : 'TCP')

function serviceOf({metadata, spec: rawSpec, status}: KubeObject): Service {
  const spec = record(rawSpec)
  const type = string(spec['type']) as Service['type'] | undefined
  const ips = strings(spec['clusterIPs']).length > 0 ? strings(spec['clusterIPs']) : [string(spec['clusterIP']) ?? '']
  const namespace = metadata.namespace ?? 'default'
  const timeout = number(record(record(spec['sessionAffinityConfig'])['clientIP'])['timeoutSeconds'])
  const annotations = metadata.annotations ?? {}
  return {
    namespace,
    name: metadata.name,
    id: `${namespace}/${metadata.name}`,
    type: type ?? 'ClusterIP',
    clusterIPs: ips.filter((ip) => ip !== '' && ip !== 'None'),
    headless: ips.includes('None'),
    ...maybe('externalName', string(spec['externalName'])),
    ports: list(spec['ports']).map(servicePortOf),
    selector:
      spec['selector'] === undefined || spec['selector'] === null || Object.keys(record(spec['selector'])).length === 0
        ? undefined
        : labelsOf(spec['selector']),
    externalIPs: strings(spec['externalIPs']),
    loadBalancer: type === 'LoadBalancer' ? list(record(record(status)['loadBalancer'])['ingress']).map(ingressOf) : [],
    ...maybe('loadBalancerClass', string(spec['loadBalancerClass'])),
    sourceRanges: sourceRangesOf(spec, annotations),
    ...maybe('affinityTimeout', spec['sessionAffinity'] === 'ClientIP' ? (timeout ?? 10800) : undefined),
    externalTrafficPolicy: spec['externalTrafficPolicy'] === 'Local' ? 'Local' : 'Cluster',
    internalTrafficPolicy: spec['internalTrafficPolicy'] === 'Local' ? 'Local' : 'Cluster',
    ...maybe('healthCheckNodePort', number(spec['healthCheckNodePort']) || undefined),
    publishNotReadyAddresses: spec['publishNotReadyAddresses'] === true,
    ipFamilies: strings(spec['ipFamilies']),
    ...maybe('ipFamilyPolicy', string(spec['ipFamilyPolicy'])),
    ...maybe('trafficDistribution', string(spec['trafficDistribution'])),
    ...maybe(
      'topologyMode',
      annotations['service.kubernetes.io/topology-mode'] ?? annotations['service.kubernetes.io/topology-aware-hints'],
    ),
    ...maybe('proxyName', metadata.labels?.['service.kubernetes.io/service-proxy-name']),
    labels: metadata.labels ?? {},
    ...maybe('created', string((metadata as Json)['creationTimestamp'])),
  }
}

/** The annotation is the old spelling of the field (kubernetes/pkg/api/v1/service). */
function sourceRangesOf(spec: Json, annotations: Record<string, string>): string[] {
  const field = strings(spec['loadBalancerSourceRanges'])
  if (field.length > 0) return field
  return (annotations['service.beta.kubernetes.io/load-balancer-source-ranges'] ?? '')
    .split(',')
    .map((range) => range.trim())
    .filter(Boolean)
}

function servicePortOf(port: Json): ServicePort {
  const target = port['targetPort']
  return {
    name: string(port['name']) ?? '',
    protocol: protocolOf(port['protocol']),
    port: number(port['port']) ?? 0,
    targetPort: typeof target === 'string' || typeof target === 'number' ? target : (number(port['port']) ?? 0),
    ...maybe('nodePort', number(port['nodePort']) || undefined),
  }
}

const ingressOf = (item: Json): LoadBalancerIngress => ({
  ...maybe('ip', string(item['ip'])),
  ...maybe('hostname', string(item['hostname'])),
  ipMode: item['ipMode'] === 'Proxy' ? 'Proxy' : 'VIP',
})

function sliceOf({metadata, ...rest}: KubeObject): EndpointSlice | undefined {
  const service = metadata.labels?.['kubernetes.io/service-name']
  if (service === undefined) return undefined
  const body = rest as unknown as Json
  const type = body['addressType']
  const namespace = metadata.namespace ?? 'default'
  return {
    namespace,
    name: metadata.name,
    service: `${namespace}/${service}`,
    family: type === 'IPv6' ? 6 : type === 'FQDN' ? undefined : 4,
    ports: list(body['ports']).map(endpointPortOf),
    endpoints: list(body['endpoints']).flatMap((endpoint) => endpointsOf(endpoint)),
    ...maybe('managedBy', metadata.labels?.['endpointslice.kubernetes.io/managed-by']),
  }
}

const endpointPortOf = (port: Json): EndpointPort => ({
  name: string(port['name']) ?? '',
  port: number(port['port']),
  protocol: protocolOf(port['protocol']),
})

/** Only the first address counts: consumers must not use more (discovery/v1 Endpoint.addresses). */
function endpointsOf(endpoint: Json): Endpoint[] {
  const conditions = record(endpoint['conditions'])
  const ready = conditions['ready'] !== false
  const target = record(endpoint['targetRef'])
  const hints = record(endpoint['hints'])
  return strings(endpoint['addresses'])
    .slice(0, 1)
    .map((address) => ({
      address,
      ready,
      serving: typeof conditions['serving'] === 'boolean' ? conditions['serving'] : ready,
      terminating: conditions['terminating'] === true,
      ...maybe(
        'node',
        string(endpoint['nodeName']) ??
          string(record(endpoint['deprecatedTopology'] ?? endpoint['topology'])['kubernetes.io/hostname']),
      ),
      ...maybe('pod', podRef(target)),
      ...maybe('hostname', string(endpoint['hostname'])),
      zoneHints: list(hints['forZones']).flatMap(({name}) => string(name) ?? []),
      nodeHints: list(hints['forNodes']).flatMap(({name}) => string(name) ?? []),
    }))
}

const podRef = (target: Json): string | undefined =>
  target['kind'] === 'Pod' ? `${string(target['namespace']) ?? 'default'}/${string(target['name']) ?? ''}` : undefined

/** Endpoints objects in the shape of slices: one for each subset and family. */
function subsetsToSlices(objects: readonly KubeObject[]): EndpointSlice[] {
  return objects.flatMap((object) => {
    const namespace = object.metadata.namespace ?? 'default'
    return list((object as unknown as Json)['subsets']).flatMap((subset) =>
      ([4, 6] as const).flatMap((family): EndpointSlice[] => {
        const endpoints = [
          ...subsetEndpoints(subset['addresses'], true),
          ...subsetEndpoints(subset['notReadyAddresses'], false),
        ].filter(({address}) => address.includes(':') === (family === 6))
        if (endpoints.length === 0) return []
        return [
          {
            namespace,
            name: object.metadata.name,
            service: `${namespace}/${object.metadata.name}`,
            family,
            ports: list(subset['ports']).map(endpointPortOf),
            endpoints,
          },
        ]
      }),
    )
  })
}

function subsetEndpoints(value: unknown, ready: boolean): Endpoint[] {
  return list(value).map((item) => ({
    address: string(item['ip']) ?? '',
    ready,
    serving: ready,
    terminating: false,
    ...maybe('node', string(item['nodeName'])),
    ...maybe('pod', podRef(record(item['targetRef']))),
    ...maybe('hostname', string(item['hostname'])),
    zoneHints: [],
    nodeHints: [],
  }))
}

function podOf({metadata, spec: rawSpec, status: rawStatus}: KubeObject): Pod {
  const spec = record(rawSpec)
  const status = record(rawStatus)
  const namespace = metadata.namespace ?? 'default'
  const ips = list(status['podIPs']).flatMap(({ip}) => string(ip) ?? [])
  const ready = list(status['conditions']).some(({type, status: value}) => type === 'Ready' && value === 'True')
  return {
    namespace,
    name: metadata.name,
    id: `${namespace}/${metadata.name}`,
    ips: ips.length > 0 ? ips : [string(status['podIP'])].filter((ip) => ip !== undefined),
    ...maybe('node', string(spec['nodeName'])),
    hostNetwork: spec['hostNetwork'] === true,
    phase: string(status['phase']) ?? 'Unknown',
    ready,
    ...maybe('notReadyReason', ready ? undefined : notReadyReason(status)),
    terminating: string((metadata as Json)['deletionTimestamp']) !== undefined,
    labels: metadata.labels ?? {},
    ports: [...list(spec['containers']), ...list(spec['initContainers'])].flatMap(({ports}) =>
      list(ports).map(containerPortOf),
    ),
    ...maybe('hostname', string(spec['hostname'])),
    ...maybe('subdomain', string(spec['subdomain'])),
    dnsPolicy: string(spec['dnsPolicy']) ?? 'ClusterFirst',
    ...maybe('dnsConfig', spec['dnsConfig'] as Pod['dnsConfig']),
    enableServiceLinks: spec['enableServiceLinks'] !== false,
    ...maybe('created', string((metadata as Json)['creationTimestamp'])),
  }
}

const containerPortOf = (port: Json): ContainerPort => ({
  name: string(port['name']) ?? '',
  port: number(port['containerPort']) ?? 0,
  protocol: protocolOf(port['protocol']),
})

function notReadyReason(status: Json): string {
  const waiting = list(status['containerStatuses']).flatMap(({name, state}) => {
    const why = record(record(state)['waiting'])['reason'] ?? record(record(state)['terminated'])['reason']
    return typeof why === 'string' ? [`container ${String(name)}: ${why}`] : []
  })
  const condition = list(status['conditions']).find(({type, status: value}) => type === 'Ready' && value !== 'True')
  const words = [
    string(status['reason']),
    ...waiting,
    string(condition?.['reason']),
    string(condition?.['message']),
  ].filter((word) => word !== undefined)
  return words.length > 0 ? words.join(', ') : `phase ${string(status['phase']) ?? 'Unknown'}`
}

function nodeOf({metadata, spec: rawSpec, status: rawStatus}: KubeObject): Node {
  const spec = record(rawSpec)
  const status = record(rawStatus)
  const cidrs = strings(spec['podCIDRs'])
  const ready = list(status['conditions']).find(({type}) => type === 'Ready')
  return {
    name: metadata.name,
    addresses: list(status['addresses']).map((item): NodeAddress => ({
      type: string(item['type']) ?? '',
      address: string(item['address']) ?? '',
    })),
    podCIDRs: cidrs.length > 0 ? cidrs : [string(spec['podCIDR'])].filter((cidr) => cidr !== undefined),
    labels: metadata.labels ?? {},
    ready: ready === undefined || ready['status'] === 'True',
    unschedulable: spec['unschedulable'] === true,
    ...maybe('kubeletVersion', string(record(status['nodeInfo'])['kubeletVersion'])),
  }
}

function kubeProxyConfig(read: (path: string) => string | undefined, problems: Problem[]): KubeProxyConfig | undefined {
  const path = 'api/configmap-kube-proxy.json'
  const json = readJson(path, read, problems)
  if (!json) return undefined
  const object = json['kind'] === 'List' || Array.isArray(json['items']) ? (list(json['items'])[0] ?? {}) : json
  const text =
    string(record(object['data'])['config.conf']) ??
    string(record(object['data'])['config.yaml']) ??
    string(record(object['data'])['kube-proxy-config.yaml'])
  if (text === undefined) return undefined
  try {
    return configOf(record(parseYaml(text)))
  } catch (error) {
    problems.push({
      file: path,
      line: 0,
      message: `config.conf is not valid YAML: ${(error as Error).message.split('\n')[0]}`,
    })
    return undefined
  }
}

function configOf(config: Json): KubeProxyConfig {
  const mode = string(config['mode'])
  const backend = record(config[mode === 'nftables' ? 'nftables' : 'iptables'])
  const ipvs = record(config['ipvs'])
  return {
    ...maybe('mode', mode || undefined),
    clusterCIDRs: (string(config['clusterCIDR']) ?? '').split(',').filter(Boolean),
    nodePortAddresses: strings(config['nodePortAddresses']),
    masqueradeAll: backend['masqueradeAll'] === true,
    localhostNodePorts: record(config['iptables'])['localhostNodePorts'] !== false,
    ...maybe('detectLocalMode', string(config['detectLocalMode'])),
    ...maybe('scheduler', string(ipvs['scheduler']) || undefined),
    strictARP: ipvs['strictARP'] === true,
  }
}
