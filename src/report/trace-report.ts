import type {Discovery} from '../discovery/discover.js'
import type {Service} from '../model/kube.js'
import type {Fate, Receiver} from '../model/trace.js'
import type {TracedPath, TraceResult} from '../trace.js'
import {formatAddress, formatEndpoint, formatRange} from '../util/ip.js'

/** The JSON form of a trace (schema/trace-report.v1.schema.json): addresses as text, everything else as the library gives it. */
export interface TraceReport {
  readonly apiVersion: 'svc-trace/v1'
  readonly kind: 'TraceReport'
  readonly service: Pick<
    Service,
    | 'namespace'
    | 'name'
    | 'type'
    | 'clusterIPs'
    | 'headless'
    | 'ports'
    | 'externalTrafficPolicy'
    | 'internalTrafficPolicy'
    | 'affinityTimeout'
  >
  readonly nodes: TraceResult['proxies']
  /** Nodes that were not read on purpose: nothing is said about them. */
  readonly leftOut: readonly string[]
  readonly endpoints: readonly (Omit<TraceResult['endpoints'][number]['endpoints'][number], 'address' | 'port'> & {
    readonly servicePort: string
    readonly address: string
  })[]
  readonly paths: readonly (Omit<TracedPath, 'parts'> & {readonly parts: readonly PartReport[]})[]
  readonly findings: TraceResult['findings']
  readonly incomplete: TraceResult['incomplete']
  readonly discovery: Discovery
  /** The way to the cluster DNS, where a server of it fails. */
  readonly dns?: TraceReport
  /** The ways from outside through plain ports of ingress-nginx. */
  readonly plain?: readonly TraceReport[]
  readonly problems: readonly {
    readonly source: string
    readonly line: number
    readonly message: string
    readonly text?: string
  }[]
}

interface PartReport {
  readonly clients: readonly string[]
  readonly fates: readonly FateReport[]
  readonly alternatives: readonly FateReport[]
}

interface FateReport extends Omit<Fate, 'receiver' | 'source'> {
  readonly source?: string
  readonly receiver?: Omit<Receiver, 'address'> & {readonly address: string}
}

export function traceReport(result: TraceResult): TraceReport {
  const {endpoints, proxies, leftOut, paths, findings, incomplete, problems, discovery, dns, plain} = result
  return {
    apiVersion: 'svc-trace/v1',
    kind: 'TraceReport',
    service: serviceReport(result.service),
    nodes: proxies,
    leftOut,
    endpoints: endpoints.flatMap(({port, endpoints: own}) =>
      own.map(({address, port: number, ...rest}) => ({
        servicePort: `${port.port}/${port.protocol}`,
        address: formatEndpoint(address, number),
        ...rest,
      })),
    ),
    paths: paths.map(({parts, ...path}) => ({
      ...path,
      parts: parts.map(({clients, fates, alternatives}) => ({
        clients: clients.map(formatRange),
        fates: fates.map(fateReport),
        alternatives: alternatives.map(fateReport),
      })),
    })),
    findings,
    incomplete,
    discovery,
    ...(dns ? {dns: traceReport(dns)} : {}),
    ...(plain.length > 0 ? {plain: plain.map(traceReport)} : {}),
    problems: problems.map(({file, line, message, text}) => ({
      source: file,
      line,
      message,
      ...(text === undefined ? {} : {text}),
    })),
  }
}

function serviceReport(service: TraceResult['service']): TraceReport['service'] {
  const {namespace, name, type, clusterIPs, headless, ports, affinityTimeout} = service
  const {externalTrafficPolicy, internalTrafficPolicy} = service
  return {
    namespace,
    name,
    type,
    clusterIPs,
    headless,
    ports,
    externalTrafficPolicy,
    internalTrafficPolicy,
    ...(affinityTimeout === undefined ? {} : {affinityTimeout}),
  }
}

function fateReport({receiver, source, ...fate}: Fate): FateReport {
  return {
    ...fate,
    ...(source === undefined ? {} : {source: formatAddress(source)}),
    ...(receiver ? {receiver: {...receiver, address: formatEndpoint(receiver.address, receiver.port)}} : {}),
  }
}
