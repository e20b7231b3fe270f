import {SvcTraceError} from '../model/errors.js'
import {ApiFailure, type Api} from './api.js'
import {list, listText, record, text} from '../util/json.js'
import {trimObject} from './trim.js'

type Json = Record<string, unknown>

interface Resource {
  readonly name: string
  readonly group: string
  readonly namespaced: boolean
  /** Not there on every cluster: a 404 is no loss. */
  readonly optional: boolean
  /** Not needed to judge packets: whatever the API says, it is no loss. */
  readonly spare?: boolean
  readonly query?: string
  /** The group of clusters that do not have the first one yet. */
  readonly older?: string
}

const core = (name: string, namespaced = true): Resource => ({name, group: '/api/v1', namespaced, optional: false})
const extra = (name: string, group: string, namespaced = true): Resource => ({
  name,
  group: `/apis/${group}`,
  namespaced,
  optional: true,
})

const GATEWAY = 'gateway.networking.k8s.io/v1'

/** What a snapshot holds of the API. Of Secrets only which of those that Ingresses name are there. */
export const RESOURCES: readonly Resource[] = [
  core('namespaces', false),
  core('nodes', false),
  core('services'),
  {...extra('endpointslices', 'discovery.k8s.io/v1'), older: '/apis/discovery.k8s.io/v1beta1'},
  core('endpoints'),
  core('pods'),
  extra('ingresses', 'networking.k8s.io/v1'),
  extra('ingressclasses', 'networking.k8s.io/v1', false),
  extra('networkpolicies', 'networking.k8s.io/v1'),
  extra('servicecidrs', 'networking.k8s.io/v1', false),
  {...extra('gateways', GATEWAY), spare: true},
  {...extra('httproutes', GATEWAY), spare: true},
  {...extra('tcproutes', `${GATEWAY}alpha2`), spare: true},
  {...extra('tlsroutes', `${GATEWAY}alpha2`), spare: true},
  {...extra('referencegrants', `${GATEWAY}beta1`), spare: true},
  {...core('events'), spare: true, query: 'fieldSelector=involvedObject.kind%3DService%2Ctype%3DWarning'},
]

export interface ReadCluster {
  /** `api/…` files. */
  readonly files: Map<string, string>
  readonly forbidden: Record<string, string>
}

const PAGE = 500

/** Reads everything that a trace needs, in pages. What is forbidden or missing is said and costs only what depends on it. */
export async function readClusterFiles(api: Api, namespace: string): Promise<ReadCluster> {
  const files = new Map<string, string>()
  const forbidden: Record<string, string> = {}
  files.set('api/version.json', JSON.stringify(await api.get('/version')))
  for (const resource of RESOURCES) {
    const list = await readResource(api, resource, {namespace, forbidden})
    if (list) files.set(`api/${resource.name}.json`, listText(list))
  }
  const config = await readProxyConfig(api, forbidden)
  if (config) files.set('api/configmap-kube-proxy.json', JSON.stringify(config))
  const secrets = await readSecretNames(api, files.get('api/ingresses.json'))
  if (secrets) files.set('api/secrets.json', listText({kind: 'SecretList', items: secrets}))
  files.set('api/configmaps.json', listText({kind: 'ConfigMapList', items: await readConfigMaps(api)}))
  if (!files.has('api/services.json'))
    throw new SvcTraceError(
      'Forbidden',
      `Error from server (Forbidden): ${forbidden['services'] ?? 'services cannot be listed'}`,
      'see manifests/rbac.yaml for the permissions that svc-trace needs',
    )
  return {files, forbidden}
}

/** The names of the nodes that the API knows now. */
export async function readNodeNames(api: Api): Promise<Set<string>> {
  const nodes = await readPages(api, core('nodes', false), '/api/v1/nodes')
  return new Set(list(nodes['items']).flatMap(({metadata}) => text(record(metadata)?.['name']) ?? []))
}

async function readResource(
  api: Api,
  resource: Resource,
  {namespace, forbidden}: {namespace: string; forbidden: Record<string, string>},
): Promise<Json | undefined> {
  try {
    return await readPages(api, resource, `${resource.group}/${resource.name}`)
  } catch (error) {
    if (!(error instanceof ApiFailure)) throw error
    const {older, ...plain} = resource
    if (error.status === 404 && older !== undefined)
      return readResource(api, {...plain, group: older}, {namespace, forbidden})
    if (resource.spare || (error.status === 404 && resource.optional)) return undefined
    if (error.status !== 403)
      throw new SvcTraceError('ApiError', `listing ${resource.name}: ${error.message}`, undefined, {cause: error})
  }
  return resource.namespaced
    ? readNamespace(api, resource, {namespace, forbidden})
    : refuse(resource.name, forbidden, `list of ${resource.name} at the cluster scope is forbidden`)
}

