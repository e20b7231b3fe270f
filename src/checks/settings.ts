import type {Evidence, Fate} from '../model/trace.js'
import type {NodeState} from '../snapshot/node-state.js'
import {familyOf, inRange, parseAddress, prefixRange} from '../util/ip.js'
import type {Cause} from './cause.js'
import type {CodeName} from './codes.js'
import type {Mismatch} from './compare.js'
import type {Scene} from './missing.js'
import {deciding, evidenceOf, routeLine, sysctlLine} from './proof.js'

/** Packets that no rule loses, but a sysctl, a route or a device of a node. */

/** One finding for each setting of a node. */
export function onNode({fate, frontend}: Mismatch, name: CodeName, {node, scene}: {node: string; scene: Scene}): Cause {
  const state = scene.states.get(node)
  return {
    key: `${name} ${node}`,
    name,
    node,
    evidence: settingBehind(name, {state, fate, family: familyOf(frontend.address)}) ?? evidenceOf(deciding(fate)),
    message: fate.reason,
  }
}

/** The kernel takes the routes of a device away with it: the one that had the network of the endpoint, or of its node. */
export function deviceDown(
  {fate, promise, service, from}: Mismatch,
  {states, cluster}: Scene,
  node: string,
): Cause | undefined {
  const state = states.get(node)
  if (!state) return undefined
  const [target] = fate.towards
  const home = promise.endpoints.find(({address}) => address === target?.address)?.node
  // of the endpoint's node, and of the own one: without that there is no way out at all
  const ofNodes = cluster.nodes.filter(({name}) => name === home || name === node)
  const pod = from.kind === 'pod' ? cluster.pods?.find(({id}) => id === from.pod) : undefined
  const texts = [...ofNodes.flatMap(({addresses}) => addresses.map(({address}) => address)), ...(pod?.ips ?? [])]
  const wanted = [...(target ? [target.address] : []), ...texts.flatMap((text) => parseAddress(text) ?? [])]
  const down = state.links.find(
    ({name, up}) =>
      !up &&
      state.addresses.some(
        ({device, address, length}) =>
          device === name && wanted.some((one) => inRange(one, prefixRange(address, length))),
      ),
  )
  if (!down) return undefined
  return {
    key: `device-down ${state.name} ${down.name}`,
    name: 'device-down',
    node: state.name,
    evidence: [{source: state.ipPath('ip-link'), line: 0, text: `${down.name} is down`}],
    message: `device ${down.name} of ${state.name} is down, and its routes are gone: ${fate.reason} (${service.id})`,
  }
}

/** The sysctl or the routes that decide, where no rule does. */
function settingBehind(
  name: CodeName,
  {state, fate, family}: {state: NodeState | undefined; fate: Fate; family: 4 | 6},
): Evidence[] | undefined {
  if (name === 'route-localnet-off') return sysctlLine(state, 'net.ipv4.conf.all.route_localnet')
  if (name === 'bridge-nf-off') return sysctlLine(state, `net.bridge.bridge-nf-call-ip${family === 6 ? '6' : ''}tables`)
  if (name === 'pod-route-missing') return routeLine(state, family, fate.reason)
  const down = name === 'device-down' ? /^device (\S+) of \S+ is down/.exec(fate.reason)?.[1] : undefined
  if (down !== undefined && state) return [{source: state.ipPath('ip-link'), line: 0, text: `${down} is down`}]
  const device = /^rp_filter=\d on (\S+)/.exec(fate.reason)?.[1]
  if (name !== 'rp-filter-drops' || device === undefined || !state) return undefined
  const names = ['all', device].map((of) => `net.ipv4.conf.${of}.rp_filter`)
  return sysctlLine(
    state,
    names.reduce((a, b) => (Number(state.sysctl(b) ?? 0) > Number(state.sysctl(a) ?? 0) ? b : a)),
  )
}
