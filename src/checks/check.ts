import {knowsEndpoints} from '../intent/endpoints.js'
import type {World} from '../dataplane/world.js'
import type {Service} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import type {Problem} from '../parse/problem.js'
import type {NodeState} from '../snapshot/node-state.js'
import type {Snapshot} from '../snapshot/snapshot.js'
import {checkService, checkServices} from './api.js'
import {externalIpConflicts, nodeAddressesElsewhere} from './claims.js'
import {isProxied} from '../intent/frontends.js'
import {findingsOf} from './causes.js'
import {rankOf, type CodeName} from './codes.js'
import {checkDns} from './dns.js'
import type {ProxyFacts} from '../intent/proxy-facts.js'
import {compareAll, type Comparison, type Sample} from './compare.js'
import {SEVERITIES, type Finding, type Incomplete} from './finding.js'
import {UnseenPolicies} from './policy.js'
import {checkHealthPorts} from './health-port.js'
import {checkNode, sickProxy} from './node.js'
import {incompleteRules} from './unreadable.js'
import {checkNeighbours} from './neighbours.js'
import {otherProxy, proxyFacts} from './proxy.js'

/** Findings that say that a Service does not exist. */
const NEEDS_ALL_SERVICES = new Set<CodeName>([
  'ingress-backend-missing',
  'gateway-route-broken',
  'external-name-broken',
])

/** A Service of a namespace that was not read is not missing. */
function restsOnUnread({cluster, info}: Snapshot, {name, services}: Finding): boolean {
  const unread = info.forbidden['services'] !== undefined || !cluster.read.has('services')
  if (!unread || !NEEDS_ALL_SERVICES.has(name)) return false
  if (name === 'external-name-broken') return true
  return !services.every((wanted) => cluster.services.some(({id}) => id === wanted))
}

export interface CheckOptions {
  /** Which Services; all when undefined. */
  readonly services?: readonly Service[]
  /** Only these nodes' rules are compared. */
  readonly nodes?: readonly string[]
  /** Look at API objects alone. */
  readonly apiOnly?: boolean
}

export interface CheckResult {
  readonly findings: readonly Finding[]
  readonly incomplete: readonly Incomplete[]
  readonly services: readonly string[]
  readonly nodes: readonly string[]
  /** How many flows were walked. */
  readonly walks: number
  readonly problems: readonly Problem[]
}

/** A node that shows no rules at all was not compared. */
const unseen = (state: NodeState): Incomplete => ({
  node: state.name,
  reason: `no rules of any kind were read${whyBlind(state)}; it was not compared`,
})

/** Entries that exist win over the rules: where they could not be read, stale ones cannot be told. */
function withoutConntrack(state: NodeState): Incomplete[] {
  const section = ['conntrack.txt', 'conntrack6.txt']
    .map((file) => state.section(file))
    .find(({state: how}) => how === 'unreadable')
  if (!section) return []
  return [
    {node: state.name, reason: `connections could not be read (${section.reason ?? ''}): a stale one cannot be seen`},
  ]
}

const halfPrinted = (state: NodeState): Incomplete => ({
  node: state.name,
  reason: 'rules are printed incompletely: what they lead to is not decided',
})

/** What the first tool said that could not read them. */
function whyBlind(state: NodeState): string {
  const sections = [state.iptablesSection, state.nftSection, state.ipvsSection]
  const reason = sections.find((section) => section.state === 'unreadable')?.reason
  return reason === undefined ? '' : ` (${reason})`
}

