import {incompleteRules} from './unreadable.js'
import {endpointsOf} from '../intent/endpoints.js'
import {frontendsOf, isProxied, nodePortFrontends} from '../intent/frontends.js'
import {isBefore, type ProxyFacts} from '../intent/proxy-facts.js'
import type {ClusterState, Service, ServicePort} from '../model/kube.js'
import type {VirtualServer} from '../parse/ipvs.js'
import type {NodeState} from '../snapshot/node-state.js'
import {familyOf, formatAddress, formatEndpoint, isLoopback, parseAddress, type Family} from '../util/ip.js'
import {affinityProblem, unaskedAffinity} from './affinity.js'
import {nodePortEntries} from './node-ports.js'
import {strayRecentRules} from './recent-rules.js'
import type {CodeName} from './codes.js'
import type {Comparison} from './compare.js'
import {makeFinding, type Finding, type FindingParts} from './finding.js'
import {checkNetwork} from './network.js'
import {leftovers} from './leftovers.js'
import {evidenceOfSign, isKubeProxy, otherProxy} from './proxy.js'
import {isCached} from './node-cache.js'

export interface NodeCheck {
  readonly state: NodeState
  readonly proxy: ProxyFacts
  readonly cluster: ClusterState
  readonly services: readonly Service[]
  readonly comparison: Comparison
}

const finding = (name: CodeName, node: string, parts: Omit<FindingParts, 'node'>): Finding =>
  makeFinding(name, {...parts, node})

/** What walking alone does not show: the node's health, leftovers, conflicts. */
export function checkNode(check: NodeCheck): Finding[] {
  return [
    proxyHealth,
    failedSync,
    foreignProxy,
    bothBackends,
    leftovers,
    listeners,
    localPortRange,
    staleConntrack,
    unsupportedRules,
    fullSets,
    duplicates,
    schedulers,
    affinity,
    nodePortEntries,
    nodeCaches,
    checkNetwork,
  ].flatMap((run) => run(check))
}

function proxyHealth({state, proxy}: NodeCheck): Finding[] {
  const sick = sickProxy(state, proxy)
  return sick ? [finding('kube-proxy-not-running', state.name, sick)] : []
}

/** What says that kube-proxy is not well, or not there. */
export function sickProxy(state: NodeState, proxy: ProxyFacts): Pick<FindingParts, 'message' | 'evidence'> | undefined {
  if (otherProxy(state) !== undefined) return undefined
  const health = state.text('healthz.txt')
  const section = state.section('healthz.txt')
  if (health !== undefined && section.state === 'read' && saysUnhealthy(health))
    return {
      message: `kube-proxy on ${state.name} says that it is not healthy`,
      evidence: [{source: state.path('healthz.txt'), line: 1, text: health.split('\n')[0]!}],
    }
  const mode = state.section('proxymode.txt')
  const silent = (section.state === 'unreadable' || section.state === 'absent') && mode.state !== 'read'
  if (!silent || proxy.mode === undefined) return undefined
  return {
    message: `kube-proxy on ${state.name} does not answer on its health port; its rules are not kept up to date`,
    evidence: [{source: state.path('rc.txt'), line: 0, text: `healthz.txt ${section.reason ?? ''}`}],
  }
}

/** 503 also tells load balancers that a node is about to go, while kube-proxy itself is well (KEP-3836, nodeEligible). */
function saysUnhealthy(health: string): boolean {
  if (/"healthy":\s*false/.test(health)) return true
  return /^HTTP\/[\d.]+ 5\d\d/.test(health) && !/"nodeEligible":\s*false/.test(health)
}

/** What kube-proxy says when it could not write its rules (syncProxyRules of its modes). */
const SYNC_FAILED =
  /^E\d{4} .*(Failed to execute ip6?tables-restore|ip6?tables-restore: .*failed|[Ss]ync failed|nftables sync failed|Hash is full|Failed to add entry into ip ?set)/

/** Only where somebody saved kube-proxy's log. */
function failedSync({state}: NodeCheck): Finding[] {
  const lines = (state.text('kube-proxy.log') ?? '').split('\n')
  const failed = lines.flatMap((text, at) => (SYNC_FAILED.test(text) ? [{text, line: at + 1}] : []))
  const last = failed.at(-1)
  if (!last || hasRecovered(lines.slice(last.line), last.text)) return []
  return [
    finding('sync-fails', state.name, {
      message: `kube-proxy on ${state.name} could not write its rules ${failed.length === 1 ? 'once' : `${failed.length} times`}: ${last.text.replace(/^.*?\] /, '')}`,
      evidence: [{source: state.path('kube-proxy.log'), line: last.line, text: last.text}],
    }),
  ]
}

