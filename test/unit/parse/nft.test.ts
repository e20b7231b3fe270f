import {expect} from 'chai'
import fc from 'fast-check'
import {NftRuleReader} from '../../../src/parse/nft-rule.js'
import {locateNftRules, parseNftText} from '../../../src/parse/nft-text.js'
import {parseNftJson, type NftJson, type NftRuleset} from '../../../src/parse/nft.js'
import {NFT_TEXT} from './dumps.js'

const read = (text: string): ReturnType<NftRuleReader['rule']> => new NftRuleReader(text).rule()
const field = (protocol: string, name: string): NftJson => ({payload: {protocol, field: name}})
const eq = (left: NftJson, right: NftJson, op = '=='): NftJson => ({match: {op, left, right}})
const json = (...objects: readonly unknown[]): NftRuleset =>
  parseNftJson(JSON.stringify({nftables: objects}), 'nft.json')
const TABLE = {table: {family: 'ip', name: 't', handle: 1}}
const CHAIN = {
  chain: {family: 'ip', table: 't', name: 'c', handle: 1, type: 'filter', hook: 'input', prio: -5, policy: 'drop'},
}
const block = (...lines: string[]): NftRuleset => parseNftText(['table ip t {', ...lines, '}'].join('\n'), 'nft.txt')
const chainOf = (ruleset: NftRuleset, name: string) => [...ruleset.tables.values()][0]?.chains.get(name)
const said = ({problems, cut}: NftRuleset): boolean => cut || problems.length > 0

