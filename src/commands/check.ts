import {Args, Command, Flags} from '@oclif/core'
import {EXIT} from '../cli/exit-codes.js'
import {EXIT_CODES, sourceFlags} from '../cli/flags.js'
import {getSnapshot} from '../cli/get-snapshot.js'
import {writeOutputs} from '../cli/outputs.js'
import {refuseUnknownNodes, selectServices} from '../select.js'
import {check, type CheckResult} from '../checks/check.js'
import {duration} from '../cli/duration.js'
import {SvcTraceError} from '../model/errors.js'
import {buildWorld} from '../engine.js'
import {gate, type FailOn} from '../report/gate.js'
import {checkReport, type CheckReport} from '../report/check-report.js'
import {CHECK_FORMATS} from '../report/formats.js'
import {withLines} from '../snapshot/api-lines.js'

export default class Check extends Command {
  static override summary = 'The health gate: compare every Service with what packets would meet; findings only.'
  static override description = `The exit code is the verdict. ${EXIT_CODES}`
  static override usage = 'check [NAME...] [-n NAMESPACE | -A] [-l SELECTOR] [-o FORMAT[=FILE]]... [flags]'
  static override examples = [
    '<%= config.bin %> check -A',
    '<%= config.bin %> check web -n prod -o json',
    '<%= config.bin %> check -A -o junit=report.xml -o text --snapshot incident.tar.gz',
  ]
  static override strict = false
  static override args = {
    name: Args.string({
      description: 'Services to check: NAME, svc/NAME, NAMESPACE/NAME; all of the namespace when none is named',
    }),
  }
  static override flags = {
    'all-namespaces': Flags.boolean({char: 'A', description: 'every namespace'}),
    selector: Flags.string({char: 'l', description: 'label selector for Services'}),
    output: Flags.string({
      char: 'o',
      description: `${CHECK_FORMATS.join('|')}, each with =FILE if it should go there`,
      multiple: true,
      multipleNonGreedy: true,
    }),
    'fail-on': Flags.string({
      description: 'the least severity that fails the gate',
      options: ['error', 'warning', 'info', 'never'],
      default: 'error',
    }),
    'allow-incomplete': Flags.boolean({description: 'exit 0 instead of 3 when something could not be read or decided'}),
    'api-only': Flags.boolean({description: 'look at API objects alone, read no nodes'}),
    watch: Flags.string({
      description: 'repeat at this interval (30s, 5m) and when endpoints change; prints what changed',
    }),
    'max-age': Flags.string({description: 'refuse a snapshot older than this (10m, 24h)'}),
    config: Flags.string({description: 'file with ignore rules (default: .svc-trace.yaml where it is there)'}),
    baseline: Flags.string({description: 'file with known findings; only new ones count'}),
    'write-baseline': Flags.string({description: 'write the findings to this file as known, and succeed'}),
    ...sourceFlags,
  }

  async run(): Promise<void> {
    const {argv, flags} = await this.parse(Check)
    const {loadGateConfig} = await import('../cli/gate-config.js')
    const config = await loadGateConfig(flags)
    const verdict = {failOn: flags['fail-on'] as FailOn, allowIncomplete: flags['allow-incomplete']}
    const round = async (): Promise<{result: CheckResult; report: CheckReport}> => {
      const snapshot = await getSnapshot(flags)
      config.refuseOld(snapshot)
      const services = selectServices(snapshot, argv as string[], flags)
      refuseUnknownNodes(snapshot, flags.node)
      const checked = check(snapshot, buildWorld(snapshot), {
        services,
        ...(flags.node ? {nodes: flags.node} : {}),
        apiOnly: flags['api-only'],
      })
      const result = {...checked, findings: await withLines(checked.findings, snapshot)}
      return {result, report: checkReport(config.apply(result), snapshot, verdict)}
    }
    if (flags.watch !== undefined) {
      if (flags.snapshot !== undefined)
        throw new SvcTraceError('BadUsage', '--watch looks at a live cluster, --snapshot does not change')
      if (flags['write-baseline'] !== undefined || flags.output?.some((format) => !/^(text|wide|table)$/.test(format)))
        throw new SvcTraceError('BadUsage', '--watch prints for people: -o text, wide or table, and no baseline')
      const {watch} = await import('../cli/watch.js')
      const interval = duration(flags.watch, '--watch')
      const once = async (): Promise<CheckReport> => (await round()).report
      await watch(once, {flags, interval, first: (report) => writeOutputs(report, flags)})
    }
    const {result, report} = await round()
    await config.writeBaseline(result)
    await writeOutputs(report, flags)
    process.exitCode = flags['write-baseline'] === undefined ? gate(report, verdict) : EXIT.healthy
  }
}
