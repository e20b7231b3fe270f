/** Who answers in the lab, and where. */
import type {Snapshot} from '../../src/snapshot/snapshot.js'
import {formatAddress, parseAddress} from '../../src/util/ip.js'
import type {Listener, PodPlan} from './plan.js'
import {outsiders} from './plan-outside.js'
import type {Site} from './plan-site.js'

/** kube-proxy's own ports, which the lab serves itself, and sshd's. */
const PROXY_PORTS: ReadonlySet<number> = new Set([10249, 10256])
const SSH_PORT = 22

/** Who listens: pods at their ports and at those of their slices, hosts outside, and what `ss` showed on the nodes. */
export function planListeners(
  {cluster, nodes}: Snapshot,
  {sites, pods}: {sites: readonly Site[]; pods: readonly PodPlan[]},
): Listener[] {
  const found = new Map<string, Listener>()
  const add = (listener: Listener): void => {
    const {namespace, proto, address, port} = listener
    const key = `${namespace} ${proto} ${port}`
    if (!found.has(key) && !found.has(`${key} ${address}`))
      found.set(address === '' ? key : `${key} ${address}`, listener)
  }
  const at = new Map(pods.map((pod) => [pod.id, pod]))
  for (const pod of cluster.pods ?? [])
    for (const {port, protocol} of pod.ports) {
      const place = pod.hostNetwork ? pod.node : at.get(pod.id)?.namespace
      if (place !== undefined && protocol !== 'SCTP' && sites.some(({state}) => state.name === pod.node))
        add({namespace: place, name: pod.id, pod: true, proto: lower(protocol), address: '', port})
    }
  for (const {ports, endpoints} of cluster.slices)
    for (const {port, protocol} of ports) {
      if (port === undefined || protocol === 'SCTP') continue
      for (const {address, pod} of endpoints) {
        const parsed = parseAddress(address)
        if (parsed === undefined) continue
        const namespace =
          (pod === undefined ? undefined : at.get(pod)?.namespace) ??
          sites.find(({uplinkAddresses}) => uplinkAddresses.some((own) => own.address === parsed))?.state.name
        if (namespace !== undefined)
          add({namespace, name: pod ?? address, pod: pod !== undefined, proto: lower(protocol), address: '', port})
        else if (outsiders([{address}], sites).length > 0)
          add({namespace: '', name: address, pod: false, proto: lower(protocol), address, port})
      }
    }
  for (const {state} of sites)
    for (const {address, port, protocol} of nodes.get(state.name)?.sockets ?? []) {
      const proto = protocol.toLowerCase()
      if (port === SSH_PORT || PROXY_PORTS.has(port) || (proto !== 'tcp' && proto !== 'udp')) continue
      add({
        namespace: state.name,
        name: `node/${state.name}`,
        pod: false,
        proto,
        address: address === undefined ? '' : formatAddress(address),
        port,
      })
    }
  return [...found.values()]
}

const lower = (protocol: 'TCP' | 'UDP'): 'tcp' | 'udp' => (protocol === 'TCP' ? 'tcp' : 'udp')
