/** A node's devices, addresses, routes and policy rules, as arguments of `ip`. */
import type {Link, Route} from '../../src/parse/iproute.js'
import type {NodeState} from '../../src/snapshot/node-state.js'
import {anyOf, familyOf, formatAddress, inRange, isLoopback, type Address, type Family} from '../../src/util/ip.js'
import type {NodePlan} from './plan.js'
import {
  anywhere,
  bridgeAddresses,
  DEVICE,
  gatewayOf,
  isLinkLocal,
  parseRangeLength,
  withLength,
  type Site,
} from './plan-site.js'

const TUNNELS = new Set('vxlan ipip sit gre gretap ip6tnl geneve wireguard tun bareudp'.split(' '))

interface Context {
  readonly sites: readonly Site[]
  readonly notes: string[]
}

export function planNode(site: Site, context: Context): NodePlan {
  const {state, address, uplink, uplinkAddresses} = site
  const devices = planDevices(site, context)
  const known = new Set([uplink, 'lo', ...devices.map(({name}) => name)])
  const addresses = [
    ...uplinkAddresses,
    ...(state.addresses.length > 0 ? state.addresses : bridgeAddresses(site)).filter(
      ({device, address: own}) =>
        device !== uplink && known.has(device) && !isLinkLocal(own) && !(device === 'lo' && isLoopback(own)),
    ),
  ]
  return {
    name: state.name,
    address,
    uplink,
    ip: [
      ...devices.map(({name, kind}) => `link add ${name} type ${kind}`),
      ...addresses.map((one) => `addr replace ${withLength(one)} dev ${one.device}`),
      ...[...known].map((name) => `link set ${name} up`),
      ...planRoutes(site, {...context, known}),
      ...planRules(state),
    ],
  }
}

/** Bridges and dummies; the cables of pods come with the pods. */
function planDevices({state, uplink, podRanges}: Site, {notes}: Context): {name: string; kind: string}[] {
  const masters = new Set(state.links.map(({master}) => master))
  const devices = state.links.flatMap((link) => {
    const kind = kindOf(link, masters)
    if (link.name === uplink || link.loopback || kind === 'veth') return []
    if (!DEVICE.test(link.name)) notes.push(`${state.name}: a device with an odd name is left out`)
    else if (kind === 'bridge' || kind === 'dummy') return [{name: link.name, kind}]
    else if (TUNNELS.has(kind))
      notes.push(`${state.name}: ${link.name} (${kind}) is not built; what goes through it goes straight to the node`)
    else notes.push(`${state.name}: ${link.name} (${kind}) is not built`)
    return []
  })
  const guess = state.links.length === 0 && podRanges.length > 0
  return guess ? [{name: 'cni0', kind: 'bridge'}] : devices
}

/** `ip link` without `-d` names no kind. */
function kindOf({name, kind, master}: Link, masters: ReadonlySet<string | undefined>): string {
  if (kind !== undefined) return kind
  if (masters.has(name) || name === 'cni0' || name === 'cbr0') return 'bridge'
  if (name === 'kube-ipvs0' || name === 'nodelocaldns') return 'dummy'
  if (/^(flannel|vxlan)|\.calico$/.test(name)) return 'vxlan'
  return master !== undefined || /^(veth|cali|lxc|eni)/.test(name) ? 'veth' : 'device'
}

/** The recorded routes that addresses alone do not bring; without any, those that every node needs. */
function planRoutes(site: Site, context: Context & {known: ReadonlySet<string>}): string[] {
  const {state} = site
  const lines = state.routes.flatMap((route) => routeLine(route, site, context))
  const families = new Set(state.routes.map(({family}) => family))
  return [
    ...lines,
    ...([4, 6] as const)
      .filter((family) => !families.has(family))
      .flatMap((family) => usualRoutes(site, family, context)),
  ]
}

function usualRoutes({state, uplinkAddresses, uplink}: Site, family: Family, {sites}: Context): string[] {
  const own = uplinkAddresses.find(({address}) => familyOf(address) === family)
  if (!own) return []
  const others = sites.flatMap((other) => {
    const via = other.uplinkAddresses.find(({address}) => familyOf(address) === family)
    if (other.state.name === state.name || !via) return []
    return other.podRanges
      .filter(({lo}) => familyOf(lo) === family)
      .map(
        ({lo, hi}) =>
          `route replace ${formatAddress(lo)}/${parseRangeLength(lo, hi)} via ${formatAddress(via.address)} dev ${uplink}`,
      )
  })
  return [...others, `route replace ${anywhere(family)} via ${formatAddress(gatewayOf(own))} dev ${uplink}`]
}

