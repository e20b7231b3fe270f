import {followCname} from '../discovery/dns.js'
import {olderPods} from '../discovery/environment.js'
import {gatewayRoutes} from '../discovery/gateway.js'
import type {ClusterState, Service} from '../model/kube.js'
import {parseAddress} from '../util/ip.js'
import {plural} from '../util/text.js'
import {apiEvidence, serviceEvidence} from './api-evidence.js'
import {makeFinding, type Finding} from './finding.js'

/** Broken names: an ExternalName that leads nowhere, pods whose environment does not know the Service. */
export function checkNames(cluster: ClusterState, service: Service): Finding[] {
  return service.type === 'ExternalName' ? externalName(cluster, service) : staleEnvironment(cluster, service)
}

function externalName(cluster: ClusterState, service: Service): Finding[] {
  const target = service.externalName ?? ''
  const problem =
    parseAddress(target) === undefined
      ? chainProblem(cluster, service)
      : `${target} is an address, but DNS takes it for a name (a CNAME), which nobody has`
  if (problem === undefined) return []
  return [
    makeFinding('external-name-broken', {
      services: [service.id],
      message: `ExternalName ${service.id}: ${problem}`,
      evidence: [serviceEvidence(service, `externalName: ${target}`, 'spec.externalName')],
    }),
  ]
}

function chainProblem(cluster: ClusterState, service: Service): string | undefined {
  if ((service.externalName ?? '') === '') return 'it has no externalName'
  const {end, names} = followCname(cluster, service)
  if (end === 'loop') return `the names lead in a circle: ${names.join(' → ')}`
  if (end === 'outside' && names.at(-1)!.endsWith('.svc'))
    return `${names.at(-1)} is absolute for DNS, which completes no CNAME, and there is no top level domain svc`
  return end === 'missing' ? `${names.at(-1)} is a name of this cluster that no Service has` : undefined
}

const FEW = 5

function staleEnvironment(cluster: ClusterState, service: Service): Finding[] {
  const {count, first} = olderPods(cluster, service, FEW)
  if (count === 0) return []
  const shown = `${first.join(', ')}${count > first.length ? ` and ${count - first.length} more` : ''}`
  return [
    makeFinding('environment-stale', {
      services: [service.id],
      message: `${plural(count, 'pod')} started before ${service.id} was made and ${count === 1 ? 'has' : 'have'} no environment variables of it, or old ones: ${shown}`,
      evidence: [
        apiEvidence('pods.json', first[0]!, `${first[0]}: started before`, 'status.startTime'),
        serviceEvidence(service, `${service.id}: made ${service.created}`, 'metadata.creationTimestamp'),
      ],
    }),
  ]
}

/** Routes of the Gateway API that lead nowhere. */
export function checkGateways(cluster: ClusterState, services: readonly Service[]): Finding[] {
  const asked = new Set(services.map(({id}) => id))
  const all = services.length === cluster.services.length
  return (
    gatewayRoutes(cluster)
      // what gets no request needs no Service
      .filter(({service, share, problems}) => share > 0 && problems.length > 0 && (all || asked.has(service)))
      .map(({route, service, problems}) =>
        makeFinding('gateway-route-broken', {
          services: [service],
          message: `${route} leads to ${service}, and nothing takes this way: ${problems.join('; ')}`,
          evidence: [apiEvidence(`${route.split(' ')[0]!.toLowerCase()}s.json`, route.split(' ')[1]!, route)],
        }),
      )
  )
}
