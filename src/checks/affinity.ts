import type {Service} from '../model/kube.js'
import type {Evidence, Hop} from '../model/trace.js'
import type {IptablesChain} from '../parse/iptables.js'
import type {IptablesRule, RuleMatch} from '../parse/iptables-rule.js'
import type {VirtualServer} from '../parse/ipvs.js'
import type {NftRule} from '../parse/nft.js'
import {formatAddress} from '../util/ip.js'
import type {NodeState} from '../snapshot/node-state.js'
import type {Sample} from './compare.js'
import {evidenceOf, serverOf} from './proof.js'

/** What keeps a client at its endpoint, and for how long. */
interface Memory {
  /** Seconds; undefined where the dump does not tell. */
  readonly seconds: number | 'never asked' | 'crossed' | undefined
  readonly evidence: Evidence[]
}

/** Why a Service with ClientIP affinity does not keep its clients, or not for its time; undefined: it does. */
export function affinityProblem(
  state: NodeState,
  service: Service,
  {fate, frontend}: Pick<Sample, 'fate' | 'frontend'>,
): {what: string; evidence: Evidence[]} | undefined {
  const own = fate.hops.filter(({node, reply}) => node === state.name && !reply)
  const server = own.some(({kind}) => kind === 'ipvs') ? serverOf(state, frontend) : undefined
  if (server) {
    if (server.persistent === service.affinityTimeout || Number.isNaN(server.persistent)) return undefined
    return {
      what:
        server.persistent === undefined
          ? 'its virtual server is not persistent'
          : `its virtual server keeps clients for ${server.persistent} s`,
      evidence: [{source: server.file, line: server.line, text: server.text}],
    }
  }
  const nat = own.findIndex(({kind}) => kind === 'nat')
  if (nat < 0) return undefined
  const memory = inSet(state, own) ?? inList(state, own)
  if (!memory) {
    const rule = own.slice(0, nat).findLast(({evidence}) => evidence !== undefined)
    return {what: 'no rule remembers the client', evidence: rule?.evidence ? [rule.evidence] : []}
  }
  if (memory.seconds === 'never asked')
    return {what: 'no rule asks for the clients that it remembers', evidence: memory.evidence}
  if (memory.seconds === 'crossed')
    return {what: 'a rule leads clients that one endpoint remembers to another', evidence: memory.evidence}
  if (memory.seconds === undefined || memory.seconds === service.affinityTimeout) return undefined
  return {what: `its rules keep clients for ${memory.seconds} s`, evidence: memory.evidence}
}

/** nftables mode: `update @affinity-… { ip saddr }`, whose set has the time. */
function inSet(state: NodeState, hops: readonly Hop[]): Memory | undefined {
  const hop = hops.find(({remembered}) => remembered !== undefined)
  if (!hop) return undefined
  const name = hop.remembered!
  const tables = [...(state.nft?.tables.values() ?? [])].filter(({sets}) => sets.has(name))
  const asking = tables.flatMap(({chains}) =>
    [...chains.values()].flatMap(({rules}) => rules.filter((rule) => asksFor(rule, name))),
  )
  if (asking.length === 0) return {seconds: 'never asked', evidence: evidenceOf(hop)}
  const own = /\/(\S+)#\d+$/.exec(hop.where ?? '')?.[1]
  const crossed = own === undefined ? undefined : asking.find(({text}) => leadsElsewhere(text, own))
  if (crossed) return {seconds: 'crossed', evidence: [{source: crossed.file, line: crossed.line, text: crossed.text}]}
  return {seconds: tables[0]?.sets.get(name)?.timeout, evidence: evidenceOf(hop)}
}

/** `ip saddr @affinity-… goto endpoint-…`, in words or in JSON. */
const asksFor = ({text}: NftRule, name: string): boolean =>
  text.includes(`@${name}`) && /\bgoto\b/.test(text) && !/\bupdate\b|"op": ?"update"/.test(text)

function leadsElsewhere(text: string, own: string): boolean {
  const to = /\bgoto (\S+)|"goto": ?\{"target": ?"([^"]+)"/.exec(text)
  const name = to?.[1] ?? to?.[2]
  return name !== undefined && own.startsWith('endpoint-') && name !== own
}

