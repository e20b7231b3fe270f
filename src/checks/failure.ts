import type {Fate, Hop} from '../model/trace.js'
import {familyOf} from '../util/ip.js'
import {absentRange} from './absent.js'
import {byRule, perService, placeOf, translated, translator, type Cause} from './cause.js'
import {foreignAddresses, foreignAddressWords} from './claims.js'
import type {CodeName} from './codes.js'
import type {Mismatch} from './compare.js'
import {ledAstray} from './detour.js'
import {strayHostRoute} from './host-routes.js'
import {unmasqueraded} from './masquerade.js'
import {hijacked, strayed, wrongEndpoint} from './misled.js'
import {addressOff, forwardedAsItCame, isOwnRefusal, notProgrammed, type Scene} from './missing.js'
import {chosenBy, chosenByStranger, deciding, evidenceOf, leftUnmarked} from './proof.js'
import {deviceDown, onNode} from './settings.js'
import {answersAstray} from './sources.js'

/** Promised and not delivered. */
export function failure(mismatch: Mismatch, scene: Scene): Cause {
  const {fate} = mismatch
  const node = placeOf(mismatch)
  if (scene.wholeNode.has(`${node} ${familyOf(mismatch.frontend.address)}`) && !translated(fate) && !fate.onReply)
    return notProgrammed(mismatch, scene)
  if ((fate.cause === 'nobody' || fate.cause === 'no-listener') && chosenByStranger(fate)) return hijacked(mismatch)
  const stray = strayed(mismatch)
  if (stray) return wrongEndpoint(mismatch, scene, stray)
  const route = strayHostRoute(mismatch, scene)
  if (route) return route
  const detour = ledAstray(mismatch, scene)
  if (detour) return detour
  const stranger = markedAsStranger(mismatch)
  if (stranger) return byRule(mismatch, {name: 'source-range-incomplete', hop: stranger})
  if (untracked(fate)) return byRule(mismatch, {name: 'connection-tracking-off', hop: untracked(fate)})
  const read = BY_CAUSE[fate.cause]
  return read ? read({mismatch, scene, node}) : perService(mismatch, 'endpoint-unreachable', node)
}

interface Lost {
  readonly mismatch: Mismatch
  readonly scene: Scene
  /** Where it ended. */
  readonly node: string
}

const setting =
  (name: CodeName) =>
  ({mismatch, scene, node}: Lost): Cause =>
    onNode(mismatch, name, {node, scene})
const masquerade = ({mismatch, scene}: Lost): Cause => unmasqueraded(mismatch, scene)
const unprogrammed = ({mismatch, scene}: Lost): Cause => notProgrammed(mismatch, scene)

/** What each way to end tells of its cause; of the others only that an endpoint is not reached. */
const BY_CAUSE: Partial<Record<Fate['cause'], (lost: Lost) => Cause>> = {
  rule: ({mismatch, scene}) => ruled(mismatch, scene),
  policy: byPolicy,
  'not-forwarded': setting('ip-forward-off'),
  martian,
  'reverse-path': setting('rp-filter-drops'),
  loopback: setting('route-localnet-off'),
  route: unrouted,
  'pod-route': unrouted,
  device: setting('device-down'),
  tunnel: inTunnel,
  'hairpin-mode': setting('hairpin-mode-off'),
  'bridge-nf': setting('bridge-nf-off'),
  bypass: masquerade,
  hairpin: masquerade,
  'not-masqueraded': masquerade,
  'no-real-server': ({mismatch, node}) => perService(mismatch, 'no-endpoints-programmed', node),
  nobody: ownerless,
  untranslated: unprogrammed,
  'no-listener': unprogrammed,
}

/** Its source is the node's own: another node's address is on it, or nothing gave the packet another source. */
function martian(lost: Lost): Cause {
  const {mismatch, scene, node} = lost
  const state = scene.states.get(node)
  const [foreign] = state ? foreignAddresses(scene.cluster, state) : []
  if (state && foreign)
    return {
      key: `foreign address ${node} ${String(foreign.address)}`,
      name: 'node-address-elsewhere',
      node,
      ...foreignAddressWords(state, foreign),
    }
  return translated(mismatch.fate) ? masquerade(lost) : setting('rp-filter-drops')(lost)
}

function byPolicy({mismatch, scene}: Lost): Cause {
  const {fate} = mismatch
  if (!fate.onReply && forwardedAsItCame(mismatch)) return notProgrammed(mismatch, scene)
  // kube-proxy accepts what has its mark
  if (leftUnmarked(fate, translator(mismatch))) return unmasqueraded(mismatch, scene)
  return byRule(mismatch, {name: 'forward-policy-drop', hop: deciding(fate)})
}

function unrouted({mismatch, scene, node}: Lost): Cause {
  return (
    addressOff(mismatch, scene) ??
    deviceDown(mismatch, scene, node) ??
    onNode(mismatch, 'pod-route-missing', {node, scene})
  )
}

/** Sent to an address that nobody has. */
function ownerless({mismatch, node}: Lost): Cause {
  if (mismatch.fate.onReply) return answersAstray(mismatch)
  return isPromised(mismatch) ? unowned(mismatch, node) : perService(mismatch, 'stale-endpoint', translator(mismatch))
}

/** One for each node that a node's tunnel does not know. */
function inTunnel({mismatch: {fate}, node}: Lost): Cause {
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
export const SOURCE_RANGES =
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

/** Endpoints of the API at which nobody is: one finding for the node that sends there. */
const unowned = ({fate}: Mismatch, node: string): Cause => ({
  key: `unowned ${node}`,
  name: 'endpoint-unreachable',
  node,
  evidence: chosenBy(fate),
  message: fate.reason,
})

/** Lost on the way to an endpoint that the API itself names: the API is behind the truth, not the node. */
const isPromised = ({fate, promise}: Mismatch): boolean =>
  fate.towards.some((place) => promise.endpoints.some(({address}) => address === place.address))
