import type {Evidence, Fate, Hop} from '../model/trace.js'
import type {ServiceEndpoint} from '../intent/endpoints.js'
import type {Frontend} from '../intent/frontends.js'
import type {VirtualServer} from '../parse/ipvs.js'
import type {IptablesDump} from '../parse/iptables.js'
import type {NodeState} from '../snapshot/node-state.js'
import {formatAddress, type Family} from '../util/ip.js'
import {isDestinationNat, isSourceNat} from './hops.js'

/** Which line of which dump decides a walk. */

export const evidenceOf = (hop: Hop | undefined): Evidence[] => (hop?.evidence ? [hop.evidence] : [])

/** Before the answer, at one node, with a line behind it. */
const provenAt = ({hops}: Fate, node: string): Hop[] =>
  hops.filter((hop) => hop.node === node && !hop.reply && hop.evidence !== undefined)

/** The last step with a line behind it, of those that can end a packet. */
export function deciding(fate: Fate): Hop | undefined {
  return fate.hops.findLast(
    ({kind, evidence, reply}) =>
      evidence !== undefined &&
      reply === fate.onReply &&
      (kind === 'rule' || kind === 'policy' || kind === 'ipvs' || kind === 'end'),
  )
}

/** Filter and mangle chains pass a packet on, and translate nothing. */
const TRANSLATES_NOTHING = /^(legacy )?(raw|mangle|filter|security)\//

/** The last line that could have translated the packet: a virtual server, else a rule of PREROUTING or OUTPUT. */
export function programming(fate: Fate, node: string): Evidence[] {
  const there = provenAt(fate, node)
  const before = there.filter(({hook}) => hook === 'PREROUTING' || hook === 'OUTPUT')
  return evidenceOf(
    there.find(({kind}) => kind === 'ipvs') ??
      before.findLast(({where}) => !TRANSLATES_NOTHING.test(where ?? '')) ??
      before.at(-1) ??
      there.at(-1),
  )
}

const SPREADS = /-m statistic |\bnumgen\b|-j KUBE-SEP-/

/** Where the packets are spread over the endpoints. */
export function spreadBy(fate: Fate, node: string): Evidence[] {
  const there = provenAt(fate, node)
  const spreads = there.findLast(({kind, evidence}) => kind === 'rule' && SPREADS.test(evidence!.text))
  return spreads && !there.some(({kind}) => kind === 'ipvs') ? evidenceOf(spreads) : programming(fate, node)
}

/** The rule or the real server that chose the destination. */
export function chosenBy({hops}: Fate): Evidence[] {
  const real = hops.findLast(({kind, reply, evidence}) => kind === 'ipvs' && !reply && evidence !== undefined)
  if (real) return evidenceOf(real)
  const nat = hops.findIndex(({kind}) => kind === 'nat')
  return evidenceOf(hops.slice(0, nat < 0 ? undefined : nat).findLast(({evidence}) => evidence !== undefined))
}

/** Where kube-proxy itself chooses: its other chains translate nothing. */
const OWN_CHAIN = /\/KUBE-(SEP-[A-Z0-9]+|PORTALS-(CONTAINER|HOST)|NODEPORT-(CONTAINER|HOST))#|(^| )kube-proxy\//

/** A rule that is not kube-proxy's has chosen the destination. */
export function chosenByStranger({hops}: Fate): boolean {
  const nat = hops.findIndex(isDestinationNat)
  const rule = nat < 0 ? undefined : hops.slice(0, nat + 1).findLast(({where}) => where !== undefined)
  return rule !== undefined && !isOwnChain(rule)
}

/** A rule of the chains where kube-proxy chooses destinations. */
export const isOwnChain = (rule: Hop | undefined): boolean => OWN_CHAIN.test(rule?.where ?? '')

/** Where kube-proxy's rules first take a packet for a Service: the rule or the map's element of the frontend, or of its source ranges. */
export function letIn({hops}: Fate, byRange: boolean): Evidence[] {
  const there = hops.filter(({reply, evidence}) => !reply && evidence !== undefined)
  const range = there.find(({evidence}) => /^(\[[\d:]+\] )?-A KUBE-FW-\w+ .*-j KUBE-/.test(evidence!.text))
  if (byRange && range) return evidenceOf(range)
  return evidenceOf(there.find(({evidence}) => ENTRY.test(evidence!.text)))
}

