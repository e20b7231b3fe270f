import {expect} from 'chai'
import fc from 'fast-check'
import {newRule, parseRule, printRule, type IptablesRule, type RuleOption} from '../../../src/parse/iptables-rule.js'
import {parseIptablesSave, type IptablesDump} from '../../../src/parse/iptables.js'
import {splitWords} from '../../../src/parse/tokens.js'
import {REAL_RULES} from './rules.js'

const PLACE = {table: 'nat', chain: 'X', number: 1, file: 'save.txt', line: 1}
const rule = (text: string): IptablesRule => parseRule(text, {...PLACE, chain: text.split(' ')[1] ?? ''})
const meaning = ({text: _, ...rest}: IptablesRule): Omit<IptablesRule, 'text'> => rest
const words = (text: string): readonly string[] => splitWords(text).words
const save = (...lines: string[]): IptablesDump => parseIptablesSave(`${lines.join('\n')}\n`, 'save.txt')
const nat = (...lines: string[]): IptablesDump => save('*nat', ':X - [0:0]', ...lines, 'COMMIT')
const rulesOf = (dump: IptablesDump, chain: string, table = 'nat'): readonly IptablesRule[] =>
  dump.tables.get(table)?.chains.get(chain)?.rules ?? []
/** Every doubt that a walk of the chain can meet: the chain's own, or one of its rules'. */
const doubtful = (dump: IptablesDump, chain: string, table = 'nat'): boolean =>
  (dump.tables.get(table)?.chains.get(chain)?.cut ?? false) ||
  rulesOf(dump, chain, table).some(({problem}) => problem !== undefined)

describe('parse/iptables: rules as real programs write them', () => {
  for (const [program, lines] of Object.entries(REAL_RULES)) {
    for (const line of lines) {
      it(`${program}: ${line}`, () => {
        const read = rule(line)
        expect(read.problem).to.equal(undefined)
        expect(words(printRule(read))).to.deep.equal(words(line))
        expect(meaning(rule(printRule(read)))).to.deep.equal(meaning(read))
      })
    }
  }

  it('sorts the words of a rule', () => {
    const read = rule(
      '-A KUBE-NODEPORTS ! -s 10.0.0.0/8 -i eth+ -p tcp -m comment --comment "a \\"b\\" -j c" -m tcp ! --dport 80 -g Y --opt 1',
    )
    expect(read.source).to.deep.equal({not: true, value: '10.0.0.0/8'})
    expect(read.inInterface).to.deep.equal({not: false, value: 'eth+'})
    expect(read.matches).to.deep.equal([
      {module: 'comment', options: [{name: 'comment', not: false, values: ['a "b" -j c']}]},
      {module: 'tcp', options: [{name: 'dport', not: true, values: ['80']}]},
    ])
    expect(read.target).to.deep.equal({name: 'Y', goto: true, options: [{name: 'opt', not: false, values: ['1']}]})
  })

  it('gives a port without -m to the protocol, and old "--dport ! 80" its negation', () => {
    expect(rule('-A X -p tcp --dport ! 80 -j Y').matches).to.deep.equal([
      {module: 'tcp', options: [{name: 'dport', not: true, values: ['80']}]},
    ])
  })

  it('keeps a port with the module it follows where the protocol is a number', () => {
    expect(rule('-A X -p 6 -m tcp --dport 80 -j Y').matches).to.deep.equal([
      {module: 'tcp', options: [{name: 'dport', not: false, values: ['80']}]},
    ])
  })
})

