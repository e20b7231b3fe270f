import {expect} from 'chai'
import {birthOf, inKnownOrder, registeredLater} from '../../../src/dataplane/registration.js'
import type {BaseChain} from '../../../src/dataplane/machine.js'
import {parseNftJson} from '../../../src/parse/nft.js'
import {parseNftText} from '../../../src/parse/nft-text.js'

const chain = (table: number, handle: number, first: boolean): BaseChain => ({
  name: `${table} ${handle}`,
  type: 'filter',
  priority: 0,
  empty: false,
  run: () => 'accept',
  born: {table, chain: handle, first},
})
const legacy: BaseChain = {name: 'legacy', type: 'filter', priority: 0, empty: false, run: () => 'accept'}

describe('which of two chains of one priority is the younger', () => {
  for (const [what, one, other, wanted] of [
    ['in one table the handles of the chains tell', chain(1, 9, false), chain(1, 4, false), true],
    ['of two tables the older one’s chain must be as old as its table', chain(2, 1, false), chain(1, 1, true), true],
    ['… seen from the other side', chain(1, 1, true), chain(2, 1, false), false],
    ['else it may have come later than the younger table', chain(2, 1, true), chain(1, 7, false), undefined],
    ['a chain of the legacy backend has no handle', chain(2, 1, true), legacy, undefined],
  ] as const)
    it(what, () => expect(registeredLater(one, other)).to.equal(wanted))

  it('an order is known where every pair is', () => {
    const group = [chain(1, 1, true), chain(3, 1, true), chain(2, 1, true)]
    expect(inKnownOrder(group)?.map(({name}) => name)).to.deep.equal(['3 1', '2 1', '1 1'])
    expect(inKnownOrder([...group, legacy])).to.equal(undefined)
    expect(inKnownOrder([legacy])).to.deep.equal([legacy])
  })

  const object = (kind: string, name: string, handle: number): object => ({
    [kind]: {family: 'ip', table: 't', name, handle},
  })
  const births = (...objects: object[]): unknown => {
    const nftables = [{table: {family: 'ip', name: 't', handle: 5}}, ...objects]
    return birthOf(parseNftJson(JSON.stringify({nftables}), 'f').tables.get('ip t')!, 'c').born
  }
  it('a chain is as old as its table when nothing is missing below its handle', () => {
    expect(births(object('set', 's', 1), object('chain', 'b', 2), object('chain', 'c', 3))).to.deep.equal({
      table: 5,
      chain: 3,
      first: true,
    })
    // 2 was something that is gone, maybe a rule
    expect(births(object('set', 's', 1), object('chain', 'c', 3))).to.deep.equal({table: 5, chain: 3, first: false})
  })
  it('text tells handles with -a only', () => {
    const born = (text: string): unknown => birthOf(parseNftText(text, 'f').tables.get('ip t')!, 'c').born
    expect(born('table ip t { # handle 5\n\tchain c { # handle 1\n\t}\n}\n')).to.deep.equal({
      table: 5,
      chain: 1,
      first: true,
    })
    expect(born('table ip t {\n\tchain c {\n\t}\n}\n')).to.equal(undefined)
  })
})
