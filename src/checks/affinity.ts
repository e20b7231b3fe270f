import type {Service} from '../model/kube.js'
import type {Evidence, Hop} from '../model/trace.js'
import type {IptablesRule, RuleMatch} from '../parse/iptables-rule.js'
import type {NodeState} from '../snapshot/node-state.js'
import type {Sample} from './compare.js'

/** What keeps a client at its endpoint, and for how long. */
interface Memory {
  /** Seconds; undefined where the dump does not tell. */
  readonly seconds: number | undefined
  readonly evidence: Evidence[]
}

/** Why a Service with ClientIP affinity does not keep its clients, or not for its time; undefined: it does. */
export function affinityProblem(
  state: NodeState,
  service: Service,
  {fate, frontend}: Pick<Sample, 'fate' | 'frontend'>,
): {what: string; evidence: Evidence[]} | undefined {
  const server = state.ipvs?.virtualServers.find(
    ({address, port, protocol}) =>
      address === frontend.address && port === frontend.port && protocol === frontend.protocol,
  )
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
  const own = fate.hops.filter(({node, reply}) => node === state.name && !reply)
  const nat = own.findIndex(({kind}) => kind === 'nat')
  if (nat < 0) return undefined
  const memory = inSet(state, own) ?? inList(state, own)
  if (!memory) {
    const rule = own.slice(0, nat).findLast(({evidence}) => evidence !== undefined)
    return {what: 'no rule remembers the client', evidence: rule?.evidence ? [rule.evidence] : []}
  }
  if (memory.seconds === undefined || memory.seconds === service.affinityTimeout) return undefined
  return {what: `its rules keep clients for ${memory.seconds} s`, evidence: memory.evidence}
}

/** nftables mode: `update @affinity-… { ip saddr }`, whose set has the time. */
function inSet(state: NodeState, hops: readonly Hop[]): Memory | undefined {
  const hop = hops.find(({what}) => what.startsWith('remembers it in '))
  if (!hop) return undefined
  const name = hop.what.slice('remembers it in '.length).replace(/^@/, '')
  const [set] = [...(state.nft?.tables.values() ?? [])].flatMap(({sets}) => sets.get(name) ?? [])
  return {seconds: set?.timeout, evidence: hop.evidence ? [hop.evidence] : []}
}

/** iptables mode: `-m recent --set --name KUBE-SEP-…`; the time stands at `--rcheck` of the same name, in the chain that called. */
function inList(state: NodeState, hops: readonly Hop[]): Memory | undefined {
  const rules = hops.flatMap((hop) => ruleOf(state, hop) ?? [])
  const names = rules.flatMap(({matches}) => matches.flatMap((match) => listOf(match, 'set') ?? []))
  const [name] = names
  if (name === undefined) return undefined
  const chains = new Set(rules.map(({table, chain}) => `${table} ${chain}`))
  const asking = state
    .iptables(4)
    .concat(state.iptables(6))
    .flatMap(({tables}) => [...chains].flatMap((key) => chainRules(tables, key)))
    .find(({matches}) => matches.some((match) => listOf(match, 'rcheck', 'update') === name))
  if (!asking) return {seconds: undefined, evidence: []}
  const seconds = asking.matches.flatMap(({options}) => options).find((option) => option.name === 'seconds')?.values[0]
  return {
    seconds: seconds === undefined ? undefined : Number(seconds),
    evidence: [{source: asking.file, line: asking.line, text: asking.text}],
  }
}

/** The list that a `-m recent` with one of these verbs is about. */
const listOf = ({module, options}: RuleMatch, ...verbs: readonly string[]): string | undefined =>
  module === 'recent' && options.some(({name}) => verbs.includes(name))
    ? (options.find(({name}) => name === 'name')?.values[0] ?? 'DEFAULT')
    : undefined

type Tables = ReturnType<NodeState['iptables']>[number]['tables']

function chainRules(tables: Tables, key: string): readonly IptablesRule[] {
  const [table, chain] = key.split(' ')
  return tables.get(table!)?.chains.get(chain!)?.rules ?? []
}

/** The rule that a step met, by its line. */
function ruleOf(state: NodeState, {where, evidence}: Hop): IptablesRule | undefined {
  const place = /^(?:legacy )?(\w+)\/(\S+)#(\d+)$/.exec(where ?? '')
  if (!place || !evidence) return undefined
  return state
    .iptables(4)
    .concat(state.iptables(6))
    .filter(({file}) => file === evidence.source)
    .map(({tables}) => chainRules(tables, `${place[1]!} ${place[2]!}`)[Number(place[3]) - 1])
    .find((rule) => rule?.line === evidence.line)
}
