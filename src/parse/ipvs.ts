import {table} from '../util/table.js'
import {parseAddress, type Address} from '../util/ip.js'
import {PROMPT} from './pasted.js'
import type {Problem} from './problem.js'

export type ForwardMethod = 'Masq' | 'Route' | 'Tunnel' | 'Local'

export interface RealServer {
  readonly address: Address
  readonly port: number
  readonly forward: ForwardMethod
  readonly weight: number
  readonly active?: number
  readonly inactive?: number
  readonly line: number
  readonly text: string
}

/** A virtual server: by address and port, or by firewall mark. Source: ipvsadm(8). */
export interface VirtualServer {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP' | 'FWM'
  readonly address?: Address
  readonly port?: number
  readonly mark?: number
  readonly scheduler: string
  /** Seconds; a client sticks to its real server that long. */
  readonly persistent?: number
  readonly file: string
  readonly line: number
  readonly text: string
  readonly realServers: RealServer[]
  /** A real server of it was not understood, or some may be left out: its shares are unknown. */
  damaged?: boolean
}

export interface IpvsDump {
  readonly file: string
  readonly virtualServers: VirtualServer[]
  readonly problems: Problem[]
  /** The listing went through grep or was pasted without its head: virtual servers may be missing. */
  partial?: boolean
  /** The last virtual server was not understood: real servers behind it belong to nobody. */
  orphaned?: boolean
}

const FORWARD: Record<string, ForwardMethod> = table({masq: 'Masq', route: 'Route', tunnel: 'Tunnel', local: 'Local'})

/** Parses `ipvsadm -Ln` (with or without headers). A name instead of a number is a problem: without `-n` addresses are lost. */
export function parseIpvsList(text: string, file: string): IpvsDump {
  const dump: IpvsDump = {file, virtualServers: [], problems: []}
  const lines = text.split('\n').map((raw) => raw.trim())
  lines.forEach((line, at) => readListLine(dump, line, at + 1))
  markTwins(dump)
  dump.partial =
    dump.problems.length > 0 ||
    (dump.virtualServers.length > 0 &&
      (!lines.some((line) => line.startsWith('IP Virtual Server')) || lines.includes('--') || dump.problems.length > 0))
  // what grep leaves of one may lack its real servers
  if (dump.partial) for (const server of dump.virtualServers) if (server.realServers.length === 0) server.damaged = true
  return dump
}

const LIST_HEADER = /^(IP Virtual Server|Prot LocalAddress|-> RemoteAddress|--$)/

function readListLine(dump: IpvsDump, line: string, number: number): void {
  if (line === '' || LIST_HEADER.test(line) || PROMPT.test(line)) return
  const words = line.split(/\s+/)
  if (/^(TCP|UDP|SCTP|FWM)$/.test(words[0]!)) return addVirtual(dump, words, {line: number, text: line})
  if (words[0] === '->') return addReal(dump, words, {line: number, text: line})
  dump.problems.push({file: dump.file, line: number, message: 'not a line of ipvsadm -Ln', text: line})
}

function addVirtual(dump: IpvsDump, words: readonly string[], place: {line: number; text: string}): void {
  const protocol = words[0] as VirtualServer['protocol']
  const scheduler = words.slice(2).find((word) => word !== 'IPv6') ?? ''
  const persistentAt = words.indexOf('persistent')
  const service = protocol === 'FWM' ? {mark: markOf(words[1])} : endpointOf(words[1] ?? '')
  dump.orphaned =
    !service || (service.mark !== undefined && Number.isNaN(service.mark)) || !/^[a-z]{2,}$/.test(scheduler)
  if (!service || dump.orphaned) {
    dump.problems.push({
      file: dump.file,
      line: place.line,
      message: `the virtual server "${words.slice(1, 3).join(' ')}" is not understood`,
      text: place.text,
    })
    return
  }
  dump.virtualServers.push({
    protocol,
    ...service,
    scheduler,
    ...(persistentAt > 0 ? {persistent: Number(words[persistentAt + 1])} : {}),
    file: dump.file,
    ...place,
    realServers: [],
  })
}

/** One kernel has each once: with a second one the listings of two hosts, or of two moments, are in one file. */
function markTwins(dump: IpvsDump): void {
  const known = new Map<string, VirtualServer>()
  for (const server of dump.virtualServers) {
    const {protocol, address, port, mark, text} = server
    const six = / (IPv6|-6)( |$)/.test(text)
    const key = `${protocol} ${address} ${port} ${mark} ${six}`
    const twin = known.get(key)
    if (twin) {
      twin.damaged = server.damaged = true
      const message = `the virtual server stands twice, as in line ${twin.line}: two hosts or two moments in one file?`
      dump.problems.push({file: dump.file, line: server.line, message, text: server.text})
    }
    known.set(key, server)
  }
}

/** A firewall mark; ipvsadm prints those from 0x80000000 on as negative numbers. */
function markOf(text: string | undefined): number {
  const mark = Number(text)
  return mark < 0 ? mark >>> 0 : mark
}

function endpointOf(text: string): {address: Address; port: number; mark?: number} | undefined {
  const colon = text.lastIndexOf(':')
  const address = parseAddress(text.slice(0, colon))
  const port = Number(text.slice(colon + 1))
  const digits = /^\d{1,5}$/.test(text.slice(colon + 1))
  return address === undefined || colon < 0 || !digits || port > 65535 ? undefined : {address, port}
}

