import {Args, Command, Flags} from '@oclif/core'
import {EXIT} from '../cli/exit-codes.js'
import {sourceFlags, uselessFlag} from '../cli/flags.js'
import {getSnapshot} from '../cli/get-snapshot.js'
import {terminal} from '../cli/terminal.js'
import {SvcTraceError} from '../model/errors.js'
import {diffNodes, diffSnapshots, type DiffResult} from '../diff.js'
import {diffReport, diffText, isSame} from '../report/diff-report.js'
import {loadSnapshot} from '../snapshot/load.js'
import {safeJson} from '../util/text.js'

export default class Diff extends Command {
  static override summary = 'What changed between two snapshots, or differs between two nodes.'
  static override description = `Findings that came and went first, then the API, then rules, sets, virtual servers, routes and settings, without counters and ages.
With --nodes A and B are nodes of the cluster, or of --snapshot.
Exit codes: 0 no difference, 1 differences, 2 wrong usage, unreadable input or API failure, 3 no difference in what could be read of it, 70 a bug, 130 interrupted.`
  static override usage = ['diff A B', 'diff --nodes NODE NODE [--snapshot PATH]']
  static override examples = [
    '<%= config.bin %> diff yesterday.tar.gz today.tar.gz',
    '<%= config.bin %> diff --nodes node1 node2',
    '<%= config.bin %> diff --nodes node1 node2 --snapshot incident.tar.gz -o json',
  ]
  static override args = {
    a: Args.string({description: 'a snapshot (folder or .tar.gz); with --nodes a node', required: true}),
    b: Args.string({description: 'the other', required: true}),
  }
  static override flags = {
    nodes: Flags.boolean({description: 'A and B are nodes'}),
    output: Flags.string({char: 'o', description: 'output', options: ['text', 'wide', 'json'], default: 'text'}),
    ...sourceFlags,
  }

  async run(): Promise<void> {
    const {args, flags, metadata} = await this.parse(Diff)
    const useless = flags.nodes ? undefined : uselessFlag(flags, metadata, ['output', 'namespace', 'no-color'])
    if (useless !== undefined)
      throw new SvcTraceError(
        'BadUsage',
        `--${useless} goes with --nodes`,
        'A and B are two saved snapshots without it',
      )
    const result = await this.compare(args, flags)
    const report = diffReport(result, args.a, args.b)
    process.stdout.write(
      flags.output === 'json'
        ? `${safeJson(report, 2)}\n`
        : diffText(report, {...terminal(flags), wide: flags.output === 'wide'}),
    )
    process.exitCode = !isSame(result) ? EXIT.findings : result.incomplete.length > 0 ? EXIT.incomplete : EXIT.healthy
  }

  private async compare(
    {a, b}: {a: string; b: string},
    flags: {nodes: boolean} & Parameters<typeof getSnapshot>[0],
  ): Promise<DiffResult> {
    if (!flags.nodes) return diffSnapshots(await loadSnapshot(a), await loadSnapshot(b))
    const snapshot = await getSnapshot(flags.snapshot === undefined ? {...flags, node: [a, b]} : flags)
    return diffNodes(snapshot, a, b)
  }
}
