import type {ClusterState} from '../model/kube.js'
import type {Evidence, Fate, Hop} from '../model/trace.js'
import {formatAddress, formatEndpoint} from '../util/ip.js'
import type {CodeName} from './codes.js'
import type {Comparison, Mismatch} from './compare.js'
import {makeFinding, type Finding} from './finding.js'
import {wantedBy} from './policy.js'

/** What a mismatch comes from: mismatches with the same key are one finding. */
interface Cause {
  readonly key: string
  readonly name: CodeName
  readonly node: string
  readonly evidence: readonly Evidence[]
  readonly message: string
}

/** Turns mismatches into findings: one per node and cause, with all victims. */
export function findingsOf(cluster: ClusterState, comparison: Comparison): Finding[] {
  const groups = new Map<string, {cause: Cause; victims: Mismatch[]}>()
  const entries = missingEntries(comparison)
  for (const mismatch of comparison.mismatches) {
    if (mismatch.kind === 'missing-endpoint' && replaced(mismatch, comparison)) continue
    const cause = wanted(cluster, mismatch) ?? causeOf(mismatch, entries)
    if (!cause) continue
    const known = groups.get(cause.key)
    if (known) known.victims.push(mismatch)
    else groups.set(cause.key, {cause, victims: [mismatch]})
  }
  return [...groups.values()].map(({cause, victims}) => toFinding(cause, victims))
}

/** An endpoint that lost its place to a wrong one is told with that one. */
const replaced = ({service, node}: Mismatch, {mismatches}: Comparison): boolean =>
  mismatches.some(
    (other) =>
      other.service === service &&
      other.node === node &&
      (other.kind === 'wrong-endpoint' || (other.kind === 'fails' && other.fate.cause === 'nobody')),
  )

function toFinding({name, node, evidence, message}: Cause, victims: readonly Mismatch[]): Finding {
  const services = [...new Set(victims.map(({service}) => service.id))].sort()
  const ports = [...new Set(victims.map(({port}) => `${port.port}/${port.protocol}`))]
  return makeFinding(name, {
    node,
    services,
    port: services.length === 1 && ports.length === 1 ? ports[0]! : undefined,
    frontends: [...new Set(victims.map(({frontend}) => formatEndpoint(frontend.address, frontend.port)))].sort(),
    origins: [...new Set(victims.map(({origin}) => (origin.kind === 'backend' ? 'pod' : origin.kind)))].sort(),
    message,
    evidence,
  })
}

/** Nodes on which nothing (of a kind) works. */
interface MissingEntries {
  /** `node service`: nothing of the Service is programmed there. */
  readonly wholeService: ReadonlySet<string>
  readonly wholeNode: ReadonlySet<string>
  readonly wholeKind: ReadonlySet<string>
}

const isMissingEntry = ({kind, fate}: Mismatch): boolean =>
  kind === 'fails' &&
  !fate.onReply &&
  (fate.cause === 'untranslated' ||
    fate.cause === 'no-listener' ||
    (fate.cause === 'rule' && OWN_REFUSAL.test(deciding(fate)?.where ?? '')))

function missingEntries({mismatches, expected}: Comparison): MissingEntries {
  const missing = new Map<string, Set<string>>()
  for (const mismatch of mismatches) {
    if (!isMissingEntry(mismatch) || translated(mismatch.fate)) continue
    const key = `${placeOf(mismatch)} ${mismatch.frontend.kind}`
    const known = missing.get(key) ?? new Set()
    missing.set(key, known.add(mismatch.service.id))
  }
  const wholeKind = new Set(
    [...missing]
      .filter(([key, services]) => services.size > 1 && services.size === expected.get(key)?.size)
      .map(([key]) => key),
  )
  const nodes = new Set([...expected.keys()].map((key) => key.split(' ')[0]!))
  const wholeNode = new Set(
    [...nodes].filter((node) => {
      const kinds = [`${node} clusterIP`, `${node} nodePort`].filter((key) => expected.has(key))
      const dead = (key: string): boolean => expected.get(key)!.size === (missing.get(key)?.size ?? 0)
      return kinds.some((key) => wholeKind.has(key)) && kinds.every(dead)
    }),
  )
  return {wholeNode, wholeKind, wholeService: wholeServices(missing, expected)}
}

