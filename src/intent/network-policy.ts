import type {ClusterState, KubeObject, Pod, Protocol} from '../model/kube.js'
import {inRange, parseRange, splitRanges, type Address, type Range} from '../util/ip.js'
import {list, record, type Json} from '../util/json.js'
import {selects} from '../util/label-selector.js'

/** One end of a connection as a NetworkPolicy sees it: a pod, or addresses that are no pod's. */
export interface PolicyPeer {
  readonly pod?: Pod
  readonly addresses: readonly Range[]
  /** Traffic between a node and its own pods is always allowed. */
  readonly node?: string
}

export interface PolicyQuestion {
  readonly client: PolicyPeer
  /** Who is asked: a pod, or an address that is no pod's, which only egress policies are about. */
  readonly server: PolicyPeer
  readonly port: number
  readonly protocol: Protocol
}

/**
 * Which NetworkPolicies leave a connection to a pod out, by the API's own semantics (networking.k8s.io/v1): a pod that
 * some policy selects for a direction gets only what one of them allows; both directions must agree; hostNetwork pods
 * and traffic between a node and its own pods are exempt. Empty: allowed.
 */
export function deniedBy(cluster: ClusterState, {client, server, port, protocol}: PolicyQuestion): string[] {
  const policies = cluster.raw['networkpolicies'] ?? []
  if (policies.length === 0) return []
  const {pod} = server
  const wanted = {port, protocol, ...(pod ? {target: pod} : {})}
  const incoming =
    pod === undefined || pod.hostNetwork || (client.node !== undefined && client.node === pod.node)
      ? []
      : refusing(policies, pod, {direction: 'Ingress', peer: client, wanted, cluster})
  const peer = pod ? {pod, addresses: pod.ips.flatMap((ip) => parseRange(ip) ?? [])} : server
  const outgoing =
    client.pod === undefined || client.pod.hostNetwork
      ? []
      : refusing(policies, client.pod, {direction: 'Egress', peer, wanted, cluster})
  return [...new Set([...incoming, ...outgoing])]
}

interface Side {
  readonly direction: 'Ingress' | 'Egress'
  readonly peer: PolicyPeer
  readonly wanted: {readonly port: number; readonly protocol: Protocol; readonly target?: Pod}
  readonly cluster: ClusterState
}

/** The policies that select the pod for a direction, when none of them allows the peer. */
function refusing(policies: readonly KubeObject[], pod: Pod, side: Side): string[] {
  const selecting = policies.filter(
    (policy) =>
      (policy.metadata.namespace ?? 'default') === pod.namespace &&
      directions(policy).includes(side.direction) &&
      selects(record(policy.spec)['podSelector'], pod.labels),
  )
  return selecting.some((policy) => allows(policy, side))
    ? []
    : selecting.map(({metadata}) => `${metadata.namespace ?? 'default'}/${metadata.name}`)
}

/** `policyTypes`; without it Ingress always, and Egress when there are egress rules. */
function directions({spec}: KubeObject): readonly unknown[] {
  const types = record(spec)['policyTypes']
  if (Array.isArray(types)) return types
  return list(record(spec)['egress']).length > 0 ? ['Ingress', 'Egress'] : ['Ingress']
}

function allows(policy: KubeObject, side: Side): boolean {
  const [rules, peers] = side.direction === 'Ingress' ? (['ingress', 'from'] as const) : (['egress', 'to'] as const)
  return list(record(policy.spec)[rules]).some(
    (rule) => allowsPort(list(rule['ports']), side) && allowsPeer(list(rule[peers]), policy, side),
  )
}

/** No ports: all. A port by name is the target pod's container port; `endPort` makes a range. */
function allowsPort(ports: readonly Json[], {wanted}: Side): boolean {
  if (ports.length === 0) return true
  return ports.some(({port, endPort, protocol = 'TCP'}) => {
    if (protocol !== wanted.protocol) return false
    if (port === undefined) return true
    if (typeof port === 'string')
      return (wanted.target?.ports ?? []).some(
        (one) => one.name === port && one.protocol === wanted.protocol && one.port === wanted.port,
      )
    return typeof endPort === 'number'
      ? wanted.port >= Number(port) && wanted.port <= endPort
      : wanted.port === Number(port)
  })
}

/** No peers: all. */
function allowsPeer(peers: readonly Json[], policy: KubeObject, side: Side): boolean {
  if (peers.length === 0) return true
  return peers.some(({ipBlock, podSelector, namespaceSelector}) =>
    ipBlock === undefined
      ? allowsPod(policy, {podSelector, namespaceSelector}, side)
      : side.peer.addresses.some((range) => reaches(range, record(ipBlock))),
  )
}

function allowsPod(
  policy: KubeObject,
  {podSelector, namespaceSelector}: {podSelector: unknown; namespaceSelector: unknown},
  {peer: {pod}, cluster}: Side,
): boolean {
  if (!pod || pod.hostNetwork) return false
  const sameNamespace = pod.namespace === (policy.metadata.namespace ?? 'default')
  const labels = cluster.namespaces?.find(({name}) => name === pod.namespace)?.labels ?? {}
  const inNamespace =
    namespaceSelector === undefined
      ? sameNamespace
      : selects(namespaceSelector, {'kubernetes.io/metadata.name': pod.namespace, ...labels})
  return inNamespace && (podSelector === undefined || selects(podSelector, pod.labels))
}

/** Some address of the range is in the block and in none of its exceptions. */
function reaches(range: Range, {cidr, except}: Json): boolean {
  const block = typeof cidr === 'string' ? parseRange(cidr) : undefined
  if (!block || typeof block.lo !== typeof range.lo) return false
  let {inside} = splitRanges([range], block)
  for (const text of Array.isArray(except) ? except : []) {
    const hole = typeof text === 'string' ? parseRange(text) : undefined
    if (hole && typeof hole.lo === typeof range.lo) inside = splitRanges(inside, hole).outside
  }
  return inside.length > 0
}

/** The pod that has an address, if one has it for its own; one that has ended keeps it in its status, and others get it. */
export const podAt = (cluster: ClusterState, address: Address): Pod | undefined =>
  cluster.pods?.find(
    ({hostNetwork, ips, phase}) =>
      !hostNetwork &&
      phase !== 'Succeeded' &&
      phase !== 'Failed' &&
      ips.some((ip) => {
        const range = parseRange(ip)
        return range !== undefined && typeof range.lo === typeof address && inRange(address, range)
      }),
  )
