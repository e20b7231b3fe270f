import {countAddresses, normalizeRanges, splitRanges, type Range} from '../util/ip.js'

/**
 * The walk is straight-line code that asks `choose` wherever the kernel rolls dice, where the clients part, or where
 * the dump does not tell. `explore` runs it again for every combination of answers and builds the tree of them.
 */
export type ChoiceKind = 'random' | 'clients' | 'unknown'

interface Choice {
  readonly kind: ChoiceKind
  readonly weights: readonly number[]
  /** For `unknown`: what each answer assumes. For `clients`: unused. */
  readonly labels: readonly string[]
  /** For `clients`: which clients each answer is about. */
  readonly ranges: readonly (readonly Range[])[]
}

export interface Leaf<T> {
  readonly kind: 'leaf'
  readonly value: T
}
export interface Branch<T> {
  readonly kind: ChoiceKind
  readonly weights: readonly number[]
  readonly labels: readonly string[]
  readonly ranges: readonly (readonly Range[])[]
  readonly children: Tree<T>[]
}
export type Tree<T> = Leaf<T> | Branch<T>

/** More leaves than this and the rest is unknown; a Service with 10,000 endpoints still fits. */
const MAX_LEAVES = 20_000
/** Fewer where questions are open: each keeps its alternatives, and rules that call themselves and roll dice have very many. */
const MAX_OPEN_LEAVES = 5_000
/** More open questions than this on one path, and the walk stops with `unknown`. */
const MAX_UNKNOWNS = 6

/** Too many open questions on one path; the walk catches it and ends as unknown. */
export class TooManyUnknowns extends Error {}

/** How a range parts the clients: all are inside, none are, or some. */
type Parting = boolean | Pick<Choice, 'weights' | 'ranges'>

/** The same sets of clients meet the same ranges again and again, of routes, rules and sets. */
const partings = new WeakMap<readonly Range[], WeakMap<Range, Parting>>()

function partingOf(clients: readonly Range[], range: Range): Parting {
  let known = partings.get(clients)
  if (!known) partings.set(clients, (known = new WeakMap()))
  let parting = known.get(range)
  if (parting === undefined) known.set(range, (parting = part(clients, range)))
  return parting
}

function part(clients: readonly Range[], range: Range): Parting {
  const {inside, outside} = splitRanges(clients, range)
  if (inside.length === 0) return false
  if (outside.length === 0) return true
  const total = countAddresses(clients)
  const ranges = [inside, outside]
  return {ranges, weights: ranges.map((some) => countAddresses(some) / total)}
}

const NONE: readonly never[] = []

/** Answers the questions of one run. */
export class Chooser {
  clients: readonly Range[]
  readonly path: Choice[] = []
  readonly answers: number[] = []
  private readonly prefix: readonly number[]
  private assumed: Map<string, number> | undefined
  private unknowns = 0

  /** Something on this path was taken for granted. */
  get isOpen(): boolean {
    return this.unknowns > 0
  }

  constructor(prefix: readonly number[], clients: readonly Range[]) {
    this.prefix = prefix
    this.clients = clients
  }

  private choose(choice: Choice): number {
    const answer = this.prefix[this.path.length] ?? 0
    this.path.push(choice)
    this.answers.push(answer)
    return answer
  }

  /** One of several ways with known chances; certain ones ask nothing. */
  random(weights: readonly number[]): number {
    for (let at = 0; at < weights.length; at++) if (weights[at]! >= 1 - 1e-12) return at
    return this.choose({kind: 'random', weights, labels: NONE, ranges: NONE})
  }

  /** Is the client inside the range? Parts the clients where only some are. */
  inside(range: Range): boolean {
    const parting = partingOf(this.clients, range)
    if (typeof parting === 'boolean') return parting
    const {weights, ranges} = parting
    const answer = this.choose({kind: 'clients', weights, labels: NONE, ranges})
    this.clients = ranges[answer]!
    return answer === 0
  }

  /** A question that the dump does not answer; the same key gets the same answer within a run. */
  assume(key: string, labels: readonly [string, string]): boolean {
    this.assumed ??= new Map()
    const known = this.assumed.get(key)
    if (known !== undefined) return known === 0
    if (++this.unknowns > MAX_UNKNOWNS) throw new TooManyUnknowns('more than six open questions on one path')
    const answer = this.choose({kind: 'unknown', weights: [0, 0], labels, ranges: NONE})
    this.assumed.set(key, answer)
    return answer === 0
  }
}

