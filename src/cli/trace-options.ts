import type {World} from '../dataplane/world.js'
import {SvcTraceError} from '../model/errors.js'
import type {Service} from '../model/kube.js'
import type {TraceOptions} from '../trace.js'
import {parseRange} from '../util/ip.js'

export interface TraceFlags {
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly port?: string | undefined
  readonly node?: readonly string[] | undefined
  readonly namespace?: string | undefined
}

/** Turns flags into what `trace` is asked. */
export function traceOptions(flags: TraceFlags, world: World, service: Service): TraceOptions {
  if (
    flags.port !== undefined &&
    !service.ports.some(({name, port, nodePort}) => [name, String(port), String(nodePort)].includes(flags.port!))
  ) {
    throw new SvcTraceError(
      'NotFound',
      `${service.id} has no port ${flags.port}`,
      `its ports: ${service.ports.map(({name, port}) => (name ? `${name} (${port})` : port)).join(', ')}`,
    )
  }
  const from = flags.from === undefined ? undefined : originOf(flags.from, world, service)
  return {
    ...(from ? {from} : {}),
    ...(flags.to === undefined ? {} : {to: flags.to}),
    ...(flags.port === undefined ? {} : {port: flags.port}),
    ...(flags.node === undefined ? {} : {nodes: flags.node}),
  }
}

function originOf(text: string, world: World, service: Service): NonNullable<TraceOptions['from']> {
  if (text === 'external' || text === 'any-external') return {kind: 'external', ranges: 'any'}
  const range = parseRange(text.replace(/^external[:/]/, ''))
  if (range) return {kind: 'external', ranges: [range]}
  const [kind, ...rest] = text.split('/')
  if ((kind === 'node' || kind === 'no') && rest.length === 1) {
    if (!world.machines.has(rest[0]!)) throw new SvcTraceError('NotFound', `node "${rest[0]}" was not read`)
    return {kind: 'node', node: rest[0]!}
  }
  if (kind === 'pod' || kind === 'po') {
    const pod = rest.length === 2 ? rest.join('/') : `${service.namespace}/${rest[0]}`
    if (!world.pod(pod)) throw new SvcTraceError('NotFound', `pods "${pod}" not found, or it has no node`)
    return {kind: 'pod', pod}
  }
  throw new SvcTraceError(
    'BadUsage',
    `--from ${text} is not understood`,
    'external, any-external, an address, a CIDR, node/NAME, pod/NAME or pod/NAMESPACE/NAME',
  )
}