/** Services that do not ask for affinity, and whose rules keep clients all the same. */
export function unaskedAffinity(
  state: NodeState,
  services: readonly Service[],
  all: readonly Service[],
): Map<Service, Evidence> {
  const found = new Map<Service, Evidence>()
  const byId = new Map(
    services.filter(({affinityTimeout}) => affinityTimeout === undefined).map((one) => [one.id, one]),
  )
  const add = (id: string | undefined, evidence: Evidence): void => {
    const service = byId.get(id ?? '')
    if (service && !found.has(service)) found.set(service, evidence)
  }
  const kept = (state.ipvs?.virtualServers ?? []).filter(({persistent}) => persistent && !Number.isNaN(persistent))
  if (kept.length > 0) {
    const owners = ownersOf(all)
    for (const server of kept) add(owners(server)?.id, {source: server.file, line: server.line, text: server.text})
  }
  for (const {file, tables} of [...state.iptables(4), ...state.iptables(6)])
    for (const {name, texts} of tables.get('nat')?.chains.values() ?? []) {
      if (!/^KUBE-(SVC|SVL|XLB)-/.test(name)) continue
      // whose chain it is, its other rules tell
      const owner = texts.flatMap(({text}) => (text.includes(' --rcheck ') ? [] : (COMMENTED.exec(text)?.[1] ?? [])))[0]
      for (const {text, line} of texts)
        if (text.includes(' --rcheck ')) add(owner ?? COMMENTED.exec(text)?.[1], {source: file, line, text})
    }
  for (const table of state.nft?.tables.values() ?? [])
    if (table.name === 'kube-proxy')
      for (const {rules} of table.chains.values())
        for (const {text, line, file} of rules) {
          const [, namespace, name] =
            /\bsaddr\b.*@affinity-[A-Z0-9]+-([^/"\s]+)\/([^/"\s]+)\/.*\bgoto\b/.exec(text) ?? []
          if (name !== undefined) add(`${namespace}/${name}`, {source: file, line, text})
        }
  return found
}

const COMMENTED = /--comment "?([^\s":]+)/

/** Whose virtual server it is: by its address and port, which several Services may share, else by its port, which is a NodePort then. */
function ownersOf(services: readonly Service[]): (server: VirtualServer) => Service | undefined {
  const byAddress = new Map<string, Service>()
  const byNodePort = new Map<string, Service>()
  for (const service of services) {
    for (const text of [
      ...service.clusterIPs,
      ...service.externalIPs,
      ...service.loadBalancer.flatMap(({ip}) => ip ?? []),
    ])
      for (const {protocol, port} of service.ports) byAddress.set(`${text} ${protocol} ${port}`, service)
    for (const {protocol, nodePort} of service.ports)
      if (nodePort !== undefined) byNodePort.set(`${protocol} ${nodePort}`, service)
  }
  return ({address, port, protocol}) =>
    address === undefined
      ? undefined
      : (byAddress.get(`${formatAddress(address)} ${protocol} ${port}`) ?? byNodePort.get(`${protocol} ${port}`))
}

/** iptables mode: `-m recent --set --name KUBE-SEP-…`; the time stands at `--rcheck` of the same name, in the chain that called. */
function inList(state: NodeState, hops: readonly Hop[]): Memory | undefined {
  const places = hops.flatMap((hop) => placeOf(state, hop) ?? [])
  const [name] = places.flatMap(({chain, at}) => chain.rule(at).matches.flatMap((match) => listOf(match, 'set') ?? []))
  if (name === undefined) return undefined
  const asking = findAsking(
    places.map(({chain}) => chain),
    name,
  )
  if (!asking)
    return {seconds: 'never asked', evidence: evidenceOf(hops.findLast(({evidence}) => evidence?.text.includes(name)))}
  const seconds = asking.matches.flatMap(({options}) => options).find((option) => option.name === 'seconds')?.values[0]
  return {
    seconds: seconds === undefined ? undefined : Number(seconds),
    evidence: [{source: asking.file, line: asking.line, text: asking.text}],
  }
}

/** The nearest first: the chain that called has a few rules, the one before it may have thousands. */
function findAsking(chains: readonly IptablesChain[], name: string): IptablesRule | undefined {
  for (const chain of [...new Set(chains)].reverse()) {
    const found = rulesNaming(chain, name).find(({matches}) =>
      matches.some((match) => listOf(match, 'rcheck', 'update') === name),
    )
    if (found) return found
  }
  return undefined
}

/** The list that a `-m recent` with one of these verbs is about. */
const listOf = ({module, options}: RuleMatch, ...verbs: readonly string[]): string | undefined =>
  module === 'recent' && options.some(({name}) => verbs.includes(name))
    ? (options.find(({name}) => name === 'name')?.values[0] ?? 'DEFAULT')
    : undefined

/** Only those are parsed whose text has the name: a chain may have a rule for every Service. */
const rulesNaming = (chain: IptablesChain, name: string): readonly IptablesRule[] =>
  chain.isReadyMade ? chain.rules : chain.texts.flatMap(({text}, at) => (text.includes(name) ? [chain.rule(at)] : []))

/** The rule that a step met, by its place and line. */
function placeOf(state: NodeState, {where, evidence}: Hop): {chain: IptablesChain; at: number} | undefined {
  const place = /^(?:legacy )?(\w+)\/(\S+)#(\d+)$/.exec(where ?? '')
  if (!place || !evidence) return undefined
  const at = Number(place[3]) - 1
  const chain = [...state.iptables(4), ...state.iptables(6)]
    .filter(({file}) => file === evidence.source)
    .map(({tables}) => tables.get(place[1]!)?.chains.get(place[2]!))
    .find((found) => found !== undefined && at < found.length)
  return chain && {chain, at}
}
