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
import {list, number, record, text, texts, type Json} from '../util/json.js'
import {ApiLists, readJson} from './api-lists.js'

/** The files of `api/` whose objects are kept as they came. */
const KEPT_LISTS = [
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
  'secrets',
] as const

const labelsOf = (value: unknown): Record<string, string> =>
  Object.fromEntries(
    Object.entries(record(value)).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  )

/** An optional field that is left out, not set to undefined. */
const maybe = <K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> =>
  value === undefined ? {} : ({[key]: value} as Record<K, V>)

/** Reads the `api/` folder of a snapshot; a broken list is a problem and counts as not there. */
export function readCluster(read: (path: string) => string | undefined, problems: Problem[]): ClusterState {
  const lists = new ApiLists(read, problems)
  const cluster = clusterOf(lists, read, problems)
  return lists.hasStrays() ? clusterOf(lists, read, []) : cluster
}

function clusterOf(lists: ApiLists, read: (path: string) => string | undefined, problems: Problem[]): ClusterState {
  const names = new Set<string>()
  /** The objects are let go of as soon as they are turned: those of a large cluster take much room. */
  const turn = <T>(name: string, into: (objects: KubeObject[]) => T): T | undefined => {
    const objects = lists.list(name)
    if (objects) names.add(name)
    return objects && into(objects)
  }
  const namespaces = turn('namespaces', (objects) =>
    objects.map(({metadata}) => ({name: metadata.name, labels: labelsOf(metadata.labels)})),
  )
  const nodes = turn('nodes', (objects) => objects.map(nodeOf)) ?? []
  const services = turn('services', (objects) => objects.map(serviceOf)) ?? []
  const endpoints = turn('endpoints', subsetsToSlices)
  const slices = turn('endpointslices', (objects) => objects.map(sliceOf).filter((slice) => slice !== undefined))
  const pods = turn('pods', (objects) => objects.map(podOf))
  const raw = Object.fromEntries(KEPT_LISTS.map((name) => [name, turn(name, (objects) => objects)]))
  return {
    ...maybe('version', text(readJson('api/version.json', read, problems)?.['gitVersion'])),
    namespaces,
    services,
    slices: slices ?? endpoints ?? [],
    legacyEndpoints: endpoints,
    pods,
    nodes,
    ...maybe('kubeProxy', kubeProxyConfig(read, problems)),
    read: names,
    raw,
  }
}

const protocolOf = (value: unknown): Protocol => (value === 'UDP' || value === 'SCTP' ? value : 'TCP')

function serviceOf({metadata, spec: rawSpec, status}: KubeObject): Service {
  const spec = record(rawSpec)
  const type = text(spec['type']) as Service['type'] | undefined
  const ips = texts(spec['clusterIPs']).length > 0 ? texts(spec['clusterIPs']) : [text(spec['clusterIP']) ?? '']
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
    ...maybe('externalName', text(spec['externalName'])),
    ports: list(spec['ports']).map(servicePortOf),
    selector:
      spec['selector'] === undefined || spec['selector'] === null || Object.keys(record(spec['selector'])).length === 0
        ? undefined
        : labelsOf(spec['selector']),
    externalIPs: texts(spec['externalIPs']),
    loadBalancer: type === 'LoadBalancer' ? list(record(record(status)['loadBalancer'])['ingress']).map(ingressOf) : [],
    ...maybe('loadBalancerClass', text(spec['loadBalancerClass'])),
    sourceRanges: texts(spec['loadBalancerSourceRanges']),
    ...maybe('affinityTimeout', spec['sessionAffinity'] === 'ClientIP' ? (timeout ?? 10800) : undefined),
    externalTrafficPolicy: spec['externalTrafficPolicy'] === 'Local' ? 'Local' : 'Cluster',
    internalTrafficPolicy: spec['internalTrafficPolicy'] === 'Local' ? 'Local' : 'Cluster',
    ...maybe('healthCheckNodePort', number(spec['healthCheckNodePort']) || undefined),
    publishNotReadyAddresses:
      spec['publishNotReadyAddresses'] === true ||
      // the older way to ask for it, which the controllers honour still
      annotations['service.alpha.kubernetes.io/tolerate-unready-endpoints'] === 'true',
    ipFamilies: texts(spec['ipFamilies']),
    ...maybe('ipFamilyPolicy', text(spec['ipFamilyPolicy'])),
    ...maybe('trafficDistribution', text(spec['trafficDistribution'])),
    ...maybe(
      'topologyMode',
      annotations['service.kubernetes.io/topology-aware-hints'] ?? annotations['service.kubernetes.io/topology-mode'],
    ),
    ...maybe('proxyName', metadata.labels?.['service.kubernetes.io/service-proxy-name']),
    labels: labelsOf(metadata.labels),
    ...maybe('created', text((metadata as Json)['creationTimestamp'])),
  }
}

