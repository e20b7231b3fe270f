/** What people post of a node are often listings: the same as `-save` would have printed, so that a kernel can load it. */
import type {IpsetDump} from '../../src/parse/ipset.js'
import type {IptablesDump} from '../../src/parse/iptables.js'
import {printRule} from '../../src/parse/iptables-rule.js'
import type {IpvsDump, VirtualServer} from '../../src/parse/ipvs.js'
import {formatAddress, formatEndpoint} from '../../src/util/ip.js'

export function iptablesText({tables}: IptablesDump): string {
  return [...tables.values()]
    .flatMap(({name, chains}) => [
      `*${name}`,
      ...[...chains.values()].map((chain) => `:${chain.name} ${chain.policy ?? '-'} [0:0]`),
      ...[...chains.values()].flatMap(({rules}) => rules.map(printRule)),
      'COMMIT',
    ])
    .join('\n')
}

/** Members go in when all sets are there: a list:set names others. */
export function ipsetText({sets}: IpsetDump): string {
  const options = (all: ReadonlyMap<string, string>): string =>
    [...all].map(([name, value]) => ` ${name} ${value}`).join('')
  return [
    ...[...sets.values()].map(
      (set) =>
        `create ${set.name} ${set.type}${set.type.startsWith('hash') ? ` family ${set.family}` : ''}${options(new Map([...set.options].filter(([name]) => NEEDED.has(name))))}`,
    ),
    ...[...sets.values()].flatMap(({name, entries}) =>
      entries.map(({parts, nomatch}) => `add ${name} ${parts.join(',')}${nomatch ? ' nomatch' : ''}`),
    ),
  ].join('\n')
}

const NEEDED = new Set(['range', 'netmask', 'timeout', 'maxelem', 'hashsize'])
const METHODS = {Masq: '-m', Route: '-g', Tunnel: '-i', Local: '-m'} as const

export function ipvsText({virtualServers}: IpvsDump): string {
  return virtualServers
    .flatMap((server) => {
      const place = placeOf(server)
      const stays = server.persistent === undefined ? '' : ` -p ${server.persistent}`
      return [
        `-A ${place} -s ${server.scheduler}${stays}`,
        ...server.realServers.map(
          (real) =>
            `-a ${place} -r ${formatEndpoint(real.address, real.port)} ${METHODS[real.forward]} -w ${real.weight}`,
        ),
      ]
    })
    .join('\n')
}

function placeOf({protocol, address, port, mark}: VirtualServer): string {
  if (protocol === 'FWM' || address === undefined)
    return `-f ${mark}${address !== undefined && formatAddress(address).includes(':') ? ' -6' : ''}`
  return `${{TCP: '-t', UDP: '-u', SCTP: '--sctp-service'}[protocol]} ${formatEndpoint(address, port)}`
}
