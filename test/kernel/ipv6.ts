/** The same rules and packets in IPv6: every address a.b.c.d becomes fd00::aabb:ccdd, every prefix grows by 96 bits. */
import type {Part, Shot} from './lab.js'

const ADDRESS = String.raw`\b(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\b`

function map(octets: readonly string[]): string {
  const [a, b, c, d] = octets.map(Number) as [number, number, number, number]
  if (a === 127) return '::1'
  if (a === 255) return `ffff:ffff:ffff:ffff:ffff:ffff:${hex(a, b)}:${hex(c, d)}`
  return `fd00::${hex(a, b)}:${hex(c, d)}`
}

const hex = (high: number, low: number): string => ((high << 8) | low).toString(16)

/** One address. */
export const toV6 = (address: string): string => (address === '' ? '' : map(address.split('.')))

/** All addresses of a text, with their prefixes; `address:port` gets its brackets. */
export function addresses(text: string): string {
  return text
    .replaceAll(new RegExp(`${ADDRESS}/(\\d+)`, 'g'), (_, ...parts: string[]) => {
      const address = map(parts.slice(0, 4))
      return `${address}/${address === '::1' ? 128 : Number(parts[4]) + 96}`
    })
    .replaceAll(
      new RegExp(`${ADDRESS}:(\\d+)`, 'g'),
      (_, ...parts: string[]) => `[${map(parts.slice(0, 4))}]:${parts[4]}`,
    )
    .replaceAll(new RegExp(ADDRESS, 'g'), (_, ...parts: string[]) => map(parts.slice(0, 4)))
}

/** Words that the other family calls otherwise; words that it does not have get a neighbour. */
const WORDS: Readonly<Record<Part['tool'], readonly (readonly [RegExp, string])[]>> = {
  ipset: [
    [/^create (\S+) bitmap:ip range \S+( netmask \d+)?$/gm, 'create $1 hash:ip family inet6$2'],
    [/^create (\S+) (hash:\S+)( netmask \d+)?$/gm, 'create $1 $2 family inet6$3'],
  ],
  'iptables-legacy': [],
  'iptables-nft': [],
  nft: [
    [/\btable ip t/g, 'table ip6 t'],
    [/ipv4_addr/g, 'ipv6_addr'],
    [/\bip protocol\b/g, 'ip6 nexthdr'],
    [/\bip (saddr|daddr)\b/g, 'ip6 $1'],
    [/\b(dnat|snat) ip to\b/g, '$1 ip6 to'],
    [/nfproto ipv4/g, 'nfproto ipv6'],
    [/with icmp host-unreachable/g, 'with icmpv6 addr-unreachable'],
    [/with icmp /g, 'with icmpv6 '],
    [/\bicmp\b/g, 'icmpv6'],
  ],
  sh: [
    [/ip (route|rule) /g, 'ip -6 $1 '],
    [/net\.ipv4\.ip_forward/g, 'net.ipv6.conf.all.forwarding'],
    [/bridge-nf-call-iptables/g, 'bridge-nf-call-ip6tables'],
  ],
}
const TABLES: readonly (readonly [RegExp, string])[] = [
  [/-p icmp\b/g, '-p ipv6-icmp'],
  [/-m icmp ((?:! )?)--icmp-type (3|destination-unreachable)\b/g, '-m icmp6 $1--icmpv6-type 1'],
  [/-m icmp ((?:! )?)--icmp-type \S+/g, '-m icmp6 $1--icmpv6-type 128'],
  [/--reject-with icmp-port-unreachable/g, '--reject-with icmp6-port-unreachable'],
  [/--reject-with icmp-host-unreachable/g, '--reject-with icmp6-addr-unreachable'],
  [/--reject-with icmp-net-unreachable/g, '--reject-with icmp6-no-route'],
  [/--reject-with icmp-(?:admin-prohibited|host-prohibited|proto-unreachable)/g, '--reject-with icmp6-adm-prohibited'],
  [/-type BROADCAST/g, '-type MULTICAST'],
  [/-j ECN --ecn-tcp-remove/g, '-j HL --hl-inc 1'],
]

const said = (text: string, words: readonly (readonly [RegExp, string])[]): string =>
  words.reduce((rest, [from, to]) => rest.replaceAll(from, to), text)

/** iptables' words, addresses left as they are. */
export const rulesToV6 = (text: string): string => said(text, TABLES)
/** ipset's words. */
export const setsToV6 = (text: string): string => said(text, WORDS.ipset)

/** Sysctls that only IPv4 has. */
const ONLY_V4 = /net\.ipv4\.conf/

/** What is loaded, in IPv6; undefined where there is nothing like it. */
export function partToV6({tool, text}: Part): Part | undefined {
  if (tool === 'sh' && ONLY_V4.test(text)) return undefined
  const words = tool === 'iptables-legacy' || tool === 'iptables-nft' ? TABLES : WORDS[tool]
  return {tool, family: 6, text: addresses(said(text, words))}
}

export const shotToV6 = (shot: Shot): Shot => ({...shot, src: toV6(shot.src), dst: toV6(shot.dst)})
