import {createHmac} from 'node:crypto'
import {TRAFFIC_ANNOTATIONS} from '../model/kube.js'
import {familyOf, formatAddress, parseAddress, type Address} from '../util/ip.js'
import {list, listText, record, text, type Json} from '../util/json.js'

/** Names that say nothing about whose cluster it is; kube-proxy and DNS are found by them. */
const KEPT_NAMESPACES = new Set(['default', 'kube-system', 'kube-public', 'kube-node-lease'])
const OPEN_NAMESPACES = new Set(['kube-system'])
const OPEN_NAMES = new Set(['kubernetes', 'kube-root-ca.crt'])
/** Keys whose values are words of the API, whatever an object is called. */
const WORDS = new Set(
  'kind apiVersion type protocol phase status reason operator pathType addressType ipMode ipFamilyPolicy dnsPolicy externalTrafficPolicy internalTrafficPolicy sessionAffinity trafficDistribution gitVersion kubeletVersion kubeProxyVersion kernelVersion osImage containerRuntimeVersion from'.split(
    ' ',
  ),
)
/** Maps of labels: the values of all other keys than these are nobody's business. */
const LABEL_MAPS = new Set(['labels', 'selector', 'matchLabels'])
const OPEN_LABELS =
  /^(kubernetes\.io\/(os|arch)|node-role\.kubernetes\.io\/|endpointslice\.kubernetes\.io\/managed-by|k8s-app|component|service\.kubernetes\.io\/)/

/** Labels whose value is the name of an object. */
const NAMING_LABELS = new Set(['kubernetes.io/service-name', 'kubernetes.io/metadata.name', 'kubernetes.io/hostname'])
const ZONES = ['topology.kubernetes.io/zone', 'topology.kubernetes.io/region', 'failure-domain.beta.kubernetes.io/zone']
/** Copies of what stands elsewhere. */
const DROPPED = new Set(['managedFields', 'generateName'])
const CONTAINERS = new Set(['containers', 'initContainers', 'containerStatuses'])
/** snapshot.json has maps by node. */
const isNodeMap = (key: string): boolean => key === 'unread' || key === 'via'

/**
 * A snapshot with other addresses and names, each replaced by the same other one everywhere. Addresses keep their first
 * octet (IPv6: 16 bits) and their last one, and what they share with others in front, so that routes, prefixes and
 * traces stay true. Free text (comments, messages, logs) goes. `key` decides the mapping; forget it, and nobody gets back.
 */
export function redactFiles(files: ReadonlyMap<string, string>, key: Uint8Array): Map<string, string> {
  const redactor = new Redactor(files, key)
  return new Map(
    [...files]
      .filter(([path]) => !/\.log$|\/\.$/.test(path))
      .map(([path, content]) => [redactor.path(path), redactor.content(path, content)]),
  )
}

class Redactor {
  private readonly key: Uint8Array
  /** Identifier → its replacement. */
  private readonly names = new Map<string, string>()
  /** `namespace/name` as rules' comments and chains write it. */
  private readonly pairs: readonly (readonly [string, string])[]
  private readonly addresses = new Map<string, string>()

  constructor(files: ReadonlyMap<string, string>, key: Uint8Array) {
    this.key = key
    const pairs: [string, string][] = []
    for (const [path, content] of files) {
      const kind = /^api\/([\w-]+)\.json$/.exec(path)?.[1]
      if (kind !== undefined && kind !== 'version') pairs.push(...this.learn(kind, objectsOf(content)))
    }
    for (const path of files.keys()) {
      const node = /^nodes\/([^/]+)\//.exec(path)?.[1]
      if (node !== undefined) this.learnName('node', node)
    }
    this.pairs = pairs.sort(([a], [b]) => b.length - a.length)
  }

  private learn(kind: string, objects: readonly Json[]): [string, string][] {
    return objects.flatMap(({metadata}) => {
      const {name, namespace} = record(metadata)
      const [own, space] = [text(name), text(namespace)]
      if (own === undefined) return []
      if (space !== undefined && !KEPT_NAMESPACES.has(space)) this.learnName('ns', space)
      const labels = record(record(metadata)['labels'])
      for (const zone of ZONES) if (text(labels[zone]) !== undefined) this.learnName('zone', text(labels[zone])!)
      const open = OPEN_NAMES.has(own) || (space !== undefined && OPEN_NAMESPACES.has(space))
      if (kind === 'namespaces' ? !KEPT_NAMESPACES.has(own) : !open) this.learnName(SHORT[kind] ?? 'name', own)
      return space === undefined ? [] : [[`${space}/${own}`, `${this.name(space)}/${this.name(own)}`]]
    })
  }