const SYNC_DONE = /"?[sS]yncProxyRules (complete|took)/
const familyIn = (text: string): string =>
  /ipFamily="?(IPv[46])/.exec(text)?.[1] ?? (text.includes('ip6tables') ? 'IPv6' : 'IPv4')

/** A later sync of the same family went well. The end of the one that failed is told in the same words, so it takes two. */
const hasRecovered = (later: readonly string[], failure: string): boolean =>
  later.filter((text) => SYNC_DONE.test(text) && familyIn(text) === familyIn(failure)).length > 1

function foreignProxy({state}: NodeCheck): Finding[] {
  const other = otherProxy(state)
  if (!other) return []
  const {name, sign} = other
  return [
    finding('foreign-service-proxy', state.name, {
      message: `Services on ${state.name} are handled by ${name}, not by kube-proxy`,
      evidence: [evidenceOfSign(sign)],
    }),
  ]
}

const FAMILIES: readonly Family[] = [4, 6]

/** Chains that kube-proxy fills; an empty one is no danger. */
const SERVICE_CHAIN = /^KUBE-(SERVICES|NODEPORTS|SVC-|SEP-|EXT-|XLB-|FW-)/

function bothBackends(check: NodeCheck): Finding[] {
  const [first] = FAMILIES.flatMap((family) => bothBackendsOf(check, family))
  return first ? [first] : []
}

function bothBackendsOf({state}: NodeCheck, family: Family): Finding[] {
  const held = state.iptables(family).map((dump) => ({
    dump,
    chain: [...(dump.tables.get('nat')?.chains.values() ?? [])].find(
      ({name, length}) => SERVICE_CHAIN.test(name) && length > 0,
    ),
  }))
  const both = held.filter(({chain}) => chain !== undefined)
  if (both.length < 2) return []
  return [
    finding('both-backends', state.name, {
      message: `${state.name} has Service rules in ${both.map(({dump}) => `ip${family === 6 ? '6' : ''}tables-${dump.backend}`).join(' and ')}`,
      evidence: both.map(({dump, chain}) => ({
        source: dump.file,
        line: chain!.lines[0]!.line,
        text: chain!.lines[0]!.text,
      })),
    }),
  ]
}

/** kube-proxy's own sockets are meant to be there (before 1.24 it held every NodePort; health-check ports always). */
function listeners({state, services, proxy, cluster}: NodeCheck): Finding[] {
  // ss without process names on a version whose kube-proxy holds every NodePort
  const unnamed = isBefore(proxy, 'noHeldPorts') ? 'kube-proxy' : 'a process'
  return services.filter(isProxied).flatMap((service) =>
    service.ports.flatMap((port) => {
      const {nodePort, protocol} = port
      const open = proxy.mode === 'nftables' ? nodePortFrontends(cluster, service, {port, proxy}) : undefined
      const socket =
        nodePort === undefined
          ? undefined
          : state.sockets?.find(
              (own) =>
                own.port === nodePort &&
                own.protocol === protocol &&
                !isKubeProxy(own.process ?? unnamed) &&
                // NodePorts of 127.0.0.1 exist in iptables mode alone, and those of nftables mode have their addresses
                (proxy.mode === 'iptables' ||
                  own.address === undefined ||
                  (open
                    ? open.some(({kind, address}) => kind === 'nodePort' && address === own.address)
                    : !isLoopback(own.address))),
            )
      if (!socket) return []
      return [
        finding('listener-on-node-port', state.name, {
          services: [service.id],
          message: `${socket.process ?? 'a process'} on ${state.name} listens on ${nodePort}/${protocol}, the NodePort of ${service.id}`,
          evidence: [{source: state.path('ss.txt'), line: socket.line, text: socket.text}],
          frontends: socket.address === undefined ? [] : [formatEndpoint(socket.address, socket.port)],
        }),
      ]
    }),
  )
}

function nodeCaches({state, services}: NodeCheck): Finding[] {
  return services.flatMap(({id, clusterIPs}) => {
    const held = clusterIPs.flatMap((ip) => parseAddress(ip) ?? []).filter((address) => isCached(state, address))
    if (held.length === 0) return []
    const addresses = held.map(formatAddress).join(', ')
    return [
      finding('answered-by-node-cache', state.name, {
        services: [id],
        message: `NodeLocal DNSCache on ${state.name} has the address ${addresses} of ${id} and answers there`,
        evidence: [{source: state.ipPath('ip-addr'), line: 0, text: `nodelocaldns ${addresses}`}],
      }),
    ]
  })
}

