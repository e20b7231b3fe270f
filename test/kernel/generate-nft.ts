import {DEVICES, portSpan, source, span, SPORTS, target, type Dice} from './generate.js'
import {CLIENTS, PODS, PORTS, ROUTER, VIPS} from './lab.js'

interface Place {
  readonly type: 'filter' | 'nat' | 'route'
  readonly hooks: readonly string[]
  readonly below: readonly string[]
  readonly family: 'ip' | 'inet'
  /** Runs before conntrack. */
  readonly early: boolean
  /** Stands below the map of services, which it must not ask again. */
  readonly service?: boolean
}

type Maker = (dice: Dice, place: Place) => string
type Weighted = readonly (readonly [number, Maker])[]

const op = (dice: Dice): string => dice.weigh([[4, ''], [1, '!= ']])
const HOSTS = [...VIPS, ...PODS, ...ROUTER]
const addresses = (dice: Dice, one: (dice: Dice) => string): string =>
  dice.weigh([[4, () => one(dice)], [1, () => span(dice, HOSTS).join('-')], [2, () => `{ ${[...new Set(dice.times(2, 3, () => dice.pick(HOSTS)))].join(', ')} }`]])()
const portList = (dice: Dice): string =>
  dice.weigh([[4, () => String(dice.pick(PORTS))], [1, () => portSpan(dice).join('-')], [2, () => `{ ${dice.some(PORTS, 3).join(', ')} }`], [1, () => `{ 1-100, ${dice.pick([443, 5353])} }`]])()
const proto = (dice: Dice): string => dice.pick(['tcp', 'udp'])

const MATCHES: Weighted = [
  [3, (dice) => `ip daddr ${op(dice)}${addresses(dice, target)}`],
  [3, (dice) => `ip saddr ${op(dice)}${addresses(dice, source)}`],
  [3, (dice) => `${proto(dice)} dport ${op(dice)}${portList(dice)}`],
  [1, (dice) => `meta l4proto ${dice.pick(['tcp', 'udp', '{ tcp, udp }', 'icmp', '!= tcp'])}`],
  [1, (dice) => `meta l4proto { tcp, udp } th dport ${op(dice)}${portList(dice)}`],
  [1, (dice) => `${proto(dice)} dport ${dice.pick(['<', '>', '<=', '>='])} ${dice.pick(PORTS)}`],
  [1, (dice) => `${proto(dice)} sport ${op(dice)}${dice.pick(SPORTS).join('-')}`],
  [1, (dice) => `tcp flags ${dice.pick(['syn', '& (fin|syn|rst|ack) == syn', '& (syn|ack) == syn|ack', '! syn', '!= syn', '== syn', '& ack == ack'])}`],
  [1, (dice) => `ip protocol ${op(dice)}${dice.pick(['tcp', 'udp', 'icmp', '{ tcp, icmp }'])}`],
  [2, (dice) => `meta mark ${op(dice)}${dice.pick(['0x1', '0x0', '0x4000', '{ 0x1, 0x4000 }', '0x1-0xff'])}`],
  [2, (dice) => `meta mark and ${dice.pick(['0x4000', '0xff', '0x1'])} ${dice.pick(['== 0', '!= 0', '== 0x4000', '== 0x1'])}`],
  [1, (dice) => `ct mark ${op(dice)}${dice.pick(['0x1', '0x0', '0x4000'])}`],
  [2, (dice) => `ct state ${op(dice)}${dice.pick(['new', 'established', 'established,related', '{ new, untracked }', 'invalid', 'untracked', 'new,established'])}`],
  [1, (dice) => `ct status ${op(dice)}${dice.pick(['dnat', 'snat', 'seen-reply', 'confirmed', 'dnat,snat'])}`],
  [1, (dice) => `ct status and ${dice.pick(['dnat', 'snat'])} ${dice.pick(['== dnat', '!= 0', '== 0'])}`],
  [1, (dice) => `ct direction ${dice.pick(['original', 'reply'])}`],
  [1, (dice) => `ct ${dice.pick(['original', 'reply'])} ip ${dice.pick(['saddr', 'daddr'])} ${op(dice)}${target(dice)}`],
  [1, (dice) => `meta l4proto tcp ct ${dice.pick(['original', 'reply'])} proto-${dice.pick(['dst', 'src'])} ${op(dice)}${dice.pick(PORTS)}`],
  [2, (dice, {hooks}) => (hooks.some((hook) => hook === 'output' || hook === 'postrouting') ? `oifname` : `iifname`) + ` ${op(dice)}${devices(dice)}`],
  [1, (_, {family}) => (family === 'inet' ? 'meta nfproto ipv4' : '')],
  [2, (dice) => `fib ${dice.pick(['daddr', 'saddr'])} type ${op(dice)}${dice.pick(['local', 'unicast', '{ local, broadcast }'])}`],
  [1, (dice, {hooks}) => (hooks.every((hook) => hook === 'prerouting') ? dice.pick(['fib saddr . iif oif != 0', 'fib saddr . iif oif 0', 'fib saddr . mark . iif oif 0', 'fib daddr . iif type local', 'fib saddr oif "eth0"', 'fib saddr oif != "eth0"']) : '')],
  [3, (dice) => `ip ${dice.pick(['daddr', 'saddr'])} ${op(dice)}@nets`],
  [2, (dice) => `ip daddr ${op(dice)}@hosts`],
  [3, (dice) => `ip daddr . meta l4proto . th dport ${op(dice)}@frontends`],
  [2, (dice) => `ip saddr . ip daddr ${op(dice)}@pairs`],
  [1, (dice) => `iifname . ip saddr ${op(dice)}{ "eth0" . ${dice.pick(CLIENTS)}, "cni0" . ${PODS[0]} }`],
  [1, (dice) => `${dice.pick(['iif', 'iifname'])} ${op(dice)}"${dice.pick(['eth0', 'cni0', 'lo'])}"`],
  [1, (dice) => `ip daddr & 255.255.0.0 ${dice.pick(['== 10.96.0.0', '!= 10.77.0.0'])}`],
  [1, (dice) => `numgen ${dice.pick(['random', 'inc'])} mod 1 ${dice.pick(['== 0', '!= 0', '0'])}`],
  [1, (dice) => `jhash ip saddr mod 1 ${dice.pick(['0', '!= 0'])}`],
]

