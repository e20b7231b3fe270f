import type {IptablesDump} from '../parse/iptables.js'
import type {Link, LocalAddress, Route} from '../parse/iproute.js'
import type {VirtualServer} from '../parse/ipvs.js'
import {NOT_UNDERSTOOD, type ConntrackEntry, type Socket} from '../parse/system.js'
import type {NodeState} from '../snapshot/node-state.js'
import {formatAddress, familyOf, isLoopback, prefixRange, type Address, type Family, type Range} from '../util/ip.js'
import type {Chooser} from './explore.js'
import {findGaps, type Gap} from './gaps.js'
import {selectV4, selectV6} from './source-address.js'
import {hookPriority, IPTABLES_HOOKS, TableProgram} from './iptables-program.js'
import {Ipsets} from './ipset.js'
import {anyRefuses} from './refusals.js'
import {masquerade} from './nat.js'
import {NftTableProgram} from './nft-program.js'
import {NftSets} from './nft-sets.js'
import {EPHEMERAL, UNKNOWN_DEVICE, type Packet} from './packet.js'
import {Router, type RouteResult} from './router.js'
import {birthOf, type Born} from './registration.js'
import type {Hook, Verdict, Walker} from './walker.js'

/** A chain that a hook runs. */
export interface BaseChain {
  readonly name: string
  readonly type: 'filter' | 'nat' | 'route'
  readonly priority: number
  /** It has no rule. */
  readonly empty: boolean
  /** When it was registered, for chains of nf_tables whose dump has handles. */
  readonly born?: Born
  readonly run: (walker: Walker) => Verdict
}

/** What a machine needs to know of itself where its dumps are silent. */
export interface MachineHints {
  /** Addresses that the API gives this node. */
  readonly addresses: readonly Address[]
  /** What of its rules was never asked for, as somebody who knows what runs on it can tell. */
  readonly unasked?: (family: Family) => string | undefined
  /** What must be there and no dump shows: a walk's end is unknown. */
  readonly unseen?: (family: Family) => string | undefined
  /** Addresses that may be those of virtual servers which a listing does not show. */
  readonly virtual?: ReadonlySet<Address>
}

/** One node's kernel, ready to take packets: hooks, routes, sets, virtual servers, sockets. Built from its dumps on first use. */
export class Machine {
  readonly name: string
  readonly state: NodeState
  readonly ipsets: Ipsets
  readonly nftSets: NftSets
  readonly hints: MachineHints
  private readonly routers = new Map<Family, Router>()
  private readonly hooks: Readonly<Record<Family, Map<Hook, readonly BaseChain[]>>> = {4: new Map(), 6: new Map()}
  private readonly deviceSysctls: Readonly<Record<Family, Map<string, Map<string, number | undefined>>>> = {
    4: new Map(),
    6: new Map(),
  }
  private readonly globals: Readonly<Record<Family, Map<string, readonly LocalAddress[]>>> = {
    4: new Map(),
    6: new Map(),
  }
  private readonly links: ReadonlyMap<string, Link>
  private virtualServers: ReadonlyMap<string, VirtualServer> | undefined
  private gapList = new Map<Family, readonly Gap[]>()
  private readonly bridgeNames: ReadonlySet<string>
  private addressSet: ReadonlySet<Address> | undefined

  constructor(state: NodeState, hints: MachineHints) {
    this.name = state.name
    this.state = state
    this.hints = hints
    this.ipsets = new Ipsets(state.ipsets)
    this.nftSets = new NftSets(state.nft)
    this.links = new Map(state.links.map((link) => [link.name, link]))
    this.bridgeNames = new Set(
      state.links.flatMap(({kind, name, master}) => {
        // a bond, a team or a VRF is a master as well
        const ofMaster = master === undefined ? undefined : this.links.get(master)?.kind
        return kind === 'bridge' ? [name] : master !== undefined && (ofMaster ?? 'bridge') === 'bridge' ? [master] : []
      }),
    )
  }

