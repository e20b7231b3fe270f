import type {Evidence, Fate, Hop} from '../model/trace.js'
import {formatEndpoint} from '../util/ip.js'
import type {CodeName} from './codes.js'
import type {Severity} from './finding.js'
import type {Mismatch} from './compare.js'
import {chosenBy, evidenceOf, programming} from './proof.js'
import {isTranslation} from './hops.js'

/** What a mismatch comes from: mismatches with the same key are one finding. */
export interface Cause {
  readonly key: string
  readonly name: CodeName
  readonly node: string
  readonly evidence: readonly Evidence[]
  readonly message: string
  /** Other than the code's own. */
  readonly severity?: Severity
}

export const at = ({frontend}: Mismatch): string => formatEndpoint(frontend.address, frontend.port)

export const percent = (share: number): string => `${Math.round(share * 1000) / 10} %`

/** The node where a fate ended; an ICMP error that goes back from there comes after its end. */
export const endNode = ({hops, onReply}: Fate, fallback: string): string =>
  (hops.findLast(({reply}) => reply === onReply) ?? hops.at(-1))?.node ?? fallback
export const placeOf = ({fate, node}: Mismatch): string => endNode(fate, node)

export const translated = ({hops}: Fate): boolean => hops.some(isTranslation)

/** The node that translated, else the one that should have. */
export function translator({fate, node}: Mismatch): string {
  return fate.hops.find(isTranslation)?.node ?? node
}

export function perService(mismatch: Mismatch, name: CodeName, node: string): Cause {
  const {service, fate} = mismatch
  const evidence = name === 'stale-endpoint' ? chosenBy(fate) : programming(fate, node)
  const [line] = evidence
  // what kube-proxy believes of a Service is one thing
  const believed = name === 'no-endpoints-programmed' || (name === 'stale-endpoint' && line !== undefined)
  return {
    key: `${name} ${node} ${service.id}${believed ? '' : ` ${fate.reason}`}`,
    name,
    node,
    evidence,
    message: fate.reason,
  }
}

/** The rule or the policy that ended it: one finding for each line. */
export function byRule({fate, node}: Mismatch, {name, hop}: {name: CodeName; hop: Hop | undefined}): Cause {
  const where = hop?.node ?? node
  return {
    key: `${name} ${where} ${hop?.evidence?.source}:${hop?.evidence?.line} ${hop?.where}`,
    name,
    node: where,
    evidence: evidenceOf(hop),
    message: fate.reason,
  }
}
