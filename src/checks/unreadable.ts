import type {IptablesChain} from '../parse/iptables.js'
import type {NftRule} from '../parse/nft.js'
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
    ({text}, chain) =>
      OF_PORTS.test(chain.name) &&
      (chain.isReadyMade ? LISTED_WITHOUT_PORT : LACKS_PORT).test(text) &&
      !isConfirmed(chain, inNft(state, family, chain)),
  )

/** What nft shows of the same chain, where it shows as many rules. */
function inNft(state: NodeState, family: Family, {table, name, length}: IptablesChain): readonly NftRule[] | undefined {
  const rules = state.nft?.tables.get(`${family === 6 ? 'ip6' : 'ip'} ${table}`)?.chains.get(name)?.rules
  return rules?.length === length ? rules : undefined
}

/** nft says the same: the rule is whole, and somebody wrote it so. */
const isConfirmed = (chain: IptablesChain, rules: readonly NftRule[] | undefined): boolean =>
  rules !== undefined && lostIn(chain, rules) === undefined

/** The first of them. */
export const lossyRule = (state: NodeState, family: Family): RuleLine | undefined =>
  lossyRules(state, family)[0] ?? nftKnowsMore(state, family)

/** What nft shows of the same rule, and iptables does not. */
const ASKED = [/\bmark\b/, /\b[ds]port\b/, /\btcp flags\b|"field": ?"flags"/] as const
const SAVED = [/mark\b/, /\b[ds]?ports?\b|\b[ds]pts?:/, /flags\b|--syn\b/] as const

/** More rules of nft's ask for a mark or a port than rules of iptables'. Counted, since the chain may have been written anew between the two. */
function lostIn(chain: IptablesChain, rules: readonly NftRule[]): {line: number; text: string} | undefined {
  const said = rules.map(({text}) => (/^[[{]/.test(text) ? text : text.replaceAll(/"[^"]*"/g, '')))
  for (const [which, asked] of ASKED.entries()) {
    const saved = chain.lines.map(({text}) => SAVED[which]!.test(text))
    const wanted = said.map((text) => asked.test(text))
    if (wanted.filter(Boolean).length <= saved.filter(Boolean).length) continue
    const {line, text} = chain.lines.find((_, at) => wanted[at] && !saved[at]) ?? chain.lines[0]!
    return {line, text}
  }
  return undefined
}

/** iptables-nft and nft show the same tables: a match that only nft has was lost. */
function nftKnowsMore(state: NodeState, family: Family): RuleLine | undefined {
  for (const {file, backend, tables} of state.nft ? state.iptables(family) : [])
    for (const {chains} of backend === 'nft' ? tables.values() : [])
      for (const chain of chains.values()) {
        const rules = inNft(state, family, chain)
        const lost = rules && lostIn(chain, rules)
        if (lost) return {file, ...lost}
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
