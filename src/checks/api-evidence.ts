import {slicesOf} from '../intent/endpoints.js'
import type {Frontend} from '../intent/frontends.js'
import type {ClusterState, Endpoint, Service, ServicePort} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import {familyOf, parseAddress, type Family} from '../util/ip.js'

/**
 * What an object of the API says. `object` is its `namespace/name` (the name alone where it has no namespace), `field` what
 * speaks, as `kubectl explain` spells it, with positions: `spec.ports[0].nodePort`. Its line is looked up for those findings
 * that are shown (snapshot/api-lines.ts).
 */
export const apiEvidence = (file: string, object: string, text: string, field?: string): Evidence => ({
  source: `api/${file}`,
  line: 0,
  text,
  object,
  ...(field === undefined ? {} : {field}),
})

export const serviceEvidence = ({id}: Pick<Service, 'id'>, text: string, field?: string): Evidence =>
  apiEvidence('services.json', id, text, field)

/** A field of one of a Service's ports. */
export const portField = ({ports}: Service, port: ServicePort, name: 'port' | 'nodePort' | 'targetPort'): string =>
  `spec.ports[${ports.indexOf(port)}].${name}`

/** The field of a Service that gives it this frontend. */
export function frontendField(
  service: Service,
  port: ServicePort,
  {kind, address}: Pick<Frontend, 'kind' | 'address'>,
): string {
  const at = (ips: readonly (string | undefined)[]): number =>
    ips.findIndex((ip) => ip !== undefined && parseAddress(ip) === address)
  if (kind === 'externalIP') return `spec.externalIPs[${at(service.externalIPs)}]`
  if (kind === 'loadBalancerIP') return `status.loadBalancer.ingress[${at(service.loadBalancer.map(({ip}) => ip))}].ip`
  if (kind === 'clusterIP') {
    const place = at(service.clusterIPs)
    return place > 0 ? `spec.clusterIPs[${place}]` : 'spec.clusterIP'
  }
  return portField(service, port, 'nodePort')
}

export interface EndpointsWanted {
  readonly family?: Family | undefined
  /** The first such endpoint is pointed at. */
  readonly which?: (endpoint: Endpoint) => boolean
  /** The field of it. */
  readonly field?: string
}

/** What the slices of a Service say of its endpoints; without slices its Endpoints, and the Service where there are neither. */
export function endpointsEvidence(
  cluster: ClusterState,
  service: Service,
  text: string,
  {family, which, field}: EndpointsWanted = {},
): Evidence {
  const slices = slicesOf(cluster, service).filter((slice) => family === undefined || slice.family === family)
  const found = which && slices.find(({endpoints}) => endpoints.some(which))
  const slice = found ?? slices[0]
  if (!slice) return serviceEvidence(service, text, 'spec.selector')
  if (!cluster.read.has('endpointslices')) return apiEvidence('endpoints.json', service.id, text, 'subsets')
  const at = found && which ? found.endpoints.findIndex(which) : -1
  const place = at < 0 ? 'endpoints' : `endpoints[${at}]${field === undefined ? '' : `.${field}`}`
  return apiEvidence('endpointslices.json', `${slice.namespace}/${slice.name}`, text, place)
}

/** The slice that holds an endpoint, or the first of the frontend's family. */
export const endpointOf = (
  cluster: ClusterState,
  service: Service,
  text: string,
  {frontend, endpoint}: {frontend: Frontend; endpoint?: {readonly address: Frontend['address']} | undefined},
): Evidence =>
  endpointsEvidence(cluster, service, text, {
    family: familyOf(frontend.address),
    ...(endpoint ? {which: ({address}: Endpoint) => parseAddress(address) === endpoint.address} : {}),
  })