describe('parse/nft-rule: statements as in libnftables-json(5)', () => {
  const rules: readonly (readonly [string, readonly NftJson[]])[] = [
    [
      'ip daddr 10.96.0.1 tcp dport 443 drop',
      [eq(field('ip', 'daddr'), '10.96.0.1'), eq(field('tcp', 'dport'), 443), {drop: null}],
    ],
    [
      'ip saddr != 10.244.0.0/16 counter packets 5 bytes 300 jump mark-for-masquerade',
      [
        eq(field('ip', 'saddr'), {prefix: {addr: '10.244.0.0', len: 16}}, '!='),
        {counter: null},
        {jump: {target: 'mark-for-masquerade'}},
      ],
    ],
    [
      'ip daddr . meta l4proto . th dport vmap @service-ips',
      [
        {
          vmap: {
            key: {concat: [field('ip', 'daddr'), {meta: {key: 'l4proto'}}, field('th', 'dport')]},
            data: '@service-ips',
          },
        },
      ],
    ],
    [
      'numgen random mod 2 vmap { 0 : goto endpoint-A, 1 : goto endpoint-B }',
      [
        {
          vmap: {
            key: {numgen: {mode: 'random', mod: 2, offset: 0}},
            data: {
              set: [
                [0, {goto: {target: 'endpoint-A'}}],
                [1, {goto: {target: 'endpoint-B'}}],
              ],
            },
          },
        },
      ],
    ],
    [
      'meta l4proto tcp dnat to 10.244.1.5:8080',
      [eq({meta: {key: 'l4proto'}}, 'tcp'), {dnat: {addr: '10.244.1.5', port: 8080}}],
    ],
    [
      'meta l4proto tcp dnat to [fd00::5]:8080',
      [eq({meta: {key: 'l4proto'}}, 'tcp'), {dnat: {addr: 'fd00::5', port: 8080}}],
    ],
    [
      'meta l4proto tcp ip daddr 127.0.0.0/8  tcp dport 30100 jump X',
      [
        eq({meta: {key: 'l4proto'}}, 'tcp'),
        eq(field('ip', 'daddr'), {prefix: {addr: '127.0.0.0', len: 8}}),
        eq(field('tcp', 'dport'), 30100),
        {jump: {target: 'X'}},
      ],
    ],
    [
      'ip protocol tcp counter packets 1 bytes 2 drop',
      [eq(field('ip', 'protocol'), 'tcp'), {counter: null}, {drop: null}],
    ],
    ['meta l4proto tcp reject', [eq({meta: {key: 'l4proto'}}, 'tcp'), {reject: null}]],
    ['meta l4proto udp goto x', [eq({meta: {key: 'l4proto'}}, 'udp'), {goto: {target: 'x'}}]],
    ['dnat ip to 10.0.0.1', [{dnat: {family: 'ip', addr: '10.0.0.1'}}]],
    [
      'meta mark set meta mark | 0x00004000',
      [{mangle: {key: {meta: {key: 'mark'}}, value: {'|': [{meta: {key: 'mark'}}, 0x4000]}}}],
    ],
    [
      'mark & 0x00004000 == 0x00004000 masquerade fully-random',
      [eq({'&': [{meta: {key: 'mark'}}, 0x4000]}, 0x4000), {masquerade: {flags: ['fully-random']}}],
    ],
    ['ct state invalid drop', [eq({ct: {key: 'state'}}, 'invalid', 'in'), {drop: null}]],
    [
      'ct state established,related accept',
      [eq({ct: {key: 'state'}}, ['established', 'related'], 'in'), {accept: null}],
    ],
    [
      'fib daddr type local ip daddr != 127.0.0.0/8',
      [
        eq({fib: {result: 'type', flags: ['daddr']}}, 'local'),
        eq(field('ip', 'daddr'), {prefix: {addr: '127.0.0.0', len: 8}}, '!='),
      ],
    ],
    ['reject with icmp port-unreachable', [{reject: {type: 'icmp', expr: 'port-unreachable'}}]],
    ['reject with icmpx type admin-prohibited', [{reject: {type: 'icmpx', expr: 'admin-prohibited'}}]],
    ['reject with tcp reset', [{reject: {type: 'tcp reset'}}]],
    ['update @affinity-A { ip saddr }', [{set: {op: 'update', elem: field('ip', 'saddr'), set: '@affinity-A'}}]],
    [
      'ip saddr @affinity-A dnat to 10.0.0.1:80',
      [eq(field('ip', 'saddr'), '@affinity-A'), {dnat: {addr: '10.0.0.1', port: 80}}],
    ],
    [
      'tcp dport { 80, 443, 8000-9000 } accept',
      [eq(field('tcp', 'dport'), {set: [80, 443, {range: [8000, 9000]}]}), {accept: null}],
    ],
    ['iifname "eth0" redirect to :15001', [eq({meta: {key: 'iifname'}}, 'eth0'), {redirect: {port: 15001}}]],
    [
      'xt match "comment" counter packets 0 bytes 0 return',
      [{xt: {type: 'match', name: 'comment'}}, {counter: null}, {return: null}],
    ],
    [
      'snat to 10.0.0.1-10.0.0.3 random,persistent',
      [{snat: {addr: {range: ['10.0.0.1', '10.0.0.3']}, flags: ['random', 'persistent']}}],
    ],
  ]
  for (const [text, statements] of rules) it(text, () => expect(read(text)).to.deep.equal({statements}))

  it('keeps the comment', () =>
    expect(read('jump x comment "a { b } drop"')).to.deep.equal({
      statements: [{jump: {target: 'x'}}],
      comment: 'a { b } drop',
    }))

  const conditions: readonly (readonly [string, string])[] = [
    ['log prefix "x" iifname "eth0" accept', 'iifname'],
    ['log prefix "x" oifname "eth0" drop', 'oifname'],
    ['limit rate 5/second burst 5 packets iifname "eth0" accept', 'iifname'],
    ['log prefix "x" th dport 80 accept', 'dport'],
    ['log prefix "x" fib daddr type local accept', 'fib'],
    ['log level info mark 0x4000 accept', 'mark'],
    ['add @s { ip saddr limit rate 5/second } accept', 'limit'],
    ['update @s { ip saddr ct count over 20 } drop', 'count'],
  ]
  for (const [text, word] of conditions) {
    it(`never loses a condition: ${text}`, () => {
      const {statements, problem} = read(text)
      const kept = statements.some(
        (statement) =>
          !('log' in statement) &&
          !('limit' in statement && word !== 'limit') &&
          JSON.stringify(statement).includes(word),
      )
      expect(kept || problem !== undefined, JSON.stringify(statements)).to.equal(true)
    })
  }

  const broken = [
    'frobnicate 5 drop',
    '....',
    'ip daddr',
    'jump',
    'dnat 10.0.0.1:80',
    'dnat to 10.0.0.1:80 garbage',
    'meta mark set',
    '@nh,96,32 0x0a000001 drop',
    '"x" drop',
    'iifname "eth0 accept',
    'ip saddr x.x.x.x/32 accept',
    'ip protocol tcp  #  tcp dpt:443 counter packets 1 bytes 2 jump X',
    'ip daddr 10.0.0.1 # match-set A dst drop',
    'fib daddr frob local drop',
    'ct count over 5 drop',
    'tcp dport { 80, 443 drop',
    'ip daddr 10.0.0. drop',
    'root@node1:~# nft list ruleset',
  ]
  for (const text of broken)
    it(`says that it does not understand: ${text}`, () => expect(read(text).problem).to.be.a('string'))
})

