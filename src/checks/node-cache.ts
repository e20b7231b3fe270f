import type {NodeState} from '../snapshot/node-state.js'
import type {Address} from '../util/ip.js'

/** NodeLocal DNSCache gives this device the addresses on which it answers for the DNS Service (KEP-1024). */
const DEVICE = 'nodelocaldns'

type Addresses = NodeState['addresses']
const known = new WeakMap<Addresses, ReadonlySet<Address>>()

/** Does a cache on the node answer at this address? Asked for every walk, of nodes that may have thousands of addresses. */
export function isCached({addresses}: {readonly addresses: Addresses}, address: Address): boolean {
  let cached = known.get(addresses)
  if (!cached) {
    cached = new Set(addresses.filter(({device}) => device === DEVICE).map((own) => own.address))
    known.set(addresses, cached)
  }
  return cached.has(address)
}