/** Services all of whose kinds of frontends (two at least) are missing on a node. */
function wholeServices(
  missing: ReadonlyMap<string, ReadonlySet<string>>,
  expected: Comparison['expected'],
): Set<string> {
  const counts = new Map<string, {wanted: number; lost: number}>()
  for (const [key, services] of expected) {
    for (const service of services) {
      const id = `${key.split(' ')[0]!} ${service}`
      const count = counts.get(id) ?? {wanted: 0, lost: 0}
      counts.set(id, {wanted: count.wanted + 1, lost: count.lost + (missing.get(key)?.has(service) ? 1 : 0)})
    }
  }
  return new Set([...counts].filter(([, {wanted, lost}]) => wanted > 1 && wanted === lost).map(([id]) => id))
}

const translated = ({hops}: Fate): boolean =>
  hops.some(({kind, reply, what}) => !reply && (kind === 'ipvs' || (kind === 'nat' && /^(DNAT|REDIRECT)/.test(what))))

/** The node where a fate ended. */
const endNode = ({hops}: Fate, fallback: string): string => hops.at(-1)?.node ?? fallback
const placeOf = ({fate, node}: Mismatch): string => endNode(fate, node)

/** The node that translated, else the one that should have. */
function translator({fate, node}: Mismatch): string {
  return (
    fate.hops.find(
      ({kind, what, reply}) => !reply && (kind === 'ipvs' || (kind === 'nat' && /^(DNAT|REDIRECT)/.test(what))),
    )?.node ?? node
  )
}

const evidenceOf = (hop: Hop | undefined): Evidence[] => (hop?.evidence ? [hop.evidence] : [])

/** The last step with a line behind it, of those that can decide. */
function deciding(fate: Fate): Hop | undefined {
  return fate.hops.findLast(
    ({kind, evidence, reply}) =>
      evidence !== undefined &&
      reply === fate.onReply &&
      (kind === 'rule' || kind === 'policy' || kind === 'ipvs' || kind === 'end'),
  )
}

/** The last line before the packet was (or was not) translated. */
function programming(fate: Fate, node: string): Evidence[] {
  const there = fate.hops.filter((hop) => hop.node === node && !hop.reply && hop.evidence !== undefined)
  const before = there.findLast(({hook, kind}) => kind === 'ipvs' || hook === 'PREROUTING' || hook === 'OUTPUT')
  return evidenceOf(before ?? there.at(-1))
}

/** Lost because a NetworkPolicy says so: explained, no fault. */
function wanted(cluster: ClusterState, mismatch: Mismatch): Cause | undefined {
  const {kind, fate, node} = mismatch
  if (kind !== 'fails' || fate.onReply || (fate.cause !== 'rule' && fate.cause !== 'policy')) return undefined
  const policies = wantedBy(cluster, mismatch)
  if (policies.length === 0) return undefined
  const names = policies.join(', ')
  return {
    key: `network policy ${node} ${names}`,
    name: 'network-policy-denies',
    node: endNode(fate, node),
    evidence: evidenceOf(deciding(fate)),
    message: `NetworkPolicy ${names} leaves this client out of ${mismatch.service.id}, and the node enforces it: ${fate.reason}`,
  }
}

function causeOf(mismatch: Mismatch, entries: MissingEntries): Cause | undefined {
  const {kind} = mismatch
  if (kind === 'unknown') return competing(mismatch)
  if (kind === 'wrong-endpoint')
    return translated(mismatch.fate) ? wrongEndpoint(mismatch) : notProgrammed(mismatch, entries)
  if (kind === 'missing-endpoint') return missingEndpoint(mismatch)
  if (kind === 'skewed') return skewed(mismatch)
  if (kind === 'client-lost') return clientLost(mismatch)
  if (kind === 'passes') return passes(mismatch)
  return failure(mismatch, entries)
}

const at = ({frontend}: Mismatch): string => formatEndpoint(frontend.address, frontend.port)

