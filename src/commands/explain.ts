import {Args, Command} from '@oclif/core'
import {CODES, findCode, type CodeName} from '../checks/codes.js'
import {LOOKS} from '../checks/looks.js'
import {SvcTraceError} from '../model/errors.js'

/** A line for each mode, or one for all. */
function looks(name: CodeName): string {
  const modes = Object.entries(LOOKS[name])
  return modes.map(([mode, text]) => (mode === 'any' ? `  ${text}` : `  ${mode.padEnd(9)} ${text}`)).join('\n')
}

export default class Explain extends Command {
  static override summary = 'What a finding means, how it is found, how it looks in each mode, how to fix it.'
  static override description = 'Without a code: all codes. Exit codes: 0, 2 for an unknown code, 70 a bug.'
  static override usage = 'explain [CODE]'
  static override examples = ['<%= config.bin %> explain SVT131', '<%= config.bin %> explain node-port-not-programmed']
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
      `${info.code} ${name} (${info.severity})\n${info.title}\n\nWhat it means\n  ${info.meaning}\n\nHow it is found\n  ${info.found}\n\nHow it looks\n${looks(name)}\n\nWhat to do\n  ${info.fix}`,
    )
  }
}
