import {WORDS, type Dice, type Words} from './grammar.js'
import {CLIENTS, PODS, VIPS} from './lab.js'

interface Place {
  readonly type: 'filter' | 'nat' | 'route'
  readonly hook: string
  readonly below: readonly string[]
  readonly family: 'ip' | 'inet'
  /** Stands above the map of services and may ask it. */
  readonly base: boolean
}

const MATCHES = `
3 ip daddr <op>[<target>¦<target>¦<targets>¦{ <host>, 10.96.0.1-10.96.0.9 }]
3 ip saddr <op>[<source>¦<source>¦<sources>¦{ <client>, 10.77.2.0/24 }]
3 <proto> dport <op><ports>
1 meta l4proto [tcp¦udp¦{ tcp, udp }¦icmp¦!= tcp]
1 meta l4proto { tcp, udp } th dport <op><ports>
1 <proto> dport [<¦>¦<=¦>=] <port>
1 <proto> sport <op>[20000-40000¦1-30000¦30000-65535]
0.5 tcp flags [syn¦! syn¦!= syn¦== syn]
0.5 tcp flags & (fin | syn | rst | ack) == [syn¦ack¦syn | ack]
1 ip protocol <op>[tcp¦udp¦icmp¦{ tcp, icmp }]
2 meta mark <op>[0x1¦0x0¦0x4000¦{ 0x1, 0x4000 }¦0x1-0xff]
2 meta mark and [0x4000¦0xff¦0x1] [== 0¦!= 0¦== 0x4000¦== 0x1]
1 ct mark <op>[0x1¦0x0¦0x4000]
2 ct state <op>[new¦established¦established,related¦{ new, untracked }¦invalid¦untracked¦new,established]
1 ct status [¦!= ][dnat¦snat¦seen-reply¦confirmed¦dnat,snat]
1 ct status and [dnat¦snat] [== dnat¦!= 0¦== 0]
1 ct direction [original¦reply]
1 ct [original¦reply] ip [saddr¦daddr] <op><target>
1 meta l4proto tcp ct [original¦reply] proto-[dst¦src] <op><port>
2 <device>name <op>["eth0"¦"cni0"¦"lo"¦"eth*"¦{ "eth0", "lo" }]
1 <device> <op>"[eth0¦cni0¦lo]"
2 fib [daddr¦saddr] type <op>[local¦unicast¦{ local, broadcast }¦{ local, unicast }¦{ unicast, multicast }]
3 ip [daddr¦saddr] <op>@nets
2 ip daddr <op>@hosts
3 ip daddr . meta l4proto . th dport <op>@frontends
2 ip saddr . ip daddr <op>@pairs
1 iifname . ip saddr <op>{ "eth0" . <client>, "cni0" . ${PODS[0]} }
1 ip daddr & 255.255.0.0 [== 10.96.0.0¦!= 10.77.0.0]
1 numgen [random¦inc] mod 1 [== 0¦!= 0¦0]
1 jhash ip saddr mod 1 [0¦!= 0]
0.5 symhash mod 1 [0¦!= 0]
0.5 meta mark ^ 0x1 [== 0x1¦!= 0x1]`
const EARLY_MATCHES =
  '\n1 fib [saddr . iif oif != 0¦saddr . iif oif 0¦saddr . mark . iif oif 0¦daddr . iif type local¦saddr oif "eth0"]'
const INET_MATCHES = '\n1 meta nfproto ipv4'

