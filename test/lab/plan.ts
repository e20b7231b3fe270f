/** From a snapshot to the machines, cables, addresses and servers that the lab makes of it. Pure. */
import type {Pod} from '../../src/model/kube.js'
import type {Link, LocalAddress, Route} from '../../src/parse/iproute.js'
import type {NodeState} from '../../src/snapshot/node-state.js'
import type {Snapshot} from '../../src/snapshot/snapshot.js'
import {
  anyOf,
  familyOf,
  formatAddress,
  inRange,
  isLoopback,
  parseAddress,
  parseRange,
  prefixRange,
  type Address,
  type Family,
} from '../../src/util/ip.js'

export interface NodePlan {
  readonly name: string
  /** InternalIP, by which ssh and the other nodes reach it. */
  readonly address: string
  /** The device that has it. */
  readonly uplink: string
  /** Arguments of `ip`, in order, for a network namespace that has its uplink already. */
  readonly ip: readonly string[]
}

export interface PodPlan {
  /** `namespace/name`; an endpoint without a pod has its address here. */
  readonly id: string
  readonly node: string
  readonly namespace: string
  /** The node's end of its cable. */
  readonly cable: string
  readonly bridge?: string
  /** Arguments of `ip` for its own namespace. */
  readonly inside: readonly string[]
  /** Arguments of `ip` for its node. */
  readonly outside: readonly string[]
}

/** A socket that answers with a name: `tcp` or `udp`, in a namespace; an empty address is all of them. */
export interface Listener {
  readonly namespace: string
  /** What it answers: a pod's `namespace/name`, an address, or `node/NAME`. */
  readonly name: string
  readonly pod: boolean
  readonly proto: 'tcp' | 'udp'
  readonly address: string
  readonly port: number
}

/** A machine outside: its packets to Service addresses go to one node first. */
export interface ClientPlan {
  readonly namespace: string
  readonly node: string
  readonly addresses: readonly string[]
  readonly ip: readonly string[]
}

export interface Plan {
  readonly nodes: readonly NodePlan[]
  readonly pods: readonly PodPlan[]
  readonly clients: readonly ClientPlan[]
  readonly listeners: readonly Listener[]
  /** Arguments of `ip` for the hub, behind which its bridge stands. */
  readonly hub: readonly string[]
  /** What of the snapshot the lab does not make again. */
  readonly notes: readonly string[]
}

export class LabError extends Error {}

/** The bridge in the hub that all nodes and clients hang on, and kube-proxy's own ports, which the lab serves itself. */
export const HUB_BRIDGE = 'br0'
export const PROXY_PORTS: ReadonlySet<number> = new Set([10249, 10256])
const SSH_PORT = 22
const TUNNELS = new Set('vxlan ipip sit gre gretap ip6tnl geneve wireguard tun bareudp'.split(' '))
const DEVICE = /^[\w.:@-]{1,15}$/
const NODE_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/
const LINK_LOCAL = parseRange('fe80::/10')!

interface Site {
  readonly state: NodeState
  readonly address: string
  readonly uplink: string
  readonly uplinkAddresses: readonly LocalAddress[]
  readonly podRanges: readonly {lo: Address; hi: Address}[]
}

export function planLab(snapshot: Snapshot): Plan {
  const notes: string[] = []
  const sites = snapshot.cluster.nodes.map((node) => siteOf(snapshot, node.name))
  if (sites.length === 0) throw new LabError('the snapshot has no nodes: api/nodes.json is empty or missing')
  const pods = planPods(snapshot, sites)
  const nodes = sites.map((site) => planNode(site, {sites, notes}))
  const clients = planClients(sites, takenAddresses(snapshot, sites))
  return {
    nodes,
    pods,
    clients,
    hub: planHub(snapshot, sites),
    listeners: planListeners(snapshot, {sites, pods}),
    notes: [...new Set(notes)],
  }
}

function siteOf({cluster, nodes}: Snapshot, name: string): Site {
  if (!NODE_NAME.test(name)) throw new LabError(`node name ${JSON.stringify(name)} is not one that Kubernetes allows`)
  const node = cluster.nodes.find((one) => one.name === name)!
  const state = nodes.get(name)
  if (!state) throw new LabError(`nodes/${name}/ is not in the snapshot: the lab has nothing to put into its kernel`)
  const internal = node.addresses.find(
    ({type, address}) => type === 'InternalIP' && parseAddress(address) !== undefined,
  )
  if (!internal) throw new LabError(`node ${name} has no InternalIP`)
  const own = parseAddress(internal.address)!
  const uplink = state.addresses.find(({address}) => address === own)?.device ?? 'eth0'
  if (!DEVICE.test(uplink)) throw new LabError(`node ${name}: ${JSON.stringify(uplink)} is not a name of a device`)
  const found = state.addresses.filter(({device, address}) => device === uplink && !isLinkLocal(address))
  return {
    state,
    address: internal.address,
    uplink,
    uplinkAddresses:
      found.length > 0
        ? found
        : [
            {
              address: own,
              length: familyOf(own) === 4 ? 24 : 64,
              device: uplink,
              scope: 'global',
              secondary: false,
              deprecated: false,
            },
          ],
    podRanges: node.podCIDRs.flatMap((cidr) => parseRange(cidr) ?? []),
  }
}

