/** Base chains of one hook and priority: what the dump does not tell is one question, asked in one way. */
import {expect} from 'chai'
import {fate} from '../../helpers/node.js'

const chain = (table: string, rule: string): string =>
  `table ip ${table} {\n\tchain c {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\t${rule}\n\t}\n}\n`
const DNAT = chain('t1', 'ip daddr 192.0.2.11 tcp dport 80 dnat to 10.1.1.2:8080')
const MARK = chain('t2', 'ip daddr 192.0.2.11 meta mark set 0x1')

describe('nat chains whose order no dump tells', () => {
  for (const [name, nft] of [
    ['translates, marks', DNAT + MARK],
    ['marks, translates', MARK + DNAT],
  ] as const)
    it(`one ${name}: both orders deliver`, () => {
      const {outcomes} = fate({nft, ss: ''}, {to: '192.0.2.11:80'})
      expect(outcomes).to.deep.equal({delivered: 1})
    })
})
