import {expect} from 'chai'
import {parseIptablesList} from '../../src/parse/iptables-list.js'
import {parseRule, printRule} from '../../src/parse/iptables-rule.js'
import {parseIptablesSave} from '../../src/parse/iptables.js'
import {parseIpsetSave} from '../../src/parse/ipset.js'
import {parseIpvsSave} from '../../src/parse/ipvs.js'
import {parseNftText} from '../../src/parse/nft-text.js'
import {parseNftJson, type NftObject} from '../../src/parse/nft.js'
import {corpusFiles} from '../helpers/corpus.js'

const endingIn = async (name: string): Promise<[string, string][]> =>
  [...(await corpusFiles())].filter(([path]) => path.endsWith(`/${name}`))

describe('parsers on real dumps', () => {
  it('iptables-save: everything is understood, and printing a rule and parsing it again changes nothing', async () => {
    for (const [path, text] of await endingIn('iptables-save.txt')) {
      const dump = parseIptablesSave(text, path)
      for (const {chains} of dump.tables.values()) {
        for (const chain of chains.values()) {
          for (const rule of chain.rules) {
            const {table, number, file, line} = rule
            const again = parseRule(printRule(rule), {table, chain: rule.chain, number, file, line})
            expect({...again, text: ''}).to.deep.equal({...rule, text: ''})
          }
        }
      }
      expect(dump.problems, path).to.deep.equal([])
    }
  }).timeout(120_000)

  it('ipset, IPVS, iptables -L: no problems', async () => {
    for (const [path, text] of await endingIn('ipset-save.txt'))
      expect(parseIpsetSave(text, path).problems, path).to.deep.equal([])
    for (const [path, text] of await endingIn('ipvsadm-Sn.txt'))
      expect(parseIpvsSave(text, path).problems, path).to.deep.equal([])
    for (const [path, text] of await endingIn('iptables-nat-L.txt'))
      expect(parseIptablesList(text, path).problems, path).to.deep.equal([])
  })

  it('nft: the text says the same as the JSON', async () => {
    const files = await corpusFiles()
    const plain = (statements: readonly NftObject[]): string =>
      JSON.stringify(statements.filter((statement) => !('counter' in statement) && !('xt' in statement)))
        .replaceAll('{"reject":null}', '{"reject":{"type":"icmp","expr":"port-unreachable"}}')
        .replaceAll('"type":"icmpv6"', '"type":"icmp"')
        .replaceAll(/"flags":\["([a-z-]+)"\]/g, '"flags":"$1"')
    let compared = 0
    for (const [path, text] of await endingIn('nft.txt')) {
      const json = files.get(path.replace('.txt', '.json'))
      if (json === undefined) continue
      const read = parseNftText(text, path)
      expect(read.problems, path).to.deep.equal([])
      for (const [key, table] of parseNftJson(json, path).tables) {
        if (table.name !== 'kube-proxy') continue
        for (const [name, chain] of table.chains) {
          const other = read.tables.get(key)!.chains.get(name)!
          expect(
            other.rules.map(({statements}) => plain(statements)),
            `${path} ${name}`,
          ).to.deep.equal(chain.rules.map(({statements}) => plain(statements)))
          compared += chain.rules.length
        }
        for (const [name, set] of table.sets)
          expect(
            read.tables
              .get(key)!
              .sets.get(name)!
              .elements.map((element) => JSON.stringify([element.key, element.data])),
            `${path} ${name}`,
          ).to.have.members(set.elements.map((element) => JSON.stringify([element.key, element.data])))
      }
    }
    expect(compared).to.be.greaterThan(1000)
  }).timeout(120_000)
})
