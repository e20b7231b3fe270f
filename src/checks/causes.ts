import type {ClusterState} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import {familyOf, formatEndpoint} from '../util/ip.js'
import {absentEntry} from './absent.js'
import {apiEvidence, endpointOf, frontendField, serviceEvidence} from './api-evidence.js'
import {otherOwners} from './claims.js'
import type {CodeName} from './codes.js'
import {endpointsOf} from '../intent/endpoints.js'
import {sourceRanges} from '../intent/frontends.js'
import {placeKey, type Comparison, type Mismatch} from './compare.js'
import {makeFinding, type Finding} from './finding.js'
import type {NodeState} from '../snapshot/node-state.js'
import {at, byRule, endNode, percent, translated, type Cause} from './cause.js'
import {failure, SOURCE_RANGES} from './failure.js'
import {missingEntries, notProgrammed, type Scene} from './missing.js'
import {translatedAgain, wrongEndpoint} from './misled.js'
import {wantedBy} from './policy.js'
import {clientLost} from './sources.js'
import {chosenBy, deciding, evidenceOf, letIn, programming, realServer, spreadBy} from './proof.js'

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
  /** Evidence of further lines with the same cause: one for each stale endpoint of a Service. */
  readonly others: Evidence[]
}

/** At most so many further lines are shown. */
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

/** A missing endpoint whose place a wrong one has: the finding about that one covers both. */
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
  const text = `${service.id} ${formatEndpoint(frontend.address, frontend.port)}/${port.protocol}: expected: ${promise.outcome} (${promise.why})`
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
  if (mismatch.promise.hinted) return skewed(mismatch)
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

/** Shares other than equal ones among the endpoints, or among those that the hints name. */
function skewed({part, service, port, node, promise, fate}: Mismatch): Cause {
  const shares = part.fates
    .filter(({outcome}) => outcome === 'delivered')
    .map(({receiver, share}) => `${formatEndpoint(receiver!.address, receiver!.port)} ${percent(share)}`)
  const what = promise.hinted
    ? `does not keep to the topology hints of ${service.id}, which name ${promise.endpoints.length} of its endpoints`
    : `spreads ${service.id} unequally over ${promise.endpoints.length} endpoints`
  return {
    key: `${promise.hinted ? 'hints' : 'skew'} ${node} ${service.id} ${port.name}`,
    name: 'unequal-shares',
    node,
    evidence: spreadBy(fate, node),
    message: `${node} ${what}: ${[...new Set(shares)].join(', ')}`,
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
  const entry = letIn(fate, promise.rule === 'source ranges')
  if (promise.rule === 'closed address')
    return {
      key: `closed ${node} ${promise.why}`,
      name: 'policy-not-kept',
      node,
      evidence: entry.length > 0 ? entry : chosenBy(fate),
      message: `${node} leads packets to ${at(mismatch)} to the endpoints of ${service.id}, although ${promise.why}`,
    }
  const name: CodeName =
    promise.rule === 'source ranges'
      ? 'source-range-not-enforced'
      : fate.outcome === 'delivered' && promise.rule !== undefined
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
