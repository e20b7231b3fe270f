import {parseRange} from '../util/ip.js'
import {newRule, type IptablesRule, type RuleMatch, type RuleOption} from './iptables-rule.js'
import {BEHIND_HASHES, IptablesChain, isBehindHashes, readRemark, type IptablesDump} from './iptables.js'
import {askedTable, hasNotes, isLeftOut, PROMPT, withoutNote} from './pasted.js'
import {table} from '../util/table.js'
import {SERVICES} from './services.js'

/**
 * Parses `iptables -t nat -nL`, with or without `-v` and `--line-numbers`, into the shape of iptables-save.
 * Without `-v` the listing hides interfaces (`hidesInterfaces`): an ACCEPT may be one of lo alone. `asksForNone`: chains whose rules,
 * and rules that lead there, are known to ask for no interface.
 */
export function parseIptablesList(
  text: string,
  file: string,
  asksForNone: (chain: string) => boolean = () => false,
): IptablesDump {
  const dump: IptablesDump = {file, tables: new Map(), problems: [], hidden: []}
  const listings: Listing[] = [{chains: new Map<string, Listed>()}]
  let current: Listed | undefined
  if (isBehindHashes(text)) dump.problems.push({file, line: 1, message: BEHIND_HASHES})
  const noted = hasNotes(text)
  text.split('\n').forEach((raw, at) => {
    const line = noted ? withoutNote(raw).trim() : raw.trim()
    if (line === '') return
    if (line.startsWith('#') || isLeftOut(line) || PROMPT.test(line)) {
      readRemark(dump, line, at + 1)
      const asked = askedTable(line)
      if (asked) listings.push({chains: new Map(), table: asked.table})
      if (isLeftOut(line)) leaveOut(dump, {current, line: at + 1, text: line})
      if (PROMPT.test(line)) current = undefined
      return
    }
    const head = /^Chain (\S+) \((?:policy ([A-Z]+)|\d+ references)/.exec(line)
    if (head) {
      if (beginsTable(listings.at(-1)!, head[1]!)) listings.push({chains: new Map()})
      current = {line: at + 1, policy: head[2], rows: [], headed: false, cut: false}
      listings.at(-1)!.chains.set(head[1]!, current)
    } else if (/^(num\s+)?(pkts\s+bytes\s+)?target\s+prot/.test(line)) {
      const verbose = /\sin\s+out\s/.test(line)
      if (current) Object.assign(current, {headed: true, verbose})
      if (!verbose) dump.hidesInterfaces = true
    } else if (current) addRow(current, line, at + 1)
    else dump.problems.push({file, line: at + 1, message: 'not a line of iptables -L', text: line})
  })
  for (const listing of listings) if (listing.chains.size > 0) addTable(dump, listing, asksForNone)
  const nat = dump.tables.get('nat')
  dump.partial ||= !nat || !['PREROUTING', 'OUTPUT', 'POSTROUTING'].every((name) => nat.chains.has(name))
  return dump
}

/** In the order in which every table lists its built-in chains, before all others. */
const BUILT_IN = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']

/** The same chain again is another table, and so is a built-in one that stands behind what it should precede. */
function beginsTable({chains}: Listing, name: string): boolean {
  if (chains.has(name)) return true
  const place = BUILT_IN.indexOf(name)
  if (place < 0) return false
  // iptables-nft of some versions lists the POSTROUTING of nat before OUTPUT
  const before =
    name === 'OUTPUT' && !chains.has('FORWARD')
      ? [...BUILT_IN.slice(0, place), 'POSTROUTING']
      : BUILT_IN.slice(0, place)
  return before.filter((other) => chains.has(other)).length < chains.size
}

/** What one command printed. */
interface Listing {
  readonly chains: Map<string, Listed>
  /** The table that the command names, where it was pasted as well. */
  readonly table?: string
}

interface Listed {
  readonly line: number
  readonly policy: string | undefined
  readonly rows: {line: string; number: number}[]
  /** The row of column titles stands below its name, as iptables prints it for each chain. */
  headed: boolean
  /** Its titles name the columns of interfaces; undefined without titles. */
  readonly verbose?: boolean
  /** Rows were left out. */
  cut: boolean
}

/** A line without the columns of a rule is the rest of the one before, wrapped on its way here. */
function addRow({rows}: Listed, line: string, number: number): void {
  const last = rows.at(-1)
  if (last && protocolAt(line.split(/\s+/, MOST_COLUMNS)) < 0) last.line += ` ${line}`
  else rows.push({line, number})
}

/** Number, packets, bytes, target, protocol, options. */
const MOST_COLUMNS = 6

function leaveOut(
  dump: IptablesDump,
  {current, line, text}: {current: Listed | undefined; line: number; text: string},
): void {
  if (current) current.cut = true
  dump.partial = true
  dump.problems.push({file: dump.file, line, message: 'somebody left lines out here', text})
}

/** Which table a listing is of: by the hooks that only one table has, else by targets, else nat, as the file's name says. */
function tableName(listing: ReadonlyMap<string, Listed>): string {
  const nat = listing.has('PREROUTING') || listing.has('POSTROUTING')
  if (nat && listing.has('FORWARD')) return 'mangle'
  if (nat) return 'nat'
  const rejects = [...listing.values()].some(({rows}) => rows.some(({line}) => /(^|\s)REJECT\s/.test(line)))
  return listing.has('FORWARD') || rejects ? 'filter' : 'nat'
}

function addTable(
  dump: IptablesDump,
  {chains: listing, table: asked}: Listing,
  asksForNone: (chain: string) => boolean,
): void {
  const name = asked ?? tableName(listing)
  if ([...listing.keys()].some((chain) => dump.tables.get(name)?.chains.has(chain)))
    dump.problems.push({
      file: dump.file,
      line: [...listing.values()][0]!.line,
      message: `table ${name} is listed twice: two hosts or two moments in one file?`,
    })
  const again = [...listing.keys()].some((chain) => dump.tables.get(name)?.chains.has(chain))
  const table = dump.tables.get(name) ?? {name, chains: new Map<string, IptablesChain>(), complete: true}
  if (again) table.complete = false
  dump.tables.set(name, table)
  for (const [chainName, {line, policy, rows, headed, verbose, cut}] of listing) {
    const chain = new IptablesChain(dump, name, chainName)
    chain.declared = true
    chain.policy = policy
    chain.line = line
    // without its titles the listing went through grep, and lines may be missing
    chain.cut = cut || !headed
    const rules = rows.map((row, at) =>
      readRule({line: row.line, number: row.number, chain, rules: at, file: dump.file, verbose, asksForNone}),
    )
    chain.adopt(rules)
    for (const rule of rules) {
      const message = rule.problem ?? openWords(rule)
      if (message !== undefined) dump.problems.push({file: dump.file, line: rule.line, message, text: rule.text})
    }
    table.chains.set(chainName, chain)
  }
}

interface Row {
  readonly line: string
  readonly number: number
  readonly chain: IptablesChain
  readonly rules: number
  readonly file: string
  readonly verbose: boolean | undefined
  readonly asksForNone: (chain: string) => boolean
}

/** The word before the column of options, `--` or `-f`. */
const PROTOCOL = /^(!?)([a-z][\w.-]*|\d{1,3})$/

/** The column of protocols; -1 where the line is no rule. */
const protocolAt = (words: readonly string[]): number =>
  words.findIndex((word, at) => PROTOCOL.test(word) && /^(--|-f|!f)$/.test(words[at + 1] ?? ''))

function readRule({line, number, chain, rules, file, verbose: titled, asksForNone}: Row): IptablesRule {
  const rule = newRule({table: chain.table, chain: chain.name, number: rules + 1, file, line: number}, line)
  // a negated address leaves no blank behind the options: `--!loopback/8`
  const words = line.replace(/ (--|-f|!f) ?!(?=\S)/, ' $1 !').split(/\s+/)
  const place = protocolAt(words)
  if (place < 0) {
    rule.problem = 'the columns of this line are not understood'
    return rule
  }
  const first = words[place + 2] ?? ''
  const verbose = titled === undefined ? !isAddress(first) : titled || isAnyDevice(first)
  if (words[place + 1] !== '--') rule.fragment = {not: words[place + 1] === '!f', value: ''}
  const target = words[place - 1]
  if (target !== undefined && !/^\d+[KMG]?$/.test(target))
    rule.target = {name: target, goto: line.includes('[goto]'), options: []}
  const protocol = PROTOCOL.exec(words[place]!)!
  if (protocol[2] !== 'all' && protocol[2] !== '0')
    rule.protocol = {not: protocol[1] === '!', value: protocolName(protocol[2]!)}
  if (verbose) readInterfaces(rule, words[place + 2]!, words[place + 3] ?? '*')
  const sourceAt = place + (verbose ? 4 : 2)
  readAddress(rule, 'source', words[sourceAt])
  readAddress(rule, 'destination', words[sourceAt + 1])
  const rest = words.slice(sourceAt + 2).filter((word) => word !== '[goto]')
  readExtensions(rule, rest.join(' '))
  if (!verbose && mayNameInterface(rule, asksForNone)) match(rule, HIDDEN_INTERFACES)
  return rule
}

/** A match that stands for what a listing does not show. */
const HIDDEN_INTERFACES = 'interfaces that -L hides without -v'

/** A condition of the row itself that is not understood. */
const openWords = ({matches}: IptablesRule): string | undefined =>
  matches.find(({module}) => module.includes(' ') && module !== HIDDEN_INTERFACES)?.module

/**
 * Any rule may be about an interface (`-i lo -j ACCEPT`, `! -o docker0 -j MASQUERADE`); hardly one that names both addresses
 * (flannel's, CNI's).
 */
const mayNameInterface = (
  {chain, target, source, destination}: IptablesRule,
  asksForNone: (chain: string) => boolean,
): boolean => target !== undefined && !(source && destination) && !asksForNone(chain) && !asksForNone(target.name)

const isAddress = (word: string): boolean =>
  /^!?[\d.]+(\/|$)/.test(word) || word.includes('::') || /^!?(anywhere|loopback|link-local|localhost)(\/|$)/.test(word)
const protocolName = (word: string): string =>
  ({'6': 'tcp', '17': 'udp', '132': 'sctp', '1': 'icmp', '58': 'ipv6-icmp', ipencap: '4', vrrp: '112'})[word] ?? word

/** «any» without -n (libxtables, print_ifaces). */
const isAnyDevice = (word: string): boolean => word === '*' || word === 'any'

function readInterfaces(rule: IptablesRule, inside: string, outside: string): void {
  if (!isAnyDevice(inside)) rule.inInterface = {not: inside.startsWith('!'), value: inside.replace('!', '')}
  if (!isAnyDevice(outside)) rule.outInterface = {not: outside.startsWith('!'), value: outside.replace('!', '')}
}

/** Names of networks and hosts that every system has (/etc/networks, /etc/hosts), as a listing without -n prints them. */
const NETWORKS: Readonly<Record<string, string>> = table({
  'loopback/8': '127.0.0.0/8',
  localhost: '127.0.0.1',
  'link-local/16': '169.254.0.0/16',
  'base-address.mcast.net/4': '224.0.0.0/4',
})

function readAddress(rule: IptablesRule, field: 'source' | 'destination', word: string | undefined): void {
  const not = word?.startsWith('!') ?? false
  const value = (word ?? '').replace('!', '')
  if (value === '0.0.0.0/0' || value === '::/0' || value === 'anywhere') {
    if (not) rule.problem = `${field} "${word}" is not understood`
    return
  }
  const known = NETWORKS[value] ?? value
  if (value === '') rule.problem = `the line ends before its ${field}`
  else if (parseRange(known) !== undefined || /^[\d.]+\/[\d.]+$/.test(known)) rule[field] = {not, value: known}
  else match(rule, `${field} "${value}", a name; list with -n`)
}

interface Extension {
  readonly pattern: RegExp
  readonly read: (found: RegExpExecArray, rule: IptablesRule) => void
}

const match = (rule: IptablesRule, module: string, ...options: RuleOption[]): RuleMatch => {
  const known: RuleMatch = {module, options}
  rule.matches.push(known)
  return known
}
const option = (name: string, values: readonly string[], not = false): RuleOption => ({name, not, values})
/** One match prints all that it asks for, word by word. */
function conntrack(rule: IptablesRule, asked: RuleOption): void {
  const last = rule.matches.at(-1)
  if (last?.module === 'conntrack') last.options.push(asked)
  else match(rule, 'conntrack', asked)
}
const targetOption = (rule: IptablesRule, name: string, ...values: string[]): void =>
  void rule.target?.options.push(option(name, values))

/** How libxtables' `print` functions word each extension (extensions/libxt_*.c); tried in order at the start of the rest. */
const EXTENSIONS: readonly Extension[] = [
  {pattern: /^\/\* (.*?) \*\//, read: ([, text], rule) => match(rule, 'comment', option('comment', [text!]))},
  {
    pattern: /^(! )?match-set (\S+) (\S+)( return-nomatch)?/,
    read: ([, not, name, flags, nomatch], rule) => {
      const set = match(rule, 'set', option('match-set', [name!, flags!], Boolean(not)))
      if (nomatch) set.options.push(option('return-nomatch', []))
    },
  },
  {
    pattern: /^ADDRTYPE match((?: !?(?:src|dst)-type !?\S+)+)(?: limit-(in|out))?/,
    read: ([, types, limit], rule) => readAddrtype(rule, types!, limit),
  },
  {
    pattern: /^MARK (or|and|xor|set|xset) (0x[\da-f]+)(?:\/(0x[\da-f]+))?/,
    read: ([, how, value, mask], rule) =>
      targetOption(
        rule,
        how === 'set' ? 'set-mark' : how === 'xset' ? 'set-xmark' : `${how}-mark`,
        mask ? `${value}/${mask}` : value!,
      ),
  },
  {
    pattern: /^CONNMARK (restore|save)(?: mask (0x[\da-f]+)|((?: (?:ct|nf)mask ~?0x[\da-f]+)*))/,
    read: ([, how, both, masks], rule) => {
      targetOption(rule, `${how}-mark`)
      for (const [, name, mask] of (masks ?? '').matchAll(/(ctmask|nfmask) ~?(\S+)/g)) targetOption(rule, name!, mask!)
      if (both) for (const name of ['nfmask', 'ctmask']) targetOption(rule, name, both)
    },
  },
  {
    pattern: /^CONNMARK (or|and|xor|set|xset) (0x[\da-f]+)(?:\/(0x[\da-f]+))?/,
    read: ([, how, value, mask], rule) => targetOption(rule, 'set-xmark', connectionMark(how!, value!, mask)),
  },
  {
    pattern: /^(connmark|mark) match (! )?(0x[\da-f]+(?:\/0x[\da-f]+)?)/,
    read: ([, module, not, value], rule) => match(rule, module!, option('mark', [value!], Boolean(not))),
  },
  {
    pattern: /^(tcp|udp|sctp)(?= |$)((?: (?:!?(?:dpts?|spts?):!?\S+|(?:d|s)pts?:!?\S+|flags:!?[\w,]+\/[\w,]+))*)/,
    read: ([, module, rest], rule) => readPorts(rule, module!, rest!),
  },
  {
    pattern: /^multiport (dports|sports|ports) (! ?)?(\S+)/,
    read: ([, kind, not, ports], rule) =>
      match(rule, 'multiport', option(kind!, [ports!.split(',').map(numbered).join(',')], Boolean(not))),
  },
  {
    pattern: /^(?:ctstate|state) (! ?)?([A-Z,]+)/,
    read: ([, not, states], rule) => conntrack(rule, option('ctstate', [states!], Boolean(not))),
  },
  {
    pattern: /^(! )?ctstate ([A-Z,]+)/,
    read: ([, not, states], rule) => conntrack(rule, option('ctstate', [states!], Boolean(not))),
  },
  {
    pattern: /^statistic mode random (! )?probability ([\d.e-]+)/,
    read: ([, not, probability], rule) =>
      match(rule, 'statistic', option('mode', ['random']), option('probability', [probability!], Boolean(not))),
  },
  {
    pattern: /^statistic mode nth (! )?every (\d+)(?: packet (\d+))?/,
    read: ([, not, every, packet], rule) =>
      match(
        rule,
        'statistic',
        option('mode', ['nth']),
        option('every', [every!], Boolean(not)),
        option('packet', [packet ?? '0']),
      ),
  },
  {
    pattern:
      /^recent: (!)?\s?(CHECK|SET|UPDATE|REMOVE)((?: (?:seconds: \d+|hit_count: \d+|reap|TTL-Match))*) name: (\S+) side: (source|dest)(?: mask: \S+)?/,
    read: (found, rule) => readRecent(rule, found),
  },
  {
    pattern: /^PHYSDEV match((?: (?:! )?--physdev-(?:is-in|is-out|is-bridged|in \S+|out \S+))+)/,
    read: ([, rest], rule) => readPhysdev(rule, rest!),
  },
  {
    pattern: /^to:(\S+)/,
    read: ([, to], rule) => targetOption(rule, rule.target?.name === 'SNAT' ? 'to-source' : 'to-destination', to!),
  },
  {pattern: /^redir ports (\S+)/, read: ([, ports], rule) => targetOption(rule, 'to-ports', ports!)},
  {pattern: /^masq ports: (\S+)/, read: ([, ports], rule) => targetOption(rule, 'to-ports', ports!)},
  {pattern: /^(random-fully|random|persistent)/, read: ([, flag], rule) => targetOption(rule, flag!)},
  {pattern: /^reject-with (\S+)/, read: ([, kind], rule) => targetOption(rule, 'reject-with', kind!)},
  {pattern: /^nfacct-name {1,2}(\S+)/, read: ([, name], rule) => match(rule, 'nfacct', option('nfacct-name', [name!]))},
  {pattern: /^limit: avg \S+ burst \d+/, read: (_, rule) => match(rule, 'limit')},
  {
    pattern: /^(! )?(source|destination) IP range (\S+)/,
    read: ([, not, side, range], rule) =>
      match(rule, 'iprange', option(side === 'source' ? 'src-range' : 'dst-range', [range!], Boolean(not))),
  },
  {
    pattern: /^(! )?(ctorigsrc|ctorigdst|ctreplsrc|ctrepldst|ctorigsrcport|ctorigdstport|ctproto|ctstatus|ctdir) (\S+)/,
    read: ([, not, name, value], rule) => conntrack(rule, option(name!, [value!], Boolean(not))),
  },
  {
    pattern: /^policy match dir (in|out) pol (none|ipsec)/,
    read: ([, dir, pol], rule) => match(rule, 'policy', option('dir', [dir!]), option('pol', [pol!])),
  },
  {
    pattern: /^(?:icmptype|ipv6-icmptype) (\d+)(?: code (\d+))?/,
    read: ([, type, code], rule) => match(rule, 'icmp', option('icmp-type', [code ? `${type}/${code}` : type!])),
  },
  {
    pattern: /^(?:ipv6-)?icmp(?:v6)? (?!type|code)([a-z][\w-]+)/,
    read: ([, type], rule) => match(rule, 'icmp', option('icmp-type', [type!])),
  },
  {
    pattern: /^(! )?owner (UID|GID) match (! )?(\S+)/,
    read: ([, not, kind, inner, id], rule) =>
      match(rule, 'owner', option(`${kind!.toLowerCase()}-owner`, [id!], Boolean(not ?? inner))),
  },
  {
    pattern: /^PKTTYPE (=|!=) (\S+)/,
    read: ([, how, kind], rule) => match(rule, 'pkttype', option('pkt-type', [kind!], how === '!=')),
  },
  {
    pattern: /^socket((?: --(?:transparent|nowildcard|restore-skmark))*)(?= |$)/,
    read: ([, flags], rule) => {
      const socket = match(rule, 'socket')
      for (const [, name] of flags!.matchAll(/--(\S+)/g)) socket.options.push(option(name!, []))
    },
  },
  {pattern: /^(CT notrack|NOTRACK)/, read: (_, rule) => targetOption(rule, 'notrack')},
  {
    pattern: /^(TTL|HL) increment by (\d+)/,
    read: ([, name, by], rule) => targetOption(rule, `${name!.toLowerCase()}-inc`, by!),
  },
  {pattern: /^CT (helper|zone) (\S+)/, read: ([, kind, value], rule) => targetOption(rule, kind!, value!)},
  {
    pattern: /^(add|del)-set (\S+) (\S+)(?: (?:timeout \d+|exist))*/,
    read: ([, how, name, flags], rule) => targetOption(rule, `${how}-set`, name!, flags!),
  },
  {pattern: /^(LOG|NFLOG|nflog-\S+|TCPMSS) .*/, read: () => undefined},
]

/** Whatever these do, the packet goes on as it was. */
const ONLY_LOOKS = new Set([
  ...['LOG', 'NFLOG', 'ULOG', 'AUDIT', 'TRACE', 'TCPMSS', 'TCPOPTSTRIP', 'TOS', 'DSCP', 'ECN', 'CHECKSUM', 'CLASSIFY'],
  ...['SECMARK', 'CONNSECMARK'],
])
/** Targets whose name stands in capitals have words of their own in the rest of the line; verdicts and chains have none. */
const HAS_WORDS = /^(?!(ACCEPT|DROP|RETURN|QUEUE)$)[A-Z]+\d?$/

function readExtensions(rule: IptablesRule, text: string): void {
  let rest = text.trim()
  while (rest !== '') {
    const extension = EXTENSIONS.find(({pattern}) => pattern.test(rest))
    if (!extension) {
      const target = rule.target?.name ?? ''
      if (ONLY_LOOKS.has(target)) return
      // what is left is a condition, or words of the target
      if (HAS_WORDS.test(target)) rule.problem ??= `"${rest}" is not understood`
      else match(rule, `"${rest}", which is not understood`)
      return
    }
    const found = extension.pattern.exec(rest)!
    extension.read(found, rule)
    rest = rest.slice(found[0].length).trim()
  }
}

/** As iptables-save has it: value and mask (libxt_CONNMARK.c, connmark_tg_print). */
function connectionMark(how: string, value: string, mask: string | undefined): string {
  if (how === 'and') return `0x0/0x${(~Number(value) >>> 0).toString(16)}`
  if (how === 'or') return `${value}/${value}`
  if (how === 'xor') return `${value}/0x0`
  return `${value}/${mask ?? '0xffffffff'}`
}

function readAddrtype(rule: IptablesRule, types: string, limit: string | undefined): void {
  const addrtype = match(rule, 'addrtype')
  if (limit) addrtype.options.push(option(`limit-iface-${limit}`, []))
  for (const [, side, not, type] of types.matchAll(/!?(src|dst)-type (!?)(\S+)/g))
    addrtype.options.push(option(`${side}-type`, [type!], not === '!'))
}

/** `http`, `ssh:domain`: what a listing without -n makes of ports. */
const numbered = (ports: string): string =>
  ports
    .split(':')
    .map((port) => String(SERVICES[port] ?? port))
    .join(':')

function readPorts(rule: IptablesRule, module: string, rest: string): void {
  const ports = match(rule, module)
  for (const [, kind, not, value] of rest.matchAll(/!?(dpt|spt)s?:(!?)(\S+)/g))
    ports.options.push(option(kind === 'dpt' ? 'dport' : 'sport', [numbered(value!)], not === '!'))
  const flags = /flags:(!?)([\w,]+)\/([\w,]+)/.exec(rest)
  if (flags) ports.options.push(option('tcp-flags', [flagNames(flags[2]!), flagNames(flags[3]!)], flags[1] === '!'))
}

const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG']
/** `0x17`, or names without -n. */
const flagNames = (text: string): string =>
  text.startsWith('0x') ? TCP_FLAGS.filter((_, bit) => (Number(text) >> bit) & 1).join(',') || 'NONE' : text

function readRecent(rule: IptablesRule, [, not, action, extras, name, side]: RegExpExecArray): void {
  const verb = {CHECK: 'rcheck', SET: 'set', UPDATE: 'update', REMOVE: 'remove'}[action!]!
  const recent = match(rule, 'recent', option(verb, [], Boolean(not)))
  const seconds = /seconds: (\d+)/.exec(extras!)?.[1]
  if (seconds) recent.options.push(option('seconds', [seconds]))
  const hits = /hit_count: (\d+)/.exec(extras!)?.[1]
  if (hits) recent.options.push(option('hitcount', [hits]))
  recent.options.push(option('name', [name!]), option(side === 'source' ? 'rsource' : 'rdest', []))
}

function readPhysdev(rule: IptablesRule, rest: string): void {
  const physdev = match(rule, 'physdev')
  for (const [, not, name, value] of rest.matchAll(/(! )?--(physdev-\S+)(?: (?!!|--)(\S+))?/g))
    physdev.options.push(option(name!, value ? [value] : [], Boolean(not)))
}
