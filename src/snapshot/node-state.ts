import {parseIpsetList, parseIpsetSave, type IpsetDump} from '../parse/ipset.js'
import {
  parseAddresses,
  parseBridgeFdb,
  parseLinks,
  parseNeighbours,
  parsePolicyRules,
  parseRoutes,
  type BridgeEntry,
  type Link,
  type LocalAddress,
  type Neighbour,
  type PolicyRule,
  type Route,
} from '../parse/iproute.js'
import {parseIptables, type IptablesOptions} from '../parse/iptables-forms.js'
import {LEGACY_PRESENT, type IptablesDump} from '../parse/iptables.js'
import {parseIpvsList, parseIpvsSave, parseProcIpvs, type IpvsDump} from '../parse/ipvs.js'
import {parseNftJson, type NftRuleset} from '../parse/nft.js'
import {locateNftRules, parseNftText} from '../parse/nft-text.js'
import {narrowing, type ListingKind, type Narrowing} from '../parse/narrowed.js'
import type {Problem} from '../parse/problem.js'
import {parseConntrack, parseSockets, parseSysctl, type ConntrackEntry, type SocketList} from '../parse/system.js'
import type {Family} from '../util/ip.js'

/**
 * How a section of a node's dump stands (design.md, "Snapshot layout"):
 * `read`: asked and answered, maybe with nothing · `absent`: the facility isn't on the node, so nothing is there ·
 * `unreadable`: asked, and the answer is missing or cut · `never-asked`: the snapshot says nothing of it.
 */
export type SectionState = 'read' | 'absent' | 'unreadable' | 'never-asked'

export interface Section {
  readonly state: SectionState
  readonly file: string
  /** For `absent` and `unreadable`: what the command said. */
  readonly reason?: string
}

const ABSENT =
  /not found|no such file|can't initialize|cannot initialize|could not (?:initialize|find)|protocol not (?:available|supported)|not supported|no such device|module .* not found|unknown device|does not exist|address family not supported/i

/** Failures that say nothing about what is there, whatever else the message holds. */
const HINDERED =
  /permission denied|operation not permitted|must be root|password is required|\block\b|xtables\.lock|cache initialization|shared librar|temporarily unavailable|timed? ?out|killed|cannot allocate|out of memory/i

/** The words of a command's complaint that decide what its failure means. */
export const SAID_WHY = new RegExp(`${ABSENT.source}|${HINDERED.source}|${LEGACY_PRESENT.source}`, 'gi')

/** The listings that people paste with the command above them. */
const KIND_OF: readonly (readonly [RegExp, ListingKind])[] = [
  [/^ip6?tables.*\.txt$/, 'iptables'],
  [/^nft\.txt$/, 'nft'],
  [/^ipset-.*\.txt$/, 'ipset'],
  [/^ipvsadm-.*\.txt$/, 'ipvs'],
  [/^ip-(addr|link)\.txt$/, 'addresses'],
  [/^ip-route6?\.txt$/, 'routes'],
  [/^ip-rule6?\.txt$/, 'rules'],
]

/** Texts by the names of their files. */
export type Files = Pick<ReadonlyMap<string, string>, 'get' | 'has'>

/** Rules of kube-proxy's own chains, and those that lead there, name no interface; those for one Service or endpoint are in nat. */
const KUBE_PROXYS: IptablesOptions = {
  asksForNone: (chain) => chain.startsWith('KUBE-'),
  inNat: (chain) => /^KUBE-((SVC|SVL|SEP|EXT|XLB|FW)-[A-Z0-9]{16}|MARK-(MASQ|DROP)|POSTROUTING)$/.test(chain),
}
/** `ip -j`, or what `ip` prints for people. */
const eitherForm = <T>(name: string, parse: Parser<T>): readonly (readonly [string, Parser<T>])[] => [
  [`${name}.json`, parse],
  [`${name}.txt`, parse],
]
type Parser<T> = (text: string, file: string) => T

/** Everything that one node said. Dumps are parsed when first asked for, and once. */
export class NodeState {
  readonly name: string
  readonly problems: Problem[] = []
  private readonly narrowed = new Map<string, Narrowing>()
  private readonly files: Files
  private readonly codes: ReadonlyMap<string, number>
  private readonly memo = new Map<string, unknown>()

