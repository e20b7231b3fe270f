import type {ClusterState, Endpoint, Service} from './model/kube.js'
import type {NftRuleset} from './parse/nft.js'
import type {VirtualServer} from './parse/ipvs.js'
import type {NodeState} from './snapshot/node-state.js'
import {formatAddress, formatEndpoint, type Family} from './util/ip.js'

export const SECTIONS = [
  'iptables',
  'ip6tables',
  'ipset',
  'IPVS',
  'nftables',
  'devices',
  'routes',
  'IPv6 routes',
  'sysctls',
  'sockets',
  'kube-proxy',
  'API',
] as const
export type Section = (typeof SECTIONS)[number]

/** One thing that a snapshot says, without what changes by itself: counters, handles, ages, connections. */
export interface Fact {
  /** What it is a part of: `iptables-nft nat/KUBE-SERVICES`, `ipset KUBE-CLUSTER-IP`, `Service default/web`. */
  readonly place: string
  readonly text: string
  /** Which dump says so; what could not be read of it cannot be compared. */
  readonly section: Section
  /** The file in the snapshot, and its line; 0 where there is none. */
  readonly source: string
  readonly line: number
}

export const NOT_ASKED = 'was not asked for'

/** Why a section of a node cannot be compared; sections that were read, or that the node does not have, are left out. */
export function unreadSections(state: NodeState): Map<Section, string> {
  const sections = [
    ['iptables', state.iptablesSectionOf(4)],
    ['ip6tables', state.iptablesSectionOf(6)],
    ['ipset', state.ipsetSection],
    ['IPVS', state.ipvsSection],
    ['nftables', state.nftSection],
    ['devices', state.addressSection],
    ['routes', state.routeSection(4)],
    ['IPv6 routes', state.routeSection(6)],
    ['sysctls', state.section('sysctl.txt')],
    ['sockets', state.section('ss.txt')],
    ['kube-proxy', state.section('proxymode.txt')],
  ] as const
  return new Map(
    sections.flatMap(([name, section]): [Section, string][] =>
      section.state === 'unreadable'
        ? [[name, `could not be read${section.reason === undefined ? '' : `: ${section.reason}`}`]]
        : section.state === 'never-asked'
          ? [[name, NOT_ASKED]]
          : [],
    ),
  )
}

/** What a node's kernel holds. */
export function nodeFacts(state: NodeState): Fact[] {
  const of = (section: Section, said: readonly Said[]): Fact[] => said.map((fact) => ({...fact, section}))
  return [
    ...of('iptables', iptablesFacts(state, 4)),
    ...of('ip6tables', iptablesFacts(state, 6)),
    ...of('ipset', ipsetFacts(state)),
    ...of('IPVS', ipvsFacts(state)),
    ...of('nftables', nftFacts(state)),
    ...networkFacts(state),
  ]
}

type Said = Omit<Fact, 'section'>

function iptablesFacts(state: NodeState, family: Family): Said[] {
  return state.iptables(family).flatMap(({file, backend, tables}) =>
    [...tables.values()].flatMap((table) =>
      [...table.chains.values()].flatMap((chain): Said[] => {
        const tool = `${family === 4 ? 'iptables' : 'ip6tables'}${backend === undefined ? '' : `-${backend}`}`
        const place = `${tool} ${table.name}/${chain.name}`
        const policy =
          chain.policy === undefined ? [] : [{place, text: `policy ${chain.policy}`, source: file, line: chain.line}]
        return [
          ...policy,
          ...chain.lines.map(({text, line}) => ({place, text: withoutCounters(text), source: file, line})),
        ]
      }),
    ),
  )
}

const withoutCounters = (text: string): string =>
  text.replace(/^(\[\d+:\d+\]|\d+[KMGT]?\s+\d+[KMGT]?) +/, '').replaceAll(/\bcounter packets \d+ bytes \d+/g, 'counter')

function ipsetFacts({ipsets}: NodeState): Said[] {
  return [...(ipsets?.sets.values() ?? [])].flatMap(({name, type, file, line, entries}) => [
    {place: `ipset ${name}`, text: `type ${type}`, source: file, line},
    ...entries.map((entry) => ({
      place: `ipset ${name}`,
      text: `${entry.parts.join(',')}${entry.nomatch ? ' nomatch' : ''}`,
      source: file,
      line: entry.line,
    })),
  ])
}

