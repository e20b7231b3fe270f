import {expect} from 'chai'
import fc from 'fast-check'
import {fate} from '../../helpers/node.js'

const nat = (...rules: string[]): string =>
  `*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n${rules.join('\n')}\nCOMMIT\n`
const filter = (policy: string, ...rules: string[]): string =>
  `*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ${policy} [0:0]\n:OUTPUT ACCEPT [0:0]\n${rules.join('\n')}\nCOMMIT\n`
const DNAT = '-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.2:8080'
const VIP = {to: '10.96.0.1:80'}

describe('the walk', () => {
  it('delivers what a rule translates, with the client address', () => {
    const {outcomes, backends} = fate({iptables: nat(DNAT)}, VIP)
    expect(outcomes).to.deep.equal({delivered: 1})
    expect(backends).to.deep.equal([
      {address: '10.1.1.2:8080', pod: 'default/a', node: 'n1', share: 1, source: '198.51.100.7'},
    ])
  })

  it('splits by probability, and shares sum to 1', () => {
    const chains = ':A - [0:0]\n'
    const rules =
      chains +
      '-A PREROUTING -d 10.96.0.1/32 -j A\n-A A -p tcp -m statistic --mode random --probability 0.25000000000 -j DNAT --to-destination 10.1.1.2:80\n-A A -p tcp -j DNAT --to-destination 10.1.1.3:80'
    expect(fate({iptables: nat(rules)}, VIP).backends.map(({share}) => share)).to.deep.equal([0.25, 0.75])
  })

  it('ends at a policy, a DROP, a REJECT', () => {
    expect(fate({iptables: nat(DNAT) + filter('DROP')}, VIP).outcomes).to.deep.equal({dropped: 1})
    expect(
      fate({iptables: nat(DNAT) + filter('ACCEPT', '-A FORWARD -p tcp -m tcp --dport 8080 -j DROP')}, VIP).outcomes,
    ).to.deep.equal({dropped: 1})
    expect(
      fate(
        {
          iptables:
            nat(DNAT) + filter('ACCEPT', '-A FORWARD -d 10.1.1.2/32 -j REJECT --reject-with icmp-port-unreachable'),
        },
        VIP,
      ).outcomes,
    ).to.deep.equal({refused: 1})
  })

  it('a refusal that the client cannot hear is silence', () => {
    const rules = '-A FORWARD -d 10.1.1.2/32 -j REJECT --reject-with icmp-port-unreachable\n-A OUTPUT -p icmp -j DROP'
    expect(fate({iptables: nat(DNAT) + filter('ACCEPT', rules)}, VIP).outcomes).to.deep.equal({dropped: 1})
  })

  it('loses the answer: an INVALID or dropped reply is not delivered', () => {
    expect(
      fate({iptables: nat(DNAT) + filter('ACCEPT', '-A FORWARD -s 10.1.1.2/32 -j DROP')}, VIP).outcomes,
    ).to.deep.equal({dropped: 1})
  })

  it('does not forward without ip_forward', () => {
    expect(fate({iptables: nat(DNAT), sysctl: 'net.ipv4.ip_forward = 0\n'}, VIP).outcomes).to.deep.equal({dropped: 1})
  })

  it('routes of the main table alone: local addresses follow from the devices, other tables are not known', () => {
    const main = [
      {dst: 'default', gateway: '192.0.2.1', dev: 'eth0', flags: []},
      {dst: '10.1.1.0/24', dev: 'cni0', scope: 'link', prefsrc: '10.1.1.1', flags: []},
      {dst: '192.0.2.0/24', dev: 'eth0', scope: 'link', prefsrc: '192.0.2.11', flags: []},
    ]
    const files = {'ip-route.json': JSON.stringify(main)}
    const iptables = nat(DNAT, '-A POSTROUTING -p tcp -m tcp --dport 8080 -j MASQUERADE')
    expect(fate({iptables, files}, VIP).outcomes).to.deep.equal({delivered: 1})
    expect(fate({files}, {to: '192.0.2.11:81'}).outcomes).to.deep.equal({refused: 1})
    const rules = [
      {priority: 0, src: 'all', table: 'local'},
      {priority: 100, src: 'all', table: '100'},
      {priority: 32766, src: 'all', table: 'main'},
    ]
    const unread = {...files, 'ip-rule.json': JSON.stringify(rules)}
    expect(fate({iptables, files: unread}, VIP).outcomes).to.deep.equal({unknown: 1})
  })

  it('hash:net,iface: the nearest network decides, whatever its device (found by the kernel oracle, SEED=238421)', () => {
    const iptables = nat(DNAT) + filter('ACCEPT', '-A FORWARD -m set --match-set S dst,src -j DROP')
    const set = (...entries: string[]): string =>
      ['create S hash:net,iface family inet hashsize 1024 maxelem 65536', ...entries.map((one) => `add S ${one}`)].join(
        '\n',
      )
    expect(fate({iptables, ipset: set('10.1.0.0/16,eth0')}, VIP).outcomes).to.deep.equal({dropped: 1})
    expect(fate({iptables, ipset: set('10.1.0.0/16,eth0', '10.1.1.0/24,eth9')}, VIP).outcomes).to.deep.equal({
      delivered: 1,
    })
    expect(fate({iptables, ipset: set('10.1.1.0/24,eth0', '10.1.1.0/24,eth9')}, VIP).outcomes).to.deep.equal({
      dropped: 1,
    })
  })

  it('goto ends the caller, jump comes back', () => {
    const drop = filter('ACCEPT', ':A - [0:0]', '-A FORWARD -g A', '-A FORWARD -j DROP', '-A A -j RETURN')
    expect(fate({iptables: nat(DNAT) + drop}, VIP).outcomes).to.deep.equal({delivered: 1})
    expect(fate({iptables: nat(DNAT) + drop.replace('-g A', '-j A')}, VIP).outcomes).to.deep.equal({dropped: 1})
  })

  it('nobody listens: refused; somebody does: delivered', () => {
    expect(fate({}, {to: '192.0.2.11:81'}).outcomes).to.deep.equal({refused: 1})
    expect(fate({ss: 'tcp LISTEN 0 128 0.0.0.0:81 0.0.0.0:*\n'}, {to: '192.0.2.11:81'}).outcomes).to.deep.equal({
      delivered: 1,
    })
    expect(fate({ss: 'tcp LISTEN 0 128 127.0.0.1:81 0.0.0.0:*\n'}, {to: '192.0.2.11:81'}).outcomes).to.deep.equal({
      refused: 1,
    })
  })

  it('NOTRACK disables NAT', () => {
    const raw =
      '*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 80 -j CT --notrack\nCOMMIT\n'
    expect(
      fate(
        {iptables: raw + nat('-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.2:8080')},
        {to: '192.0.2.11:80'},
      ).outcomes,
    ).to.deep.equal({refused: 1})
  })

  it('hairpin mode that only some ports of the bridge have is an open question', () => {
    const links = (...modes: boolean[]): string =>
      JSON.stringify([
        {ifindex: 1, ifname: 'lo', flags: ['LOOPBACK', 'UP']},
        {ifindex: 2, ifname: 'eth0', flags: ['UP']},
        {ifindex: 3, ifname: 'cni0', flags: ['UP'], linkinfo: {info_kind: 'bridge'}},
        ...modes.map((hairpin, at) => ({
          ifindex: 4 + at,
          ifname: `veth${at}`,
          flags: ['UP'],
          master: 'cni0',
          linkinfo: {info_kind: 'veth', info_slave_kind: 'bridge', info_slave_data: {hairpin}},
        })),
      ])
    const iptables = nat(DNAT, '-A POSTROUTING -s 10.1.1.2/32 -d 10.1.1.2/32 -j MASQUERADE')
    const own = {...VIP, from: {pod: 'default/a'}}
    const outcome = (...modes: boolean[]): object =>
      fate({iptables, files: {'ip-link.json': links(...modes)}}, own).outcomes
    expect(outcome(true, true)).to.deep.equal({delivered: 1})
    expect(outcome(true, false)).to.deep.equal({unknown: 1})
    expect(outcome(false, false)).to.deep.equal({dropped: 1})
  })

  it('hairpin works with masquerade only', () => {
    const from = {from: {pod: 'default/a'}, enter: undefined as never, ...VIP}
    expect(fate({iptables: nat(DNAT)}, from).outcomes).to.deep.equal({dropped: 1})
    expect(
      fate({iptables: nat(DNAT, '-A POSTROUTING -s 10.1.1.2/32 -d 10.1.1.2/32 -j MASQUERADE')}, from).backends[0]
        ?.source,
    ).to.equal('10.1.1.1')
  })

  it('bridged answers need bridge-nf-call-iptables', () => {
    const from = {from: {pod: 'default/b'}, enter: undefined as never, ...VIP}
    expect(fate({iptables: nat(DNAT)}, from).outcomes).to.deep.equal({delivered: 1})
    expect(
      fate({iptables: nat(DNAT), sysctl: 'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 0\n'}, from)
        .outcomes,
    ).to.deep.equal({dropped: 1})
  })

  it('source sets split where rules split', () => {
    const rules = '-A FORWARD ! -s 198.51.100.0/25 -i eth0 -j DROP'
    const answer = fate(
      {iptables: nat(DNAT) + filter('ACCEPT', rules, '-A FORWARD -j ACCEPT')},
      {...VIP, from: {external: '198.51.100.0/24'}},
    )
    expect(answer.outcomes['delivered']).to.be.closeTo(0.5, 1e-9)
    expect(answer.backends[0]?.source).to.equal('198.51.100.0/25')
  })

  it('IPVS: no real server with weight refuses; Masq delivers', () => {
    const server = '-A -t 192.0.2.11:80 -s rr\n'
    expect(fate({ipvs: server}, {to: '192.0.2.11:80'}).outcomes).to.deep.equal({refused: 1})
    expect(
      fate({ipvs: `${server}-a -t 192.0.2.11:80 -r 10.1.1.2:8080 -m -w 0\n`}, {to: '192.0.2.11:80'}).outcomes,
    ).to.deep.equal({refused: 1})
    expect(
      fate({ipvs: `${server}-a -t 192.0.2.11:80 -r 10.1.1.2:8080 -m -w 1\n`}, {to: '192.0.2.11:80'}).backends[0]?.pod,
    ).to.equal('default/a')
    expect(
      fate({ipvs: `${server}-a -t 192.0.2.11:80 -r 10.1.1.2:8080 -i -w 1\n`}, {to: '192.0.2.11:80'}).outcomes,
    ).to.deep.equal({unknown: 1})
  })

  it('an existing conntrack entry wins over the rules', () => {
    const entry =
      'udp 17 20 src=198.51.100.7 dst=10.96.0.1 sport=4000 dport=80 [UNREPLIED] src=10.1.1.9 dst=198.51.100.7 sport=80 dport=4000 mark=0 use=1\n'
    const rules = nat('-A PREROUTING -d 10.96.0.1/32 -p udp -j DNAT --to-destination 10.1.1.2:8080')
    expect(
      fate({iptables: rules, files: {'conntrack.txt': entry}}, {...VIP, proto: 'UDP', sport: 4000}).outcomes,
    ).to.deep.equal({dropped: 1})
    expect(
      fate({iptables: rules, files: {'conntrack.txt': entry}}, {...VIP, proto: 'UDP', sport: 4001}).outcomes,
    ).to.deep.equal({delivered: 1})
  })
})

