import type {World} from './dataplane/world.js'
import {
  classOf,
  controllerService,
  hostNetworkControllers,
  usesServiceAddress,
  type IngressRoute,
} from './discovery/ingress.js'
import {endpointsOf} from './intent/endpoints.js'
import type {Pod, Service, ServicePort} from './model/kube.js'
import type {Snapshot} from './snapshot/snapshot.js'
import {trace, type TraceOptions, type TraceResult} from './trace.js'

/** The whole way of a request through an Ingress: to its controller, and from there to the backend. */
export interface IngressTrace {
  readonly route: IngressRoute
  readonly className?: string
  readonly controllerName?: string
  /** How clients outside reach the controller; undefined when its Service was not found. */
  readonly entry?: TraceResult
  readonly backend: TraceResult
  /** `pod`: from a controller pod straight to the endpoints; `service`: to the Service's own addresses. */
  readonly how: 'pod' | 'service'
  readonly notes: readonly string[]
}

/** Controllers that watch endpoints and by default send to them, past the Service (each project's documentation; ingress-nginx: "Service Upstream"). */
const PAST_SERVICES =
  /(^|\/)ingress-nginx$|^(projectcontour\.io|haproxy\.org|haproxy-ingress\.github\.io|nginx\.org|traefik\.io)\b/

/** Traces a route of an Ingress; `from` of the options is where the client of the Ingress is. */
export function traceIngress(
  snapshot: Snapshot,
  world: World,
  {route, service, port, options}: {route: IngressRoute; service: Service; port: ServicePort; options: TraceOptions},
): IngressTrace {
  const {cluster} = snapshot
  const {name, controller, problem} = classOf(cluster, route)
  const found = controllerService(cluster, route)
  const own = found?.service
  const onNodes = hostNetworkControllers(cluster, route)
  const client = own ? controllerPod(snapshot, own) : onNodes.find(({ready}) => ready)?.id
  const past = PAST_SERVICES.test(controller ?? '') && !usesServiceAddress(cluster, route)
  const {to, from, ...shared} = options
  const backend = trace(snapshot, world, {
    service,
    options: {
      ...shared,
      ...(to === undefined ? {} : {to}),
      port: String(port.port),
      direct: past,
      // behind the controller it is the controller that sends
      ...(client === undefined ? (from ? {from} : {}) : {from: {kind: 'pod', pod: client}}),
    },
  })
  const entry =
    own &&
    trace(snapshot, world, {
      service: own,
      options: {...entryOptions(own, route, {...shared, ...(from ? {from} : {})}), direct: found.onNodes},
    })
  const usesService = past || controller === undefined || usesServiceAddress(cluster, route)
  return {
    route,
    ...(name === undefined ? {} : {className: name}),
    ...(controller === undefined ? {} : {controllerName: controller}),
    ...(entry ? {entry} : {}),
    backend,
    how: past ? 'pod' : 'service',
    notes: [
      ...(problem === undefined ? [] : [`no controller takes it: ${problem}`]),
      ...(own && !found.onNodes ? [] : [controllerNote(onNodes)]),
      ...(found?.by === 'label' ? [`that ${own!.id} is its controller's Service is a guess by its labels`] : []),
      ...(usesService ? [] : [unsureNote(controller)]),
      ...(past ? ['its controller sends to the endpoints itself, past the Service'] : []),
    ],
  }
}

const unsureNote = (controller: string): string =>
  `whether ${controller} sends to the Service or to its endpoints is not known; the Service's address is walked`

function controllerNote(onNodes: readonly Pod[]): string {
  return onNodes.length > 0
    ? `its controller listens on the nodes themselves: ${onNodes.map(({id, node}) => `${id} on ${node ?? '?'}`).join(', ')}`
    : 'the Service of its controller was not found (neither by the address in its status nor by labels)'
}

/** From outside, or where else the client is, to the port that the request comes in by: 443 with TLS, else 80. */
function entryOptions(own: Service, {tlsSecret}: IngressRoute, shared: Omit<TraceOptions, 'to'>): TraceOptions {
  const wanted = tlsSecret === undefined ? 80 : 443
  const {port: _port, ...rest} = shared
  return {
    from: {kind: 'external', ranges: 'any'},
    ...rest,
    ...(own.ports.some(({port}) => port === wanted) ? {port: String(wanted)} : {}),
  }
}

/** A pod that the controller runs in. */
function controllerPod({cluster}: Snapshot, service: Service): string | undefined {
  const all = service.ports.flatMap((port) =>
    ([4, 6] as const).flatMap((family) => endpointsOf(cluster, service, {port, family})),
  )
  return all.find(({ready, pod}) => ready && pod !== undefined)?.pod
}
