import {lstat, rename, writeFile} from 'node:fs/promises'
import {SvcTraceError} from '../model/errors.js'
import type {CheckReport} from '../report/check-report.js'
import {CHECK_FORMATS, formatCheck, type CheckFormat} from '../report/formats.js'
import {terminal} from './terminal.js'

export interface OutputFlags {
  readonly output?: readonly string[] | undefined
  readonly 'no-color'?: boolean | undefined
}

/** Writes a report to everywhere that `-o` names; text to the terminal when it names nothing. */
export async function writeOutputs(report: CheckReport, flags: OutputFlags): Promise<void> {
  const wanted = (flags.output ?? ['text']).map(readOutput)
  const shown = wanted.filter(({file}) => file === undefined)
  if (shown.length > 1)
    throw new SvcTraceError(
      'BadUsage',
      `-o ${shown.map(({format}) => format).join(' and -o ')} would be mixed on the terminal`,
      `give all but one a file: -o ${shown[0]!.format}=FILE`,
    )
  const twice = wanted.find(
    ({file}, at) => file !== undefined && wanted.slice(0, at).some((other) => other.file === file),
  )
  if (twice) throw new SvcTraceError('BadUsage', `two outputs go to ${twice.file}`, 'give each a file of its own')
  const screen = terminal(flags)
  let failure: unknown
  for (const {format, file} of wanted) {
    const text = await formatCheck(report, format, file === undefined ? screen : {color: false, width: 100})
    if (file === undefined) process.stdout.write(text)
    // one that cannot be written keeps nobody from the others
    else await save(file, text, format).catch((error: unknown) => (failure ??= error))
  }
  if (failure !== undefined) throw failure as Error
}

/** A file, or none yet: no pipe, no device. */
async function isPlain(file: string): Promise<boolean> {
  try {
    return (await lstat(file)).isFile()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true
    throw error
  }
}

function readOutput(text: string): {format: CheckFormat; file?: string} {
  const equals = text.indexOf('=')
  const format = equals < 0 ? text : text.slice(0, equals)
  if (!(CHECK_FORMATS as readonly string[]).includes(format))
    throw new SvcTraceError(
      'BadUsage',
      `unknown output format "${format}"`,
      `one of ${CHECK_FORMATS.join(', ')}, with =FILE if it should go there`,
    )
  return {format: format as CheckFormat, ...(equals < 0 ? {} : {file: text.slice(equals + 1)})}
}

/** A textfile collector must never read half a file, so that one is put in its place whole. */
async function save(file: string, text: string, format: CheckFormat): Promise<void> {
  try {
    const whole = format === 'prometheus' && (await isPlain(file))
    const target = whole ? `${file}.${process.pid}.tmp` : file
    await writeFile(target, text)
    if (whole) await rename(target, file)
  } catch (error) {
    throw new SvcTraceError('CannotWrite', `cannot write ${file}: ${(error as Error).message}`, undefined, {
      cause: error,
    })
  }
}
