import type {CheckReport} from './check-report.js'

const label = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')

/** Text exposition for a textfile collector; one series per finding and Service. */
export function prometheus({findings, summary}: CheckReport): string {
  const series = new Map<string, number>()
  for (const {code, name, severity, services, node} of findings) {
    for (const service of services.length > 0 ? services : ['']) {
      const key = `svc_trace_finding{code="${label(code)}",name="${label(name)}",severity="${severity}",service="${label(service)}",node="${label(node ?? '')}"}`
      series.set(key, (series.get(key) ?? 0) + 1)
    }
  }
  const gauges: [string, string, number][] = [
    ['svc_trace_services', 'Services checked', summary.services],
    ['svc_trace_nodes', 'Nodes checked', summary.nodes],
    ['svc_trace_errors', 'Findings of severity error', summary.errors],
    ['svc_trace_warnings', 'Findings of severity warning', summary.warnings],
    ['svc_trace_ignored', 'Findings that an ignore rule or the baseline left out', summary.ignored],
    ['svc_trace_incomplete', 'Things that could not be read or decided', summary.incomplete],
  ]
  return [
    ...gauges.map(([name, help, value]) => `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${name} ${value}\n`),
    '# HELP svc_trace_finding Findings by code, Service and node\n# TYPE svc_trace_finding gauge\n',
    ...[...series].map(([key, value]) => `${key} ${value}\n`),
  ].join('')
}
