import type {ClusterState} from '../model/kube.js'
import type {Evidence, Fate, Hop} from '../model/trace.js'
import {familyOf, formatEndpoint, inRange, parseAddress, prefixRange} from '../util/ip.js'
import {absentEntry, absentRange} from './absent.js'
import {apiEvidence, endpointOf, frontendField, serviceEvidence} from './api-evidence.js'
import {otherOwners} from './claims.js'
import type {CodeName} from './codes.js'
import {endpointsOf} from '../intent/endpoints.js'
import {sourceRanges} from '../intent/frontends.js'
import {placeKey, type Comparison, type Mismatch} from './compare.js'
import {makeFinding, type Finding} from './finding.js'
import type {NodeState} from '../snapshot/node-state.js'
import {at, endNode, percent, perService, placeOf, translated, translator, type Cause} from './cause.js'
import {addressOff, forwardedAsItCame, missingEntries, notProgrammed, isOwnRefusal, type Scene} from './missing.js'
import {ledAstray} from './detour.js'
import {unmasqueraded} from './masquerade.js'
import {hijacked, strayed, translatedAgain, wrongEndpoint} from './misled.js'
import {wantedBy} from './policy.js'
import {answersAstray, clientLost} from './sources.js'
import {
  chosenBy,
  chosenByStranger,
  deciding,
  leftUnmarked,
  evidenceOf,
  letIn,
  programming,
  realServer,
  routeLine,
  spreadBy,
  sysctlLine,
} from './proof.js'

export interface Compared {
  readonly cluster: ClusterState
  readonly states: ReadonlyMap<string, NodeState>
  readonly comparison: Comparison
  /** Is this a line that the dump does not print whole? */
  readonly isIncomplete: (line: Evidence) => boolean
}

/**
 * Turns mismatches into findings: one per node and cause, with all victims. What goes by a line that the dump does not print
 * whole proves nothing, and that line is a finding of its own.
 */
export function findingsOf({cluster, states, comparison, isIncomplete}: Compared): Finding[] {
  const groups = new Map<string, Group>()
  const scene = {cluster, states, ...missingEntries(comparison)}
  const owners = otherOwners(cluster.services)
  for (const mismatch of comparison.mismatches) {
    if (isTheirs(mismatch, owners(mismatch.service, mismatch.frontend), cluster)) continue
    if (mismatch.fate.hops.some(({evidence, reply}) => !reply && evidence && isIncomplete(evidence))) continue
    if (mismatch.kind === 'missing-endpoint' && replaced(mismatch, comparison)) continue
    const cause = wanted(cluster, mismatch) ?? causeOf(mismatch, scene)
    if (!cause) continue
    const known = groups.get(cause.key)
    if (known) join(known, cause, mismatch)
    else groups.set(cause.key, {cause, victims: [mismatch], others: []})
  }
  return joinSilent([...groups.values()]).map((group) => toFinding(group, cluster))
}

/** Where it goes is decided by another owner of the same port. */
function isTheirs({kind, frontend, fate}: Mismatch, owners: readonly string[], cluster: ClusterState): boolean {
  if (owners.length === 0) return false
  if (kind === 'missing-endpoint' || kind === 'skewed') return true
  const {receiver} = fate
  const theirs = cluster.services.filter(({id}) => owners.includes(id))
  const narrow = theirs.some((service) => sourceRanges(service, familyOf(frontend.address)).length > 0)
  if (narrow && kind === 'fails' && SOURCE_RANGES.test(deciding(fate)?.where ?? '')) return true
  if (!receiver) return false
  return theirs.some((service) =>
    service.ports.some((port) =>
      endpointsOf(cluster, service, {port, family: familyOf(frontend.address)}).some(
        ({address, port: number}) => address === receiver.address && number === receiver.port,
      ),
    ),
  )
}

interface Group {
  readonly cause: Cause
  readonly victims: Mismatch[]
  /** Other lines of the same cause: each stale endpoint of a Service has its own. */
  readonly others: Evidence[]
}

/** More lines than these are told by the first. */
const MOST_OTHERS = 3

function join({cause, victims, others}: Group, {name, evidence: [line]}: Cause, mismatch: Mismatch): void {
  victims.push(mismatch)
  const isKnown = [...cause.evidence, ...others].some((one) => one.source === line?.source && one.line === line.line)
  if (name === 'stale-endpoint' && line && !isKnown && others.length < MOST_OTHERS) others.push(line)
}

const DROPS: ReadonlySet<CodeName> = new Set(['forward-policy-drop', 'packet-dropped-by-rule'])