const ACTIONS = `
2 accept
2 return
1 [counter¦log group 5¦limit rate 1000000/second¦quota 1000 mbytes¦meta nftrace set 1¦meta priority set 1:1¦<dup>¦ct count over 100000 drop]
2 meta mark set [0x1¦0x4000¦meta mark or 0x4000¦meta mark and 0xffffbfff¦meta mark xor 0x4000¦ct mark]
1 ct mark set [0x1¦meta mark¦ct mark or 0x4000]
2 <proto> dport vmap { 80 : <verdict>, 443 : <verdict>, 5000-9000 : <verdict> }
1 <proto> dport vmap { 80 : <verdict>, 443 : continue } [drop¦accept¦return¦meta mark set 0x1¦counter]
1 fib [daddr¦saddr] type vmap { local : <verdict>, unicast : <verdict>, multicast : drop }
1 ip daddr . meta l4proto vmap { <host> . tcp : <verdict>, 10.96.0.1 . udp : <verdict> }
2 ct state vmap { established : <verdict>, new : <verdict>, related : accept, invalid : [drop¦accept] }
1 [iifname vmap { "eth0"¦meta mark vmap { 0x0] : <verdict> }
1 numgen random mod 4 vmap { 0-1 : <verdict>, 2 : <verdict> }`
const FILTER = `
5 accept
2 drop
2 reject[¦ with icmp [host-unreachable¦admin-prohibited¦port-unreachable]]
1 meta l4proto tcp reject with tcp reset`
const INET_FILTER = '\n1 reject with icmpx [port-unreachable¦admin-prohibited]'
const DESTINATION = `
5 dnat<of> to [<pod>¦<pod>¦<own>]
6 meta l4proto { tcp, udp } dnat<of> to [<pod>¦<pod>¦<own>]:<port>
3 <proto> dport <port> redirect to :<listened>
1 redirect
4 dnat ip to ip daddr . meta l4proto . th dport map @backends
3 meta l4proto { tcp, udp } dnat ip to numgen random mod 2 map { 0 : <pod> . <port>, 1 : <pod> . <port> }
2 dnat<of> to ip daddr map { 10.96.0.1 : <pod>, 10.96.0.2 : <pod> }`
const ASK_SERVICES = '\n5 ip daddr . meta l4proto . th dport vmap @services'
const POST = '\n3 snat<of> to <own>\n5 masquerade[¦¦ fully-random]'
const CALLS = '\n5 [jump¦jump¦jump¦goto] <below>'

function actions({type, hook, below, family, base}: Place): string {
  const nat =
    hook === 'prerouting' || hook === 'output'
      ? DESTINATION + (base ? ASK_SERVICES : '')
      : hook === 'postrouting'
        ? POST
        : '\n3 snat<of> to <own>'
  const plain = ['input', 'forward', 'output'].includes(hook)
    ? FILTER + (family === 'inet' ? INET_FILTER : '')
    : '\n1 drop'
  return ACTIONS + (type === 'nat' ? nat : plain) + (below.length > 0 ? CALLS : '')
}

/** nft refuses rules that name two protocols, so one part of a rule may speak of them. */
const SPEAKS_OF_PROTOCOL = /\b(tcp|udp|l4proto|protocol|th)\b/

function rule(dice: Dice, place: Place, extra = ''): string {
  const {hook, below, family} = place
  const words: Words = {
    ...WORDS,
    op: () => (dice.chance(0.2) ? '!= ' : ''),
    ports: () => '[<port>¦<port>¦90-8079¦5000-10000¦{ <some> }¦{ 1-100, 5353 }]',
    device: () => (hook === 'output' || hook === 'postrouting' ? 'oif' : 'iif'),
    of: () => (family === 'inet' ? ' ip' : ''),
    dup: () => (family === 'ip' ? 'dup to 10.77.9.254 device "wan0"' : 'log prefix "x"'),
    below: () => dice.pick(below),
    verdict: () =>
      below.length > 0 ? '[accept¦drop¦return¦continue¦jump <below>¦goto <below>]' : '[accept¦drop¦return¦continue]',
  }
  const action = dice.say(dice.line(actions(place) + extra), words)
  let spoken = SPEAKS_OF_PROTOCOL.test(action)
  const table = MATCHES + (hook === 'prerouting' ? EARLY_MATCHES : '') + (family === 'inet' ? INET_MATCHES : '')
  const tests = dice
    .times(0, 3, () => dice.say(dice.line(table), words))
    .filter((text) => {
      const speaks = SPEAKS_OF_PROTOCOL.test(text)
      if (speaks && spoken) return false
      spoken ||= speaks
      return true
    })
  return [...tests, action].join(' ')
}

