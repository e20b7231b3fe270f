import type {CollectState, NodeResult} from '../nodes/collect.js'
import {safeLine} from '../util/text.js'

/** Progress comes only after this, so that quick work stays quiet. */
const QUIET = 1000

export interface Progress {
  readonly update: (state: CollectState) => void
  /** A line for a node that is done; only where somebody asked for it. */
  readonly finished: (result: NodeResult, seconds: number) => void
  readonly warn: (text: string) => void
  readonly end: () => void
}

/** A node that takes longer is named (seconds). */
const SLOW = 3

/** One line on stderr that is rewritten, on a terminal only; warnings go there in any case, and with `verbose` a line for each node. */
export function progressLine(what: string, total: number, verbose = false): Progress {
  const started = Date.now()
  const alive = process.stderr.isTTY && !verbose
  let shown = false
  return {
    update: ({read, failed, waiting, slowest}) => {
      if (!alive || Date.now() - started < QUIET) return
      shown = true
      process.stderr.write(
        `\r\x1b[K${what} ${read + failed}/${total}${failed > 0 ? `, ${failed} failed` : ''}${waiting > 0 ? `, ${waiting} waiting` : ''}${slowest && slowest.seconds >= SLOW ? `, ${safeLine(slowest.node)} for ${Math.round(slowest.seconds)} s` : ''}`,
      )
    },
    finished: ({node, way, failure}, seconds) => {
      if (!verbose) return
      const how = failure === undefined ? `read by ${way?.name ?? '?'}` : `failed: ${failure}`
      process.stderr.write(`node ${safeLine(node)}: ${safeLine(how)} (${seconds.toFixed(1)} s)\n`)
    },
    warn: (text) => void process.stderr.write(`warning: ${safeLine(text)}\n`),
    end: () => {
      if (shown) process.stderr.write('\r\x1b[K')
      shown = false
    },
  }
}