/** A line that drops what should be delivered drops what should be refused as well: one cause, one finding. */
function joinSilent(groups: readonly Group[]): Group[] {
  const line = ({cause: {node, evidence}}: Group): string => `${node} ${evidence[0]?.source}:${evidence[0]?.line}`
  const louder = new Map(groups.filter(({cause}) => DROPS.has(cause.name)).map((group) => [line(group), group]))
  return groups.filter((group) => {
    const known = group.cause.name === 'silent-port' ? louder.get(line(group)) : undefined
    known?.victims.push(...group.victims)
    return known === undefined
  })
}

/** An endpoint that lost its place to a wrong one is told with that one. */
const replaced = ({service, node}: Mismatch, {mismatches}: Comparison): boolean =>
  mismatches.some(
    (other) =>
      other.service === service &&
      other.node === node &&
      (other.kind === 'wrong-endpoint' || (other.kind === 'fails' && other.fate.cause === 'nobody')),
  )

function toFinding(
  {cause: {name, node, evidence, message, severity}, victims, others}: Group,
  cluster: ClusterState,
): Finding {
  const services = [...new Set(victims.map(({service}) => service.id))].sort()
  const ports = [...new Set(victims.map(({port}) => `${port.port}/${port.protocol}`))]
  return makeFinding(name, {
    node,
    severity,
    services,
    port: services.length === 1 && ports.length === 1 ? ports[0]! : undefined,
    frontends: [...new Set(victims.map(({frontend}) => formatEndpoint(frontend.address, frontend.port)))].sort(),
    origins: [...new Set(victims.map(({origin}) => (origin.kind === 'backend' ? 'pod' : origin.kind)))].sort(),
    message,
    evidence: [...evidence, ...others, promised(victims[0]!, cluster)],
  })
}

/** The other side: what the API promises for the first of the victims. */
function promised({kind, service, port, frontend, promise, endpoint}: Mismatch, cluster: ClusterState): Evidence {
  const text = `${service.id} ${formatEndpoint(frontend.address, frontend.port)}/${port.protocol}: ${promise.outcome} is due (${promise.why})`
  return OF_ENDPOINTS.has(kind)
    ? endpointOf(cluster, service, text, {frontend, endpoint})
    : serviceEvidence(service, text, frontendField(service, port, frontend))
}

/** Differences in the endpoints; all others are about the way to them. */
const OF_ENDPOINTS: ReadonlySet<Mismatch['kind']> = new Set(['wrong-endpoint', 'missing-endpoint', 'skewed'])

/** Lost because a NetworkPolicy says so: explained, no fault. */
function wanted(cluster: ClusterState, mismatch: Mismatch): Cause | undefined {
  const {kind, fate, node} = mismatch
  const isLost = kind === 'fails' || (kind === 'passes' && fate.outcome === 'dropped')
  if (!isLost || fate.onReply || (fate.cause !== 'rule' && fate.cause !== 'policy')) return undefined
  const policies = wantedBy(cluster, mismatch)
  if (policies.length === 0) return undefined
  const names = policies.join(', ')
  return {
    key: `network policy ${endNode(fate, node)} ${names}`,
    name: 'network-policy-denies',
    node: endNode(fate, node),
    evidence: [
      ...evidenceOf(deciding(fate)),
      ...policies.map((policy) => apiEvidence('networkpolicies.json', policy, policy)),
    ],
    message: `NetworkPolicy ${names} leaves this client out of ${mismatch.service.id}, and the node enforces it: ${fate.reason}`,
  }
}

function causeOf(mismatch: Mismatch, scene: Scene): Cause | undefined {
  const {kind} = mismatch
  if (kind === 'unknown') return competing(mismatch)
  const again = kind === 'wrong-endpoint' || kind === 'fails' ? translatedAgain(mismatch) : undefined
  if (again?.foreign) return again.cause
  // an endpoint that is a frontend of another Service: that one's endpoints get it
  if (again && !again.isPod && kind === 'wrong-endpoint') return undefined
  if (kind === 'wrong-endpoint')
    return translated(mismatch.fate)
      ? wrongEndpoint(mismatch, scene, mismatch.fate.receiver ?? mismatch.fate.towards[0]!)
      : notProgrammed(mismatch, scene)
  if (kind === 'missing-endpoint') return missingEndpoint(mismatch, scene)
  if (kind === 'skewed') return skewed(mismatch)
  if (kind === 'client-lost') return clientLost(mismatch, scene)
  if (kind === 'passes') return passes(mismatch, scene)
  return failure(mismatch, scene)
}

