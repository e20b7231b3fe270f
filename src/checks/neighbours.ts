import {lostDiscovery} from '../dataplane/neighbour-discovery.js'
import type {World} from '../dataplane/world.js'
import {servesFamily} from '../intent/frontends.js'
import type {Service} from '../model/kube.js'
import {evidenceOf} from './proof.js'
import {makeFinding, type Finding} from './finding.js'

/** Walks take the next hop by its address; in IPv6 the node's rules may keep it from being found. */
export function checkNeighbours(world: World, services: readonly Service[], nodes: readonly string[]): Finding[] {
  const hurt = services.filter((service) => servesFamily(service, 6)).map(({id}) => id)
  if (hurt.length === 0) return []
  return nodes.flatMap((node) => {
    const machine = world.machines.get(node)
    const lost = machine && lostDiscovery(world, machine)
    if (!lost) return []
    const {device, message, inbound, reason, hops} = lost
    return [
      makeFinding('neighbour-discovery-blocked', {
        node,
        services: hurt,
        message: `${node} loses neighbour ${message}s that ${inbound ? 'come in by' : 'leave by'} ${device}, without which IPv6 finds no host there: ${reason}`,
        evidence: evidenceOf(hops.findLast(({evidence}) => evidence !== undefined)),
      }),
    ]
  })
}