/** name, type, hook, priorities, most rules */
const BASES: readonly (readonly [string, Place['type'], string, string, number])[] = [
  ['raw_pre', 'filter', 'prerouting', 'raw', 1],
  ['raw_out', 'filter', 'output', 'raw', 1],
  ['mangle_pre', 'filter', 'prerouting', '[mangle¦-110¦-90]', 2],
  ['nat_pre', 'nat', 'prerouting', '[dstnat¦-110]', 6],
  ['nat_out', 'nat', 'output', '[-100¦-95]', 5],
  ['incoming', 'filter', 'input', '[filter¦5¦-150]', 4],
  ['forwarded', 'filter', 'forward', '[filter¦-10]', 5],
  ['outgoing', 'filter', 'output', '[filter¦-110]', 4],
  ['route_out', 'route', 'output', 'mangle', 2],
  ['nat_in', 'nat', 'input', '100', 2],
  ['nat_post', 'nat', 'postrouting', '[srcnat¦90]', 4],
  ['mangle_post', 'filter', 'postrouting', '[mangle¦110]', 2],
]

const several = (dice: Dice, least: number, sentence: string): string =>
  [...new Set(dice.times(least, 8, () => dice.say(sentence, WORDS)))].join(', ')

/** A map must not have two values for one key. */
const mapping = (dice: Dice, sentence: string): string => {
  const keys = [...new Set(dice.times(4, 12, () => dice.say('<vip> . <proto> . <port>', WORDS)))]
  return keys.map((key) => `${key} : ${dice.say(sentence, WORDS)}`).join(', ')
}

const sets = (dice: Dice): string => `
  set nets { type ipv4_addr; flags interval; auto-merge; elements = { ${several(dice, 1, '<target>')} } }
  set hosts { type ipv4_addr; elements = { ${several(dice, 1, '<host>')} } }
  set frontends { type ipv4_addr . inet_proto . inet_service; elements = { ${several(dice, 2, '<host> . <proto> . <port>')} } }
  set pairs { type ipv4_addr . ipv4_addr; flags interval; elements = { ${CLIENTS[0]} . 10.96.0.0/16, 10.77.1.3-10.77.1.9 . ${dice.pick(PODS)} } }
  map backends { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; elements = { ${mapping(dice, '<pod> . <port>')} } }
`

const chain = (name: string, head: string, rules: readonly string[]): string =>
  `  chain ${name} {\n${head}${rules.map((one) => `    ${one}\n`).join('')}  }\n`

/** One native table with chains at most hooks. */
export function nativeTable(dice: Dice): string {
  const family = dice.pick(['ip', 'inet'] as const)
  const called: string[] = []
  const bases: string[] = []
  for (const [name, type, hook, priority, most] of BASES) {
    const main = ['incoming', 'forwarded', 'outgoing'].includes(name)
    if (type !== 'nat' && !main && dice.chance(0.65)) continue
    const users = dice.times(0, 2, (at) => `${name}_${at}`)
    const place = {type, hook, family, base: false}
    for (const [at, user] of users.entries())
      called.unshift(
        chain(
          user,
          '',
          dice.times(1, 4, () => rule(dice, {...place, below: users.slice(at + 1)})),
        ),
      )
    const rules = dice.times(0, most, () =>
      rule(dice, {...place, below: users, base: true}, priority === 'raw' ? '\n5 notrack' : ''),
    )
    if (type === 'nat' && (hook === 'prerouting' || hook === 'output') && dice.chance(0.7))
      rules.push(
        `dnat${family === 'inet' ? ' ip' : ''} to ip daddr map { ${VIPS.map((vip) => `${vip} : ${dice.pick(PODS)}`).join(', ')} }`,
      )
    bases.push(
      chain(
        name,
        `    type ${type} hook ${hook} priority ${dice.say(priority, {})}; policy ${main && dice.chance(0.12) ? 'drop' : 'accept'};\n`,
        rules,
      ),
    )
  }
  for (const name of ['service0', 'service1'])
    called.push(
      chain(
        name,
        '',
        dice.times(1, 3, () => rule(dice, {type: 'nat', hook: 'output', family, below: [], base: false})),
      ),
    )
  return `table ${family} t {${sets(dice)}${called.join('')}}
table ${family} t {
  map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { ${mapping(dice, '[goto service0¦goto service1¦accept¦return¦continue]')} } }
${bases.join('')}}
`
}
