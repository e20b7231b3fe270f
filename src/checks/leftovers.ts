import type {ProxyFacts} from '../intent/proxy-facts.js'
import type {ClusterState, Service} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import type {VirtualServer} from '../parse/ipvs.js'
import type {NodeState} from '../snapshot/node-state.js'
import {formatAddress, parseAddress} from '../util/ip.js'
import {makeFinding, type Finding} from './finding.js'
import {evidenceOfSign, secondProxy} from './proxy.js'

interface Checked {
  readonly state: NodeState
  readonly proxy: ProxyFacts
  readonly cluster: ClusterState
  readonly services: readonly Service[]
}

interface Leftover {
  readonly what: string
  readonly evidence: Evidence
  /** Services that it is about, as far as it tells. */
  readonly names: readonly string[]
}

/** What another mode of kube-proxy, or another proxy, has left on a node. */
export function leftovers(node: Checked): Finding[] {
  const {state, proxy} = node
  if (proxy.mode === undefined) return []
  const found = [chains, dummyDevice, virtualServers, nftTable].flatMap((look) => look(node) ?? [])
  const told = found.map(({what, evidence, names}) =>
    makeFinding('mode-leftovers', {
      node: state.name,
      services: names,
      message: `kube-proxy on ${state.name} runs in ${proxy.mode} mode, but ${what} of another mode ${what.endsWith('s') ? 'are' : 'is'} still there`,
      evidence: [evidence],
    }),
  )
  const other = secondProxy(state)
  if (other === undefined) return told
  const second = makeFinding('mode-leftovers', {
    node: state.name,
    message: `kube-proxy on ${state.name} runs in ${proxy.mode} mode, but a ${other.sign.kind} of ${other.name} is there`,
    evidence: [evidenceOfSign(other.sign)],
  })
  return [...told, second]
}

/** What a comment of kube-proxy's says, in either form: `--comment "ns/name:port …"`, `/* ns/name:port … *\/`. */
const COMMENTED = /(?:--comment "?|\/\* )([^\s":]+)/

function chains({state, proxy, services}: Checked): Leftover | undefined {
  if (proxy.mode === 'iptables' || proxy.mode === 'userspace') return undefined
  const own = state
    .iptables(4)
    .flatMap(({file, tables}) => [...(tables.get('nat')?.chains.values() ?? [])].map((chain) => ({file, chain})))
    .filter(({chain}) => chain.name.startsWith('KUBE-'))
  const first = own.find(({chain}) => /^KUBE-(SVC|SEP)-/.test(chain.name) && chain.length > 0)
  if (!first) return undefined
  const named = new Set(own.flatMap(({chain}) => chain.lines.flatMap(({text}) => COMMENTED.exec(text)?.[1] ?? [])))
  const {line, text} = first.chain.lines[0]!
  return {
    what: 'iptables-mode chains',
    evidence: {source: first.file, line, text},
    names: services.filter(({id}) => named.has(id)).map(({id}) => id),
  }
}

function dummyDevice({state, proxy, cluster}: Checked): Leftover | undefined {
  if (proxy.mode === 'ipvs' || !state.links.some(({name}) => name === 'kube-ipvs0')) return undefined
  const held = new Set(
    state.addresses.filter(({device}) => device === 'kube-ipvs0').map(({address}) => formatAddress(address)),
  )
  return {
    what: 'device kube-ipvs0',
    evidence: {source: state.ipPath('ip-link'), line: 0, text: 'kube-ipvs0'},
    names: cluster.services.filter(({clusterIPs}) => clusterIPs.some((ip) => held.has(ip))).map(({id}) => id),
  }
}

/** On Services' addresses, in a mode that makes none; others on the node are their owner's matter. */
function virtualServers({state, proxy, cluster}: Checked): Leftover | undefined {
  const servers: readonly VirtualServer[] = state.ipvs?.virtualServers ?? []
  if (proxy.mode === 'ipvs' || servers.length === 0) return undefined
  const virtual = new Set(cluster.services.flatMap(({clusterIPs}) => clusterIPs.map(parseAddress)))
  const found = servers.filter(({address}) => address !== undefined && virtual.has(address))
  const [first] = found
  return (
    first && {
      what: `${found.length} IPVS virtual servers`,
      evidence: {source: first.file, line: first.line, text: first.text},
      names: [],
    }
  )
}

function nftTable({state, proxy}: Checked): Leftover | undefined {
  const table = [...(state.nft?.tables.values() ?? [])].find(
    ({name, chains: held}) => name === 'kube-proxy' && held.size > 0,
  )
  if (proxy.mode === 'nftables' || !table) return undefined
  const [first] = table.chains.values()
  return {
    what: 'nftables table kube-proxy',
    evidence: {
      source: state.nft!.file,
      line: first!.line,
      text: `table ${table.family} kube-proxy, chain ${first!.name}`,
    },
    names: [],
  }
}