  get knowsAddresses(): boolean {
    return this.state.addressSection.state === 'read'
  }

  get knowsLinks(): boolean {
    return this.links.size > 0
  }

  router(family: Family): Router {
    let router = this.routers.get(family)
    if (!router) this.routers.set(family, (router = this.buildRouter(family)))
    return router
  }

  private buildRouter(family: Family): Router {
    const complete = this.state.routeSection(family).state === 'read'
    // without `table all` ip prints the main table alone
    const everyTable = this.state.routes.some((route) => route.family === family && route.table === 'local')
    const local = everyTable ? [] : this.localRoutes(family)
    const routes = complete ? [...this.state.routes, ...local] : local
    const mainOnly = complete && !everyTable
    return new Router(family, {node: this.name, routes, rules: this.state.policyRules, complete, mainOnly})
  }

  /** The local table where it was not read: what the addresses alone tell, as the kernel makes it of them. */
  private localRoutes(family: Family): Route[] {
    const loopback = family === 4 ? prefixRange(0x7f000000, 8) : {lo: 1n, hi: 1n}
    const own = this.ownAddresses(family)
    return [
      makeRoute({family, range: loopback, device: 'lo'}),
      ...own.map(({address, device}) =>
        makeRoute({family, range: {lo: address, hi: address}, device, source: address}),
      ),
    ]
  }

  private ownAddresses(family: Family): {address: Address; device: string}[] {
    const wanted = family === 4 ? 'number' : 'bigint'
    const known = this.state.addresses.filter(({address}) => typeof address === wanted)
    if (this.knowsAddresses) return known.map(({address, device}) => ({address, device}))
    return [...this.hints.addresses, ...this.servedAddresses()]
      .filter((address) => typeof address === wanted)
      .map((address) => ({address, device: UNKNOWN_DEVICE}))
  }

  /** Where nobody asked for addresses: IPVS sees only packets to the node itself, so those of its virtual servers are. */
  private servedAddresses(): Address[] {
    if (this.state.addressSection.state !== 'never-asked') return []
    const served = (this.state.ipvs?.virtualServers ?? []).flatMap(({address}) => address ?? [])
    return this.ipvsPartial ? [...served, ...(this.hints.virtual ?? [])] : served
  }

  /** All addresses of the node, its dumps' or, where there are none, the API's. */
  get addresses(): ReadonlySet<Address> {
    this.addressSet ??= new Set([...this.ownAddresses(4), ...this.ownAddresses(6)].map(({address}) => address))
    return this.addressSet
  }

  link(name: string): Link | undefined {
    return this.links.get(name)
  }

  isBridge(device: string): boolean {
    return this.bridgeNames.has(device)
  }

  deviceHas(device: string, address: Address): boolean {
    if (device === 'lo' && isLoopback(address)) return true
    return this.state.addresses.some((own) => own.device === device && own.address === address)
  }

  /** The device that carries this address. */
  deviceOf(address: Address): string | undefined {
    return this.state.addresses.find((own) => own.address === address)?.device
  }

  /**
   * The device by which clients outside reach an address of the node, where it is not the one by which they are answered: the
   * router next to them asks for the address on that network. Only where clients behind a router come by it at all.
   */
  entrance(
    address: Address,
    {type, device, gateway}: Pick<RouteResult, 'type' | 'device' | 'gateway'>,
  ): string | undefined {
    if (type !== 'unicast' || gateway === undefined || !this.hints.addresses.includes(address)) return undefined
    const own = this.deviceOf(address)
    return own !== undefined && own !== device && this.defaultDevices.has(own) ? own : undefined
  }

  private defaults: ReadonlySet<string> | undefined
  /** Devices by which a default route of some table leads to a gateway. */
  private get defaultDevices(): ReadonlySet<string> {
    this.defaults ??= new Set(
      this.state.routes
        .filter(({length}) => length === 0)
        .flatMap(({nextHops}) => nextHops.flatMap((hop) => (hop.gateway === undefined ? [] : (hop.device ?? [])))),
    )
    return this.defaults
  }