function competing({fate, part, node, service}: Mismatch): Cause | undefined {
  const order = part.alternatives.flatMap(({assumptions}) => assumptions).find((text) => /runs before/.test(text))
  if (order === undefined) return undefined
  const shown = part.alternatives.find(({hops}) => hops.some(({kind}) => kind === 'nat')) ?? fate
  return {
    key: `order ${node} ${order.replace(/^if /, '').split(' runs before ').sort().join('|')}`,
    name: 'competing-nat-chains',
    node,
    evidence: chosenBy(shown),
    message: `what happens to ${service.id} depends on the order of two chains: ${order.replace(/^if /, '')}, or the other way round`,
  }
}

function missingEndpoint(mismatch: Mismatch, {states}: Scene): Cause {
  const {fate, endpoint, service, port, node, frontend} = mismatch
  const address = formatEndpoint(endpoint!.address, endpoint!.port)
  if (mismatch.promise.hinted) return hintsNotKept(mismatch)
  const idle = realServer(states.get(node), frontend, endpoint!)
  if (idle)
    return {
      key: `missing ${node} ${service.id} ${port.name}`,
      name: 'endpoint-missing',
      node,
      evidence: [idle],
      message: `${node} sends nothing of ${service.id} to the ready endpoint ${address}: its real server has weight 0`,
    }
  return {
    key: `missing ${node} ${service.id} ${port.name}`,
    name: 'endpoint-missing',
    node,
    evidence: spreadBy(fate, node),
    message: `${node} sends nothing of ${service.id} to the ready endpoint ${address}${endpoint!.pod ? ` (pod ${endpoint!.pod})` : ''}`,
  }
}

/** Other endpoints than the hints name, or not all of them. */
function hintsNotKept({part, service, port, node, promise, fate}: Mismatch): Cause {
  const shares = part.fates
    .filter(({outcome}) => outcome === 'delivered')
    .map(({receiver, share}) => `${formatEndpoint(receiver!.address, receiver!.port)} ${percent(share)}`)
  return {
    key: `hints ${node} ${service.id} ${port.name}`,
    name: 'unequal-shares',
    node,
    evidence: spreadBy(fate, node),
    message: `${node} does not keep to the topology hints of ${service.id}, which name ${promise.endpoints.length} of its endpoints: ${[...new Set(shares)].join(', ')}`,
  }
}

function skewed(mismatch: Mismatch): Cause {
  const {part, service, port, node, promise, fate} = mismatch
  const shares = part.fates
    .filter(({outcome}) => outcome === 'delivered')
    .map(({receiver, share}) => `${formatEndpoint(receiver!.address, receiver!.port)} ${percent(share)}`)
  if (promise.hinted) return hintsNotKept(mismatch)
  return {
    key: `skew ${node} ${service.id} ${port.name}`,
    name: 'unequal-shares',
    node,
    evidence: spreadBy(fate, node),
    message: `${node} spreads ${service.id} unequally over ${promise.endpoints.length} endpoints: ${[...new Set(shares)].join(', ')}`,
  }
}

/** A refusal is due, and the client waits. Where no rule drops the packet, the rule that refuses is not there. */
function silent(mismatch: Mismatch, {wholeNode, wholeKind}: Scene): Cause | undefined {
  const {fate, node, service} = mismatch
  // the rule that refuses, or the one that keeps its answer from the client
  const last = fate.hops.findLast(
    ({kind, evidence}) => evidence !== undefined && (kind === 'rule' || kind === 'policy'),
  )
  if (fate.cause === 'rule' || fate.cause === 'policy') return byRule(mismatch, {name: 'silent-port', hop: last})
  // whatever else loses packets there is told by those that should be delivered
  const place = `${node} ${familyOf(mismatch.frontend.address)}`
  if (fate.cause !== 'untranslated' || wholeNode.has(place)) return undefined
  if (wholeKind.has(placeKey(node, mismatch.frontend))) return undefined
  return {
    key: `silent ${node}`,
    name: 'silent-port',
    node,
    evidence: programming(fate, node),
    message: `nothing on ${node} refuses packets to ${at(mismatch)} of ${service.id}, which has no endpoint: ${fate.reason}`,
  }
}

