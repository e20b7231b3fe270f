import {parseRange} from '../util/ip.js'
import {newRule, type IptablesRule, type RuleMatch, type RuleOption} from './iptables-rule.js'
import {IptablesChain, readRemark, type IptablesDump} from './iptables.js'
import {isLeftOut, PROMPT} from './pasted.js'
import {SERVICES} from './services.js'

/**
 * Parses `iptables -t nat -nL`, with or without `-v` and `--line-numbers`, into the shape of iptables-save.
 * Without `-v` the listing hides interfaces (`hidesInterfaces`): a bare ACCEPT may be one of lo alone.
 */
export function parseIptablesList(text: string, file: string): IptablesDump {
  const dump: IptablesDump = {file, tables: new Map(), problems: [], hidden: []}
  const listings: Map<string, Listed>[] = [new Map<string, Listed>()]
  let current: Listed | undefined
  text.split('\n').forEach((raw, at) => {
    const line = raw.trim()
    if (line === '') return
    if (line.startsWith('#') || isLeftOut(line) || PROMPT.test(line)) {
      readRemark(dump, line, at + 1)
      if (isLeftOut(line)) leaveOut(dump, {current, line: at + 1, text: line})
      return
    }
    const head = /^Chain (\S+) \((?:policy ([A-Z]+)|\d+ references)/.exec(line)
    if (head) {
      if (beginsTable([...listings.at(-1)!.keys()], head[1]!)) listings.push(new Map())
      current = {line: at + 1, policy: head[2], rows: [], headed: false, cut: false}
      listings.at(-1)!.set(head[1]!, current)
    } else if (/^(num\s+)?(pkts\s+bytes\s+)?target\s+prot/.test(line)) {
      if (current) current.headed = true
      if (!/\sin\s+out\s/.test(line)) dump.hidesInterfaces = true
    } else if (current) current.rows.push({line, number: at + 1})
    else dump.problems.push({file, line: at + 1, message: 'not a line of iptables -L', text: line})
  })
  for (const listing of listings) if (listing.size > 0) addTable(dump, listing)
  const nat = dump.tables.get('nat')
  dump.partial ||= !nat || !['PREROUTING', 'OUTPUT', 'POSTROUTING'].every((name) => nat.chains.has(name))
  return dump
}

/** In the order in which every table lists its built-in chains, before all others. */
const BUILT_IN = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']

/** The same chain again is another table, and so is a built-in one that stands behind what it should precede. */
function beginsTable(before: readonly string[], name: string): boolean {
  if (before.includes(name)) return true
  const place = BUILT_IN.indexOf(name)
  return place >= 0 && before.some((other) => BUILT_IN.indexOf(other) < 0 || BUILT_IN.indexOf(other) > place)
}

interface Listed {
  readonly line: number
  readonly policy: string | undefined
  readonly rows: {line: string; number: number}[]
  /** The row of column titles stands below its name, as iptables prints it for each chain. */
  headed: boolean
  /** Rows were left out. */
  cut: boolean
}

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

function addTable(dump: IptablesDump, listing: ReadonlyMap<string, Listed>): void {
  const name = tableName(listing)
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
  for (const [chainName, {line, policy, rows, headed, cut}] of listing) {
    const chain = new IptablesChain(dump, name, chainName)
    chain.declared = true
    chain.policy = policy
    chain.line = line
    // without its titles the listing went through grep, and lines may be missing
    chain.cut = cut || !headed
    const rules = rows.map((row, at) =>
      readRule({line: row.line, number: row.number, chain, rules: at, file: dump.file}),
    )
    chain.adopt(rules)
    for (const {problem, line: number, text: words} of rules)
      if (problem) dump.problems.push({file: dump.file, line: number, message: problem, text: words})
    table.chains.set(chainName, chain)
  }
}

interface Row {
  readonly line: string
  readonly number: number
  readonly chain: IptablesChain
  readonly rules: number
  readonly file: string
}

/** The word before the column of options, `--` or `-f`. */
const PROTOCOL = /^(!?)([a-z][\w.-]*|\d{1,3})$/

function readRule({line, number, chain, rules, file}: Row): IptablesRule {
  const rule = newRule({table: chain.table, chain: chain.name, number: rules + 1, file, line: number}, line)
  const words = line.split(/\s+/)
  const protocolAt = words.findIndex((word, at) => PROTOCOL.test(word) && /^(--|-f|!f)$/.test(words[at + 1] ?? ''))
  if (protocolAt < 0) {
    rule.problem = 'the columns of this line are not understood'
    return rule
  }
  const verbose = isInterface(words[protocolAt + 2]) && !isAddress(words[protocolAt + 2])
  const target = words[protocolAt - 1]
  if (target !== undefined && !/^\d+[KMG]?$/.test(target))
    rule.target = {name: target, goto: line.includes('[goto]'), options: []}
  const protocol = PROTOCOL.exec(words[protocolAt]!)!
  if (protocol[2] !== 'all' && protocol[2] !== '0')
    rule.protocol = {not: protocol[1] === '!', value: protocolName(protocol[2]!)}
  if (verbose) readInterfaces(rule, words[protocolAt + 2]!, words[protocolAt + 3] ?? '*')
  const sourceAt = protocolAt + (verbose ? 4 : 2)
  readAddress(rule, 'source', words[sourceAt])
  readAddress(rule, 'destination', words[sourceAt + 1])
  if (!rule.problem)
    readExtensions(
      rule,
      words
        .slice(sourceAt + 2)
        .filter((word) => word !== '[goto]')
        .join(' '),
    )
  if (!verbose && isBare(rule)) match(rule, HIDDEN_INTERFACES)
  return rule
}

/** A match that stands for what a listing does not show. */
const HIDDEN_INTERFACES = 'interfaces that -L hides without -v'
const VERDICTS = new Set(['ACCEPT', 'DROP', 'REJECT', 'RETURN'])

/** A verdict on everything: such a rule is likely to be about one interface (`-i lo -j ACCEPT`). */
const isBare = ({protocol, source, destination, matches, target}: IptablesRule): boolean =>
  target !== undefined &&
  VERDICTS.has(target.name) &&
  !protocol &&
  !source &&
  !destination &&
  matches.every(({module}) => module === 'comment')

const isInterface = (word: string | undefined): boolean => word !== undefined
const isAddress = (word: string | undefined): boolean =>
  word !== undefined && (/^!?[\d.]+(\/|$)/.test(word) || word.includes('::') || /^!?anywhere$/.test(word))
const protocolName = (word: string): string =>
  ({'6': 'tcp', '17': 'udp', '132': 'sctp', '1': 'icmp', '58': 'ipv6-icmp', ipencap: '4', vrrp: '112'})[word] ?? word

function readInterfaces(rule: IptablesRule, inside: string, outside: string): void {
  // «any» without -n (libxtables, print_ifaces)
  const isAny = (word: string): boolean => word === '*' || word === 'any'
  if (!isAny(inside)) rule.inInterface = {not: inside.startsWith('!'), value: inside.replace('!', '')}
  if (!isAny(outside)) rule.outInterface = {not: outside.startsWith('!'), value: outside.replace('!', '')}
}

function readAddress(rule: IptablesRule, field: 'source' | 'destination', word: string | undefined): void {
  const value = (word ?? '').replace('!', '')
  if (value === '0.0.0.0/0' || value === '::/0' || value === 'anywhere') {
    if (word!.startsWith('!')) rule.problem = `${field} "${word}" is not understood`
    return
  }
  if (parseRange(value) === undefined) rule.problem = `${field} "${value}" is a name; list with -n`
  else rule[field] = {not: word!.startsWith('!'), value}
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
const targetOption = (rule: IptablesRule, name: string, ...values: string[]): void =>
  void rule.target?.options.push(option(name, values))

/** How libxtables' `print` functions word each extension (extensions/libxt_*.c); tried in order at the start of the rest. */
const EXTENSIONS: readonly Extension[] = [
  {pattern: /^\/\* (.*?) \*\//, read: ([, text], rule) => match(rule, 'comment', option('comment', [text!]))},
  {
    pattern: /^(! )?match-set (\S+) (\S+)/,
    read: ([, not, name, flags], rule) => match(rule, 'set', option('match-set', [name!, flags!], Boolean(not))),
  },
  {pattern: /^ADDRTYPE match((?: !?(?:src|dst)-type !?\S+)+)/, read: ([, types], rule) => readAddrtype(rule, types!)},
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
    pattern: /^CONNMARK (restore|save)(?: ctmask (0x[\da-f]+))?(?: nfmask (0x[\da-f]+))?/,
    read: ([, how, ctmask, nfmask], rule) => {
      targetOption(rule, `${how}-mark`)
      if (ctmask) targetOption(rule, 'ctmask', ctmask)
      if (nfmask) targetOption(rule, 'nfmask', nfmask)
    },
  },
  {
    pattern: /^(connmark|mark) match (! )?(0x[\da-f]+(?:\/0x[\da-f]+)?)/,
    read: ([, module, not, value], rule) => match(rule, module!, option('mark', [value!], Boolean(not))),
  },
  {
    pattern:
      /^(tcp|udp|sctp)(?= |$)((?: (?:!?(?:dpts?|spts?):!?\S+|(?:d|s)pts?:!?\S+|flags:!?0x[\dA-F]+\/0x[\dA-F]+))*)/,
    read: ([, module, rest], rule) => readPorts(rule, module!, rest!),
  },
  {
    pattern: /^multiport (dports|sports|ports) (! ?)?(\S+)/,
    read: ([, kind, not, ports], rule) => match(rule, 'multiport', option(kind!, [ports!], Boolean(not))),
  },
  {
    pattern: /^(?:ctstate|state) (! ?)?([A-Z,]+)/,
    read: ([, not, states], rule) => match(rule, 'conntrack', option('ctstate', [states!], Boolean(not))),
  },
  {
    pattern: /^(! )?ctstate ([A-Z,]+)/,
    read: ([, not, states], rule) => match(rule, 'conntrack', option('ctstate', [states!], Boolean(not))),
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
    read: ([, not, name, value], rule) => match(rule, 'conntrack', option(name!, [value!], Boolean(not))),
  },
  {
    pattern: /^policy match dir (in|out) pol (none|ipsec)/,
    read: ([, dir, pol], rule) => match(rule, 'policy', option('dir', [dir!]), option('pol', [pol!])),
  },
  {pattern: /^(LOG|NFLOG|nflog-\S+|TCPMSS) .*/, read: () => undefined},
]

/** Whatever these do, the packet goes on as it was. */
const ONLY_LOOKS = new Set(['LOG', 'NFLOG', 'ULOG', 'TCPMSS', 'TRACE'])

function readExtensions(rule: IptablesRule, text: string): void {
  let rest = text.trim()
  while (rest !== '') {
    const extension = EXTENSIONS.find(({pattern}) => pattern.test(rest))
    if (!extension) {
      if (ONLY_LOOKS.has(rule.target?.name ?? '')) return
      rule.problem = `"${rest}" is not understood`
      return
    }
    const found = extension.pattern.exec(rest)!
    extension.read(found, rule)
    rest = rest.slice(found[0].length).trim()
  }
}

function readAddrtype(rule: IptablesRule, types: string): void {
  const addrtype = match(rule, 'addrtype')
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
  const flags = /flags:(!?)0x([\dA-F]+)\/0x([\dA-F]+)/.exec(rest)
  if (flags) ports.options.push(option('tcp-flags', [flagNames(flags[2]!), flagNames(flags[3]!)], flags[1] === '!'))
}

const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG']
const flagNames = (hex: string): string =>
  TCP_FLAGS.filter((_, bit) => (Number.parseInt(hex, 16) >> bit) & 1).join(',') || 'NONE'

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