const ENTRY =
  /-A KUBE-(SERVICES .*-j KUBE-(SVC|SVL|EXT|XLB|FW)-|NODEPORTS )|^\S+ \. (\S+ \. )?\d+ : goto (service|external|local|firewall)-/

/** In userspace mode every packet goes to a process first. */
export const chosenByProcess = ({hops}: Fate): boolean =>
  hops.some(({where, reply}) => !reply && /\/KUBE-(PORTALS|NODEPORT)-(CONTAINER|HOST)#/.test(where ?? ''))

const TO_MARK = /-j KUBE-MARK-MASQ|jump mark-for-masquerade/
const EXTERNAL_ENTRY = /-j KUBE-(EXT|XLB|FW)-|-A KUBE-NODEPORTS .*-j KUBE-SVC-|goto external-/
const OWN_POSTROUTING = /-j KUBE-POSTROUTING|jump masquerading/

/** A rule led it to the mark for masquerade, and nothing marked it. */
export function leftUnmarked(fate: Fate, node: string): boolean {
  const marked = fate.hops.some(({kind, reply, node: at}) => kind === 'mark' && !reply && at === node)
  return !marked && provenAt(fate, node).some(({evidence}) => TO_MARK.test(evidence!.text))
}

/**
 * Why a packet was not masqueraded: the rule that should lead to the mark and sets none, the rule of POSTROUTING that has
 * the mark and does nothing with it, or the rule that should have asked for it.
 */
export function unmasqueradedBy(fate: Fate, node: string): Evidence[] {
  const there = provenAt(fate, node)
  const marked = fate.hops.some(({kind, reply, node: at}) => kind === 'mark' && !reply && at === node)
  const cleared = markCleared(fate, node)
  if (cleared) return [cleared]
  const toMark = there.findLast(({evidence}) => TO_MARK.test(evidence!.text))
  if (toMark && !marked) return evidenceOf(toMark)
  const own = there.find(({hook, evidence}) => hook === 'POSTROUTING' && OWN_POSTROUTING.test(evidence!.text))
  // nftables mode knows its hairpin connections there, without a mark
  if (own && (marked || fate.cause === 'hairpin'))
    return evidenceOf((marked ? there.find(leavesMarked) : undefined) ?? own)
  const entry = there.find(({evidence}) => EXTERNAL_ENTRY.test(evidence!.text))
  return entry ? evidenceOf(entry) : programming(fate, node)
}

/** A rule of kube-proxy's masquerade chain that lets go what has its mark: its mask is not kube-proxy's, or other bits are set. */
const leavesMarked = ({where, evidence}: Hop): boolean =>
  /\/KUBE-POSTROUTING#\d+$/.test(where ?? '') && / -j RETURN\b/.test(evidence?.text ?? '')

/** The rule that takes the mark away again before anything has masqueraded what has it. */
function markCleared({hops}: Fate, node: string): Evidence | undefined {
  const own = hops.map((hop, at) => ({hop, at})).filter(({hop}) => hop.node === node && !hop.reply)
  const set = own.find(({hop}) => hop.mark !== undefined && hop.mark !== 0)
  const gone = set && own.find(({hop, at}) => at > set.at && hop.mark === 0)
  if (!gone || hops.slice(gone.at).some(isSourceNat)) return undefined
  return hops.slice(0, gone.at).findLast(({evidence, node: where}) => evidence !== undefined && where === node)
    ?.evidence
}

/** Where nothing at all translates: the empty hook of the nat table, or kube-proxy's own table, dormant or not there. */
export function emptyPlace(state: NodeState | undefined, family: 4 | 6): EmptyPlace | undefined {
  if (!state) return undefined
  const own: readonly string[] = ['inet', family === 4 ? 'ip' : 'ip6']
  const table = [...(state.nft?.tables.values() ?? [])].find(
    (one) => one.name === 'kube-proxy' && own.includes(one.family),
  )
  const inNft = (text: string, line = 0): EmptyPlace => ({evidence: [{source: state.nft!.file, line, text}]})
  if (table?.flags.includes('dormant')) return inNft(`table ${table.family} kube-proxy { flags dormant }`)
  const dumps = state.iptables(family)
  const isIptables = dumps.some(({tables}) => [...tables.values()].some(({chains}) => chains.has('KUBE-SERVICES')))
  if (state.nft && !table && !isIptables) return inNft('no table kube-proxy')
  if (table && !isIptables) {
    for (const hook of ['prerouting', 'output'] as const) {
      const chain = [...table.chains.values()].find((one) => one.type === 'nat' && one.hook === hook)
      if (chain && chain.rules.length > 0) continue
      const name = `table ${table.family} kube-proxy`
      const text = chain ? `${name}: chain ${chain.name} has no rule` : `${name} has no nat chain at hook ${hook}`
      return {...inNft(text, chain?.line), ...(hook === 'output' ? {ownOnly: true} : {})}
    }
    const services = table.chains.get('services')
    if (services && services.rules.length > 0) return undefined
    const text = services ? 'chain services has no rule' : 'no chain services'
    return inNft(`table ${table.family} kube-proxy: ${text}`, services?.line)
  }
  return emptyHook(dumps)
}

/** Where nothing of kube-proxy's is, and whether that concerns the node's own packets alone. */
export interface EmptyPlace {
  readonly evidence: Evidence[]
  readonly ownOnly?: boolean
}

function emptyHook(dumps: readonly IptablesDump[]): EmptyPlace | undefined {
  for (const {file, tables} of dumps)
    for (const name of ['PREROUTING', 'OUTPUT']) {
      const nat = tables.get('nat')
      const hook = nat?.chains.get(name)
      if (!hook) continue
      const own = name === 'OUTPUT' ? {ownOnly: true} : {}
      const jump = hook.texts.find(({text}) => text.includes('-j KUBE-SERVICES'))
      // kube-proxy asks for nothing there
      if (jump && / (-[sdiop]|-m (?!comment)\S+) /.test(jump.text.replace(/"[^"]*"/g, '""')))
        return {evidence: [{source: file, line: jump.line, text: jump.text}], ...own}
      if (jump || hook.lines.some(({text}) => text.includes('KUBE-'))) continue
      const services = nat!.chains.has('KUBE-SERVICES') ? '' : ', and no chain KUBE-SERVICES'
      const evidence = [{source: file, line: hook.line, text: `*nat :${name} with ${hook.length} rules${services}`}]
      return {evidence, ...own}
    }
  return undefined
}

/** A sysctl as the node has it, or that it has none. */
export const sysctlLine = (state: NodeState | undefined, name: string): Evidence[] =>
  state
    ? [
        {
          source: state.path('sysctl.txt'),
          line: state.sysctlLine(name) ?? 0,
          text: `${name} ${state.sysctl(name) === undefined ? 'is not set' : `= ${state.sysctl(name)}`}`,
        },
      ]
    : []

/** The routes that were asked. */
export const routeLine = (state: NodeState | undefined, family: Family, text: string): Evidence[] =>
  state ? [{source: state.ipPath(family === 6 ? 'ip-route6' : 'ip-route'), line: 0, text}] : []

export const serverOf = (
  state: NodeState | undefined,
  {address, port, protocol}: Pick<Frontend, 'address' | 'port' | 'protocol'>,
): VirtualServer | undefined =>
  state?.ipvs?.virtualServers.find(
    (server) => server.address === address && server.port === port && server.protocol === protocol,
  )

/** The real server of an endpoint that is there and gets nothing. */
export function realServer(
  state: NodeState | undefined,
  frontend: Frontend,
  {address, port}: ServiceEndpoint,
): Evidence | undefined {
  const server = serverOf(state, frontend)
  const real = server?.realServers.find((one) => one.address === address && one.port === port && one.weight <= 0)
  return real && {source: server!.file, line: real.line, text: real.text}
}

/** IPVS has a virtual server for it, and the node takes no packet for the address, because no device holds it. */
export function addressLost(state: NodeState | undefined, frontend: Frontend): Evidence[] | undefined {
  const server = serverOf(state, frontend)
  if (!server || !state || state.addressSection.state !== 'read') return undefined
  if (state.addresses.some(({address}) => address === frontend.address)) return undefined
  const device = state.links.some(({name}) => name === 'kube-ipvs0')
  return [
    {
      source: state.ipPath('ip-addr'),
      line: 0,
      text: device ? `kube-ipvs0 has no ${formatAddress(frontend.address)}` : 'there is no device kube-ipvs0',
    },
    {source: server.file, line: server.line, text: server.text},
  ]
}
