/** Who a step sends a packet to is compared as an address and a port, never as words. */
import {expect} from 'chai'
import {isDestinationNat, isSourceNat, isTranslation, leadsTo} from '../../../src/checks/hops.js'
import type {Hop} from '../../../src/model/trace.js'
import type {ServiceEndpoint} from '../../../src/intent/endpoints.js'
import {parseAddress} from '../../../src/util/ip.js'

const hop = (more: Partial<Hop>): Hop => ({node: 'n1', kind: 'nat', what: 'x', reply: false, depth: 0, ...more})
const endpoint = (address: string, port: number): ServiceEndpoint => ({
  address: parseAddress(address)!,
  port,
  ready: true,
  serving: true,
  terminating: false,
  zoneHints: [],
  nodeHints: [],
})

describe('steps of a way', () => {
  for (const [destination, address, port, expected] of [
    ['10.244.1.1:80', '10.244.1.1', 80, true],
    ['10.244.1.1:8080', '10.244.1.1', 80, false],
    ['110.244.1.1:80', '10.244.1.1', 80, false],
    ['[fd00::1]:80', 'fd00::1', 80, true],
    ['[fd00::1]:80', 'fd00::', 80, false],
  ] as const)
    it(`DNAT to ${destination} ${expected ? 'leads' : 'does not lead'} to ${address}, port ${port}`, () => {
      const step = hop({destination, what: `DNAT to ${destination}`})
      expect(leadsTo(step, endpoint(address, port))).to.equal(expected)
      expect(leadsTo({...step, reply: true}, endpoint(address, port))).to.equal(false)
    })

  it('tells the kinds of translation apart', () => {
    const kinds = (step: Hop): boolean[] => [isDestinationNat(step), isSourceNat(step), isTranslation(step)]
    expect(kinds(hop({destination: '10.0.0.1:1'}))).to.deep.equal([true, false, true])
    expect(kinds(hop({source: '10.0.0.1'}))).to.deep.equal([false, true, false])
    expect(kinds(hop({kind: 'ipvs'}))).to.deep.equal([false, false, true])
    expect(kinds(hop({what: 'an existing conntrack entry decides, not the rules'}))).to.deep.equal([
      false,
      false,
      false,
    ])
  })
})
