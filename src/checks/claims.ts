import type {Frontend} from '../intent/frontends.js'
import type {ClusterState, Service, ServicePort} from '../model/kube.js'
import type {Evidence} from '../model/trace.js'
import type {NodeState} from '../snapshot/node-state.js'
import {formatAddress, parseAddress, type Address} from '../util/ip.js'
import {apiEvidence, frontendField, portField, serviceEvidence} from './api-evidence.js'
import {makeFinding, type Finding} from './finding.js'

/** Ports and addresses that more than one Service takes for itself, or a Service and a node. */

/** What a Service takes for itself: its NodePorts, its health check port, its ports at external and load-balancer addresses. */
function claimsOf({ports, healthCheckNodePort, externalIPs, loadBalancer}: Service): string[] {
  // of a load balancer that proxies no node has the address (KEP-1860)
  const addresses = [...externalIPs, ...loadBalancer.flatMap(({ip, ipMode}) => (ipMode === 'Proxy' ? [] : (ip ?? [])))]
  return [
    ...ports.flatMap(({nodePort, protocol}) => (nodePort === undefined ? [] : [`NodePort ${nodePort}/${protocol}`])),
    ...(healthCheckNodePort === undefined ? [] : [`NodePort ${healthCheckNodePort}/TCP`]),
    ...addresses.flatMap((ip) => ports.map(({port, protocol}) => `${ip}, port ${port}/${protocol},`)),
  ]
}

/** What more than one Service claims, and which. */
function contested(services: readonly Service[]): [claim: string, ids: string[]][] {
  const owners = new Map<string, string[]>()
  for (const service of services)
    for (const claim of new Set(claimsOf(service))) {
      const known = owners.get(claim)
      if (known) known.push(service.id)
      else owners.set(claim, [service.id])
    }
  return [...owners].filter(([, ids]) => ids.length > 1)
}

/**
 * The other Services that claim a frontend too: what goes to their endpoints there is as it must be, with two owners of one
 * port, and no fault of the node.
 */
export function otherOwners(
  services: readonly Service[],
): (service: Service, frontend: Pick<Frontend, 'kind' | 'address' | 'port' | 'protocol'>) => readonly string[] {
  const claims = new Map(contested(services))
  return ({id}, {kind, address, port, protocol}) => {
    const claim =
      kind === 'nodePort' || kind === 'localhost'
        ? `NodePort ${port}/${protocol}`
        : `${formatAddress(address)}, port ${port}/${protocol},`
    return (claims.get(claim) ?? []).filter((owner) => owner !== id)
  }
}

export function duplicatePorts(services: readonly Service[]): Finding[] {
  return contested(services).flatMap(([claim, ids]) => {
    const port = /^NodePort (.*)/.exec(claim)?.[1]
    return [
      makeFinding('duplicate-node-port', {
        services: ids,
        port,
        message: `${claim} is claimed by ${ids.join(' and ')}`,
        evidence: ids.flatMap((id) => claimEvidence(services, id, claim)),
      }),
    ]
  })
}

/** Where a Service makes a claim. */
function claimEvidence(services: readonly Service[], id: string, claim: string): Evidence[] {
  const service = services.find((one) => one.id === id)!
  const port = service.ports.find(({nodePort, protocol}) => claim === `NodePort ${nodePort}/${protocol}`)
  if (port) return [serviceEvidence(service, `${id}: nodePort ${port.nodePort}`, portField(service, port, 'nodePort'))]
  if (claim === `NodePort ${service.healthCheckNodePort}/TCP`)
    return [serviceEvidence(service, `${id}: healthCheckNodePort`, 'spec.healthCheckNodePort')]
  const ip = claim.slice(0, claim.indexOf(','))
  return [serviceEvidence(service, `${id}: ${ip}`, addressField(service, service.ports[0]!, ip))]
}

/** External IPs and load balancers' addresses. */
const addressField = (service: Service, port: ServicePort, ip: string): string =>
  frontendField(service, port, {
    kind: service.externalIPs.includes(ip) ? 'externalIP' : 'loadBalancerIP',
    address: parseAddress(ip)!,
  })

/** External IPs that are node addresses: dangerous in ipvs mode only. */
export function externalIpConflicts(
  cluster: ClusterState,
  services: readonly Service[],
  modes: ReadonlySet<string>,
): Finding[] {
  if (!modes.has('ipvs')) return []
  const nodes = new Map(
    cluster.nodes.flatMap(({name, addresses}) => addresses.map(({address}) => [address, name] as const)),
  )
  return services.flatMap((service) =>
    [
      ...service.externalIPs,
      ...service.loadBalancer.flatMap(({ip, ipMode}) => (ip !== undefined && ipMode !== 'Proxy' ? ip : [])),
    ].flatMap((ip) => {
      const node = nodes.get(ip)
      if (node === undefined) return []
      return [
        makeFinding('external-ip-is-node-ip', {
          services: [service.id],
          frontends: [ip],
          message: `external address ${ip} of ${service.id} is the address of node ${node}`,
          evidence: [
            ...service.ports.slice(0, 1).map((port) => serviceEvidence(service, ip, addressField(service, port, ip))),
            apiEvidence('nodes.json', node, `${node}: ${ip}`, 'status.addresses'),
          ],
        }),
      ]
    }),
  )
}

/** An address of another node on a device of this one. */
export interface ForeignAddress {
  readonly address: Address
  readonly device: string
  readonly owners: readonly string[]
}

const addressOwners = new WeakMap<ClusterState, ReadonlyMap<Address, readonly string[]>>()

/** Nodes by the addresses that the API gives them. */
function ownersIn(cluster: ClusterState): ReadonlyMap<Address, readonly string[]> {
  const known = addressOwners.get(cluster)
  if (known) return known
  const owners = new Map<Address, string[]>()
  for (const {name, addresses} of cluster.nodes)
    for (const address of new Set(addresses.flatMap((own) => parseAddress(own.address) ?? [])))
      owners.set(address, [...(owners.get(address) ?? []), name])
  addressOwners.set(cluster, owners)
  return owners
}

/** Those that the API gives to both are shared on purpose; in ipvs mode external addresses may be nodes' (externalIpConflicts). */
export function foreignAddresses(cluster: ClusterState, state: NodeState): ForeignAddress[] {
  const all = ownersIn(cluster)
  return state.addresses.flatMap(({address, device}) => {
    const owners = all.get(address)
    return owners === undefined || device === 'kube-ipvs0' || owners.includes(state.name)
      ? []
      : [{address, device, owners}]
  })
}

/** What a finding about one says. */
export function foreignAddressWords(
  state: NodeState,
  {address, device, owners}: ForeignAddress,
): {message: string; evidence: Evidence[]} {
  const text = formatAddress(address)
  return {
    message: `${state.name} has ${text} on ${device}, which is the address of ${owners.join(' and ')}`,
    evidence: [
      {source: state.ipPath('ip-addr'), line: 0, text: `${text} on ${device}`},
      apiEvidence('nodes.json', owners[0]!, `${owners[0]!}: ${text}`, 'status.addresses'),
    ],
  }
}

/** Also where no walk meets it: whoever asks for that address is answered by two nodes. */
export const nodeAddressesElsewhere = (
  cluster: ClusterState,
  states: readonly NodeState[],
  hurt: readonly string[],
): Finding[] =>
  states.flatMap((state) =>
    foreignAddresses(cluster, state).map((found) =>
      makeFinding('node-address-elsewhere', {
        node: state.name,
        services: hurt,
        frontends: [formatAddress(found.address)],
        ...foreignAddressWords(state, found),
      }),
    ),
  )