describe('parse/iptables: what cannot be understood is a problem of the rule', () => {
  const broken: readonly (readonly [string, string])[] = [
    ['cut in a quote', '-A X -d 10.96.0.1/32 -m comment --comment "default/web:ht'],
    ['cut behind -j', '-A X -d 10.96.0.1/32 -j'],
    ['cut behind -s', '-A X -s'],
    ['cut behind -m', '-A X -p tcp -m'],
    ['cut behind !', '-A X -p tcp !'],
    ['cut in an address', '-A X -s 10.244.'],
    ['cut in an option', '-A X -p tcp -m tcp --dpo'],
    ['cut before the value of a port', '-A X -p tcp -m tcp --dport'],
    ['cut before the value of a set', '-A X -m set --match-set KUBE-CLUSTER-IP'],
    ['cut before the value of a state', '-A X -m conntrack --ctstate'],
    ['an unsupported revision', '-A X -p tcp -m tcp -j DNAT [unsupported revision]'],
    ['an unsupported revision of an option', '-A X -p tcp -j DNAT --to-destination [unsupported revision]'],
    ['a redacted address', '-A X -s x.x.x.x/32 -j KUBE-MARK-MASQ'],
    ['a lost newline', '-A X -s 10.0.0.1/32 -j KUBE-MARK-MASQ -A X -j Y'],
    ['a lost newline without a blank', '-A X -j KUBE-MARK-MASQ-A X -p tcp -j DNAT --to-destination 10.0.0.1:80'],
    ['a lost newline in a value', '-A X -j DNAT --to-destination 10.0.0.1:80-A Y -j Z'],
    ['COMMIT on the same line', '-A X -j Y COMMIT'],
    ['words behind a comment', '-A X -p tcp -m comment --comment "a" \u2013dport 80 -j Y'],
    ['words behind a port', '-A X -p tcp -m tcp --dport 80 443 -j Y'],
    ['words behind the rule', '-A X -j DNAT --to-destination 10.0.0.1:80 .... more'],
    ['two targets', '-A X -j A -j B'],
    ['two sources', '-A X -s 10.0.0.1/32 -s 10.0.0.2/32 -j B'],
    ['no chain', '-A'],
    ['dots', '-A X ....'],
    ['a word that every object knows', '-A X constructor 5 -j Y'],
  ]
  for (const [what, line] of broken) {
    it(`${what}: ${line}`, () => expect(rule(line).problem).to.be.a('string'))
  }

  it('takes a comment that quotes [unsupported for a comment', () => {
    expect(rule('-A X -m comment --comment "[unsupported revision]" -j Y').problem).to.equal(undefined)
  })
})