function passes(mismatch: Mismatch, scene: Scene): Cause | undefined {
  const {promise, service, node, fate, frontend} = mismatch
  if (fate.outcome === 'dropped') return silent(mismatch, scene)
  if (frontend.kind === 'localhost') return undefined
  const entry = letIn(fate, promise.why.includes('loadBalancerSourceRanges'))
  const closed = /^(nodePortAddresses|ipMode) /.exec(promise.why)
  if (closed)
    return {
      key: `closed ${node} ${promise.why}`,
      name: 'policy-not-kept',
      node,
      evidence: entry.length > 0 ? entry : chosenBy(fate),
      message: `${node} leads packets to ${at(mismatch)} to the endpoints of ${service.id}, although ${promise.why}`,
    }
  const name: CodeName = promise.why.includes('loadBalancerSourceRanges')
    ? 'source-range-not-enforced'
    : fate.outcome === 'delivered' && promise.why.includes('Policy')
      ? 'policy-not-kept'
      : 'stale-endpoint'
  const set = name === 'source-range-not-enforced' ? absentEntry(scene.states.get(node), 'firewall', frontend) : []
  return {
    key: `passes ${name} ${node} ${service.id}`,
    name,
    node,
    evidence: set.length > 0 || entry.length > 0 ? [...set, ...entry] : chosenBy(fate),
    message: `${node} lets packets to ${at(mismatch)} of ${service.id} through: ${fate.reason}; expected: ${promise.outcome} (${promise.why})`,
  }
}

/** Promised and not delivered. */
function failure(mismatch: Mismatch, scene: Scene): Cause {
  const {fate} = mismatch
  const node = placeOf(mismatch)
  if (scene.wholeNode.has(`${node} ${familyOf(mismatch.frontend.address)}`) && !translated(fate) && !fate.onReply)
    return notProgrammed(mismatch, scene)
  if ((fate.cause === 'nobody' || fate.cause === 'no-listener') && chosenByStranger(fate)) return hijacked(mismatch)
  const stray = strayed(mismatch)
  if (stray) return wrongEndpoint(mismatch, scene, stray)
  const detour = ledAstray(mismatch, scene)
  if (detour) return detour
  const stranger = markedAsStranger(mismatch)
  if (stranger) return byRule(mismatch, {name: 'source-range-incomplete', hop: stranger})
  if (untracked(fate)) return byRule(mismatch, {name: 'connection-tracking-off', hop: untracked(fate)})
  switch (fate.cause) {
    case 'rule':
      return ruled(mismatch, scene)
    case 'policy':
      if (!fate.onReply && forwardedAsItCame(mismatch)) return notProgrammed(mismatch, scene)
      // kube-proxy accepts what has its mark
      if (leftUnmarked(fate, translator(mismatch))) return unmasqueraded(mismatch, scene)
      return byRule(mismatch, {name: 'forward-policy-drop', hop: deciding(fate)})
    case 'not-forwarded':
      return onNode(mismatch, 'ip-forward-off', {node, scene})
    case 'martian':
      return translated(fate) ? unmasqueraded(mismatch, scene) : onNode(mismatch, 'rp-filter-drops', {node, scene})
    case 'reverse-path':
      return onNode(mismatch, 'rp-filter-drops', {node, scene})
    case 'loopback':
      return onNode(mismatch, 'route-localnet-off', {node, scene})
    case 'route':
    case 'pod-route':
      return (
        addressOff(mismatch, scene) ??
        deviceDown(mismatch, scene, node) ??
        onNode(mismatch, 'pod-route-missing', {node, scene})
      )
    case 'device':
      return onNode(mismatch, 'device-down', {node, scene})
    case 'tunnel':
      return inTunnel(mismatch, node)
    case 'hairpin-mode':
      return onNode(mismatch, 'hairpin-mode-off', {node, scene})
    case 'bridge-nf':
      return onNode(mismatch, 'bridge-nf-off', {node, scene})
    case 'bypass':
    case 'hairpin':
    case 'not-masqueraded':
      return unmasqueraded(mismatch, scene)
    case 'no-real-server':
      return perService(mismatch, 'no-endpoints-programmed', node)
    case 'nobody':
      if (fate.onReply) return answersAstray(mismatch)
      if (isPromised(mismatch)) return unowned(mismatch, node)
      return perService(mismatch, 'stale-endpoint', translator(mismatch))
    case 'untranslated':
    case 'no-listener':
      return notProgrammed(mismatch, scene)
    default:
      return perService(mismatch, 'endpoint-unreachable', node)
  }
}

