/** A place in a dump that was not understood. Whatever depends on it must not end as healthy. */
export interface Problem {
  readonly file: string
  /** 1-based; 0 when the whole file is meant. */
  readonly line: number
  readonly message: string
  readonly text?: string
}