/** Without the right to list a cluster, the namespace is better than nothing. */
async function readNamespace(
  api: Api,
  resource: Resource,
  {namespace, forbidden}: {namespace: string; forbidden: Record<string, string>},
): Promise<Json | undefined> {
  try {
    const list = await readPages(
      api,
      resource,
      `${resource.group}/namespaces/${encodeURIComponent(namespace)}/${resource.name}`,
    )
    forbidden[resource.name] = `list of ${resource.name} in all namespaces is forbidden; only ${namespace} was read`
    return list
  } catch (error) {
    if (!(error instanceof ApiFailure) || error.status !== 403) throw error
    return refuse(resource.name, forbidden, error.message)
  }
}

function refuse(name: string, forbidden: Record<string, string>, message: string): undefined {
  forbidden[name] = message
  return undefined
}

async function readPages(api: Api, {name, query}: Resource, path: string): Promise<Json> {
  const items: Json[] = []
  let next = ''
  let first: Json | undefined
  for (let restarts = 0; ;) {
    let page: Json
    try {
      const parts = [
        `limit=${PAGE}`,
        ...(query ? [query] : []),
        ...(next === '' ? [] : [`continue=${encodeURIComponent(next)}`]),
      ]
      page = await api.get(`${path}?${parts.join('&')}`)
    } catch (error) {
      // 410: the list is too old to go on with; begin again
      if (!(error instanceof ApiFailure && error.status === 410 && restarts++ < 3)) throw error
      items.length = 0
      next = ''
      continue
    }
    first ??= page
    items.push(...((page['items'] as Json[] | undefined) ?? []).map((item) => trimObject(name, item)))
    next = String((page['metadata'] as Json | undefined)?.['continue'] ?? '')
    if (next === '') return {apiVersion: first['apiVersion'], kind: first['kind'], metadata: {}, items}
  }
}

/** kubeadm's name for it; other distributions keep the configuration elsewhere, and then the rules tell the mode. */
async function readProxyConfig(api: Api, forbidden: Record<string, string>): Promise<Json | undefined> {
  try {
    const {data, ...object} = await api.get('/api/v1/namespaces/kube-system/configmaps/kube-proxy')
    const own = (data ?? {}) as Json
    return {...trimObject('configmaps', object), data: {'config.conf': own['config.conf'] ?? own['config.yaml']}}
  } catch (error) {
    if (!(error instanceof ApiFailure)) throw error
    if (error.status === 403) forbidden['configmaps'] = 'get of configmap kube-system/kube-proxy is forbidden'
    else if (error.status !== 404) forbidden['configmaps'] = error.message
    return undefined
  }
}

/** ConfigMaps that say how names and plain ports lead to Services: CoreDNS' zone, ingress-nginx' tcp and udp ports. */
const CONFIG_MAPS = [
  ['kube-system', 'coredns'],
  ['ingress-nginx', 'tcp-services'],
  ['ingress-nginx', 'udp-services'],
] as const

async function readConfigMaps(api: Api): Promise<Json[]> {
  const found: Json[] = []
  for (const [namespace, name] of CONFIG_MAPS) {
    try {
      const object = await api.get(`/api/v1/namespaces/${namespace}/configmaps/${name}`)
      found.push(trimObject('configmaps', object))
    } catch (error) {
      // without them only names are less certain
      if (!(error instanceof ApiFailure)) throw error
    }
  }
  return found
}

/** The form of an answer that holds metadata alone. */
const METADATA = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1'

/** Which of the TLS Secrets that Ingresses name are there; undefined when one may not be looked at: then nobody is accused. */
async function readSecretNames(api: Api, ingresses: string | undefined): Promise<Json[] | undefined> {
  const wanted = new Map<string, {namespace: string; name: string}>()
  for (const {metadata, spec} of list(record(JSON.parse(ingresses ?? '{}'))['items']))
    for (const {secretName} of list(record(spec)['tls'])) {
      const [namespace, name] = [text(record(metadata)['namespace']), text(secretName)]
      if (namespace !== undefined && name !== undefined) wanted.set(`${namespace}/${name}`, {namespace, name})
    }
  if (wanted.size === 0) return undefined
  const found: Json[] = []
  for (const {namespace, name} of wanted.values()) {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(name)}`
    try {
      await api.get(path, METADATA)
      found.push({metadata: {name, namespace}})
    } catch (error) {
      if (!(error instanceof ApiFailure)) throw error
      if (error.status !== 404) return undefined
    }
  }
  return found
}
