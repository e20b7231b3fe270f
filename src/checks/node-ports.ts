import {isProxied, nodePortFrontends, type Frontend} from '../intent/frontends.js'
import type {ProxyFacts} from '../intent/proxy-facts.js'
import type {ClusterState, Service} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import type {NodeState} from '../snapshot/node-state.js'
import {formatAddress, formatEndpoint} from '../util/ip.js'
import {makeFinding, type Finding} from './finding.js'

interface Checked {
  readonly state: NodeState
  readonly proxy: ProxyFacts
  readonly cluster: ClusterState
  readonly services: readonly Service[]
}

/** A NodePort that something lacks. */
interface Lack extends Missing {
  readonly service: Service
  readonly port: string
  readonly frontend: Frontend
}

/**
 * In ipvs mode a NodePort needs a set member (masquerade) and a virtual server on each node address. A missing member
 * may hide behind somebody else's masquerade, so the walk does not always show it. What one set lacks is one finding.
 */
export function nodePortEntries({state, proxy, cluster, services}: Checked): Finding[] {
  if (proxy.mode !== 'ipvs' || !state.ipsets) return []
  const lacks = services.filter(isProxied).flatMap((service) =>
    service.ports.flatMap((port) =>
      nodePortFrontends(cluster, service, {port, proxy})
        .filter(({kind, address}) => kind === 'nodePort' && typeof address === 'number')
        .flatMap((frontend): Lack[] => {
          const missing = missingMember(state, frontend) ?? missingServer(state, frontend)
          return missing ? [{...missing, service, port: `${port.port}/${port.protocol}`, frontend}] : []
        }),
    ),
  )
  const groups = new Map<string, Lack[]>()
  for (const lack of lacks) {
    const key = `${lack.severity} ${lack.evidence.source}:${lack.evidence.line}`
    groups.set(key, [...(groups.get(key) ?? []), lack])
  }
  return [...groups.values()].map((group) => lackFinding(state, group))
}

function lackFinding(state: NodeState, [first, ...others]: readonly Lack[]): Finding {
  const {service, frontend, what, severity, evidence, port} = first!
  const all = [first!, ...others]
  const more = others.length > 0 ? `, and so with ${others.length} more` : ''
  return makeFinding('node-port-not-programmed', {
    node: state.name,
    services: [...new Set(all.map((lack) => lack.service.id))],
    ...(others.length === 0 ? {port} : {}),
    severity,
    message: `NodePort ${frontend.port}/${frontend.protocol} of ${service.id} ${what} on ${state.name}${more}`,
    evidence: [evidence],
    frontends: [...new Set(all.map((lack) => formatEndpoint(lack.frontend.address, lack.frontend.port)))],
  })
}

interface Missing {
  readonly what: string
  readonly evidence: Evidence
  readonly severity: 'error' | 'warning'
}

function missingMember(state: NodeState, {port, protocol, address}: Frontend): Missing | undefined {
  const set = state.ipsets!.sets.get(protocol === 'SCTP' ? 'KUBE-NODE-PORT-SCTP-HASH' : `KUBE-NODE-PORT-${protocol}`)
  if (!set || set.type === 'list:set') return undefined
  const wanted =
    set.type === 'bitmap:port' ? String(port) : `${formatAddress(address)},${protocol.toLowerCase()}:${port}`
  if (set.entries.some(({parts}) => parts.join(',') === wanted)) return undefined
  return {
    what: `is not a member of ipset ${set.name}`,
    severity: 'warning',
    evidence: {source: set.file, line: set.line, text: `${set.name} (${set.entries.length} members)`},
  }
}

/** Only for a listing that is not whole; in a whole one the walk itself finds it. */
function missingServer(state: NodeState, {port, protocol, address}: Frontend): Missing | undefined {
  const {ipvs} = state
  if (
    !ipvs?.partial ||
    ipvs.virtualServers.some(
      (server) => server.address === address && server.port === port && server.protocol === protocol,
    )
  )
    return undefined
  const near =
    ipvs.virtualServers.find((server) => server.port === port && server.protocol === protocol) ?? ipvs.virtualServers[0]
  if (!near) return undefined
  return {
    what: `has no virtual server on ${formatAddress(address)}`,
    severity: 'error',
    evidence: {source: near.file, line: near.line, text: near.text},
  }
}
