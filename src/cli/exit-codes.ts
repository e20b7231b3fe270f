import type {ErrorCode} from '../model/errors.js'

/** The exit codes of every command (README, Exit codes). */
export const EXIT = {healthy: 0, findings: 1, usage: 2, incomplete: 3, bug: 70, interrupted: 130} as const

export const exitCodeOf = (code: ErrorCode): number => (code === 'Interrupted' ? EXIT.interrupted : EXIT.usage)
