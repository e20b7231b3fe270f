import type {ClientFates, Fate, Flow, WalkResult} from '../model/trace.js'
import type {Range} from '../util/ip.js'
import {Chooser, explore, fold, TooManyUnknowns, type Weighted} from './explore.js'
import {Journey} from './journey.js'
import {Walker, type End, type Notes} from './walker.js'
import type {World} from './world.js'

interface Way {
  readonly end: End
  readonly source: Fate['source']
  readonly sourceIsClient: boolean
  readonly towards: Fate['towards']
  readonly hops: Fate['hops']
}

/** Walks one flow through the nodes' rules, there and back, in every way that it can go; without `steps` only to its ends. */
export function walk(world: World, flow: Flow, {steps = true} = {}): WalkResult {
  const clients = flow.origin.kind === 'external' ? flow.origin.ranges : []
  const notes: Notes = new Map()
  const tree = explore(
    clients,
    (chooser) => run(world, flow, {chooser, notes, steps}),
    () => way({outcome: 'unknown', cause: 'unknown', reason: 'too many ways to follow them all'}),
  )
  const parts = fold(tree, clients, {
    key: keyOf,
    fate: fateKey,
    join: (one, other) =>
      other.towards.every((place) => isAmong(place, one.towards))
        ? one
        : {...one, towards: [...one.towards, ...other.towards.filter((place) => !isAmong(place, one.towards))]},
    unknown: (reasons) =>
      way({
        outcome: 'unknown',
        cause: 'unknown',
        reason: reasons.length > 0 ? `it depends: ${reasons.join('; ')}` : 'it depends',
      }),
  })
  return {
    parts: parts.map(({clients: who, ends, alternatives}): ClientFates => ({
      clients: clientsOf(flow, who),
      fates: ends.map(fateOf),
      alternatives: alternatives.map(fateOf),
    })),
    incomplete: [...notes].flatMap(([node, reasons]) => [...reasons].map((reason) => ({node, reason}))),
  }
}

const clientsOf = (flow: Flow, ranges: readonly Range[]): readonly Range[] =>
  flow.origin.kind === 'external' ? ranges : []

const isAmong = ({address, port}: Fate['towards'][number], places: Fate['towards']): boolean =>
  places.some((place) => place.address === address && place.port === port)

const way = (end: End): Way => ({end, source: undefined, sourceIsClient: false, towards: NOWHERE, hops: []})

const NOWHERE: readonly never[] = []

function run(world: World, flow: Flow, {chooser, notes, steps}: {chooser: Chooser; notes: Notes; steps: boolean}): Way {
  const walker = new Walker(chooser, {notes, steps})
  const journey = new Journey(world, flow, walker)
  let end: End
  try {
    end = journey.run()
  } catch (error) {
    if (!(error instanceof TooManyUnknowns)) throw error
    end = {outcome: 'unknown', cause: 'unknown', reason: error.message}
  }
  const source = journey.source
  const towards = end.outcome === 'delivered' ? NOWHERE : journey.translatedTo
  return {
    end,
    source: source === 'client' ? undefined : source,
    sourceIsClient: source === 'client',
    towards,
    hops: walker.hops,
  }
}

const fateKey = (value: Way): string =>
  value.end.outcome === 'dropped' || value.end.outcome === 'refused' ? value.end.outcome : keyOf(value)

/** Causes that are told apart by their reason: what two rules drop are two fates. */
const BY_PLACE: ReadonlySet<Fate['cause']> = new Set(['rule', 'policy', 'nobody'])

/** Ends that a reader would call the same. */
function keyOf({end, source, sourceIsClient, towards}: Way): string {
  const {outcome, receiver} = end
  if (outcome === 'unknown')
    return end.cause === 'nowhere'
      ? `unknown ${towards.map(({address, port}) => `${address} ${port}`).join(' ')}`
      : 'unknown'
  if (outcome !== 'delivered')
    return `${outcome} ${end.cause ?? ''} ${receiver ? `${receiver.address} ${receiver.port}` : ''} ${BY_PLACE.has(end.cause ?? 'rule') ? end.reason : ''}`
  return `delivered ${receiver!.kind} ${receiver!.address} ${receiver!.port} ${receiver!.node ?? ''} ${sourceIsClient ? 'client' : String(source)}`
}

function fateOf({value: {end, source, sourceIsClient, towards, hops}, share, assumptions}: Weighted<Way>): Fate {
  return {
    outcome: end.outcome,
    ...(end.receiver ? {receiver: end.receiver} : {}),
    ...(source === undefined ? {} : {source}),
    sourceIsClient,
    share,
    reason: end.reason,
    cause: end.cause ?? 'rule',
    onReply: end.onReply ?? false,
    towards,
    hops,
    assumptions,
  }
}
