import type {PolicyRule, Route} from '../parse/iproute.js'
import {inRange, type Address, type Family, type Range} from '../util/ip.js'
import type {Chooser} from './explore.js'
import {CLIENT, UNKNOWN_DEVICE, type Party} from './packet.js'

/** What the routing tables say of a destination. */
export interface RouteResult {
  /** As in `ip route`; `none` when no table has an answer, `unread` when a table that was not read may have one. */
  readonly type: string
  readonly device: string
  readonly gateway?: Address
  /** The route's preferred source. */
  readonly source?: Address
  readonly scope: string
  readonly text: string
  /** The tables were never read; this is what a working node would do. */
  readonly assumed: boolean
}

export interface RouteQuery {
  readonly dst: Party
  readonly src: Party | undefined
  readonly mark: number
  /** `lo` for the node's own packets (FIB_LOOKUP with LOOPBACK_IFINDEX). */
  readonly iif: string
  /** The device that is preferred among the next hops of one route: rp_filter asks whether any of them uses it (fib_info_nh_uses_dev). */
  readonly via?: string
}

interface Table {
  /** Routes to one address, which are most of the local table. */
  readonly exact: Map<Address, Route[]>
  /** The others, longest prefix first, then lowest metric. */
  readonly prefixes: Route[]
  /** Which single addresses are inside a set of clients; kept, because the same set is asked about in every walk. */
  readonly inside: WeakMap<readonly Range[], readonly Address[]>
}

function exactInside({exact, inside}: Table, clients: readonly Range[]): readonly Address[] {
  let found = inside.get(clients)
  if (!found)
    inside.set(
      clients,
      (found = [...exact.keys()].filter((address) => clients.some((range) => inRange(address, range)))),
    )
  return found
}

const NO_ROUTE: RouteResult = {type: 'none', device: '', scope: 'global', text: 'no route', assumed: false}

const DEFAULT_RULES: readonly PolicyRule[] = [
  {priority: 0, table: 'local'},
  {priority: 32766, table: 'main'},
  {priority: 32767, table: 'default'},
].map((rule) => ({
  ...rule,
  family: undefined,
  not: false,
  action: 'lookup',
  unmodelled: [],
  text: `from all lookup ${rule.table}`,
}))

export interface RouterOptions {
  readonly node: string
  readonly routes: readonly Route[]
  readonly rules: readonly PolicyRule[]
  readonly complete: boolean
  /** The dump shows no table but main. */
  readonly mainOnly: boolean
}

const TABLE_QUESTION = (table: string, node: string): readonly [string, string] => [
  `if routing table ${table} of ${node}, which was not read, has no route for it`,
  `if routing table ${table} of ${node}, which was not read, has a route for it`,
]

/** A route whose next hops are all dead is passed over for the next best (fib_table_lookup). */
const isAlive = ({type, nextHops}: Route): boolean =>
  type !== 'unicast' || nextHops.length === 0 || nextHops.some(({dead}) => !dead)

/** The narrowest source first, then the lowest metric. */
const rank = (a: Route, b: Route): number => (b.from?.length ?? -1) - (a.from?.length ?? -1) || a.metric - b.metric

/** The routing of one node and family: policy rules, then the longest prefix (net/ipv4/fib_rules.c, fib_trie.c). */
export class Router {
  private readonly node: string
  private readonly rules: readonly PolicyRule[]
  private readonly tables = new Map<string, Table>()
  /** No rule looks at anything but the destination, so results can be kept. */
  private readonly simple: boolean
  private readonly known = new Map<Address, RouteResult>()
  /** Of routes with one next hop, which lead to one result whoever asks. */
  private readonly results = new Map<Route, RouteResult>()
  /** False: there is no dump of routes, answer for other addresses with «somehow». */
  private readonly complete: boolean
  private readonly mainOnly: boolean