function competing({fate, part, node, service}: Mismatch): Cause | undefined {
  const order = part.alternatives.flatMap(({assumptions}) => assumptions).find((text) => /runs before/.test(text))
  if (order === undefined) return undefined
  const shown = part.alternatives.find(({hops}) => hops.some(({kind}) => kind === 'nat')) ?? fate
  return {
    key: `order ${node} ${order.replace(/^if /, '').split(' runs before ').sort().join('|')}`,
    name: 'competing-nat-chains',
    node,
    evidence: natRule(shown),
    message: `what happens to ${service.id} depends on the order of two chains: ${order.replace(/^if /, '')}, or the other way round`,
  }
}

function natRule({hops}: Fate): Evidence[] {
  const nat = hops.findIndex(({kind}) => kind === 'nat')
  return evidenceOf(hops.slice(0, nat < 0 ? undefined : nat).findLast(({evidence}) => evidence !== undefined))
}

/** Delivered to a stranger: an endpoint that is none any more, or a rule that leads elsewhere. */
function wrongEndpoint(mismatch: Mismatch): Cause {
  const {fate, service, promise} = mismatch
  const node = translator(mismatch)
  const evidence = natRule(fate)
  const receiver = formatEndpoint(fate.receiver!.address, fate.receiver!.port)
  const sameHost = promise.endpoints.some(({address}) => address === fate.receiver!.address)
  const foreign = fate.share > 0.999 && !sameHost
  const text = evidence[0]?.text ?? ''
  const who = fate.receiver!.pod ? ` (pod ${fate.receiver!.pod})` : ''
  return foreign
    ? {
        key: `hijack ${node} ${evidence[0]?.source}:${evidence[0]?.line}`,
        name: 'traffic-hijacked',
        node,
        evidence,
        message: `on ${node} packets to ${at(mismatch)} of ${service.id} go to ${receiver}${who}, which is no endpoint of it`,
      }
    : {
        key: `stale ${node} ${service.id} ${receiver} ${text}`,
        name: 'stale-endpoint',
        node,
        evidence,
        message: `${node} sends ${percent(fate.share)} of ${service.id} to ${receiver}${who}, which is no endpoint of it`,
      }
}

function missingEndpoint(mismatch: Mismatch): Cause {
  const {fate, endpoint, service, port, node} = mismatch
  const address = formatEndpoint(endpoint!.address, endpoint!.port)
  return {
    key: `missing ${node} ${service.id} ${port.name}`,
    name: 'endpoint-missing',
    node,
    evidence: programming(fate, node),
    message: `${node} sends nothing of ${service.id} to the ready endpoint ${address}${endpoint!.pod ? ` (pod ${endpoint!.pod})` : ''}`,
  }
}

function skewed(mismatch: Mismatch): Cause {
  const {part, service, port, node, promise, fate} = mismatch
  const shares = part.fates
    .filter(({outcome}) => outcome === 'delivered')
    .map(({receiver, share}) => `${formatEndpoint(receiver!.address, receiver!.port)} ${percent(share)}`)
  return {
    key: `skew ${node} ${service.id} ${port.name}`,
    name: 'unequal-shares',
    node,
    evidence: programming(fate, node),
    message: `${node} spreads ${service.id} unequally over ${promise.endpoints.length} endpoints: ${[...new Set(shares)].join(', ')}`,
  }
}

function clientLost(mismatch: Mismatch): Cause {
  const {service, node, fate} = mismatch
  const hop = fate.hops.findLast(({kind, what}) => kind === 'nat' && /^(MASQUERADE|SNAT)/.test(what))
  const index = hop ? fate.hops.indexOf(hop) : -1
  const rule = fate.hops.slice(0, index).findLast(({evidence}) => evidence !== undefined)
  return {
    key: `client ${hop?.node ?? node} ${rule?.evidence?.source}:${rule?.evidence?.line}`,
    name: 'client-address-lost',
    node: hop?.node ?? node,
    evidence: evidenceOf(rule),
    message: `endpoints of ${service.id} see a node's address instead of the client's although externalTrafficPolicy is Local`,
  }
}

function passes(mismatch: Mismatch): Cause | undefined {
  const {promise, service, node, fate, frontend} = mismatch
  if (frontend.kind === 'localhost')
    return fate.outcome === 'dropped' ? byRule(mismatch, {name: 'silent-port', hop: deciding(fate)}) : undefined
  const name: CodeName = promise.why.includes('loadBalancerSourceRanges')
    ? 'source-range-not-enforced'
    : fate.outcome === 'delivered' && promise.why.includes('Policy')
      ? 'policy-not-kept'
      : 'stale-endpoint'
  return {
    key: `passes ${name} ${node} ${service.id}`,
    name,
    node,
    evidence: natRule(fate),
    message: `${node} lets packets to ${at(mismatch)} of ${service.id} through: ${fate.reason}; expected: ${promise.outcome} (${promise.why})`,
  }
}