/** Compares what Kubernetes promises with what packets would meet, for every Service asked for and every node. */
export function check(snapshot: Snapshot, world: World, options: CheckOptions = {}): CheckResult {
  const services = options.services ?? snapshot.cluster.services
  const api = [
    ...services.flatMap((service) => checkService(snapshot.cluster, service)),
    ...checkServices(snapshot.cluster, services),
  ].filter((finding) => !restsOnUnread(snapshot, finding))
  const ids = services.map(({id}) => id)
  if (options.apiOnly) {
    const problems = problemsOf(snapshot)
    return {findings: order(api), incomplete: unreadObjects(snapshot), services: ids, nodes: [], walks: 0, problems}
  }
  const states = [...snapshot.nodes.values()].filter(
    ({name}) => options.nodes === undefined || options.nodes.includes(name),
  )
  const {findings, incomplete, walks} = checkNodes({snapshot, world, services, states})
  return {
    findings: order(withStoppedProxies(withoutEchoes([...findings, ...api]))),
    incomplete,
    services: ids,
    nodes: states.map(({name}) => name),
    walks,
    // dumps are read when somebody asks for them
    problems: problemsOf(snapshot),
  }
}

interface NodesCheck {
  readonly snapshot: Snapshot
  readonly world: World
  readonly services: readonly Service[]
  readonly states: readonly NodeState[]
}

/** Everything that the nodes' dumps take part in. */
function checkNodes({
  snapshot,
  world,
  services,
  states,
}: NodesCheck): Pick<CheckResult, 'findings' | 'incomplete' | 'walks'> {
  const {cluster} = snapshot
  const blind = states.filter(hasNoRules)
  const own = states.filter((state) => otherProxy(state) === undefined && !blind.includes(state))
  const facts = new Map(states.map((state) => [state, proxyFacts(cluster, state)]))
  const proxies = own.map((state) => facts.get(state)!)
  const policies = new UnseenPolicies(cluster)
  const delivered = policies.isNeeded ? {delivered: (sample: Sample) => policies.add(sample)} : {}
  const known = knowsEndpoints(cluster) ? services : []
  const comparison = compareAll({world, cluster, services: known, proxies, ...delivered})
  const nodes = states.flatMap((state) => checkNode({state, proxy: facts.get(state)!, cluster, services, comparison}))
  const beside = besideWalks({snapshot, world, services, states}, {proxies, known, outside: comparison.outside})
  const cut = new Set(states.flatMap(incompleteRules).map(({file, line}) => `${file}:${line}`))
  const isIncomplete = ({source, line}: Evidence): boolean => cut.has(`${source}:${line}`)
  const differences = findingsOf({cluster, states: snapshot.nodes, comparison, isIncomplete})
  const notRead = [...unread(snapshot), ...blind.map(unseen), ...own.flatMap(withoutConntrack)]
  return {
    findings: [...differences, ...policies.findings, ...nodes, ...beside.findings],
    incomplete: [
      ...incompleteOf(comparison, new Set(notRead.flatMap(({node}) => node ?? []))),
      ...notRead,
      ...states.filter((state) => incompleteRules(state).length > 0).map(halfPrinted),
      ...withoutProxy(states),
      ...beside.incomplete,
    ],
    walks: comparison.walks,
  }
}

interface Asked {
  readonly proxies: readonly ProxyFacts[]
  /** Services whose endpoints are known. */
  readonly known: readonly Service[]
  readonly outside: Comparison['outside']
}

/** What no Service's own frontends show: health ports, addresses in conflict, neighbours, DNS servers' answers. */
function besideWalks(
  {snapshot, world, services, states}: NodesCheck,
  {proxies, known, outside}: Asked,
): Pick<CheckResult, 'findings' | 'incomplete'> {
  const {cluster, nodes} = snapshot
  const sick = new Set(proxies.map(({node}) => node).filter((node, at) => sickProxy(nodes.get(node)!, proxies[at]!)))
  const healthPorts = checkHealthPorts({world, cluster, services: known, proxies, outside, sick})
  const dns = checkDns(cluster, [...nodes.values()], services)
  const neighbours = checkNeighbours(
    world,
    services,
    proxies.map(({node}) => node),
  )
  return {
    findings: [
      ...nodeAddressesElsewhere(
        cluster,
        states,
        services.filter(isProxied).map(({id}) => id),
      ),
      ...neighbours.findings,
      ...healthPorts.findings,
      ...externalIpConflicts(cluster, services, new Set(proxies.flatMap(({mode}) => mode ?? []))),
      ...dns.findings,
    ],
    incomplete: [...neighbours.incomplete, ...healthPorts.incomplete, ...dns.incomplete],
  }
}

