import {differenceOf, readAnswers, type AskedServer} from '../discovery/dns-answers.js'
import {clusterDomain, dnsService, recordsOf} from '../discovery/dns.js'
import type {ClusterState, Service} from '../model/kube.js'
import type {NodeState} from '../snapshot/node-state.js'
import {makeFinding, type Finding} from './finding.js'

const FILE = 'dns.json'
const FEW = 4

/** What the cluster's DNS servers said, where they were asked, against what they must say. */
export function checkDns(cluster: ClusterState, states: readonly NodeState[], services: readonly Service[]): Finding[] {
  return states.flatMap((state) => {
    const json = state.section(FILE).state === 'read' ? state.text(FILE) : undefined
    if (json === undefined) return []
    const asked = readAnswers(json)
    return [...silentServers(cluster, state, asked), ...wrongAnswers(cluster, state, {asked, services})]
  })
}

/** A server that answers nothing, or only with errors, is one finding, not one for each name. */
const isSilent = ({answers, failure}: AskedServer): boolean =>
  failure !== undefined || (answers.length > 0 && answers.every(({status}) => status !== 'NOERROR'))

function silentServers(cluster: ClusterState, state: NodeState, asked: readonly AskedServer[]): Finding[] {
  return asked.filter(isSilent).map((server) =>
    makeFinding('dns-server-fails', {
      services: [dnsService(cluster)?.id ?? 'kube-system/kube-dns'],
      node: state.name,
      frontends: [server.server],
      message: `DNS ${describe(server)} gives ${server.failure === undefined ? statusesOf(server) : 'no answer'}, asked from ${state.name}${domainDoubt(cluster, server)}${server.failure === undefined ? '' : `: ${server.failure}`}`,
      evidence: evidenceOf(state, server, server.failure ?? statusesOf(server)),
    }),
  )
}

/** Where every name is unknown, ours may be wrong, not theirs. */
function domainDoubt(cluster: ClusterState, server: AskedServer): string {
  const {domain, assumed} = clusterDomain(cluster)
  return assumed && server.answers.some(({status}) => status === 'NXDOMAIN')
    ? ` (is ${domain} the cluster’s domain? it is assumed)`
    : ''
}

const statusesOf = ({answers}: AskedServer): string => [...new Set(answers.map(({status}) => status))].join(', ')

function wrongAnswers(
  cluster: ClusterState,
  state: NodeState,
  {asked, services}: {asked: readonly AskedServer[]; services: readonly Service[]},
): Finding[] {
  const {domain} = clusterDomain(cluster)
  return services.flatMap((service) => {
    const names = new Set(recordsOf(cluster, service, domain).map(({name}) => name))
    return asked
      .filter((server) => !isSilent(server))
      .flatMap((server): Finding[] => {
        const wrong = server.answers
          .filter(({name}) => names.has(name))
          .flatMap((answer) => differenceOf(cluster, answer) ?? [])
        if (wrong.length === 0) return []
        const more = wrong.length > FEW ? `; and ${wrong.length - FEW} more` : ''
        return [
          makeFinding('dns-answer-wrong', {
            services: [service.id],
            node: state.name,
            frontends: [server.server],
            message: `DNS ${describe(server)}: ${wrong.slice(0, FEW).join('; ')}${more}`,
            evidence: evidenceOf(state, server, wrong[0]!),
          }),
        ]
      })
  })
}

const describe = ({server, kind, pod}: AskedServer): string =>
  kind === 'replica'
    ? `replica ${pod ?? server} (${server})`
    : kind === 'node cache'
      ? `cache of the node (${server})`
      : server

const evidenceOf = (state: NodeState, {server}: AskedServer, text: string): Finding['evidence'] => [
  {source: state.path(FILE), line: 0, text: `${server}: ${text}`},
]