function ipvsFacts({ipvs}: NodeState): Said[] {
  return (ipvs?.virtualServers ?? []).flatMap((server) => {
    const place = `virtual server ${nameOf(server)}`
    const source = server.file
    const stays = server.persistent === undefined ? '' : `, persistent ${server.persistent} s`
    return [
      {place, text: `scheduler ${server.scheduler}${stays}`, source, line: server.line},
      ...server.realServers.map(({address, port, forward, weight, line}) => ({
        place,
        text: `real server ${formatEndpoint(address, port)} ${forward} weight ${weight}`,
        source,
        line,
      })),
    ]
  })
}

const nameOf = ({protocol, address, port, mark}: VirtualServer): string =>
  address === undefined ? `mark ${mark}` : `${protocol} ${formatEndpoint(address, port)}`

/** Tables that iptables-nft owns are told as iptables. */
function nftFacts(state: NodeState): Said[] {
  const {nft} = state
  if (!nft) return []
  const owned = new Set(
    ([4, 6] as const).flatMap((family) =>
      state
        .iptables(family)
        .filter(({backend}) => backend === 'nft')
        .flatMap(({tables}) => [...tables.keys()].map((name) => `${family === 4 ? 'ip' : 'ip6'} ${name}`)),
    ),
  )
  return [...nft.tables.values()]
    .filter(({family, name}) => !owned.has(`${family} ${name}`))
    .flatMap((table) => tableFacts(nft, table))
}

type NftTable = NftRuleset['tables'] extends Map<string, infer T> ? T : never

function tableFacts({file}: NftRuleset, {family, name, flags, chains, sets}: NftTable): Said[] {
  const place = (part: string): string => `nft ${family} ${name}${part}`
  return [
    ...flags.map((flag) => ({place: place(''), text: `flag ${flag}`, source: file, line: 0})),
    ...[...chains.values()].flatMap(({name: chain, hook, priority, policy, rules, line}): Said[] => [
      {
        place: place(`/${chain}`),
        text: hook === undefined ? 'chain' : `chain at ${hook} priority ${priority} policy ${policy ?? 'accept'}`,
        source: file,
        line,
      },
      ...rules.map((rule) => ({
        place: place(`/${chain}`),
        text: withoutCounters(rule.text),
        source: rule.file,
        line: rule.line,
      })),
    ]),
    ...[...sets.values()].flatMap(({name: set, elements, line}): Said[] => [
      {place: place(`@${set}`), text: 'set', source: file, line},
      ...elements
        .filter(({expires}) => !expires)
        .map(({key, data, line: at}) => ({
          place: place(`@${set}`),
          text: `${JSON.stringify(key)}${data === undefined ? '' : ` : ${JSON.stringify(data)}`}`,
          source: file,
          line: at,
        })),
    ]),
  ]
}

/** Settings that change by themselves. */
const RESTLESS = /nf_conntrack_count$/

/** A fact of one file, in its section and place. */
const by =
  (state: NodeState, section: Section, place: string) =>
  (text: string, file: string, line = 0): Fact => ({section, place, text, source: state.path(file), line})

function networkFacts(state: NodeState): Fact[] {
  const fileOf = (name: string): string => state.ipPath(name).split('/').at(-1)!
  const routesOf = (family: Family): Section => (family === 4 ? 'routes' : 'IPv6 routes')
  return [
    ...state.links.map(({name, up, mtu}) =>
      by(
        state,
        'devices',
        'devices',
      )(`${name} ${up ? 'up' : 'down'}${mtu === undefined ? '' : ` mtu ${mtu}`}`, fileOf('ip-link')),
    ),
    ...state.addresses.map(({address, length, device}) =>
      by(state, 'devices', 'addresses')(`${formatAddress(address)}/${length} on ${device}`, fileOf('ip-addr')),
    ),
    ...state.routes.map(({text, table, family}) =>
      by(
        state,
        routesOf(family),
        'routes',
      )(`${text}${table === 'main' ? '' : ` (table ${table})`}`, fileOf(family === 4 ? 'ip-route' : 'ip-route6')),
    ),
    ...state.policyRules.map(({priority, text, family}) =>
      by(
        state,
        routesOf(family === 6 ? 6 : 4),
        'policy rules',
      )(`${priority}: ${text}`, fileOf(family === 6 ? 'ip-rule6' : 'ip-rule')),
    ),
    ...settingFacts(state),
  ]
}

