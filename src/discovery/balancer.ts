import type {ClusterState, Service} from '../model/kube.js'
import {record, text} from '../util/json.js'

/** What a load balancer in front of a Service of type LoadBalancer has to go by. */
export interface Balancer {
  /** Addresses and host names; empty while it is pending. */
  readonly addresses: readonly string[]
  /** What it sends to on the nodes; without NodePorts it must keep the address as it is, or send to pods. */
  readonly nodePorts: readonly number[]
  readonly healthCheckNodePort?: number
  /** Nodes that pass its health check: those with a ready endpoint under policy Local, else all that are ready. */
  readonly nodes: readonly string[]
  readonly failing: readonly string[]
  /** Reasons of the latest warnings about the Service, newest first; what they say in full may quote anything. */
  readonly events: readonly string[]
  /** Whether events were read at all. */
  readonly eventsRead: boolean
}

const FEW = 3
/** Nodes with this label get no traffic from cloud load balancers (KEP-1143). */
const EXCLUDED = 'node.kubernetes.io/exclude-from-external-load-balancers'

export function balancerOf(cluster: ClusterState, service: Service): Balancer | undefined {
  if (service.type !== 'LoadBalancer') return undefined
  const withEndpoint = new Set(
    cluster.slices
      .filter((slice) => slice.service === service.id)
      .flatMap(({endpoints}) => endpoints.filter(({ready}) => ready).flatMap(({node}) => node ?? [])),
  )
  const able = cluster.nodes.filter(({ready, labels}) => ready && !(EXCLUDED in labels)).map(({name}) => name)
  // endpoints that were not read accuse no node
  const read = cluster.read.has('endpointslices') || cluster.legacyEndpoints !== undefined
  const local = service.externalTrafficPolicy === 'Local' && read
  return {
    addresses: service.loadBalancer.flatMap(({ip, hostname}) => ip ?? hostname ?? []),
    nodePorts: service.ports.flatMap(({nodePort}) => nodePort ?? []),
    ...(service.healthCheckNodePort === undefined ? {} : {healthCheckNodePort: service.healthCheckNodePort}),
    nodes: local ? able.filter((name) => withEndpoint.has(name)) : able,
    failing: local ? able.filter((name) => !withEndpoint.has(name)) : [],
    events: eventsOf(cluster, service),
    eventsRead: cluster.read.has('events'),
  }
}

function eventsOf({raw}: ClusterState, {namespace, name}: Service): string[] {
  return (raw['events'] ?? [])
    .map((event) => record(event))
    .filter(({type, involvedObject}) => {
      const about = record(involvedObject)
      return (
        type === 'Warning' && about['kind'] === 'Service' && about['name'] === name && about['namespace'] === namespace
      )
    })
    .sort((a, b) => (text(b['lastTimestamp']) ?? '').localeCompare(text(a['lastTimestamp']) ?? ''))
    .slice(0, FEW)
    .flatMap(({reason}) => text(reason) ?? [])
}

/** Who writes the endpoints of a Service without a selector. */
export function endpointWriters({slices}: ClusterState, service: Service): string[] {
  if (service.selector !== undefined || service.type === 'ExternalName') return []
  const own = slices.filter((slice) => slice.service === service.id)
  return [...new Set(own.map(({managedBy, name}) => `${managedBy ?? 'by hand'} (${name})`))]
}
