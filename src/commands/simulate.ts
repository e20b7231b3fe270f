import {Command, Flags} from '@oclif/core'
import {createReadStream} from 'node:fs'
import {createInterface} from 'node:readline'
import {EXIT} from '../cli/exit-codes.js'
import {sourceFlags} from '../cli/flags.js'
import {getSnapshot} from '../cli/get-snapshot.js'
import {buildWorld} from '../engine.js'
import {SvcTraceError} from '../model/errors.js'
import {simulateLine, type SimulateLine} from '../simulate.js'
import {safeJson} from '../util/text.js'

export default class Simulate extends Command {
  static override summary = 'Ask in bulk what would happen to packets.'
  static override description = `One packet per input line (JSON), one answer per output line, in the same order; see docs/simulate.md.
Exit codes: 0, or 3 when any answer is unknown or an error; 2 wrong usage or unreadable input; 70 a bug; 130 interrupted.`
  static override usage = 'simulate --packets FILE [--snapshot PATH] [flags]'
  static override examples = [
    '<%= config.bin %> simulate --snapshot incident.tar.gz --packets packets.jsonl',
    `echo '{"id":"1","from":{"node":"node1"},"to":"10.96.0.10:53","proto":"UDP"}' | <%= config.bin %> simulate --snapshot DIR --packets -`,
  ]
  static override flags = {
    packets: Flags.string({description: 'file with one packet per line; - for standard input', required: true}),
    ...sourceFlags,
  }

  async run(): Promise<void> {
    const {flags} = await this.parse(Simulate)
    const world = buildWorld(await getSnapshot(flags))
    let certain = true
    for await (const line of linesOf(flags.packets)) {
      if (line.trim() === '') continue
      const answer = simulateLine(world, line)
      certain &&= isCertain(answer)
      if (!process.stdout.write(`${safeJson(answer)}\n`))
        await new Promise((resolve) => process.stdout.once('drain', resolve))
    }
    process.exitCode = certain ? EXIT.healthy : EXIT.incomplete
  }
}

const isCertain = (answer: SimulateLine): boolean => !('error' in answer) && (answer.outcomes.unknown ?? 0) === 0

async function* linesOf(path: string): AsyncIterable<string> {
  const input = path === '-' ? process.stdin : createReadStream(path, 'utf8')
  try {
    yield* createInterface({input, crlfDelay: Number.POSITIVE_INFINITY})
  } catch (error) {
    throw new SvcTraceError('BadUsage', `cannot read packets from ${path}: ${(error as Error).message}`, undefined, {
      cause: error,
    })
  }
}
