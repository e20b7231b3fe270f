import type {IngressTrace} from '../trace-ingress.js'
import type {TraceResult} from '../trace.js'
import {safeCopy, safeJson, safeLine} from '../util/text.js'

interface Screen {
  readonly color: boolean
  readonly width: number
}

/** Prints a trace in one of its forms. */
export async function formatTrace(result: TraceResult, format: string, screen: Screen): Promise<string> {
  if (format === 'name') return `service/${safeLine(result.service.name)}\n`
  if (format === 'json' || format === 'yaml')
    return data((await import('./trace-report.js')).traceReport(result), format)
  const {traceText} = await import('./trace-text.js')
  return traceText(safeCopy(result), {...screen, wide: format === 'wide'})
}

/** The same for the way through an Ingress. */
export async function formatIngressTrace(result: IngressTrace, format: string, screen: Screen): Promise<string> {
  if (format === 'name') return `service/${safeLine(result.backend.service.name)}\n`
  const {ingressReport, ingressTraceText} = await import('./ingress-trace.js')
  if (format === 'json' || format === 'yaml') return data(ingressReport(result), format)
  return ingressTraceText(safeCopy(result), {...screen, wide: format === 'wide'})
}

async function data(report: object, format: 'json' | 'yaml'): Promise<string> {
  return format === 'json'
    ? `${safeJson(report, 2)}\n`
    : (await import('js-yaml')).dump(safeCopy(JSON.parse(JSON.stringify(report))), {lineWidth: -1, noRefs: true})
}
