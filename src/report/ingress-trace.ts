import type {IngressTrace} from '../trace-ingress.js'
import {safeLine} from '../util/text.js'
import {ingressText} from './discovery-text.js'
import {paint, wrap} from './paint.js'
import {traceReport} from './trace-report.js'
import {traceText} from './trace-text.js'

/** The JSON form: the route, then both traces. */
export const ingressReport = ({entry, backend, route, ...rest}: IngressTrace): object => ({
  apiVersion: 'svc-trace/v1',
  kind: 'IngressTraceReport',
  route,
  ...rest,
  ...(entry ? {entry: traceReport(entry)} : {}),
  backend: traceReport(backend),
})

/** The route, the way to the controller, the way from it. */
export function ingressTraceText(
  {route, className, controllerName, entry, backend, notes}: IngressTrace,
  options: {readonly color: boolean; readonly width: number; readonly wide: boolean},
): string {
  const ink = paint(options.color)
  const line = (text: string): string => `  ${wrap(safeLine(text), options.width - 2, '    ')}\n`
  const title = (text: string): string => `\n${ink.bold(`── ${safeLine(text)}`)}\n`
  return [
    ink.bold(`Ingress ${safeLine(ingressText(route))} of ${safeLine(route.service)}\n`),
    line(`class ${className ?? 'none'}${controllerName === undefined ? '' : `, controller ${controllerName}`}`),
    ...(route.tlsSecret === undefined ? [] : [line(`TLS with Secret ${route.tlsSecret}`)]),
    ...notes.map(line),
    ...(entry ? [title(`to the controller: ${entry.service.id}`), traceText(entry, options)] : []),
    title(`to the backend: ${backend.service.id}`),
    traceText(backend, options),
  ].join('')
}
