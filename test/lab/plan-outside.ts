/** What is around the nodes: clients, gateways, hosts outside of the cluster. */
import type {LocalAddress} from '../../src/parse/iproute.js'
import type {Snapshot} from '../../src/snapshot/snapshot.js'
import {familyOf, formatAddress, inRange, parseAddress, prefixRange, type Address} from '../../src/util/ip.js'
import type {ClientPlan} from './plan.js'
import {anywhere, gatewayOf, HUB_BRIDGE, parseRangeLength, withLength, type Site} from './plan-site.js'

export function takenAddresses({cluster}: Snapshot, sites: readonly Site[]): Set<string> {
  return new Set([
    ...sites.flatMap(({state, uplinkAddresses}) =>
      [...state.addresses, ...uplinkAddresses].map(({address}) => formatAddress(address)),
    ),
    ...sites.flatMap(({state}) =>
      state.routes.flatMap(({nextHops}) =>
        nextHops.flatMap(({gateway}) => (gateway === undefined ? [] : formatAddress(gateway))),
      ),
    ),
    ...cluster.slices.flatMap(({endpoints}) => endpoints.map(({address}) => address)),
    ...cluster.services.flatMap(({externalIPs, loadBalancer, clusterIPs}) => [
      ...externalIPs,
      ...clusterIPs,
      ...loadBalancer.flatMap(({ip}) => ip ?? []),
    ]),
  ])
}

/** One client for each node, in the network of the node's uplink. */
export function planClients(sites: readonly Site[], taken: Set<string>): ClientPlan[] {
  return sites.map((site, index) => {
    const faces = ([4, 6] as const).flatMap(
      (family) => site.uplinkAddresses.find(({address}) => familyOf(address) === family) ?? [],
    )
    const own = faces.flatMap((face) => {
      const address = freeAddress(face, taken)
      return address === undefined ? [] : [{face, address}]
    })
    return {
      namespace: `client-${index + 1}`,
      node: site.state.name,
      addresses: own.map(({address}) => formatAddress(address)),
      ip: [
        ...own.map(({face, address}) => `addr add ${withLength({...face, address})} dev eth0`),
        'link set eth0 up',
        ...own.map(
          ({face}) =>
            `route add ${anywhere(familyOf(face.address))} via ${formatAddress(face.address)} dev eth0 onlink`,
        ),
      ],
    }
  })
}

function freeAddress({address, length}: LocalAddress, taken: Set<string>): Address | undefined {
  const {lo, hi} = prefixRange(address, length)
  for (let step = 101; step < 250; step++) {
    const candidate = typeof lo === 'number' ? lo + step : lo + BigInt(step)
    if (candidate >= hi) return undefined
    const text = formatAddress(candidate)
    if (!taken.has(text) && taken.add(text)) return candidate
  }
  return undefined
}

/** Gateways, and the hosts outside of the cluster that are endpoints of its Services. There is no world behind the hub. */
export function planHub({cluster}: Snapshot, sites: readonly Site[]): string[] {
  const faces = sites.flatMap(({uplinkAddresses}) => uplinkAddresses)
  const near = (address: Address): LocalAddress | undefined =>
    faces.find(
      (face) =>
        familyOf(face.address) === familyOf(address) && inRange(address, prefixRange(face.address, face.length)),
    )
  const nodes = new Set(faces.map(({address}) => address))
  const gateways = sites.flatMap(({state, uplinkAddresses}) => [
    ...state.routes.flatMap(({nextHops}) => nextHops.flatMap(({gateway}) => (gateway === undefined ? [] : [gateway]))),
    ...uplinkAddresses.map(gatewayOf),
  ])
  const wanted = [
    ...new Set([
      ...gateways,
      ...outsiders(
        cluster.slices.flatMap(({endpoints}) => endpoints),
        sites,
      ),
    ]),
  ].filter((address) => !nodes.has(address))
  return [
    ...wanted.map((address) => {
      const face = near(address)
      return `addr add ${face ? withLength({...face, address}) : `${formatAddress(address)}/${familyOf(address) === 4 ? '32' : '128 nodad'}`} dev ${HUB_BRIDGE}`
    }),
    'route add blackhole 0.0.0.0/0',
    'route add blackhole ::/0',
    ...(sites.some(routesToPods(sites))
      ? []
      : sites.flatMap(({podRanges, uplinkAddresses}) =>
          podRanges.flatMap(({lo, hi}) => {
            const via = uplinkAddresses.find(({address}) => familyOf(address) === familyOf(lo))
            return via
              ? [
                  `route replace ${formatAddress(lo)}/${parseRangeLength(lo, hi)} via ${formatAddress(via.address)} dev ${HUB_BRIDGE} onlink`,
                ]
              : []
          }),
        )),
  ]
}

/** Where a node knows the way to another's pods, the network around knows none. */
const routesToPods =
  (sites: readonly Site[]) =>
  ({state}: Site): boolean =>
    state.routes.length === 0 ||
    state.routes.some(({destination, nextHops}) =>
      sites.some(
        (other) =>
          other.state.name !== state.name &&
          other.podRanges.some(
            (range) => familyOf(range.lo) === familyOf(destination.lo) && inRange(destination.lo, range),
          ) &&
          nextHops.some(({gateway}) => gateway !== undefined),
      ),
    )

export function outsiders(endpoints: readonly {address: string}[], sites: readonly Site[]): Address[] {
  return endpoints.flatMap(({address}) => {
    const parsed = parseAddress(address)
    if (parsed === undefined) return []
    const inside = sites.some(
      ({podRanges, state, uplinkAddresses}) =>
        podRanges.some((range) => familyOf(range.lo) === familyOf(parsed) && inRange(parsed, range)) ||
        [...state.addresses, ...uplinkAddresses].some((own) => own.address === parsed),
    )
    const onUplink = sites.some(({uplinkAddresses}) =>
      uplinkAddresses.some(
        (face) =>
          familyOf(face.address) === familyOf(parsed) && inRange(parsed, prefixRange(face.address, face.length)),
      ),
    )
    return inside || !onUplink ? [] : [parsed]
  })
}
