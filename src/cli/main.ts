import {Config, Errors, flush, run} from '@oclif/core'
import {SvcTraceError} from '../model/errors.js'
import {safe} from '../util/text.js'
import {EXIT, exitCodeOf} from './exit-codes.js'
import {resolveArgv, type ArgvRules} from './resolve-argv.js'

/** Runs the CLI; oclif reads process.argv in its error paths, so that is rewritten too. */
export async function main(argv: readonly string[], dir: string): Promise<void> {
  try {
    const config = await Config.load(dir)
    if (argv[0] === '__complete') {
      const {complete} = await import('./complete.js')
      process.stdout.write(`${(await complete(argv.slice(1), config.commands)).join('\n')}\n`)
      return
    }
    const resolved = resolveArgv(argv, rulesOf(config))
    process.argv.splice(2, Number.POSITIVE_INFINITY, ...resolved)
    await run(resolved, config)
    await flush()
  } catch (error) {
    report(error)
  }
}

/** One clear line for what a user can mend, a stack for what only we can. */
export function report(error: unknown): void {
  if (error instanceof SvcTraceError) {
    process.stderr.write(
      `error: ${safe(error.message)}\n${error.hint === undefined ? '' : `hint: ${safe(error.hint)}\n`}`,
    )
    process.exitCode = exitCodeOf(error.code)
    return
  }
  const exit = (error as {oclif?: {exit?: number}}).oclif?.exit
  if (error instanceof Errors.ExitError) {
    process.exitCode = exit ?? 0
    return
  }
  if (exit !== undefined && error instanceof Error) {
    process.stderr.write(`error: ${safe(oneLine(error.message))}\nhint: see --help\n`)
    process.exitCode = EXIT.usage
    return
  }
  process.stderr.write(
    `This is a bug in svc-trace; please report it with this text:\n${safe(error instanceof Error ? (error.stack ?? error.message) : String(error))}\n`,
  )
  process.exitCode = EXIT.bug
}

/** oclif explains at length; the first sentence says it. */
const oneLine = (message: string): string =>
  message
    .split('\nSee more help')[0]!
    .replace(/\nNote: [\s\S]*$/, '')
    .replaceAll(/\s*\n\s*/g, ' ')
    .trim()

function rulesOf(config: Config): ArgvRules {
  const valueFlags = new Set<string>()
  for (const command of config.commands) {
    for (const [name, flag] of Object.entries(command.flags)) {
      if (flag.type !== 'option') continue
      valueFlags.add(`--${name}`)
      if (flag.char) valueFlags.add(`-${flag.char}`)
    }
  }
  return {fallback: 'trace', ids: new Set(config.commandIDs), valueFlags}
}
