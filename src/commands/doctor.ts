import {Command, Flags} from '@oclif/core'
import {EXIT} from '../cli/exit-codes.js'
import {liveFlags} from '../cli/flags.js'

export default class Doctor extends Command {
  static override summary = 'Can the API be reached, which permissions lack, which nodes answer, which tools are there?'
  static override description =
    'Exit codes: 0, 1 something that is needed is missing, 2 wrong usage, 70 a bug, 130 interrupted.'
  static override usage = 'doctor [-o json] [flags]'
  static override examples = ['<%= config.bin %> doctor', '<%= config.bin %> doctor --node node2 --ssh-user ubuntu']
  static override flags = {
    output: Flags.string({char: 'o', description: 'form of the output', options: ['text', 'json'], default: 'text'}),
    ...liveFlags,
  }

  async run(): Promise<void> {
    const {flags} = await this.parse(Doctor)
    const {examine} = await import('../cli/doctor.js')
    const {terminal} = await import('../cli/terminal.js')
    const {paint} = await import('../report/paint.js')
    const {safeJson, safeLine} = await import('../util/text.js')
    const steps = await examine(flags)
    if (flags.output === 'json')
      process.stdout.write(`${safeJson({apiVersion: 'svc-trace/v1', kind: 'DoctorReport', steps}, 2)}\n`)
    else {
      const ink = paint(terminal(flags).color)
      for (const {state, what, hint} of steps)
        process.stdout.write(
          `${ink.outcome(state === 'ok' ? 'delivered' : state === 'note' ? 'unknown' : 'dropped', state.padEnd(6))} ${safeLine(what)}\n${hint === undefined ? '' : `       hint: ${safeLine(hint)}\n`}`,
        )
    }
    process.exitCode = steps.some(({state}) => state === 'failed') ? EXIT.findings : EXIT.healthy
  }
}
