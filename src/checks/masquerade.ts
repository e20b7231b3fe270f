import type {Evidence} from '../model/trace.js'
import type {NodeState} from '../snapshot/node-state.js'
import {familyOf, inRange, parseRange} from '../util/ip.js'
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
  const spared = takenForPod(mismatch, state)
  if (spared) return {...spared, node}
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

/**
 * In ipvs mode the node's own packets to a cluster IP come from that address (it is on kube-ipvs0), and a rule that spares
 * the pods' range spares them where the range holds the Services' too: a --cluster-cidr that is too wide.
 */
function takenForPod(
  {from, frontend, service}: Mismatch,
  state: NodeState | undefined,
): Omit<Cause, 'node'> | undefined {
  if (from.kind !== 'node' || !state || !usesIpvs(state)) return undefined
  for (const {file, tables} of state.iptables(familyOf(frontend.address)))
    for (const {source, target, line, text} of tables.get('nat')?.chains.get('KUBE-SERVICES')?.rules ?? []) {
      const range = source?.not && target?.name === 'KUBE-MARK-MASQ' ? parseRange(source.value) : undefined
      if (!range || !inRange(frontend.address, range)) continue
      return {
        key: `masquerade by range ${state.name} ${file}:${line}`,
        name: 'masquerade-missing',
        evidence: [{source: file, line, text}],
        message: `${state.name} does not masquerade its own packets to ${service.id}: they come from the cluster IP itself, which kube-proxy's --cluster-cidr ${source!.value} takes for a pod's address`,
      }
    }
  return undefined
}

/** The set that should have it masqueraded and does not hold it: for endpoints that ask themselves, and in ipvs mode for all. */
function unlisted({fate, frontend, from, promise}: Mismatch, state: NodeState | undefined): Evidence[] {
  const own = promise.endpoints.find(({pod}) => from.kind === 'pod' && pod === from.pod)
  const places = fate.receiver ? [fate.receiver] : fate.towards
  if (own && places.some(({address}) => address === own.address))
    return [...absentHairpin(state, own, frontend.protocol), ...unmarkedEndpoint(state, own, chosenBy(fate))]
  return usesIpvs(state) ? absentEntry(state, 'entry', frontend) : []
}
