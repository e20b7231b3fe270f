/** A look-up table by words from outside: it has no `constructor` and no `toString` of its own. */
export const table = <T>(entries: Readonly<Record<string, T>>): Readonly<Record<string, T>> =>
  Object.assign(Object.create(null) as Record<string, T>, entries)