function localPortRange({state, services}: NodeCheck): Finding[] {
  const [low, high] = (state.sysctl('net.ipv4.ip_local_port_range') ?? '').split(/\s+/).map(Number)
  if (low === undefined || high === undefined || Number.isNaN(high)) return []
  const reserved = (state.sysctl('net.ipv4.ip_local_reserved_ports') ?? '')
    .split(',')
    .filter(Boolean)
    .map((part) => part.split('-').map(Number))
  const inside = services.filter(({ports}) =>
    ports.some(
      ({nodePort}) =>
        nodePort !== undefined &&
        nodePort >= low &&
        nodePort <= high &&
        !reserved.some(([from, to]) => nodePort >= from! && nodePort <= (to ?? from!)),
    ),
  )
  if (inside.length === 0) return []
  return [
    finding('node-port-in-local-range', state.name, {
      services: inside.map(({id}) => id),
      message: `NodePorts of ${inside.length} Services are inside the local port range ${low}-${high} of ${state.name}`,
      evidence: [
        {
          source: state.path('sysctl.txt'),
          line: state.sysctlLine('net.ipv4.ip_local_port_range') ?? 0,
          text: `net.ipv4.ip_local_port_range = ${low} ${high}`,
        },
      ],
    }),
  ]
}

/** UDP only: TCP connections to a dead endpoint end by themselves. */
function staleConntrack({state, proxy, cluster, services}: NodeCheck): Finding[] {
  if (!state.conntrack.some(({protocol}) => protocol === 'UDP')) return []
  const owners = new Map(
    services
      .filter(isProxied)
      .flatMap((service) =>
        service.ports
          .filter(({protocol}) => protocol === 'UDP')
          .flatMap((port) =>
            [...frontendsOf(service, port), ...nodePortFrontends(cluster, service, {port, proxy})]
              .filter(({kind}) => kind !== 'localhost')
              .map(({address, port: number}) => [`${address} ${number}`, {service, port}] as const),
          ),
      ),
  )
  const groups = new Map<string, {service: Service; entry: (typeof state.conntrack)[number]; count: number}>()
  for (const entry of state.conntrack) {
    const {destination, destinationPort} = entry.original
    const owner = entry.protocol === 'UDP' ? owners.get(`${destination} ${destinationPort}`) : undefined
    if (!owner || isEndpoint(cluster, owner, entry)) continue
    const {service} = owner
    const group = groups.get(service.id)
    groups.set(service.id, {service, entry: group?.entry ?? entry, count: (group?.count ?? 0) + 1})
  }
  return [...groups.values()].map(({service, entry, count}) =>
    finding('stale-conntrack', state.name, {
      services: [service.id],
      message: `${count} UDP flows to ${service.id} on ${state.name} are pinned to ${formatEndpoint(entry.reply.source, entry.reply.sourcePort)}, which is no endpoint of it`,
      evidence: [{source: entry.file, line: entry.line, text: entry.text}],
    }),
  )
}

/** Ready or not: an endpoint that is about to go may keep its flows. */
function isEndpoint(
  cluster: ClusterState,
  {service, port}: {service: Service; port: ServicePort},
  {reply, original}: NodeState['conntrack'][number],
): boolean {
  const family = familyOf(original.destination)
  return endpointsOf(cluster, service, {port, family}).some(({address}) => address === reply.source)
}

function unsupportedRules({state}: NodeCheck): Finding[] {
  const found = incompleteRules(state)
  const [first] = found
  return first
    ? [
        finding('unreadable-rules', state.name, {
          message: `${found.length} rules on ${state.name} are printed incompletely: its iptables is older than the rules`,
          evidence: [{source: first.file, line: first.line, text: first.text}],
        }),
      ]
    : []
}

const NEARLY = 0.9

function fullSets({state}: NodeCheck): Finding[] {
  return [...(state.ipsets?.sets.values() ?? [])].flatMap(({name, options, entries, line, file}) => {
    const most = Number(options.get('maxelem'))
    // a full list of fail2ban's is none of ours
    if (!(most > 0) || entries.length < most * NEARLY || !name.startsWith('KUBE-')) return []
    return [
      finding('set-nearly-full', state.name, {
        message: `ipset ${name} on ${state.name} holds ${entries.length} of ${most} members`,
        evidence: [{source: file, line, text: `${name} maxelem ${most}`}],
      }),
    ]
  })
}

const MANY_COPIES = 3

