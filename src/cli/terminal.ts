/** Colour only on a terminal that wants it; the width of the terminal, 80 elsewhere. */
export function terminal(flags: {readonly 'no-color'?: boolean | undefined}): {color: boolean; width: number} {
  const {NO_COLOR, FORCE_COLOR, TERM} = process.env
  const wanted = process.stdout.isTTY || (FORCE_COLOR !== undefined && FORCE_COLOR !== '0')
  return {
    color: wanted && !flags['no-color'] && (NO_COLOR === undefined || NO_COLOR === '') && TERM !== 'dumb',
    width: process.stdout.isTTY ? Math.max(60, process.stdout.columns || 80) : 80,
  }
}