/** Runs the walk for every combination of choices. `beyond` is the value of what was not explored any more. */
export function explore<T>(clients: readonly Range[], run: (chooser: Chooser) => T, beyond: () => T): Tree<T> {
  // the branches on the way to the last leaf; the next one shares those of its prefix
  const branches: Branch<T>[] = []
  let prefix: readonly number[] | undefined = []
  let open = 0
  for (let leaves = 0; prefix; leaves++) {
    if (leaves === MAX_LEAVES || open === MAX_OPEN_LEAVES) {
      fillRest(branches[0]!, beyond)
      break
    }
    const chooser: Chooser = new Chooser(prefix, clients)
    const leaf: Leaf<T> = {kind: 'leaf', value: run(chooser)}
    if (chooser.path.length === 0) return leaf
    if (chooser.isOpen) open++
    grow(branches, chooser, {leaf, shared: prefix.length})
    prefix = next(chooser)
  }
  return branches[0]!
}

function grow<T>(
  branches: Branch<T>[],
  {path, answers}: Chooser,
  {leaf, shared}: {leaf: Leaf<T>; shared: number},
): void {
  for (let depth = shared; depth < path.length; depth++) {
    const {kind, weights, labels, ranges} = path[depth]!
    const branch: Branch<T> = {kind, weights, labels, ranges, children: []}
    if (depth > 0) branches[depth - 1]!.children[answers[depth - 1]!] = branch
    branches[depth] = branch
  }
  branches[path.length - 1]!.children[answers[path.length - 1]!] = leaf
}

/** The answers that lead to the next leaf; undefined when there is none. */
function next({path, answers}: Chooser): number[] | undefined {
  for (let at = path.length - 1; at >= 0; at--) {
    if (answers[at]! + 1 < path[at]!.weights.length) return [...answers.slice(0, at), answers[at]! + 1]
  }
  return undefined
}

function fillRest<T>(tree: Tree<T>, beyond: () => T): void {
  if (tree.kind === 'leaf') return
  for (let at = 0; at < tree.weights.length; at++) {
    const child = tree.children[at]
    if (child) fillRest(child, beyond)
    else tree.children[at] = {kind: 'leaf', value: beyond()}
  }
}

/** One leaf with its share of the clients it is about. */
export interface Weighted<T> {
  readonly value: T
  readonly share: number
  readonly assumptions: readonly string[]
}

export interface Part<T> {
  readonly clients: readonly Range[]
  readonly ends: readonly Weighted<T>[]
  /** Not empty: the answers differ with the assumptions, so `ends` holds one unknown. */
  readonly alternatives: readonly Weighted<T>[]
}

export interface FoldRules<T> {
  /** Two leaves with the same key are the same end and are shown as one. */
  readonly key: (value: T) => string
  /** One of two ends with the same key stands for both. */
  readonly join: (one: T, other: T) => T
  /** Coarser: when all answers to an open question lead to the same fates, it did not matter. */
  readonly fate: (value: T) => string
  /** The leaf that stands for «it depends». */
  readonly unknown: (reasons: readonly string[]) => T
}

/** Folds the tree into parts of the clients, each with ends whose shares sum to 1. */
export function fold<T>(tree: Tree<T>, clients: readonly Range[], rules: FoldRules<T>): Part<T>[] {
  return mergeParts(foldTree(tree, clients, rules), rules)
}

function foldTree<T>(tree: Tree<T>, clients: readonly Range[], rules: FoldRules<T>): Part<T>[] {
  if (tree.kind === 'leaf') return [{clients, ends: [{value: tree.value, share: 1, assumptions: []}], alternatives: []}]
  if (tree.kind === 'clients') return tree.children.flatMap((child, at) => foldTree(child, tree.ranges[at]!, rules))
  if (tree.kind === 'random') {
    const throws = throwsOf(tree)
    const children = throws.map(({tree: end}) => foldTree(end, clients, rules))
    const weights = throws.map(({weight}) => weight)
    return combine(children, (parts) => mix(parts, weights, rules))
  }
  const children = tree.children.map((child) => foldTree(child, clients, rules))
  return combine(children, (parts) => decide(parts, tree.labels, rules))
}

