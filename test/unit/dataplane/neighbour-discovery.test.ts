/** Rules of INPUT and OUTPUT that keep IPv6 from finding its neighbours. */
import {expect} from 'chai'
import {lostDiscovery} from '../../../src/dataplane/neighbour-discovery.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {oneNode} from '../../helpers/node.js'

const ADDRESSES = JSON.stringify([
  {ifname: 'lo', flags: ['LOOPBACK', 'UP'], addr_info: [{local: '::1', prefixlen: 128, scope: 'host'}]},
  {
    ifname: 'eth0',
    flags: ['UP'],
    addr_info: [
      {local: '2001:db8::11', prefixlen: 64, scope: 'global'},
      {local: 'fe80::5', prefixlen: 64, scope: 'link'},
    ],
  },
])

/** What is lost, in few words. */
function lost(files: Readonly<Record<string, string>>): string | undefined {
  const world = buildWorld(snapshotFromFiles(oneNode({files: {'ip-addr.json': ADDRESSES, ...files}})))
  const found = lostDiscovery(world, world.machines.get('n1')!)
  return (
    found &&
    `${found.sure ? '' : 'perhaps '}${found.message} ${found.inbound ? 'in' : 'out'} by ${found.device}: ${found.reason}`
  )
}

const save = ({input = 'ACCEPT', output = 'ACCEPT', rules = [] as readonly string[]}): Record<string, string> => ({
  'ip6tables-save.txt': `*filter\n:INPUT ${input} [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ${output} [0:0]\n${rules.map((rule) => `-A ${rule}\n`).join('')}COMMIT\n`,
})
const nft = (rules: readonly string[]): Record<string, string> => ({
  'nft.txt': `table inet fw {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n${rules.map((rule) => `\t\t${rule}\n`).join('')}\t}\n}\n`,
})
const TCP = ['INPUT -p tcp -j ACCEPT', 'INPUT -p udp -j ACCEPT']
const accept = (type: string): string => `INPUT -p ipv6-icmp -m icmp6 --icmpv6-type ${type} -j ACCEPT`

const CASES: readonly (readonly [name: string, files: Record<string, string>, lost: RegExp | undefined])[] = [
  ['no rules', save({}), undefined],
  ['all of ICMPv6', save({rules: ['INPUT -p ipv6-icmp -j DROP']}), /^solicitation in by eth0: legacy filter\/INPUT#1/],
  ['a policy that forgets it', save({input: 'DROP', rules: TCP}), /^solicitation in by eth0: the policy DROP/],
  ['a policy of OUTPUT', save({output: 'DROP', rules: ['OUTPUT -p tcp -j ACCEPT']}), /^solicitation out by eth0/],
  ['one of the two messages', save({input: 'DROP', rules: [...TCP, accept('135')]}), /^advertisement in by eth0/],
  ['both accepted by number', save({input: 'DROP', rules: [...TCP, accept('135'), accept('136')]}), undefined],
  [
    'both accepted by name',
    save({input: 'DROP', rules: [accept('neighbour-solicitation'), accept('neighbor-advertisement')]}),
    undefined,
  ],
  ['all of ICMPv6 accepted', save({input: 'DROP', rules: ['INPUT -p ipv6-icmp -j ACCEPT']}), undefined],
  [
    'known connections alone',
    save({input: 'DROP', rules: ['INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT']}),
    /^solicitation in/,
  ],
  [
    'what is not tracked',
    save({input: 'DROP', rules: ['INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT']}),
    undefined,
  ],
  ['link-local hosts only', save({input: 'DROP', rules: ['INPUT -s fe80::/10 -j ACCEPT']}), undefined],
  ['echo requests alone', save({rules: ['INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j DROP']}), undefined],
  ['another device', save({rules: ['INPUT -i eth1 -p ipv6-icmp -j DROP']}), undefined],
  ['nft without a word of it', nft(['tcp dport 22 accept']), /^solicitation in by eth0: the policy drop/],
  ['nft, by name', nft(['icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept']), undefined],
  ['nft, one alone', nft(['icmpv6 type nd-neighbor-advert accept']), /^solicitation in/],
  ['nft, all', nft(['meta l4proto ipv6-icmp accept']), undefined],
  [
    'as ufw accepts them',
    save({
      input: 'DROP',
      rules: ['135', '136'].map(
        (type) => `INPUT -p ipv6-icmp -m icmp6 --icmpv6-type ${type} -m hl --hl-eq 255 -j ACCEPT`,
      ),
    }),
    undefined,
  ],
  [
    'a match that nobody knows',
    save({input: 'DROP', rules: ['INPUT -p ipv6-icmp -m frobnicate --x 1 -j ACCEPT']}),
    /^perhaps solicitation in/,
  ],
  [
    'firewalld: the reverse path of every source, where each device has the link-local network',
    {
      'nft.txt':
        'table inet firewalld {\n\tchain p {\n\t\ttype filter hook prerouting priority filter + 10; policy accept;\n\t\ticmpv6 type { nd-router-advert, nd-neighbor-solicit } accept\n\t\tmeta nfproto ipv6 fib saddr . mark . iif oif missing drop\n\t}\n}\n',
      'ip-route6.json': JSON.stringify([
        {dst: 'fe80::/64', dev: 'cni0', metric: 256, flags: []},
        {dst: 'fe80::/64', dev: 'eth0', metric: 256, flags: []},
        {dst: '2001:db8::/64', dev: 'eth0', metric: 256, flags: []},
      ]),
    },
    undefined,
  ],
  ['rules that were not read', {'ip6tables-save.txt': '*filter\n:INPUT DROP [0:0]\n'}, /^perhaps solicitation in/],
]

describe('neighbour discovery', () => {
  for (const [name, files, expected] of CASES)
    it(name, () => {
      if (expected === undefined) expect(lost(files)).to.equal(undefined)
      else expect(lost(files)).to.match(expected)
    })
  it('a node without IPv6 needs none', () =>
    expect(lost({'ip-addr.json': '[]', ...save({input: 'DROP'})})).to.equal(undefined))
})