/** One for each node that a node's tunnel does not know. */
function inTunnel({fate}: Mismatch, node: string): Cause {
  return {
    key: `tunnel ${fate.reason}`,
    name: 'tunnel-entry-missing',
    node,
    evidence: evidenceOf(fate.hops.findLast(({kind}) => kind === 'end')),
    message: fate.reason,
  }
}

/** Ends of packets that were not translated, or not masqueraded. */
const NEEDS_TRACKING: ReadonlySet<Fate['cause']> = new Set([
  'untranslated',
  'no-listener',
  'bypass',
  'rule',
  'hairpin',
  'not-masqueraded',
  'martian',
])

/** The NOTRACK on the way, if it is why nothing was translated. */
function untracked({hops, cause}: Fate): Hop | undefined {
  if (!NEEDS_TRACKING.has(cause)) return undefined
  return hops.find(
    ({kind, evidence}) => kind === 'rule' && /--notrack|-j NOTRACK|\bnotrack\b/.test(evidence?.text ?? ''),
  )
}

/** kube-proxy's own words for «no endpoints» on a rule that should not be there. */
const STALE_REJECT = /has no (local )?endpoints|no-endpoint-(services|nodeports)/

/** Where it ends what has no endpoint on the node: only a missing short circuit leads there what may use all of them. */
const OWN_NO_ENDPOINTS =
  /\/KUBE-(EXTERNAL-)?SERVICES#|\/(service|nodeport)-endpoints-check#|\/@no-endpoint-(services|nodeports)/

/** Where kube-proxy drops clients outside loadBalancerSourceRanges, in each of its layouts. */
const SOURCE_RANGES =
  /\/(KUBE-PROXY-FIREWALL|KUBE-SOURCE-RANGES-FIREWALL|KUBE-FW-\w+|KUBE-LOAD-BALANCER-FW|firewall-.*)#\d+$/

/** Before 1.25 nat marks those clients, and another table drops them or nothing translates them. */
const MARKS_STRANGERS = /-A KUBE-(FW-\w+|FIREWALL) .*-j KUBE-MARK-DROP/

const markedAsStranger = ({frontend, fate, service}: Mismatch): Hop | undefined =>
  frontend.kind === 'loadBalancerIP' && !translated(fate) && service.sourceRanges.length > 0 && !passedRanges(fate)
    ? fate.hops.find(({reply, evidence}) => !reply && MARKS_STRANGERS.test(evidence?.text ?? ''))
    : undefined

/** Iptables mode asks for the ranges in a chain of the Service (KUBE-FW-…): a rule of it let the packet on, or it was never called. */
function passedRanges({hops}: Fate): boolean {
  const texts = hops.flatMap(({reply, evidence}) => (reply || !evidence ? [] : [evidence.text]))
  return texts.some((text) => /-A KUBE-FW-\w+ .*-j KUBE-(EXT|SVC|SVL|XLB)-/.test(text))
}

const neverAskedRanges = ({hops}: Fate, hop: Hop | undefined): boolean =>
  /\/KUBE-PROXY-FIREWALL#/.test(hop?.where ?? '') &&
  !hops.some(({reply, evidence}) => !reply && /-j KUBE-FW-/.test(evidence?.text ?? ''))

