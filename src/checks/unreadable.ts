import type {IptablesChain} from '../parse/iptables.js'
import type {NodeState} from '../snapshot/node-state.js'
import type {Family} from '../util/ip.js'

/**
 * Rules that a dump shows without all that they say. An iptables that is older than the one that wrote a rule prints
 * `[unsupported revision]`, or leaves a match out without a word: iptables-nft 1.8.7 loses `--dport` and `--mark` of rules that 1.8.8
 * and later have written.
 */

/** Chains whose rules for Services all name a port; one without it was printed by a tool that could not read it. */
const OF_PORTS = /^KUBE-(SERVICES|NODEPORTS|EXTERNAL-SERVICES)$/
const LACKS_PORT =
  /^(?=.* -p (tcp|udp|sctp) )(?=.* --comment "?[\w.-]+\/[\w.-]+)(?!.*(--dport|--dports|--match-set) ).* -j (KUBE-(SVC|EXT|XLB|FW|SVL)-|REJECT|DROP)/
/** The same in `iptables -L`: what it words for ports is `dpt:80`, `multiport dports`, `match-set`. */
const LISTED_WITHOUT_PORT =
  /(?:^|\s)(?:KUBE-(?:SVC|EXT|XLB|FW|SVL)-\S+|REJECT|DROP)\s+(?:tcp|udp|sctp|6|17|132)\s+--\s(?=.*\/\* [\w.-]+\/[\w.-]+)(?!.*(?:dpts?:|dports |match-set ))/

export interface RuleLine {
  readonly file: string
  readonly line: number
  readonly text: string
}

const incomplete = new WeakMap<NodeState, readonly RuleLine[]>()

/** Rules that the dump shows without all that they say: who is led by one may be led otherwise in truth. */
export function incompleteRules(state: NodeState): readonly RuleLine[] {
  let known = incomplete.get(state)
  if (!known) incomplete.set(state, (known = findIncomplete(state)))
  return known
}

/** What iptables-nft before 1.8.4 makes of the DNAT of a later one (kubernetes#114537). */
const PORT_ZERO = /--to-destination \S*:0( |$)/

const findIncomplete = (state: NodeState): RuleLine[] => [
  ...lossyRules(state, 4),
  ...lossyRules(state, 6),
  ...linesOf(state, [4, 6], ({text}) => text.includes('[unsupported revision]') || PORT_ZERO.test(text)),
]

/** Those that have lost something without a word: any other rule of the same dump may have, too. */
const lossyRules = (state: NodeState, family: Family): RuleLine[] =>
  linesOf(
    state,
    [family],
    ({text}, {name, isReadyMade}) => OF_PORTS.test(name) && (isReadyMade ? LISTED_WITHOUT_PORT : LACKS_PORT).test(text),
  )

/** The first of them. */
export const lossyRule = (state: NodeState, family: Family): RuleLine | undefined =>
  lossyRules(state, family)[0] ?? nftKnowsMore(state, family)

/** What nft shows of the same rule, and iptables does not. */
const ASKED = [/\bmark\b/, /\b[ds]port\b/, /\btcp flags\b|"field": ?"flags"/] as const
const SAVED = [/mark\b/, /\b[ds]?ports?\b|\b[ds]pts?:/, /flags\b|--syn\b/] as const

/** iptables-nft and nft show the same tables: a match that only nft has was lost. */
function nftKnowsMore(state: NodeState, family: Family): RuleLine | undefined {
  const tables = state.nft?.tables
  for (const dump of tables ? state.iptables(family) : [])
    for (const table of dump.backend === 'nft' ? dump.tables.values() : [])
      for (const chain of table.chains.values()) {
        const rules = tables!.get(`${family === 6 ? 'ip6' : 'ip'} ${table.name}`)?.chains.get(chain.name)?.rules ?? []
        if (rules.length !== chain.length) continue
        const lost = chain.lines.find(({text}, at) => {
          const words = rules[at]!.text
          const said = /^[[{]/.test(words) ? words : words.replaceAll(/"[^"]*"/g, '')
          return ASKED.some((asked, which) => asked.test(said) && !SAVED[which]!.test(text))
        })
        if (lost) return {file: dump.file, line: lost.line, text: lost.text}
      }
  return undefined
}

function linesOf(
  state: NodeState,
  families: readonly Family[],
  isWanted: (line: {readonly text: string}, chain: IptablesChain) => boolean,
): RuleLine[] {
  return families
    .flatMap((family) => state.iptables(family))
    .flatMap(({file, tables}) =>
      [...tables.values()].flatMap(({chains}) =>
        [...chains.values()].flatMap((chain) =>
          chain.lines.filter((line) => isWanted(line, chain)).map(({line, text}) => ({file, line, text})),
        ),
      ),
    )
}
