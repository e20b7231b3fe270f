/** A place in a dump that was not understood. Whatever depends on it must not end as healthy. */
export interface Problem {
  readonly file: string
  /** 1-based; 0 when the whole file is meant. */
  readonly line: number
  readonly message: string
  readonly text?: string
}

/** Where a fact stands: the file inside the snapshot, the line and the line's own words. */
export interface Source {
  readonly file: string
  readonly line: number
  readonly text: string
}
