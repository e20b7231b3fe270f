import {Args, Command} from '@oclif/core'
import {CODES, findCode, type CodeName} from '../checks/codes.js'
import {fixFor} from '../checks/fix.js'
import {LOOKS} from '../checks/looks.js'
import {noColor} from '../cli/flags.js'
import {terminal} from '../cli/terminal.js'
import {SvcTraceError} from '../model/errors.js'
import {wrap} from '../report/paint.js'

/** A blank at which no line is broken. */
const FIXED = '\u00a0'

/** A text behind a head of its own, broken at the terminal's width and indented below its beginning. */
function paragraph(head: string, text: string): string {
  const whole = `${`  ${head}`.replaceAll(' ', FIXED)}${text}`
  return wrap(whole, terminal({}).width, ' '.repeat(head.length + 2)).replaceAll(FIXED, ' ')
}

/** A line for each mode, or one for all. */
const looks = (name: CodeName): string =>
  Object.entries(LOOKS[name])
    .map(([mode, text]) => paragraph(mode === 'any' ? '' : mode.padEnd(10), text))
    .join('\n')

export default class Explain extends Command {
  static override summary = 'What a finding means, how it is found, how it looks in each mode, how to fix it.'
  static override description = 'Without a code: all codes. Exit codes: 0, 2 for an unknown code, 70 a bug.'
  static override usage = 'explain [CODE]'
  static override examples = ['<%= config.bin %> explain SVT131', '<%= config.bin %> explain node-port-not-programmed']
  static override flags = {'no-color': noColor}
  static override args = {code: Args.string({description: 'SVTnnn or the name of a finding'})}

  async run(): Promise<void> {
    const {args} = await this.parse(Explain)
    if (args.code === undefined) {
      for (const [name, {code, severity, title}] of Object.entries(CODES))
        this.log(`${code}  ${severity.padEnd(7)}  ${name.padEnd(28)} ${title}`)
      return
    }
    const found = findCode(args.code)
    if (!found)
      throw new SvcTraceError('NotFound', `there is no finding "${args.code}"`, 'kubectl svc-trace explain lists all')
    const {name, info} = found
    this.log(
      `${info.code} ${name} (${info.severity})\n${info.title}\n\nWhat it means\n${paragraph('', info.meaning)}\n\nHow it is found\n${paragraph('', info.found)}\n\nHow it looks\n${looks(name)}\n\nWhat to do\n${paragraph('', fixFor(info.fix))}`,
    )
  }
}