describe('parse/nft-text', () => {
  it('reads tables, chains, sets, maps, handles and chain names that end in /tcp/', () => {
    const ruleset = parseNftText(NFT_TEXT, 'nft.txt')
    expect(ruleset.problems).to.deep.equal([])
    expect(ruleset.cut).to.equal(false)
    const table = ruleset.tables.get('ip kube-proxy')!
    expect(table.chains.get('nat-prerouting')).to.include({
      type: 'nat',
      hook: 'prerouting',
      priority: -100,
      policy: 'accept',
    })
    expect(
      table.chains.get('service-42NFTM6N-default/web/tcp/')!.rules.map(({handle, line}) => [handle, line]),
    ).to.deep.equal([
      [40, 38],
      [undefined, 39],
      [41, 41],
    ])
    expect(table.sets.get('service-ips')).to.deep.include({
      types: ['ipv4_addr', 'inet_proto', 'inet_service'],
      map: 'verdict',
    })
    expect(table.sets.get('service-ips')!.elements.map(({key, data, comment}) => [key, data, comment])).to.deep.equal([
      [
        {concat: ['10.96.0.1', 'tcp', 443]},
        {goto: {target: 'service-2QRHZV4L-default/kubernetes/tcp/https'}},
        undefined,
      ],
      [{concat: ['10.96.0.9', 'tcp', 80]}, {goto: {target: 'service-42NFTM6N-default/web/tcp/'}}, undefined],
    ])
    expect(table.sets.get('no-endpoint-services')!.elements[0]).to.deep.include({
      comment: 'default/empty:http',
      data: {goto: {target: 'reject-chain'}},
    })
    expect(ruleset.tables.get('inet firewalld')!.flags).to.deep.equal(['dormant'])
  })

  it('has priorities by name and number', () => {
    for (const [text, wanted] of [
      ['dstnat - 10', -110],
      ['filter', 0],
      ['-300', -300],
      ['mangle + 5', -145],
      ['srcnat', 100],
    ] as const) {
      expect(
        chainOf(block('chain c {', `type filter hook input priority ${text}; policy drop;`, '}'), 'c')!.priority,
      ).to.equal(wanted)
    }
  })

  for (const line of ['root@node1:~# nft list ruleset', '[sudo] password for x:'])
    it(`passes over "${line}" between tables, and not inside of one`, () => {
      expect(parseNftText(`${line}\ntable ip t {\n}\n${line}\n`, 'f').problems).to.deep.equal([])
      expect(said(block(line))).to.equal(true)
      expect(chainOf(block('chain c {', line, '}'), 'c')!.rules[0]?.problem).to.be.a('string')
    })

  const strange = ['以下', '....', 'node2 | CHANGED | rc=0 >>']
  for (const line of strange) {
    it(`reports "${line}" between tables, in a table, in a chain and in a set`, () => {
      expect(parseNftText(`${line}\ntable ip t {\n}\n`, 'f').problems[0]).to.include({file: 'f', line: 1})
      expect(said(block(line))).to.equal(true)
      expect(chainOf(block('chain c {', line, '}'), 'c')!.rules[0]?.problem).to.be.a('string')
      expect(said(block('set s {', 'type ipv4_addr', line, '}'))).to.equal(true)
    })
  }

  it('never swallows a chain behind a set whose end was lost', () => {
    const ruleset = block(
      'set s {',
      'type ipv4_addr',
      'elements = { 10.0.0.1,',
      '}',
      '',
      'chain x {',
      'ip daddr 10.0.0.9 drop',
      '}',
      'chain y {',
      'accept',
      '}',
    )
    expect(said(ruleset) || chainOf(ruleset, 'x')?.rules.length === 1).to.equal(true)
  })

  it('does not show a set that it did not understand as an empty one', () => {
    const ruleset = block('set s {', 'type ipv4_addr', 'elements = { 10.0.0.1,', '....', '10.0.0.3 }', '}')
    const set = ruleset.tables.get('ip t')!.sets.get('s')
    expect(ruleset.cut || set === undefined || set.broken === true || set.elements.length === 2).to.equal(true)
  })

  it('marks every cut inside a block', () => {
    for (let length = 1; length < NFT_TEXT.length - 2; length++) {
      const short = NFT_TEXT.slice(0, length)
      const depth =
        short.replace(/"[^"\n]*"?/g, '').split('{').length - short.replace(/"[^"\n]*"?/g, '').split('}').length
      if (depth > 0) expect(said(parseNftText(short, 'f')), `cut after ${short.slice(-40)}`).to.equal(true)
    }
  })

  it('notices every lost line that opens or closes a block', () => {
    const lines = NFT_TEXT.split('\n')
    lines.forEach((line, at) => {
      if (!/^\s*\}$|\{( # handle \d+)?$/.test(line)) return
      expect(
        said(parseNftText(lines.filter((_, other) => other !== at).join('\n'), 'f')),
        `without line ${at + 1}: ${line}`,
      ).to.equal(true)
    })
  })

  it('locates the rules of the JSON form', () => {
    const ruleset = json(TABLE, CHAIN, {rule: {family: 'ip', table: 't', chain: 'c', handle: 2, expr: [{drop: null}]}})
    locateNftRules(
      ruleset,
      'table ip t {\n\tchain c {\n\t\ttype filter hook input priority -5; policy drop;\n\t\tdrop\n\t}\n}\n',
      'nft.txt',
    )
    expect(chainOf(ruleset, 'c')!.rules[0]).to.include({file: 'nft.txt', line: 4, text: 'drop'})
  })
})

describe('parse/nft: JSON', () => {
  it('reads tables, chains, rules, sets and maps', () => {
    const ruleset = json(
      {metainfo: {version: '1.0.9'}},
      TABLE,
      CHAIN,
      {
        set: {
          family: 'ip',
          table: 't',
          name: 's',
          type: ['ipv4_addr', 'inet_service'],
          flags: ['timeout'],
          elem: [{elem: {val: {concat: ['10.0.0.1', 80]}, comment: 'x', expires: 5}}],
        },
      },
      {map: {family: 'ip', table: 't', name: 'm', type: 'mark', map: 'verdict', elem: [[5, {accept: null}]]}},
      {rule: {family: 'ip', table: 't', chain: 'c', handle: 7, comment: 'hi', expr: [{accept: null}]}},
    )
    expect(ruleset.problems).to.deep.equal([])
    expect(chainOf(ruleset, 'c')).to.include({type: 'filter', hook: 'input', priority: -5, policy: 'drop'})
    expect(chainOf(ruleset, 'c')!.rules[0]).to.deep.include({
      number: 1,
      handle: 7,
      comment: 'hi',
      statements: [{accept: null}],
    })
    const {sets} = ruleset.tables.get('ip t')!
    expect(sets.get('s')!.elements).to.deep.equal([
      {key: {concat: ['10.0.0.1', 80]}, comment: 'x', expires: true, line: 0},
    ])
    expect(sets.get('m')!.elements).to.deep.equal([{key: 5, data: {accept: null}, expires: false, line: 0}])
  })

  it('never drops a part of a rule (nft prints statements without a JSON form as strings)', () => {
    for (const expr of [['xt match "mark"', {drop: null}], [null, {accept: null}], 'drop', undefined]) {
      const ruleset = json(TABLE, CHAIN, {rule: {family: 'ip', table: 't', chain: 'c', handle: 2, expr}})
      expect(said(ruleset) || chainOf(ruleset, 'c')!.rules[0]!.problem !== undefined, JSON.stringify(expr)).to.equal(
        true,
      )
    }
  })

  const broken: readonly (readonly [string, string])[] = [
    ['cut', '{"nftables": [{"table": {"family": "ip"'],
    ['null', 'null'],
    ['a list', '[]'],
    ['no list', '{"nftables": 5}'],
    ['text', 'table ip t {'],
    [
      'a rule of no chain',
      JSON.stringify({nftables: [TABLE, {rule: {family: 'ip', table: 't', chain: 'x', expr: []}}]}),
    ],
    ['an object that is none', JSON.stringify({nftables: [7]})],
    [
      'elements apart from their set',
      JSON.stringify({nftables: [TABLE, {element: {family: 'ip', table: 't', name: 's', elem: ['10.0.0.1']}}]}),
    ],
    ['an unknown kind', JSON.stringify({nftables: [TABLE, {frobnicator: {family: 'ip', table: 't'}}]})],
    ['a chain without a name', JSON.stringify({nftables: [{chain: {}}]})],
  ]
  for (const [what, text] of broken) it(`reports ${what}`, () => expect(said(parseNftJson(text, 'f'))).to.equal(true))

  it('an empty file is an empty ruleset', () => expect(said(parseNftJson('\n', 'f'))).to.equal(false))

  it('text and JSON give the same statements', () => {
    const address = fc.ipV4()
    const port = fc.integer({min: 1, max: 65535})
    fc.assert(
      fc.property(address, port, address, (vip, dport, target) => {
        const ruleset = block('chain c {', `ip daddr ${vip} tcp dport ${dport} dnat to ${target}:${dport}`, '}')
        const other = json(TABLE, CHAIN, {
          rule: {
            family: 'ip',
            table: 't',
            chain: 'c',
            handle: 2,
            expr: [
              eq(field('ip', 'daddr'), vip),
              eq(field('tcp', 'dport'), dport),
              {dnat: {addr: target, port: dport}},
            ],
          },
        })
        expect(chainOf(ruleset, 'c')!.rules[0]!.statements).to.deep.equal(chainOf(other, 'c')!.rules[0]!.statements)
      }),
      {numRuns: 100},
    )
  })
})
