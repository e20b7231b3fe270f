/** Pods: a namespace each, on the node's bridge or behind a host route. */
import type {Pod} from '../../src/model/kube.js'
import type {Link} from '../../src/parse/iproute.js'
import type {NodeState} from '../../src/snapshot/node-state.js'
import type {Snapshot} from '../../src/snapshot/snapshot.js'
import {familyOf, formatAddress, inRange, parseAddress, prefixRange, type Address} from '../../src/util/ip.js'
import type {PodPlan} from './plan.js'
import {anywhere, bridgeAddresses, DEVICE, withLength, type Site} from './plan-site.js'

const runs = ({phase, hostNetwork, ips, node}: Pod): boolean =>
  phase !== 'Succeeded' && phase !== 'Failed' && !hostNetwork && ips.length > 0 && node !== undefined

export function planPods({cluster}: Snapshot, sites: readonly Site[]): PodPlan[] {
  const used = new Set<string>()
  return (cluster.pods ?? []).filter(runs).flatMap((pod, index) => {
    const site = sites.find(({state}) => state.name === pod.node)
    const addresses = pod.ips.flatMap((ip) => parseAddress(ip) ?? [])
    if (!site || addresses.length === 0) return []
    return [planPod({pod, site, addresses, used}, index)]
  })
}

function planPod(
  {pod, site, addresses, used}: {pod: Pod; site: Site; addresses: readonly Address[]; used: Set<string>},
  index: number,
): PodPlan {
  const {state} = site
  const own = state.addresses.length > 0 ? state.addresses : bridgeAddresses(site)
  const bridges = addresses.flatMap((address) => {
    const face = own.find(
      (one) =>
        one.device !== site.uplink &&
        one.length < (familyOf(address) === 4 ? 32 : 128) &&
        inRange(address, prefixRange(one.address, one.length)),
    )
    return face ? [{address, face}] : []
  })
  const routed = state.routes.find(
    ({destination, length, table}) =>
      table === 'main' && length === (familyOf(addresses[0]!) === 4 ? 32 : 128) && destination.lo === addresses[0],
  )?.nextHops[0]?.device
  const recorded = state.links.find(
    ({name, master}) =>
      DEVICE.test(name) &&
      !used.has(`${state.name} ${name}`) &&
      (bridges.length > 0 ? master === bridges[0]!.face.device : name === routed),
  )
  const cable = recorded?.name ?? `pod${index}`
  used.add(`${state.name} ${cable}`)
  const common = {id: pod.id, node: state.name, namespace: `pod${index}`, cable}
  if (bridges.length === 0) return {...common, ...routedPod(addresses, cable)}
  const bridge = bridges[0]!.face.device
  return {
    ...common,
    bridge,
    outside: [
      `link set ${cable} master ${bridge} up`,
      ...(hairpin(state, recorded) ? [`link set ${cable} type bridge_slave hairpin on`] : []),
    ],
    inside: [
      ...bridges.map(({address, face}) => `addr add ${withLength({...face, address})} dev eth0`),
      'link set eth0 up',
      ...bridges.map(
        ({address, face}) => `route add ${anywhere(familyOf(address))} via ${formatAddress(face.address)}`,
      ),
    ],
  }
}

/** Where the dump does not tell: as CNI's bridge plugin has it for kube-proxy. */
const hairpin = (state: NodeState, link: Link | undefined): boolean =>
  link?.hairpin ?? !state.links.some(({hairpin: on}) => on === false)

/** As Calico and the clouds' plugins do: no network of its own, one neighbour that answers for all. */
function routedPod(addresses: readonly Address[], cable: string): Pick<PodPlan, 'inside' | 'outside'> {
  const full = (address: Address): string => `${formatAddress(address)}/${familyOf(address) === 4 ? 32 : 128}`
  return {
    outside: [
      `link set ${cable} up`,
      ...addresses.map(
        (address) =>
          `addr add ${familyOf(address) === 4 ? '169.254.1.1/32' : 'fe80::1/64 nodad'} dev ${cable} scope link`,
      ),
      ...addresses.map((address) => `route replace ${full(address)} dev ${cable}`),
    ],
    inside: [
      ...addresses.map((address) => `addr add ${full(address)}${familyOf(address) === 6 ? ' nodad' : ''} dev eth0`),
      'link set eth0 up',
      ...addresses.map(
        (address) =>
          `route add ${anywhere(familyOf(address))} via ${familyOf(address) === 4 ? '169.254.1.1' : 'fe80::1'} dev eth0 onlink`,
      ),
    ],
  }
}