function addReal(dump: IpvsDump, words: readonly string[], place: {line: number; text: string}): void {
  const service = dump.orphaned ? undefined : dump.virtualServers.at(-1)
  const endpoint = endpointOf(words[1] ?? '')
  const forward = FORWARD[(words[2] ?? '').toLowerCase()]
  const weight = Number(words[3])
  if (!service || !endpoint || !forward || Number.isNaN(weight)) {
    if (service) service.damaged = true
    dump.problems.push({
      file: dump.file,
      line: place.line,
      message: service ? 'a real server that is not understood' : 'a real server without its virtual server',
      text: place.text,
    })
    return
  }
  service.realServers.push({
    address: endpoint.address,
    port: endpoint.port,
    forward,
    weight,
    ...place,
    ...(words[4] === undefined ? {} : {active: count(words[4])}),
    ...(words[5] === undefined ? {} : {inactive: count(words[5])}),
  })
}

const UNITS = table<number>({K: 1e3, M: 1e6, G: 1e9, T: 1e12})

/** `12K` is what ipvsadm makes of large counters. */
function count(text: string): number {
  const found = /^(\d+)([KMGT])?$/.exec(text)
  return found ? Number(found[1]) * (UNITS[found[2] ?? ''] ?? 1) : 0
}

const FORWARD_FLAG: Record<string, ForwardMethod> = table({'-m': 'Masq', '-g': 'Route', '-i': 'Tunnel'})

/** Parses `ipvsadm -Sn`. */
export function parseIpvsSave(text: string, file: string): IpvsDump {
  const dump: IpvsDump = {file, virtualServers: [], problems: []}
  text.split('\n').forEach((raw, at) => {
    const line = raw.trim()
    if (line === '') return
    const words = line.split(/\s+/)
    const place = {line: at + 1, text: line}
    if (words[0] === '-A') saveVirtual(dump, words, place)
    else if (words[0] === '-a') saveReal(dump, words, place)
    else dump.problems.push({file, ...place, message: 'not a line of ipvsadm -Sn'})
  })
  markTwins(dump)
  dump.partial = dump.problems.length > 0
  return dump
}

const SAVE_PROTOCOL: Record<string, VirtualServer['protocol']> = table({
  '-t': 'TCP',
  '-u': 'UDP',
  '--sctp-service': 'SCTP',
  '-f': 'FWM',
})

function saveVirtual(dump: IpvsDump, words: readonly string[], place: {line: number; text: string}): void {
  const protocol = SAVE_PROTOCOL[words[1] ?? '']
  const value = (flag: string): string | undefined =>
    words.includes(flag) ? words[words.indexOf(flag) + 1] : undefined
  const service = protocol === 'FWM' ? {mark: markOf(words[2])} : endpointOf(words[2] ?? '')
  if (!protocol || !service) {
    dump.problems.push({file: dump.file, ...place, message: 'a virtual server that is not understood'})
    return
  }
  const persistent = value('-p')
  dump.virtualServers.push({
    protocol,
    ...service,
    scheduler: value('-s') ?? 'wlc',
    ...(words.includes('-p') ? {persistent: Number(persistent ?? 300)} : {}),
    file: dump.file,
    ...place,
    realServers: [],
  })
}

function saveReal(dump: IpvsDump, words: readonly string[], place: {line: number; text: string}): void {
  const own = endpointOf(words[2] ?? '')
  const mark = words[1] === '-f' ? markOf(words[2]) : undefined
  const service = dump.virtualServers.findLast(({address, port, protocol, mark: fw}) =>
    mark === undefined
      ? address === own?.address && port === own?.port && protocol === SAVE_PROTOCOL[words[1] ?? '']
      : fw === mark,
  )
  const endpoint = endpointOf(words[words.indexOf('-r') + 1] ?? '')
  const flag = words.find((word) => FORWARD_FLAG[word] !== undefined)
  const weight = words.includes('-w') ? Number(words[words.indexOf('-w') + 1]) : 1
  if (!service || !endpoint || !flag || Number.isNaN(weight)) {
    if (service) service.damaged = true
    dump.problems.push({
      file: dump.file,
      ...place,
      message: service ? 'a real server that is not understood' : 'a real server without its virtual server',
    })
    return
  }
  service.realServers.push({
    address: endpoint.address,
    port: endpoint.port,
    forward: FORWARD_FLAG[flag]!,
    weight,
    ...place,
  })
}

/** Parses `/proc/net/ip_vs`: addresses and ports in hexadecimal, persistence in jiffies of unknown length (net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_info_seq_show). */
export function parseProcIpvs(text: string, file: string): IpvsDump {
  const decimal = text.split('\n').map((line) =>
    line
      .replace(
        /\b([0-9A-F]{8}):([0-9A-F]{4})\b/g,
        (_, host: string, port: string) => `${hexIPv4(host)}:${Number.parseInt(port, 16)}`,
      )
      .replace(
        /\[([0-9a-f:]+)\]:([0-9A-F]{4})\b/gi,
        (_, host: string, port: string) => `[${host}]:${Number.parseInt(port, 16)}`,
      )
      .replace(/^FWM\s+([0-9A-F]{8})/, (_, mark: string) => `FWM ${Number.parseInt(mark, 16)}`)
      .replace(/persistent (\d+).*$/, () => 'persistent NaN'),
  )
  return parseIpvsList(decimal.join('\n'), file)
}

const hexIPv4 = (hex: string): string => [0, 2, 4, 6].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)).join('.')
