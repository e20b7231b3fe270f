import type {Balancer} from '../discovery/balancer.js'
import type {Discovery, Lookup} from '../discovery/discover.js'
import type {CnameChain} from '../discovery/dns.js'
import type {GatewayRoute} from '../discovery/gateway.js'
import type {IngressRoute} from '../discovery/ingress.js'
import {safeLine} from '../util/text.js'
import {wrap} from './paint.js'
import type {Style} from './trace-text.js'

/** How clients find the Service, beyond the names in the head: a pod's lookup; with -o wide the records and variables. */
export function discoveryText(discovery: Discovery, style: Style): string {
  const {lookup, records, variables, domain, domainAssumed, asked} = discovery
  const rows = (title: string, lines: readonly string[]): string =>
    lines.length === 0
      ? ''
      : `\n${style.ink.bold(wrap(safeLine(title), style.width, '  '))}\n${lines.map((line) => `  ${wrap(safeLine(line), style.width - 2, '    ')}\n`).join('')}`
  const zone = `${domain}${domainAssumed ? ', assumed' : ''}${asked ? '' : '; not asked, see --ask-dns'}`
  return [
    lookup
      ? rows(`name lookup of ${safeLine(lookup.name)} from pod ${safeLine(lookup.pod)}`, lookupLines(lookup, asked))
      : '',
    ...(style.wide
      ? [
          rows(
            `DNS records that must exist (cluster domain ${zone})`,
            records.map(({name, type, data}) => `${name} ${type} ${data}`),
          ),
          rows(
            'environment variables of pods in its namespace',
            variables.map(({name, value}) => `${name}=${value}`),
          ),
        ]
      : []),
  ].join('')
}

function lookupLines({resolver, steps}: Lookup, asked: boolean): string[] {
  const {nameservers, ndots, notes} = resolver
  return [
    `asks ${nameservers.join(', ') || 'nobody that is known'}; ndots ${ndots}`,
    ...steps.map(({question, answer, records}) =>
      answer === 'found'
        ? `${question}: ${records.map(({type, data}) => `${type} ${data}`).join(', ')}`
        : `${question}: ${answer}`,
    ),
    ...(steps.some(({answer}) => answer === 'found') ? [] : ['no question finds the Service']),
    ...notes.map((note) => `(${note})`),
    ...(asked ? [] : ['(this is what must be; the servers were not asked: --ask-dns)']),
  ]
}

/** What the balancer in front has to go by. */
export function balancerText({
  addresses,
  nodePorts,
  healthCheckNodePort,
  nodes,
  failing,
  events,
  eventsRead,
}: Balancer): string {
  const state =
    addresses.length > 0
      ? addresses.join(', ')
      : `pending: ${events.join('; ') || `no address yet; ${eventsRead ? 'no event tells why (is there a controller for load balancers?)' : 'its events were not read: kubectl get events'}`}`
  const probe = healthCheckNodePort === undefined ? '' : `; health check on port ${healthCheckNodePort}`
  const lost = failing.length > 0 ? `, not ${failing.join(', ')} (no ready endpoint there)` : ''
  const behind =
    nodePorts.length > 0
      ? `; NodePort ${nodePorts.join(', ')} behind it`
      : '; no NodePorts: it must keep the address, or send to pods'
  return `${state}${behind}${probe}; it may use ${nodes.join(', ') || 'no node'}${lost}`
}

/** Where an ExternalName goes, and what that means for clients. */
export function cnameText({names, end, service}: CnameChain): string {
  const chain = names.join(' → ')
  switch (end) {
    case 'service':
      return `${chain}${service === undefined ? '' : ` (Service ${service})`}; its ports and TLS names are those of the target`
    case 'outside':
      return `${chain}, outside the cluster; its ports and TLS names are those of the target`
    case 'missing':
      return `${chain}, which does not exist`
    default:
      return `${chain}, a circle`
  }
}

export const ingressText = ({ingress, host, path, port}: IngressRoute): string =>
  `${ingress} ${host || '*'}${path} → ${port}`

export function gatewayText({route, hostnames, matches, port, share, gateways, problems}: GatewayRoute): string {
  const what = `${hostnames.join(',') || '*'}${matches.length > 0 ? ` ${matches.join(', ')}` : ''}`
  const weight = share === 1 ? '' : ` (${Math.round(share * 100)} %)`
  const broken = problems.length === 0 ? '' : `; broken: ${problems.join('; ')}`
  return `${route} ${what} → ${port ?? '?'}${weight} by Gateway ${gateways.join(', ')}${broken}`
}
