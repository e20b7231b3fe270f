import {expect} from 'chai'
import {selectV6} from '../../../src/dataplane/source-address.js'
import {parseAddresses} from '../../../src/parse/iproute.js'
import {formatAddress, parseAddress} from '../../../src/util/ip.js'

type Info = [device: string, local: string, prefixlen: number, more?: object]

function chosen(dst: string, device: string, ...infos: Info[]): string | undefined {
  const text = JSON.stringify(
    infos.map(([ifname, local, prefixlen, more = {}]) => ({
      ifname,
      addr_info: [{family: 'inet6', local, prefixlen, scope: local.startsWith('fe80') ? 'link' : 'global', ...more}],
    })),
  )
  const address = selectV6(parseAddresses(text, 'ip-addr.json').value, {device, dst: parseAddress(dst)})
  return address === undefined ? undefined : formatAddress(address)
}

/** RFC 6724 section 5, as net/ipv6/addrconf.c has it. */
const CASES: [rule: string, dst: string, device: string, infos: Info[], wanted: string | undefined][] = [
  [
    '1: the destination itself',
    'fd00::9',
    'eth0',
    [
      ['eth0', 'fd00::1', 64],
      ['eth1', 'fd00::9', 64],
    ],
    'fd00::9',
  ],
  [
    '2: a global one for a global destination',
    '2001:db8::1',
    'eth0',
    [
      ['eth0', 'fe80::1', 64],
      ['eth1', '2001:db8:1::1', 64],
    ],
    '2001:db8:1::1',
  ],
  [
    '3: not a deprecated one',
    '2001:db8::7',
    'eth0',
    [
      ['eth0', '2001:db8::99', 128, {deprecated: true}],
      ['eth0', '2001:db8::11', 64],
    ],
    '2001:db8::11',
  ],
  [
    '3: a deprecated one where there is no other',
    '2001:db8::7',
    'eth0',
    [['eth0', '2001:db8::99', 128, {deprecated: true}]],
    '2001:db8::99',
  ],
  [
    '5: of the outgoing device',
    '2001:db8::7',
    'eth1',
    [
      ['eth0', '2001:db8::1', 64],
      ['eth1', '2001:db8:9::1', 64],
    ],
    '2001:db8:9::1',
  ],
  [
    '6: of the same label',
    'fd00:1::7',
    'eth0',
    [
      ['eth0', '2001:db8::1', 64],
      ['eth0', 'fd00:9::1', 64],
    ],
    'fd00:9::1',
  ],
  [
    '8: the longest prefix in common',
    '2001:db8:5::7',
    'eth0',
    [
      ['eth0', '2001:db8:1::1', 64],
      ['eth0', '2001:db8:5::1', 64],
    ],
    '2001:db8:5::1',
  ],
  ['a tentative address is none', '2001:db8::7', 'eth0', [['eth0', '2001:db8::1', 64, {tentative: true}]], undefined],
  ['nor is a duplicate', '2001:db8::7', 'eth0', [['eth0', '2001:db8::1', 64, {dadfailed: true}]], undefined],
]

describe('IPv6 source addresses', () => {
  for (const [rule, dst, device, infos, wanted] of CASES)
    it(`rule ${rule}`, () => expect(chosen(dst, device, ...infos)).to.equal(wanted))
})