  private global(device: string, family: Family): readonly LocalAddress[] {
    const devices = this.globals[family]
    let known = devices.get(device)
    if (!known) {
      const type = family === 4 ? 'number' : 'bigint'
      known = this.state.addresses.filter(
        (own) => own.device === device && typeof own.address === type && own.scope === 'global',
      )
      devices.set(device, known)
    }
    return known
  }

  /** The first address of a device, as REDIRECT takes it. */
  deviceAddress(device: string, family: Family): Address | undefined {
    if (device === 'lo') return family === 4 ? 0x7f000001 : 1n
    return (
      this.global(device, family)[0] ??
      this.state.addresses.find(
        (own) => own.device === device && typeof own.address === (family === 4 ? 'number' : 'bigint'),
      )
    )?.address
  }

  /**
   * The address that MASQUERADE takes: a device without a global IPv4 address borrows from the others
   * (net/ipv4/devinet.c, inet_select_addr; net/netfilter/nf_nat_masquerade.c).
   */
  masqueradeAddress(packet: Packet, chooser: Chooser): Address | undefined {
    // without routes nobody knows the device: most likely it is the one that the node is known by
    if (packet.oif === UNKNOWN_DEVICE)
      return this.hints.addresses.find((address) => typeof address === (packet.family === 4 ? 'number' : 'bigint'))
    const own = this.global(packet.oif, packet.family).filter(({secondary}) => !secondary)
    const route = this.router(packet.family).lookup(chooser, {
      dst: packet.dst,
      src: packet.src,
      mark: packet.mark,
      iif: 'lo',
    })
    const hop = route.gateway ?? packet.dst
    if (packet.family === 6)
      return selectV6(this.state.addresses, {device: packet.oif, dst: packet.dst === 'client' ? undefined : packet.dst})
    if (own.length > 0) return selectV4(own, hop === 'client' ? undefined : hop)
    const others = this.state.links.flatMap(({name}) => this.global(name, packet.family))
    return others[0]?.address
  }

  /** The source of the node's own packets that leave by a device; `hop`: the next hop, or the destination on the wire. */
  sourceAddress(device: string, {dst, hop}: {dst: Address; hop: Address}): Address | undefined {
    const family = familyOf(dst)
    const fallback = this.hints.addresses.find((address) => familyOf(address) === family)
    if (family === 6) return selectV6(this.state.addresses, {device, dst}) ?? fallback
    const own = this.global(device, family).filter(({secondary}) => !secondary)
    if (own.length > 0) return selectV4(own, hop)
    const others = this.state.links.flatMap(({name}) => this.global(name, family))
    return others[0]?.address ?? fallback
  }

  /** A number; undefined when the snapshot does not hold it. */
  sysctl(name: string): number | undefined {
    const text = this.state.sysctl(name)
    return text === undefined || !/^-?\d+$/.test(text) ? undefined : Number(text)
  }

  /** The larger of `all` and the device (IN_DEV_MAXCONF), or either of them (IN_DEV_ORCONF). */
  deviceSysctl(family: Family, device: string, key: string): number | undefined {
    const devices = this.deviceSysctls[family]
    let known = devices.get(device)
    if (!known) devices.set(device, (known = new Map<string, number | undefined>()))
    if (!known.has(key)) known.set(key, this.findDeviceSysctl(family, device, key))
    return known.get(key)
  }

  private findDeviceSysctl(family: Family, device: string, key: string): number | undefined {
    const values = ['all', device]
      .map((name) => this.sysctl(`net.ipv${family}.conf.${name}.${key}`))
      .filter((value) => value !== undefined)
    return values.length > 0 ? Math.max(...values) : undefined
  }