/** Promised and not delivered. */
function failure(mismatch: Mismatch, entries: MissingEntries): Cause {
  const {fate} = mismatch
  const node = placeOf(mismatch)
  if (entries.wholeNode.has(node) && !translated(fate) && !fate.onReply) return notProgrammed(mismatch, entries)
  if (untracked(fate)) return byRule(mismatch, {name: 'connection-tracking-off', hop: untracked(fate)})
  switch (fate.cause) {
    case 'rule':
      return ruled(mismatch, entries)
    case 'policy':
      return byRule(mismatch, {name: 'forward-policy-drop', hop: deciding(fate)})
    case 'not-forwarded':
      return onNode(mismatch, 'ip-forward-off', node)
    case 'martian':
      return translated(fate) ? unmasqueraded(mismatch) : onNode(mismatch, 'rp-filter-drops', node)
    case 'reverse-path':
      return onNode(mismatch, 'rp-filter-drops', node)
    case 'loopback':
      return onNode(mismatch, 'route-localnet-off', node)
    case 'route':
    case 'pod-route':
      return onNode(mismatch, 'pod-route-missing', node)
    case 'device':
      return onNode(mismatch, 'device-down', node)
    case 'hairpin-mode':
      return onNode(mismatch, 'hairpin-mode-off', node)
    case 'bridge-nf':
      return onNode(mismatch, 'bridge-nf-off', node)
    case 'bypass':
    case 'hairpin':
    case 'not-masqueraded':
      return unmasqueraded(mismatch)
    case 'no-real-server':
      return perService(mismatch, 'no-endpoints-programmed', node)
    case 'nobody':
      if (isPromised(mismatch)) return {...onNode(mismatch, 'endpoint-unreachable', node), key: `unowned ${node}`}
      return perService(mismatch, 'stale-endpoint', translator(mismatch))
    case 'untranslated':
    case 'no-listener':
      return notProgrammed(mismatch, entries)
    default:
      return perService(mismatch, 'endpoint-unreachable', node)
  }
}

/** The NOTRACK on the way, if it is why nothing was translated. */
function untracked({hops, cause}: Fate): Hop | undefined {
  if (cause !== 'untranslated' && cause !== 'no-listener' && cause !== 'bypass' && cause !== 'rule') return undefined
  return hops.find(
    ({kind, evidence}) => kind === 'rule' && /--notrack|-j NOTRACK|\bnotrack\b/.test(evidence?.text ?? ''),
  )
}

/** kube-proxy's own words for «no endpoints» on a rule that should not be there. */
const STALE_REJECT = /has no (local )?endpoints|no-endpoint-(services|nodeports)/

/** Where kube-proxy itself refuses what it has no entry for. */
const OWN_REFUSAL = / kube-proxy\/cluster-ips-check#|\/KUBE-(IPVS-FILTER|FIREWALL)#/

/** Where kube-proxy drops clients outside loadBalancerSourceRanges, in each of its layouts. */
const SOURCE_RANGES =
  /\/(KUBE-PROXY-FIREWALL|KUBE-SOURCE-RANGES-FIREWALL|KUBE-FW-\w+|KUBE-LOAD-BALANCER-FW|firewall-.*)#\d+$/