describe('parse/iptables: dumps as people post them', () => {
  it('reads tables, policies, counters, comments and CRLF', () => {
    const dump = parseIptablesSave(
      '# Generated by iptables-save v1.8.9 (nf_tables) on Mon\r\n*nat\r\n:POSTROUTING ACCEPT [5:300]\r\n:X - [0:0]\r\n# mine\r\n[1:2] -A X -j Y\r\nCOMMIT\r\n*filter\r\n:FORWARD DROP [0:0]\r\nCOMMIT\r\n',
      'save.txt',
    )
    expect(dump.problems).to.deep.equal([])
    expect(dump.backend).to.equal('nft')
    expect([...dump.tables.keys()]).to.deep.equal(['nat', 'filter'])
    expect(dump.tables.get('filter')!.chains.get('FORWARD')!.policy).to.equal('DROP')
    expect(rulesOf(dump, 'X').map(({line, target}) => [line, target?.name])).to.deep.equal([[6, 'Y']])
  })

  const backends: readonly (readonly [string, 'legacy' | 'nft'])[] = [
    ['# Generated by iptables-save v1.8.7 on Mon', 'legacy'],
    ['# Generated by iptables-save v1.4.21 on Mon\n# Generated by iptables-save v1.8.10 (legacy) on Mon', 'legacy'],
    ['# Generated by iptables-nft-save v1.8.8 (nf_tables) on Mon', 'nft'],
    [
      '# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n# Generated by iptables-save v1.8.9 (nf_tables)',
      'nft',
    ],
    [
      '# Generated by xtables-save v1.8.2 on Mon\n# Warning: iptables-legacy tables present, use iptables-legacy to see them',
      'nft',
    ],
  ]
  for (const [head, backend] of backends) {
    it(`knows the backend of ${head}`, () => expect(save(head, '*nat', 'COMMIT').backend).to.equal(backend))
  }

  it('says that a table with native rules is not shown', () => {
    expect(save("# Table `nat' is incompatible, use 'nft' tool.").problems).to.have.length(1)
  })

  it('reads counters before -A in an indented paste', () => {
    const dump = save('  *nat', '  :X - [0:0]', '  [5:300] -A X -j Y', '  COMMIT')
    expect(rulesOf(dump, 'X').map(({target}) => target?.name)).to.deep.equal(['Y'])
  })

  it('keeps the same rule pasted twice', () => expect(rulesOf(nat('-A X -j Y', '-A X -j Y'), 'X')).to.have.length(2))

  it('keeps chains of the same name in nat and filter apart', () => {
    const dump = save(
      '*filter',
      '-A S -d 10.0.0.2/32 -j REJECT',
      'COMMIT',
      '*nat',
      '-A S -d 10.0.0.1/32 -j KUBE-SVC-A',
      'COMMIT',
    )
    expect(rulesOf(dump, 'S', 'filter').map(({target}) => target?.name)).to.deep.equal(['REJECT'])
    expect(rulesOf(dump, 'S').map(({target}) => target?.name)).to.deep.equal(['KUBE-SVC-A'])
  })

  it('takes rules in any order of chains', () => {
    const dump = nat('-A Z -j A', '-A X -j Y', '-A Z -j B')
    expect(rulesOf(dump, 'Z').map(({target, number}) => [target?.name, number])).to.deep.equal([
      ['A', 1],
      ['B', 2],
    ])
  })

  it('sorts mixed tables without a header, and says so', () => {
    const dump = save(
      '-A KUBE-SERVICES -d 10.0.0.1/32 -j KUBE-SVC-A',
      '-A KUBE-SVC-A -j KUBE-SEP-A',
      '-A KUBE-SEP-A -p tcp -j DNAT --to-destination 10.244.0.1:80',
      '-A KUBE-EXTERNAL-SERVICES -p tcp -m tcp --dport 31218 -j REJECT',
    )
    expect(dump.partial).to.equal(true)
    for (const chain of ['KUBE-SERVICES', 'KUBE-SVC-A', 'KUBE-SEP-A']) expect(rulesOf(dump, chain)).to.have.length(1)
    expect(rulesOf(dump, 'KUBE-EXTERNAL-SERVICES', 'filter')).to.have.length(1)
    expect(dump.problems).to.have.length(4)
  })

  it('does not lose the way to nat where a headerless chain holds the rules of both tables', () => {
    const dump = save(
      '-A KUBE-SERVICES -d 10.0.0.1/32 -j KUBE-SVC-A',
      '-A KUBE-SERVICES -d 10.0.0.2/32 -j REJECT --reject-with icmp-port-unreachable',
      '-A KUBE-SVC-A -j KUBE-SEP-A',
      '-A KUBE-SEP-A -p tcp -j DNAT --to-destination 10.244.0.1:80',
    )
    expect(dump.tables.get('nat')?.chains.has('KUBE-SVC-A')).to.equal(true)
  })

  const cuts: readonly (readonly [string, readonly string[]])[] = [
    ['before COMMIT', ['*nat', ':X - [0:0]', '-A X -j Y']],
    ['inside a quote', ['*nat', ':X - [0:0]', '-A X -m comment --comment "a']],
    ['before the next table', ['*nat', ':X - [0:0]', '-A X -j Y', '*filter', 'COMMIT']],
  ]
  for (const [where, lines] of cuts) {
    it(`marks a dump that was cut ${where}`, () => {
      const dump = save(...lines)
      expect(dump.tables.get('nat')!.complete).to.equal(false)
      expect(dump.tables.get('nat')!.chains.get('X')!.cut).to.equal(true)
      expect(dump.problems[0]).to.include({file: 'save.txt'})
    })
  }

  it('joins a rule that was wrapped inside its comment', () => {
    const dump = nat('-A X -m comment --comment "default/web', 'cluster IP" -j Y', '-A X -j Z')
    expect(rulesOf(dump, 'X').map(({problem, target}) => [problem, target?.name])).to.deep.equal([
      [undefined, 'Y'],
      [undefined, 'Z'],
    ])
  })

  const wraps: readonly (readonly [string, string])[] = [
    ['-A X -d 10.96.0.1/32 -p tcp -m tcp --dport 443', '-j KUBE-SVC-A'],
    ['-A X -d 10.96.0.1/32 -p tcp -m tcp', '--dport 443 -j KUBE-SVC-A'],
    ['-A X -m statistic --mode random --probability 0.50000000000', '-j KUBE-SEP-A'],
    ['-A X -d 10.96.0.1/32 -p tcp', '-m tcp --dport 443 -j REJECT'],
    ['-A X -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j', 'KUBE-SVC-A'],
    ['-A X -p tcp -j DNAT', '--to-destination 10.244.0.1:80'],
  ]
  for (const [first, second] of wraps) {
    it(`never takes the end of a wrapped rule for a rule of its own: ${first} ⏎ ${second}`, () => {
      const dump = nat(first, second)
      const [whole] = rulesOf(dump, 'X')
      const joined = whole?.text === `${first} ${second}` && rulesOf(dump, 'X').length === 1
      const stray = rulesOf(dump, 'X').filter(({problem, text}) => problem === undefined && !text.includes(first))
      expect(joined || (doubtful(dump, 'X') && stray.length === 0), JSON.stringify(rulesOf(dump, 'X'))).to.equal(true)
    })
  }

  const strange = ['node1 | CHANGED | rc=0 >>', '==> node2 <==', '下面是规则', 'вот правила', '....']
  for (const line of strange) {
    it(`reports "${line}" before, inside and behind a table`, () => {
      expect(save(line, '*nat', 'COMMIT').problems).to.have.length(1)
      const inside = nat('-A X -j Y', line)
      expect(inside.problems[0]).to.include({line: 4, text: line.trim()})
      expect(doubtful(inside, 'X')).to.equal(true)
      expect(save('*nat', 'COMMIT', line).problems).to.have.length(1)
    })
  }

  for (const line of ['root@node1:~# iptables-save', '[sudo] password for ubuntu: '])
    it(`passes over "${line}" before and behind a table, and not inside of one`, () => {
      expect(save(line, '*nat', 'COMMIT', line).problems).to.deep.equal([])
      const inside = nat('-A X -j Y', line)
      expect(inside.problems[0]).to.include({line: 4, message: 'a prompt stands before COMMIT'})
      expect(inside.tables.get('nat')!.complete).to.equal(false)
    })

  it('doubts the chains behind a gap, not only the one before it', () => {
    const dump = nat(':Z - [0:0]', '-A X -j Y', '....', '-A Z -j Y')
    expect(doubtful(dump, 'X')).to.equal(true)
    expect(doubtful(dump, 'Z')).to.equal(true)
  })

  it('does not lose the second rule of a line that lost its newline', () => {
    const dump = nat('-A X -j Y -A Z -j DROP')
    expect(rulesOf(dump, 'Z').length > 0 || dump.problems.length > 0).to.equal(true)
  })

  it('says that a table stands there twice (two families or two hosts in one file)', () => {
    const dump = save('*nat', ':X - [0:0]', '-A X -j Y', 'COMMIT', '*nat', ':X - [0:0]', '-A X -j Z', 'COMMIT')
    expect(dump.problems).to.not.deep.equal([])
  })

  it('does not append what -I puts in front', () => {
    const [first] = rulesOf(nat('-A X -j Y', '-I X -j DROP'), 'X')
    expect(first?.target?.name === 'DROP' || doubtful(nat('-A X -j Y', '-I X -j DROP'), 'X')).to.equal(true)
  })
})

