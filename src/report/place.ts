import type {Evidence} from '../model/trace.js'

/** `file:line`, the file alone where it has no lines; of an object of the API also which one, and the field. */
export const placeOf = ({source, line, object, field}: Omit<Evidence, 'text'>): string =>
  [line > 0 ? `${source}:${line}` : source, object, field].filter((part) => part !== undefined).join(' ')
