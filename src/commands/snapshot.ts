import {Command, Flags} from '@oclif/core'
import {EXIT} from '../cli/exit-codes.js'
import {liveFlags, uselessFlag} from '../cli/flags.js'
import {SvcTraceError} from '../model/errors.js'
import {plural} from '../util/text.js'

export default class Snapshot extends Command {
  static override summary = 'Capture what a trace reads, for later or for somebody else.'
  static override description = `Secrets, environment values and foreign annotations never get in; the file is readable by you only.
Exit codes: 0, 3 when a node or a list could not be read (the rest is in the file), 2 wrong usage or API failure, 70 a bug, 130 interrupted.`
  static override usage = 'snapshot -f FILE [flags]'
  static override examples = [
    '<%= config.bin %> snapshot -f incident.tar.gz',
    '<%= config.bin %> snapshot -f for-a-stranger.tar.gz --redact',
    '<%= config.bin %> snapshot --print-collector',
  ]
  static override flags = {
    file: Flags.string({char: 'f', description: 'where to write: FILE.tar.gz, or a folder'}),
    redact: Flags.boolean({
      description: 'replace names and addresses, the same everywhere, so that traces stay true; free text goes',
    }),
    from: Flags.string({description: 'redact this saved snapshot instead of reading a cluster'}),
    'print-collector': Flags.boolean({description: 'print the script that runs on the nodes, and do nothing else'}),
    ...liveFlags,
  }

  async run(): Promise<void> {
    const {flags, metadata} = await this.parse(Snapshot)
    if (flags['print-collector']) {
      const {collectorScript} = await import('../nodes/collect.js')
      process.stdout.write(collectorScript())
      return
    }
    if (flags.file === undefined)
      throw new SvcTraceError('BadUsage', 'snapshot needs -f FILE', 'kubectl svc-trace snapshot -f incident.tar.gz')
    const {collectFiles} = await import('../cli/live.js')
    const {checkTarget, saveSnapshot} = await import('../snapshot/save.js')
    checkTarget(flags.file)
    if (flags.from !== undefined && !flags.redact)
      throw new SvcTraceError('BadUsage', '--from goes with --redact', 'a saved snapshot can be copied as it is')
    const useless = flags.from === undefined ? undefined : uselessFlag(flags, metadata, OF_SAVED)
    if (useless !== undefined)
      throw new SvcTraceError('BadUsage', `--${useless} does not go with --from`, '--from reads no cluster')
    const read =
      flags.from === undefined
        ? await collectFiles(flags)
        : await (await import('../snapshot/load.js')).loadFiles(flags.from)
    const files = flags.redact ? await redacted(read) : read
    await saveSnapshot(files, flags.file)
    if (flags.from !== undefined) return
    const info = JSON.parse(files.get('snapshot.json')!) as {unread: object; forbidden: object; via: object}
    const lost = Object.keys(info.unread).length + Object.keys(info.forbidden).length
    process.stderr.write(
      `wrote ${flags.file}: ${plural(Object.keys(info.via).length - Object.keys(info.unread).length, 'node')} read${lost > 0 ? `, ${lost} parts are missing` : ''}\nnext: kubectl svc-trace NAME --snapshot ${flags.file}\n`,
    )
    process.exitCode = lost > 0 ? EXIT.incomplete : EXIT.healthy
  }
}

/** What goes with a snapshot that is saved already. */
const OF_SAVED = ['from', 'redact', 'file', 'namespace', 'no-color']

/** With a key that nobody keeps. */
async function redacted(files: ReadonlyMap<string, string>): Promise<Map<string, string>> {
  const {redactFiles} = await import('../snapshot/redact.js')
  const {randomBytes} = await import('node:crypto')
  return redactFiles(files, randomBytes(32))
}
