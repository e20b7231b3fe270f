import type {ClusterState, Pod} from '../model/kube.js'
import type {Route} from '../parse/iproute.js'
import type {NodeState} from '../snapshot/node-state.js'
import {familyOf, formatAddress, parseAddress, type Address} from '../util/ip.js'
import {placeOf, type Cause} from './cause.js'
import type {Mismatch} from './compare.js'
import type {Scene} from './missing.js'

/**
 * Routes to single pods: network plugins make them for pods of the node itself, and for addresses that another node has
 * borrowed. One that leads to a third node, or keeps a remote pod's packets here, is a leftover or somebody's mistake.
 */
const byAddress = new WeakMap<NodeState, ReadonlyMap<Address, Route>>()

function hostRoutes(state: NodeState): ReadonlyMap<Address, Route> {
  let known = byAddress.get(state)
  if (!known) {
    const single = state.routes.filter(({destination: {lo, hi}}) => lo === hi)
    byAddress.set(state, (known = new Map(single.map((route) => [route.destination.lo, route]))))
  }
  return known
}

const KEEPS: ReadonlySet<string> = new Set(['local', 'anycast', 'blackhole', 'unreachable', 'prohibit'])

/** Does the route of this node lead elsewhere than to the pod, which is on `home`? */
function isWrong({nodes}: ClusterState, state: NodeState, {route, home}: {route: Route; home: string}): boolean {
  if (KEEPS.has(route.type)) return home !== state.name || route.type !== 'local'
  const gateway = route.nextHops[0]?.gateway
  if (gateway === undefined) return false
  const owner = nodes.find(({addresses}) => addresses.some(({address}) => parseAddress(address) === gateway))
  return owner !== undefined && (home === state.name || owner.name !== home)
}

interface Places {
  readonly byId: ReadonlyMap<string, Pod>
  readonly byAddress: ReadonlyMap<Address, Pod>
}

const podPlaces = new WeakMap<ClusterState, Places>()

function placesOf(cluster: ClusterState): Places {
  let known = podPlaces.get(cluster)
  if (!known) {
    const pods = (cluster.pods ?? []).filter(({hostNetwork, node}) => !hostNetwork && node !== undefined)
    known = {
      byId: new Map(pods.map((pod) => [pod.id, pod])),
      byAddress: new Map(pods.flatMap((pod) => pod.ips.flatMap((ip) => [[parseAddress(ip)!, pod] as const]))),
    }
    podPlaces.set(cluster, known)
  }
  return known
}

/** The route that leads packets for the endpoint, or the answers of a pod that asks, away from it. */
export function strayHostRoute(mismatch: Mismatch, {states, cluster}: Scene): Cause | undefined {
  const {fate, from, node, service, frontend} = mismatch
  const {byId, byAddress: owners} = placesOf(cluster)
  const target = fate.receiver?.address ?? fate.towards[0]?.address
  const asker = from.kind === 'pod' ? byId.get(from.pod) : undefined
  const asking = asker?.ips
    .map(parseAddress)
    .find((ip) => ip !== undefined && familyOf(ip) === familyOf(frontend.address))
  const places = [...new Set([node, placeOf(mismatch), ...fate.hops.map((hop) => hop.node)])]
  for (const address of [target, asking]) {
    const pod = address === undefined ? undefined : owners.get(address)
    if (address === undefined || !pod) continue
    for (const name of places) {
      const state = states.get(name)
      const route = state && hostRoutes(state).get(address)
      if (!route || !isWrong(cluster, state, {route, home: pod.node!})) continue
      return {
        key: `host route ${name} ${String(address)}`,
        name: 'pod-route-missing',
        node: name,
        evidence: [
          {source: state.ipPath(familyOf(address) === 4 ? 'ip-route' : 'ip-route6'), line: 0, text: route.text},
        ],
        message: `a route of ${name} to ${formatAddress(address)} alone leads away from pod ${pod.id} on ${pod.node} (${service.id}): ${route.text}`,
      }
    }
  }
  return undefined
}
