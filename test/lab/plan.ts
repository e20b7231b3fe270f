/** From a snapshot to the machines, cables, addresses and servers that the lab makes of it. Pure. */
import type {Snapshot} from '../../src/snapshot/snapshot.js'
import {planListeners} from './plan-listeners.js'
import {planNode} from './plan-node.js'
import {planClients, planHub, takenAddresses} from './plan-outside.js'
import {planPods} from './plan-pod.js'
import {LabError, siteOf} from './plan-site.js'

export interface NodePlan {
  readonly name: string
  /** InternalIP, by which ssh and the other nodes reach it. */
  readonly address: string
  /** The device that has it. */
  readonly uplink: string
  /** Arguments of `ip`, in order, for a network namespace that has its uplink already. */
  readonly ip: readonly string[]
}

export interface PodPlan {
  /** `namespace/name`; an endpoint without a pod has its address here. */
  readonly id: string
  readonly node: string
  readonly namespace: string
  /** The node's end of its cable. */
  readonly cable: string
  readonly bridge?: string
  /** Arguments of `ip` for its own namespace. */
  readonly inside: readonly string[]
  /** Arguments of `ip` for its node. */
  readonly outside: readonly string[]
}

/** A socket that answers with a name: `tcp` or `udp`, in a namespace; an empty address is all of them. */
export interface Listener {
  readonly namespace: string
  /** What it answers: a pod's `namespace/name`, an address, or `node/NAME`. */
  readonly name: string
  readonly pod: boolean
  readonly proto: 'tcp' | 'udp'
  readonly address: string
  readonly port: number
}

/** A machine outside: its packets to Service addresses go to one node first. */
export interface ClientPlan {
  readonly namespace: string
  readonly node: string
  readonly addresses: readonly string[]
  readonly ip: readonly string[]
}

export interface Plan {
  readonly nodes: readonly NodePlan[]
  readonly pods: readonly PodPlan[]
  readonly clients: readonly ClientPlan[]
  readonly listeners: readonly Listener[]
  /** Arguments of `ip` for the hub, behind which its bridge stands. */
  readonly hub: readonly string[]
  /** What of the snapshot the lab does not make again. */
  readonly notes: readonly string[]
}

export function planLab(snapshot: Snapshot): Plan {
  const notes: string[] = []
  const sites = snapshot.cluster.nodes.map((node) => siteOf(snapshot, node.name))
  if (sites.length === 0) throw new LabError('the snapshot has no nodes: api/nodes.json is empty or missing')
  const pods = planPods(snapshot, sites)
  const nodes = sites.map((site) => planNode(site, {sites, notes}))
  const clients = planClients(sites, takenAddresses(snapshot, sites))
  return {
    nodes,
    pods,
    clients,
    hub: planHub(snapshot, sites),
    listeners: planListeners(snapshot, {sites, pods}),
    notes: [...new Set(notes)],
  }
}
