import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {expect} from 'chai'
import {MATCHES} from '../../../src/dataplane/iptables-matches.js'
import {TARGETS} from '../../../src/dataplane/iptables-targets.js'
import {STATEMENTS} from '../../../src/dataplane/nft-program.js'
import {EXPRESSIONS} from '../../../src/dataplane/nft-values.js'
import {parseNftText} from '../../../src/parse/nft-text.js'
import {nativeTable} from '../../kernel/generate-nft.js'
import {Dice} from '../../kernel/grammar.js'

const KERNEL = join(import.meta.dirname, '../../kernel')
const read = (name: string): string => readFileSync(join(KERNEL, name), 'utf8')
const EXCUSED = JSON.parse(read('not-generated.json')) as Record<string, string>

/** Is a statement or expression in what the dice draw? Parsed, for its word alone stands in every other rule. */
function drawnNft(): (name: string) => boolean {
  const keys = new Set<string>()
  const look = (value: unknown): void => {
    if (Array.isArray(value)) value.forEach(look)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return
    for (const [key, item] of Object.entries(value)) {
      keys.add(key)
      look(item)
    }
  }
  const texts = Array.from({length: 300}, (_, seed) => nativeTable(new Dice(seed)))
  for (const text of texts)
    for (const {chains} of parseNftText(text, 'drawn').tables.values())
      for (const {rules} of chains.values()) rules.forEach(({statements}) => look(statements))
  const all = texts.join('\n')
  // what has a blank or signs in it is not taken for anything else; nft prints some of it in other words than it reads
  return (name) => keys.has(name) || (!/^\w+$/.test(name) && all.includes(name))
}

/** Everything that the engine claims to model, and how it looks in what the oracles generate. */
function claims(): {name: string; generated: boolean}[] {
  const iptables = ['generate.ts', 'ipvs/generate.ts', 'ipv6.ts'].map(read).join('\n')
  const nft = drawnNft()
  const matches = Object.entries(MATCHES).flatMap(([name, module]) => {
    const known = name === 'tcp' || name === 'udp' || new RegExp(`-m ${name}\\b`).test(iptables)
    const options = typeof module === 'object' && known ? Object.keys(module) : []
    return [
      {name: `-m ${name}`, generated: known},
      ...options.map((option) => ({name: `--${option}`, generated: hasWord(iptables, option)})),
    ]
  })
  return [
    ...matches,
    ...Object.keys(TARGETS).map((name) => ({
      name: `-j ${name}`,
      generated: new RegExp(`\\b${name}\\b`).test(iptables),
    })),
    ...Object.keys(STATEMENTS).map((name) => ({name: `nft ${name}`, generated: nft(name)})),
    ...Object.keys(EXPRESSIONS).map((name) => ({name: `nft expr ${name}`, generated: nft(name)})),
  ]
}

/** `--ctorigsrcport` may be generated from `--[ctorigsrcport¦ctrepldstport]`, `--dst-type` from `--[src¦dst]-type`. */
const hasWord = (text: string, word: string): boolean =>
  text.includes(word) || (/^(src|dst)-type$/.test(word) && text.includes('[src¦dst]-type'))

describe('what the engine claims to model', () => {
  it('is drawn by the kernel oracles, or is excused with a reason', () => {
    const open = claims().filter(({name, generated}) => !generated && !(name in EXCUSED))
    expect(open.map(({name}) => name)).to.deep.equal([])
  })

  it('is excused only where it is not drawn', () => {
    const all = claims()
    for (const name of Object.keys(EXCUSED))
      expect(
        all.some((claim) => claim.name === name && !claim.generated),
        name,
      ).to.equal(true)
  })
})
