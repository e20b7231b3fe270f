import {expect} from 'chai'
import fc from 'fast-check'
import {splitWords} from '../../../src/parse/tokens.js'

const split = (line: string): {words: readonly string[]; quoted: number[]; closed: boolean} => {
  const {words, quoted, closed} = splitWords(line)
  return {words, quoted: [...quoted], closed}
}

describe('parse/tokens', () => {
  const cases: readonly (readonly [string, readonly string[], readonly number[], boolean])[] = [
    ['-A X -j Y', ['-A', 'X', '-j', 'Y'], [], true],
    ['  a   b ', ['a', 'b'], [], true],
    ['a "b c" d', ['a', 'b c', 'd'], [1], true],
    ['a ""', ['a', ''], [1], true],
    ['a "b\\"c" d', ['a', 'b"c', 'd'], [1], true],
    ['a "b\\\\" d', ['a', 'b\\', 'd'], [1], true],
    ['a "b"c"d e" f', ['a', 'bcd e', 'f'], [1], true],
    ['a b"c d" e', ['a', 'bc d', 'e'], [1], true],
    ['a "b c', ['a', 'b c'], [1], false],
    ['a "b\tc"\td', ['a', 'b\tc', 'd'], [1], true],
  ]
  for (const [line, words, quoted, closed] of cases)
    it(JSON.stringify(line), () => expect(split(line)).to.deep.equal({words, quoted, closed}))

  it('gives back whatever was quoted', () =>
    fc.assert(
      fc.property(fc.array(fc.string({maxLength: 8}), {maxLength: 6}), (words) => {
        const line = words.map((word) => `"${word.replaceAll(/["\\]/g, '\\$&')}"`).join(' ')
        expect(split(line)).to.deep.equal({words, quoted: words.map((_, at) => at), closed: true})
      }),
    ))
})
