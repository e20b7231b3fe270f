import type {Finding} from '../checks/finding.js'
import {leftOutText, type CheckReport} from './check-report.js'
import {fails, type Gate} from './gate.js'
import {placeOf} from './place.js'
import {xml} from './xml.js'

/** One test case per Service × node; findings about the API alone and about a node's health are cases of their own. */
export function junit(report: CheckReport): string {
  const places = report.nodes.length > 0 ? report.nodes : ['api']
  const cases = report.services.flatMap((service) =>
    places.map((node) =>
      testCase(
        service,
        node,
        report.findings.filter((finding) => finding.services.includes(service) && (finding.node ?? node) === node),
        report.gate,
      ),
    ),
  )
  const health = report.findings.filter(({services, node}) => services.length === 0 && node !== undefined)
  const extra = [...new Set(health.map(({node}) => node!))].map((node) =>
    testCase(
      '(node)',
      node,
      health.filter((finding) => finding.node === node),
      report.gate,
    ),
  )
  const told = (finding: Finding): boolean =>
    health.includes(finding) ||
    (finding.services.some((id) => report.services.includes(id)) &&
      (finding.node === undefined || places.includes(finding.node)))
  // about Services or nodes that have no case of their own: an Ingress' missing backend, a node that was not asked for
  const others = report.findings
    .filter((finding) => !told(finding))
    .map((finding) =>
      testCase(
        `${finding.code} ${finding.services[0] ?? finding.name}`,
        finding.node ?? 'cluster',
        [finding],
        report.gate,
      ),
    )
  const open = report.incomplete.map(
    ({node, reason}) =>
      `    <testcase classname="${xml(node ?? 'cluster')}" name="${xml(`incomplete: ${reason}`)}">${report.gate.allowIncomplete ? `<skipped>${xml(reason)}</skipped>` : `<error type="incomplete" message="${xml(reason)}"/>`}</testcase>`,
  )
  const all = [...cases, ...extra, ...others].map(({text}) => text).concat(open)
  const leftOut =
    report.summary.ignored > 0
      ? `\n    <system-out>${xml(`left out: ${leftOutText(report.summary)}`)}</system-out>`
      : ''
  const errors = report.gate.allowIncomplete ? 0 : open.length
  const failures = [...cases, ...extra, ...others].filter(({failed}) => failed).length
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="svc-trace" tests="${all.length}" failures="${failures}" errors="${errors}">\n  <testsuite name="check" tests="${all.length}" failures="${failures}" errors="${errors}" skipped="${open.length - errors}">\n${all.join('\n')}${leftOut}\n  </testsuite>\n</testsuites>\n`
}

function testCase(
  service: string,
  node: string,
  findings: readonly Finding[],
  gate: Gate,
): {text: string; failed: boolean} {
  const head = `    <testcase classname="${xml(node)}" name="${xml(service)}"`
  const bad = findings.filter(({severity}) => fails(gate, severity))
  const rest = findings.filter(({severity}) => !fails(gate, severity))
  if (findings.length === 0) return {text: `${head}/>`, failed: false}
  const failures =
    bad.length === 0
      ? ''
      : `\n      <failure type="${xml(bad[0]!.code)}" message="${xml(bad[0]!.message)}">${xml(bad.map(words).join('\n\n'))}</failure>`
  const notes = rest.length === 0 ? '' : `\n      <system-out>${xml(rest.map(words).join('\n\n'))}</system-out>`
  return {text: `${head}>${failures}${notes}\n    </testcase>`, failed: bad.length > 0}
}

const words = ({severity, code, name, message, evidence, fix}: Finding): string =>
  [
    `${severity} ${code} ${name}: ${message}`,
    ...evidence.map((one) => `${placeOf(one)}: ${one.text}`),
    `fix: ${fix}`,
  ].join('\n')