const TABLE = /^[\w.-]+$/
const TYPES = new Set(['unicast', 'blackhole', 'unreachable', 'prohibit', 'throw'])

function routeLine(
  route: Route,
  {state, uplink}: Site,
  {sites, known, notes}: Context & {known: ReadonlySet<string>},
): string[] {
  const {family, type, destination, length, table, metric, nextHops} = route
  if (table === 'local' || !TABLE.test(table) || !TYPES.has(type) || isLinkLocal(destination.lo)) return []
  if (family === 6 && nextHops.some(({gateway}) => gateway !== undefined && isLinkLocal(gateway))) return []
  const [hop] = nextHops
  const to = `${formatAddress(destination.lo)}/${length}`
  const tail = `${table === 'main' ? '' : ` table ${table}`}${metric > 0 && family === 4 ? ` metric ${metric}` : ''}`
  const head = `route replace ${type === 'unicast' ? '' : `${type} `}${to}`
  if (type !== 'unicast') return [`${head}${tail}`]
  if (nextHops.length > 1) return [`${head}${tail}${nextHops.map(nextHopText).join('')}`]
  // the kernel made it from an address; the lab's does so as well
  if (
    hop?.gateway === undefined &&
    hop?.device !== undefined &&
    known.has(hop.device) &&
    table === 'main' &&
    state.addresses.some(
      ({address, length: own, device}) => device === hop.device && own === length && inRange(address, destination),
    )
  )
    return []
  if (hop?.device !== undefined && !known.has(hop.device)) {
    const peer = sites.find(({podRanges}) =>
      podRanges.some((range) => familyOf(range.lo) === family && inRange(destination.lo, range)),
    )
    const via = peer?.uplinkAddresses.find(({address}) => familyOf(address) === family)
    if (peer && peer.state.name !== state.name && via)
      return [`${head} via ${formatAddress(via.address)} dev ${uplink}${tail}`]
    if (!podCable(state, hop.device))
      notes.push(`${state.name}: route ${to} dev ${hop.device.slice(0, 15)} is left out`)
    return []
  }
  const via = hop?.gateway === undefined ? '' : ` via ${formatAddress(hop.gateway)}`
  const source = route.source === undefined ? '' : ` src ${formatAddress(route.source)}`
  return [`${head}${via}${hop?.device === undefined ? '' : ` dev ${hop.device}`}${source}${tail}`]
}

const nextHopText = ({gateway, device, weight}: Route['nextHops'][number]): string =>
  ` nexthop${gateway === undefined ? '' : ` via ${formatAddress(gateway)}`}${device === undefined ? '' : ` dev ${device}`} weight ${weight}`

const podCable = (state: NodeState, device: string): boolean =>
  state.links.some(({name, kind}) => name === device && (kind === 'veth' || kind === undefined))

/** Policy rules beyond the three that every namespace has. */
function planRules(state: NodeState): string[] {
  return state.policyRules.flatMap((rule) => {
    const usual = [0, 32766, 32767].includes(rule.priority) && rule.source === undefined && rule.mark === undefined
    if (
      usual ||
      rule.action !== 'lookup' ||
      rule.table === undefined ||
      !TABLE.test(rule.table) ||
      rule.unmodelled.length > 0
    )
      return []
    const range = (word: string, value: {lo: Address; hi: Address} | undefined): string =>
      value === undefined ? '' : ` ${word} ${formatAddress(value.lo)}/${parseRangeLength(value.lo, value.hi)}`
    const mark = rule.mark === undefined ? '' : ` fwmark ${rule.mark.value}/${rule.mark.mask}`
    const device = (word: string, name: string | undefined): string =>
      name === undefined || !DEVICE.test(name) ? '' : ` ${word} ${name}`
    return [
      `rule add${rule.not ? ' not' : ''}${range('from', rule.source ?? anyOf(rule.family ?? 4))}${range('to', rule.destination)}${mark}${device('iif', rule.inDevice)}${device('oif', rule.outDevice)} priority ${rule.priority} lookup ${rule.table}${rule.suppressLength === undefined ? '' : ` suppress_prefixlength ${rule.suppressLength}`}`,
    ]
  })
}
