import type {Log, ReportingConfiguration, Result} from 'sarif'
import {CODES} from '../checks/codes.js'
import {fixFor} from '../checks/fix.js'
import type {Finding, Severity} from '../checks/finding.js'
import {leftOutText, type CheckReport} from './check-report.js'
import {fingerprint} from './fingerprint.js'
import {safeJson} from '../util/text.js'

const LEVEL: Readonly<Record<Severity, ReportingConfiguration.level>> = {
  error: 'error',
  warning: 'warning',
  info: 'note',
}

/** SARIF 2.1.0; locations are files of the snapshot. */
export function sarif(report: CheckReport): string {
  const rules = Object.entries(CODES).map(([name, info]) => ({
    id: info.code,
    name,
    shortDescription: {text: info.title},
    fullDescription: {text: info.meaning},
    help: {text: fixFor(info.fix)},
    defaultConfiguration: {level: LEVEL[info.severity]},
  }))
  const log: Log = {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {driver: {name: 'svc-trace', informationUri: 'https://github.com/svc-trace/kubectl-svc-trace', rules}},
        // what was not seen is no result, and no health either
        invocations: [
          {
            executionSuccessful: true,
            toolExecutionNotifications: [
              ...report.incomplete.map(({node, reason}) => ({
                level: 'warning' as const,
                message: {text: `incomplete: ${node === undefined ? '' : `${node}: `}${reason}`},
              })),
              ...(report.summary.ignored > 0
                ? [{level: 'note' as const, message: {text: `left out: ${leftOutText(report.summary)}`}}]
                : []),
            ],
          },
        ],
        results: report.findings.map((finding) => result(finding, rules)),
      },
    ],
  }
  return `${safeJson(log, 2)}\n`
}

function result(finding: Finding, rules: readonly {id: string}[]): Result {
  const {code, severity, message, evidence, fix, services, node, frontends} = finding
  return {
    ruleId: code,
    ruleIndex: rules.findIndex(({id}) => id === code),
    level: LEVEL[severity],
    message: {text: `${message}${services.length > 0 ? `\nServices: ${services.join(', ')}` : ''}\nFix: ${fix}`},
    // GitHub refuses a whole upload for one result without a location
    locations: (evidence.length > 0 ? evidence : [{source: 'snapshot.json', line: 0, text: message}]).map(
      ({source, line, text}) => ({
        physicalLocation: {
          artifactLocation: {uri: encodeURI(source)},
          region: {startLine: Math.max(1, line), snippet: {text}},
        },
      }),
    ),
    partialFingerprints: {'svcTrace/v3': fingerprint(finding)},
    properties: {services, frontends, ...(node === undefined ? {} : {node})},
  }
}
