import type {Evidence} from '../model/trace.js'
import type {IptablesChain} from '../parse/iptables.js'
import type {NodeState} from '../snapshot/node-state.js'

/**
 * Session affinity of iptables mode: KUBE-SEP-x puts clients on the list of its name (`-m recent --set --name KUBE-SEP-x`), and
 * the Service's chain leads those on it back there (`--rcheck --seconds N --reap --name KUBE-SEP-x -j KUBE-SEP-x`), before its
 * dice (pkg/proxy/iptables/proxier.go, writeServiceToEndpointRules). Any other rule about such a list does something else.
 */
export interface StrayRule {
  /** The Service whose endpoint has the list. */
  readonly owner: string
  readonly what: string
  /** It leads to no endpoint at all. */
  readonly loses: boolean
  readonly line: Evidence
}

interface RecentRule {
  readonly list: string
  readonly verb: string
  readonly target: string
  readonly text: string
}

const RECENT = /-m recent .*?--(set|rcheck|update|remove)\b/
const COMMENTED = /--comment "?([^\s":]+)/
/** Matches that kube-proxy's own rule does not have: clients of some kind are left out. */
const NARROWED = / (-p|-s|-d|-i|!) | -m (?!comment |recent )/

export function strayRecentRules(state: NodeState): StrayRule[] {
  const found: StrayRule[] = []
  for (const {file, tables} of [...state.iptables(4), ...state.iptables(6)])
    for (const {chains} of tables.values())
      for (const chain of chains.values())
        chain.lines.forEach(({text, line}, at) => {
          const rule = recentRule(text)
          if (!rule) return
          const what = strayed(rule, chain, at)
          const owner = what === undefined ? undefined : ownerOf(rule.list, tables.get('nat')?.chains ?? chains)
          if (what === undefined || owner === undefined) return
          found.push({
            owner,
            what,
            loses: rule.verb !== 'set' && !/^KUBE-(SEP-|MARK-)/.test(rule.target),
            line: {source: file, line, text},
          })
        })
  return found
}

function recentRule(text: string): RecentRule | undefined {
  // most rules have none, and there may be very many
  if (!text.includes(' --name KUBE-SEP-')) return undefined
  const verb = RECENT.exec(text)?.[1]
  const list = / --name (KUBE-SEP-\w+)/.exec(text)?.[1]
  return verb === undefined || list === undefined
    ? undefined
    : {list, verb, target: / -j (\S+)/.exec(text)?.[1] ?? '', text}
}

/** What such a rule does other than kube-proxy's own; undefined: it is one of those. */
function strayed({list, verb, target, text}: RecentRule, chain: IptablesChain, at: number): string | undefined {
  if (text.includes(' --rdest')) return `${list} is a list of destinations here`
  if (verb === 'set') return chain.name === list ? undefined : `${chain.name} puts them on the list of ${list}`
  if (verb === 'remove') return `${chain.name} takes them off the list`
  if (!/^KUBE-(SVC|SVL|XLB)-/.test(chain.name) || target !== list)
    return `a rule of ${chain.table}/${chain.name} leads them to ${target === '' ? 'nothing' : target}`
  if (NARROWED.test(text.replaceAll(/--comment ("[^"]*"|\S+)/g, '').replace(/^\S+ \S+/, '')))
    return `the rule that asks for them leaves some out`
  if (!text.includes(' --seconds ')) return 'the rule that asks for them knows no end'
  const dice = chain.lines
    .slice(0, at)
    .some(({text: before}) => /-m statistic|-j KUBE-SEP-/.test(before) && !RECENT.test(before))
  return dice ? 'the rule that asks for them stands behind the one that rolls dice' : undefined
}

/** The Service that the endpoint's chain is of, as its comments say. */
const ownerOf = (list: string, chains: ReadonlyMap<string, IptablesChain>): string | undefined =>
  chains.get(list)?.lines.flatMap(({text}) => COMMENTED.exec(text)?.[1] ?? [])[0]