  /** `route_localnet`; taken to be on, as forwarding is, where nobody asked for it. */
  routesLoopback(device: string): boolean {
    return (this.deviceSysctl(4, device, 'route_localnet') ?? 1) === 1
  }

  forwards(family: Family, device: string): boolean | undefined {
    const devices = this.forwarding[family]
    if (!devices.has(device)) {
      const value = this.sysctl(this.forwardingSysctl(family, device))
      devices.set(device, value === undefined ? undefined : value !== 0)
    }
    return devices.get(device)
  }

  private readonly forwarding: Readonly<Record<Family, Map<string, boolean | undefined>>> = {4: new Map(), 6: new Map()}

  /** Which sysctl decides whether packets that come in by a device are forwarded: in IPv4 the device's own, where the dump has it. */
  forwardingSysctl(family: Family, device: string): string {
    if (family === 6) return 'net.ipv6.conf.all.forwarding'
    const own = `net.ipv4.conf.${device}.forwarding`
    const known = [own, 'net.ipv4.ip_forward', 'net.ipv4.conf.all.forwarding'].find(
      (name) => this.sysctl(name) !== undefined,
    )
    // setting the global one sets all devices
    const isGlobal = known === own && this.sysctl(own) === 0 && this.sysctl('net.ipv4.ip_forward') === 0
    return isGlobal ? 'net.ipv4.ip_forward' : (known ?? 'net.ipv4.ip_forward')
  }

  /** Where the line of a sysctl stands. */
  sysctlEvidence(name: string): {source: string; line: number; text: string} {
    return {
      source: this.state.path('sysctl.txt'),
      line: this.state.sysctlLine(name) ?? 0,
      text: `${name} = ${this.state.sysctl(name) ?? '?'}`,
    }
  }

  /** Bridged frames pass iptables and conntrack only with this, or with the bridge's own flag (br_netfilter). */
  bridgeCallsIptables(family: Family, bridge: string): boolean {
    if (this.links.get(bridge)?.callsIptables?.includes(family)) return true
    const value = this.sysctl(
      family === 4 ? 'net.bridge.bridge-nf-call-iptables' : 'net.bridge.bridge-nf-call-ip6tables',
    )
    return value === 1
  }

  /** A listener of which the port is not understood may be any, and so may one that the listing leaves out. */
  hiddenSocket(protocol: string): string | undefined {
    const left = this.state.sockets?.hides.get(protocol)
    if (left !== undefined) return `${this.state.path('ss.txt')} may lack it: ${left}`
    const found = this.state.problems.find(
      ({file, message}) => file === this.state.path('ss.txt') && message === NOT_UNDERSTOOD,
    )
    return found && `${found.file}:${found.line} is not understood`
  }

  get sockets(): readonly Socket[] | undefined {
    return this.state.sockets
  }

  virtualServer(packet: Packet): VirtualServer | undefined {
    this.virtualServers ??= new Map(
      (this.state.ipvs?.virtualServers ?? []).map((server) => [virtualKey(server), server]),
    )
    if (this.virtualServers.size === 0 || packet.dst === 'client') return undefined
    return (
      (packet.mark === 0 ? undefined : this.virtualServers.get(`FWM ${packet.mark}`)) ??
      this.virtualServers.get(`${packet.protocol} ${packet.dst} ${packet.dport}`) ??
      this.anyPort(`${packet.protocol} ${packet.dst} 0`)
    )
  }

  /** Port 0 takes every port, for persistent services only (ip_vs_service_find). */
  private anyPort(key: string): VirtualServer | undefined {
    const server = this.virtualServers!.get(key)
    return server?.persistent === undefined ? undefined : server
  }

  /** Virtual servers may be missing from the listing. */
  get ipvsPartial(): boolean {
    return this.state.ipvs?.partial === true
  }

