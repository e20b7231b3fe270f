import type {NftTable} from '../parse/nft.js'
import type {BaseChain} from './machine.js'

/** Handles are counted up (nf_tables_api.c): they tell which of two chains is the younger. */
export interface Born {
  readonly table: number
  readonly chain: number
  /** Nothing that is gone was made in its table before it, and no rule: it was made with its table. */
  readonly first: boolean
}

/**
 * Whether `chain` was registered after `other`, and so runs before it at the same priority (nf_hook_entries_grow); undefined:
 * the dumps do not tell.
 */
export function registeredLater({born}: BaseChain, {born: other}: BaseChain): boolean | undefined {
  if (!born || !other) return undefined
  if (born.table === other.table) return born.chain > other.chain
  const older = born.table < other.table ? born : other
  return older.first ? older === other : undefined
}

/** Youngest first, where the dump tells the age of all. */
export function inKnownOrder(group: readonly BaseChain[]): readonly BaseChain[] | undefined {
  if (group.length === 1) return group
  const known = group.every((one) => group.every((other) => one === other || registeredLater(one, other) !== undefined))
  return known ? [...group].sort((a, b) => (registeredLater(a, b) ? -1 : 1)) : undefined
}

/** When a chain was made, as its handles say. */
export function birthOf({handle: table, chains, sets}: NftTable, name: string): Pick<BaseChain, 'born'> {
  const chain = chains.get(name)?.handle
  if (table === undefined || chain === undefined) return {}
  const before = [...chains.values(), ...sets.values()].filter(({handle}) => handle !== undefined && handle < chain)
  return {born: {table, chain, first: before.length === chain - 1}}
}
