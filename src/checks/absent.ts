import {keyText} from '../dataplane/nft-sets.js'
import type {Frontend} from '../intent/frontends.js'
import type {Protocol} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import type {NftTable} from '../parse/nft.js'
import type {NodeState} from '../snapshot/node-state.js'
import {familyOf, formatAddress, formatEndpoint, parseRange, type Address} from '../util/ip.js'
import {serverOf} from './proof.js'
import {ownMode} from './proxy.js'

/** Proof by absence: what a dump should hold for a Service, and does not. In each mode of kube-proxy that is another place. */

/** What the entry is good for. */
export type Duty =
  /** Leads packets to the Service; in ipvs mode it also masquerades, and keeps KUBE-IPVS-FILTER from refusing. */
  | 'entry'
  /** Leaves the client's address as it is, for policy Local. */
  | 'local'
  /** Holds clients to loadBalancerSourceRanges. */
  | 'firewall'

/** The place that lacks what a frontend needs; empty where nothing is missing, or nobody can tell. */
export function absentEntry(state: NodeState | undefined, duty: Duty, frontend: Frontend): Evidence[] {
  if (!state) return []
  if (usesIpvs(state)) return serverOf(state, frontend) ? absentMember(state, duty, frontend) : []
  const table = ownTable(state, frontend.address)
  if (table) return absentElement(state, table, {duty, frontend})
  return duty === 'entry' ? absentRule(state, frontend) : []
}

/** In ipvs mode: that IPVS does not serve the frontend at all. */
export function absentServer(state: NodeState | undefined, frontend: Frontend): Evidence[] {
  if (!state || !usesIpvs(state) || state.ipvs!.partial || serverOf(state, frontend)) return []
  const text = `no virtual server ${frontend.protocol} ${formatEndpoint(frontend.address, frontend.port)}`
  return [{source: state.ipvs!.file, line: 0, text}]
}

export const usesIpvs = (state: NodeState | undefined): boolean =>
  state?.ipvs !== undefined && ownMode(state) === 'ipvs'

/** kube-proxy's sets in ipvs mode (pkg/proxy/ipvs/ipset.go; KUBE-6-… in IPv6). */
const SETS: Readonly<Record<Duty, Readonly<Partial<Record<Frontend['kind'], string>>>>> = {
  entry: {clusterIP: 'CLUSTER-IP', externalIP: 'EXTERNAL-IP', loadBalancerIP: 'LOAD-BALANCER', nodePort: 'NODE-PORT'},
  local: {externalIP: 'EXTERNAL-IP-LOCAL', loadBalancerIP: 'LOAD-BALANCER-LOCAL', nodePort: 'NODE-PORT-LOCAL'},
  firewall: {loadBalancerIP: 'LOAD-BALANCER-FW'},
}

function absentMember(state: NodeState, duty: Duty, {kind, address, port, protocol}: Frontend): Evidence[] {
  const name = SETS[duty][kind]
  if (name === undefined) return []
  const member = `${formatAddress(address)},${protocol.toLowerCase()}:${port}`
  if (kind !== 'nodePort') return lacking(state, {name, address, member})
  if (protocol === 'SCTP') return lacking(state, {name: `${name}-SCTP-HASH`, address, member})
  return lacking(state, {name: `${name}-${protocol}`, address, member: String(port)})
}

/** The first of loadBalancerSourceRanges that the set of ipvs mode does not hold. */
export function absentRange(
  state: NodeState | undefined,
  {address, port, protocol}: Frontend,
  ranges: readonly string[],
): Evidence[] {
  const set = state?.ipsets?.sets.get(`KUBE-${familyOf(address) === 6 ? '6-' : ''}LOAD-BALANCER-SOURCE-CIDR`)
  if (!set) return []
  const to = `${formatAddress(address)},${protocol.toLowerCase()}:${port}`
  const held = set.entries
    .filter(({parts}) => `${parts[0]},${parts[1]}` === to)
    .map(({parts}) => parseRange(parts[2] ?? ''))
  const lost = ranges.find((text) => {
    const range = parseRange(text.trim())
    if (!range || familyOf(range.lo) !== familyOf(address)) return false
    return !held.some((one) => one?.lo === range.lo && one.hi === range.hi)
  })
  if (lost === undefined) return []
  return [{source: set.file, line: set.line, text: `create ${set.name} ${set.type}: no ${to},${lost.trim()}`}]
}