  private readonly share: ((text: string) => string) | undefined

  /** `files`: name inside the node's folder → text. `share` makes what many nodes say one text. */
  constructor(name: string, files: Files, share?: (text: string) => string) {
    this.name = name
    this.share = share
    this.files = files
    this.codes = readCodes(files.get('rc.txt'))
  }

  /** A file's path inside the snapshot, as evidence names it. */
  path(file: string): string {
    return `nodes/${this.name}/${file}`
  }

  /** The path of what `ip` printed (`ip-route`), in the form that is there. */
  ipPath(name: string): string {
    return this.path(this.section(`${name}.json`, `${name}.txt`).file)
  }

  text(file: string): string | undefined {
    return this.files.get(file)
  }

  /** The state of the first of these files that was asked for. */
  section(...files: readonly string[]): Section {
    let last: Section | undefined
    for (const file of files) {
      const section = this.fileSection(file)
      if (section.state === 'read') return section
      if (section.state !== 'never-asked' && (last === undefined || last.state === 'absent')) last = section
    }
    return last ?? {state: 'never-asked', file: files[0]!}
  }

  /** What of `ip -j` was not understood: a route that is missing may be the one that counts. */
  get damagedRouting(): string | undefined {
    // reading them is what finds their problems
    for (const read of [() => this.routes, () => this.policyRules, () => this.addresses, () => this.links]) read()
    const problem = this.problems.find(({file}) => /\/ip-(route6?|rule6?|addr|link)\.(json|txt)$/.test(file))
    return problem && `${problem.file}: ${problem.message}`
  }

  private fileSection(file: string): Section {
    const code = this.codes.get(file)
    const there = this.files.has(file)
    if (there && (code === undefined || code === 0)) return {state: 'read', file}
    if (code === undefined) return {state: 'never-asked', file}
    const stderr = this.files.get(`${file}.stderr`)?.trim() ?? ''
    const reason = stderr === '' ? `rc=${code}` : `rc=${code}: ${stderr.split('\n').at(-1)!}`
    if (code === 0) return {state: 'unreadable', file, reason: 'asked for, but the answer is not in the snapshot'}
    const hindered = HINDERED.test(stderr)
    const absent =
      !hindered && (code === 127 || ABSENT.test(stderr) || (file.startsWith('proc-') && code === 1 && stderr === ''))
    return {state: absent ? 'absent' : 'unreadable', file, reason}
  }

  private once<T>(key: string, make: () => T): T {
    if (!this.memo.has(key)) this.memo.set(key, make())
    return this.memo.get(key) as T
  }

  /** Parses the first file that was read, and keeps its problems. */
  private parse<T extends {problems: Problem[]}>(
    forms: readonly (readonly [string, (text: string, file: string) => T])[],
  ): T | undefined {
    for (const [file, parser] of forms) {
      const text = this.files.get(file)
      if (text === undefined || this.section(file).state !== 'read') continue
      const parsed = parser(text, this.path(file))
      this.problems.push(...parsed.problems)
      this.noteNarrowing(file, text)
      return parsed
    }
    return undefined
  }

  private noteNarrowing(file: string, text: string): void {
    const kind = KIND_OF.find(([pattern]) => pattern.test(file))?.[1]
    const found = kind && narrowing(text, kind)
    if (found) this.narrowed.set(file, found)
  }

  /** Listings of a family that a command in front of them says are not whole: file → line, and by what. */
  narrowings(family: Family): readonly (readonly [file: string, Narrowing])[] {
    const reads = [() => this.iptables(family), () => this.nft, () => this.ipsets, () => this.ipvs]
    // reading them is what finds it
    for (const read of [...reads, () => this.damagedRouting]) read()
    const other = family === 4 ? /^(ip6tables|ip-(route|rule)6)/ : /^(iptables|ip-(route|rule)\.)/
    return [...this.narrowed].filter(([file]) => !other.test(file))
  }

