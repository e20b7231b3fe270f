import {expect} from 'chai'
import {walk} from '../../../src/dataplane/walk.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {fate, oneNode} from '../../helpers/node.js'

const table = (body: string, flags = ''): string => `table ip t {\n${flags}${body}\n}\n`
const prerouting = (rules: string): string =>
  `\tchain pre {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n${rules
    .split('\n')
    .map((rule) => `\t\t${rule}`)
    .join('\n')}\n\t}\n`
const VIP = {to: '10.96.0.1:80'}

describe('native nftables', () => {
  it('a set that the packet itself was just written to is an open question', () => {
    const nft = table(
      `\tset seen {\n\t\ttype ipv4_addr\n\t\tflags dynamic\n\t}\n\tchain fwd {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tadd @seen { ip saddr }\n\t\tip saddr @seen drop\n\t}\n${prerouting('ip daddr 10.96.0.1 meta l4proto tcp dnat to 10.1.1.2:8080')}`,
    )
    expect(fate({nft}, VIP).outcomes).to.deep.equal({unknown: 1})
  })

  it('numgen map with concatenated address and port', () => {
    const nft = table(
      prerouting(
        'ip daddr 10.96.0.1 meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.1.1.2 . 8080, 1 : 10.1.1.3 . 8081 }',
      ),
    )
    expect(fate({nft}, VIP).backends.map(({address, share}) => [address, share])).to.deep.equal([
      ['10.1.1.2:8080', 0.5],
      ['10.1.1.3:8081', 0.5],
    ])
  })

  it('named verdict maps, intervals and goto', () => {
    const nft = table(
      `\tset nets {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 198.51.100.0/25, 203.0.113.1-203.0.113.9 }\n\t}\n\tmap m {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\t\telements = { 10.96.0.1 . tcp . 80 : goto svc/tcp/ }\n\t}\n\tchain svc/tcp/ {\n\t\tip saddr @nets dnat to 10.1.1.2:8080\n\t}\n${prerouting('ip daddr . meta l4proto . th dport vmap @m')}`,
    )
    expect(fate({nft}, VIP).outcomes).to.deep.equal({delivered: 1})
    expect(fate({nft}, {...VIP, from: {external: '198.51.100.200'}}).outcomes['delivered']).to.equal(undefined)
  })

  it('a port that is a name which nobody knows is an open question, in a list as well', () => {
    const rule = (ports: string): string =>
      table(
        `${prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2')}\tchain fwd {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tct state established accept\n\t\ttcp dport ${ports} accept\n\t}\n`,
      )
    for (const ports of ['frobnicate', '{ https, frobnicate }'])
      expect(fate({nft: rule(ports)}, VIP).outcomes, ports).to.deep.equal({unknown: 1})
    expect(fate({nft: rule('{ http, frobnicate }')}, VIP).outcomes).to.deep.equal({delivered: 1})
    expect(fate({nft: rule('{ https, ssh }')}, VIP).outcomes).to.deep.equal({dropped: 1})
  })

  describe('a verdict map in the middle of a rule', () => {
    const forward = (rules: string): string =>
      table(
        `${prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2')}\tchain back {\n\t}\n\tchain fwd {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t${rules}\n\t}\n`,
      )
    const cases: [rule: string, outcome: string][] = [
      ['tcp dport vmap { 81 : accept } drop', 'delivered'],
      ['tcp dport vmap { 80 : continue } drop', 'dropped'],
      ['tcp dport vmap { 80 : jump back } drop', 'delivered'],
      ['udp dport vmap { 80 : accept } drop', 'delivered'],
      ['fib daddr type vmap { local : accept, unicast : drop }', 'dropped'],
      ['fib daddr type { local, unicast } drop', 'dropped'],
      ['fib daddr type { local, multicast } drop', 'delivered'],
    ]
    for (const [rule, outcome] of cases)
      it(`${rule}: ${outcome}`, () => expect(fate({nft: forward(rule)}, VIP).outcomes).to.deep.equal({[outcome]: 1}))
  })

  describe('members of sets', () => {
    const forward = (sets: string, rule: string): string =>
      table(
        `${sets}${prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2')}\tchain fwd {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t${rule}\n\t}\n`,
      )
    const cases: [name: string, sets: string, rule: string, outcome: string][] = [
      ['bits: the whole value', '', 'tcp flags { fin | ack, ack } drop', 'delivered'],
      ['bits: this value', '', 'tcp flags { syn } drop', 'dropped'],
      ['bits in a map', '', 'tcp flags vmap { fin | syn : drop, ack : drop }', 'delivered'],
      ['bits in a concatenation', '', 'tcp dport . tcp flags { 8080 . syn | ack } drop', 'delivered'],
      [
        'a quota of the set',
        '\tset q {\n\t\ttype ipv4_addr\n\t\tquota over 5 mbytes\n\t\telements = { 10.1.1.2 }\n\t}\n',
        'ip daddr @q drop',
        'unknown',
      ],
      ['a port with a name that nobody knows', '', 'tcp dport { frobnicate } drop', 'unknown'],
      ['numbers where names are asked for', '', 'fib daddr type { 2, 3 } drop', 'unknown'],
      ['what an older nft makes of exists', '', 'fib saddr . iif oif exists/8 drop', 'dropped'],
    ]
    for (const [name, sets, rule, outcome] of cases)
      it(`${name}: ${outcome}`, () =>
        expect(fate({nft: forward(sets, rule)}, VIP).outcomes).to.deep.equal({[outcome]: 1}))

    it('evidence is the line of the member, not that of the first', () => {
      const nft = table(
        `\tmap m {\n\t\ttype ipv4_addr : verdict\n\t\telements = { 10.96.0.9 : accept,\n\t\t\t     10.96.0.10 : accept,\n\t\t\t     10.96.0.1 : drop }\n\t}\n${prerouting('ip daddr vmap @m')}`,
      )
      const files = oneNode({nft})
      const world = buildWorld(snapshotFromFiles(files))
      const {parts} = walk(world, {
        origin: {kind: 'external', ranges: [{lo: 0xc6336407, hi: 0xc6336407}], enter: 'n1'},
        destination: 0x0a600001,
        port: 80,
        protocol: 'TCP',
      })
      const lines = parts.flatMap(({fates}) => fates.flatMap(({hops}) => hops.flatMap(({evidence}) => evidence ?? [])))
      expect(lines.find(({text}) => text.startsWith('10.96.0.1 :'))?.line).to.equal(6)
    })
  })

  it('an iptables rule that nft translates in part says nothing for certain', () => {
    const rule = (words: string): string =>
      `table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t${words} counter packets 0 bytes 0 drop\n\t}\n}\n${table(prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2'))}`
    for (const words of [
      'meta l4proto tcp tcp sport . tcp dport { 0-65535 . 81, 81 . 0-65535 }',
      'meta l4proto tcp tcp dport 5000-10000',
      'ct state != new,related,established',
    ])
      expect(fate({nft: rule(words)}, VIP).outcomes, words).to.deep.equal({unknown: 1})
  })

  it('a dormant table does nothing', () => {
    expect(
      fate({nft: table(prerouting('dnat to 10.1.1.2:80'), '\tflags dormant\n')}, VIP).outcomes['delivered'],
    ).to.equal(undefined)
  })

  it('tcp dport implies the protocol; anonymous sets and negation', () => {
    const nft = table(prerouting('tcp dport { 79, 80 } ip saddr != { 203.0.113.0/24 } dnat to 10.1.1.2'))
    expect(fate({nft}, VIP).outcomes).to.deep.equal({delivered: 1})
    expect(fate({nft}, {...VIP, proto: 'UDP'}).outcomes['delivered']).to.equal(undefined)
  })

  it('a drop anywhere is final, whatever another table accepts', () => {
    const nft = `${table(prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2'))}table inet f {\n\tchain fwd {\n\t\ttype filter hook forward priority filter + 10; policy accept;\n\t\tct status dnat drop\n\t}\n}\n`
    expect(fate({nft}, VIP).outcomes).to.deep.equal({dropped: 1})
  })

  it('statements that are not understood end as unknown', () => {
    for (const rule of [
      'socket transparent 1 drop',
      'tproxy to :80',
      'meta skuid 5 drop',
      'frobnicate 7 drop',
      'queue num 1',
    ]) {
      const nft = `${table(prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2'))}table inet f {\n\tchain fwd {\n\t\ttype filter hook forward priority 0; policy accept;\n\t\t${rule}\n\t}\n}\n`
      expect(fate({nft}, VIP).outcomes['delivered'], rule).to.equal(undefined)
    }
  })

  it('a word or an operator of another kernel is an open question', () => {
    const dropping = (...expr: object[]): string =>
      JSON.stringify({
        nftables: [
          {table: {family: 'ip', name: 't'}},
          {chain: {family: 'ip', table: 't', name: 'c', type: 'filter', hook: 'forward', prio: 0, policy: 'accept'}},
          {rule: {family: 'ip', table: 't', chain: 'c', expr: [...expr, {drop: null}]}},
        ],
      })
    const dport = {payload: {protocol: 'tcp', field: 'dport'}}
    const dnat =
      '*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.96.0.1/32 -p tcp -j DNAT --to-destination 10.1.1.2:8080\nCOMMIT\n'
    const meets = (match: object): object => fate({iptables: dnat, files: {'nft.json': dropping(match)}}, VIP).outcomes
    expect(meets({match: {op: '==', left: dport, right: 8080}})).to.deep.equal({dropped: 1})
    for (const match of [
      {match: {op: '<=>', left: dport, right: 8080}},
      {match: {op: 'in', left: {ct: {key: 'state'}}, right: ['resurrected']}},
      {match: {op: '<', left: {ct: {key: 'state'}}, right: 'new'}},
      {match: {op: '==', left: {meta: {key: 'iifname'}}, right: 7}},
      {vmap: {key: dport, data: {set: [[8080, 'drop']]}}},
    ])
      expect(meets(match), JSON.stringify(match)).to.deep.equal({unknown: 1})
  })

  it('a list of those to be refused may hold anyone whom the dump shows on it', () => {
    const blocked = (address: string): string =>
      table(
        `\tset ban {\n\t\ttype ipv4_addr\n\t\tflags dynamic,timeout\n\t\telements = { ${address} timeout 1h expires 30m }\n\t}\n\tchain fwd {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tip saddr @ban drop\n\t}\n${prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2')}`,
      )
    expect(fate({nft: blocked('198.51.100.7')}, VIP).outcomes).to.deep.equal({unknown: 1})
    expect(fate({nft: blocked('198.51.100.8')}, VIP).outcomes).to.deep.equal({delivered: 1})
  })

  it('a block list counts wherever its hit leads to a drop in the end', () => {
    const list = (use: string, more = ''): string =>
      table(
        `\tset ban {\n\t\ttype ipv4_addr\n\t\tflags timeout\n\t\telements = { 198.51.100.7 timeout 1h expires 30m }\n\t}\n\tmap verdicts {\n\t\ttype ipv4_addr : verdict\n\t\tflags dynamic,timeout\n\t\telements = { 198.51.100.7 timeout 1h expires 30m : drop }\n\t}\n${more}\tchain fwd {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t${use}\n\t}\n${prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2')}`,
      )
    for (const use of [
      'ip saddr @ban jump no',
      'ip saddr vmap @verdicts',
      'ip saddr @ban meta mark set 7\n\t\tmeta mark 7 drop',
    ])
      expect(fate({nft: list(use, '\tchain no {\n\t\tdrop\n\t}\n')}, VIP).outcomes, use).to.deep.equal({unknown: 1})
  })

  it('the order of chains of one priority is an open question when one writes what the other asks for', () => {
    const chain = (family: string, rule: string): string =>
      `table ${family} x {\n\tchain fwd {\n\t\ttype filter hook forward priority mangle; policy accept;\n\t\t${rule}\n\t}\n}\n`
    const translate = table(prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2'))
    const both = (first: string, second: string): object =>
      fate({nft: translate + chain('ip', first) + chain('inet', second)}, VIP).outcomes
    const mangle = (rule: string): string => `*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD ${rule}\nCOMMIT\n`
    for (const ask of ['meta mark 1 drop', 'meta mark 0 drop']) {
      expect(both('meta mark set 1', ask), ask).to.deep.equal({unknown: 1})
      expect(both(ask, 'meta mark set 1'), ask).to.deep.equal({unknown: 1})
      const dump = {nft: translate + chain('ip', ask), iptables: mangle('-j MARK --set-mark 0x1')}
      expect(fate(dump, VIP).outcomes, ask).to.deep.equal({unknown: 1})
    }
    // the mark of the connection is there for the answer, in whatever order
    expect(both('ct mark 1 drop', 'ct mark set 1')).to.deep.equal({dropped: 1})
    expect(both('meta mark set 1', 'meta mark 2 drop')).to.deep.equal({delivered: 1})
  })

  it('two NAT chains of one priority that disagree are an open question', () => {
    const two = `${table(prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.2'))}table ip u {\n${prerouting('ip daddr 10.96.0.1 dnat to 10.1.1.3')}}\n`
    expect(fate({nft: two}, VIP).outcomes).to.deep.equal({unknown: 1})
    expect(fate({nft: two.replace('10.1.1.3', '10.1.1.2')}, VIP).outcomes).to.deep.equal({delivered: 1})
  })

  it('affinity sets do not hold a client that comes for the first time', () => {
    const nft = table(
      `\tset a {\n\t\ttype ipv4_addr\n\t\tflags dynamic,timeout\n\t\ttimeout 3h\n\t\telements = { 198.51.100.7 expires 1h }\n\t}\n${prerouting('ip saddr @a dnat to 10.1.1.3\nip daddr 10.96.0.1 update @a { ip saddr } dnat to 10.1.1.2')}`,
    )
    expect(fate({nft}, VIP).backends[0]?.pod).to.equal('default/a')
  })
})