describe('the walk is honest', () => {
  const open: [string, string][] = [
    ['an unmodelled match', nat(DNAT) + filter('ACCEPT', '-A FORWARD -m bpf --bytecode "1,6 0 0 0" -j DROP')],
    ['an unmodelled target', nat(DNAT) + filter('ACCEPT', '-A FORWARD -j NFQUEUE --queue-num 0')],
    ['a chain that is not in the dump', nat(DNAT) + filter('ACCEPT', '-A FORWARD -j cali-FORWARD')],
    ['a set that is not in the dump', nat(DNAT) + filter('ACCEPT', '-A FORWARD -m set --match-set NOPE dst -j DROP')],
    ['a dump without COMMIT', (nat(DNAT) + filter('ACCEPT')).replace(/COMMIT\n$/, '')],
    ['a rule cut inside a quote', nat(DNAT) + filter('ACCEPT', '-A FORWARD -m comment --comment "half')],
    [
      'a line that is no rule',
      nat(DNAT) +
        filter('ACCEPT', '-A FORWARD -j ACCEPT\n%$§ garbage').replace(
          '-A FORWARD -j ACCEPT',
          '-A FORWARD -d 192.0.2.99/32 -j ACCEPT',
        ),
    ],
    ['an unsupported revision', nat(DNAT.replace('--to-destination 10.1.1.2:8080', '[unsupported revision]'))],
  ]
  for (const [what, iptables] of open) {
    it(`${what} never ends as delivered`, () => expect(fate({iptables}, VIP).outcomes['delivered'] ?? 0).to.equal(0))
  }

  it('an open question that changes nothing is no question', () => {
    expect(
      fate({iptables: nat(DNAT) + filter('ACCEPT', '-A FORWARD -m bpf --bytecode "1,6 0 0 0" -j LOG')}, VIP).outcomes,
    ).to.deep.equal({delivered: 1})
    expect(
      fate({iptables: nat(DNAT) + filter('ACCEPT', '-A FORWARD -m bpf --bytecode "1,6 0 0 0" -j ACCEPT')}, VIP)
        .outcomes,
    ).to.deep.equal({delivered: 1})
  })

  it('an unreadable section makes it unknown, one that was never asked for does not', () => {
    expect(fate({iptables: nat(DNAT), files: {'nft.txt': ''}}, VIP).outcomes).to.deep.equal({delivered: 1})
    const files = {
      'rc.txt': 'iptables-save.txt rc=4\n',
      'iptables-save.txt.stderr': 'Fatal: Permission denied (you must be root)',
    }
    expect(fate({files}, VIP).outcomes).to.not.have.property('delivered')
  })

  it('a chain that calls itself ends, as unknown', () => {
    expect(
      fate(
        {
          iptables:
            nat(DNAT) + filter('ACCEPT', ':A - [0:0]', ':B - [0:0]', '-A FORWARD -j A', '-A A -j B', '-A B -j A'),
        },
        VIP,
      ).outcomes,
    ).to.deep.equal({unknown: 1})
  })

  it('one that does so by dice and open questions ends as well', () => {
    const rules = [
      '-A FORWARD ! -s 198.51.100.0/26 -j B',
      '-A B -m statistic --mode random --probability 0.5 -j MARK --set-xmark 0x4000/0x4000',
      '-A B -p tcp -j MARK --set-xmark 0x4000/0x4000',
      '-A B -s 198.51.100.0/25 -j NFQUEUE',
      '-A B -m bpf --bytecode "1" -j REJECT',
      '-A B -m mark --mark 0x4000/0x4000 -j B',
      '-A FORWARD -m mark --mark 0x4000/0x4000 -j A',
      '-A A -m bpf --bytecode "1" -j REJECT',
    ]
    const iptables = nat(DNAT) + filter('ACCEPT', ':A - [0:0]', ':B - [0:0]', ...rules)
    expect(fate({iptables}, {...VIP, from: {external: '198.51.100.0/24'}}).outcomes).to.deep.equal({unknown: 1})
  })

  it('100,000 rules end quickly', () => {
    const many = Array.from(
      {length: 100_000},
      (_, at) => `-A FORWARD -d 203.0.${at % 256}.${Math.floor(at / 256) % 256}/32 -j DROP`,
    )
    expect(fate({iptables: nat(DNAT) + filter('ACCEPT', ...many)}, VIP).outcomes).to.deep.equal({delivered: 1})
  })
})

