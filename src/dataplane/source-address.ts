import type {LocalAddress} from '../parse/iproute.js'
import {inRange, parseRange, prefixRange, type Address, type Range} from '../util/ip.js'

/** Of a device's own addresses the one in the next hop's network, else the first (net/ipv4/devinet.c, inet_select_addr). */
export function selectV4(own: readonly LocalAddress[], hop: Address | undefined): Address {
  const near =
    hop === undefined ? undefined : own.find(({address, length}) => inRange(hop, prefixRange(address, length)))
  return (near ?? own[0]!).address
}

/**
 * The source address for an IPv6 destination, of all addresses of the node (net/ipv6/addrconf.c, ipv6_dev_get_saddr;
 * RFC 6724 section 5, rules 1, 2, 3, 5, 6 and 8). Without a destination only scope and device count.
 */
export function selectV6(
  addresses: readonly LocalAddress[],
  {device, dst}: {device: string; dst: Address | undefined},
): Address | undefined {
  const wanted = dst === undefined ? GLOBAL : scopeOf(dst)
  const onlyDevice = wanted === LINK && dst !== 1n
  let best: {address: Address; score: readonly number[]} | undefined
  for (const own of addresses) {
    if (typeof own.address !== 'bigint' || (onlyDevice && own.device !== device)) continue
    const score = scoreOf(own, {device, dst, wanted})
    if (!best || isBetter(score, best.score)) best = {address: own.address, score}
  }
  return best?.address
}

const LINK = 2
const GLOBAL = 14

function scoreOf(
  {address, device: own, length, deprecated}: LocalAddress,
  {device, dst, wanted}: {device: string; dst: Address | undefined; wanted: number},
): number[] {
  const scope = scopeOf(address)
  return [
    Number(address === dst),
    scope >= wanted ? -scope : scope - 128,
    Number(!deprecated),
    Number(own === device),
    Number(dst !== undefined && labelOf(address) === labelOf(dst)),
    dst === undefined ? 0 : Math.min(commonBits(address, dst), length),
  ]
}

/** The first score that differs decides; of equals the first in the kernel's list stays. */
function isBetter(score: readonly number[], best: readonly number[]): boolean {
  const at = score.findIndex((value, index) => value !== best[index])
  return at >= 0 && score[at]! > best[at]!
}

const range = (text: string): Range => parseRange(text)!
const LINK_LOCAL = range('fe80::/10')
const SITE_LOCAL = range('fec0::/10')

/** Loopback counts as link-local (ipv6_addr_src_scope). */
function scopeOf(address: Address): number {
  if (address === 1n || inRange(address, LINK_LOCAL)) return LINK
  return inRange(address, SITE_LOCAL) ? 5 : GLOBAL
}

/** net/ipv6/addrlabel.c, ip6addrlbl_init_table; the longest prefix counts. */
const LABELS: readonly (readonly [Range, number])[] = [
  [range('::1/128'), 0],
  [range('::ffff:0:0/96'), 4],
  [range('::/96'), 3],
  [range('2001::/32'), 6],
  [range('2001:10::/28'), 7],
  [range('2002::/16'), 2],
  [range('fec0::/10'), 11],
  [range('fc00::/7'), 5],
]

const labelOf = (address: Address): number => LABELS.find(([prefix]) => inRange(address, prefix))?.[1] ?? 1

function commonBits(a: Address, b: Address): number {
  const different = BigInt(a) ^ BigInt(b)
  return different === 0n ? 128 : 128 - different.toString(2).length
}