function servicePortOf(port: Json): ServicePort {
  const target = port['targetPort']
  return {
    name: text(port['name']) ?? '',
    protocol: protocolOf(port['protocol']),
    port: number(port['port']) ?? 0,
    targetPort: typeof target === 'string' || typeof target === 'number' ? target : (number(port['port']) ?? 0),
    ...maybe('nodePort', number(port['nodePort']) || undefined),
  }
}

const ingressOf = (item: Json): LoadBalancerIngress => ({
  ...maybe('ip', text(item['ip'])),
  ...maybe('hostname', text(item['hostname'])),
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
  name: text(port['name']) ?? '',
  port: number(port['port']),
  protocol: protocolOf(port['protocol']),
})

/** Only the first address counts: consumers must not use more (discovery/v1 Endpoint.addresses). */
function endpointsOf(endpoint: Json): Endpoint[] {
  const conditions = record(endpoint['conditions'])
  const ready = conditions['ready'] !== false
  const target = record(endpoint['targetRef'])
  const hints = record(endpoint['hints'])
  return texts(endpoint['addresses'])
    .slice(0, 1)
    .map((address) => ({
      address,
      ready,
      serving: conditions['serving'] !== false,
      terminating: conditions['terminating'] === true,
      ...maybe(
        'node',
        text(endpoint['nodeName']) ??
          text(record(endpoint['deprecatedTopology'] ?? endpoint['topology'])['kubernetes.io/hostname']),
      ),
      ...maybe('pod', podRef(target)),
      ...maybe('hostname', text(endpoint['hostname'])),
      zoneHints: list(hints['forZones']).flatMap(({name}) => text(name) ?? []),
      nodeHints: list(hints['forNodes']).flatMap(({name}) => text(name) ?? []),
    }))
}

const podRef = (target: Json): string | undefined =>
  target['kind'] === 'Pod' ? `${text(target['namespace']) ?? 'default'}/${text(target['name']) ?? ''}` : undefined

