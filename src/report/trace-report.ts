import type {Fate} from '../model/trace.js'
import type {TraceResult} from '../trace.js'
import {formatAddress, formatEndpoint, formatRange} from '../util/ip.js'

/** The JSON form of a trace: addresses as text, everything else as the library gives it. */
export function traceReport({
  service,
  endpoints,
  proxies,
  paths,
  findings,
  incomplete,
  problems,
  discovery,
  dns,
}: TraceResult): object {
  return {
    apiVersion: 'svc-trace/v1',
    kind: 'TraceReport',
    service: {
      namespace: service.namespace,
      name: service.name,
      type: service.type,
      clusterIPs: service.clusterIPs,
      headless: service.headless,
      ports: service.ports,
      externalTrafficPolicy: service.externalTrafficPolicy,
      internalTrafficPolicy: service.internalTrafficPolicy,
      affinityTimeout: service.affinityTimeout,
    },
    nodes: proxies,
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
    problems: problems.map(({file, line, message, text}) => ({
      source: file,
      line,
      message,
      ...(text === undefined ? {} : {text}),
    })),
  }
}

function fateReport({receiver, source, ...fate}: Fate): object {
  return {
    ...fate,
    ...(source === undefined ? {} : {source: formatAddress(source)}),
    ...(receiver ? {receiver: {...receiver, address: formatEndpoint(receiver.address, receiver.port)}} : {}),
  }
}