/** Dice that follow each other are one: every end of all throws with its chance. */
function throwsOf<T>(branch: Branch<T>, chance = 1, found: {tree: Tree<T>; weight: number}[] = []): typeof found {
  branch.children.forEach((child, at) => {
    const weight = chance * branch.weights[at]!
    if (child.kind === 'random') throwsOf(child, weight, found)
    else found.push({tree: child, weight})
  })
  return found
}

/** Brings the children's parts to common clients, then joins them part by part. */
function combine<T>(children: readonly Part<T>[][], join: (parts: Part<T>[]) => Part<T>): Part<T>[] {
  if (children.every((parts) => parts.length === 1)) return [join(children.map(([part]) => part!))]
  let cells: {clients: readonly Range[]; parts: Part<T>[]}[] = children[0]!.map((part) => ({
    clients: part.clients,
    parts: [part],
  }))
  for (const parts of children.slice(1)) {
    cells = cells.flatMap((cell) =>
      parts.flatMap((part) => {
        const common = intersect(cell.clients, part.clients)
        return common.length > 0 ? [{clients: common, parts: [...cell.parts, part]}] : []
      }),
    )
  }
  return cells.map(({clients, parts}) => join(parts.map((part) => ({...part, clients}))))
}

const intersect = (a: readonly Range[], b: readonly Range[]): Range[] =>
  b.flatMap((range) => splitRanges(a, range).inside)

function mix<T>(parts: readonly Part<T>[], weights: readonly number[], {key, join}: FoldRules<T>): Part<T> {
  const ends = new Map<string, Weighted<T>>()
  parts.forEach((part, at) => {
    for (const end of part.ends) {
      const id = key(end.value)
      const known = ends.get(id)
      const share = end.share * weights[at]!
      ends.set(
        id,
        known ? {...known, value: join(known.value, end.value), share: known.share + share} : {...end, share},
      )
    }
  })
  return {
    clients: parts[0]!.clients,
    ends: [...ends.values()],
    alternatives: parts.flatMap(({alternatives}, at) =>
      alternatives.map((end) => ({...end, share: end.share * weights[at]!})),
    ),
  }
}

/** An open question: when every answer leads to the same ends, it did not matter. */
function decide<T>(parts: readonly Part<T>[], labels: readonly string[], rules: FoldRules<T>): Part<T> {
  const [first, ...others] = parts
  const settled = parts.every(({ends}) => !ends.some((end) => isOpen(end, rules)))
  if (settled && others.every((other) => sameEnds(first!, other, rules))) return first!
  const alternatives = parts.flatMap(({ends, alternatives: inner}, at) => {
    const shown =
      inner.length > 0
        ? [
            ...inner,
            ...ends.filter(
              (end) => !inner.some((deep) => rules.key(deep.value) === rules.key(end.value)) && !isOpen(end, rules),
            ),
          ]
        : ends
    return shown.map((end) => ({...end, assumptions: [labels[at]!, ...end.assumptions]}))
  })
  return {clients: first!.clients, ends: [{value: rules.unknown(labels), share: 1, assumptions: []}], alternatives}
}

const isOpen = <T>(end: Weighted<T>, rules: FoldRules<T>): boolean =>
  rules.key(end.value) === rules.key(rules.unknown([]))

function sameEnds<T>(a: Part<T>, b: Part<T>, {fate}: FoldRules<T>): boolean {
  const [first, second] = [fateShares(a, fate), fateShares(b, fate)]
  return (
    first.size === second.size && [...second].every(([key, share]) => Math.abs((first.get(key) ?? -1) - share) < 1e-9)
  )
}

function fateShares<T>({ends}: Part<T>, fate: (value: T) => string): Map<string, number> {
  const shares = new Map<string, number>()
  for (const end of ends) shares.set(fate(end.value), (shares.get(fate(end.value)) ?? 0) + end.share)
  return shares
}

const sameKeys = <T>(a: Part<T>, b: Part<T>, rules: FoldRules<T>): boolean =>
  sameEnds(a, b, {...rules, fate: rules.key})

function mergeParts<T>(parts: readonly Part<T>[], rules: FoldRules<T>): Part<T>[] {
  const merged: Part<T>[] = []
  for (const part of parts) {
    const at = merged.findIndex((known) => sameKeys(known, part, rules))
    if (at < 0) merged.push(part)
    else merged[at] = {...merged[at]!, clients: normalizeRanges([...merged[at]!.clients, ...part.clients])}
  }
  return merged
}