/** Endpoints objects in the shape of slices: one for each subset and family. */
function subsetsToSlices(objects: readonly KubeObject[]): EndpointSlice[] {
  return objects.flatMap((object) => {
    const namespace = object.metadata.namespace ?? 'default'
    const subsets = list((object as unknown as Json)['subsets'])
    const id = {namespace, name: object.metadata.name, service: `${namespace}/${object.metadata.name}`}
    if (subsets.length === 0) return [{...id, family: undefined, ports: [], endpoints: []}]
    return subsets.flatMap((subset) =>
      ([4, 6] as const).flatMap((family): EndpointSlice[] => {
        const endpoints = [
          ...subsetEndpoints(subset['addresses'], true),
          ...subsetEndpoints(subset['notReadyAddresses'], false),
        ].filter(({address}) => address.includes(':') === (family === 6))
        if (endpoints.length === 0) return []
        return [
          {
            ...id,
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
    address: text(item['ip']) ?? '',
    ready,
    serving: ready,
    terminating: false,
    ...maybe('node', text(item['nodeName'])),
    ...maybe('pod', podRef(record(item['targetRef']))),
    ...maybe('hostname', text(item['hostname'])),
    zoneHints: [],
    nodeHints: [],
  }))
}

function podOf({metadata, spec: rawSpec, status: rawStatus}: KubeObject): Pod {
  const spec = record(rawSpec)
  const status = record(rawStatus)
  const namespace = metadata.namespace ?? 'default'
  const ips = list(status['podIPs']).flatMap(({ip}) => text(ip) ?? [])
  const condition = list(status['conditions']).find(({type}) => type === 'Ready')
  const ready = condition?.['status'] === 'True'
  return {
    namespace,
    name: metadata.name,
    id: `${namespace}/${metadata.name}`,
    ips: ips.length > 0 ? ips : [text(status['podIP'])].filter((ip) => ip !== undefined),
    ...maybe('node', text(spec['nodeName'])),
    hostNetwork: spec['hostNetwork'] === true,
    phase: text(status['phase']) ?? 'Unknown',
    ready,
    ...maybe('notReadyReason', ready ? undefined : notReadyReason(status)),
    ...maybe('readyChanged', text(condition?.['lastTransitionTime'])),
    terminating: text((metadata as Json)['deletionTimestamp']) !== undefined,
    labels: labelsOf(metadata.labels),
    ports: runningContainers(spec).flatMap(({ports}) => list(ports).map(containerPortOf)),
    undeclared: list(spec['containers']).some(({ports}) => list(ports).length === 0),
    ...maybe('hostname', text(spec['hostname'])),
    ...maybe('subdomain', text(spec['subdomain'])),
    dnsPolicy: text(spec['dnsPolicy']) ?? 'ClusterFirst',
    ...maybe('dnsConfig', spec['dnsConfig'] === undefined ? undefined : dnsConfigOf(record(spec['dnsConfig']))),
    enableServiceLinks: spec['enableServiceLinks'] !== false,
    ...maybe('started', startedAt(status, text((metadata as Json)['creationTimestamp']))),
  }
}

/** Those that run beside each other: an init container only where it stays (KEP-753, sidecars). */
const runningContainers = (spec: Json): Json[] => [
  ...list(spec['containers']),
  ...list(spec['initContainers']).filter(({restartPolicy}) => restartPolicy === 'Always'),
]

/** Of the containers that run the one that has run longest; without any word of containers, when the pod was made. */
function startedAt(status: Json, created: string | undefined): string | undefined {
  const containers = list(status['containerStatuses'])
  if (containers.length === 0) return created
  return containers
    .flatMap(({state}) => text(record(record(state)['running'])['startedAt']) ?? [])
    .sort((a, b) => Date.parse(a) - Date.parse(b))[0]
}

const dnsConfigOf = ({nameservers, searches, options}: Json): NonNullable<Pod['dnsConfig']> => ({
  nameservers: texts(nameservers),
  searches: texts(searches),
  options: list(options).flatMap(({name, value}) =>
    text(name) === undefined ? [] : [{name: text(name)!, ...maybe('value', text(value))}],
  ),
})

const containerPortOf = (port: Json): ContainerPort => ({
  name: text(port['name']) ?? '',
  port: number(port['containerPort']) ?? 0,
  protocol: protocolOf(port['protocol']),
})

function notReadyReason(status: Json): string {
  const waiting = list(status['containerStatuses']).flatMap(({name, state}) => {
    const why = record(record(state)['waiting'])['reason'] ?? record(record(state)['terminated'])['reason']
    return typeof why === 'string' ? [`container ${String(name)}: ${why}`] : []
  })
  const condition = list(status['conditions']).find(({type, status: value}) => type === 'Ready' && value !== 'True')
  const words = [text(status['reason']), ...waiting, text(condition?.['reason']), text(condition?.['message'])].filter(
    (word) => word !== undefined,
  )
  return words.length > 0 ? words.join(', ') : `phase ${text(status['phase']) ?? 'Unknown'}`
}

function nodeOf({metadata, spec: rawSpec, status: rawStatus}: KubeObject): Node {
  const spec = record(rawSpec)
  const status = record(rawStatus)
  const cidrs = texts(spec['podCIDRs'])
  const ready = list(status['conditions']).find(({type}) => type === 'Ready')
  return {
    name: metadata.name,
    addresses: list(status['addresses']).map((item): NodeAddress => ({
      type: text(item['type']) ?? '',
      address: text(item['address']) ?? '',
    })),
    podCIDRs: cidrs.length > 0 ? cidrs : [text(spec['podCIDR'])].filter((cidr) => cidr !== undefined),
    labels: labelsOf(metadata.labels),
    ready: ready === undefined || ready['status'] === 'True',
    unschedulable: spec['unschedulable'] === true,
    ...maybe(
      'heard',
      list(status['conditions'])
        .flatMap(({lastHeartbeatTime}) => text(lastHeartbeatTime) ?? [])
        .sort()
        .at(-1),
    ),
    ...maybe('kubeletVersion', text(record(status['nodeInfo'])['kubeletVersion'])),
  }
}

function kubeProxyConfig(read: (path: string) => string | undefined, problems: Problem[]): KubeProxyConfig | undefined {
  const path = 'api/configmap-kube-proxy.json'
  const json = readJson(path, read, problems)
  if (!json) return undefined
  const object = json['kind'] === 'List' || Array.isArray(json['items']) ? (list(json['items'])[0] ?? {}) : json
  const conf =
    text(record(object['data'])['config.conf']) ??
    text(record(object['data'])['config.yaml']) ??
    text(record(object['data'])['kube-proxy-config.yaml'])
  if (conf === undefined) return undefined
  try {
    return configOf(record(parseYaml(conf)))
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
  const mode = text(config['mode'])
  const backend = record(config[mode === 'nftables' ? 'nftables' : 'iptables'])
  const ipvs = record(config['ipvs'])
  return {
    ...maybe('mode', mode || undefined),
    clusterCIDRs: (text(config['clusterCIDR']) ?? '').split(',').filter(Boolean),
    nodePortAddresses: texts(config['nodePortAddresses']),
    masqueradeAll: backend['masqueradeAll'] === true,
    localhostNodePorts: record(config['iptables'])['localhostNodePorts'] !== false,
    ...maybe('detectLocalMode', text(config['detectLocalMode']) || undefined),
    ...maybe('scheduler', text(ipvs['scheduler']) || undefined),
    strictARP: ipvs['strictARP'] === true,
  }
}
