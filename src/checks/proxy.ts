import type {ProxyFacts, ProxyMode} from '../intent/proxy-facts.js'
import type {ClusterState} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import type {IptablesChain} from '../parse/iptables.js'
import {DATA_PLANES, signOf, type Sign} from '../snapshot/data-planes.js'
import type {NodeState, Section} from '../snapshot/node-state.js'
import {anyOf, familyOf, inRange, parseRange, type Address, type Family, type Range} from '../util/ip.js'

const MODES = new Set(['iptables', 'ipvs', 'nftables', 'userspace'])

const hasLink = (state: NodeState, pattern: RegExp): boolean => state.links.some(({name}) => pattern.test(name))
const hasChain = (state: NodeState, ...names: readonly string[]): boolean =>
  state.iptables(4).some(({tables}) => [...tables.values()].some(({chains}) => names.some((name) => chains.has(name))))

/** Processes in which kube-proxy runs: its own, and those of distributions that have everything in one. */
export const isKubeProxy = (process: string): boolean =>
  /^(kube-proxy|hyperkube|kubelite|k3s(-server|-agent)?)$/.test(process)

/** Another Service proxy, and what shows that it is there. */
export interface OtherProxy {
  readonly name: string
  readonly sign: Sign
}

export const evidenceOfSign = ({source, line, text}: Sign): Evidence => ({source, line, text})

const proxiesOn = (state: NodeState): OtherProxy[] =>
  DATA_PLANES.filter(({isProxy}) => isProxy).flatMap((plane) => {
    const sign = signOf(state, plane)
    return sign ? [{name: plane.name, sign}] : []
  })

/** Another Service proxy on the node, when there is no sign of kube-proxy itself. */
export function otherProxy(state: NodeState): OtherProxy | undefined {
  if (state.proxyMode !== undefined || modeFromRules(state) !== undefined) return undefined
  return proxiesOn(state)[0]
}

/** One that replaces kube-proxy and is there beside it; network plugins that leave Services to kube-proxy are none. */
export function secondProxy(state: NodeState): OtherProxy | undefined {
  if (state.proxyMode === undefined && modeFromRules(state) === undefined) return undefined
  return proxiesOn(state).find(({name}) => REPLACE.has(name))
}

const REPLACE = new Set(['kube-router', 'Calico (eBPF)'])

function hasChainLike(state: NodeState, prefix: string): boolean {
  for (const {tables} of state.iptables(4))
    for (const {chains} of tables.values()) for (const name of chains.keys()) if (name.startsWith(prefix)) return true
  return false
}

/** What kube-proxy's rules themselves tell of its mode. */
function modeFromRules(state: NodeState): ProxyMode | undefined {
  if (hasLink(state, /^kube-ipvs0$/) && (state.ipvs?.virtualServers.length ?? 0) > 0) return 'ipvs'
  if ([...(state.nft?.tables.values() ?? [])].some(({name}) => name === 'kube-proxy')) return 'nftables'
  if (lacksIpvs(state) || hasServices(state, 'match-set KUBE-')) return 'ipvs'
  if (hasChain(state, 'KUBE-PORTALS-HOST', 'KUBE-PORTALS-CONTAINER')) return 'userspace'
  if (hasChainLike(state, 'KUBE-SVC-')) return 'iptables'
  if ((state.ipvs?.virtualServers.length ?? 0) > 0 && OF_IPVS.some((name) => hasChain(state, name))) return 'ipvs'
  return undefined
}

/** Chains of its ipvs mode; other KUBE- chains are kube-router's or the kubelet's. */
const OF_IPVS = ['KUBE-SERVICES', 'KUBE-NODE-PORT', 'KUBE-LOAD-BALANCER', 'KUBE-POSTROUTING', 'KUBE-IPVS-FILTER']

const modeNamed = (name: string | undefined): ProxyMode | undefined =>
  name !== undefined && MODES.has(name) ? (name as ProxyMode) : undefined

const modes = new WeakMap<NodeState, ProxyMode | 'none'>()

/** The mode as the node itself tells it. */
export function ownMode(state: NodeState): ProxyMode | undefined {
  let known = modes.get(state)
  if (known === undefined) modes.set(state, (known = modeNamed(state.proxyMode) ?? modeFromRules(state) ?? 'none'))
  return known === 'none' ? undefined : known
}

/** The mode of a node's kube-proxy: its own word, its configuration, its rules. */
export function proxyFacts(cluster: ClusterState, state: NodeState): ProxyFacts {
  const mode = ownMode(state) ?? modeNamed(cluster.kubeProxy?.mode)
  return {
    node: state.name,
    ...(mode === 'iptables' && FAMILIES.some((family) => lacksFilter(state, family)) ? {hidesRefusals: true} : {}),
    unasked: FAMILIES.filter((family) => neverAsked(state, mode, family)),
    mode: mode ?? (cluster.kubeProxy ? 'iptables' : undefined),
    minor: minorOf(state, cluster),
    config: cluster.kubeProxy,
    ...(state.addressSection.state === 'read' ? {own: new Set(state.addresses.map(({address}) => address))} : {}),
  }
}

const FAMILIES: readonly Family[] = [4, 6]