  /** The iptables rules of a family, one dump for each backend that has any. */
  iptables(family: Family): readonly IptablesDump[] {
    return this.once(`iptables${family}`, () => {
      const prefix = family === 4 ? 'iptables' : 'ip6tables'
      const dumps = [`${prefix}-nft-save.txt`, `${prefix}-legacy-save.txt`].flatMap((file) => {
        const dump = this.parseSave(file)
        if (dump) dump.backend = file.includes('legacy') ? 'legacy' : 'nft'
        return dump ? [dump] : []
      })
      const main = this.mainSave(prefix, dumps)
      const saved = main ? [...dumps, main] : dumps
      return prefix === 'iptables' ? [...saved, ...this.listing(saved)] : saved
    })
  }

  private parseSave(file: string): IptablesDump | undefined {
    const text = this.files.get(file)
    if (text === undefined || text.trim() === '' || this.section(file).state !== 'read') return undefined
    const dump = parseIptables(text, this.path(file), this.share ? {...KUBE_PROXYS, share: this.share} : KUBE_PROXYS)
    this.problems.push(...dump.problems)
    this.noteNarrowing(file, text)
    return dump
  }

  /** `iptables-save.txt` repeats one of the two backend files; it counts only where that one is missing. */
  private mainSave(prefix: string, dumps: readonly IptablesDump[]): IptablesDump | undefined {
    const dump = this.parseSave(`${prefix}-save.txt`)
    if (dump) {
      const backend = this.backendOfMain(dump)
      dump.backend = backend
      return dumps.some((other) => other.backend === backend) ? undefined : dump
    }
    return undefined
  }

  /** `iptables -L` is the last choice, table by table: a save of nat alone may have a listing of filter beside it. */
  private listing(saved: readonly IptablesDump[]): IptablesDump[] {
    const known = new Set(saved.flatMap(({tables}) => [...tables.keys()]))
    if (known.has('nat') && known.has('filter')) return []
    const dump = this.parse([['iptables-nat-L.txt', (text, file) => parseIptables(text, file, KUBE_PROXYS)]])
    if (!dump) return []
    for (const name of known) dump.tables.delete(name)
    return saved.length > 0 && dump.tables.size === 0 ? [] : [dump]
  }

  private backendOfMain(dump: IptablesDump): 'legacy' | 'nft' {
    if (dump.backend) return dump.backend
    if (LEGACY_PRESENT.test(this.files.get(`${dump.file.split('/').at(-1)!}.stderr`) ?? '')) return 'nft'
    return /nf_tables/.test(this.files.get('backend.txt') ?? '') ? 'nft' : 'legacy'
  }

  get iptablesSection(): Section {
    return this.section('iptables-save.txt', 'iptables-nft-save.txt', 'iptables-legacy-save.txt', 'iptables-nat-L.txt')
  }

  iptablesSectionOf(family: Family): Section {
    return family === 4
      ? this.iptablesSection
      : this.section('ip6tables-save.txt', 'ip6tables-nft-save.txt', 'ip6tables-legacy-save.txt')
  }

  get nft(): NftRuleset | undefined {
    return this.once('nft', () => {
      const json = this.parse([['nft.json', parseNftJson]])
      const text = this.files.get('nft.txt')
      if (!json || json.problems.length > 0 || json.tables.size === 0)
        return this.parse([['nft.txt', parseNftText]]) ?? json
      if (text !== undefined) locateNftRules(json, text, this.path('nft.txt'))
      return json
    })
  }

  get nftSection(): Section {
    return this.section('nft.json', 'nft.txt')
  }

  get ipsets(): IpsetDump | undefined {
    return this.once('ipsets', () =>
      this.parse([
        ['ipset-save.txt', parseIpsetSave],
        ['ipset-list.txt', parseIpsetList],
      ]),
    )
  }

  get ipsetSection(): Section {
    return this.section('ipset-save.txt', 'ipset-list.txt')
  }

  get ipvs(): IpvsDump | undefined {
    return this.once('ipvs', () =>
      this.parse([
        ['ipvsadm-Sn.txt', parseIpvsSave],
        ['ipvsadm-Ln.txt', parseIpvsList],
        ['proc-net-ip_vs.txt', parseProcIpvs],
      ]),
    )
  }

  get ipvsSection(): Section {
    return this.section('ipvsadm-Sn.txt', 'ipvsadm-Ln.txt', 'proc-net-ip_vs.txt')
  }

