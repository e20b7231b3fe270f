import type {Finding} from '../checks/finding.js'
import type {Evidence} from '../model/trace.js'

/** Dumps of rules: their lines are the same tomorrow, unlike those of sockets, flows and logs. */
const RULES = /(tables|nft|ipset|ipvs)[^/]*$/
/** Of iptables-save, nft (text and JSON), ipvsadm -Ln (the last two columns), and how many members a set has. */
const COUNTERS =
  /\bpackets \d+ bytes \d+\b|\[\d+:\d+\] |"packets":\s*\d+,\s*"bytes":\s*\d+|(?<=^\s*-> .*)\s+\d+\s+\d+\s*$|\(\d+ members\)/g

/**
 * The same finding tomorrow: what it is about, how bad it is, and the rule that decides, not its words and not where the rule stands.
 * Another rule with the same victims, or more of them, is a new finding.
 */
export function fingerprint({code, severity, node, services, port, frontends, evidence}: Finding): string {
  const rule = evidence.find(({source}) => source.startsWith('nodes/')) ?? evidence.find(isLasting)
  return [
    code,
    severity,
    node ?? '',
    [...services].sort().join(','),
    port ?? '',
    [...frontends].sort().join(','),
    rule ? lastingText(rule) : '',
  ].join('|')
}

/** Pods and slices are others tomorrow; Services are named by the finding itself. */
const isLasting = ({source}: Evidence): boolean => !/^api\/(pods|endpointslices|endpoints|services)\.json$/.test(source)

/** What is left of a line when everything is taken out that changes by itself. */
function lastingText({source, text, object}: Evidence): string {
  if (object !== undefined) return `${object} ${text}`
  if (LISTING.test(source)) return text.replace(LISTED_COUNTERS, '')
  if (RULES.test(source)) return text.replaceAll(COUNTERS, '')
  // a route is told by the way of one packet: which pod of a network it was for is chance
  return ROUTES.test(source) ? text.replaceAll(/\b(\d+\.\d+\.\d+)\.\d+\b/g, '$1.*') : ''
}

const LISTING = /-L\.txt$/
/** The rule's number, packets, bytes. */
const LISTED_COUNTERS = /^\s*(?:\d+[KMGT]?\s+){1,3}(?=\S)/
const ROUTES = /\/ip-route6?\.json$/
