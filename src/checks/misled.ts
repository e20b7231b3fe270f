import {endpointsOf, type ServiceEndpoint} from '../intent/endpoints.js'
import type {ClusterState} from '../model/kube.js'
import type {Fate, Hop} from '../model/trace.js'
import {familyOf, formatEndpoint} from '../util/ip.js'
import {at, percent, translator, type Cause} from './cause.js'
import type {Mismatch} from './compare.js'
import type {Scene} from './missing.js'
import {chosenBy, chosenByProcess, chosenByStranger, isOwnChain} from './proof.js'
import {isDestinationNat, leadsTo} from './hops.js'

/** Packets that a translation leads to what is no endpoint of the Service. */

/** What an address is to the Service port: one of its endpoints, in whatever condition. */
const knownAt = (
  cluster: ClusterState,
  {service, port, frontend}: Mismatch,
  place: Place,
): ServiceEndpoint | undefined =>
  endpointsOf(cluster, service, {port, family: familyOf(frontend.address)}).find(
    ({address}) => address === place.address,
  )

const conditionOf = (known: ServiceEndpoint | undefined, port: number): string =>
  known === undefined
    ? 'no endpoint of it'
    : known.port === port
      ? 'not ready'
      : `not the port of that endpoint, ${known.port}`

type Place = Fate['towards'][number]

/** Delivered to a stranger, or lost on the way to one: an endpoint that is none any more, or a rule that leads elsewhere. */
export function wrongEndpoint(mismatch: Mismatch, {cluster}: Scene, place: Place): Cause {
  const {fate, service, promise} = mismatch
  const node = translator(mismatch)
  const evidence = chosenBy(fate)
  const receiver = formatEndpoint(place.address, place.port)
  const sameHost = promise.endpoints.some(({address}) => address === place.address)
  const known = knownAt(cluster, mismatch, place)
  // kube-proxy's own rule leads to what was an endpoint once; anybody else's never did
  const foreign = !sameHost && !known && chosenByStranger(fate)
  if (
    known?.ready &&
    known.port === place.port &&
    (promise.rule === 'internal policy' || promise.rule === 'external policy')
  )
    return {
      key: `policy ${node} ${service.id}`,
      name: 'policy-not-kept',
      node,
      evidence,
      message: `${node} sends ${percent(fate.share)} of ${service.id} to ${receiver} on ${known.node ?? 'another node'}, although ${promise.why}`,
    }
  const who = fate.receiver?.pod ? ` (pod ${fate.receiver.pod})` : ''
  return foreign
    ? {
        key: `hijack ${node} ${evidence[0]?.source}:${evidence[0]?.line}`,
        name: 'traffic-hijacked',
        node,
        evidence,
        message: `on ${node} packets to ${at(mismatch)} of ${service.id} go to ${receiver}${who}, which is no endpoint of it`,
      }
    : {
        key: `stale-endpoint ${node} ${service.id}${known && known.port !== place.port ? ' port' : ''}`,
        name: 'stale-endpoint',
        node,
        evidence,
        message: `${node} sends ${percent(fate.share)} of ${service.id} to ${receiver}${who}, which is ${conditionOf(known, place.port)}`,
      }
}

/** Ends that mean already that nobody is there. */
const NOBODY_THERE: ReadonlySet<Fate['cause']> = new Set(['nobody', 'no-listener', 'no-real-server', 'untranslated'])

/** It was translated to what is no endpoint: whatever loses it after that, the translation is the cause. */
export function strayed({fate, promise}: Mismatch): Place | undefined {
  if (NOBODY_THERE.has(fate.cause) || chosenByProcess(fate)) return undefined
  const places = fate.receiver ? [fate.receiver] : fate.towards
  const isDue = ({address, port}: Place): boolean =>
    [...promise.endpoints, ...promise.tolerated].some((one) => one.address === address && one.port === port)
  return places.some(isDue) ? undefined : places[0]
}

/** The Service's own translation led to one of its endpoints, and another one on the way led on from there. */
export function translatedAgain({fate, promise, service, ...mismatch}: Mismatch): Again | undefined {
  const isSent = (hop: Hop): boolean => promise.endpoints.some((endpoint) => leadsTo(hop, endpoint))
  const sent = fate.hops.findIndex(isSent)
  const later = fate.hops.findIndex((hop, at) => at > sent && isDestinationNat(hop) && !isSent(hop))
  if (sent < 0 || later < 0 || fate.onReply) return undefined
  const hop = fate.hops[later]!
  const rule = fate.hops.slice(0, later + 1).findLast(({where}) => where !== undefined)
  const line = fate.hops.slice(0, later).findLast(({evidence}) => evidence !== undefined)?.evidence
  const isPod = promise.endpoints.some((endpoint) => endpoint.pod !== undefined && leadsTo(fate.hops[sent]!, endpoint))
  return {
    foreign: !isOwnChain(rule),
    isPod,
    cause: {
      key: `hijack ${hop.node} ${line?.source}:${line?.line}`,
      name: 'traffic-hijacked',
      node: hop.node,
      evidence: line ? [line] : [],
      message: `on ${hop.node} packets for endpoints of ${service.id} (${at({fate, promise, service, ...mismatch})}) are led elsewhere by a rule that is not kube-proxy's: ${hop.what}`,
    },
  }
}

interface Again {
  /** A rule that is not kube-proxy's. */
  readonly foreign: boolean
  /** The endpoint is a pod, which is no frontend of anything. */
  readonly isPod: boolean
  readonly cause: Cause
}

/** A stranger's rule leads to where nobody is. */
export function hijacked(mismatch: Mismatch): Cause {
  const {fate, service} = mismatch
  const node = translator(mismatch)
  const evidence = chosenBy(fate)
  return {
    key: `hijack ${node} ${evidence[0]?.source}:${evidence[0]?.line}`,
    name: 'traffic-hijacked',
    node,
    evidence,
    message: `on ${node} packets to ${at(mismatch)} of ${service.id} are led elsewhere by a rule that is not kube-proxy's: ${fate.reason}`,
  }
}