describe('properties of a walk', () => {
  const target = fc.constantFrom(
    'ACCEPT',
    'DROP',
    'RETURN',
    'REJECT',
    'MARK --set-xmark 0x4000/0x4000',
    'U1',
    'U2',
    'NFQUEUE',
    'LOG',
  )
  const match = fc.constantFrom(
    '',
    '-p tcp',
    '-p udp',
    '-s 198.51.100.0/25',
    '! -s 198.51.100.0/26',
    '-i eth0',
    '-m mark --mark 0x4000/0x4000',
    '-m statistic --mode random --probability 0.5',
    '-m conntrack --ctstate NEW',
    '-m bpf --bytecode "1"',
  )
  const rule = fc
    .tuple(fc.constantFrom('FORWARD', 'U1', 'U2'), match, target)
    .map(([chain, how, what]) => `-A ${chain} ${how} -j ${what}`)

  it('outcomes sum to 1, whatever the rules', () => {
    fc.assert(
      fc.property(fc.array(rule, {maxLength: 12}), (rules) => {
        const {outcomes, backends} = fate(
          {iptables: nat(DNAT) + filter('ACCEPT', ':U1 - [0:0]', ':U2 - [0:0]', ...rules)},
          {...VIP, from: {external: '198.51.100.0/24'}},
        )
        expect(Object.values(outcomes).reduce((sum, share) => sum + share, 0)).to.be.closeTo(1, 1e-9)
        expect(backends.reduce((sum, {share}) => sum + share, 0)).to.be.closeTo(outcomes['delivered'] ?? 0, 1e-9)
      }),
      {numRuns: 150},
    )
  })
})
