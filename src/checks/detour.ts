import type {Fate} from '../model/trace.js'
import {familyOf, formatEndpoint} from '../util/ip.js'
import type {Cause} from './cause.js'
import type {Mismatch} from './compare.js'
import type {Scene} from './missing.js'
import {wasSentTo} from './hops.js'
import {deciding, routeLine} from './proof.js'

/** Ends that are typical of asymmetric routing; and the rule that drops what conntrack does not know. */
const OF_DETOURS: ReadonlySet<Fate['cause']> = new Set(['bypass', 'martian', 'reverse-path', 'not-masqueraded'])
const IS_INVALID = /--(ct)?state INVALID\b|\bct state invalid\b/

/** A route leads to a node that has no part in the connection: it comes back by another way, or never. */
export function ledAstray(mismatch: Mismatch, {states}: Scene): Cause | undefined {
  const {fate, promise, service} = mismatch
  // a node may well be the router of others: what drops packets of its own accord is told by itself
  if (!OF_DETOURS.has(fate.cause) && !(fate.cause === 'rule' && IS_INVALID.test(deciding(fate)?.evidence?.text ?? '')))
    return undefined
  const target = promise.endpoints.find((endpoint) => wasSentTo(fate, endpoint))
  const turn = target?.node === undefined ? undefined : wrongTurn(fate, target.node)
  if (!turn) return undefined
  const {node, next, route} = turn
  return {
    key: `detour ${node} ${next}`,
    name: 'pod-route-missing',
    node,
    evidence: routeLine(states.get(node), familyOf(target!.address), route),
    message: `${node} sends ${fate.receiver ? 'answers of' : 'packets for'} ${formatEndpoint(target!.address, target!.port)} of ${service.id} to ${next}, which has no part in it: ${fate.reason}`,
  }
}

/** The first step to a node that is neither where the packet was translated nor where its endpoint is; of an answer, one that the packet never passed. */
function wrongTurn(
  {hops, receiver}: Fate,
  endpointNode: string,
): {node: string; next: string; route: string} | undefined {
  const there = hops.filter(({reply}) => !reply)
  const nat = there.findIndex(({kind}) => kind === 'nat' || kind === 'ipvs')
  if (nat < 0) return undefined
  // whoever has received it has begun to answer
  const answers = receiver !== undefined
  const known = answers ? new Set(there.map(({node}) => node)) : new Set([there[nat]!.node, endpointNode])
  const way = answers ? hops.filter(({reply}) => reply) : there.slice(nat)
  const at = way.findIndex(({node}) => !known.has(node))
  if (at < 1) return undefined
  const {node} = way[at - 1]!
  const route = way.slice(0, at).findLast((hop) => hop.node === node && hop.kind === 'route')
  return route && {node, next: way[at]!.node, route: route.what}
}