/** A Service without these rules tells nothing; so many are asked. */
const ENOUGH_CHAINS = 50
const OF_SERVICE = /^KUBE-(SERVICES$|SVC-|EXT-|XLB-)/
const ASKS_FOR_PODS = / ! -s (\S+) .*-j KUBE-MARK-MASQ$|^-A \S+ -s (\S+) .*-j KUBE-SVC-/

/** What kube-proxy's own rules take for its pods' addresses (--cluster-cidr): not masqueraded, or led past a policy. */
function namedNetworks(state: NodeState, family: Family): Set<string> {
  const found = new Set<string>()
  for (const {tables} of state.iptables(family)) {
    const chains = [...(tables.get('nat')?.chains.values() ?? [])].filter(({name}) => OF_SERVICE.test(name))
    for (const chain of chains.slice(0, ENOUGH_CHAINS)) for (const range of askedSources(chain)) found.add(range)
  }
  for (const table of state.nft?.tables.values() ?? []) {
    if (table.name !== 'kube-proxy' || table.family !== (family === 6 ? 'ip6' : 'ip')) continue
    for (const {rules} of table.chains.values())
      for (const {text} of rules) for (const [, range] of text.matchAll(NFT_PODS)) found.add(range!)
  }
  return found
}

function askedSources(chain: IptablesChain): string[] {
  if (!chain.isReadyMade)
    return chain.texts.flatMap(({text}) => {
      const [, others, own] = (text.includes('-s') && ASKS_FOR_PODS.exec(text)) || []
      return others ?? own ?? []
    })
  return chain.rules.flatMap(({source, target}) => {
    const leads = source?.not ? target?.name === 'KUBE-MARK-MASQ' : target?.name.startsWith('KUBE-SVC-')
    return source && leads ? source.value : []
  })
}

/** The same, where pods are really in it: a wrong range says nothing of clients. */
export function podNetworks(state: NodeState, family: Family, pods: readonly Address[]): string[] {
  return [...namedNetworks(state, family)].filter((text) => {
    const range = parseRange(text)
    if (!range || familyOf(range.lo) !== family || isAll(range)) return false
    return pods.some((address) => familyOf(address) === family && inRange(address, range))
  })
}

const isAll = ({lo, hi}: Range): boolean => {
  const all = anyOf(familyOf(lo))
  return lo === all.lo && hi === all.hi
}

/** In words, and in JSON. */
const NFT_PODS = /ip6? saddr (?:!= )?([\da-f.:]+\/\d+) (?:jump mark-for-masquerade|goto service-)/g

/** kube-proxy's NAT is there, and the table where it refuses is not. */
export function lacksFilter(state: NodeState, family: Family): boolean {
  const dumps = state.iptables(family)
  return (
    dumps.some(({tables}) => tables.get('nat')?.chains.has('KUBE-SERVICES')) &&
    !dumps.some(({tables}) => tables.has('filter'))
  )
}

/** Chains of kube-proxy's in filter: where they are, its NAT is somewhere too. */
const IN_FILTER = ['KUBE-SERVICES', 'KUBE-EXTERNAL-SERVICES', 'KUBE-NODEPORTS', 'KUBE-FORWARD', 'KUBE-PROXY-FIREWALL']

/** A listing without nat; a save of several tables without it is of a node without it. */
export function lacksNat(state: NodeState, family: Family): boolean {
  const dumps = state.iptables(family).filter(({tables}) => tables.size > 0)
  if (dumps.some(({tables}) => tables.has('nat'))) return false
  if ([...(state.nft?.tables.values() ?? [])].some(({name}) => name === 'kube-proxy')) return false
  return dumps.some(
    ({partial, tables}) =>
      partial || (tables.size === 1 && IN_FILTER.some((name) => tables.get('filter')?.chains.has(name))),
  )
}

/** Does a rule of nat's KUBE-SERVICES, which every sync writes anew, have these words? */
const hasServices = (state: NodeState, words: string): boolean =>
  state.iptables(4).some(({tables}) => {
    const {lines = []} = tables.get('nat')?.chains.get('KUBE-SERVICES') ?? {}
    return lines.some(({text}) => text.includes(words))
  })

/** The rules of its ipvs mode ask sets for Services (pkg/proxy/ipvs/ipset.go); here nobody has asked IPVS itself. */
export function lacksIpvs(state: NodeState): boolean {
  return state.ipvsSection.state === 'never-asked' && hasServices(state, 'match-set KUBE-')
}

/** Nobody asked for the rules that this mode writes: nothing could be found programmed there. */
function neverAsked(state: NodeState, mode: ProxyMode | undefined, family: Family): boolean {
  const asked = ({state: how}: Section): boolean => how !== 'never-asked'
  const rules = asked(state.iptablesSectionOf(family)) || asked(state.nftSection)
  if (mode === 'nftables') return !asked(state.nftSection)
  return mode === 'ipvs' ? !rules || !asked(state.ipvsSection) : !rules
}

function minorOf(state: NodeState, cluster: ClusterState): number | undefined {
  const kubelet = cluster.nodes.find(({name}) => name === state.name)?.kubeletVersion
  const version = state.proxyVersion ?? cluster.kubeProxyVersions?.get(kubelet ?? '') ?? kubelet ?? cluster.version
  const minor = /^v?1\.(\d+)/.exec(version ?? '')?.[1]
  return minor === undefined ? undefined : Number(minor)
}
