import type {Machine} from '../dataplane/machine.js'
import {memberRange} from '../dataplane/ipset.js'
import {addressRange} from '../dataplane/nft-values.js'
import type {PodPlace, World} from '../dataplane/world.js'
import type {IptablesChain} from '../parse/iptables.js'
import type {IptablesRule} from '../parse/iptables-rule.js'
import type {NftJson, NftTable} from '../parse/nft.js'
import {familyOf, inRange, parseRange, type Address, type Family, type Range} from '../util/ip.js'

/** More kinds of pods on a node than this are not asked: where each pod has rules of its own, the largest kind and the smallest. */
const MOST_KINDS = 4

/**
 * Pods of each node in kinds that its rules tell apart by source address or by device: what happens to one pod of a kind happens to all.
 * Rules of kube-proxy for one Service or one endpoint do not count: they tell endpoints from others, which are walked anyway.
 */
export class Bystanders {
  private readonly world: World
  private readonly kinds = new Map<string, readonly (readonly PodPlace[])[]>()

  constructor(world: World) {
    this.world = world
  }

  /** Kinds of pods on this node, the largest first, then the smallest. */
  on(node: string, family: Family): readonly (readonly PodPlace[])[] {
    const key = `${node} ${family}`
    let kinds = this.kinds.get(key)
    if (!kinds) this.kinds.set(key, (kinds = this.findKinds(node, family)))
    return kinds
  }

  private findKinds(node: string, family: Family): PodPlace[][] {
    const machine = this.world.machines.get(node)
    const pods = this.world.facts.pods.filter(
      (pod) => pod.node === node && !pod.hostNetwork && addressOf(pod, family) !== undefined,
    )
    const ranges = machine ? sourcesOf(machine, family) : []
    const named = machine ? namedDevices(machine, family) : new Set()
    const kinds = new Map<string, PodPlace[]>()
    for (const pod of pods) {
      const address = addressOf(pod, family)!
      const device = machine?.router(family).onLinkDevice(address) ?? ''
      const sources = ranges.flatMap((range, at) => (inRange(address, range) ? [at] : [])).join(' ')
      const kind = `${named.has(device) ? device : ''} ${sources}`
      const known = kinds.get(kind)
      if (known) known.push(pod)
      else kinds.set(kind, [pod])
    }
    const [largest, ...others] = [...kinds.values()].sort((a, b) => b.length - a.length)
    return largest ? [largest, ...others.reverse().slice(0, MOST_KINDS - 1)] : []
  }
}

export const addressOf = ({addresses}: PodPlace, family: Family): Address | undefined =>
  addresses.find((address) => familyOf(address) === family)

/** Every range of sources that rules of this node ask for, each once. */
function sourcesOf(machine: Machine, family: Family): Range[] {
  const found = [
    ...machine.state
      .iptables(family)
      .flatMap(({tables}) =>
        [...tables.values()].flatMap(({chains}) =>
          [...chains.values()]
            .filter(({name}) => !OF_ONE_SERVICE.test(name))
            .flatMap((chain) => chainSources(machine, chain)),
        ),
      ),
    ...[...(machine.state.nft?.tables.values() ?? [])].filter(({name}) => name !== 'kube-proxy').flatMap(nftSources),
    ...machine.state.policyRules.flatMap(({source}) => source ?? []),
  ]
  const wanted = found.filter(({lo}) => familyOf(lo) === family)
  return [...new Map(wanted.map((range) => [`${range.lo}-${range.hi}`, range])).values()]
}

/** Devices by which packets come in that rules of this node name: each routed pod has one of its own. */
function namedDevices(machine: Machine, family: Family): ReadonlySet<string> {
  const rules = machine.state
    .iptables(family)
    .flatMap(({tables}) => [...tables.values()].flatMap(({chains}) => [...chains.values()]))
    .filter(({name}) => !OF_ONE_SERVICE.test(name))
    .flatMap((chain) =>
      chain.isReadyMade
        ? chain.rules.flatMap(({inInterface}) => inInterface?.value ?? [])
        : chain.texts.flatMap(({text}) => / (?:-i|--in-interface) (\S+)/.exec(text)?.[1] ?? []),
    )
  const nft = [...(machine.state.nft?.tables.values() ?? [])]
    .flatMap(({chains}) => [...chains.values()].flatMap((chain) => chain.rules))
    .flatMap(({text}) => [...(text ?? '').matchAll(/\biif(?:name)? (?:!= )?"?([\w.-]+)"?/g)].map((match) => match[1]!))
  return new Set([...rules, ...nft])
}