const name = fc.stringMatching(/^[A-Za-z][A-Za-z0-9_/:.-]{0,20}$/)
const negatable = (value: fc.Arbitrary<string>): fc.Arbitrary<{not: boolean; value: string}> =>
  fc.record({not: fc.boolean(), value})
const option = (
  label: string,
  ...values: fc.Arbitrary<string>[]
): fc.Arbitrary<IptablesRule['matches'][number]['options'][number]> =>
  fc.record({name: fc.constant(label), not: fc.boolean(), values: fc.tuple(...values)})
const prefix = fc.tuple(fc.ipV4(), fc.integer({min: 0, max: 32})).map(([host, length]) => `${host}/${length}`)
const port = fc.integer({min: 0, max: 65535}).map(String)
const text = fc.string({maxLength: 40}).filter((value) => !/[\r\n]/.test(value))
const matches = fc
  .array(
    fc.oneof(
      fc.record({module: fc.constant('comment'), options: fc.tuple(option('comment', text))}),
      fc.record({
        module: fc.constant('set'),
        options: fc.tuple(option('match-set', name, fc.constantFrom('dst', 'src,dst'))),
      }),
      fc.record({module: fc.constant('mark'), options: fc.tuple(option('mark', fc.constant('0x4000/0x4000')))}),
      fc.record({module: fc.constant('tcp'), options: fc.tuple(option('dport', port), option('sport', port))}),
      fc.record({
        module: fc.constant('recent'),
        options: fc.tuple(option('rcheck'), option('seconds', port), option('name', name), option('rsource')),
      }),
    ),
    {maxLength: 3},
  )
  .filter((list) => list.filter(({module}) => module === 'tcp').length < 2)
