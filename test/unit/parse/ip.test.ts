import {expect} from 'chai'
import fc from 'fast-check'
import ipaddr from 'ipaddr.js'
import * as ip from '../../../src/util/ip.js'

const v4 = fc.integer({min: 0, max: 2 ** 32 - 1})
const v6 = fc.bigInt({min: 0n, max: (1n << 128n) - 1n})
const address: fc.Arbitrary<ip.Address> = fc.oneof(v4, v6)
const length = (one: ip.Address): number => (typeof one === 'number' ? 32 : 128)
const prefix = fc
  .tuple(address, fc.integer({min: 0, max: 128}))
  .map(([one, bits]) => ({address: one, length: bits % (length(one) + 1)}))
const order = (a: ip.Address, b: ip.Address): ip.Range => ({lo: a <= b ? a : b, hi: a <= b ? b : a})
const range4 = fc.tuple(fc.integer({min: 0, max: 40}), fc.integer({min: 0, max: 40})).map(([a, b]) => order(a, b))
const range6 = range4.map(({lo, hi}) => ({lo: BigInt(lo), hi: BigInt(hi)}))
const check = (property: fc.IRawProperty<unknown>): void => void fc.assert(property, {numRuns: 300})
const members = (ranges: readonly ip.Range[]): string[] =>
  ranges
    .flatMap(({lo, hi}) =>
      Array.from({length: Number(hi) - Number(lo) + 1}, (_, at) => `${typeof lo} ${Number(lo) + at}`),
    )
    .sort()

describe('util/ip against ipaddr.js', () => {
  it('parses and prints addresses', () => {
    check(
      fc.property(address, (one) => {
        const text = ip.formatAddress(one)
        expect(ip.parseAddress(text)).to.equal(one)
        const oracle = ipaddr.parse(text)
        expect(oracle.toByteArray().reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n)).to.equal(BigInt(one))
        expect(oracle instanceof ipaddr.IPv6 ? oracle.toRFC5952String() : oracle.toString()).to.equal(text)
        expect(ip.familyOf(one)).to.equal(oracle.kind() === 'ipv4' ? 4 : 6)
      }),
    )
  })

  it('parses what fast-check writes, in any spelling', () => {
    check(
      fc.property(fc.ipV4(), (text) => {
        expect(ip.formatAddress(ip.parseAddress(text)!)).to.equal(ipaddr.parse(text).toString())
      }),
    )
    // ipaddr.js takes ::1.2.3.4 for ::ffff:1.2.3.4; the URL parser of Node is the oracle here
    check(
      fc.property(fc.ipV6(), (text) => {
        expect(`[${ip.formatAddress(ip.parseAddress(text)!)}]`).to.equal(new URL(`http://[${text}]`).hostname)
      }),
    )
  })

  const spellings: readonly (readonly [string, string | undefined])[] = [
    ['[fd00::1]', 'fd00::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::', '::'],
    ['FD00:0:0:0::1', 'fd00::1'],
    ['', undefined],
    ['10.0.0', undefined],
    ['10.0.0.256', undefined],
    ['10.0.0.1.2', undefined],
    ['10..0.1', undefined],
    ['10.0.0.1 ', undefined],
    ['x.x.x.x', undefined],
    ['10.0.0.', undefined],
    [':::', undefined],
    ['1::2::3', undefined],
    [':1:2:3:4:5:6:7', undefined],
    ['1:2:3:4:5:6:7:8:9', undefined],
    ['12345::', undefined],
    ['[::1', undefined],
    ['0x10.0.0.1', undefined],
    ['-1.0.0.0', undefined],
  ]
  for (const [text, wanted] of spellings) {
    it(`"${text}" is ${wanted ?? 'no address'}`, () => {
      const parsed = ip.parseAddress(text)
      expect(parsed === undefined ? undefined : ip.formatAddress(parsed)).to.equal(wanted)
    })
  }

  it('prefixes hold what ipaddr.js matches', () => {
    check(
      fc.property(prefix, fc.nat({max: 300}), (net, offset) => {
        const range = ip.prefixRange(net.address, net.length)
        const cidr = ipaddr.parseCIDR(`${ip.formatAddress(net.address)}/${net.length}`)
        const limit = typeof net.address === 'number' ? ip.ANY_IPV4 : ip.ANY_IPV6
        for (const base of [net.address, range.lo, range.hi]) {
          for (const by of [offset, -offset, 1, -1]) {
            const other = typeof base === 'number' ? base + by : base + BigInt(by)
            if (other < limit.lo || other > limit.hi) continue
            expect(ip.inRange(other, range)).to.equal(ipaddr.parse(ip.formatAddress(other)).match(cidr))
          }
        }
        expect(ip.parseRange(`${ip.formatAddress(net.address)}/${net.length}`)).to.deep.equal(range)
        expect(ip.parseRange(ip.formatRange(range))).to.deep.equal(range)
      }),
    )
  })

  it('netmasks say the same as lengths', () => {
    for (let bits = 0; bits <= 32; bits++) {
      const mask = ipaddr.IPv4.subnetMaskFromPrefixLength(bits).toString()
      expect(ip.maskLength(ip.parseAddress(mask)!)).to.equal(bits)
      expect(ip.parseRange(`10.1.2.3/${mask}`)).to.deep.equal(ip.parseRange(`10.1.2.3/${bits}`))
    }
    check(
      fc.property(v4, (mask) => {
        expect(ip.maskLength(mask)).to.equal(
          ipaddr.IPv4.parse(ip.formatAddress(mask)).prefixLengthFromSubnetMask() ?? undefined,
        )
      }),
    )
  })

  for (const text of [
    '10.0.0.0/33',
    'fd00::/129',
    '10.0.0.0/',
    '10.0.0.0/x',
    '/8',
    '10.0.0.9-10.0.0.1',
    '10.0.0.1-fd00::1',
    '10.0.0.0/255.0.255.0',
    '10.0.0.0/ffff::',
    'x.x.x.x/32',
    '10.0.0.1/8/8',
    '',
  ]) {
    it(`"${text}" is no range`, () => expect(ip.parseRange(text)).to.equal(undefined))
  }

  it('endpoints', () => {
    check(
      fc.property(address, fc.integer({min: 0, max: 65535}), (one, port) => {
        expect(ip.parseEndpoint(ip.formatEndpoint(one, port))).to.deep.equal({address: one, port})
      }),
    )
    for (const text of ['10.0.0.1', '10.0.0.1:', '10.0.0.1:65536', ':80', 'fd00::1:80', '10.0.0.1:http', '10.0.0.1:-1'])
      expect(ip.parseEndpoint(text), text).to.equal(undefined)
  })
})

