import type {NodeState} from '../snapshot/node-state.js'
import type {Address} from '../util/ip.js'

/** NodeLocal DNSCache gives this device the addresses on which it answers for the DNS Service (KEP-1024). */
const DEVICE = 'nodelocaldns'

/** Does a cache on the node answer at this address? */
export const isCached = ({addresses}: Pick<NodeState, 'addresses'>, address: Address): boolean =>
  addresses.some((own) => own.device === DEVICE && own.address === address)
