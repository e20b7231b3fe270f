import type {IptablesDump} from '../parse/iptables.js'
import type {NftTable} from '../parse/nft.js'
import type {NodeState} from '../snapshot/node-state.js'
import type {Family} from '../util/ip.js'

/** Whether any rule of this family may refuse packets, wherever it stands; asked of their texts, understood or not. */
export function anyRefuses(state: NodeState, family: Family): boolean {
  const other = family === 4 ? 'ip6' : 'ip'
  const tables = [...(state.nft?.tables.values() ?? [])].filter((table) => table.family !== other)
  return state.iptables(family).some(iptablesRefuses) || tables.some(nftRefuses)
}

const REFUSES = /reject/i

const iptablesRefuses = ({tables}: IptablesDump): boolean =>
  [...tables.values()].some(({chains}) =>
    [...chains.values()].some((chain) => chain.lines.some(({text}) => REFUSES.test(text))),
  )

const nftRefuses = ({chains}: NftTable): boolean =>
  [...chains.values()].some(({rules}) => rules.some(({text}) => REFUSES.test(text)))
