/** What can go wrong that a user can do something about; a table in cli/ gives each its exit code. */
export type ErrorCode =
  | 'BadSnapshot'
  | 'BadUsage'
  | 'NotFound'
  | 'Forbidden'
  | 'Unauthorized'
  | 'ApiUnreachable'
  | 'ApiError'
  | 'BadKubeconfig'
  | 'BadConfig'
  | 'Interrupted'
  | 'CannotWrite'

export class SvcTraceError extends Error {
  readonly code: ErrorCode
  /** What to do next. */
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, hint?: string, options?: {cause?: unknown}) {
    super(message, options)
    this.name = 'SvcTraceError'
    this.code = code
    this.hint = hint
  }
}
