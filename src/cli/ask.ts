import {createInterface} from 'node:readline'
import {Writable} from 'node:stream'
import {safeLine} from '../util/text.js'

/** Asks for a key's passphrase on the terminal, once for each file and one after the other; undefined without a terminal. */
export function passphraseAsker(): ((file: string) => Promise<string | undefined>) | undefined {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return undefined
  const answers = new Map<string, Promise<string | undefined>>()
  let last: Promise<unknown> = Promise.resolve()
  return (file) => {
    const known = answers.get(file)
    if (known) return known
    const answer = last.then(() => question(`passphrase of ${safeLine(file)}: `))
    last = answer
    answers.set(file, answer)
    return answer
  }
}

/** Reads a line of which the terminal shows nothing. */
function question(text: string): Promise<string | undefined> {
  const silent = new Writable({write: (_chunk, _encoding, done) => done()})
  const lines = createInterface({input: process.stdin, output: silent, terminal: true})
  // only now does the terminal echo nothing
  process.stderr.write(text)
  return new Promise((settle) => {
    const end = (line?: string): void => {
      settle(line)
      lines.close()
      process.stderr.write('\n')
    }
    lines.once('line', end)
    lines.once('close', () => settle(undefined))
    lines.once('SIGINT', () => {
      end()
      process.kill(process.pid, 'SIGINT')
    })
  })
}
