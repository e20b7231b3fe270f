import type {ServiceEndpoint} from '../intent/endpoints.js'
import type {Fate, Hop} from '../model/trace.js'
import {formatEndpoint} from '../util/ip.js'

/** What the steps of a way do to a packet on its way there; those of its answer are nobody's translation. */

/** DNAT or REDIRECT by a rule. */
export const isDestinationNat = ({kind, reply, destination}: Hop): boolean =>
  kind === 'nat' && !reply && destination !== undefined

/** SNAT or MASQUERADE by a rule. */
export const isSourceNat = ({kind, reply, source}: Hop): boolean => kind === 'nat' && !reply && source !== undefined

/** A rule or a virtual server takes the packet for another destination, even if it has none to give. */
export const isTranslation = (hop: Hop): boolean => isDestinationNat(hop) || (hop.kind === 'ipvs' && !hop.reply)

/** The step that sends the packet to this endpoint. */
export const leadsTo = ({reply, destination}: Hop, {address, port}: ServiceEndpoint): boolean =>
  !reply && destination === formatEndpoint(address, port)

/** The steps of a fate are those of one of its endpoints, whatever others share its end. */
export const wasSentTo = ({hops}: Fate, endpoint: ServiceEndpoint): boolean =>
  hops.some((hop) => leadsTo(hop, endpoint))
