import {WORDS, type Dice, type Words} from './grammar.js'
import {nativeTable} from './generate-nft.js'
import {CLIENTS, PODS, PORTS, ROUTER, VIPS, type Part, type Shot} from './lab.js'

interface Place {
  readonly table: string
  /** The hooks that may lead here. */
  readonly hooks: readonly string[]
  readonly base: boolean
  /** Chains that may be called. */
  readonly below: readonly string[]
  readonly sets: readonly SetInfo[]
}

interface SetInfo {
  readonly name: string
  readonly dimensions: number
}

const MATCHES = `
2 -m mark <not>--mark [0x1¦0x4000/0x4000¦0x0/0x4000¦0x2/0xff¦0x0¦0x4001]
1 -m connmark <not>--mark [0x1¦0x4000/0x4000¦0x0/0xf¦0x2/0xff]
2 -m conntrack <not>--ctstate <states>
1 -m state <not>--state [NEW¦INVALID¦UNTRACKED¦NEW,RELATED¦ESTABLISHED,RELATED]
1 -m conntrack <not>--[ctorigsrc <source>¦ctorigdst <target>¦ctreplsrc <target>¦ctrepldst <source>¦ctorigdstport <port>¦ctreplsrcport <port>]
0.5 -m conntrack <not>--ctstatus [SEEN_REPLY¦CONFIRMED¦NONE¦ASSURED¦EXPECTED]
1 -m conntrack --ctdir [ORIGINAL¦REPLY]
0.5 -m conntrack <not>--ctproto [tcp¦udp¦17]
0.5 -m conntrack <not>--[ctorigsrcport¦ctrepldstport] [1:30000¦30000:65535]
2 -m addrtype <not>--[src¦dst]-type [LOCAL¦LOCAL¦UNICAST¦LOCAL,UNICAST¦BROADCAST]
1 -m iprange <not>--src-range <sources>
1 -m iprange <not>--dst-range <targets>
4 <set>
1 -m statistic --mode random <not>--probability [0¦1]
1 -m comment --comment "[a b¦it's¦x -j DROP¦-]"
0.3 -m recent <not>--rcheck --name never-seen
0.3 -m physdev <not>--physdev-is-in
0.05 -m physdev <not>--physdev-in port1`
const PORT_MATCHES = `
3 -m <l4> <not>--dport [<port>¦<port>¦1:450¦90:8079¦5000:10000]
1 -m <l4> <not>--sport [20000:40000¦1:30000¦30000:65535¦25000:55000]
2 -m multiport <not>--[dports¦dports¦ports¦sports] [<port>¦<port>,443¦80,<port>,5000:10000¦1:450]`
const TCP_MATCHES = `
1 -m tcp [--syn¦! --syn¦--tcp-flags SYN,ACK SYN¦--tcp-flags ACK ACK¦--tcp-flags ALL SYN,ACK¦! --tcp-flags SYN,RST SYN¦--tcp-flags RST RST]`
const EARLY_MATCHES = '\n1 -m rpfilter[¦ --loose¦ --invert¦ --validmark¦ --accept-local]'
const INCOMING_MATCHES =
  '\n0.5 -m policy --dir in --pol [none¦ipsec]\n0.5 -m addrtype <not>--dst-type LOCAL --limit-iface-in'
const OUTGOING_MATCHES =
  '\n0.5 -m addrtype <not>--src-type LOCAL --limit-iface-out\n0.3 -m physdev <not>[--physdev-is-out¦--physdev-is-bridged]\n0.05 -m physdev --physdev-is-bridged --physdev-out port1'

/** The probes on the node run as root. */
const OWNER_MATCHES = '\n0.5 -m owner [--socket-exists¦<not>--uid-owner 4242¦! --uid-owner 0]'