describe('util/ip: ranges', () => {
  it('splitRanges parts a set exactly', () => {
    check(
      fc.property(fc.array(fc.oneof(range4, range6), {maxLength: 6}), fc.oneof(range4, range6), (ranges, by) => {
        const {inside, outside} = ip.splitRanges(ranges, by)
        expect([...members(inside), ...members(outside)].sort()).to.deep.equal(members(ranges))
        for (const range of inside) expect(ip.inRange(range.lo, by) && ip.inRange(range.hi, by)).to.equal(true)
        for (const range of outside)
          expect(typeof range.lo !== typeof by.lo || range.hi < by.lo || range.lo > by.hi).to.equal(true)
        expect(ip.countAddresses(inside) + ip.countAddresses(outside)).to.equal(ip.countAddresses(ranges))
      }),
    )
  })

  it('splitRanges at the ends of the address space', () => {
    for (const any of [ip.ANY_IPV4, ip.ANY_IPV6]) {
      expect(ip.splitRanges([any], any)).to.deep.equal({inside: [any], outside: []})
      expect(ip.splitRanges([any], ip.single(any.hi)).outside).to.have.length(1)
      expect(ip.splitRanges([any], ip.single(any.lo)).outside).to.have.length(1)
    }
  })

  for (const [families, range] of [
    ['one family', range4],
    ['both families', fc.oneof(range4, range6)],
  ] as const)
    it(`normalizeRanges keeps the members, sorted, apart and joined: ${families}`, () => {
      check(
        fc.property(fc.array(range, {maxLength: 8}), (ranges) => {
          const joined = ip.normalizeRanges(ranges)
          expect([...new Set(members(ranges))]).to.deep.equal(members(joined))
          for (const family of ['number', 'bigint']) {
            const own = joined.filter(({lo}) => typeof lo === family)
            own.slice(1).forEach(({lo}, at) => expect(Number(lo)).to.be.above(Number(own[at]!.hi) + 1))
          }
        }),
      )
    })

  it('loopback', () => {
    for (const [text, wanted] of [
      ['127.0.0.1', true],
      ['127.255.255.255', true],
      ['128.0.0.0', false],
      ['::1', true],
      ['::2', false],
    ] as const)
      expect(ip.isLoopback(ip.parseAddress(text)!)).to.equal(wanted)
  })
})
