import type {ClusterState} from '../model/kube.js'
import type {Evidence, Fate, Hop} from '../model/trace.js'
import type {NodeState} from '../snapshot/node-state.js'
import {familyOf, formatAddress} from '../util/ip.js'
import {at, percent, perService, placeOf, translated, type Cause} from './cause.js'
import type {CodeName} from './codes.js'
import {entryKey, placeKey, type Comparison, type Mismatch} from './compare.js'
import {absentEntry, absentServer, emptyTarget, usesIpvs} from './absent.js'
import {addressLost, deciding, emptyPlace, evidenceOf, programming} from './proof.js'

/** What a cause may look at besides the walk: the nodes' dumps, and where nothing (of a kind) works. */
export interface Scene {
  readonly cluster: ClusterState
  readonly states: ReadonlyMap<string, NodeState>
  /** `node service`: nothing of the Service is programmed there. */
  readonly wholeService: ReadonlySet<string>
  readonly wholeNode: ReadonlySet<string>
  /** `node address`: no NodePort answers there. */
  readonly wholeAddress: ReadonlySet<string>
  readonly wholeKind: ReadonlySet<string>
}

/** kube-proxy itself refuses what it has no entry for; a rule that somebody put into its chains is that one's. */
export const isOwnRefusal = (hop: Hop | undefined): boolean =>
  / kube-proxy\/cluster-ips-check#/.test(hop?.where ?? '') ||
  (/\/KUBE-(IPVS-FILTER|FIREWALL)#/.test(hop?.where ?? '') && OWN_WORDS.test(hop?.evidence?.text ?? ''))

const OWN_WORDS = /--match-set KUBE-|--mark 0x|match-set KUBE-|mark match 0x|--comment/

/** A Service address that reaches a policy of FORWARD is one that nothing translated before. */
export const forwardedAsItCame = ({fate, frontend}: Mismatch): boolean =>
  fate.cause === 'policy' &&
  (frontend.kind === 'clusterIP' || frontend.kind === 'externalIP' || frontend.kind === 'loadBalancerIP') &&
  deciding(fate)?.hook === 'FORWARD' &&
  !translated(fate)

const isMissingEntry = (mismatch: Mismatch): boolean =>
  mismatch.kind === 'fails' && !mismatch.fate.onReply && (forwardedAsItCame(mismatch) || isUnprogrammed(mismatch.fate))

const isUnprogrammed = (fate: Fate): boolean =>
  fate.cause === 'untranslated' ||
  fate.cause === 'no-listener' ||
  (fate.cause === 'rule' && isOwnRefusal(deciding(fate)))

export function missingEntries({mismatches, expected}: Comparison): Omit<Scene, 'cluster' | 'states'> {
  const missing = new Map<string, Set<string>>()
  for (const mismatch of mismatches) {
    if (!isMissingEntry(mismatch) || translated(mismatch.fate)) continue
    const key = placeKey(placeOf(mismatch), mismatch.frontend)
    const entry = entryKey(mismatch.service, mismatch.frontend)
    if (!expected.get(key)?.has(entry)) continue
    const known = missing.get(key) ?? new Set()
    missing.set(key, known.add(entry))
  }
  const wholeKind = new Set(
    [...missing]
      .filter(([key, entries]) => entries.size === expected.get(key)?.size && servicesOf(entries).size > 1)
      .map(([key]) => key),
  )
  // `node family`
  const places = new Set([...expected.keys()].map((key) => key.replace(/ \w+ /, ' ')))
  const wholeNode = new Set(
    [...places].filter((place) => {
      const [node, family] = place.split(' ')
      const kinds = [`${node} clusterIP ${family}`, `${node} nodePort ${family}`].filter((key) => expected.has(key))
      const dead = (key: string): boolean => expected.get(key)!.size === (missing.get(key)?.size ?? 0)
      return kinds.some((key) => wholeKind.has(key)) && kinds.every(dead)
    }),
  )
  return {
    wholeNode,
    wholeKind,
    wholeAddress: wholeAddresses(missing, expected),
    wholeService: wholeServices(missing, expected),
  }
}

/** Addresses of nodes at which all NodePorts (of two Services at least) are missing. */
function wholeAddresses(
  missing: ReadonlyMap<string, ReadonlySet<string>>,
  expected: Comparison['expected'],
): Set<string> {
  const found = new Set<string>()
  for (const [place, lost] of missing) {
    const [node, kind] = place.split(' ')
    if (kind !== 'nodePort') continue
    const [there, wanted] = [byAddress(lost), byAddress(expected.get(place) ?? new Set())]
    for (const [address, entries] of there)
      if (servicesOf(new Set(entries)).size > 1 && entries.length === wanted.get(address)?.length)
        found.add(`${node} ${address}`)
  }
  return found
}

function byAddress(entries: ReadonlySet<string>): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const entry of entries) {
    const address = entry.split(' ')[1]!
    const known = found.get(address)
    if (known) known.push(entry)
    else found.set(address, [entry])
  }
  return found
}