const devices = (dice: Dice): string => dice.weigh([[4, `"${dice.pick(DEVICES).replace('+', '*')}"`], [1, '{ "eth0", "lo" }']])

const REJECTS = ['', ' with icmp host-unreachable', ' with icmp admin-prohibited', ' with icmpx port-unreachable', ' with icmpx admin-prohibited', ' with icmp port-unreachable']

const calls: Maker = (dice, {below}) => `${dice.chance(0.75) ? 'jump' : 'goto'} ${dice.pick(below)}`
const verdict = (dice: Dice, place: Place): string => dice.pick(['accept', 'drop', 'return', 'continue', ...(place.below.length > 0 ? [calls(dice, place), calls(dice, place)] : [])])

const COMMON: Weighted = [
  [2, () => 'accept'], [2, () => 'return'], [1, () => 'counter'],
  [2, (dice) => `meta mark set ${dice.pick(['0x1', '0x4000', 'meta mark or 0x4000', 'meta mark and 0xffffbfff', 'meta mark xor 0x4000', 'ct mark'])}`],
  [1, (dice, {early}) => (early ? 'counter' : `ct mark set ${dice.pick(['0x1', 'meta mark', 'ct mark or 0x4000'])}`)],
  [2, (dice, place) => `${proto(dice)} dport vmap { 80 : ${verdict(dice, place)}, 443 : ${verdict(dice, place)}, 5000-9000 : ${verdict(dice, place)} }`],
  [1, (dice, place) => `ip daddr . meta l4proto vmap { ${dice.pick(HOSTS)} . tcp : ${verdict(dice, place)}, 10.96.0.1 . udp : ${verdict(dice, place)} }`],
  [2, (dice, place) => `ct state vmap { established : ${verdict(dice, place)}, new : ${verdict(dice, place)}, related : accept, invalid : ${dice.pick(['drop', 'accept'])} }`],
  [1, (dice, place) => `iifname vmap { "eth0" : ${verdict(dice, place)}, "cni0" : ${verdict(dice, place)} }`],
  [1, (dice, place) => `numgen random mod 4 vmap { 0-1 : ${verdict(dice, place)}, 2 : ${verdict(dice, place)} }`],
  [1, (dice, place) => `meta mark vmap { 0x0 : ${verdict(dice, place)}, 0x1 : ${verdict(dice, place)} }`],
]
const FILTER: Weighted = [[5, () => 'accept'], [2, () => 'drop'], [2, (dice, {family}) => `reject${dice.pick(family === 'inet' ? REJECTS : REJECTS.filter((kind) => !kind.includes('icmpx')))}`], [1, () => 'meta l4proto tcp reject with tcp reset']]