const ACTIONS = `
2 -j ACCEPT
2 -j RETURN
2 -j MARK --[set-xmark 0x4000/0x4000¦set-xmark 0x1/0xffffffff¦or-mark 0x2¦and-mark 0xfffffffd¦xor-mark 0x4000¦set-mark 0x1/0xf¦set-xmark 0x4000/0x0]
1 -j CONNMARK --[save-mark¦restore-mark¦set-xmark 0x1/0xffffffff¦or-mark 0x4000¦save-mark --nfmask 0xff --ctmask 0xff]`
const CALLS = '\n5 -[j¦j¦j¦g] <below>'
const TABLE_ACTIONS: Readonly<Record<string, string>> = {
  raw: '\n1 -j DROP\n1 -j NOTRACK\n1 -j CT --notrack',
  mangle: `
1 -j DROP
2 -j [LOG¦NFLOG --nflog-group 5¦AUDIT --type accept¦TOS --set-tos 0x10/0xff¦DSCP --set-dscp 0x0a¦IDLETIMER --timeout 60 --label kt¦CONNSECMARK --save¦TEE --gateway 10.77.9.254]`,
  security: '\n2 -j DROP',
  filter: `
5 -j ACCEPT
3 -j DROP
2 -j REJECT --reject-with icmp-[port-unreachable¦host-unreachable¦net-unreachable¦proto-unreachable¦admin-prohibited¦host-prohibited]
1 -j REJECT`,
  destination:
    '\n7 -j DNAT --to-destination [<pod>¦<pod>¦<own>]<colon>\n2 -j REDIRECT<toports>\n0.2 -j NETMAP --to 10.77.2.0/24',
  source: '\n3 -j SNAT --to-source <own>',
  post: '\n3 -j SNAT --to-source <own>\n7 -j MASQUERADE[¦¦¦ --random-fully]',
}

function setMatch(dice: Dice, sets: readonly SetInfo[]): string {
  const {name, dimensions} = dice.pick(sets)
  return `-m set <not>--match-set ${name} ${Array.from({length: dimensions}, () => '[src¦dst¦dst]').join(',')}[¦¦¦¦ --return-nomatch]`
}

function rule(dice: Dice, chain: string, place: Place): string {
  const {table, hooks, base, below} = place
  const proto = dice.pick(['tcp', 'tcp', 'tcp', 'udp', 'udp', 'udp', '', '', '', 'icmp'])
  const l4 = proto === 'tcp' || proto === 'udp' ? proto : ''
  const incoming = !base || ['PREROUTING', 'INPUT', 'FORWARD'].includes(hooks[0]!)
  const outgoing = !base || ['POSTROUTING', 'OUTPUT', 'FORWARD'].includes(hooks[0]!)
  const words: Words = {
    ...WORDS,
    l4: () => l4,
    set: () => setMatch(dice, place.sets),
    below: () => dice.pick(below),
    colon: () => (l4 !== '' && dice.chance(0.7) ? ':<port>' : ''),
    toports: () => (l4 === '' ? '' : ' --to-ports <listened>'),
    device: () =>
      `-${dice.pick([...(incoming ? ['i'] : []), ...(outgoing ? ['o'] : [])])} [eth0¦cni0¦eth2¦wan0¦lo¦eth+]`,
  }
  const parts = [
    proto === '' ? '' : `-p ${proto}`,
    proto === 'icmp' && dice.chance(0.5) ? '-m icmp <not>--icmp-type [3¦destination-unreachable¦8¦any]' : '',
  ]
  if (dice.chance(0.3)) parts.push('<not>-s <source>')
  if (dice.chance(0.45)) parts.push('<not>-d <target>')
  if (dice.chance(0.2)) parts.push('<not><device>')
  const early = hooks.every((hook) => hook === 'PREROUTING') && (table === 'raw' || table === 'mangle')
  const inside = !hooks.includes('OUTPUT') && !hooks.includes('POSTROUTING')
  const matches =
    MATCHES +
    (l4 === '' ? '' : PORT_MATCHES) +
    (l4 === 'tcp' ? TCP_MATCHES : '') +
    (early ? EARLY_MATCHES : '') +
    (inside ? INCOMING_MATCHES : '') +
    (hooks.every((hook) => hook === 'POSTROUTING') ? OUTGOING_MATCHES : '') +
    (hooks.every((hook) => hook === 'OUTPUT' || hook === 'POSTROUTING') ? OWNER_MATCHES : '')
  const used = new Map(
    dice.times(0, 2, () => dice.say(dice.line(matches), words)).map((match) => [match.split(' ')[1], match]),
  )
  const kind =
    table !== 'nat'
      ? table
      : hooks.includes('PREROUTING') || hooks.includes('OUTPUT')
        ? 'destination'
        : hooks.includes('POSTROUTING')
          ? 'post'
          : 'source'
  const actions =
    ACTIONS +
    TABLE_ACTIONS[kind]! +
    (below.length > 0 ? CALLS : '') +
    (kind === 'mangle' && l4 === 'tcp' ? '\n2 -j [ECN --ecn-tcp-remove¦TCPOPTSTRIP --strip-options timestamp]' : '') +
    (kind === 'mangle' && l4 === 'udp' ? '\n1 -j CHECKSUM --checksum-fill' : '') +
    (kind === 'mangle' && hooks.every((hook) => hook === 'POSTROUTING') ? '\n1 -j CLASSIFY --set-class 1:1' : '') +
    (kind === 'filter' && l4 === 'tcp' ? '\n2 -j REJECT --reject-with tcp-reset' : '')
  return [
    '-A',
    chain,
    ...[...parts, ...used.values(), dice.line(actions)]
      .filter((part) => part !== '')
      .map((part) => dice.say(part, words)),
  ].join(' ')
}

