/** What the resolver must know of the CLI; free of oclif, so that it is testable alone. */
export interface ArgvRules {
  readonly ids: ReadonlySet<string>
  /** The command of a call that names none. */
  readonly fallback: string
  /** Flags that take a value, as typed: `-n`, `--namespace`. */
  readonly valueFlags: ReadonlySet<string>
}

const UNTOUCHED = new Set([undefined, '--help', '-h', '--version'])

/**
 * Puts the command first, as oclif wants it: `-n prod check` → `check -n prod`, `web` → `trace web`,
 * `help check` → `check --help`. A bare call, `--help` or `--version` first stay as they are.
 */
export function resolveArgv(argv: readonly string[], rules: ArgvRules): string[] {
  if (UNTOUCHED.has(argv[0])) return [...argv]
  if (argv[0] === 'version' && argv.length === 1) return ['--version']
  if (argv[0] === 'help') return argv.length > 1 ? [...resolveArgv(argv.slice(1), rules), '--help'] : ['--help']
  const at = firstPositional(argv, rules)
  const word = at === undefined ? undefined : argv[at]
  if (word === undefined || !rules.ids.has(word)) return [rules.fallback, ...argv]
  return [word, ...argv.filter((_, index) => index !== at)]
}

function firstPositional(argv: readonly string[], {valueFlags}: ArgvRules): number | undefined {
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at]!
    if (word === '--') return undefined
    if (!word.startsWith('-') || word === '-') return at
    if (valueFlags.has(word)) at++
  }
  return undefined
}