  constructor(family: Family, options: RouterOptions) {
    this.node = options.node
    this.complete = options.complete
    this.mainOnly = options.mainOnly
    const own = options.rules.filter((rule) => rule.family === family || rule.family === undefined)
    this.rules = own.length > 0 ? [...own].sort((a, b) => a.priority - b.priority) : DEFAULT_RULES
    for (const route of options.routes) if (route.family === family && isAlive(route)) this.add(route)
    const bySource = options.routes.some((route) => route.family === family && route.from !== undefined)
    this.simple =
      !bySource &&
      this.rules.every(
        (rule) =>
          !this.unread(rule.table ?? 'main') &&
          !rule.source &&
          !rule.destination &&
          !rule.mark &&
          !rule.inDevice &&
          !rule.outDevice &&
          !rule.not &&
          rule.unmodelled.length === 0,
      )
    for (const {prefixes, exact} of this.tables.values()) {
      prefixes.sort((a, b) => b.length - a.length || rank(a, b))
      for (const same of exact.values()) same.sort(rank)
    }
  }

  private add(route: Route): void {
    let table = this.tables.get(route.table)
    if (!table) this.tables.set(route.table, (table = {exact: new Map(), prefixes: [], inside: new WeakMap()}))
    if (route.destination.lo !== route.destination.hi) return void table.prefixes.push(route)
    const same = table.exact.get(route.destination.lo)
    if (same) same.push(route)
    else table.exact.set(route.destination.lo, [route])
  }

  lookup(chooser: Chooser, query: RouteQuery): RouteResult {
    if (!this.simple || query.dst === CLIENT) return this.resolve(chooser, query)
    const known = this.known.get(query.dst)
    if (known) return known
    const result = this.resolve(chooser, query)
    if (result.text !== MULTIPATH) this.known.set(query.dst, result)
    return result
  }

  private resolve(chooser: Chooser, query: RouteQuery): RouteResult {
    for (let at = 0; at < this.rules.length; at++) {
      const rule = this.rules[at]!
      if (!this.applies(chooser, rule, query)) continue
      if (rule.action === 'goto') {
        const target = this.rules.findIndex(({priority}) => priority >= (rule.goto ?? Number.POSITIVE_INFINITY))
        if (target > at) at = target - 1
        continue
      }
      if (rule.action === 'nop') continue
      if (rule.action !== 'lookup' && rule.action !== 'to_tbl')
        return {...NO_ROUTE, type: rule.action, text: `rule ${rule.priority}: ${rule.action}`}
      const name = rule.table ?? 'main'
      if (this.unread(name) && !chooser.assume(`table:${this.node}:${name}`, TABLE_QUESTION(name, this.node)))
        return {...NO_ROUTE, type: 'unread', text: `table ${name} was not read`, assumed: true}
      const route = this.longest(chooser, name, query)
      if (
        !route ||
        route.type === 'throw' ||
        (rule.suppressLength !== undefined && route.length <= rule.suppressLength)
      )
        continue
      return this.resultOf(chooser, route, query.via)
    }
    return this.complete
      ? NO_ROUTE
      : {type: 'unicast', device: UNKNOWN_DEVICE, scope: 'global', text: 'routes were not read', assumed: true}
  }

  /** `ip route` without `table all` shows the main table alone: what the others hold is not known. */
  private unread(name: string): boolean {
    return this.mainOnly && !this.tables.has(name) && name !== 'main' && name !== 'default'
  }

  private applies(chooser: Chooser, rule: PolicyRule, query: RouteQuery): boolean {
    const inside = (party: Party | undefined, range: Range): boolean =>
      party === CLIENT ? chooser.inside(range) : party !== undefined && inRange(party, range)
    const matches =
      (!rule.mark || (query.mark & rule.mark.mask) >>> 0 === (rule.mark.value & rule.mark.mask) >>> 0) &&
      (rule.inDevice === undefined || rule.inDevice === query.iif) &&
      rule.outDevice === undefined &&
      (!rule.source || inside(query.src, rule.source)) &&
      (!rule.destination || inside(query.dst, rule.destination)) &&
      (rule.unmodelled.length === 0 ||
        !chooser.assume(`rule:${this.node}:${rule.priority}:${rule.text}`, [
          `if ip rule ${rule.priority} (${rule.unmodelled.join(', ')}) does not apply on ${this.node}`,
          `if ip rule ${rule.priority} (${rule.unmodelled.join(', ')}) applies on ${this.node}`,
        ]))
    return matches !== rule.not
  }

  private longest(chooser: Chooser, name: string, {dst, src}: Pick<RouteQuery, 'dst' | 'src'>): Route | undefined {
    const table = this.tables.get(name)
    if (!table) return undefined
    const takes = (route: Route): boolean => route.from === undefined || this.comesFrom(chooser, route, src)
    if (dst === CLIENT) return this.longestForClients(chooser, table, takes)
    return (
      table.exact.get(dst)?.find(takes) ??
      table.prefixes.find((route) => inRange(dst, route.destination) && takes(route))
    )
  }