/** name, hooks that share user chains, most rules of a base chain, share of rulesets that have it */
const TABLES: readonly (readonly [string, readonly (readonly string[])[], number, number])[] = [
  ['raw', [['PREROUTING'], ['OUTPUT']], 2, 0.4],
  ['mangle', [['PREROUTING'], ['INPUT'], ['FORWARD'], ['OUTPUT'], ['POSTROUTING']], 2, 0.4],
  ['nat', [['PREROUTING', 'OUTPUT'], ['INPUT'], ['POSTROUTING']], 6, 1],
  ['filter', [['INPUT', 'FORWARD', 'OUTPUT']], 4, 0.9],
  ['security', [['INPUT', 'FORWARD', 'OUTPUT']], 1, 0.1],
]

function table(dice: Dice, [name, groups, most]: (typeof TABLES)[number], sets: readonly SetInfo[]): string {
  const heads: string[] = []
  const lines: string[] = []
  for (const [at, hooks] of groups.entries()) {
    const users = dice.times(0, name === 'raw' ? 1 : 3, (number) => `${name.toUpperCase()}-${at}-${number}`)
    for (const [number, user] of users.entries()) {
      heads.push(`:${user} - [0:0]`)
      lines.push(
        ...dice.times(1, 4, () =>
          rule(dice, user, {table: name, hooks, base: false, below: users.slice(number + 1), sets}),
        ),
      )
    }
    for (const hook of hooks) {
      heads.push(`:${hook} ${name === 'filter' && dice.chance(0.12) ? 'DROP' : 'ACCEPT'} [0:0]`)
      lines.push(
        ...dice.times(0, hook === 'INPUT' ? 2 : most, () =>
          rule(dice, hook, {table: name, hooks: [hook], base: true, below: users, sets}),
        ),
      )
      if (name === 'nat' && at === 0 && dice.chance(0.7))
        lines.push(...VIPS.map((vip) => `-A ${hook} -d ${vip} -j DNAT --to-destination ${dice.pick(PODS)}`))
    }
  }
  return [`*${name}`, ...heads, ...lines, 'COMMIT', ''].join('\n')
}

const SET_TYPES: Readonly<Record<string, string>> = {
  'hash:ip': '[<client>¦<host>]',
  'hash:net': '<target>[¦¦¦ nomatch]',
  'hash:ip,port': '<host>,[tcp:¦udp:¦]<port>',
  'hash:net,port': '<target>,<proto>:<port>[¦¦¦ nomatch]',
  'hash:ip,port,ip': '<host>,<proto>:<port>,[<client>¦<pod>]',
  'hash:ip,port,net': '<host>,<proto>:<port>,<source>',
  'hash:net,iface': '<source>,[eth0¦cni0¦eth2¦wan0¦lo]',
  'hash:ip netmask 24': '[<client>¦<host>]',
  'bitmap:ip range 10.77.0.0/16 netmask 28': '[<client>¦<pod>¦<own>]',
  'bitmap:port range 0-65535': '<port>',
  'bitmap:ip range 10.77.0.0/16': '[<client>¦<pod>¦<own>]',
}

function ipsets(dice: Dice): {text: string; sets: SetInfo[]} {
  const lines: string[] = []
  const sets = dice.times(2, 6, (at): SetInfo => {
    const type = dice.pick(Object.keys(SET_TYPES))
    lines.push(
      `create S${at} ${type}`,
      ...dice.times(2, 8, () => `add -exist S${at} ${dice.say(SET_TYPES[type]!, WORDS)}`),
    )
    return {name: `S${at}`, dimensions: type.split(' ')[0]!.split(',').length}
  })
  if (dice.chance(0.4)) {
    lines.push('create L list:set', ...dice.some(sets, 3).map(({name}) => `add L ${name}`))
    sets.push({name: 'L', dimensions: dice.int(1, 3)})
  }
  return {text: lines.join('\n'), sets}
}

