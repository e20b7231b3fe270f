import {parseAddress, type Address} from '../util/ip.js'
import {hiddenSockets, SOCKET_COMMAND, SOCKET_HEADER} from './hidden-sockets.js'
import type {Problem} from './problem.js'

/** Parses `sysctl -a` lines (`a.b = 1`); lines that are not of that form are problems. */
export function parseSysctl(
  text: string,
  file: string,
): {value: Map<string, {value: string; line: number}>; problems: Problem[]} {
  const value = new Map<string, {value: string; line: number}>()
  const problems: Problem[] = []
  text.split('\n').forEach((raw, at) => {
    const line = raw.trim().replace(/^\/proc\/sys\//, '')
    if (line === '') return
    const equals = line.indexOf('=')
    if (equals > 0 && /^[\w./@:+-]+\s*=/.test(line))
      value.set(line.slice(0, equals).trim().replaceAll('/', '.'), {value: line.slice(equals + 1).trim(), line: at + 1})
    else if (!/^sysctl:/.test(line)) problems.push({file, line: at + 1, message: 'not a line of sysctl', text: line})
  })
  return {value, problems}
}

/** A listening (TCP, SCTP) or unconnected (UDP) socket. */
export interface Socket {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP'
  /** undefined: every address of the families in `families`. */
  readonly address?: Address
  readonly families: readonly (4 | 6)[]
  readonly device?: string
  readonly port: number
  readonly process?: string
  readonly line: number
  readonly text: string
}

/** `hides`: protocols that the listing may lack sockets of, and why. */
export type SocketList = readonly Socket[] & {readonly hides: ReadonlyMap<string, string>}

/** Established and closing connections, as `ss -a` lists them: nobody listens there. */
const CONNECTED =
  /^(tcp|udp|sctp|mptcp|dccp)?\s*(ESTAB|SYN-SENT|SYN-RECV|FIN-WAIT-1|FIN-WAIT-2|TIME-WAIT|CLOSED?|CLOSE-WAIT|LAST-ACK|CLOSING)\s/
const LISTENING = new Set(['LISTEN', 'UNCONN'])

/** Of a listening socket. */
export const NOT_UNDERSTOOD = 'a socket that is not understood'

/** `netstat -lntup`: `tcp6 0 0 :::9100 :::* LISTEN 123/node` (netstat(8)); its IPv6 sockets take IPv4, too. */
const NETSTAT =
  /^(tcp|udp|sctp)6? +\d+ +\d+ +(\S+:\S+) +(\S+:\S+)(?: +([A-Z][A-Z_0-9]+))?(?: +(?:\d+\/([^\s:]+).*|-))?\s*$/

function netstatSocket(line: string, number: number): Socket | undefined {
  const [, netid, local, peer, state, process] = NETSTAT.exec(line) ?? []
  if (netid === undefined || (netid === 'udp' ? !peer!.endsWith(':*') : state !== 'LISTEN')) return undefined
  const host = local!.startsWith(':::') ? `*${local!.slice(2)}` : local!
  const found = socketOf(host, netid.toUpperCase() as Socket['protocol'], {line: number, text: line})
  return found && process !== undefined ? {...found, process} : found
}

/** Parses `ss -lntup` (also without the Netid column when only one protocol was asked), and `netstat -lntup`. Source: ss(8). */
export function parseSockets(text: string, file: string): {value: SocketList; problems: Problem[]} {
  const value: Socket[] = []
  const problems: Problem[] = []
  const hides = hiddenSockets(text)
  text.split('\n').forEach((raw, at) => {
    const line = raw.trim()
    if (line === '' || SOCKET_HEADER.test(line) || SOCKET_COMMAND.test(line)) return
    const old = netstatSocket(line, at + 1)
    if (old) return void value.push(old)
    const [, netid, , peer, state] = NETSTAT.exec(line) ?? []
    if (netid !== undefined && !(state === 'LISTEN' || (netid === 'udp' && peer!.endsWith(':*')))) return
    const words = line.split(/\s+/)
    const stateAt = words.findIndex((word) => LISTENING.has(word))
    if (stateAt < 0) {
      if (!/^(raw|u_\w+|nl|p_\w+|v_\w+|icmp6?|xdp|tipc)$/.test(words[0]!) && !CONNECTED.test(line))
        problems.push({file, line: at + 1, message: 'not a line of ss', text: line})
      return
    }
    const protocol = protocolOf(words, stateAt)
    const socket = protocol && socketOf(words[stateAt + 3] ?? '', protocol, {line: at + 1, text: line})
    if (socket) value.push(socket)
    else if (protocol || stateAt > 1) problems.push({file, line: at + 1, message: NOT_UNDERSTOOD, text: line})
  })
  if (value.length === 0 && problems.length > 0)
    for (const protocol of ['TCP', 'UDP', 'SCTP']) hides.set(protocol, 'no line of it is understood')
  return {value: Object.assign(value, {hides}), problems}
}

function protocolOf(words: readonly string[], stateAt: number): Socket['protocol'] | undefined {
  if (stateAt > 1) return undefined
  const netid = stateAt > 0 ? words[0]!.toLowerCase() : words[stateAt] === 'UNCONN' ? 'udp' : 'tcp'
  return netid === 'tcp' || netid === 'mptcp' ? 'TCP' : netid === 'udp' ? 'UDP' : netid === 'sctp' ? 'SCTP' : undefined
}

function socketOf(
  local: string,
  protocol: Socket['protocol'],
  place: {line: number; text: string},
): Socket | undefined {
  const colon = local.lastIndexOf(':')
  const digits = local.slice(colon + 1)
  const port = /^\d+$/.test(digits) ? Number(digits) : Number.NaN
  const [host, device] = local.slice(0, colon).split('%')
  if (colon < 0 || Number.isNaN(port)) return undefined
  const process = /users:\(\("([^"]*)"/.exec(place.text)?.[1]
  const common = {
    protocol,
    port,
    ...place,
    ...(device === undefined ? {} : {device: device.replace(']', '')}),
    ...(process === undefined ? {} : {process}),
  }
  if (host === '*') return {...common, families: [4, 6]}
  if (host === '::') return {...common, families: [4, 6]}
  const bare = host!.replace(/^\[|\]$/g, '')
  if (bare === '0.0.0.0') return {...common, families: [4]}
  if (bare === '::')
    return {...common, families: /v6only:1/.test(place.text) || !/v6only:0/.test(place.text) ? [6] : [4, 6]}
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(bare)?.[1]
  const address = parseAddress(mapped ?? bare)
  return address === undefined ? undefined : {...common, address, families: [typeof address === 'number' ? 4 : 6]}
}

export interface ConntrackTuple {
  readonly source: Address
  readonly destination: Address
  readonly sourcePort: number
  readonly destinationPort: number
}

export interface ConntrackEntry {
  readonly protocol: string
  readonly state?: string
  readonly original: ConntrackTuple
  readonly reply: ConntrackTuple
  readonly unreplied: boolean
  readonly assured: boolean
  readonly mark: number
  readonly file: string
  readonly line: number
  readonly text: string
}

/** `conntrack -E`, with or without times. */
const EVENT = /^(\[\d+\.\d+\s*\]\s*)?\[(NEW|UPDATE|DESTROY)\]/
const DELETED = /^conntrack v.*flow entries have been deleted/m

const TUPLE = /src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g

/** Parses `conntrack -L` or `/proc/net/nf_conntrack`; entries of protocols without ports are passed over. */
export function parseConntrack(text: string, file: string): {value: ConntrackEntry[]; problems: Problem[]} {
  const value: ConntrackEntry[] = []
  const problems: Problem[] = []
  let isEvents: number | false = false
  text.split('\n').forEach((raw, at) => {
    const line = raw.trim()
    if (line === '' || /^conntrack v/.test(line)) return
    if (EVENT.test(line)) return void (isEvents ||= at + 1)
    const tuples = [...line.matchAll(TUPLE)].map(tupleOf)
    const protocol = /\b(tcp|udp|sctp|dccp|udplite|icmp|icmpv6|gre|unknown)\b/.exec(line)?.[1]
    const [original, reply] = tuples
    if (original && reply && protocol) {
      const state = /\b\d+ ([A-Z_][A-Z_0-9]{3,}) src=/.exec(line)?.[1]
      value.push({
        protocol: protocol.toUpperCase(),
        original,
        reply,
        ...(state === undefined ? {} : {state}),
        unreplied: line.includes('[UNREPLIED]'),
        assured: line.includes('[ASSURED]'),
        mark: Number(/\bmark=(\d+)/.exec(line)?.[1] ?? 0),
        file,
        line: at + 1,
        text: line,
      })
    } else if (protocol === undefined || /\b(tcp|udp|sctp)\b/.test(line))
      problems.push({file, line: at + 1, message: 'not a line of conntrack', text: line})
  })
  if (isEvents) problems.push({file, line: isEvents, message: 'events are not the table: list it with conntrack -L'})
  if (!DELETED.test(text)) return {value, problems}
  problems.push({file, line: 0, message: 'these entries were deleted: list what is there now with conntrack -L'})
  return {value: [], problems}
}

function tupleOf(match: RegExpMatchArray): ConntrackTuple | undefined {
  const source = parseAddress(match[1]!)
  const destination = parseAddress(match[2]!)
  return source === undefined || destination === undefined
    ? undefined
    : {source, destination, sourcePort: Number(match[3]), destinationPort: Number(match[4])}
}