const servicesOf = (entries: ReadonlySet<string>): Set<string> =>
  new Set([...entries].map((entry) => entry.slice(0, entry.indexOf(' '))))

/** Services all of whose kinds of frontends (two at least) are missing on a node. */
function wholeServices(
  missing: ReadonlyMap<string, ReadonlySet<string>>,
  expected: Comparison['expected'],
): Set<string> {
  const counts = new Map<string, {wanted: number; lost: number}>()
  for (const [key, entries] of expected) {
    for (const entry of entries) {
      const id = `${key.split(' ')[0]!} ${entry.slice(0, entry.indexOf(' '))}`
      const count = counts.get(id) ?? {wanted: 0, lost: 0}
      counts.set(id, {wanted: count.wanted + 1, lost: count.lost + (missing.get(key)?.has(entry) ? 1 : 0)})
    }
  }
  return new Set([...counts].filter(([, {wanted, lost}]) => wanted > 1 && wanted === lost).map(([id]) => id))
}

const KIND_NAME: Readonly<Record<Mismatch['frontend']['kind'], CodeName>> = {
  clusterIP: 'cluster-ip-not-programmed',
  nodePort: 'node-port-not-programmed',
  localhost: 'node-port-not-programmed',
  externalIP: 'external-ip-not-programmed',
  loadBalancerIP: 'external-ip-not-programmed',
}

/** Not translated, though it should be: the widest of what is missing is told. */
export function notProgrammed(mismatch: Mismatch, scene: Scene): Cause {
  const {fate, frontend, service} = mismatch
  const node = placeOf(mismatch)
  if (translated(fate)) {
    const nobodyThere = frontend.kind === 'nodePort' && fate.cause === 'no-listener'
    return perService(mismatch, nobodyThere ? 'endpoint-unreachable' : 'stale-endpoint', node)
  }
  const absent = unserved(scene.states.get(node), mismatch)
  const evidence = absent.length > 0 ? absent : programming(fate, node)
  return (
    addressOff(mismatch, scene) ??
    passedOver(mismatch, node) ??
    wholePlace(mismatch, {node, evidence, scene}) ??
    kindMissing(mismatch, {node, absent, scene}) ??
    serviceMissing(mismatch, {node, evidence, scene}) ?? {
      key: `entry ${KIND_NAME[frontend.kind]} ${node} ${service.id}`,
      name: KIND_NAME[frontend.kind],
      node,
      evidence,
      message: `${at(mismatch)} of ${service.id} is not programmed on ${node}: ${fate.reason}`,
    }
  )
}

/** No frontend of this kind works on the node; external addresses go with the cluster IPs. */
function kindMissing(
  {fate, frontend}: Mismatch,
  {node, absent, scene: {states, wholeKind}}: {node: string; absent: Evidence[]; scene: Scene},
): Cause | undefined {
  const family = familyOf(frontend.address)
  const external = frontend.kind === 'externalIP' || frontend.kind === 'loadBalancerIP'
  const withClusterIps = external && wholeKind.has(`${node} clusterIP ${family}`)
  const kind = withClusterIps ? 'clusterIP' : frontend.kind === 'localhost' ? 'nodePort' : frontend.kind
  if (!wholeKind.has(`${node} ${kind} ${family}`)) return undefined
  const place = emptyPlace(states.get(node), family)?.evidence ?? programming(fate, node)
  return {
    key: `kind ${node} ${KIND_NAME[kind]} ${family}`,
    name: KIND_NAME[kind],
    node,
    evidence: absent.length > 0 ? absent : place,
    message: `no ${kind} works on ${node}: ${fate.reason}`,
  }
}

/** Nothing of the Service is there, or its chain is there and leads nowhere. */
function serviceMissing(
  {fate, frontend, service}: Mismatch,
  {node, evidence, scene: {states, wholeService}}: {node: string; evidence: Evidence[]; scene: Scene},
): Cause | undefined {
  const called = calledChain(fate, node)
  if (called) {
    const share = fate.share > 0.999 ? 'the rules' : `for ${percent(fate.share)} of its packets the rules`
    return {
      key: `empty ${node} ${service.id}`,
      name: 'no-endpoints-programmed',
      node,
      evidence: [...emptyTarget(states.get(node), called.evidence!, frontend.address), ...evidenceOf(called)],
      message: `${node} knows ${service.id}, but ${share} lead to no endpoint: ${fate.reason}`,
    }
  }
  if (!wholeService.has(`${node} ${service.id}`)) return undefined
  return {
    key: `service ${node} ${service.id}`,
    name: 'service-not-programmed',
    node,
    evidence,
    message: `nothing of ${service.id} is programmed on ${node}: ${fate.reason}`,
  }
}