  /** Source routes (fib6_lookup, with subtrees): which of its addresses the node itself sends from, depends on the route. */
  private comesFrom(chooser: Chooser, {from, text}: Route, src: Party | undefined): boolean {
    if (src === CLIENT) return chooser.inside(from!)
    if (src !== undefined) return inRange(src, from!)
    return !chooser.assume(`route:${this.node}:${text}`, [
      `if the route of ${this.node} «${text}» does not apply`,
      `if the route of ${this.node} «${text}» applies`,
    ])
  }

  /** Parts the clients at every route that only some of them match. */
  private longestForClients(chooser: Chooser, table: Table, takes: (route: Route) => boolean): Route | undefined {
    for (const address of exactInside(table, chooser.clients)) {
      const same = table.exact.get(address)!
      const found = chooser.inside(same[0]!.destination) ? same.find(takes) : undefined
      if (found) return found
    }
    return table.prefixes.find((route) => chooser.inside(route.destination) && takes(route))
  }

  private resultOf(chooser: Chooser, route: Route, via: string | undefined): RouteResult {
    if (route.nextHops.length > 1) return this.result(chooser, route, via)
    let result = this.results.get(route)
    if (!result) this.results.set(route, (result = this.result(chooser, route, via)))
    return result
  }

  private result(chooser: Chooser, route: Route, via: string | undefined): RouteResult {
    const alive = route.nextHops.filter(({dead}) => !dead)
    const base = {
      type: route.type,
      scope: route.scope,
      assumed: false,
      ...(route.source === undefined ? {} : {source: route.source}),
    }
    const total = alive.reduce((sum, {weight}) => sum + weight, 0)
    const hop =
      alive.find(({device}) => device === via) ??
      (alive.length > 1 ? alive[chooser.random(alive.map(({weight}) => weight / total))] : alive[0])
    return {
      ...base,
      device: hop?.device ?? '',
      ...(hop?.gateway === undefined ? {} : {gateway: hop.gateway}),
      text: alive.length > 1 ? MULTIPATH : route.text,
    }
  }

  /** The type of an address in the local table alone, as `-m addrtype` and `fib … type` see it (inet_addr_type). */
  addressType(chooser: Chooser, address: Party): string {
    if (address !== CLIENT) {
      const special = specialType(address)
      if (special) return special
    }
    return this.longest(chooser, 'local', {dst: address, src: undefined})?.type ?? 'unicast'
  }

  isLocal(chooser: Chooser, address: Party): boolean {
    return this.addressType(chooser, address) === 'local'
  }

  /** The connected or pod route that holds this address, if it leaves by a device without a gateway. */
  onLinkDevice(address: Address): string | undefined {
    for (const table of this.tables.values()) {
      for (const route of table.exact.get(address) ?? [])
        if (route.type === 'unicast' && route.nextHops[0]?.gateway === undefined) return route.nextHops[0]?.device
    }
    return this.tables
      .get('main')
      ?.prefixes.find(
        (route) =>
          route.type === 'unicast' &&
          route.length > 0 &&
          inRange(address, route.destination) &&
          route.nextHops[0]?.gateway === undefined,
      )?.nextHops[0]?.device
  }

  /** Where the most special route to this address leads, if it is not the default one. */
  specificGateway(address: Address): {gateway: Address | undefined; device: string} | undefined {
    for (const {exact, prefixes} of this.tables.values()) {
      const route =
        exact.get(address)?.[0] ??
        prefixes.find((candidate) => candidate.length > 0 && inRange(address, candidate.destination))
      if (route && route.type === 'unicast')
        return {gateway: route.nextHops[0]?.gateway, device: route.nextHops[0]?.device ?? ''}
    }
    return undefined
  }
}

const MULTIPATH = 'multipath route'
const MULTICAST4: Range = {lo: 0xe0000000, hi: 0xefffffff}

function specialType(address: Address): string | undefined {
  if (typeof address === 'bigint') return address >> 120n === 0xffn ? 'multicast' : undefined
  if (address === 0xffffffff || address < 0x01000000) return 'broadcast'
  return inRange(address, MULTICAST4) ? 'multicast' : undefined
}
