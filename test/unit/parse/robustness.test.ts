import {expect} from 'chai'
import fc from 'fast-check'
import * as iproute from '../../../src/parse/iproute.js'
import {parseIpsetList, parseIpsetSave} from '../../../src/parse/ipset.js'
import {parseIptablesList} from '../../../src/parse/iptables-list.js'
import {parseIptablesSave, type IptablesDump} from '../../../src/parse/iptables.js'
import {parseIpvsList, parseIpvsSave, parseProcIpvs} from '../../../src/parse/ipvs.js'
import {locateNftRules, parseNftText} from '../../../src/parse/nft-text.js'
import {parseNftJson} from '../../../src/parse/nft.js'
import {parseConntrack, parseSockets, parseSysctl} from '../../../src/parse/system.js'
import * as dumps from './dumps.js'

/** Rules are parsed when first walked. */
function walked(dump: IptablesDump): IptablesDump {
  for (const table of dump.tables.values())
    for (const chain of table.chains.values()) expect(chain.rules.length).to.equal(chain.length)
  return dump
}

interface Form {
  readonly sample: string
  readonly parse: (text: string) => {readonly problems: readonly {file: string; line: number; message: string}[]}
}

const FORMS: Readonly<Record<string, Form>> = {
  'iptables-save': {sample: dumps.SAVE_TEXT, parse: (text) => walked(parseIptablesSave(text, 'f'))},
  'iptables -L': {sample: dumps.LIST_TEXT, parse: (text) => walked(parseIptablesList(text, 'f'))},
  'ipset save': {sample: dumps.IPSET_SAVE_TEXT, parse: (text) => parseIpsetSave(text, 'f')},
  'ipset list': {sample: dumps.IPSET_LIST_TEXT, parse: (text) => parseIpsetList(text, 'f')},
  'ipvsadm -Ln': {sample: dumps.IPVS_TEXT, parse: (text) => parseIpvsList(text, 'f')},
  'ipvsadm -Sn': {sample: dumps.IPVS_SAVE_TEXT, parse: (text) => parseIpvsSave(text, 'f')},
  '/proc/net/ip_vs': {sample: dumps.PROC_IPVS_TEXT, parse: (text) => parseProcIpvs(text, 'f')},
  'nft text': {sample: dumps.NFT_TEXT, parse: (text) => parseNftText(text, 'f')},
  'nft JSON': {
    sample:
      '{"nftables":[{"table":{"family":"ip","name":"t"}},{"chain":{"family":"ip","table":"t","name":"c","type":"nat","hook":"input","prio":-100,"policy":"accept"}},{"rule":{"family":"ip","table":"t","chain":"c","expr":[{"drop":null}]}},{"map":{"family":"ip","table":"t","name":"m","type":["ipv4_addr","inet_proto"],"map":"verdict","elem":[[{"concat":["10.0.0.1","tcp"]},{"drop":null}]]}}]}',
    parse: (text) => {
      const ruleset = parseNftJson(text, 'f')
      locateNftRules(ruleset, dumps.NFT_TEXT, 'f')
      return ruleset
    },
  },
  'ip addr': {sample: dumps.ADDR_JSON, parse: (text) => iproute.parseAddresses(text, 'f')},
  'ip link': {sample: dumps.ADDR_JSON, parse: (text) => iproute.parseLinks(text, 'f')},
  'ip route': {sample: dumps.ROUTE_JSON, parse: (text) => iproute.parseRoutes(text, 'f')},
  'ip rule': {sample: dumps.RULE_JSON, parse: (text) => iproute.parsePolicyRules(text, 'f')},
  'ip neigh': {
    sample: '[{"dst":"10.0.0.1","dev":"eth0","lladdr":"aa:bb:cc:dd:ee:ff","state":["STALE"]}]',
    parse: (text) => iproute.parseNeighbours(text, 'f'),
  },
  'bridge fdb': {
    sample: '[{"mac":"aa:bb:cc:dd:ee:ff","ifname":"veth1","master":"cni0"}]',
    parse: (text) => iproute.parseBridgeFdb(text, 'f'),
  },
  sysctl: {sample: dumps.SYSCTL_TEXT, parse: (text) => parseSysctl(text, 'f')},
  ss: {sample: dumps.SS_TEXT, parse: (text) => parseSockets(text, 'f')},
  conntrack: {sample: dumps.CONNTRACK_TEXT, parse: (text) => parseConntrack(text, 'f')},
}

