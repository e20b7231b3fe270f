import {narrowing} from './narrowed.js'

/** What a listing of sockets leaves out: one of TCP alone, or what grep left of one, does not show that nobody listens. */

export const SOCKET_HEADER = /^(Netid|State|Proto|Active Internet)\s/
/** The command in front of it, with or without a prompt. */
export const SOCKET_COMMAND = /^(?:\S.*[$#>] ?)?(?:sudo )?(?:ss|netstat)((?: -{1,2}[\w-]+)+)/

/** Protocols (`TCP`, `UDP`, `SCTP`) of which sockets may be missing, and why. */
export function hiddenSockets(text: string): Map<string, string> {
  const hides = new Map<string, string>()
  const hide = (why: string, ...protocols: readonly string[]): void => {
    for (const protocol of protocols) if (!hides.has(protocol)) hides.set(protocol, why)
  }
  const lines = text.split('\n').map((line) => line.trim())
  const commands = lines.filter((line) => SOCKET_COMMAND.test(line))
  const rows = lines.filter((line) => line !== '' && !SOCKET_HEADER.test(line) && !SOCKET_COMMAND.test(line))
  const listening = rows.filter((line) => /\b(LISTEN|UNCONN)\b|^udp/.test(line))
  const part = narrowing(text, 'sockets')
  if (part) hide(`it is not all of it: ${part.by}`, 'TCP', 'UDP', 'SCTP')
  const flags = commands.map((line) => SOCKET_COMMAND.exec(line)![1]!.trim()).join(' ')
  if (flags.includes('t') && !flags.includes('u')) hide(`it was made with ${flags}`, 'UDP')
  if (flags.includes('u') && !flags.includes('t')) hide(`it was made with ${flags}`, 'TCP')
  if (rows.length > 0 && listening.length === 0) hide('it lists no listening socket', 'TCP', 'UDP')
  // ss leaves the column of protocols out where it was asked for one
  if (lines.some((line) => /^State\s+Recv-Q/.test(line)))
    hide('it lists one protocol', listening.some((line) => line.startsWith('UNCONN')) ? 'TCP' : 'UDP')
  if (lines.some((line) => line.startsWith('Active Internet')) && !rows.some((line) => line.startsWith('udp')))
    hide('it lists TCP alone', 'UDP')
  return hides
}