/** What is not there, and what ends the packet for want of it. */
function unserved(state: NodeState | undefined, {fate, frontend, service}: Mismatch): Evidence[] {
  const refusal = deciding(fate)
  const refuses = isOwnRefusal(refusal) ? evidenceOf(refusal) : []
  // ipvs mode has sets of their own for external IPs of policy Local
  const duty =
    frontend.kind === 'externalIP' && service.externalTrafficPolicy === 'Local' && usesIpvs(state) ? 'local' : 'entry'
  const absent = [...absentServer(state, frontend), ...absentEntry(state, duty, frontend)]
  return /\/KUBE-IPVS-FILTER#/.test(refusal?.where ?? '') || absent.length > 0 ? [...absent, ...refuses] : []
}

/** Nothing works on the node, or nothing at one of its addresses. */
function wholePlace(
  {fate, frontend}: Mismatch,
  {node, evidence, scene}: {node: string; evidence: readonly Evidence[]; scene: Scene},
): Cause | undefined {
  const {wholeNode, wholeKind, wholeAddress} = scene
  const family = familyOf(frontend.address)
  // both families of a node that has nothing at all are one finding
  const both = wholeNode.has(`${node} 4`) && wholeNode.has(`${node} 6`)
  if (wholeNode.has(`${node} ${family}`)) {
    const empty = emptyPlace(scene.states.get(node), family)
    const what = `${family === 6 && !both ? 'IPv6 ' : ''}Service`
    return {
      key: `node ${node} ${both ? '' : family}`,
      name: 'node-not-programmed',
      node,
      evidence: empty?.evidence ?? evidence,
      message: empty?.ownOnly
        ? `no ${what} works for what ${node} itself sends: its packets leave it untranslated`
        : `no ${what} works on ${node}: packets leave it untranslated`,
    }
  }
  const address = formatAddress(frontend.address)
  if (frontend.kind !== 'nodePort' || wholeKind.has(`${node} nodePort ${family}`)) return undefined
  if (!wholeAddress.has(`${node} ${address}`)) return undefined
  return {
    key: `address ${node} ${address}`,
    name: 'node-port-not-programmed',
    node,
    evidence,
    message: `no NodePort works at ${address} of ${node}: ${fate.reason}`,
  }
}

/** A rule that already named the Service's port or address, behind which nothing followed. */
function calledChain({hops}: Fate, node: string): Hop | undefined {
  return hops.findLast(
    (hop) =>
      hop.node === node &&
      !hop.reply &&
      hop.kind === 'rule' &&
      (hop.hook === 'PREROUTING' || hop.hook === 'OUTPUT') &&
      /-j KUBE-(SVC|EXT|SVL|XLB|FW)-|goto (service|external|local|endpoint)-/.test(hop.evidence?.text ?? ''),
  )
}

const ENDS_CHAIN = /-j (RETURN|ACCEPT)$|(^|\s)(accept|return)$/
/** In ipvs mode kube-proxy itself lets through what its sets hold: IPVS takes it later. */
const OWN_ACCEPT = /--match-set KUBE-|-A KUBE-SERVICES -s 127\.0\.0\.0\/8 -j RETURN/
const IN_NAT =
  /^(legacy )?nat\/(PREROUTING|OUTPUT|KUBE-SERVICES|KUBE-NODEPORTS)#|^\S+ kube-proxy\/(nat-prerouting|nat-output|services|nodeports)#/

/** Somebody's rule that ends the chains where the packet would have been translated. */
function passedOver({fate, service, ...mismatch}: Mismatch, node: string): Cause | undefined {
  const rule = fate.hops.findLast(
    (hop) =>
      hop.node === node &&
      !hop.reply &&
      hop.kind === 'rule' &&
      IN_NAT.test(hop.where ?? '') &&
      ENDS_CHAIN.test(hop.evidence?.text ?? '') &&
      !OWN_ACCEPT.test(hop.evidence!.text),
  )
  if (!rule) return undefined
  return {
    key: `passed over ${node} ${rule.evidence!.source}:${rule.evidence!.line}`,
    name: 'traffic-hijacked',
    node,
    evidence: [rule.evidence!],
    message: `on ${node} a rule takes packets to ${at({fate, service, ...mismatch})} of ${service.id} out of the chains before kube-proxy translates them: ${fate.reason}`,
  }
}

/** IPVS knows the frontend, and no device holds its address. */
export function addressOff(mismatch: Mismatch, {states}: Scene): Cause | undefined {
  const {fate, frontend, service} = mismatch
  const node = placeOf(mismatch)
  const evidence = addressLost(states.get(node), frontend)
  if (!evidence) return undefined
  return {
    key: `lost ${node} ${evidence[0]!.text}`,
    name: KIND_NAME[frontend.kind],
    node,
    evidence,
    message: `${node} has a virtual server for ${at(mismatch)} of ${service.id}, but no device with its address: ${fate.reason}`,
  }
}