/** Chains that kube-proxy writes for one Service port or one endpoint. */
const OF_ONE_SERVICE = /^KUBE-(SVC|SVL|SEP|EXT|XLB|FW)-/
/** The options of rules that ask for the source, as iptables prints them. */
const ASKS_FOR_SOURCE = /(^| )(-s|--source|--src|--src-range|--match-set) /

function chainSources(machine: Machine, chain: IptablesChain): Range[] {
  if (chain.isReadyMade) return chain.rules.flatMap((rule) => ruleSources(machine, rule))
  return chain.texts.flatMap(({text}, at) => (ASKS_FOR_SOURCE.test(text) ? ruleSources(machine, chain.rule(at)) : []))
}

function ruleSources(machine: Machine, {source, matches}: IptablesRule): Range[] {
  const options = matches.flatMap((match) => match.options)
  return [
    ...(source ? [parseRange(source.value)] : []),
    ...options.filter(({name}) => name === 'src-range').map(({values}) => parseRange(values[0] ?? '')),
    ...options
      .filter(({name}) => name === 'match-set')
      .flatMap(({values: [name, flags]}) => setSources(machine, name, flags)),
  ].filter((range) => range !== undefined)
}

/** Members of a set of strangers by which it tells sources apart; kube-proxy's own are about Services. */
function setSources(machine: Machine, name = '', flags = ''): (Range | undefined)[] {
  if (name.startsWith('KUBE-') && !name.startsWith('KUBE-SRC-')) return []
  const places = flags.split(',').flatMap((flag, at) => (flag === 'src' ? [at] : []))
  const set = machine.ipsets.get(name)
  if (!set) return []
  if (set.type === 'list:set')
    return (
      set.entries
        .map(({parts}) => parts[0] ?? '')
        // no kernel has a list in a list; a dump may
        .filter((member) => machine.ipsets.get(member)?.type !== 'list:set')
        .flatMap((member) => setSources(machine, member, flags))
    )
  return set.entries.flatMap(({parts}) => places.map((at) => memberRange(parts[at] ?? '', set)))
}

const nftSources = (table: NftTable): Range[] =>
  [...table.chains.values()]
    .filter(({name}) => !OF_ONE_SERVICE.test(name))
    .flatMap(({rules}) => rules.flatMap(({statements}) => statements.flatMap((one) => jsonSources(one, table))))

/** Every `ip saddr` that stands in a match or a map, with what it is compared with. */
function jsonSources(json: NftJson, table: NftTable): Range[] {
  if (typeof json !== 'object' || json === null) return []
  if (Array.isArray(json)) return json.flatMap((item) => jsonSources(item, table))
  const inner = Object.values(json).flatMap((value) => jsonSources(value, table))
  const asked = json['left'] ?? json['key']
  const right = json['right'] ?? json['data']
  if (asked === undefined || right === undefined) return inner
  const place = sourcePlace(asked)
  return place === undefined ? inner : [...inner, ...valuesOf(right, table).flatMap((value) => rangeAt(value, place))]
}

/** Which part of a concatenation is the source; undefined: none. */
function sourcePlace(asked: NftJson): number | undefined {
  const parts = isObject(asked) && Array.isArray(asked['concat']) ? asked['concat'] : [asked]
  const at = parts.findIndex(
    (part) => isObject(part) && isObject(part['payload']) && part['payload']['field'] === 'saddr',
  )
  return at < 0 ? undefined : at
}

/** Constants, the members of an anonymous set or map, or those of a named one. */
function valuesOf(right: NftJson, {sets}: NftTable): NftJson[] {
  if (typeof right === 'string' && right.startsWith('@'))
    return (sets.get(right.slice(1))?.elements ?? []).map(({key}) => key)
  if (isObject(right) && Array.isArray(right['set']))
    return right['set'].map((item) => (Array.isArray(item) ? (item[0] ?? null) : item))
  return [right]
}

function rangeAt(value: NftJson, place: number): Range[] {
  const parts = isObject(value) && Array.isArray(value['concat']) ? value['concat'] : [value]
  const range = addressRange(parts[place] ?? null)
  return range ? [range] : []
}

const isObject = (value: NftJson | undefined): value is {[key: string]: NftJson} =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