/** Sysctls, sockets, and what kube-proxy says of itself. */
function settingFacts(state: NodeState): Fact[] {
  const {proxyMode, proxyVersion} = state
  const proxy = by(state, 'kube-proxy', 'kube-proxy')
  return [
    ...[...state.sysctls]
      .filter(([name]) => !RESTLESS.test(name))
      .map(([name, {value, line}]) => by(state, 'sysctls', 'sysctls')(`${name} = ${value}`, 'sysctl.txt', line)),
    ...(state.sockets ?? []).map(({protocol, address, port, process, line}) =>
      by(state, 'sockets', 'sockets')(
        `${protocol} ${address === undefined ? '*' : formatAddress(address)}:${port}${process === undefined ? '' : ` ${process}`}`,
        'ss.txt',
        line,
      ),
    ),
    ...(proxyMode === undefined ? [] : [proxy(`mode ${proxyMode}`, 'proxymode.txt')]),
    ...(proxyVersion === undefined ? [] : [proxy(`version ${proxyVersion}`, 'kube-proxy-version.txt')]),
  ]
}

/** What the API says of Services, their endpoints and the nodes. */
export function clusterFacts({services, slices, nodes}: ClusterState): Fact[] {
  const fact = (place: string, text: string, file: string): Fact => ({
    section: 'API',
    place,
    text,
    source: `api/${file}`,
    line: 0,
  })
  return [
    ...services.flatMap((service) =>
      serviceWords(service).map((text) => fact(`Service ${service.id}`, text, 'services.json')),
    ),
    ...slices.flatMap(({service, endpoints, ports}) =>
      endpoints.flatMap((endpoint) =>
        ports.map(({port, protocol}) =>
          fact(`endpoints of ${service}`, endpointWords(endpoint, port, protocol), 'endpointslices.json'),
        ),
      ),
    ),
    ...nodes.flatMap(({name, addresses, ready, podCIDRs}) => [
      fact(`Node ${name}`, ready ? 'ready' : 'not ready', 'nodes.json'),
      ...addresses.map(({type, address}) => fact(`Node ${name}`, `${type} ${address}`, 'nodes.json')),
      ...podCIDRs.map((cidr) => fact(`Node ${name}`, `podCIDR ${cidr}`, 'nodes.json')),
    ]),
  ]
}

function serviceWords(service: Service): string[] {
  const {type, clusterIPs, ports, externalIPs, loadBalancer, selector, affinityTimeout, sourceRanges} = service
  return [
    `type ${type}`,
    ...clusterIPs.map((address) => `cluster IP ${address}`),
    ...ports.map(
      ({name, port, protocol, targetPort, nodePort}) =>
        `port ${name === '' ? '' : `${name} `}${port}/${protocol} → ${targetPort}${nodePort === undefined ? '' : `, NodePort ${nodePort}`}`,
    ),
    ...externalIPs.map((address) => `external IP ${address}`),
    ...loadBalancer.map(({ip, hostname}) => `load balancer ${ip ?? hostname ?? ''}`),
    ...Object.entries(selector ?? {}).map(([key, value]) => `selector ${key}=${value}`),
    ...sourceRanges.map((range) => `source range ${range}`),
    ...(affinityTimeout === undefined ? [] : [`session affinity ${affinityTimeout} s`]),
    `externalTrafficPolicy ${service.externalTrafficPolicy}, internalTrafficPolicy ${service.internalTrafficPolicy}`,
  ]
}

function endpointWords(
  {address, ready, serving, terminating, node, pod}: Endpoint,
  port: number | undefined,
  protocol: string,
): string {
  const host = address.includes(':') ? `[${address}]` : address
  const state = terminating ? (serving ? 'terminating, serving' : 'terminating') : ready ? 'ready' : 'not ready'
  return `${host}:${port ?? '?'}/${protocol} ${state}${pod === undefined ? '' : ` (${pod})`}${node === undefined ? '' : ` on ${node}`}`
}