/** In the inet family NAT must name the family of its addresses. */
const of = ({family}: Place): string => (family === 'inet' ? ' ip' : '')
const DESTINATION: Weighted = [
  [5, () => 'ip daddr . meta l4proto . th dport vmap @services'],
  [5, (dice, place) => `dnat${of(place)} to ${dice.pick([...PODS, ...PODS, ROUTER[0]!])}`],
  [6, (dice, place) => `meta l4proto { tcp, udp } dnat${of(place)} to ${dice.pick([...PODS, ...PODS, ROUTER[2]!])}:${dice.pick(PORTS)}`],
  [3, (dice) => `${proto(dice)} dport ${dice.pick(PORTS)} redirect to :${dice.pick(PORTS.slice(-2))}`],
  [1, () => 'redirect'],
  [4, () => 'dnat ip to ip daddr . meta l4proto . th dport map @backends'],
  [3, (dice) => `meta l4proto { tcp, udp } dnat ip to numgen random mod 2 map { 0 : ${dice.pick(PODS)} . ${dice.pick(PORTS)}, 1 : ${dice.pick(PODS)} . ${dice.pick(PORTS)} }`],
  [2, (dice, place) => `dnat${of(place)} to ip daddr map { 10.96.0.1 : ${dice.pick(PODS)}, 10.96.0.2 : ${dice.pick(PODS)} }`],
]
const SOURCE: Weighted = [
  [5, (dice, {hooks}) => (hooks.includes('input') ? 'counter' : dice.pick(['masquerade', 'masquerade', 'masquerade fully-random']))],
  [3, (dice, place) => `snat${of(place)} to ${dice.pick([ROUTER[0]!, ROUTER[1]!, ROUTER[2]!, ROUTER[4]!])}`],
]

function actions({type, hooks, below, early}: Place): Weighted {
  const own = type !== 'nat' ? (hooks.some((hook) => ['input', 'forward', 'output'].includes(hook)) && !hooks.includes('postrouting') && !early ? FILTER : ([[1, () => 'drop']] as Weighted)) : hooks.some((hook) => hook === 'prerouting' || hook === 'output') ? DESTINATION : SOURCE
  return [...COMMON, ...own, ...(early ? ([[3, () => 'notrack']] as Weighted) : []), ...(below.length > 0 ? ([[5, calls]] as Weighted) : [])]
}

/** nft refuses rules that name two protocols, so one part of a rule may speak of them. */
const SPEAKS_OF_PROTOCOL = /\b(tcp|udp|l4proto|protocol|th)\b/

function rule(dice: Dice, place: Place): string {
  const drawn = dice.weigh(actions(place))(dice, place)
  const action = drawn.includes('@services') && place.service ? 'counter' : drawn
  let spoken = SPEAKS_OF_PROTOCOL.test(action)
  const tests = dice.times(0, 3, () => dice.weigh(MATCHES)(dice, place)).filter((text) => {
    const speaks = SPEAKS_OF_PROTOCOL.test(text)
    if (text === '' || (speaks && spoken) || (place.early && /\bct (?!state)/.test(text))) return false
    spoken ||= speaks
    return true
  })
  return [...tests, action].join(' ')
}