  gaps(family: Family): readonly Gap[] {
    let gaps = this.gapList.get(family)
    if (!gaps)
      this.gapList.set(
        family,
        (gaps = findGaps(this.state, family, {
          unasked: this.hints.unasked?.(family),
          unseen: this.hints.unseen?.(family),
        })),
      )
    return gaps
  }

  /** The base chains of a hook, in the order of their priority, of every backend that is loaded. */
  baseChains(family: Family, hook: Hook): readonly BaseChain[] {
    const hooks = this.hooks[family]
    let chains = hooks.get(hook)
    if (!chains) {
      chains = [...this.iptablesChains(family, hook), ...this.nftChains(family, hook)].sort(
        (a, b) => a.priority - b.priority,
      )
      hooks.set(hook, chains)
    }
    return chains
  }

  private programs = new Map<string, TableProgram | NftTableProgram>()

  /** Lets go of what only makes the next walk faster (TableProgram.forget). */
  forget(): void {
    for (const program of this.programs.values()) if (program instanceof TableProgram) program.forget()
  }

  private iptablesChains(family: Family, hook: Hook): BaseChain[] {
    return this.state.iptables(family).flatMap((dump) =>
      [...dump.tables.values()].flatMap((table): BaseChain[] => {
        const place = IPTABLES_HOOKS[table.name]
        if (!place?.hooks.includes(hook)) return []
        if (!table.chains.has(hook))
          return dump.partial && table.name === 'nat' && hook !== 'INPUT' ? [missingChain(dump, hook)] : []
        const chain = this.tableProgram(dump, table.name).chain(hook)!
        const type = table.name === 'nat' ? 'nat' : table.name === 'mangle' && hook === 'OUTPUT' ? 'route' : 'filter'
        return [
          {
            name: `${dump.backend === 'legacy' ? 'legacy ' : ''}${table.name}/${hook}`,
            type,
            priority: hookPriority(table.name, hook, dump.backend),
            empty: chain.isEmpty,
            ...this.bornAs(dump, family, {table: table.name, chain: hook}),
            run: (walker) => chain.runBase(walker),
          },
        ]
      }),
    )
  }

  /** iptables-nft's chains have their handles in nft's dump. */
  private bornAs(
    {backend}: IptablesDump,
    family: Family,
    {table, chain}: {table: string; chain: string},
  ): Pick<BaseChain, 'born'> {
    const found = this.state.nft?.tables.get(`${family === 4 ? 'ip' : 'ip6'} ${table}`)
    return backend === 'nft' && found ? birthOf(found, chain) : {}
  }

  private tableProgram(dump: IptablesDump, name: string): TableProgram {
    const key = `${dump.file} ${name}`
    let program = this.programs.get(key) as TableProgram | undefined
    if (!program) this.programs.set(key, (program = new TableProgram(dump, dump.tables.get(name)!)))
    return program
  }

  private nftChains(family: Family, hook: Hook): BaseChain[] {
    return [...(this.state.nft?.tables.values() ?? [])].flatMap((table): BaseChain[] => {
      if (
        !(table.family === 'inet' || table.family === (family === 4 ? 'ip' : 'ip6')) ||
        table.flags.includes('dormant')
      )
        return []
      const isIptables = this.isIptablesTable(family, table.family, table.name)
      const key = `nft ${table.family} ${table.name}`
      let program = this.programs.get(key) as NftTableProgram | undefined
      if (!program) this.programs.set(key, (program = new NftTableProgram(table)))
      return [...table.chains.values()]
        .filter((chain) => chain.hook?.toUpperCase() === hook && !(isIptables && chain.name === hook))
        .map((chain) => {
          const base = program.chain(chain.name)!
          const type = chain.type === 'nat' || chain.type === 'route' ? chain.type : 'filter'
          return {
            name: `${table.family} ${table.name}/${chain.name}`,
            type,
            priority: chain.priority ?? 0,
            empty: chain.rules.length === 0,
            ...birthOf(table, chain.name),
            run: (walker: Walker) => base.runBase(walker),
          }
        })
    })
  }

