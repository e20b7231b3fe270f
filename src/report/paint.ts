import {Chalk, type ChalkInstance} from 'chalk'
import type {Severity} from '../checks/finding.js'
import type {Outcome} from '../model/trace.js'

/** Colours that go with words, never instead of them. */
export interface Paint {
  readonly bold: (text: string) => string
  readonly dim: (text: string) => string
  readonly severity: (severity: Severity, text: string) => string
  readonly outcome: (outcome: Outcome, text: string) => string
}

export function paint(color: boolean): Paint {
  const chalk: ChalkInstance = new Chalk({level: color ? 1 : 0})
  const bySeverity: Record<Severity, (text: string) => string> = {
    error: chalk.red,
    warning: chalk.yellow,
    info: chalk.cyan,
  }
  const byOutcome: Record<Outcome, (text: string) => string> = {
    delivered: chalk.green,
    refused: chalk.red,
    dropped: chalk.red,
    unknown: chalk.yellow,
  }
  return {
    bold: (text) => chalk.bold(text),
    dim: (text) => chalk.dim(text),
    severity: (severity, text) => bySeverity[severity](text),
    outcome: (outcome, text) => byOutcome[outcome](text),
  }
}

/** Breaks a text at blanks to lines of at most `width`, every line after the first indented. */
export function wrap(text: string, width: number, indent: string): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + word.length + 1 > width - (lines.length === 0 ? 0 : indent.length)) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  lines.push(line)
  return lines.join(`\n${indent}`)
}
