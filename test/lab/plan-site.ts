/** What the lab knows of one node before it plans: its dump, its addresses, its pods' networks. */
import type {LocalAddress} from '../../src/parse/iproute.js'
import type {NodeState} from '../../src/snapshot/node-state.js'
import type {Snapshot} from '../../src/snapshot/snapshot.js'
import {
  familyOf,
  formatAddress,
  inRange,
  parseAddress,
  parseRange,
  prefixRange,
  type Address,
  type Family,
} from '../../src/util/ip.js'

export class LabError extends Error {}

/** The bridge in the hub that all nodes and clients hang on. */
export const HUB_BRIDGE = 'br0'
export const DEVICE = /^[\w.:@-]{1,15}$/
const NODE_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/
const LINK_LOCAL = parseRange('fe80::/10')!

export interface Site {
  readonly state: NodeState
  readonly address: string
  readonly uplink: string
  readonly uplinkAddresses: readonly LocalAddress[]
  readonly podRanges: readonly {lo: Address; hi: Address}[]
}

export function siteOf({cluster, nodes}: Snapshot, name: string): Site {
  if (!NODE_NAME.test(name)) throw new LabError(`node name ${JSON.stringify(name)} is not one that Kubernetes allows`)
  const node = cluster.nodes.find((one) => one.name === name)!
  const state = nodes.get(name)
  if (!state) throw new LabError(`nodes/${name}/ is not in the snapshot: the lab has nothing to put into its kernel`)
  const internal = node.addresses.find(
    ({type, address}) => type === 'InternalIP' && parseAddress(address) !== undefined,
  )
  if (!internal) throw new LabError(`node ${name} has no InternalIP`)
  const own = parseAddress(internal.address)!
  const uplink = state.addresses.find(({address}) => address === own)?.device ?? 'eth0'
  if (!DEVICE.test(uplink)) throw new LabError(`node ${name}: ${JSON.stringify(uplink)} is not a name of a device`)
  const found = state.addresses.filter(({device, address}) => device === uplink && !isLinkLocal(address))
  return {
    state,
    address: internal.address,
    uplink,
    uplinkAddresses:
      found.length > 0
        ? found
        : [
            {
              address: own,
              length: familyOf(own) === 4 ? 24 : 64,
              device: uplink,
              scope: 'global',
              secondary: false,
              deprecated: false,
            },
          ],
    podRanges: node.podCIDRs.flatMap((cidr) => parseRange(cidr) ?? []),
  }
}

export const isLinkLocal = (address: Address): boolean => inRange(address, LINK_LOCAL)
/** `default` alone tells `ip -batch` no family. */
export const anywhere = (family: Family): string => (family === 4 ? '0.0.0.0/0' : '::/0')
export const withLength = ({address, length}: LocalAddress): string =>
  `${formatAddress(address)}/${length}${familyOf(address) === 6 ? ' nodad' : ''}`

export const bridgeAddresses = ({podRanges}: Site): LocalAddress[] =>
  podRanges.map(({lo, hi}) => {
    const length = parseRangeLength(lo, hi)
    const address = typeof lo === 'number' ? lo + 1 : lo + 1n
    return {address, length, device: 'cni0', scope: 'global', secondary: false, deprecated: false}
  })

export function parseRangeLength(lo: Address, hi: Address): number {
  const size = BigInt(hi) - BigInt(lo) + 1n
  return (typeof lo === 'number' ? 32 : 128) - (size.toString(2).length - 1)
}

/** The first address of its network, or the second where that is its own. */
export function gatewayOf({address, length}: LocalAddress): Address {
  const {lo} = prefixRange(address, length)
  const next = (by: number): Address => (typeof lo === 'number' ? lo + by : lo + BigInt(by))
  return next(1) === address ? next(2) : next(1)
}
