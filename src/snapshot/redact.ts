import {createHmac} from 'node:crypto'
import {TRAFFIC_ANNOTATIONS} from '../model/kube.js'
import {formatAddress, parseAddress} from '../util/ip.js'
import {list, listText, record, text, texts, type Json} from '../util/json.js'
import {OtherAddresses} from './other-addresses.js'
import {SAID_WHY} from './node-state.js'

/** Names that say nothing about whose cluster it is; kube-proxy and DNS are found by them. */
const KEPT_NAMESPACES = new Set(['default', 'kube-system', 'kube-public', 'kube-node-lease'])
const OPEN_NAMESPACES = new Set(['kube-system'])
const OPEN_NAMES = new Set(['kubernetes', 'kube-root-ca.crt'])
/** Keys whose values are words of the API, whatever an object is called. */
const WORDS = new Set(
  'kind apiVersion type protocol phase status reason operator pathType addressType ipMode ipFamilyPolicy dnsPolicy externalTrafficPolicy internalTrafficPolicy sessionAffinity trafficDistribution gitVersion kubeletVersion kubeProxyVersion kernelVersion osImage containerRuntimeVersion from targetPort port'.split(
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
/** Copies of what stands elsewhere, and what may name anything. */
const DROPPED = new Set(['managedFields', 'generateName', 'ownerReferences', 'kubeconfig.conf'])
/** Keys whose values are names, of objects that may be in no list. */
const NAMING = new Set(
  'name namespace nodeName ingressClassName gatewayClassName loadBalancerClass secretName sectionName claimName kubernetes.io/ingress.class'.split(
    ' ',
  ),
)
/** Ports and resolver options have names too, which say nothing. */
const OPEN_PARENTS = new Set(['ports', 'port', 'options'])
/** Whys and reasons in snapshot.json quote users, hosts and namespaces. */
const REASONS = new Set(['forbidden', 'unread'])
const GONE = '(redacted)'
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
  /** Names of Kubernetes' own objects. */
  private readonly open = new Set(OPEN_NAMES)
  /** `namespace/name` as rules' comments and chains write it. */
  private readonly pairs: readonly (readonly [string, string])[]
  private readonly addresses: OtherAddresses

  constructor(files: ReadonlyMap<string, string>, key: Uint8Array) {
    this.key = key
    this.addresses = new OtherAddresses(key)
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
      else this.open.add(own)
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
    if (path === 'snapshot.json') return this.json(content, (value) => this.info(record(value)))
    if (path.startsWith('api/')) return this.json(content, (value) => this.value(value, '', ''))
    const file = path.split('/').at(-1)!
    if (file === 'dns.json') return this.json(content, (value) => this.answers(record(value)))
    if (file.endsWith('.stderr')) return [...content.matchAll(SAID_WHY)].map(([why]) => why).join('\n') || GONE
    if (file === 'backend.txt') return this.text(file, content.replaceAll(/^login \S+/gm, `login ${GONE}`))
    return this.text(file, content)
  }

  private json(content: string, redact: (value: unknown) => unknown): string {
    let value: unknown
    try {
      value = JSON.parse(content)
    } catch {
      // a broken list is no list; what it holds cannot be told apart
      return '"redacted: not valid JSON"'
    }
    return listText(redact(value))
  }

  /** `snapshot.json`: nodes, and which lists and nodes are missing, without the words about why. */
  private info(value: Json): Json {
    const nodeOf = (name: string): string => this.names.get(name) ?? `node-${this.hash(name)}`
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => {
        if (key === 'skipped') return [key, texts(item).map(nodeOf)]
        if (key !== 'via' && !REASONS.has(key)) return [key, this.value(item, key, '')]
        const entries = Object.entries(record(item))
        return [
          key,
          Object.fromEntries(
            entries.map(([name, why]) => [key === 'forbidden' ? name : nodeOf(name), REASONS.has(key) ? GONE : why]),
          ),
        ]
      }),
    )
  }

  /** `dns.json`: what was asked, and what the answers are. */
  private answers(value: Json): Json {
    const answer = ({name, data, records, ...rest}: Json): Json => ({
      ...rest,
      ...(name === undefined ? {} : {name: this.host(text(name) ?? '')}),
      ...(data === undefined ? {} : {data: this.hosts(text(data) ?? '')}),
      ...(records === undefined ? {} : {records: list(records).map(answer)}),
    })
    const asked = list(value['asked']).map(({server, kind, pod, failure, unasked, answers}) => ({
      server: this.plain(text(server) ?? ''),
      kind,
      ...(pod === undefined ? {} : {pod: this.pair(text(pod) ?? '')}),
      ...(failure === undefined ? {} : {failure: GONE}),
      ...(unasked === undefined ? {} : {unasked: GONE}),
      answers: list(answers).map(answer),
    }))
    return {asked, incomplete: texts(value['incomplete']).map(() => GONE)}
  }

  /** `parent` is the key of the object or list that holds `key`. */
  private value(value: unknown, key: string, parent: string): unknown {
    if (typeof value === 'string') return this.string(value, key, parent)
    if (Array.isArray(value)) return value.map((item) => this.value(item, key, parent))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value)
        .filter(([name]) => !DROPPED.has(name) && (key !== 'annotations' || TRAFFIC_ANNOTATIONS.includes(name)))
        .map(([name, item]) => [
          name,
          LABEL_MAPS.has(key) && typeof item === 'string' ? this.label(name, item) : this.value(item, name, key),
        ]),
    )
  }

  private label(key: string, value: string): string {
    if (NAMING_LABELS.has(key)) return this.named(value)
    return OPEN_LABELS.test(key) ? value : (this.names.get(value) ?? `v-${this.hash(value)}`)
  }

  /** Another name, also for what is in no list. */
  private named(value: string): string {
    const known = this.names.get(value)
    if (known !== undefined || value === '') return known ?? value
    return this.open.has(value) || KEPT_NAMESPACES.has(value) ? value : `name-${this.hash(value)}`
  }

  private pair(value: string): string {
    return value
      .split('/')
      .map((part) => this.named(part))
      .join('/')
  }

  private string(value: string, key: string, parent: string): string {
    if (WORDS.has(key)) return value
    if (key === 'message' || key === 'uid') return this.hash(value)
    if (key === 'values' || (key === 'value' && !OPEN_PARENTS.has(parent)))
      return this.names.get(value) ?? `v-${this.hash(value)}`
    if (NAMING.has(key)) return key === 'name' && OPEN_PARENTS.has(parent) ? value : this.named(value)
    if (key === 'path') return value.replaceAll(/[^/]+/g, (part) => `p-${this.hash(part)}`)
    if (key === 'Corefile')
      return value.replace(/(kubernetes[ \t]+)(.*)/, (_, word: string, zones: string) => word + this.hosts(zones))
    if (parent === 'data' && /^\d+$/.test(key)) return value.replace(/^[^:]+/, (pair) => this.pair(pair))
    return this.names.get(value) ?? (HOSTS.has(key) ? this.host(value) : this.plain(value))
  }

  /** DNS names and numbers, as SRV records and Corefiles have them. */
  private hosts(value: string): string {
    return value.replaceAll(/\S+/g, (word) => (/^\d+$/.test(word) ? word : this.host(word)))
  }

  /** A DNS name, label by label; the cluster's own words stay, and so do the names of ports (`_http`). */
  private host(value: string): string {
    if (parseAddress(value) !== undefined) return this.plain(value)
    const reverse = /^(.+)\.(in-addr|ip6)\.arpa(\.?)$/.exec(value)
    if (reverse) return this.reverse(reverse[1]!, reverse[2] === 'ip6') + value.slice(reverse[1]!.length)
    return value
      .split('.')
      .map((label) => {
        if (OPEN_LABEL.has(label) || label.startsWith('_')) return label
        return this.names.get(label) ?? this.dashed(label) ?? `h-${this.hash(label)}`
      })
      .join('.')
  }

  /** `10-1-2-3`, as the names of endpoints and pods are made of their addresses. */
  private dashed(label: string): string | undefined {
    if (!label.includes('-')) return undefined
    const address = parseAddress(label.replaceAll('-', '.')) ?? parseAddress(label.replaceAll('-', ':'))
    return address === undefined ? undefined : formatAddress(this.addresses.other(address)).replaceAll(/[.:]/g, '-')
  }

  /** The digits of an address from its end, as reverse zones have them (RFC 1035 3.5, RFC 3596 2.5). */
  private reverse(digits: string, v6: boolean): string {
    const parts = digits.split('.').reverse()
    const written = v6 ? parts.join('').replaceAll(/(.{4})(?!$)/g, '$1:') : parts.join('.')
    const address = parseAddress(written)
    if (address === undefined) return `h-${this.hash(digits)}`
    const other = this.addresses.other(address)
    const turned = v6 ? Array.from(other.toString(16).padStart(32, '0')) : formatAddress(other).split('.')
    return turned.reverse().join('.')
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
    let result = this.addresses.within(value)
    for (const [pair, other] of this.pairs)
      if (pair !== other && result.includes(pair)) result = replaceWord(result, pair, other)
    for (const [name, other] of this.names)
      if (result.includes(name) && other.startsWith('node-')) result = replaceWord(result, name, other)
    return result
  }
}

const HOSTS = new Set([
  'externalName',
  'hostname',
  'host',
  'hosts',
  'hostnames',
  'searches',
  'subdomain',
  'address',
  'kubernetes.io/hostname',
])
const OPEN_LABEL = new Set(['svc', 'pod', 'cluster', 'local', 'in-addr', 'ip6', 'arpa', '*', ''])
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
