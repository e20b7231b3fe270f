import {TRAFFIC_ANNOTATIONS} from '../model/kube.js'
import {list, record, type Json} from '../util/json.js'

const pick = (from: Json, keys: readonly string[]): Json =>
  Object.fromEntries(keys.filter((key) => from[key] !== undefined).map((key) => [key, from[key]]))

/** An API object without what a snapshot must not hold: environment, arguments, volumes, foreign annotations, field managers. */
export function trimObject(resource: string, object: Json): Json {
  const {metadata, ...rest} = object
  const trimmed = {...rest, metadata: trimMetadata(record(metadata))}
  if (resource === 'pods')
    return {
      metadata: trimmed.metadata,
      spec: trimPodSpec(record(object['spec'])),
      status: trimPodStatus(record(object['status'])),
    }
  if (resource === 'nodes')
    return {
      metadata: trimmed.metadata,
      spec: pick(record(object['spec']), ['podCIDR', 'podCIDRs', 'unschedulable', 'taints']),
      status: trimNodeStatus(record(object['status'])),
    }
  if (resource === 'configmaps') return {metadata: trimmed.metadata, data: trimConfigMap(record(object['data']))}
  if (resource === 'events')
    return {
      metadata: pick(record(metadata), ['name', 'namespace']),
      ...pick(object, ['involvedObject', 'type', 'reason', 'lastTimestamp', 'count']),
    }
  if (/routes$/.test(resource))
    return {metadata: trimmed.metadata, ...trimRoute(record(object['spec']), record(object['status']))}
  if (resource === 'gateways')
    return {metadata: trimmed.metadata, spec: pick(record(object['spec']), ['gatewayClassName', 'listeners'])}
  return trimmed
}

/** Of a route what decides where it leads; header values, filters and extensions may hold credentials. */
function trimRoute(spec: Json, status: Json): Json {
  const names = (value: unknown): Json[] => list(value).map((item) => pick(item, ['name']))
  const rules = list(spec['rules']).map((rule) => ({
    matches: list(rule['matches']).map((match) => ({
      ...pick(match, ['path', 'method']),
      headers: names(match['headers']),
      queryParams: names(match['queryParams']),
    })),
    backendRefs: list(rule['backendRefs']).map((backend) =>
      pick(backend, ['group', 'kind', 'name', 'namespace', 'port', 'weight']),
    ),
  }))
  const parents = list(status['parents']).map((parent) => ({
    conditions: list(parent['conditions']).map((condition) => pick(condition, ['type', 'status', 'reason'])),
  }))
  return {spec: {...pick(spec, ['parentRefs', 'hostnames']), rules}, status: {parents}}
}

/** CoreDNS' Corefile may hold anything: only the line that names the zones; of the others, `PORT: SERVICE` lines. */
function trimConfigMap(data: Json): Json {
  const zones = /^[ \t]*kubernetes[ \t]+[^{\n]+/m.exec(typeof data['Corefile'] === 'string' ? data['Corefile'] : '')
  return {
    ...(zones ? {Corefile: zones[0]} : {}),
    ...Object.fromEntries(Object.entries(data).filter(([key]) => /^\d+$/.test(key))),
  }
}

function trimMetadata(metadata: Json): Json {
  const annotations = pick(record(metadata['annotations']), TRAFFIC_ANNOTATIONS)
  return {
    ...pick(metadata, ['name', 'namespace', 'uid', 'labels', 'creationTimestamp', 'deletionTimestamp']),
    ...(Object.keys(annotations).length > 0 ? {annotations} : {}),
  }
}

const container = (item: Json): Json => pick(item, ['name', 'ports', 'restartPolicy'])

function trimPodSpec(spec: Json): Json {
  return {
    ...pick(spec, [
      'nodeName',
      'hostNetwork',
      'hostname',
      'subdomain',
      'dnsPolicy',
      'dnsConfig',
      'enableServiceLinks',
      'readinessGates',
    ]),
    containers: list(spec['containers']).map(container),
    ...(spec['initContainers'] ? {initContainers: list(spec['initContainers']).map(container)} : {}),
  }
}

function trimPodStatus(status: Json): Json {
  const statuses = list(status['containerStatuses']).map((item) => ({
    ...pick(item, ['name', 'ready', 'restartCount']),
    state: trimState(record(item['state'])),
  }))
  return {
    ...pick(status, ['phase', 'podIP', 'podIPs', 'hostIP', 'conditions', 'reason', 'startTime']),
    containerStatuses: statuses,
  }
}

/** Reasons only: a message may quote a command line or a secret. */
function trimState(state: Json): Json {
  return Object.fromEntries(
    Object.entries(state).map(([key, value]) => [
      key,
      pick(record(value), ['reason', 'exitCode', 'startedAt', 'finishedAt']),
    ]),
  )
}

const trimNodeStatus = (status: Json): Json => ({
  ...pick(status, ['addresses', 'conditions']),
  nodeInfo: pick(record(status['nodeInfo']), [
    'kubeletVersion',
    'kubeProxyVersion',
    'kernelVersion',
    'osImage',
    'containerRuntimeVersion',
  ]),
})
