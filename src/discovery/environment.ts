import type {ClusterState, Pod, Service} from '../model/kube.js'

/** One environment variable that kubelet gives to containers. */
export interface Variable {
  readonly name: string
  readonly value: string
}

/**
 * The variables of one Service (pkg/kubelet/envvars/envvars.go): `{SVC}_SERVICE_HOST`, `_SERVICE_PORT`,
 * `_SERVICE_PORT_{NAME}`, and the docker-link set. Only Services with a cluster IP have any; with two, the first counts.
 */
export function variablesOf({name, clusterIPs, ports}: Service): Variable[] {
  const [ip] = clusterIPs
  const [first] = ports
  if (ip === undefined || !first) return []
  const prefix = envName(name)
  return [
    {name: `${prefix}_SERVICE_HOST`, value: ip},
    {name: `${prefix}_SERVICE_PORT`, value: String(first.port)},
    ...ports
      .filter((port) => port.name !== '')
      .map((port) => ({name: `${prefix}_SERVICE_PORT_${envName(port.name)}`, value: String(port.port)})),
    ...ports.flatMap(({port, protocol}, at) => linkVariables({prefix, ip, port, protocol: protocol.toLowerCase()}, at)),
  ]
}

function linkVariables(
  {prefix, ip, port, protocol}: {prefix: string; ip: string; port: number; protocol: string},
  at: number,
): Variable[] {
  const host = ip.includes(':') ? `[${ip}]` : ip
  const own = `${prefix}_PORT_${port}_${protocol.toUpperCase()}`
  const url = `${protocol}://${host}:${port}`
  return [
    ...(at === 0 ? [{name: `${prefix}_PORT`, value: url}] : []),
    {name: own, value: url},
    {name: `${own}_PROTO`, value: protocol},
    {name: `${own}_PORT`, value: String(port)},
    {name: `${own}_ADDR`, value: ip},
  ]
}

const envName = (name: string): string => name.toUpperCase().replaceAll('-', '_')

/** Why a pod's containers do not have the Service's variables, or may hold old ones. */
export interface MissingVariables {
  readonly pod: string
  readonly why: 'older' | 'switched off'
}

/**
 * kubelet sets the variables when it starts a container, from the Services of the pod's namespace at that moment
 * (pkg/kubelet/kubelet_pods.go, getServiceEnvVarMap). A container that is older than the Service lacks them, or holds those of
 * an earlier Service of the same name; with enableServiceLinks false there are none (default/kubernetes excepted).
 */
export function missingVariables(cluster: ClusterState, service: Service): MissingVariables[] {
  if (variablesOf(service).length === 0) return []
  return (alivePods(cluster).get(service.namespace) ?? []).flatMap((pod): MissingVariables[] => {
    if (!pod.enableServiceLinks && service.id !== 'default/kubernetes') return [{pod: pod.id, why: 'switched off'}]
    return isOlder(pod, service) ? [{pod: pod.id, why: 'older'}] : []
  })
}

/** How many pods started before the Service was made, and the ids of a few of them; `most`: how many ids at most. */
export function olderPods(cluster: ClusterState, service: Service, most: number): {count: number; first: string[]} {
  const created = service.created === undefined ? Number.NaN : Date.parse(service.created)
  if (Number.isNaN(created) || variablesOf(service).length === 0) return {count: 0, first: []}
  if (service.id === 'default/kubernetes') {
    const older = missingVariables(cluster, service).map(({pod}) => pod)
    return {count: older.length, first: older.slice(0, most)}
  }
  const {pods, starts} = linkedPods(cluster).get(service.namespace) ?? {pods: [], starts: []}
  const count = firstAtLeast(starts, created)
  return {count, first: pods.slice(0, Math.min(count, most)).map(({id}) => id)}
}

interface ByStart {
  readonly pods: readonly Pod[]
  /** When each of them started (ms), ascending. */
  readonly starts: readonly number[]
}

const startOrder = new WeakMap<ClusterState, Map<string, ByStart>>()

/** The pods of each namespace that get Services' variables, the oldest first: a large namespace is sorted once, not searched for every Service. */
function linkedPods(cluster: ClusterState): Map<string, ByStart> {
  let index = startOrder.get(cluster)
  if (index) return index
  startOrder.set(cluster, (index = new Map<string, ByStart>()))
  for (const [namespace, all] of alivePods(cluster)) {
    const known = all
      .flatMap((pod) =>
        pod.enableServiceLinks && pod.started !== undefined ? [{pod, start: Date.parse(pod.started)}] : [],
      )
      .filter(({start}) => !Number.isNaN(start))
      .toSorted((one, other) => one.start - other.start)
    index.set(namespace, {pods: known.map(({pod}) => pod), starts: known.map(({start}) => start)})
  }
  return index
}

/** Index of the first number that is not smaller. */
function firstAtLeast(sorted: readonly number[], wanted: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (sorted[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}

/** The pods of each namespace, made once for each cluster state. */
const byNamespace = new WeakMap<ClusterState, Map<string, Pod[]>>()

function alivePods(cluster: ClusterState): Map<string, Pod[]> {
  let index = byNamespace.get(cluster)
  if (index) return index
  byNamespace.set(cluster, (index = new Map<string, Pod[]>()))
  for (const pod of cluster.pods ?? [])
    if (isAlive(pod)) {
      const known = index.get(pod.namespace)
      if (known) known.push(pod)
      else index.set(pod.namespace, [pod])
    }
  return index
}

const isAlive = ({phase}: Pod): boolean => phase === 'Running' || phase === 'Pending'

const isOlder = ({started}: Pod, {created}: Service): boolean =>
  started !== undefined && created !== undefined && Date.parse(started) < Date.parse(created)
