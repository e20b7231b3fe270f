import type {Fate, Hop} from '../model/trace.js'
import {absentEntry} from './absent.js'
import type {Cause} from './cause.js'
import type {Mismatch} from './compare.js'
import type {Scene} from './missing.js'
import {evidenceOf} from './proof.js'
import {isSourceNat} from './hops.js'

/** What gives packets another source than the client's. */

/** Rules of kube-proxy that masquerade what does not come from the node's own pods. */
const MASQUERADES_STRANGERS = /(! -s |! -i |saddr != |iifname != ).*(KUBE-MARK-MASQ|mark-for-masquerade|meta mark set)/

/** The endpoint sees another address than the client's, though the promise keeps it. */
export function clientLost(mismatch: Mismatch, {states}: Scene): Cause | undefined {
  const {service, node, fate, origin, frontend} = mismatch
  if (origin.kind !== 'external') return takenForStranger(mismatch)
  const hop = fate.hops.findLast(isSourceNat)
  const index = hop ? fate.hops.indexOf(hop) : -1
  const before = fate.hops.slice(0, Math.max(index, 0))
  const rule = markedBy(before, hop?.node) ?? before.findLast(({evidence}) => evidence !== undefined)
  return {
    key: `client ${hop?.node ?? node} ${rule?.evidence?.source}:${rule?.evidence?.line}`,
    name: 'client-address-lost',
    node: hop?.node ?? node,
    evidence: [...absentEntry(states.get(hop?.node ?? node), 'local', frontend), ...evidenceOf(rule)],
    message: `endpoints of ${service.id} see a node's address instead of the client's although externalTrafficPolicy is Local`,
  }
}

/** The rule that marked the packet for masquerade, or that led it to the chain which does; undefined where no mark decides. */
function markedBy(hops: readonly Hop[], node: string | undefined): Hop | undefined {
  const at = hops.findLastIndex((hop) => hop.node === node && !hop.reply && hop.mark !== undefined && hop.mark !== 0)
  if (at < 0) return undefined
  return hops
    .slice(0, at)
    .findLast(
      ({evidence, where}) => evidence !== undefined && !/\/(KUBE-MARK-MASQ|mark-for-masquerade)#/.test(where ?? ''),
    )
}

/** A pod's address that a rule for strangers hides: kube-proxy does not know its own pods (a wrong --cluster-cidr). */
function takenForStranger(mismatch: Mismatch): Cause | undefined {
  const {fate, service, node, from} = mismatch
  const rule = fate.hops.find(({evidence, reply}) => !reply && MASQUERADES_STRANGERS.test(evidence?.text ?? ''))
  if (from.kind !== 'pod') return undefined
  if (!rule) return maskedPod(mismatch, from.pod)
  return {
    key: `client ${rule.node} ${node}`,
    name: 'client-address-lost',
    node: rule.node,
    evidence: evidenceOf(rule),
    message: `kube-proxy on ${rule.node} takes its own pods for strangers (--cluster-cidr, --detect-local-mode): the endpoints of ${service.id} see a node's address instead of ${from.pod}'s`,
  }
}

/** A step that gives the packet another source, and the rule behind it. */
function sourceChange({hops}: Fate, step: Hop | undefined): {where?: string; rule?: Hop} {
  if (!step) return {}
  const rule = hops.slice(0, hops.indexOf(step)).findLast(({evidence}) => evidence !== undefined)
  return {where: step.node, ...(rule ? {rule} : {})}
}

/** A rule that is not kube-proxy's: some network plugins want it so (ipMasq of the bridge plugin), policies by address do not. */
function maskedPod({fate, service, node}: Mismatch, pod: string): Cause {
  const {where = node, rule} = sourceChange(fate, fate.hops.find(isSourceNat))
  return {
    key: `client of pods ${where} ${rule?.evidence?.source}:${rule?.evidence?.line}`,
    name: 'client-address-lost',
    node: where,
    severity: 'info',
    evidence: evidenceOf(rule),
    message: `endpoints of ${service.id} see a node's address instead of ${pod}'s: ${where} masquerades what pods send each other`,
  }
}

/** The source was last changed to an address that nobody has: the answer goes there. */
export function answersAstray({fate, service, node}: Mismatch): Cause {
  const {where = node, rule} = sourceChange(fate, fate.hops.findLast(isSourceNat))
  return {
    key: `answers ${where} ${rule?.evidence?.source}:${rule?.evidence?.line}`,
    name: 'traffic-hijacked',
    node: where,
    evidence: evidenceOf(rule),
    message: `answers of ${service.id} go astray: ${where} gives its packets a source that nobody answers to: ${fate.reason}`,
  }
}
