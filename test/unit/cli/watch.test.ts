import {expect} from 'chai'
import {makeFinding} from '../../../src/checks/finding.js'
import {changes, type Round} from '../../../src/cli/watch.js'

const at = new Date('2026-01-02T03:04:05Z')
const finding = (message: string): Round['findings'][number] =>
  makeFinding('node-not-programmed', {node: 'n1', services: ['d/web'], message, evidence: []})
const round = (findings: Round['findings'], incomplete: Round['incomplete'] = []): Round => ({findings, incomplete})

describe('--watch', () => {
  it('prints what came and what went, and nothing else', () => {
    const [one, two] = [finding('one'), finding('two')]
    expect(changes(round([one]), round([one]), at)).to.equal('')
    expect(changes(round([one]), round([two]), at)).to.equal(
      '03:04:05 + error SVT101 on n1: two\n03:04:05 - error SVT101 on n1: one\n',
    )
  })

  it('tells of nodes that cannot be read, and obeys no escape sequence', () => {
    expect(changes(round([]), round([], [{node: 'n2', reason: 'gone\u001b[2J'}]), at)).to.match(
      /^03:04:05 \+ incomplete n2: gone[^\u001b]*\n$/,
    )
  })
})