/** name, type, hook, priorities, most rules */
const BASES: readonly (readonly [string, Place['type'], string, readonly string[], number])[] = [
  ['raw_pre', 'filter', 'prerouting', ['raw'], 1], ['raw_out', 'filter', 'output', ['raw'], 1], ['mangle_pre', 'filter', 'prerouting', ['mangle', '-110', '-90'], 2],
  ['nat_pre', 'nat', 'prerouting', ['dstnat', '-110'], 6], ['nat_out', 'nat', 'output', ['-100', '-95'], 5], ['incoming', 'filter', 'input', ['filter', '5', '-150'], 4], ['forwarded', 'filter', 'forward', ['filter', '-10'], 5],
  ['outgoing', 'filter', 'output', ['filter', '-110'], 4], ['route_out', 'route', 'output', ['mangle'], 2], ['nat_in', 'nat', 'input', ['100'], 2], ['nat_post', 'nat', 'postrouting', ['srcnat', '90'], 4], ['mangle_post', 'filter', 'postrouting', ['mangle', '110'], 2],
]

const SERVICE_CHAINS = ['service0', 'service1']

const unique = (items: readonly string[]): string => [...new Set(items)].join(', ')

function sets(dice: Dice): string {
  const front = (): string => `${dice.pick(HOSTS)} . ${proto(dice)} . ${dice.pick(PORTS)}`
  const backends = new Set(dice.times(3, 8, () => `${dice.pick(VIPS)} . ${proto(dice)} . ${dice.pick(PORTS)}`))
  return `
  set nets { type ipv4_addr; flags interval; auto-merge; elements = { ${unique(dice.times(1, 4, () => target(dice)))} } }
  set hosts { type ipv4_addr; elements = { ${unique(dice.times(1, 4, () => dice.pick(HOSTS)))} } }
  set frontends { type ipv4_addr . inet_proto . inet_service; elements = { ${unique(dice.times(2, 8, front))} } }
  set pairs { type ipv4_addr . ipv4_addr; flags interval; elements = { ${CLIENTS[0]} . 10.96.0.0/16, 10.77.1.3-10.77.1.9 . ${dice.pick(PODS)}, 10.77.9.0/24 . ${dice.pick(HOSTS)} } }
  map backends { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; elements = { ${[...backends].map((key) => `${key} : ${dice.pick(PODS)} . ${dice.pick(PORTS)}`).join(', ')} } }
`
}

/** One native table with chains at most hooks. */
export function nativeTable(dice: Dice): string {
  const family = dice.pick(['ip', 'inet'] as const)
  const early: string[] = []
  const late: string[] = []
  for (const [name, type, hook, priorities, most] of BASES) {
    if (type !== 'nat' && !['incoming', 'forwarded', 'outgoing'].includes(name) && dice.chance(0.65)) continue
    const base = {type, hooks: [hook], family, early: name.startsWith('raw')}
    const users = dice.times(0, base.early ? 0 : 2, (at) => `${name}_${at}`)
    // chains must stand before those that call them
    for (const [at, user] of [...users.entries()].reverse()) early.push(chain(user, '', dice.times(1, 4, () => rule(dice, {...base, below: users.slice(at + 1), service: true}))))
    const policy = ['incoming', 'forwarded', 'outgoing'].includes(name) && dice.chance(0.12) ? 'drop' : 'accept'
    const last = type === 'nat' && hook !== 'input' && hook !== 'postrouting' && dice.chance(0.7) ? [`dnat${of(base as Place)} to ip daddr map { ${VIPS.map((vip) => `${vip} : ${dice.pick(PODS)}`).join(', ')} }`] : []
    late.push(chain(name, `type ${type} hook ${hook} priority ${dice.pick(priorities)}; policy ${policy};\n`, dice.times(0, most, () => rule(dice, {...base, below: users})).concat(last)))
  }
  for (const name of SERVICE_CHAINS) early.push(chain(name, '', dice.times(1, 3, () => rule(dice, {type: 'nat', hooks: ['prerouting', 'output'], family, early: false, below: [], service: true}))))
  const services = new Set(dice.times(4, 12, () => `${dice.pick(VIPS)} . ${proto(dice)} . ${dice.pick(PORTS)}`))
  const verdicts = [...services].map((key) => `${key} : ${dice.pick(['goto service0', 'goto service1', 'accept', 'return', 'continue'])}`)
  return `table ${family} t {${sets(dice)}${early.join('')}}
table ${family} t {
  map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { ${verdicts.join(', ')} } }
${late.join('')}}\n`
}

const chain = (name: string, head: string, rules: readonly string[]): string => `  chain ${name} {\n    ${head}${rules.map((one) => `    ${one}\n`).join('')}  }\n`