type Mutation = (text: string) => string
const spot = fc.double({min: 0, max: 1, noNaN: true})
const junk = fc.oneof(
  fc.string({maxLength: 12, unit: 'binary'}),
  fc.constantFrom(
    '"',
    '{',
    '}',
    '\n',
    ' ',
    '\\',
    '!',
    '....',
    '[sudo] password for x: ',
    '\r\n',
    'x.x.x.x/32',
    '--',
    '-A ',
    ':',
    ',',
    '你好',
    '\u0000',
    'null',
    '__proto__',
  ),
)
const at = (text: string, where: number): number => Math.floor(where * text.length)
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  spot.map(
    (where): Mutation =>
      (text) =>
        text.slice(0, at(text, where)),
  ),
  spot.map(
    (where): Mutation =>
      (text) =>
        text.slice(at(text, where)),
  ),
  fc.tuple(spot, junk).map(
    ([where, what]): Mutation =>
      (text) =>
        text.slice(0, at(text, where)) + what + text.slice(at(text, where)),
  ),
  fc.tuple(spot, fc.integer({min: 1, max: 40})).map(
    ([where, length]): Mutation =>
      (text) =>
        text.slice(0, at(text, where)) + text.slice(at(text, where) + length),
  ),
  spot.map(
    (where): Mutation =>
      (text) =>
        text
          .split('\n')
          .filter((_, line, all) => line !== Math.floor(where * all.length))
          .join('\n'),
  ),
  fc.constant<Mutation>((text) => text.replaceAll('\n', ' ')),
  fc.constant<Mutation>((text) => text + text),
  fc.constant<Mutation>((text) => text.replace(/.{60}/g, '$&\n')),
  fc.constantFrom('null', '7', '"x"', '[]', '{}', '[null]', 'true').map(
    (value): Mutation =>
      (text) =>
        text.replace(/:("[^"]*"|\[[^\]]*\]|\d+)/, `:${value}`),
  ),
)

describe('parse: no mutation of a real dump makes a parser throw', () => {
  for (const [name, {sample, parse}] of Object.entries(FORMS)) {
    it(`${name}: the sample itself is understood`, () => expect(parse(sample).problems).to.deep.equal([]))

    it(name, () => {
      fc.assert(
        fc.property(fc.array(mutation, {minLength: 1, maxLength: 4}), (steps) => {
          const text = steps.reduce((changed, step) => step(changed), sample)
          const lines = text.split('\n').length
          for (const {file, line, message} of parse(text).problems) {
            expect([file, message === '']).to.deep.equal(['f', false])
            expect(line).to.be.within(0, lines)
          }
        }),
        {numRuns: 200},
      )
    })

    it(`${name}: JSON of any shape and text of any kind`, () => {
      fc.assert(
        fc.property(
          fc.oneof(
            fc.json(),
            fc.json().map((text) => `[${text}]`),
            fc.json().map((text) => `{"nftables":[{"rule":${text}},{"set":${text}},{"chain":${text}}]}`),
            fc.string({unit: 'binary'}),
          ),
          (text) => {
            expect(parse(text).problems).to.be.an('array')
          },
        ),
        {numRuns: 100},
      )
    })
  }

  const heavy: readonly (readonly [string, string])[] = [
    ['quotes', '"'.repeat(20000)],
    ['open braces', '{ '.repeat(2000)],
    ['blanks', ' '.repeat(50000)],
    ['one long word', 'a'.repeat(50000)],
    ['colons', ':'.repeat(20000)],
    ['lines without an end', `-A X -m comment --comment "a\n${'b\n'.repeat(5000)}`],
    ['an open set', `table ip t {\nset s {\nelements = { 1,\n${'2,\n'.repeat(5000)}`],
    [
      'headerless chains',
      Array.from({length: 1500}, (_, number) => `-A C${number} -j C${number + 1}`)
        .reverse()
        .join('\n'),
    ],
  ]
  for (const [what, text] of heavy) {
    it(`ends quickly: ${what}`, () => {
      const start = performance.now()
      for (const {parse} of Object.values(FORMS)) parse(text)
      expect(performance.now() - start).to.be.below(2500)
    })
  }

  const long: readonly (readonly [string, string])[] = [
    [
      '6,000 headerless chains',
      [...Array.from({length: 6000}, (_, number) => `-A C${number} -j C${number + 1}`), '-A C6000 -j DNAT'].join('\n'),
    ],
    ['8,000 lines behind an open quote', `*nat\n-A X -m comment --comment "a\n${'b b b b b b b b\n'.repeat(8000)}`],
  ]
  for (const [what, text] of long) {
    it(`reads iptables-save in linear time: ${what}`, () => {
      const start = performance.now()
      parseIptablesSave(text, 'f')
      expect(performance.now() - start).to.be.below(1000)
    })
  }
})
