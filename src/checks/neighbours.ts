import {lostDiscovery} from '../dataplane/neighbour-discovery.js'
import type {World} from '../dataplane/world.js'
import {servesFamily} from '../intent/frontends.js'
import type {Service} from '../model/kube.js'
import {evidenceOf} from './proof.js'
import {makeFinding, type Finding, type Incomplete} from './finding.js'

/** Walks take the next hop by its address; in IPv6 the node's rules may keep it from being found. */
export function checkNeighbours(
  world: World,
  services: readonly Service[],
  nodes: readonly string[],
): {findings: Finding[]; incomplete: Incomplete[]} {
  const hurt = services.filter((service) => servesFamily(service, 6)).map(({id}) => id)
  const result: ReturnType<typeof checkNeighbours> = {findings: [], incomplete: []}
  for (const node of hurt.length > 0 ? nodes : []) {
    const machine = world.machines.get(node)
    const lost = machine && lostDiscovery(world, machine)
    if (!lost) continue
    const {sure, device, message, inbound, reason, hops} = lost
    const what = `neighbour ${message}s that ${inbound ? 'come in by' : 'leave by'} ${device}`
    if (sure)
      result.findings.push(
        makeFinding('neighbour-discovery-blocked', {
          node,
          services: hurt,
          message: `${node} loses ${what}, without which IPv6 finds no host there: ${reason}`,
          evidence: evidenceOf(hops.findLast(({evidence}) => evidence !== undefined)),
        }),
      )
    else result.incomplete.push({node, reason: `whether ${what} get through is not known: ${reason}`})
  }
  return result
}