/** The set that has endpoints masqueraded which ask themselves, where it lacks this one. */
export function absentHairpin(
  state: NodeState | undefined,
  {address, port}: {address: Address; port: number},
  protocol: Protocol,
): Evidence[] {
  const host = formatAddress(address)
  const word = protocol.toLowerCase()
  const table = state && ownTable(state, address)
  if (table) return without(state, table, {name: 'hairpin-connections', key: `${host} . ${host} . ${word} . ${port}`})
  return lacking(state, {name: 'LOOP-BACK', address, member: `${host},${word}:${port},${host}`})
}

/** In iptables mode the endpoint's own chain has its packets to itself marked. */
export function unmarkedEndpoint(
  state: NodeState | undefined,
  {address}: {address: Address},
  [chosen]: readonly Evidence[],
): Evidence[] {
  const name = /^(?:\[[\d:]+\] )?-A (KUBE-SEP-\S+) /.exec(chosen?.text ?? '')?.[1]
  const host = `-s ${formatAddress(address)}/`
  return (state?.iptables(familyOf(address)) ?? []).flatMap(({file, tables}) => {
    const chain = name === undefined ? undefined : tables.get('nat')?.chains.get(name)
    if (!chain?.declared || chain.isReadyMade || chain.texts.some(({text}) => text.includes(host))) return []
    return [
      {
        source: file,
        line: chain.line,
        text: `:${name} (${chain.length} rules): none with ${host}${familyOf(address) === 6 ? 128 : 32} -j KUBE-MARK-MASQ`,
      },
    ]
  })
}

function lacking(
  state: NodeState | undefined,
  {name, address, member}: {name: string; address: Address; member: string},
): Evidence[] {
  const set = state?.ipsets?.sets.get(`KUBE-${familyOf(address) === 6 ? '6-' : ''}${name}`)
  if (!set || set.entries.some(({parts}) => parts.join(',') === member)) return []
  return [{source: set.file, line: set.line, text: `create ${set.name} ${set.type}: no ${member}`}]
}

/** The table of nftables mode. */
const ownTable = (state: NodeState, address: Address): NftTable | undefined =>
  state.nft?.tables.get(`${familyOf(address) === 6 ? 'ip6' : 'ip'} kube-proxy`)

/** Sets and maps of nftables mode (pkg/proxy/nftables/proxier.go). */
function absentElement(
  state: NodeState,
  table: NftTable,
  {duty, frontend: {kind, address, port, protocol}}: {duty: Duty; frontend: Frontend},
): Evidence[] {
  const word = protocol.toLowerCase()
  const host = formatAddress(address)
  if (duty === 'firewall') return without(state, table, {name: 'firewall-ips', key: `${host} . ${word} . ${port}`})
  if (duty === 'local' || kind === 'localhost') return []
  if (kind !== 'nodePort') return without(state, table, {name: 'service-ips', key: `${host} . ${word} . ${port}`})
  return [
    ...without(state, table, {name: 'nodeport-ips', key: host}),
    ...without(state, table, {name: 'service-nodeports', key: `${word} . ${port}`}),
  ]
}

function without(state: NodeState, table: NftTable, {name, key}: {name: string; key: string}): Evidence[] {
  const set = table.sets.get(name)
  if (!set || set.broken || set.elements.some((element) => keyText(element.key) === key)) return []
  const text = `${set.map === undefined ? 'set' : 'map'} ${name}: no ${key}`
  return [{source: state.nft!.file, line: set.line, text}]
}

