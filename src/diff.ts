import {check} from './checks/check.js'
import type {Finding} from './checks/finding.js'
import {clusterFacts, nodeFacts, type Fact} from './diff-facts.js'
import {buildWorld} from './engine.js'
import {SvcTraceError} from './model/errors.js'
import type {NodeState} from './snapshot/node-state.js'
import type {Snapshot} from './snapshot/snapshot.js'
import {formatAddress} from './util/ip.js'

/** `+`: only the second has it, `-`: only the first. */
export interface Change extends Fact {
  readonly sign: '+' | '-'
  readonly node?: string
}

export interface DiffResult {
  /** Findings of `check`; none where two nodes of one snapshot are compared. */
  readonly findings: readonly {readonly sign: '+' | '-'; readonly finding: Finding}[]
  readonly changes: readonly Change[]
  /** Nodes that only one of them has read. */
  readonly nodes: readonly {readonly sign: '+' | '-'; readonly node: string}[]
}

/** What changed from one snapshot to the other: findings first, then the API, then every node that both have. */
export function diffSnapshots(before: Snapshot, after: Snapshot): DiffResult {
  const names = [...new Set([...before.nodes.keys(), ...after.nodes.keys()])].sort()
  const both = names.filter((name) => before.nodes.has(name) && after.nodes.has(name))
  return {
    findings: diffFindings(findingsOf(before), findingsOf(after)),
    nodes: names
      .filter((name) => !both.includes(name))
      .map((node) => ({node, sign: after.nodes.has(node) ? '+' : '-'})),
    changes: [
      ...diffFacts(clusterFacts(before.cluster), clusterFacts(after.cluster)),
      ...both.flatMap((node) =>
        diffFacts(nodeFacts(before.nodes.get(node)!), nodeFacts(after.nodes.get(node)!)).map((change) => ({
          ...change,
          node,
        })),
      ),
    ],
  }
}

/** What one node holds and another doesn't; its own addresses and pods' networks are called the same on both. */
export function diffNodes(snapshot: Snapshot, one: string, other: string): DiffResult {
  const facts = (name: string): Fact[] => {
    const state = snapshot.nodes.get(name)
    if (!state)
      throw new SvcTraceError(
        'NotFound',
        `node "${name}" was not read`,
        `nodes: ${[...snapshot.nodes.keys()].join(', ')}`,
      )
    const own = ownNames(snapshot, state)
    return nodeFacts(state).flatMap((fact) =>
      CABLES.test(fact.text) ? [] : [{...fact, place: own(fact.place), text: own(fact.text)}],
    )
  }
  return {findings: [], nodes: [], changes: diffFacts(facts(one), facts(other))}
}

/** Devices and settings of single pods: no two nodes have the same. */
const CABLES = /^(veth|cali|lxc|eni)|\.(veth|cali|lxc|eni)[\w-]*\./

function ownNames({cluster}: Snapshot, {name, addresses}: NodeState): (text: string) => string {
  const node = cluster.nodes.find((known) => known.name === name)
  const names = new Map<string, string>([
    ...addresses
      .filter(({device}) => device !== 'lo' && !SHARED.test(device))
      .map(({address, device}) => [formatAddress(address), `(${device})`] as const),
    ...(node?.podCIDRs ?? []).map((cidr) => [cidr, '(pods)'] as const),
  ])
  if (names.size === 0) return (text) => text
  const longestFirst = [...names.keys()]
    .sort((a, b) => b.length - a.length)
    .map((text) => text.replaceAll(/[.[\]]/g, '\\$&'))
  const any = new RegExp(`(?<![\\w.:])(${longestFirst.join('|')})(?![\\w.]|:[\\da-f]*:)`, 'g')
  return (text) => text.replaceAll(any, (own) => names.get(own)!)
}

/** Devices whose addresses every node has. */
const SHARED = /^(kube-ipvs0|nodelocaldns|docker0)$/

const findingsOf = (snapshot: Snapshot): readonly Finding[] => check(snapshot, buildWorld(snapshot)).findings

function diffFindings(before: readonly Finding[], after: readonly Finding[]): DiffResult['findings'] {
  const key = ({code, node, services, frontends}: Finding): string => JSON.stringify([code, node, services, frontends])
  const [old, now] = [new Set(before.map(key)), new Set(after.map(key))]
  return [
    ...after.filter((finding) => !old.has(key(finding))).map((finding) => ({sign: '+' as const, finding})),
    ...before.filter((finding) => !now.has(key(finding))).map((finding) => ({sign: '-' as const, finding})),
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
