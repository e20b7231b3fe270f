import type {Machine} from '../dataplane/machine.js'
import type {World} from '../dataplane/world.js'
import type {ClusterState} from '../model/kube.js'
import type {LocalAddress} from '../parse/iproute.js'
import type {NodeState} from '../snapshot/node-state.js'
import {
  anyOf,
  familyOf,
  formatRange,
  inRange,
  parseRange,
  prefixRange,
  single,
  splitRanges,
  type Address,
  type Family,
  type Range,
} from '../util/ip.js'
import {podNetworks} from './proxy.js'

/** Who is outside the cluster: clients that no pod, node or Service can be. */

/** Every address that is surely outside and can be a source: not a pod's, node's, Service's, loopback's, broadcast or multicast. */
export function externalClients(cluster: ClusterState, world: World, family: Family): Range[] {
  const inside = [
    ...cluster.nodes.flatMap(({podCIDRs, addresses}) => [...podCIDRs, ...addresses.map(({address}) => address)]),
    ...cluster.services.flatMap(({clusterIPs, externalIPs, loadBalancer}) => [
      ...clusterIPs,
      ...externalIPs,
      ...loadBalancer.flatMap(({ip}) => ip ?? []),
    ]),
    ...(cluster.pods ?? []).flatMap(({ips}) => ips),
    ...(cluster.kubeProxy?.clusterCIDRs ??
      [...world.machines.values()].flatMap(({state}) => podNetworks(state, family, podsOf(world)))),
    ...cluster.slices.flatMap(({endpoints}) => endpoints.map(({address}) => address)),
    // nobody outside has an address of the Services' range
    ...world.facts.virtualRanges.map(formatRange),
    '0.0.0.0/8',
    '127.0.0.0/8',
    '169.254.0.0/16',
    '224.0.0.0/3',
    '::/8',
    'fe80::/10',
    'ff00::/8',
  ]
  const ranges = [...new Set(inside)]
    .flatMap((text) => parseRange(text) ?? [])
    .filter(({lo}) => familyOf(lo) === family)
  return subtract(anyOf(family), [...ranges, ...nodeNetworks(world, family)])
}

const podsOf = (world: World): Address[] =>
  world.facts.pods.flatMap(({hostNetwork, addresses}) => (hostNetwork ? [] : addresses))

/** The nodes' own addresses, the first and last address of their networks, which nobody has, and the networks behind them. */
function nodeNetworks(world: World, family: Family): Range[] {
  return [...world.machines.values()].flatMap((machine) => [
    ...ownContainers(machine, family),
    ...[...machine.addresses].filter((address) => familyOf(address) === family).map(single),
    ...machine.state.addresses
      .filter(({address}) => familyOf(address) === family)
      .flatMap((own) => {
        const network = prefixRange(own.address, own.length)
        if (isBehind(machine, own, world)) return [network]
        // in IPv6 the first is everybody's (the subnet-router anycast address), in IPv4 the last as well
        return [own.address, network.lo, ...(family === 4 ? [network.hi] : [])].map(single)
      }),
  ])
}

/** A rule for more than a /12 or a /48 is not about one node's containers: it changes other clients' addresses. */
const LARGEST: Readonly<Record<Family, bigint>> = {4: 2n ** 20n, 6: 2n ** 80n}

/** Networks that a node masquerades unless they leave by their own device (`-s NET ! -o docker0 -j MASQUERADE`): containers of its own. */
const ownContainers = ({state}: Machine, family: Family): Range[] =>
  state
    .iptables(family)
    .flatMap(({tables}) => tables.get('nat')?.chains.get('POSTROUTING')?.rules ?? [])
    .flatMap(({target, source, outInterface}) => {
      const range =
        target?.name === 'MASQUERADE' && source?.not === false && outInterface?.not && parseRange(source.value)
      if (!range || BigInt(range.hi) - BigInt(range.lo) >= LARGEST[family]) return []
      return isContainers(state, outInterface.value, range) ? range : []
    })

/** Not the network of containers: a rule whose device is gone, and whose range one of the node's own networks has. */
function isContainers({links, addresses}: NodeState, device: string, {lo, hi}: Range): boolean {
  const isThere = links.some(({name}) =>
    device.endsWith('+') ? name.startsWith(device.slice(0, -1)) : name === device,
  )
  if (isThere || links.length === 0) return true
  return !addresses.some(({address, length, device: own}) => {
    const network = prefixRange(address, length)
    return own !== 'lo' && typeof network.lo === typeof lo && network.lo <= hi && lo <= network.hi
  })
}

/** Is the device's network behind the node: one of pods, or of containers on a bridge other than the one that the node itself is reached by? */
function isBehind(machine: Machine, {device, address, length}: LocalAddress, world: World): boolean {
  if (device === 'lo') return false
  const network = prefixRange(address, length)
  const ofPods = world.facts.pods.some(
    (pod) => pod.node === machine.name && !pod.hostNetwork && pod.addresses.some((own) => inRange(own, network)),
  )
  return (
    ofPods || (machine.isBridge(device) && !machine.hints.addresses.some((own) => machine.deviceOf(own) === device))
  )
}

/** What is left of one range when others are taken out: sorted sweep, linear in their number. */
function subtract(whole: Range, out: readonly Range[]): Range[] {
  const sorted = [...out].sort((a, b) => (a.lo < b.lo ? -1 : a.lo > b.lo ? 1 : 0))
  const left: Range[] = []
  let rest: Range | undefined = whole
  for (const range of sorted) {
    if (!rest) break
    const {outside}: {outside: Range[]} = splitRanges([rest], range)
    const before = outside.filter(({hi}) => hi < range.lo)
    left.push(...before)
    rest = outside.find(({lo}) => lo > range.hi)
    if (before.length === 0 && outside.length === 1 && !rest) rest = outside[0]
  }
  return rest ? [...left, rest] : left
}
