import type {ServiceEndpoint} from '../intent/endpoints.js'
import type {OriginClass, ServicePromise} from '../intent/promise.js'
import type {ClientFates, Fate, Origin} from '../model/trace.js'
import type {Range} from '../util/ip.js'

/** How a walk differs from its promise. */
export type Difference =
  /** Promised to be delivered, and isn't. */
  | 'fails'
  /** Delivered to an address that is no endpoint. */
  | 'wrong-endpoint'
  /** A promised endpoint gets nothing. */
  | 'missing-endpoint'
  | 'skewed'
  | 'client-lost'
  /** Promised not to pass, and passes. */
  | 'passes'
  | 'unknown'

/** Who asks, as which kind of origin. */
export interface Asker {
  readonly origin: OriginClass
  readonly from: Origin
  /** Its addresses; undefined for a node, which takes one of several. */
  readonly client?: readonly Range[]
}

/** Shares below this are dice that never fall that way in practice; of many endpoints each has a small share of its own. */
const NEGLIGIBLE = 0.001
export const negligible = (fates: readonly Fate[], {endpoints}: Pick<ServicePromise, 'endpoints'>): number =>
  Math.min(NEGLIGIBLE, 0.1 / Math.max(1, endpoints.length, fates.length))

/** A difference, the fate that shows it, and the endpoint that gets nothing. */
export interface Judgement {
  readonly kind: Difference
  readonly fate: Fate
  readonly endpoint?: ServiceEndpoint
}

/** Compares the fates of one part of the clients with the promise. */
export function judge({fates, alternatives}: ClientFates, promise: ServicePromise, asker: Asker): Judgement[] {
  const tiny = negligible(fates, promise)
  const open = fates.find(({outcome, share}) => outcome === 'unknown' && share > tiny)
  if (open)
    return promise.outcome !== 'delivered' &&
      alternatives.length > 0 &&
      alternatives.every((fate) => allowed(fate, promise))
      ? []
      : [...strays(fates, promise), {kind: 'unknown', fate: open}, ...certainFailures(fates, promise)]
  if (promise.outcome !== 'delivered')
    return fates
      .filter((fate) => fate.share > tiny && !allowed(fate, promise))
      .map((fate) => ({kind: 'passes' as const, fate}))
  return judgeDelivery(fates, promise, asker)
}

/** Translated to what is no endpoint: wherever that is, it is the wrong place. */
const strays = (fates: readonly Fate[], promise: ServicePromise): Judgement[] =>
  promise.outcome !== 'delivered' || promise.elsewhere
    ? []
    : fates
        .filter(
          ({outcome, cause, towards, share}) =>
            outcome === 'unknown' &&
            cause === 'nowhere' &&
            share > negligible(fates, promise) &&
            towards.length > 0 &&
            !towards.some((place) => [...promise.endpoints, ...promise.tolerated].some((one) => isAt(one, place))),
        )
        .map((fate) => ({kind: 'wrong-endpoint', fate}))

const isAt = (one: ServiceEndpoint, {address, port}: Fate['towards'][number]): boolean =>
  one.address === address && one.port === port

/** What fails for certain beside a share that is open. */
const certainFailures = (fates: readonly Fate[], promise: ServicePromise): Judgement[] =>
  promise.outcome !== 'delivered'
    ? []
    : fates
        .filter(
          ({outcome, share, assumptions}) =>
            (outcome === 'dropped' || outcome === 'refused') &&
            share > negligible(fates, promise) &&
            assumptions.length === 0 &&
            !promise.also.includes(outcome),
        )
        .map((fate) => ({kind: 'fails', fate}))

const allowed = (fate: Fate, promise: ServicePromise): boolean =>
  fate.outcome === 'delivered'
    ? promise.also.includes('delivered') && isAmong(fate, promise.tolerated)
    : fate.outcome === promise.outcome || promise.also.includes(fate.outcome as 'refused' | 'dropped')

export const isAmong = ({receiver}: Fate, endpoints: readonly ServiceEndpoint[]): boolean =>
  endpoints.some(({address, port}) => receiver?.address === address && receiver.port === port)

