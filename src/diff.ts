import {check, type CheckResult} from './checks/check.js'
import type {Finding} from './checks/finding.js'
import {clusterFacts, NOT_ASKED, nodeFacts, unreadSections, type Fact} from './diff-facts.js'
import {buildWorld} from './engine.js'
import {SvcTraceError} from './model/errors.js'
import type {NodeState} from './snapshot/node-state.js'
import type {Snapshot} from './snapshot/snapshot.js'
import {formatAddress, prefixRange} from './util/ip.js'

/** `+`: only the second has it, `-`: only the first. */
export interface Change extends Fact {
  readonly sign: '+' | '-'
  readonly node?: string
}

export interface DiffResult {
  /** Findings of `check`; none where two nodes of one snapshot are compared. */
  readonly findings: readonly {readonly sign: '+' | '-'; readonly finding: Finding}[]
  readonly changes: readonly Change[]
  /** What could not be compared, because one of them has not read it: `no difference` says nothing of it. */
  readonly incomplete: readonly {readonly node?: string; readonly reason: string}[]
  /** Nodes that only one of them has read. */
  readonly nodes: readonly {readonly sign: '+' | '-'; readonly node: string}[]
}

/** What changed from one snapshot to the other: findings first, then the API, then every node that both have. */
export function diffSnapshots(before: Snapshot, after: Snapshot): DiffResult {
  const names = [...new Set([...before.nodes.keys(), ...after.nodes.keys()])].sort()
  const both = names.filter((name) => before.nodes.has(name) && after.nodes.has(name))
  const [first, second] = [before, after].map((snapshot) => check(snapshot, buildWorld(snapshot))) as [
    CheckResult,
    CheckResult,
  ]
  const pairs = both.map((node) => ({node, ...compareNodes(before.nodes.get(node)!, after.nodes.get(node)!)}))
  return {
    findings: diffFindings(first, second),
    nodes: names
      .filter((name) => !both.includes(name))
      .map((node) => ({node, sign: after.nodes.has(node) ? '+' : '-'})),
    changes: [
      ...diffFacts(clusterFacts(before.cluster), clusterFacts(after.cluster)),
      ...pairs.flatMap(({node, changes}) => changes.map((change) => ({...change, node}))),
    ],
    incomplete: [
      ...first.incomplete.map(({node, reason}) => told(node, `the first: ${reason}`)),
      ...second.incomplete.map(({node, reason}) => told(node, `the second: ${reason}`)),
      ...pairs.flatMap(({node, incomplete}) => incomplete.map((reason) => told(node, reason))),
    ],
  }
}

const told = (node: string | undefined, reason: string): {node?: string; reason: string} => ({
  ...(node === undefined ? {} : {node}),
  reason,
})

/** Facts of sections that both have read; the others are told. */
function compareNodes(
  before: NodeState,
  after: NodeState,
  facts = nodeFacts,
): {changes: Change[]; incomplete: string[]} {
  const [one, other] = [unreadSections(before), unreadSections(after)]
  const lost = new Set([...one.keys(), ...other.keys()])
  const seen = (state: NodeState): Fact[] => facts(state).filter(({section}) => !lost.has(section))
  return {
    changes: diffFacts(seen(before), seen(after)),
    incomplete: [...lost].flatMap((section) => {
      const [a, b] = [one.get(section), other.get(section)]
      if (a === NOT_ASKED && b === NOT_ASKED) return []
      return [
        `${section}: ${a === undefined ? '' : `in the first it ${a}`}${a !== undefined && b !== undefined ? ', ' : ''}${b === undefined ? '' : `in the second it ${b}`}`,
      ]
    }),
  }
}

/** What one node holds and another doesn't; its own addresses and pods' networks are called the same on both. */
export function diffNodes(snapshot: Snapshot, one: string, other: string): DiffResult {
  const stateOf = (name: string): NodeState => {
    const state = snapshot.nodes.get(name)
    if (!state)
      throw new SvcTraceError(
        'NotFound',
        `node "${name}" was not read`,
        `nodes: ${[...snapshot.nodes.keys()].join(', ')}`,
      )
    return state
  }
  const facts = (state: NodeState): Fact[] => {
    const own = ownNames(snapshot, state)
    return nodeFacts(state).flatMap((fact) =>
      CABLES.test(fact.text) ? [] : [{...fact, place: own(fact.place), text: own(fact.text)}],
    )
  }
  const {changes, incomplete} = compareNodes(stateOf(one), stateOf(other), facts)
  return {findings: [], nodes: [], changes, incomplete: incomplete.map((reason) => ({reason}))}
}

