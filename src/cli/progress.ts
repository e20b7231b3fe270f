import {safeLine} from '../util/text.js'

/** Progress comes only after this, so that quick work stays quiet. */
const QUIET = 1000

export interface Progress {
  readonly update: (state: {read: number; failed: number; waiting: number}) => void
  readonly warn: (text: string) => void
  readonly end: () => void
}

/** One line on stderr that is rewritten, on a terminal only; warnings go there in any case. */
export function progressLine(what: string, total: number): Progress {
  const started = Date.now()
  const alive = process.stderr.isTTY
  let shown = false
  return {
    update: ({read, failed, waiting}) => {
      if (!alive || Date.now() - started < QUIET) return
      shown = true
      process.stderr.write(
        `\r\x1b[K${what} ${read + failed}/${total}${failed > 0 ? `, ${failed} failed` : ''}${waiting > 0 ? `, ${waiting} waiting` : ''}`,
      )
    },
    warn: (text) => void process.stderr.write(`warning: ${safeLine(text)}\n`),
    end: () => {
      if (shown) process.stderr.write('\r\x1b[K')
      shown = false
    },
  }
}