function ruled(mismatch: Mismatch, entries: MissingEntries): Cause {
  const hop = deciding(mismatch.fate)
  if (mismatch.frontend.kind === 'loadBalancerIP' && SOURCE_RANGES.test(hop?.where ?? ''))
    return byRule(mismatch, {name: 'source-range-incomplete', hop})
  if (hop && OWN_REFUSAL.test(hop.where ?? '') && !translated(mismatch.fate)) return notProgrammed(mismatch, entries)
  const stale = mismatch.fate.hops.some(
    ({evidence, reply}) => !reply && STALE_REJECT.test(evidence?.text ?? '') && evidence === hop?.evidence,
  )
  return byRule(mismatch, {name: stale ? 'no-endpoints-programmed' : 'packet-dropped-by-rule', hop})
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

function onNode({fate}: Mismatch, name: CodeName, node: string): Cause {
  return {key: `${name} ${node}`, name, node, evidence: evidenceOf(deciding(fate)), message: fate.reason}
}

function unmasqueraded(mismatch: Mismatch): Cause {
  const node = translator(mismatch)
  return {
    key: `masquerade ${node}`,
    name: 'masquerade-missing',
    node,
    evidence: lastBefore(mismatch.fate, node),
    message: `${node} does not masquerade packets that need it: ${mismatch.fate.reason}`,
  }
}

/** The last rule of POSTROUTING that the packet met at the translating node, else the last rule at all. */
function lastBefore({hops}: Fate, node: string): Evidence[] {
  const own = hops.filter((hop) => hop.node === node && !hop.reply && hop.evidence !== undefined)
  return evidenceOf(own.findLast(({hook}) => hook === 'POSTROUTING') ?? own.at(-1))
}

/** Lost on the way to an endpoint that the API itself names: the API is behind the truth, not the node. */
const isPromised = ({fate, promise}: Mismatch): boolean =>
  promise.endpoints.some(
    ({address}) =>
      fate.reason.includes(`${formatAddress(address)}:`) || fate.reason.includes(`${formatAddress(address)} `),
  )

function perService(mismatch: Mismatch, name: CodeName, node: string): Cause {
  const {service, fate} = mismatch
  const evidence = name === 'stale-endpoint' ? natRule(fate) : programming(fate, node)
  return {key: `${name} ${node} ${service.id} ${fate.reason}`, name, node, evidence, message: fate.reason}
}

const KIND_NAME: Readonly<Record<Mismatch['frontend']['kind'], CodeName>> = {
  clusterIP: 'cluster-ip-not-programmed',
  nodePort: 'node-port-not-programmed',
  localhost: 'node-port-not-programmed',
  externalIP: 'external-ip-not-programmed',
  loadBalancerIP: 'external-ip-not-programmed',
}

function notProgrammed(mismatch: Mismatch, {wholeNode, wholeKind, wholeService}: MissingEntries): Cause {
  const {fate, frontend, service} = mismatch
  const node = placeOf(mismatch)
  const evidence = programming(fate, node)
  if (translated(fate))
    return perService(
      mismatch,
      frontend.kind === 'nodePort' && fate.cause === 'no-listener' ? 'endpoint-unreachable' : 'stale-endpoint',
      node,
    )
  if (wholeNode.has(node))
    return {
      key: `node ${node}`,
      name: 'node-not-programmed',
      node,
      evidence,
      message: `no Service works on ${node}: packets leave it untranslated`,
    }
  const addresses = frontend.kind === 'externalIP' || frontend.kind === 'loadBalancerIP'
  const kind =
    addresses && wholeKind.has(`${node} clusterIP`)
      ? 'clusterIP'
      : frontend.kind === 'localhost'
        ? 'nodePort'
        : frontend.kind
  const name = KIND_NAME[kind]
  if (wholeKind.has(`${node} ${kind}`))
    return {
      key: `kind ${node} ${name}`,
      name,
      node,
      evidence,
      message: `no ${kind} works on ${node}: ${fate.reason}`,
    }
  if (wholeService.has(`${node} ${service.id}`) && !calledChain(fate, node))
    return {
      key: `service ${node} ${service.id}`,
      name: 'service-not-programmed',
      node,
      evidence,
      message: `nothing of ${service.id} is programmed on ${node}: ${fate.reason}`,
    }
  const called = calledChain(fate, node)
  if (called)
    return {
      key: `empty ${node} ${service.id}`,
      name: 'no-endpoints-programmed',
      node,
      evidence: evidenceOf(called),
      message: `${node} knows ${service.id}, but the rules lead to no endpoint: ${fate.reason}`,
    }
  return {
    key: `entry ${name} ${node} ${service.id}`,
    name,
    node,
    evidence,
    message: `${at(mismatch)} of ${service.id} is not programmed on ${node}: ${fate.reason}`,
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

const percent = (share: number): string => `${Math.round(share * 1000) / 10} %`
