import type {ClusterState, Pod, Service} from '../model/kube.js'
import {balancerOf, endpointWriters, type Balancer} from './balancer.js'
import {
  clusterDomain,
  followCname,
  lookupSteps,
  namesOf,
  recordsOf,
  resolverOf,
  type CnameChain,
  type DnsRecord,
  type LookupStep,
  type Resolver,
} from './dns.js'
import {variablesOf, type Variable} from './environment.js'
import {gatewayRoutes, type GatewayRoute} from './gateway.js'
import {allRoutes, plainPorts, type IngressRoute, type PlainPort} from './ingress.js'

/** How clients find a Service: by names, environment variables, Ingresses and routes. */
export interface Discovery {
  readonly domain: string
  /** Nothing in the snapshot names the cluster's domain. */
  readonly domainAssumed: boolean
  /** The cluster's DNS servers were asked, and `findings` tell what they said. */
  readonly asked: boolean
  readonly names: readonly {readonly name: string; readonly from: string}[]
  readonly records: readonly DnsRecord[]
  readonly variables: readonly Variable[]
  readonly cname?: CnameChain
  readonly lookup?: Lookup
  readonly ingresses: readonly IngressRoute[]
  readonly gatewayRoutes: readonly GatewayRoute[]
  readonly plainPorts: readonly PlainPort[]
  readonly balancer?: Balancer
  /** Of a Service without a selector: who writes its endpoints. */
  readonly writers: readonly string[]
}

/** What a pod's resolver asks for the shortest name that leads to the Service from there. */
export interface Lookup {
  readonly pod: string
  readonly name: string
  readonly resolver: Resolver
  readonly steps: readonly LookupStep[]
}

/** The pod whose lookup is wanted, with the resolv.conf of its node where it was read. */
export interface Client {
  readonly pod: Pod
  readonly nodeResolvConf: string | undefined
}

export function discover(
  cluster: ClusterState,
  service: Service,
  {client, asked}: {readonly client: Client | undefined; readonly asked: boolean},
): Discovery {
  const {domain, assumed} = clusterDomain(cluster)
  const balancer = balancerOf(cluster, service)
  return {
    domain,
    domainAssumed: assumed,
    asked,
    names: namesOf(service, domain),
    records: recordsOf(cluster, service, domain),
    variables: variablesOf(service),
    ...(service.type === 'ExternalName' ? {cname: followCname(cluster, service)} : {}),
    ...(client ? {lookup: lookupFrom(cluster, service, client)} : {}),
    ingresses: allRoutes(cluster).filter((route) => route.service === service.id),
    ...(balancer ? {balancer} : {}),
    plainPorts: plainPorts(cluster).filter((route) => route.service === service.id),
    writers: endpointWriters(cluster, service),
    gatewayRoutes: gatewayRoutes(cluster).filter((route) => route.service === service.id),
  }
}

function lookupFrom(cluster: ClusterState, {name, namespace}: Service, {pod, nodeResolvConf}: Client): Lookup {
  const resolver = resolverOf(cluster, pod, nodeResolvConf)
  const short = pod.namespace === namespace ? name : `${name}.${namespace}`
  return {pod: pod.id, name: short, resolver, steps: lookupSteps(cluster, short, resolver)}
}
