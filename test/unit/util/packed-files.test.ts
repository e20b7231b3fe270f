import {expect} from 'chai'
import fc from 'fast-check'
import {PackedFiles, sharer} from '../../../src/util/packed-files.js'

describe('files that are kept compressed', () => {
  const texts = fc.dictionary(
    fc.string({minLength: 1, unit: 'grapheme'}),
    fc.tuple(fc.string({unit: 'grapheme'}), fc.integer({min: 1, max: 2000})).map(([text, times]) => text.repeat(times)),
    {noNullPrototype: true},
  )

  it('are the map that they were made of, in its order', () =>
    fc.assert(
      fc.property(texts, (own) => {
        const plain = new Map(Object.entries(own))
        const packed = new PackedFiles(plain)
        expect([...packed]).to.deep.equal([...plain])
        expect([...packed.values()]).to.deep.equal([...plain.values()])
        expect(packed.size).to.equal(plain.size)
        const seen = new Map<string, string>()
        packed.forEach((text, name) => seen.set(name, text))
        expect(seen).to.deep.equal(plain)
        expect(packed.get('no such file')).to.equal(undefined)
      }),
      {numRuns: 50},
    ))

  it('move into a folder of others', () => {
    const long = 'a rule\n'.repeat(1000)
    const all = new PackedFiles([['snapshot.json', '{}']])
    all.adopt('nodes/a/', new PackedFiles([['ss.txt', 'short'], ['iptables-save.txt', long]])) // prettier-ignore
    expect([...all.keys()]).to.deep.equal(['snapshot.json', 'nodes/a/ss.txt', 'nodes/a/iptables-save.txt'])
    expect(all.get('nodes/a/iptables-save.txt')).to.equal(long)
    expect(all.has('ss.txt')).to.equal(false)
  })

  it('equal lines are shared as they are', () =>
    fc.assert(
      fc.property(fc.array(fc.string({unit: 'grapheme'})), (lines) => {
        const share = sharer()
        expect([...lines, ...lines].map(share)).to.deep.equal([...lines, ...lines])
      }),
    ))
})