function duplicates({state}: NodeCheck): Finding[] {
  return FAMILIES.flatMap((family) => state.iptables(family)).flatMap((dump) =>
    [...dump.tables.values()].flatMap(({chains}) =>
      [...chains.values()].flatMap((chain) => {
        if (chain.length < MANY_COPIES) return []
        const counts = new Map<string, {line: number; count: number}>()
        for (const {text, line} of chain.texts)
          counts.set(text, {line: counts.get(text)?.line ?? line, count: (counts.get(text)?.count ?? 0) + 1})
        const worst = [...counts].find(([, {count}]) => count >= MANY_COPIES)
        if (!worst) return []
        return [
          finding('duplicate-rules', state.name, {
            message: `${worst[1].count} identical rules in ${chain.table}/${chain.name} on ${state.name}`,
            evidence: [{source: dump.file, line: worst[1].line, text: worst[0]}],
          }),
        ]
      }),
    ),
  )
}

/** Only where the configuration names a scheduler, or most virtual servers agree on one. */
function schedulers({state, proxy, cluster, services}: NodeCheck): Finding[] {
  if (proxy.mode !== 'ipvs' || !state.ipvs) return []
  const owners = new Map<string, Service>(
    services
      .filter(isProxied)
      .flatMap((service) =>
        service.ports
          .flatMap((port) => [...frontendsOf(service, port), ...nodePortFrontends(cluster, service, {port, proxy})])
          .map(({address, port, protocol}) => [`${protocol} ${address} ${port}`, service] as const),
      ),
  )
  const ownerOf = ({protocol, address, port}: VirtualServer): Service | undefined =>
    owners.get(`${protocol} ${address} ${port}`)
  const owned = state.ipvs.virtualServers.filter(ownerOf)
  const wanted = proxy.config ? (proxy.config.scheduler ?? 'rr') : usualScheduler(owned)
  if (wanted === undefined) return []
  return owned.flatMap((server) => {
    const owner = ownerOf(server)
    if (!owner || server.scheduler === wanted) return []
    const says = proxy.config ? 'the configuration says' : 'most others use'
    return [
      finding('scheduler-differs', state.name, {
        services: [owner.id],
        message: `virtual server ${formatEndpoint(server.address!, server.port)} of ${owner.id} on ${state.name} uses scheduler ${server.scheduler}, ${says} ${wanted}`,
        evidence: [{source: server.file, line: server.line, text: server.text}],
      }),
    ]
  })
}

/** Without the configuration a flag may have chosen any: what more than half of them use. */
function usualScheduler(servers: readonly VirtualServer[]): string | undefined {
  const counts = new Map<string, number>()
  for (const {scheduler} of servers) counts.set(scheduler, (counts.get(scheduler) ?? 0) + 1)
  return [...counts].find(([, count]) => count > servers.length / 2)?.[0]
}

/** A Service with ClientIP affinity must meet something that remembers the client, for the right time. */
function affinity({state, proxy, cluster, services, comparison}: NodeCheck): Finding[] {
  // its process remembers, out of sight of every rule
  if (proxy.mode === 'userspace') return []
  const sticky = comparison.sticky.get(state.name) ?? []
  const found = new Map<string, Finding>()
  const cut = new Set(incompleteRules(state).map(({file, line}) => `${file}:${line}`))
  for (const {service, fate, frontend} of sticky) {
    if (found.has(service.id)) continue
    if (fate.hops.some(({evidence}) => evidence && cut.has(`${evidence.source}:${evidence.line}`))) continue
    const problem = affinityProblem(state, service, {fate, frontend})
    if (problem)
      found.set(
        service.id,
        finding('affinity-lost', state.name, {
          services: [service.id],
          message: `${service.id} asks for ClientIP affinity of ${service.affinityTimeout} s, but ${problem.what} on ${state.name}`,
          evidence: problem.evidence,
          frontends: [formatEndpoint(frontend.address, frontend.port)],
        }),
      )
  }
  return [
    ...found.values(),
    ...ledAway(state, services).filter(({services: [id]}) => !found.has(id!)),
    ...keptUnasked(state, services, cluster.services),
  ]
}

/** Clients that a list remembers and that a rule leads elsewhere; a walk's client is always a new one. */
const ledAway = (state: NodeState, services: readonly Service[]): Finding[] =>
  strayRecentRules(state).flatMap(({owner, what, loses, line}) =>
    services.some(({id}) => id === owner)
      ? [
          finding('affinity-lost', state.name, {
            services: [owner],
            severity: loses ? 'error' : 'warning',
            message: `clients that ${state.name} remembers for ${owner} do not get to their endpoint: ${what}`,
            evidence: [line],
          }),
        ]
      : [],
  )

const keptUnasked = (state: NodeState, services: readonly Service[], all: readonly Service[]): Finding[] =>
  [...unaskedAffinity(state, services, all)].map(([service, evidence]) =>
    finding('affinity-lost', state.name, {
      services: [service.id],
      message: `${service.id} asks for no affinity, and ${state.name} keeps clients at their endpoint all the same`,
      evidence: [evidence],
    }),
  )
