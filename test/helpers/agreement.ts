import type {SimulateAnswer, SimulateLine} from '../../src/simulate.js'
import type {Truth} from './corpus.js'

type Class = 'delivered' | 'refused' | 'dropped'
const CLASS: Readonly<Record<string, Class>> = {
  ok: 'delivered',
  refused: 'refused',
  unreachable: 'refused',
  reset: 'refused',
  timeout: 'dropped',
}
/** A right prediction is called wrong less than once in ten thousand lines. */
const ALPHA = 1e-4

/** «agree», «unknown», or why the prediction cannot explain what packets did. */
export function agreement(truth: Truth, answer: SimulateLine, listeners: Record<string, string[]>): string {
  if ('error' in answer) return answer.error
  if ((answer.outcomes.unknown ?? 0) >= 0.01) return 'unknown'
  const predicted = withSilentPods(answer, truth, listeners)
  const seen = {delivered: 0, refused: 0, dropped: 0}
  for (const [what, count] of Object.entries(truth.outcomes)) seen[CLASS[what] ?? 'dropped'] += count
  // «unreachable» is an unanswered neighbour lookup: silence to a client that gives up sooner
  if (truth.outcomes['unreachable']) {
    seen.dropped += seen.refused
    seen.refused = 0
    predicted.dropped += predicted.refused
    predicted.refused = 0
  }
  for (const name of ['delivered', 'refused', 'dropped'] as const) {
    const fits = truth.sticky
      ? seen[name] === 0 || predicted[name] > 0
      : chance(seen[name], truth.n, predicted[name]) > ALPHA
    if (!fits) return `${name}: predicted ${predicted[name].toFixed(3)}, seen ${seen[name]}/${truth.n}`
  }
  return backendsAgree(truth, answer, listeners)
}

function withSilentPods(
  answer: SimulateAnswer,
  {proto}: Truth,
  listeners: Record<string, string[]>,
): Record<Class, number> {
  const sums = {
    delivered: answer.outcomes.delivered ?? 0,
    refused: answer.outcomes.refused ?? 0,
    dropped: answer.outcomes.dropped ?? 0,
  }
  for (const {pod, address, share} of answer.backends) {
    if (pod === undefined || !listeners[pod] || listeners[pod].includes(`${address.split(':').pop()}/${proto}`))
      continue
    sums.delivered -= share
    sums.refused += share
  }
  return sums
}

function backendsAgree(truth: Truth, {backends}: SimulateAnswer, listeners: Record<string, string[]>): string {
  const seen = Object.keys(truth.backends).filter((pod) => listeners[pod])
  const predicted = new Set(backends.map(({pod}) => pod))
  const surprise = seen.find((pod) => !predicted.has(pod))
  if (surprise !== undefined) return `reached ${surprise}, which was not predicted`
  const sources = new Set(
    backends
      .filter(({pod}) => seen.length === 0 || (pod !== undefined && truth.backends[pod]))
      .map(({source}) => source),
  )
  const stranger =
    truth.kind === 'healthCheck' || sources.size === 0
      ? undefined
      : truth.srcSeen.find((source) => !sources.has(source))
  return stranger === undefined ? 'agree' : `endpoint saw ${stranger}, predicted ${[...sources].join(' ')}`
}

/** The chance of a result at least as far from the mean as `k` of `n`. */
function chance(k: number, n: number, p: number): number {
  if (p <= 1e-12) return k === 0 ? 1 : 0
  if (p >= 1 - 1e-12) return k === n ? 1 : 0
  const density = (i: number): number => Math.exp(choose(n, i) + i * Math.log(p) + (n - i) * Math.log(1 - p))
  const own = density(k)
  return Array.from({length: n + 1}, (_, i) => density(i))
    .filter((value) => value <= own * (1 + 1e-9))
    .reduce((sum, value) => sum + value, 0)
}

const factorial = (n: number): number =>
  Array.from({length: n}, (_, i) => Math.log(i + 1)).reduce((sum, value) => sum + value, 0)
const choose = (n: number, k: number): number => factorial(n) - factorial(k) - factorial(n - k)
