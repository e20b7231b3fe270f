import {differenceOf, questionsFor, readAnswers, type AskedServer} from '../discovery/dns-answers.js'
import {clusterDomain, dnsService} from '../discovery/dns.js'
import type {ClusterState, Service} from '../model/kube.js'
import type {NodeState} from '../snapshot/node-state.js'
import {plural} from '../util/text.js'
import {makeFinding, type Finding, type Incomplete} from './finding.js'

const FILE = 'dns.json'
const FEW = 4

export interface DnsCheck {
  readonly findings: readonly Finding[]
  /** What should have been asked and was not. */
  readonly incomplete: readonly Incomplete[]
}

/** What the cluster's DNS servers said, where they were asked, against what they must say. */
export function checkDns(cluster: ClusterState, states: readonly NodeState[], services: readonly Service[]): DnsCheck {
  const all = states.flatMap((state) => {
    const json = state.section(FILE).state === 'read' ? state.text(FILE) : undefined
    return json === undefined ? [] : [{state, ...readAnswers(json)}]
  })
  return {
    findings: all.flatMap(({state, asked: every}) => {
      const asked = every.filter((server) => !isOtherDomain(cluster, server))
      return [...silentServers(cluster, state, asked), ...wrongAnswers(cluster, state, {asked, services})]
    }),
    incomplete: all.flatMap(({state, asked, incomplete}) =>
      [
        ...incomplete,
        ...asked.flatMap((server) =>
          server.unasked === undefined ? [] : [`DNS ${describe(server)} could not be asked: ${server.unasked}`],
        ),
        ...asked
          .filter((server) => isOtherDomain(cluster, server))
          .map(
            (server) =>
              `DNS ${describe(server)} knows none of the names: ${clusterDomain(cluster).domain} is assumed and may not be the cluster’s domain`,
          ),
        ...unanswered(cluster, asked, services),
      ].map((reason) => ({node: state.name, reason})),
    ),
  }
}

/** Questions about the Services that nobody put to a server that answers. */
function unanswered(cluster: ClusterState, asked: readonly AskedServer[], services: readonly Service[]): string[] {
  return asked
    .filter((server) => server.unasked === undefined && !isSilent(server))
    .flatMap((server) => {
      const known = new Set(server.answers.map(({name, type}) => `${type} ${name}`))
      const open = services.filter((service) =>
        questionsFor(cluster, service).some(({name, type}) => !known.has(`${type} ${name}`)),
      )
      return open.length === 0
        ? []
        : [
            `DNS ${describe(server)} was not asked all about ${plural(open.length, 'Service')}: ${open[0]!.id}${open.length > 1 ? ' and others' : ''}`,
          ]
    })
}

/** A server that answers nothing, or only with errors, is one finding, not one for each name. */
const isSilent = ({answers, failure, unasked}: AskedServer): boolean =>
  unasked === undefined &&
  (failure !== undefined || (answers.length > 0 && answers.every(({status}) => status !== 'NOERROR')))

function silentServers(cluster: ClusterState, state: NodeState, asked: readonly AskedServer[]): Finding[] {
  return asked.filter(isSilent).map((server) =>
    makeFinding('dns-server-fails', {
      services: [dnsService(cluster)?.id ?? 'kube-system/kube-dns'],
      node: state.name,
      frontends: [server.server],
      message: `DNS ${describe(server)} gives ${server.failure === undefined ? statusesOf(server) : 'no answer'}, asked from ${state.name}${server.failure === undefined ? '' : `: ${server.failure}`}`,
      evidence: evidenceOf(state, server, server.failure ?? statusesOf(server)),
    }),
  )
}

/** Every name is unknown there, and the domain is only assumed: it may be ours that is wrong, not their answers. */
const isOtherDomain = (cluster: ClusterState, {answers}: AskedServer): boolean =>
  clusterDomain(cluster).assumed && answers.length > 0 && answers.every(({status}) => status === 'NXDOMAIN')

const statusesOf = ({answers}: AskedServer): string => [...new Set(answers.map(({status}) => status))].join(', ')

function wrongAnswers(
  cluster: ClusterState,
  state: NodeState,
  {asked, services}: {asked: readonly AskedServer[]; services: readonly Service[]},
): Finding[] {
  return services.flatMap((service) => {
    const names = new Set(questionsFor(cluster, service).map(({name}) => name))
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
