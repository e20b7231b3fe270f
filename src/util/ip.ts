/**
 * An IP address: IPv4 as a `number` (0 … 2³²−1), IPv6 as a `bigint` (0 … 2¹²⁸−1). The JavaScript type is the family,
 * and `===` and `<` compare two addresses of one family.
 */
export type Address = number | bigint

/** A closed range of addresses of one family. A prefix is a range; so is a single address. */
export interface Range {
  readonly lo: Address
  readonly hi: Address
}

export type Family = 4 | 6

export const familyOf = (address: Address): Family => (typeof address === 'number' ? 4 : 6)

/** Parses `10.0.0.1` or `fd00::1` (also in brackets or with a zone); undefined when it is neither. */
export function parseAddress(text: string): Address | undefined {
  if (text.includes(':')) return parseIPv6(text)
  return parseIPv4(text)
}

function parseIPv4(text: string): number | undefined {
  let value = 0
  let octet = -1
  let dots = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 46) {
      if (octet < 0 || ++dots > 3) return undefined
      value = value * 256 + octet
      octet = -1
    } else {
      if (code < 48 || code > 57) return undefined
      octet = (octet < 0 ? 0 : octet) * 10 + code - 48
      if (octet > 255) return undefined
    }
  }
  return dots === 3 && octet >= 0 ? value * 256 + octet : undefined
}

function parseIPv6(text: string): bigint | undefined {
  let body = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text
  const zone = body.indexOf('%')
  if (zone >= 0) body = body.slice(0, zone)
  const lastColon = body.lastIndexOf(':')
  if (body.includes('.')) {
    const v4 = parseIPv4(body.slice(lastColon + 1))
    if (v4 === undefined) return undefined
    body = `${body.slice(0, lastColon + 1)}${Math.floor(v4 / 65536).toString(16)}:${(v4 % 65536).toString(16)}`
  }
  const halves = body.split('::')
  if (halves.length > 2) return undefined
  const head = groups(halves[0]!)
  const tail = halves.length === 2 ? groups(halves[1]!) : []
  if (!head || !tail) return undefined
  const missing = 8 - head.length - tail.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
  let value = 0n
  for (const group of [...head, ...new Array<number>(missing).fill(0), ...tail]) value = (value << 16n) | BigInt(group)
  return value
}

function groups(text: string): number[] | undefined {
  if (text === '') return []
  const parts = text.split(':')
  if (!parts.every((part) => /^[0-9a-f]{1,4}$/i.test(part))) return undefined
  return parts.map((part) => Number.parseInt(part, 16))
}

/** Prints an address as the kernel's tools do (RFC 5952 for IPv6). */
export function formatAddress(address: Address): string {
  if (typeof address === 'number') {
    return `${Math.floor(address / 16777216)}.${Math.floor(address / 65536) % 256}.${Math.floor(address / 256) % 256}.${address % 256}`
  }
  return formatIPv6(address)
}

