import {setMaxListeners} from 'node:events'

/**
 * A signal that trips with another one, or after so many milliseconds. (AbortSignal.any lets a timeout be collected as garbage
 * before it trips: nodejs/node#54614.)
 */
export function limited(outer: AbortSignal, milliseconds: number): AbortSignal {
  const controller = new AbortController()
  const stop = (): void => {
    clearTimeout(timer)
    outer.removeEventListener('abort', stop)
    controller.abort()
  }
  const timer = setTimeout(stop, milliseconds).unref()
  // as many as there are nodes under way
  setMaxListeners(0, outer)
  if (outer.aborted) stop()
  else outer.addEventListener('abort', stop, {once: true})
  return controller.signal
}
