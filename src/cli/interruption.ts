let signal: AbortSignal | undefined

/** A signal that Ctrl-C and SIGTERM trip: everything under way stops at once; a second one ends the process. */
export function interruption(): AbortSignal {
  if (signal) return signal
  const controller = new AbortController()
  const stop = (): void => controller.abort()
  process.once('SIGINT', stop)
  process.once('SIGTERM', stop)
  return (signal = controller.signal)
}