function formatIPv6(address: bigint): string {
  const parts: number[] = []
  for (let shift = 112n; shift >= 0n; shift -= 16n) parts.push(Number((address >> shift) & 0xffffn))
  let start = -1
  let length = 1
  for (let at = 0; at < 8; at++) {
    let end = at
    while (end < 8 && parts[end] === 0) end++
    if (end - at > length) [start, length] = [at, end - at]
  }
  const hex = parts.map((part) => part.toString(16))
  if (start < 0) return hex.join(':')
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`
}

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export function formatEndpoint(address: Address, port: number | undefined): string {
  const host = typeof address === 'bigint' ? `[${formatAddress(address)}]` : formatAddress(address)
  return port === undefined ? host : `${host}:${port}`
}

/** Parses `10.0.0.1:80`, `[fd00::1]:80`; undefined when either half is missing. */
export function parseEndpoint(text: string): {address: Address; port: number} | undefined {
  const colon = text.lastIndexOf(':')
  if (colon < 0 || !/^\d{1,5}$/.test(text.slice(colon + 1))) return undefined
  const host = text.slice(0, colon)
  if (host.includes(':') && !host.startsWith('[')) return undefined
  const address = parseAddress(host)
  const port = Number(text.slice(colon + 1))
  return address === undefined || port > 65535 ? undefined : {address, port}
}

/** The range of `address/length`; bits behind the length are ignored, as the kernel does. */
export function prefixRange(address: Address, length: number): Range {
  if (typeof address === 'number') {
    const size = 2 ** (32 - length)
    const lo = Math.floor(address / size) * size
    return {lo, hi: lo + size - 1}
  }
  const host = BigInt(128 - length)
  const lo = (address >> host) << host
  return {lo, hi: lo + (1n << host) - 1n}
}

/** Parses `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, a bare address or `a-b`; undefined for anything else. */
export function parseRange(text: string): Range | undefined {
  const slash = text.indexOf('/')
  if (slash >= 0) return parsePrefix(text.slice(0, slash), text.slice(slash + 1))
  const dash = text.indexOf('-')
  if (dash >= 0) {
    const lo = parseAddress(text.slice(0, dash))
    const hi = parseAddress(text.slice(dash + 1))
    return lo === undefined || hi === undefined || typeof lo !== typeof hi || hi < lo ? undefined : {lo, hi}
  }
  const address = parseAddress(text)
  return address === undefined ? undefined : {lo: address, hi: address}
}

function parsePrefix(host: string, mask: string): Range | undefined {
  const address = parseAddress(host)
  if (address === undefined) return undefined
  if (/^\d{1,3}$/.test(mask)) {
    const length = Number(mask)
    return length <= (typeof address === 'number' ? 32 : 128) ? prefixRange(address, length) : undefined
  }
  const bits = parseAddress(mask)
  if (bits === undefined || typeof bits !== typeof address) return undefined
  const length = maskLength(bits)
  return length === undefined ? undefined : prefixRange(address, length)
}

/** The prefix length of a contiguous netmask; undefined for a mask with holes. */
export function maskLength(mask: Address): number | undefined {
  const width = typeof mask === 'number' ? 32 : 128
  const bits = BigInt(mask).toString(2).padStart(width, '0')
  const length = bits.indexOf('0') < 0 ? width : bits.indexOf('0')
  return bits.slice(length).includes('1') ? undefined : length
}

export const inRange = (address: Address, range: Range): boolean =>
  typeof address === typeof range.lo && address >= range.lo && address <= range.hi

export const single = (address: Address): Range => ({lo: address, hi: address})

export const ANY_IPV4: Range = {lo: 0, hi: 2 ** 32 - 1}
export const ANY_IPV6: Range = {lo: 0n, hi: (1n << 128n) - 1n}
export const anyOf = (family: Family): Range => (family === 4 ? ANY_IPV4 : ANY_IPV6)

const LOOPBACK4 = prefixRange(2130706432, 8)
export const isLoopback = (address: Address): boolean =>
  typeof address === 'number' ? inRange(address, LOOPBACK4) : address === 1n

const plus = (address: Address, by: 1 | -1): Address =>
  typeof address === 'number' ? address + by : address + BigInt(by)

/** The part of a set of ranges that lies inside one range, and the rest. */
export function splitRanges(ranges: readonly Range[], by: Range): {inside: Range[]; outside: Range[]} {
  const inside: Range[] = []
  const outside: Range[] = []
  for (const range of ranges) {
    const lo = range.lo > by.lo ? range.lo : by.lo
    const hi = range.hi < by.hi ? range.hi : by.hi
    if (typeof range.lo !== typeof by.lo || lo > hi) {
      outside.push(range)
      continue
    }
    inside.push({lo, hi})
    if (range.lo < lo) outside.push({lo: range.lo, hi: plus(lo, -1)})
    if (range.hi > hi) outside.push({lo: plus(hi, 1), hi: range.hi})
  }
  return {inside, outside}
}

/** How many addresses the ranges hold, as a float: good enough for shares. */
export const countAddresses = (ranges: readonly Range[]): number =>
  ranges.reduce((sum, {lo, hi}) => sum + Number(BigInt(hi) - BigInt(lo)) + 1, 0)

/** Sorts ranges and joins neighbours. */
export function normalizeRanges(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) =>
    typeof a.lo === typeof b.lo ? (a.lo < b.lo ? -1 : a.lo > b.lo ? 1 : 0) : typeof a.lo === 'number' ? -1 : 1,
  )
  const joined: {lo: Address; hi: Address}[] = []
  for (const range of sorted) {
    const last = joined.at(-1)
    if (last && typeof last.lo === typeof range.lo && range.lo <= plus(last.hi, 1)) {
      if (range.hi > last.hi) last.hi = range.hi
    } else joined.push({...range})
  }
  return joined
}

/** `10.0.0.1`, `10.0.0.0/8`, or `a-b` where the range is no prefix. */
export function formatRange({lo, hi}: Range): string {
  if (lo === hi) return formatAddress(lo)
  const width = typeof lo === 'number' ? 32 : 128
  const length = width - (BigInt(lo) ^ BigInt(hi)).toString(2).length
  const prefix = prefixRange(lo, length)
  return prefix.lo === lo && prefix.hi === hi
    ? `${formatAddress(lo)}/${length}`
    : `${formatAddress(lo)}-${formatAddress(hi)}`
}
