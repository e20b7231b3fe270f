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