/** A pod's address is promised to pods alone: what leaves their network the CNI may masquerade, and a pod that gets itself must be. */
function seesClient({sourceIsClient, source, receiver}: Fate, {origin, from, client}: Asker): boolean {
  if (origin.kind === 'external') return sourceIsClient
  if (receiver?.kind !== 'pod' || (from.kind === 'pod' && receiver.pod === from.pod)) return true
  return client === undefined || client.some(({lo}) => lo === source)
}

const wasFor = ({towards}: Fate, {address, port}: ServiceEndpoint): boolean =>
  towards.some((place) => place.address === address && place.port === port)

function judgeDelivery(fates: readonly Fate[], promise: ServicePromise, asker: Asker): Judgement[] {
  // what the network around does is not ours to judge; into a pod it comes by somebody's translation
  if (promise.elsewhere)
    return judgeDelivery(
      fates.filter(({receiver}) => receiver?.kind === 'pod'),
      {...promise, elsewhere: false},
      asker,
    )
  const found: Judgement[] = []
  const tiny = negligible(fates, promise)
  for (const fate of fates) {
    if (fate.share <= tiny) continue
    if (fate.outcome !== 'delivered') {
      if (!promise.also.includes(fate.outcome as 'refused' | 'dropped')) found.push({kind: 'fails', fate})
    } else if (!isAmong(fate, promise.endpoints) && !isAmong(fate, promise.tolerated))
      found.push({kind: 'wrong-endpoint', fate})
    else if (promise.keepsClient && !seesClient(fate, asker)) found.push({kind: 'client-lost', fate})
  }
  return [...found, ...judgeShares(fates, promise)]
}

function judgeShares(fates: readonly Fate[], {endpoints, tolerated, also, hinted}: ServicePromise): Judgement[] {
  const [first] = fates
  if (!first || also.length > 0) return []
  const tiny = negligible(fates, {endpoints})
  const leftOut = fates.find(
    (fate) =>
      fate.outcome === 'delivered' && !isAmong(fate, endpoints) && isAmong(fate, tolerated) && fate.share > tiny,
  )
  if (hinted && leftOut) return [{kind: 'skewed', fate: leftOut}]
  const reached = (endpoint: ServiceEndpoint): number =>
    fates.filter((fate) => isAmong(fate, [endpoint])).reduce((sum, {share}) => sum + share, 0)
  const shares = endpoints.map((endpoint) => ({endpoint, share: reached(endpoint)}))
  const lost = fates.filter(({outcome, share}) => outcome !== 'delivered' && share > tiny)
  // what was lost on its way to an endpoint is no endpoint that is not chosen
  const missing = shares.filter(({endpoint, share}) => share <= tiny && !lost.some((fate) => wasFor(fate, endpoint)))
  // where nothing of it arrives, that is told by what happens instead; those that end are no substitute for ready ones
  const instead = tolerated.filter((endpoint) => reached(endpoint) > tiny)
  const onlyEnding = lost.length === 0 && instead.length > 0 && instead.every(({ready}) => !ready)
  if (missing.length === endpoints.length && !(onlyEnding && endpoints.every(({ready}) => ready))) return []
  if (lost.length > 0 && (missing.length === 0 || lost.some(({towards}) => towards.length === 0))) return []
  if (missing.length > 0)
    return missing.map(({endpoint}) => ({kind: 'missing-endpoint' as const, fate: first, endpoint}))
  const fair = 1 / endpoints.length
  const usesTolerated = fates.some(
    (fate) => fate.outcome === 'delivered' && !isAmong(fate, endpoints) && isAmong(fate, tolerated),
  )
  // a stranger that gets a share is told by itself
  const strange = fates.some(
    (fate) => fate.outcome === 'delivered' && fate.share > tiny && !isAmong(fate, [...endpoints, ...tolerated]),
  )
  const skewed = !strange && !usesTolerated && shares.some(({share}) => Math.abs(share - fair) > 0.02 * fair + 0.002)
  return skewed ? [{kind: 'skewed', fate: first}] : []
}
