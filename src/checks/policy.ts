import {deniedBy, podAt, type PolicyPeer} from '../intent/network-policy.js'
import type {ClusterState, Service} from '../model/kube.js'
import type {Fate, Origin} from '../model/trace.js'
import {formatEndpoint, parseRange, single, type Address, type Range} from '../util/ip.js'
import type {Mismatch, Sample} from './compare.js'
import {apiEvidence} from './api-evidence.js'
import {makeFinding, type Finding} from './finding.js'
import {deciding} from './proof.js'
import {wasSentTo} from './hops.js'

/**
 * The NetworkPolicies that want a lost packet lost; empty when none does. What leaves for another node's port is not translated
 * yet, and a policy for what a pod sends is about that address; other addresses are translated first, unless there is no endpoint.
 */
export function wantedBy(
  cluster: ClusterState,
  {fate, promise, frontend, port: {protocol}, from, part: {clients}}: Mismatch,
): string[] {
  const target = promise.endpoints.find((endpoint) => wasSentTo(fate, endpoint))
  const due = frontend.kind !== 'nodePort' && promise.outcome === 'delivered'
  if (!target && (fate.towards.length > 0 || due || deciding(fate)?.hook !== 'FORWARD')) return []
  const {address, port} = target ?? frontend
  return denied(cluster, {fate, from, clients, address, port, protocol})
}

interface Connection {
  readonly fate: Fate
  readonly from: Origin
  /** Those of the clients outside that this is about. */
  readonly clients: readonly Range[]
  readonly address: Address
  readonly port: number
  readonly protocol: Service['ports'][number]['protocol']
}

function denied(cluster: ClusterState, connection: Connection): string[] {
  if ((cluster.raw['networkpolicies'] ?? []).length === 0) return []
  const {address, port, protocol} = connection
  const pod = podAt(cluster, address)
  const server = {addresses: [single(address)], ...(pod ? {pod} : {})}
  return deniedBy(cluster, {client: clientOf(cluster, connection), server, port, protocol})
}

/**
 * The client as the pod's end sees it: a masqueraded one has a node's address. Of a packet that never got there nobody knows
 * which, and a policy that lets one of them in does not want it lost.
 */
function clientOf(cluster: ClusterState, {fate, from, clients}: Connection): PolicyPeer {
  const seen = fate.source === undefined ? undefined : [single(fate.source)]
  if (from.kind === 'external') return {addresses: seen ?? clients}
  if (from.kind === 'node') return {addresses: seen ?? nodeRanges(cluster, from.node), node: from.node}
  const pod = cluster.pods?.find(({id}) => id === from.pod)
  if (!pod) return {addresses: seen ?? []}
  return {pod, addresses: seen ?? [...rangesOf(pod.ips), ...nodeRanges(cluster, pod.node)]}
}

/** A node's addresses, and its pods' network, of which its bridge has one. */
function nodeRanges(cluster: ClusterState, name: string | undefined): Range[] {
  const node = cluster.nodes.find((one) => one.name === name)
  return node ? rangesOf([...node.addresses.map(({address}) => address), ...node.podCIDRs]) : []
}

const rangesOf = (texts: readonly string[]): Range[] => texts.flatMap((text) => parseRange(text) ?? [])

/**
 * Connections that the walk delivers although the API's policies leave them out: either the network plugin enforces no
 * policies, or it does so out of sight of netfilter (eBPF, Open vSwitch).
 */
export class UnseenPolicies {
  private readonly cluster: ClusterState
  private readonly found = new Map<string, Unseen>()

  constructor(cluster: ClusterState) {
    this.cluster = cluster
  }

  /** Without policies there is nothing to ask. */
  get isNeeded(): boolean {
    return (this.cluster.raw['networkpolicies'] ?? []).length > 0
  }

  /** A walk that was delivered. */
  add({service, port, frontend, fate, from, clients}: Sample): void {
    if (!fate.receiver) return
    const {address, port: number} = fate.receiver
    const policies = denied(this.cluster, {fate, from, clients, address, port: number, protocol: port.protocol})
    if (policies.length === 0) return
    const entry = this.found.get(service.id) ?? {service, policies: [], origins: new Set(), frontends: new Set()}
    entry.policies = [...new Set([...entry.policies, ...policies])]
    entry.origins.add(from.kind)
    entry.frontends.add(formatEndpoint(frontend.address, frontend.port))
    this.found.set(service.id, entry)
  }

  get findings(): Finding[] {
    return [...this.found.values()].map(toFinding)
  }
}

interface Unseen {
  readonly service: Service
  policies: string[]
  readonly origins: Set<string>
  readonly frontends: Set<string>
}

function toFinding({service, policies, origins, frontends}: Unseen): Finding {
  return makeFinding('network-policy-unseen', {
    services: [service.id],
    frontends: [...frontends].sort(),
    origins: [...origins].sort(),
    message: `NetworkPolicy ${policies.join(', ')} leaves clients of ${service.id} out (${[...origins].sort().join(', ')}), but no rule in the dumps drops them: the network plugin enforces no policies, or does it in eBPF or Open vSwitch`,
    evidence: policies.map((policy) => apiEvidence('networkpolicies.json', policy, policy)),
  })
}