  private waiting: ReadonlyMap<string, readonly ConntrackEntry[]> | undefined

  /** Connections to an address and port that nobody has answered yet (TCP, SYN_SENT). */
  waitingFor(address: Address, port: number): readonly ConntrackEntry[] {
    if (!this.waiting) {
      const all = new Map<string, ConntrackEntry[]>()
      for (const entry of this.state.conntrack) {
        if (!entry.unreplied || entry.state !== 'SYN_SENT') continue
        const key = `${entry.original.destination} ${entry.original.destinationPort}`
        const known = all.get(key)
        if (known) known.push(entry)
        else all.set(key, [entry])
      }
      this.waiting = all
    }
    return this.waiting.get(`${address} ${port}`) ?? []
  }

  private refusing = new Map<Family, boolean>()

  /** Whether any rule of this family refuses packets, wherever it stands. */
  refuses(family: Family): boolean {
    let known = this.refusing.get(family)
    if (known === undefined) this.refusing.set(family, (known = anyRefuses(this.state, family)))
    return known
  }

  /**
   * iptables-nft's own tables are in both dumps; iptables-save shows them better, but for base chains that others have added,
   * whatever their names (`chain forward`): those it cannot print.
   */
  private isIptablesTable(family: Family, tableFamily: string, name: string): boolean {
    return (
      tableFamily !== 'inet' &&
      this.state.iptables(family).some((dump) => dump.backend === 'nft' && dump.tables.has(name))
    )
  }

  /** The part of a packet that a set is asked about, in words. */
  describe({src, dst, sport, dport}: Packet, flags: readonly string[], protocol: string): string {
    const address = flags[0] === 'src' ? src : dst
    const port = flags[0] === 'src' ? sport : dport
    const host = address === 'client' ? 'the client' : formatAddress(address)
    return port === EPHEMERAL || flags.length === 1
      ? flags.length === 1 && port !== EPHEMERAL
        ? `${protocol.toLowerCase()}:${port}`
        : host
      : `${host},${protocol.toLowerCase()}:${port}`
  }
}

/** A built-in chain that a partial listing does not show. In POSTROUTING the least surprising thing is masquerade. */
function missingChain(dump: IptablesDump, hook: Hook): BaseChain {
  const name = `nat/${hook}`
  const labels =
    hook === 'POSTROUTING'
      ? ([
          `if ${name}, which is not in ${dump.file}, masquerades it`,
          `if ${name}, which is not in ${dump.file}, leaves it as it is`,
        ] as const)
      : ([
          `if ${name}, which is not in ${dump.file}, leaves it as it is`,
          `if ${name}, which is not in ${dump.file}, does something else`,
        ] as const)
  const run = (walker: Walker): Verdict => {
    const first = walker.assume(`missing:${dump.file}:${hook}`, labels)
    if (hook === 'POSTROUTING') return first ? masquerade(walker, name, true) : 'accept'
    return first ? 'accept' : {outcome: 'unknown', reason: `${name} is not in ${dump.file}`}
  }
  return {name, type: 'nat', empty: false, priority: hook === 'POSTROUTING' ? 100 : -100, run}
}

function virtualKey({protocol, address, port, mark}: VirtualServer): string {
  return protocol === 'FWM' ? `FWM ${mark}` : `${protocol} ${address} ${port}`
}

function makeRoute({
  family,
  range,
  device,
  source,
}: {
  family: Family
  range: Range
  device: string
  source?: Address
}): Route {
  return {
    family,
    type: 'local',
    destination: range,
    length: range.lo === range.hi ? (family === 4 ? 32 : 128) : 8,
    table: 'local',
    metric: 0,
    scope: 'host',
    nextHops: [{device, weight: 1, dead: false}],
    text: `local ${formatAddress(range.lo)} dev ${device}`,
    ...(source === undefined ? {} : {source}),
  }
}