/** Devices of single pods, their routes and settings, and addresses made of hardware: no two nodes have the same. */
const CABLES = /(^|\bdev |\bon |\.)(veth|cali|lxc|eni)|\bfe80:/

/** What is the node's own, and what belongs to another node, by the same words on each. */
function ownNames({cluster, nodes}: Snapshot, state: NodeState): (text: string) => string {
  const names = new Map<string, string>()
  const name = (text: string, what: string): void => {
    if (!names.has(text)) names.set(text, what)
  }
  for (const [whose, other] of [
    ['own', state] as const,
    ...[...nodes.values()].map((node) => ['other', node] as const),
  ]) {
    const node = cluster.nodes.find((known) => known.name === other.name)
    for (const {address, device, length} of other.addresses.filter(
      ({device}) => device !== 'lo' && !SHARED.test(device),
    )) {
      name(formatAddress(address), `(${whose} node)`)
      const {lo} = prefixRange(address, length)
      if (device !== deviceOf(other, node?.addresses ?? [])) name(`${formatAddress(lo)}/${length}`, `(${whose} pods)`)
    }
    for (const cidr of node?.podCIDRs ?? []) name(cidr, `(${whose} pods)`)
  }
  if (names.size === 0) return (text) => text
  const longestFirst = [...names.keys()]
    .sort((a, b) => b.length - a.length)
    .map((text) => text.replaceAll(/[.[\]]/g, '\\$&'))
  const any = new RegExp(`(?<![\\w.:])(${longestFirst.join('|')})(?![\\w.]|:[\\da-f]*:)`, 'g')
  return (text) => text.replaceAll(any, (own) => names.get(own)!)
}

/** The device by which the other nodes reach it: its network is everybody's. */
const deviceOf = (state: NodeState, known: readonly {address: string}[]): string | undefined =>
  state.addresses.find(({address}) => known.some((one) => one.address === formatAddress(address)))?.device

/** Devices whose addresses every node has. */
const SHARED = /^(kube-ipvs0|nodelocaldns|docker0)$/

/** A finding that got worse is another one; where a side is incomplete, nobody knows what it would have found. */
function diffFindings(before: CheckResult, after: CheckResult): DiffResult['findings'] {
  const key = ({code, severity, node, services, frontends}: Finding): string =>
    JSON.stringify([code, severity, node, services, frontends])
  const [old, now] = [new Set(before.findings.map(key)), new Set(after.findings.map(key))]
  const blind = ({incomplete}: CheckResult, {node}: Finding): boolean =>
    incomplete.some((one) => one.node === undefined || one.node === node)
  return [
    ...after.findings
      .filter((finding) => !old.has(key(finding)) && !blind(before, finding))
      .map((finding) => ({sign: '+' as const, finding})),
    ...before.findings
      .filter((finding) => !now.has(key(finding)) && !blind(after, finding))
      .map((finding) => ({sign: '-' as const, finding})),
  ]
}

/** Facts that are there more often on one side; the order within a place does not count. */
function diffFacts(before: readonly Fact[], after: readonly Fact[]): Change[] {
  const key = ({place, text}: Fact): string => `${place}\n${text}`
  const surplus = (own: readonly Fact[], others: readonly Fact[], sign: '+' | '-'): Change[] => {
    const left = new Map<string, number>()
    for (const fact of others) left.set(key(fact), (left.get(key(fact)) ?? 0) + 1)
    return own.flatMap((fact) => {
      const count = left.get(key(fact)) ?? 0
      left.set(key(fact), count - 1)
      return count > 0 ? [] : [{...fact, sign}]
    })
  }
  return [...surplus(before, after, '-'), ...surplus(after, before, '+')]
}
