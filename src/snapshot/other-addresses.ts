import {createHmac} from 'node:crypto'
import {familyOf, formatAddress, parseAddress, type Address} from '../util/ip.js'

/**
 * Other addresses for those of a cluster: each the same one everywhere, with what it shares with others in front kept, so
 * that an address stays inside of its network. `key` decides the mapping.
 */
export class OtherAddresses {
  private readonly key: Uint8Array
  private readonly known = new Map<string, string>()

  constructor(key: Uint8Array) {
    this.key = key
  }

  /** Text with other addresses, networks and ranges in it. */
  within(value: string): string {
    return value
      .replaceAll(
        RANGE,
        (whole, low: string, high: string) => this.range(low, high) ?? whole.replaceAll(V4, (one) => this.address(one)),
      )
      .replaceAll(NETWORK, (whole, address: string, length: string) =>
        MARKED.test(whole) ? whole : this.network(address, Number(length)),
      )
      .replaceAll(V4, (one) => this.address(one))
      .replaceAll(V6, (one) => this.address(one))
      .replaceAll(DONE, (_, inner: string) => inner.replaceAll('\u0002', '.').replaceAll('\u0003', ':'))
  }

  /** Marked, so that the next pattern does not take it for a fresh one. */
  private mark(address: string): string {
    return `\u0001${address.replaceAll('.', '\u0002').replaceAll(':', '\u0003')}\u0001`
  }

  private address(one: string): string {
    const parsed = parseAddress(one)
    if (parsed === undefined) return one
    let other = this.known.get(one)
    if (other === undefined) this.known.set(one, (other = formatAddress(this.other(parsed))))
    return this.mark(other)
  }

  /** The other network, with nothing in its host part where there was nothing. */
  private network(address: string, length: number): string {
    const parsed = parseAddress(address)
    if (parsed === undefined) return `${address}/${length}`
    const width = familyOf(parsed) === 4 ? 32 : 128
    if (length > width) return `${address}/${length}`
    const host = BigInt(width - length)
    const [bits, other] = [BigInt(parsed), BigInt(this.other(parsed))]
    const kept = (bits >> host) << host === bits ? (other >> host) << host : other
    return `${this.mark(formatAddress(width === 32 ? Number(kept) : kept))}/${length}`
  }

  /** A range that is a whole prefix becomes a whole prefix. */
  private range(low: string, high: string): string | undefined {
    const [from, to] = [parseAddress(low), parseAddress(high)]
    if (typeof from !== 'number' || typeof to !== 'number' || from > to) return undefined
    const size = to - from + 1
    if (from % size !== 0 || (size & (size - 1)) !== 0) return undefined
    const start = Math.floor(Number(this.other(from)) / size) * size
    return `${this.mark(formatAddress(start))}-${this.mark(formatAddress(start + size - 1))}`
  }

  /** Prefix-preserving (Xu et al., Crypto-PAn): each bit is flipped or not by what stands before it. */
  other(address: Address): Address {
    const width = familyOf(address) === 4 ? 32 : 128
    const bits = BigInt(address)
    const [first, last] = width === 32 ? keptV4(Number(address)) : keptV6(bits)
    let result = bits
    for (let at = first; at < width - last; at++) {
      const before = bits >> BigInt(width - at)
      const digest = createHmac('sha256', this.key).update(`${width} ${at} ${before}`).digest()
      if (digest[0]! & 1) result ^= 1n << BigInt(width - 1 - at)
    }
    return width === 32 ? Number(result) : result
  }
}

/** Bits in front and behind that stay: all of special addresses, the first and last octet of others. */
function keptV4(address: number): readonly [number, number] {
  const first = address >>> 24
  if (first === 0 || first === 127 || first >= 224) return [32, 0]
  return first === 169 ? [16, 8] : [8, 8]
}

function keptV6(address: bigint): readonly [number, number] {
  const first = address >> 112n
  if (first === 0n || first >= 0xff00n) return [128, 0]
  return first === 0xfe80n ? [64, 8] : [16, 8]
}

const OCTET = String.raw`(?:25[0-5]|2[0-4]\d|1?\d?\d)`
const V4_TEXT = String.raw`(?<![A-Za-z\d.])${OCTET}(?:\.${OCTET}){3}(?![\w.])`
const V6_TEXT = String.raw`(?<![A-Za-z\d:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:.])`
const V4 = new RegExp(V4_TEXT, 'g')
const V6 = new RegExp(V6_TEXT, 'g')
const RANGE = new RegExp(`(${V4_TEXT.replace('(?![\\w.])', '')})-((?:${OCTET})(?:\\.${OCTET}){3})(?![\\w.])`, 'g')
const NETWORK = new RegExp(
  `(${V4_TEXT.replace('(?![\\w.])', '')}|${V6_TEXT.replace('(?![\\w:.])', '')})/(\\d{1,3})(?!\\d)`,
  'g',
)
const MARKED = /\u0001/
const DONE = /\u0001([^\u0001]*)\u0001/g