  get links(): readonly Link[] {
    return this.once(
      'links',
      () =>
        this.parse([
          ['ip-link.json', parseLinks],
          ['ip-link.txt', parseLinks],
          ['ip-addr.json', parseLinks],
          ['ip-addr.txt', parseLinks],
        ])?.value ?? [],
    )
  }

  get addresses(): readonly LocalAddress[] {
    return this.once('addresses', () => this.parse(eitherForm('ip-addr', parseAddresses))?.value ?? [])
  }

  get addressSection(): Section {
    return this.section('ip-addr.json', 'ip-addr.txt')
  }

  get routes(): readonly Route[] {
    return this.once('routes', () => {
      const v4 = this.parse(eitherForm('ip-route', (text, file) => parseRoutes(text, file)))?.value ?? []
      const v6 = this.parse(eitherForm('ip-route6', (text, file) => parseRoutes(text, file, 6)))?.value ?? []
      return [...v4.filter(({family}) => family === 4 || v6.length === 0), ...v6]
    })
  }

  routeSection(family: Family): Section {
    const v4 = ['ip-route.json', 'ip-route.txt']
    return family === 4 ? this.section(...v4) : this.section('ip-route6.json', 'ip-route6.txt', ...v4)
  }

  ruleSection(family: Family): Section {
    const name = family === 4 ? 'ip-rule' : 'ip-rule6'
    return this.section(`${name}.json`, `${name}.txt`)
  }

  get policyRules(): readonly PolicyRule[] {
    return this.once('rules', () => [
      ...(this.parse(eitherForm('ip-rule', (text, file) => parsePolicyRules(text, file, 4)))?.value ?? []),
      ...(this.parse(eitherForm('ip-rule6', (text, file) => parsePolicyRules(text, file, 6)))?.value ?? []),
    ])
  }

  /** Which hardware address a next hop has, and where tunnels send it. */
  get knowsTunnelTables(): boolean {
    return ['ip-neigh.json', 'bridge-fdb.json'].every((file) => this.fileSection(file).state === 'read')
  }

  get neighbours(): readonly Neighbour[] {
    return this.once('neighbours', () => this.parse([['ip-neigh.json', parseNeighbours]])?.value ?? [])
  }

  get bridgeFdb(): readonly BridgeEntry[] {
    return this.once('fdb', () => this.parse([['bridge-fdb.json', parseBridgeFdb]])?.value ?? [])
  }

  get sysctls(): ReadonlyMap<string, {value: string; line: number}> {
    return this.once('sysctl', () => this.parseSysctls())
  }

  private parseSysctls(): ReadonlyMap<string, {value: string; line: number}> {
    const text = this.files.get('sysctl.txt')
    if (text === undefined) return new Map()
    const {value, problems} = parseSysctl(text, this.path('sysctl.txt'))
    this.problems.push(...problems)
    return value
  }

  sysctl(name: string): string | undefined {
    return this.sysctls.get(name)?.value
  }

  sysctlLine(name: string): number | undefined {
    return this.sysctls.get(name)?.line
  }

  get sockets(): SocketList | undefined {
    return this.once('sockets', () => this.parse([['ss.txt', parseSockets]])?.value)
  }

  get conntrack(): readonly ConntrackEntry[] {
    return this.once('conntrack', () => [
      ...(this.parse([['conntrack.txt', parseConntrack]])?.value ?? []),
      ...(this.parse([['conntrack6.txt', parseConntrack]])?.value ?? []),
    ])
  }

  /** `iptables`, `ipvs`, `nftables`, `userspace`, as kube-proxy itself says at /proxyMode. */
  get proxyMode(): string | undefined {
    const text = this.files.get('proxymode.txt')?.trim()
    return text !== undefined && this.section('proxymode.txt').state === 'read' && /^[a-z]+$/.test(text)
      ? text
      : undefined
  }

  get proxyVersion(): string | undefined {
    return /v\d+\.\d+\.\d+\S*/.exec(this.files.get('kube-proxy-version.txt') ?? '')?.[0]
  }
}

function readCodes(text: string | undefined): Map<string, number> {
  const codes = new Map<string, number>()
  for (const line of (text ?? '').split('\n')) {
    const match = /^(\S+) rc=(\d+)$/.exec(line.trim())
    if (match) codes.set(match[1]!, Number(match[2]))
  }
  return codes
}