  private learnName(prefix: string, name: string): void {
    if (!this.names.has(name)) this.names.set(name, `${prefix}-${this.hash(name)}`)
  }

  private hash(value: string): string {
    return createHmac('sha256', this.key).update(value).digest('hex').slice(0, 8)
  }

  private name(value: string): string {
    return this.names.get(value) ?? value
  }

  path(path: string): string {
    return path.replace(/^nodes\/([^/]+)\//, (_, node: string) => `nodes/${this.name(node)}/`)
  }

  content(path: string, content: string): string {
    if (path === 'snapshot.json' || path.startsWith('api/')) return this.json(content)
    return this.text(path.split('/').at(-1)!, content)
  }

  private json(content: string): string {
    let value: unknown
    try {
      value = JSON.parse(content)
    } catch {
      // a broken list is no list; what it holds cannot be told apart
      return '"redacted: not valid JSON"'
    }
    return listText(this.value(value, ''))
  }

  private value(value: unknown, key: string): unknown {
    if (typeof value === 'string') return this.string(value, key)
    if (Array.isArray(value))
      return value.map((item) => this.value(CONTAINERS.has(key) ? this.container(item) : item, key))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value)
        .filter(([name]) => !DROPPED.has(name) && (key !== 'annotations' || TRAFFIC_ANNOTATIONS.includes(name)))
        .map(([name, item]) => [
          isNodeMap(key) ? this.name(name) : name,
          LABEL_MAPS.has(key) && typeof item === 'string' ? this.label(name, item) : this.value(item, name),
        ]),
    )
  }

  private container(item: unknown): Json {
    const {name, ...rest} = record(item)
    return {name: `c-${this.hash(text(name) ?? '')}`, ...rest}
  }

  private label(key: string, value: string): string {
    if (NAMING_LABELS.has(key)) return this.name(value)
    return OPEN_LABELS.test(key) ? value : (this.names.get(value) ?? `v-${this.hash(value)}`)
  }

  private string(value: string, key: string): string {
    if (WORDS.has(key)) return value
    if (key === 'message' || key === 'uid') return this.hash(value)
    if (key === 'values') return this.names.get(value) ?? `v-${this.hash(value)}`
    const known = this.names.get(value)
    if (known !== undefined) return known
    if (key === 'secretName') return `secret-${this.hash(value)}`
    if (HOSTS.has(key)) return this.host(value)
    return this.plain(value)
  }

  /** A DNS name, label by label; the cluster's own words stay. */
  private host(value: string): string {
    if (parseAddress(value) !== undefined) return this.plain(value)
    return value
      .split('.')
      .map((label) => (OPEN_LABEL.has(label) ? label : (this.names.get(label) ?? `h-${this.hash(label)}`)))
      .join('.')
  }

  private text(file: string, content: string): string {
    const own = content
      .replaceAll(/--comment ("(?:[^"\\]|\\.)*"|\S+)/g, (_, comment: string) => `--comment ${this.comment(comment)}`)
      .replaceAll(/\bcomment "((?:[^"\\]|\\.)*)"/g, (_, comment: string) => `comment ${this.comment(`"${comment}"`)}`)
      .replaceAll(
        /"comment": ?"((?:[^"\\]|\\.)*)"/g,
        (_, comment: string) => `"comment": ${this.comment(`"${comment}"`)}`,
      )
      .replaceAll(
        /\(\("([^"]+)"/g,
        (_, process: string) => `(("${OPEN_PROCESSES.test(process) ? process : `proc-${this.hash(process)}`}"`,
      )
      .replaceAll(/\b((?:[0-9a-f]{2}:){3})((?:[0-9a-f]{2}:){2}[0-9a-f]{2})\b/g, (_, maker: string, rest: string) =>
        this.mac(maker, rest),
      )
    const searched =
      file === 'resolv.txt'
        ? own.replaceAll(
            /^(search|domain)\s+(.*)$/gm,
            (_, word: string, hosts: string) =>
              `${word} ${hosts
                .split(/\s+/)
                .map((host) => this.host(host))
                .join(' ')}`,
          )
        : own
    return this.plain(searched)
  }

  private mac(maker: string, rest: string): string {
    const other = this.hash(`mac ${maker}${rest}`)
    return `${maker}${other.slice(0, 2)}:${other.slice(2, 4)}:${other.slice(4, 6)}`
  }

  /** kube-proxy's own comments stay, with other names; anybody else's may say anything. */
  private comment(quoted: string): string {
    const said = quoted.replaceAll(/^"|"$/g, '')
    if (/^kubernetes /.test(said) || this.pairs.some(([pair]) => said.includes(pair))) return quoted
    return `"redacted-${this.hash(said)}"`
  }

  /** Addresses and `namespace/name` pairs inside of text. */
  private plain(value: string): string {
    let result = value
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
    for (const [pair, other] of this.pairs)
      if (pair !== other && result.includes(pair)) result = replaceWord(result, pair, other)
    for (const [name, other] of this.names)
      if (result.includes(name) && other.startsWith('node-')) result = replaceWord(result, name, other)
    return result
  }

  /** Marked, so that the next pattern does not take it for a fresh one. */
  private mark(address: string): string {
    return `\u0001${address.replaceAll('.', '\u0002').replaceAll(':', '\u0003')}\u0001`
  }

  private address(one: string): string {
    const parsed = parseAddress(one)
    if (parsed === undefined) return one
    let other = this.addresses.get(one)
    if (other === undefined) this.addresses.set(one, (other = formatAddress(this.permute(parsed))))
    return this.mark(other)
  }

  /** The other network, with nothing in its host part where there was nothing. */
  private network(address: string, length: number): string {
    const parsed = parseAddress(address)
    if (parsed === undefined) return `${address}/${length}`
    const width = familyOf(parsed) === 4 ? 32 : 128
    if (length > width) return `${address}/${length}`
    const host = BigInt(width - length)
    const [bits, other] = [BigInt(parsed), BigInt(this.permute(parsed))]
    const kept = (bits >> host) << host === bits ? (other >> host) << host : other
    return `${this.mark(formatAddress(width === 32 ? Number(kept) : kept))}/${length}`
  }

  /** A range that is a whole prefix becomes a whole prefix. */
  private range(low: string, high: string): string | undefined {
    const [from, to] = [parseAddress(low), parseAddress(high)]
    if (typeof from !== 'number' || typeof to !== 'number' || from > to) return undefined
    const size = to - from + 1
    if (from % size !== 0 || (size & (size - 1)) !== 0) return undefined
    const start = Math.floor(Number(this.permute(from)) / size) * size
    return `${this.mark(formatAddress(start))}-${this.mark(formatAddress(start + size - 1))}`
  }

  /** Prefix-preserving (Xu et al., Crypto-PAn): each bit is flipped or not by what stands before it. */
  private permute(address: Address): Address {
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

const HOSTS = new Set([
  'externalName',
  'hostname',
  'host',
  'hosts',
  'hostnames',
  'searches',
  'subdomain',
  'kubernetes.io/hostname',
])
const OPEN_LABEL = new Set(['svc', 'cluster', 'local', '*', ''])
const OPEN_PROCESSES = /^(kube-proxy|kubelet|sshd|systemd\S*|containerd|dockerd|node|python3?)$/

const SHORT: Readonly<Record<string, string>> = {
  services: 'svc',
  pods: 'pod',
  nodes: 'node',
  namespaces: 'ns',
  ingresses: 'ing',
}

function objectsOf(content: string): Json[] {
  try {
    const json = record(JSON.parse(content))
    return Array.isArray(json['items']) ? list(json['items']) : [json]
  } catch {
    return []
  }
}

/** Where the word stands by itself: `web` in `d/web:http`, not in `d/web-2`. */
function replaceWord(within: string, word: string, other: string): string {
  const escaped = word.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)
  return within.replaceAll(new RegExp(`(?<![\\w.-])${escaped}(?![\\w-])`, 'g'), other)
}
