import type {Protocol} from '../model/kube.js'
import {dropped, refused, unknown, type Arrival} from './arrival.js'
import {Journey} from './journey.js'
import type {Packet} from './packet.js'
import type {End} from './walker.js'
import type {ProxySocket} from './world.js'

/** pkg/proxy/userspace/proxysocket.go, EndpointDialTimeouts: a connection that fails is tried again with the next endpoint. */
const TRIES: Readonly<Partial<Record<Protocol, number>>> = {TCP: 4}

/** From one proxy to the next: more is a loop. */
const MOST_PROXIES = 3

type Proxied = Arrival & {readonly proxy: ProxySocket}
type Balanced = Arrival & {readonly proxy: Extract<ProxySocket, {kind: 'balances'}>}

/** What becomes of a connection that a Service proxy's own process has taken. */
export function throughProxy(journey: Journey, arrival: Proxied, request: Packet): End {
  const {proxy} = arrival
  const socket = `port ${request.dport} of ${arrival.machine.name}`
  if (proxy.kind === 'unclear') return unknown(proxy.why)
  if (proxy.kind === 'holds')
    return dropped('no-listener', `no rule leads it on: kube-proxy only holds ${socket} and never answers there`)
  return connectOn(journey, {...arrival, proxy}, socket)
}

/** One endpoint after the other, from any of them on (pkg/proxy/userspace/roundrobin.go; it shuffles them itself). */
function connectOn(journey: Journey, {machine, proxy}: Balanced, socket: string): End {
  const {world, walker, flow, proxies} = journey
  const {service, endpoints} = proxy
  if (proxies >= MOST_PROXIES) return dropped('loop', `kube-proxy's connections lead back to kube-proxy: ${socket}`)
  const {length} = endpoints
  if (walker.steps)
    walker.hop('choice', `kube-proxy's own process takes it at ${socket} for ${service}, of ${length} ready endpoints`)
  const first = length === 0 ? 0 : walker.chooser.random(endpoints.map(() => 1 / length))
  const order = endpoints.map((_, at) => endpoints[(first + at) % length]!).slice(0, TRIES[flow.protocol] ?? 1)
  let last: End | undefined
  for (const {address, port} of order) {
    const origin = {kind: 'node', node: machine.name} as const
    const onward = new Journey(
      world,
      {origin, destination: address, port, protocol: flow.protocol},
      walker,
      proxies + 1,
    )
    last = onward.run()
    if (last.outcome === 'unknown') return last
    if (last.outcome === 'delivered') {
      journey.source = onward.source
      return last
    }
  }
  return nobody(flow.protocol, {socket, service, last})
}

/** It closes the connection that it has taken; a datagram is lost. */
function nobody(
  protocol: Protocol,
  {socket, service, last}: {socket: string; service: string; last: End | undefined},
): End {
  const why = last ? `no endpoint of ${service} answers it (${last.reason})` : `${service} has no ready endpoint`
  const cause = last?.cause ?? 'no-real-server'
  return protocol === 'TCP'
    ? refused(cause, `kube-proxy at ${socket} takes the connection and closes it: ${why}`)
    : dropped(cause, `kube-proxy at ${socket} cannot pass it on: ${why}`)
}
