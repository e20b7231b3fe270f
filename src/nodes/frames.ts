/** What the collector printed of one node. */
export interface CollectedNode {
  /** File name → text, as a snapshot holds them, with rc.txt and FILE.stderr. */
  readonly files: Map<string, string>
  /** False: the output ends before the collector said `@done`. */
  readonly complete: boolean
}

const FILE_NAME = /^[\w.-]{1,64}$/

/**
 * Takes the collector's output apart (see collector.sh for its frames). Whatever stands before the first frame — login
 * banners, shell start-up noise — is passed over; a section that is cut counts as failed.
 */
export function readFrames(output: string): CollectedNode {
  const files = new Map<string, string>()
  const codes: string[] = []
  let begun = false
  let complete = false
  let current: {file: string; lines: string[]; said: string[]} | undefined
  const close = (rc: number): void => {
    if (!current) return
    if (current.lines.at(-1) === '') current.lines.pop()
    files.set(current.file, current.lines.length > 0 ? `${current.lines.join('\n')}\n` : '')
    const said = current.said.filter((line) => line !== '')
    if (said.length > 0) files.set(`${current.file}.stderr`, `${said.join('\n')}\n`)
    codes.push(`${current.file} rc=${rc}`)
    current = undefined
  }
  for (const line of output.split('\n')) {
    if (!begun) begun = line.trim() === '@svc-trace 1'
    else if (line.startsWith('|')) current?.lines.push(line.slice(1))
    else if (line.startsWith('!')) current?.said.push(line.slice(1))
    else if (line.startsWith('@begin ') && FILE_NAME.test(line.slice(7))) {
      close(CUT)
      current = {file: line.slice(7), lines: [], said: []}
    } else if (current && line === `@end ${current.file}`) close(exitCode(current.said))
    else if (line === '@done') complete = true
  }
  close(CUT)
  if (begun) files.set('rc.txt', `${codes.join('\n')}\n`)
  return {files, complete: begun && complete}
}

/** Stands for a section without an end. */
const CUT = 141

function exitCode(said: string[] | undefined): number {
  const at = said?.findLastIndex((line) => /^rc=\d+$/.test(line)) ?? -1
  if (!said || at < 0) return CUT
  const [line] = said.splice(at, 1)
  return Number(line!.slice(3))
}
