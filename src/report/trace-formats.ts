import type {TraceResult} from '../trace.js'

/** Prints a trace in one of its forms. */
export async function formatTrace(
  result: TraceResult,
  format: string,
  screen: {color: boolean; width: number},
): Promise<string> {
  if (format === 'name') return `service/${result.service.name}\n`
  if (format === 'json' || format === 'yaml') {
    const {traceReport} = await import('./trace-report.js')
    const report = traceReport(result)
    return format === 'json'
      ? `${JSON.stringify(report, undefined, 2)}\n`
      : (await import('js-yaml')).dump(JSON.parse(JSON.stringify(report)), {lineWidth: -1, noRefs: true})
  }
  const {traceText} = await import('./trace-text.js')
  return traceText(result, {...screen, wide: format === 'wide'})
}