/** Neither iptables nor nftables nor IPVS: nothing that could be right or wrong. */
const hasNoRules = (state: NodeState): boolean =>
  [state.iptablesSectionOf(4), state.iptablesSectionOf(6), state.nftSection, state.ipvsSection].every(
    (section) => section.state === 'never-asked' || section.state === 'unreadable',
  )

/** A node that another proxy serves was not compared; that is said, not passed over. */
function withoutProxy(states: readonly Parameters<typeof otherProxy>[0][]): Incomplete[] {
  return states.flatMap((state) => {
    const other = otherProxy(state)
    if (!other) return []
    const reason = `Services are handled by ${other.name}, out of sight of netfilter dumps; they were not compared`
    return [{node: state.name, reason}]
  })
}

/** Drops findings that a nearer finding on the same node explains already. */
function withoutEchoes(findings: readonly Finding[]): Finding[] {
  const on = (finding: Finding, names: readonly string[]): Finding[] =>
    findings.filter((other) => other !== finding && other.node === finding.node && names.includes(other.name))
  const covers = (finding: Finding, other: Finding): boolean =>
    finding.services.every((id) => other.services.includes(id))
  return findings.filter((finding) => {
    // who is hurt by it, the walks know better
    if (finding.name === 'node-address-elsewhere' && finding.origins.length === 0)
      return on(finding, ['node-address-elsewhere']).length === 0
    if (finding.name === 'both-backends') return on(finding, ['mode-leftovers']).length === 0
    if (finding.name === 'node-port-not-programmed' && finding.severity === 'warning')
      return ![
        ...on(finding, NOT_PROGRAMMED).filter(({severity}) => severity === 'error'),
        ...on(finding, ['masquerade-missing']).filter((other) => sameLine(finding, other)),
      ].some((other) => covers(finding, other))
    if (finding.name === 'client-address-lost')
      return !on(finding, ['policy-not-kept']).some(
        (other) => covers(finding, other) && finding.frontends.every((frontend) => other.frontends.includes(frontend)),
      )
    // both are what kube-proxy believes of the Service's endpoints
    if (finding.name === 'endpoint-missing')
      return !on(finding, ['no-endpoints-programmed']).some((other) => covers(finding, other))
    // a set that lacks an entry lets nothing in, or nothing be masqueraded
    if (finding.name === 'masquerade-missing')
      return !on(finding, [...NOT_PROGRAMMED, 'cluster-ip-not-programmed', 'external-ip-not-programmed']).some(
        (other) => other.severity === 'error' && covers(finding, other) && sameLine(finding, other),
      )
    if (finding.name === 'silent-port')
      return !on(finding, ['packet-dropped-by-rule']).some((other) => sameLine(finding, other))
    return true
  })
}

const sameLine = ({evidence: [one]}: Finding, {evidence: [other]}: Finding): boolean =>
  one !== undefined && one.source === other?.source && one.line === other.line

/** Findings that a stopped kube-proxy explains: rules that are stale, or were never written. */
const NEVER_WRITTEN: readonly string[] = [
  'service-not-programmed',
  'cluster-ip-not-programmed',
  'stale-endpoint',
  'endpoint-missing',
]
/** Fewer Services than this may lack their rules for reasons of their own. */
const MANY_UNWRITTEN = 3