const target = fc.record({
  name,
  goto: fc.boolean(),
  options: fc.oneof(
    fc.constant<RuleOption[]>([]),
    fc.tuple(
      option(
        'to-destination',
        fc.tuple(fc.ipV4(), port).map((parts) => parts.join(':')),
      ),
    ),
    fc.tuple(option('log-prefix', text)),
  ),
})
const generated: fc.Arbitrary<IptablesRule> = fc
  .record(
    {
      source: negatable(prefix),
      destination: negatable(prefix),
      inInterface: negatable(name),
      outInterface: negatable(name),
      matches,
      target,
    },
    {requiredKeys: ['matches']},
  )
  .map((parts) => ({...newRule(PLACE, ''), protocol: {not: false, value: 'tcp'}, ...parts}))

describe('parse/iptables: properties', () => {
  it('parse(print(x)) = x', () =>
    fc.assert(
      fc.property(generated, (x) => {
        expect(meaning(parseRule(printRule(x), PLACE))).to.deep.equal(meaning(x))
      }),
      {numRuns: 500},
    ))

  it('never throws, whatever the words', () => {
    const word = fc.oneof(
      fc.constantFrom(
        '-s',
        '-d',
        '-p',
        '-m',
        '-j',
        '-g',
        '!',
        'tcp',
        '--dport',
        '80',
        '--x',
        '-f',
        '"a b"',
        '-i',
        'eth0',
      ),
      text,
    )
    fc.assert(
      fc.property(fc.array(word, {maxLength: 12}), (list) => {
        expect(rule(list.join(' ')).text).to.equal(list.join(' '))
      }),
      {numRuns: 500},
    )
  })

  it('places every line of a table: rule, declaration or problem', () => {
    const line = fc.oneof(
      fc.constantFrom('-A X -j Y', ':X - [0:0]', '# a', '', '[1:2] -A Z -j Y', '-A X -m comment --comment "a'),
      text,
    )
    fc.assert(
      fc.property(fc.array(line, {maxLength: 20}), (lines) => {
        const dump = save('*nat', ...lines, 'COMMIT')
        const chains = [...dump.tables.values()].flatMap((table) => [...table.chains.values()])
        const known = new Set(chains.flatMap((chain) => chain.rules.map((one) => one.line)))
        const said = new Set([...dump.problems.map((problem) => problem.line), ...chains.map((chain) => chain.line)])
        lines.forEach((raw, at) => {
          const plain = raw.trim()
          if (plain === '' || /^[#:*]|^COMMIT$|^-[PN] /.test(plain)) return
          const joined = chains.some((chain) => chain.rules.some((one) => one.text.includes(plain)))
          expect(known.has(at + 2) || said.has(at + 2) || joined, `line ${at + 2}: ${raw}`).to.equal(true)
        })
      }),
      {numRuns: 300},
    )
  })
})
