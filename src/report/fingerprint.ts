import type {Finding} from '../checks/finding.js'

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
  const rule = evidence.find(({source}) => source.startsWith('nodes/'))
  const text = rule && RULES.test(rule.source) ? rule.text.replaceAll(COUNTERS, '') : ''
  return [
    code,
    severity,
    node ?? '',
    [...services].sort().join(','),
    port ?? '',
    [...frontends].sort().join(','),
    text,
  ].join('|')
}