function ruled(mismatch: Mismatch, scene: Scene): Cause {
  const hop = deciding(mismatch.fate)
  const isRange = mismatch.frontend.kind === 'loadBalancerIP' && SOURCE_RANGES.test(hop?.where ?? '')
  if (isRange && !translated(mismatch.fate) && (passedRanges(mismatch.fate) || neverAskedRanges(mismatch.fate, hop)))
    return notProgrammed(mismatch, scene)
  if (isRange) {
    const {frontend, service} = mismatch
    const cause = byRule(mismatch, {name: 'source-range-incomplete', hop})
    const set = absentRange(scene.states.get(cause.node), frontend, service.sourceRanges)
    return {...cause, evidence: [...set, ...cause.evidence]}
  }
  if (hop && !translated(mismatch.fate)) {
    const where = hop.where ?? ''
    if (isOwnRefusal(hop) || (mismatch.promise.shortCircuit && OWN_NO_ENDPOINTS.test(where)))
      return notProgrammed(mismatch, scene)
  }
  const stale = mismatch.fate.hops.find(
    ({evidence, reply}) =>
      !reply &&
      ((STALE_REJECT.test(evidence?.text ?? '') && evidence === hop?.evidence) ||
        (/ : goto reject-chain$/.test(evidence?.text ?? '') && / kube-proxy\/reject-chain#/.test(hop?.where ?? ''))),
  )
  if (!stale) return byRule(mismatch, {name: 'packet-dropped-by-rule', hop})
  // one rule refuses the cluster IP, another the NodePort: what kube-proxy believes of the Service is one thing
  const cause = byRule(mismatch, {name: 'no-endpoints-programmed', hop: stale})
  return {...cause, key: `refused ${cause.node} ${mismatch.service.id}`}
}

function byRule({fate, node}: Mismatch, {name, hop}: {name: CodeName; hop: Hop | undefined}): Cause {
  const where = hop?.node ?? node
  return {
    key: `${name} ${where} ${hop?.evidence?.source}:${hop?.evidence?.line} ${hop?.where}`,
    name,
    node: where,
    evidence: evidenceOf(hop),
    message: fate.reason,
  }
}

/** Endpoints of the API at which nobody is: one finding for the node that sends there. */
const unowned = ({fate}: Mismatch, node: string): Cause => ({
  key: `unowned ${node}`,
  name: 'endpoint-unreachable',
  node,
  evidence: chosenBy(fate),
  message: fate.reason,
})

function onNode({fate, frontend}: Mismatch, name: CodeName, {node, scene}: {node: string; scene: Scene}): Cause {
  const state = scene.states.get(node)
  return {
    key: `${name} ${node}`,
    name,
    node,
    evidence: settingBehind(name, {state, fate, family: familyOf(frontend.address)}) ?? evidenceOf(deciding(fate)),
    message: fate.reason,
  }
}

/** The kernel takes the routes of a device away with it: the one that had the network of the endpoint, or of its node. */
function deviceDown(
  {fate, promise, service, from}: Mismatch,
  {states, cluster}: Scene,
  node: string,
): Cause | undefined {
  const state = states.get(node)
  if (!state) return undefined
  const [target] = fate.towards
  const home = promise.endpoints.find(({address}) => address === target?.address)?.node
  // of the endpoint's node, and of the own one: without that there is no way out at all
  const ofNodes = cluster.nodes.filter(({name}) => name === home || name === node)
  const pod = from.kind === 'pod' ? cluster.pods?.find(({id}) => id === from.pod) : undefined
  const texts = [...ofNodes.flatMap(({addresses}) => addresses.map(({address}) => address)), ...(pod?.ips ?? [])]
  const wanted = [...(target ? [target.address] : []), ...texts.flatMap((text) => parseAddress(text) ?? [])]
  const down = state.links.find(
    ({name, up}) =>
      !up &&
      state.addresses.some(
        ({device, address, length}) =>
          device === name && wanted.some((one) => inRange(one, prefixRange(address, length))),
      ),
  )
  if (!down) return undefined
  return {
    key: `device-down ${state.name} ${down.name}`,
    name: 'device-down',
    node: state.name,
    evidence: [{source: state.ipPath('ip-link'), line: 0, text: `${down.name} is down`}],
    message: `device ${down.name} of ${state.name} is down, and its routes are gone: ${fate.reason} (${service.id})`,
  }
}

/** The sysctl or the routes that decide, where no rule does. */
function settingBehind(
  name: CodeName,
  {state, fate, family}: {state: NodeState | undefined; fate: Fate; family: 4 | 6},
): Evidence[] | undefined {
  if (name === 'route-localnet-off') return sysctlLine(state, 'net.ipv4.conf.all.route_localnet')
  if (name === 'bridge-nf-off') return sysctlLine(state, `net.bridge.bridge-nf-call-ip${family === 6 ? '6' : ''}tables`)
  if (name === 'pod-route-missing') return routeLine(state, family, fate.reason)
  const down = name === 'device-down' ? /^device (\S+) of \S+ is down/.exec(fate.reason)?.[1] : undefined
  if (down !== undefined && state) return [{source: state.ipPath('ip-link'), line: 0, text: `${down} is down`}]
  const device = /^rp_filter=\d on (\S+)/.exec(fate.reason)?.[1]
  if (name !== 'rp-filter-drops' || device === undefined || !state) return undefined
  const names = ['all', device].map((of) => `net.ipv4.conf.${of}.rp_filter`)
  return sysctlLine(
    state,
    names.reduce((a, b) => (Number(state.sysctl(b) ?? 0) > Number(state.sysctl(a) ?? 0) ? b : a)),
  )
}

/** Lost on the way to an endpoint that the API itself names: the API is behind the truth, not the node. */
const isPromised = ({fate, promise}: Mismatch): boolean =>
  fate.towards.some((place) => promise.endpoints.some(({address}) => address === place.address))