/** In iptables mode: the chain of all Services, or of all NodePorts, without a rule for this one. */
function absentRule(state: NodeState, {kind, address, port, protocol}: Frontend): Evidence[] {
  const name = kind === 'nodePort' || kind === 'localhost' ? 'KUBE-NODEPORTS' : 'KUBE-SERVICES'
  const host = `-d ${formatAddress(address)}/${familyOf(address) === 6 ? 128 : 32} `
  const isFor = (text: string): boolean =>
    new RegExp(`--dport ${port}( |$)`).test(text) &&
    // up to 1.21 a rule of its own marks what is to be masqueraded
    !text.includes('-j KUBE-MARK-MASQ') &&
    text.includes(`-p ${protocol.toLowerCase()} `) &&
    (name === 'KUBE-NODEPORTS' || text.includes(host))
  const what = `${name === 'KUBE-NODEPORTS' ? '' : host}-p ${protocol.toLowerCase()} --dport ${port}`
  return state.iptables(familyOf(address)).flatMap(({file, tables}) => {
    const chain = tables.get('nat')?.chains.get(name)
    if (!chain?.declared || chain.isReadyMade || chain.texts.some(({text}) => isFor(text))) return []
    return [{source: file, line: chain.line, text: `:${name} (${chain.length} rules): none for ${what}`}]
  })
}

/** What masquerades, link by link: each chain with what its rules must hold. */
const MASQUERADES: Readonly<Record<'nft' | 'iptables', readonly (readonly [chain: string, word: string])[]>> = {
  nft: [
    ['nat-postrouting', 'masquerading'],
    ['masquerading', 'masquerade'],
    ['mark-for-masquerade', 'mark'],
  ],
  iptables: [
    ['POSTROUTING', '-j KUBE-POSTROUTING'],
    ['KUBE-POSTROUTING', '-j MASQUERADE'],
    ['KUBE-MARK-MASQ', '-j MARK'],
  ],
}

/** The first link that is broken of what has marked packets masqueraded. */
export function brokenMasquerade(state: NodeState | undefined, address: Address): Evidence[] {
  const table = state && ownTable(state, address)
  const own = table
    ? MASQUERADES.nft.flatMap(([name, word]) => {
        const chain = table.chains.get(name)
        if (!chain || chain.rules.some(({text}) => text.includes(word))) return []
        return [
          {source: state.nft!.file, line: chain.line, text: `chain ${name} (${chain.rules.length} rules): no ${word}`},
        ]
      })
    : (state?.iptables(familyOf(address)) ?? []).flatMap(({file, tables}) => {
        const chains = tables.get('nat')?.chains
        if (!chains?.get('KUBE-POSTROUTING')?.declared) return []
        return MASQUERADES.iptables.flatMap(([name, word]) => {
          const chain = chains.get(name)
          if (!chain?.declared || chain.isReadyMade || chain.texts.some(({text}) => text.includes(word))) return []
          return [{source: file, line: chain.line, text: `:${name} (${chain.length} rules): no ${word}`}]
        })
      })
  return own.slice(0, 1)
}

/** The chain that a rule leads to, where it has no rules. */
export function emptyTarget(state: NodeState | undefined, {text}: Evidence, address: Address): Evidence[] {
  const name = /(?:-[jg]|goto|jump) (\S+)/.exec(text)?.[1] ?? ''
  const table = state && ownTable(state, address)
  const chain = table?.chains.get(name)
  if (chain?.rules.length === 0)
    return [{source: state!.nft!.file, line: chain.line, text: `chain ${name} has no rule`}]
  return (state?.iptables(familyOf(address)) ?? []).flatMap(({file, tables}) => {
    const called = tables.get('nat')?.chains.get(name)
    return called?.declared && called.length === 0
      ? [{source: file, line: called.line, text: `:${name} has no rule`}]
      : []
  })
}