const isLinkLocal = (address: Address): boolean => inRange(address, LINK_LOCAL)
/** `default` alone tells `ip -batch` no family. */
const anywhere = (family: Family): string => (family === 4 ? '0.0.0.0/0' : '::/0')
const withLength = ({address, length}: LocalAddress): string =>
  `${formatAddress(address)}/${length}${familyOf(address) === 6 ? ' nodad' : ''}`

interface Context {
  readonly sites: readonly Site[]
  readonly notes: string[]
}

function planNode(site: Site, context: Context): NodePlan {
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

const bridgeAddresses = ({podRanges}: Site): LocalAddress[] =>
  podRanges.map(({lo, hi}) => {
    const length = parseRangeLength(lo, hi)
    const address = typeof lo === 'number' ? lo + 1 : lo + 1n
    return {address, length, device: 'cni0', scope: 'global', secondary: false, deprecated: false}
  })

function parseRangeLength(lo: Address, hi: Address): number {
  const size = BigInt(hi) - BigInt(lo) + 1n
  return (typeof lo === 'number' ? 32 : 128) - (size.toString(2).length - 1)
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

/** The first address of its network, or the second where that is its own. */
function gatewayOf({address, length}: LocalAddress): Address {
  const {lo} = prefixRange(address, length)
  const next = (by: number): Address => (typeof lo === 'number' ? lo + by : lo + BigInt(by))
  return next(1) === address ? next(2) : next(1)
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

const runs = ({phase, hostNetwork, ips, node}: Pod): boolean =>
  phase !== 'Succeeded' && phase !== 'Failed' && !hostNetwork && ips.length > 0 && node !== undefined

function planPods({cluster}: Snapshot, sites: readonly Site[]): PodPlan[] {
  const used = new Set<string>()
  return (cluster.pods ?? []).filter(runs).flatMap((pod, index) => {
    const site = sites.find(({state}) => state.name === pod.node)
    const addresses = pod.ips.flatMap((ip) => parseAddress(ip) ?? [])
    if (!site || addresses.length === 0) return []
    return [planPod({pod, site, addresses, used}, index)]
  })
}

function planPod(
  {pod, site, addresses, used}: {pod: Pod; site: Site; addresses: readonly Address[]; used: Set<string>},
  index: number,
): PodPlan {
  const {state} = site
  const own = state.addresses.length > 0 ? state.addresses : bridgeAddresses(site)
  const bridges = addresses.flatMap((address) => {
    const face = own.find(
      (one) =>
        one.device !== site.uplink &&
        one.length < (familyOf(address) === 4 ? 32 : 128) &&
        inRange(address, prefixRange(one.address, one.length)),
    )
    return face ? [{address, face}] : []
  })
  const routed = state.routes.find(
    ({destination, length, table}) =>
      table === 'main' && length === (familyOf(addresses[0]!) === 4 ? 32 : 128) && destination.lo === addresses[0],
  )?.nextHops[0]?.device
  const recorded = state.links.find(
    ({name, master}) =>
      DEVICE.test(name) &&
      !used.has(`${state.name} ${name}`) &&
      (bridges.length > 0 ? master === bridges[0]!.face.device : name === routed),
  )
  const cable = recorded?.name ?? `pod${index}`
  used.add(`${state.name} ${cable}`)
  const common = {id: pod.id, node: state.name, namespace: `pod${index}`, cable}
  if (bridges.length === 0) return {...common, ...routedPod(addresses, cable)}
  const bridge = bridges[0]!.face.device
  return {
    ...common,
    bridge,
    outside: [
      `link set ${cable} master ${bridge} up`,
      ...(hairpin(state, recorded) ? [`link set ${cable} type bridge_slave hairpin on`] : []),
    ],
    inside: [
      ...bridges.map(({address, face}) => `addr add ${withLength({...face, address})} dev eth0`),
      'link set eth0 up',
      ...bridges.map(
        ({address, face}) => `route add ${anywhere(familyOf(address))} via ${formatAddress(face.address)}`,
      ),
    ],
  }
}

/** Where the dump does not tell: as CNI's bridge plugin has it for kube-proxy. */
const hairpin = (state: NodeState, link: Link | undefined): boolean =>
  link?.hairpin ?? !state.links.some(({hairpin: on}) => on === false)

/** As Calico and the clouds' plugins do: no network of its own, one neighbour that answers for all. */
function routedPod(addresses: readonly Address[], cable: string): Pick<PodPlan, 'inside' | 'outside'> {
  const full = (address: Address): string => `${formatAddress(address)}/${familyOf(address) === 4 ? 32 : 128}`
  return {
    outside: [
      `link set ${cable} up`,
      ...addresses.map(
        (address) =>
          `addr add ${familyOf(address) === 4 ? '169.254.1.1/32' : 'fe80::1/64 nodad'} dev ${cable} scope link`,
      ),
      ...addresses.map((address) => `route replace ${full(address)} dev ${cable}`),
    ],
    inside: [
      ...addresses.map((address) => `addr add ${full(address)}${familyOf(address) === 6 ? ' nodad' : ''} dev eth0`),
      'link set eth0 up',
      ...addresses.map(
        (address) =>
          `route add ${anywhere(familyOf(address))} via ${familyOf(address) === 4 ? '169.254.1.1' : 'fe80::1'} dev eth0 onlink`,
      ),
    ],
  }
}

function takenAddresses({cluster}: Snapshot, sites: readonly Site[]): Set<string> {
  return new Set([
    ...sites.flatMap(({state, uplinkAddresses}) =>
      [...state.addresses, ...uplinkAddresses].map(({address}) => formatAddress(address)),
    ),
    ...sites.flatMap(({state}) =>
      state.routes.flatMap(({nextHops}) =>
        nextHops.flatMap(({gateway}) => (gateway === undefined ? [] : formatAddress(gateway))),
      ),
    ),
    ...cluster.slices.flatMap(({endpoints}) => endpoints.map(({address}) => address)),
    ...cluster.services.flatMap(({externalIPs, loadBalancer, clusterIPs}) => [
      ...externalIPs,
      ...clusterIPs,
      ...loadBalancer.flatMap(({ip}) => ip ?? []),
    ]),
  ])
}

/** One client for each node, in the network of the node's uplink. */
function planClients(sites: readonly Site[], taken: Set<string>): ClientPlan[] {
  return sites.map((site, index) => {
    const faces = ([4, 6] as const).flatMap(
      (family) => site.uplinkAddresses.find(({address}) => familyOf(address) === family) ?? [],
    )
    const own = faces.flatMap((face) => {
      const address = freeAddress(face, taken)
      return address === undefined ? [] : [{face, address}]
    })
    return {
      namespace: `client-${index + 1}`,
      node: site.state.name,
      addresses: own.map(({address}) => formatAddress(address)),
      ip: [
        ...own.map(({face, address}) => `addr add ${withLength({...face, address})} dev eth0`),
        'link set eth0 up',
        ...own.map(
          ({face}) =>
            `route add ${anywhere(familyOf(face.address))} via ${formatAddress(face.address)} dev eth0 onlink`,
        ),
      ],
    }
  })
}

function freeAddress({address, length}: LocalAddress, taken: Set<string>): Address | undefined {
  const {lo, hi} = prefixRange(address, length)
  for (let step = 101; step < 250; step++) {
    const candidate = typeof lo === 'number' ? lo + step : lo + BigInt(step)
    if (candidate >= hi) return undefined
    const text = formatAddress(candidate)
    if (!taken.has(text) && taken.add(text)) return candidate
  }
  return undefined
}

/** Gateways, and the hosts outside of the cluster that are endpoints of its Services. There is no world behind the hub. */
function planHub({cluster}: Snapshot, sites: readonly Site[]): string[] {
  const faces = sites.flatMap(({uplinkAddresses}) => uplinkAddresses)
  const near = (address: Address): LocalAddress | undefined =>
    faces.find(
      (face) =>
        familyOf(face.address) === familyOf(address) && inRange(address, prefixRange(face.address, face.length)),
    )
  const nodes = new Set(faces.map(({address}) => address))
  const gateways = sites.flatMap(({state, uplinkAddresses}) => [
    ...state.routes.flatMap(({nextHops}) => nextHops.flatMap(({gateway}) => (gateway === undefined ? [] : [gateway]))),
    ...uplinkAddresses.map(gatewayOf),
  ])
  const wanted = [
    ...new Set([
      ...gateways,
      ...outsiders(
        cluster.slices.flatMap(({endpoints}) => endpoints),
        sites,
      ),
    ]),
  ].filter((address) => !nodes.has(address))
  return [
    ...wanted.map((address) => {
      const face = near(address)
      return `addr add ${face ? withLength({...face, address}) : `${formatAddress(address)}/${familyOf(address) === 4 ? '32' : '128 nodad'}`} dev ${HUB_BRIDGE}`
    }),
    'route add blackhole 0.0.0.0/0',
    'route add blackhole ::/0',
    ...(sites.some(routesToPods(sites))
      ? []
      : sites.flatMap(({podRanges, uplinkAddresses}) =>
          podRanges.flatMap(({lo, hi}) => {
            const via = uplinkAddresses.find(({address}) => familyOf(address) === familyOf(lo))
            return via
              ? [
                  `route replace ${formatAddress(lo)}/${parseRangeLength(lo, hi)} via ${formatAddress(via.address)} dev ${HUB_BRIDGE} onlink`,
                ]
              : []
          }),
        )),
  ]
}

/** Where a node knows the way to another's pods, the network around knows none. */
const routesToPods =
  (sites: readonly Site[]) =>
  ({state}: Site): boolean =>
    state.routes.length === 0 ||
    state.routes.some(({destination, nextHops}) =>
      sites.some(
        (other) =>
          other.state.name !== state.name &&
          other.podRanges.some(
            (range) => familyOf(range.lo) === familyOf(destination.lo) && inRange(destination.lo, range),
          ) &&
          nextHops.some(({gateway}) => gateway !== undefined),
      ),
    )

function outsiders(endpoints: readonly {address: string}[], sites: readonly Site[]): Address[] {
  return endpoints.flatMap(({address}) => {
    const parsed = parseAddress(address)
    if (parsed === undefined) return []
    const inside = sites.some(
      ({podRanges, state, uplinkAddresses}) =>
        podRanges.some((range) => familyOf(range.lo) === familyOf(parsed) && inRange(parsed, range)) ||
        [...state.addresses, ...uplinkAddresses].some((own) => own.address === parsed),
    )
    const onUplink = sites.some(({uplinkAddresses}) =>
      uplinkAddresses.some(
        (face) =>
          familyOf(face.address) === familyOf(parsed) && inRange(parsed, prefixRange(face.address, face.length)),
      ),
    )
    return inside || !onUplink ? [] : [parsed]
  })
}

/** Who listens: pods at their ports and at those of their slices, hosts outside, and what `ss` showed on the nodes. */
function planListeners(
  {cluster, nodes}: Snapshot,
  {sites, pods}: {sites: readonly Site[]; pods: readonly PodPlan[]},
): Listener[] {
  const found = new Map<string, Listener>()
  const add = (listener: Listener): void => {
    const {namespace, proto, address, port} = listener
    const key = `${namespace} ${proto} ${port}`
    if (!found.has(key) && !found.has(`${key} ${address}`))
      found.set(address === '' ? key : `${key} ${address}`, listener)
  }
  const at = new Map(pods.map((pod) => [pod.id, pod]))
  for (const pod of cluster.pods ?? [])
    for (const {port, protocol} of pod.ports) {
      const place = pod.hostNetwork ? pod.node : at.get(pod.id)?.namespace
      if (place !== undefined && protocol !== 'SCTP' && sites.some(({state}) => state.name === pod.node))
        add({namespace: place, name: pod.id, pod: true, proto: lower(protocol), address: '', port})
    }
  for (const {ports, endpoints} of cluster.slices)
    for (const {port, protocol} of ports) {
      if (port === undefined || protocol === 'SCTP') continue
      for (const {address, pod} of endpoints) {
        const parsed = parseAddress(address)
        if (parsed === undefined) continue
        const namespace =
          (pod === undefined ? undefined : at.get(pod)?.namespace) ??
          sites.find(({uplinkAddresses}) => uplinkAddresses.some((own) => own.address === parsed))?.state.name
        if (namespace !== undefined)
          add({namespace, name: pod ?? address, pod: pod !== undefined, proto: lower(protocol), address: '', port})
        else if (outsiders([{address}], sites).length > 0)
          add({namespace: '', name: address, pod: false, proto: lower(protocol), address, port})
      }
    }
  for (const {state} of sites)
    for (const {address, port, protocol} of nodes.get(state.name)?.sockets ?? []) {
      const proto = protocol.toLowerCase()
      if (port === SSH_PORT || PROXY_PORTS.has(port) || (proto !== 'tcp' && proto !== 'udp')) continue
      add({
        namespace: state.name,
        name: `node/${state.name}`,
        pod: false,
        proto,
        address: address === undefined ? '' : formatAddress(address),
        port,
      })
    }
  return [...found.values()]
}

const lower = (protocol: 'TCP' | 'UDP'): 'tcp' | 'udp' => (protocol === 'TCP' ? 'tcp' : 'udp')
