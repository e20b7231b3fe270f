import type {Evidence} from '../model/trace.js'
import type {NodeState} from '../snapshot/node-state.js'
import {absentEntry, absentHairpin, brokenMasquerade, unmarkedEndpoint, usesIpvs} from './absent.js'
import {translator, type Cause} from './cause.js'
import type {Mismatch} from './compare.js'
import type {Scene} from './missing.js'
import {chosenBy, sysctlLine, unmasqueradedBy} from './proof.js'

const VS_CONNTRACK = 'net.ipv4.vs.conntrack'

/** Lost because nothing gave it an address that the answer finds back to. */
export function unmasqueraded(mismatch: Mismatch, {states}: Scene): Cause {
  const node = translator(mismatch)
  const state = states.get(node)
  const byIpvs = mismatch.fate.hops.some(({kind, node: at, reply}) => kind === 'ipvs' && at === node && !reply)
  if (byIpvs && state?.sysctl(VS_CONNTRACK) === '0')
    return {
      key: `masquerade ${node}`,
      name: 'masquerade-missing',
      node,
      evidence: sysctlLine(state, VS_CONNTRACK),
      message: `${VS_CONNTRACK} is 0 on ${node}: what IPVS sends has no connection, and nothing masquerades it: ${mismatch.fate.reason}`,
    }
  return {
    key: `masquerade ${node}`,
    name: 'masquerade-missing',
    node,
    evidence: [
      ...unlisted(mismatch, state),
      ...brokenMasquerade(state, mismatch.frontend.address),
      ...unmasqueradedBy(mismatch.fate, node),
    ],
    message: `${node} does not masquerade packets that need it: ${mismatch.fate.reason}`,
  }
}

/** The set that should have it masqueraded and does not hold it: for endpoints that ask themselves, and in ipvs mode for all. */
function unlisted({fate, frontend, from, promise}: Mismatch, state: NodeState | undefined): Evidence[] {
  const own = promise.endpoints.find(({pod}) => from.kind === 'pod' && pod === from.pod)
  const places = fate.receiver ? [fate.receiver] : fate.towards
  if (own && places.some(({address}) => address === own.address))
    return [...absentHairpin(state, own, frontend.protocol), ...unmarkedEndpoint(state, own, chosenBy(fate))]
  return usesIpvs(state) ? absentEntry(state, 'entry', frontend) : []
}