/** Where kube-proxy is not there and many Services were never written, that is one finding, and an error. */
function withStoppedProxies(findings: readonly Finding[]): readonly Finding[] {
  return findings
    .filter(({name, severity}) => name === 'kube-proxy-not-running' && severity === 'warning')
    .reduce((all, stopped) => {
      // a whole map or chain that is gone is a cause of its own, with all its victims in one finding
      const victims = all.filter(
        ({name, node, services}) => node === stopped.node && NEVER_WRITTEN.includes(name) && services.length === 1,
      )
      const services = [...new Set(victims.flatMap((finding) => finding.services))].sort()
      if (services.length < MANY_UNWRITTEN) return all
      const whole: Finding = {
        ...stopped,
        severity: 'error',
        services,
        frontends: [...new Set(victims.flatMap(({frontends}) => frontends))].sort(),
        origins: [...new Set(victims.flatMap(({origins}) => origins))].sort(),
        message: `${stopped.message}: the rules of ${services.length} Services are missing or old`,
        evidence: [...stopped.evidence, ...victims[0]!.evidence],
      }
      return all.flatMap((finding) => (finding === stopped ? [whole] : victims.includes(finding) ? [] : [finding]))
    }, findings)
}

const NOT_PROGRAMMED = ['node-not-programmed', 'service-not-programmed', 'node-port-not-programmed']

const NOT_ASKED = /not asked for|was made without -v|is taken to be/

/** `told`: nodes that are listed as unread themselves, once; what is open because of them needs no line for each Service. */
function incompleteOf({undecided, incomplete}: Comparison, told: ReadonlySet<string>): Incomplete[] {
  const notes = [...incomplete].map(([text, node]): Incomplete => ({node, reason: text.slice(node.length + 1)}))
  const open = [...undecided.values()].filter(({absent}) => absent === undefined || !told.has(absent))
  // what decides comes first; what nobody asked for is long, and the same for every Service
  const unasked = notes.filter(({reason}) => NOT_ASKED.test(reason))
  return [
    ...notes.filter((note) => !unasked.includes(note)),
    ...open.map(({node, service, reason}): Incomplete => ({node, service, reason})),
    ...unasked,
  ]
}

/** Lists without which no verdict can be trusted. */
const NEEDED = [['services'], ['nodes'], ['pods'], ['endpointslices', 'endpoints']] as const

/** An absent list is not an empty one, and a broken one neither. */
function unreadLists({cluster: {read}, info, problems}: Snapshot): Incomplete[] {
  const absent = NEEDED.filter((names) => names.every((name) => !read.has(name) && !(name in info.forbidden)))
  const broken = problems.filter(({file}) => file.startsWith('api/') || file === 'snapshot.json')
  return [
    ...absent.map((names) => ({reason: `api/${names[0]}.json was not read: what it holds was not checked`})),
    ...broken.map(({file, message}) => ({reason: `${file}: ${message}`})),
  ]
}

/** Lists that are missing, broken or forbidden. */
const unreadObjects = (snapshot: Snapshot): Incomplete[] => [
  ...unreadLists(snapshot),
  ...Object.entries(snapshot.info.forbidden).map(([resource, reason]) => ({
    reason: `${resource} could not be read: ${reason}`,
  })),
]

function unread(snapshot: Snapshot): Incomplete[] {
  const {info, cluster, nodes} = snapshot
  const missing = cluster.nodes.filter(
    ({name}) => !nodes.has(name) && info.unread[name] === undefined && !info.skipped.includes(name),
  )
  return [
    ...unreadObjects(snapshot),
    ...Object.entries(info.unread).map(([node, reason]) => ({node, reason: `not read: ${reason}`})),
    ...missing.map(({name}) => ({node: name, reason: 'the node is in the API, but its dumps are not in the snapshot'})),
  ]
}

function problemsOf(snapshot: Snapshot): Problem[] {
  return [...snapshot.problems, ...[...snapshot.nodes.values()].flatMap(({problems}) => problems)]
}

/** Root causes first: by severity, then by nearness to the root, then by the number of victims. */
function order(findings: readonly Finding[]): Finding[] {
  return [...findings].sort(
    (a, b) =>
      SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity) ||
      rankOf(a.name) - rankOf(b.name) ||
      b.services.length - a.services.length ||
      (a.node ?? '').localeCompare(b.node ?? '') ||
      a.message.localeCompare(b.message),
  )
}