/** Routes, policy rules and sysctls that some rulesets add. */
const EXTRAS = `
3 sysctl -qw net.bridge.bridge-nf-call-iptables=0
1 for port in 1 3; do ip link set port$port type bridge_slave hairpin off; done
1 sysctl -qw net.ipv4.conf.all.route_localnet=1
1 sysctl -qw net.ipv4.conf.all.rp_filter=[1¦2]
1 sysctl -qw net.ipv4.ip_forward=0
1 ip route add [blackhole¦unreachable¦prohibit] [10.96.0.1¦10.96.0.0/24]
1 ip rule add pref 100 fwmark 0x4000/0x4000 table 100; ip route add blackhole default table 100
1 ip rule add pref 100 fwmark 0x1 table 100; ip route add 10.96.0.0/16 via 10.77.2.10 table 100
1 ip rule add pref 100 [from 10.77.1.3 unreachable¦iif eth0 to 10.77.3.0/24 prohibit]`

const iptables = (dice: Dice, sets: readonly SetInfo[]): string =>
  TABLES.filter(([, , , share]) => dice.chance(share))
    .map((one) => table(dice, one, sets))
    .join('')

/** Random and valid: what is loaded into the router. */
export function ruleset(dice: Dice): Part[] {
  const {text, sets} = ipsets(dice)
  const kind = dice.pick([
    'iptables-legacy',
    'iptables-legacy',
    'iptables-nft',
    'iptables-nft',
    'nft',
    'nft',
    dice.chance(0.5) ? 'mixed' : 'nft',
  ] as const)
  const parts: Part[] = []
  if (kind !== 'nft')
    parts.push(
      {tool: 'ipset', text},
      {
        tool: kind === 'mixed' ? dice.pick(['iptables-legacy', 'iptables-nft'] as const) : kind,
        text: iptables(dice, sets),
      },
    )
  if (kind === 'nft' || kind === 'mixed') parts.push({tool: 'nft', text: nativeTable(dice)})
  if (dice.chance(0.4)) parts.push({tool: 'nft', text: markGate(dice)})
  if (dice.chance(0.3)) parts.push({tool: 'sh', text: dice.say(dice.line(EXTRAS), {})})
  return parts
}

/** Behind all other rules: whatever left them with this bit in its mark is dropped, so that its fate tells its mark. */
function markGate(dice: Dice): string {
  const mark = dice.pick(['meta mark', 'meta mark', 'ct mark'] as const)
  const bit = dice.pick(['0x1', '0x2', '0x4000'] as const)
  const chain = (hook: string): string =>
    `  chain ${hook} {\n    type filter hook ${hook} priority 350; policy accept;\n    ${mark} and ${bit} == ${bit} drop\n  }`
  return `table inet gate {\n${['input', 'postrouting'].map(chain).join('\n')}\n}`
}

let ports = 0
/** A source port that no packet has used lately; `like` stays in the same half, so that rules see no difference. */
export function freshPort(like?: number): number {
  const port = (ports++ * 7919) % 20000
  return (like === undefined ? ports % 2 === 0 : like < 40000) ? 20000 + port : 40000 + port
}

/** Packets that the ruleset has something to say about. */
export function packets(dice: Dice, count: number): Shot[] {
  return Array.from({length: count}, (_, at): Shot => {
    const from = dice.pick([
      'client',
      'client',
      'client',
      'client',
      'router',
      'router',
      's1',
      dice.pick(['s2', 's3'] as const),
    ] as const)
    const dst = dice.say(
      `[<vip>¦<vip>¦<vip>¦<pod>¦<pod>¦${dice.pick(ROUTER)}¦${from === 'router' ? '127.0.0.1' : '<vip>'}]`,
      WORDS,
    )
    const src = from === 'client' ? dice.pick(CLIENTS) : from === 'router' ? '' : PODS[Number(from.slice(1)) - 1]!
    return {
      id: String(at),
      from,
      proto: dice.pick(['TCP', 'UDP'] as const),
      src,
      sport: freshPort(),
      dst,
      dport: dice.pick(PORTS),
    }
  })
}
