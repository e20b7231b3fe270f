import type {Duplex} from 'node:stream'
import {streamDecode, streamEncode, type Answer, type Packet} from 'dns-packet'
import type {DnsAnswer, DnsQuestion} from '../discovery/dns-answers.js'

/** Most questions on the way at once (RFC 7766 6.2.1.1: a server must cope with several on one connection). */
const IN_FLIGHT = 16

export interface Asked {
  /** In the order of the questions, up to the first that got no answer. */
  readonly answered: readonly DnsAnswer[]
  /** The server kept a question waiting too long; else it closed the connection, or all is answered. */
  readonly timedOut: boolean
}

/** Asks one DNS server over a TCP stream (RFC 1035 4.2.2, RFC 7766), several questions at a time. */
export async function askServer(stream: Duplex, questions: readonly DnsQuestion[], timeout: number): Promise<Asked> {
  const session = new Session(stream, timeout)
  const answers: (DnsAnswer | undefined)[] = []
  let next = 0
  const worker = async (): Promise<void> => {
    for (let at = next++; at < questions.length && session.open; at = next++)
      answers[at] = await session.ask(questions[at]!, at + 1)
  }
  await Promise.all(Array.from({length: Math.min(IN_FLIGHT, questions.length)}, worker))
  const end = questions.findIndex((_, at) => answers[at] === undefined)
  return {
    answered: answers.slice(0, end < 0 ? questions.length : end).flatMap((answer) => answer ?? []),
    timedOut: session.timedOut,
  }
}

class Session {
  open = true
  timedOut = false
  private readonly stream: Duplex
  private readonly timeout: number
  private readonly waiting = new Map<number, (packet: Packet | undefined) => void>()
  private buffered: Buffer = Buffer.alloc(0)

  constructor(stream: Duplex, timeout: number) {
    this.stream = stream
    this.timeout = timeout
    stream.on('data', (chunk: Buffer) => this.take(chunk))
    for (const event of ['error', 'close', 'end']) stream.on(event, () => this.giveUp())
  }

  /** Undefined: no answer came. */
  ask(question: DnsQuestion, id: number): Promise<DnsAnswer | undefined> {
    return new Promise((resolve) => {
      if (!this.open) return resolve(undefined)
      const timer = setTimeout(() => {
        this.timedOut = true
        this.giveUp()
      }, this.timeout)
      this.waiting.set(id, (packet) => {
        clearTimeout(timer)
        resolve(packet && answerOf(question, packet))
      })
      this.stream.write(
        streamEncode({id, type: 'query', flags: RECURSION, questions: [{type: question.type, name: question.name}]}),
      )
    })
  }

  private take(chunk: Buffer): void {
    this.buffered = Buffer.concat([this.buffered, chunk])
    for (let message = this.message(); message; message = this.message()) {
      const packet = decode(message)
      if (!packet) return this.giveUp()
      this.waiting.get(packet.id ?? -1)?.(packet)
      this.waiting.delete(packet.id ?? -1)
    }
  }

  private message(): Buffer | undefined {
    const length = this.buffered.length < 2 ? Infinity : 2 + this.buffered.readUInt16BE(0)
    if (this.buffered.length < length) return undefined
    const message = this.buffered.subarray(0, length)
    this.buffered = this.buffered.subarray(length)
    return message
  }

  private giveUp(): void {
    this.open = false
    for (const settle of this.waiting.values()) settle(undefined)
    this.waiting.clear()
  }
}

/** Bit RD of the header. */
const RECURSION = 0x0100

function decode(message: Buffer): Packet | undefined {
  try {
    return streamDecode(message)
  } catch {
    // not DNS: whoever listens there gives no answer
    return undefined
  }
}

/** dns-packet keeps the code as a word, though its types leave it out. */
const statusOf = (packet: Packet): string => (packet as {rcode?: string}).rcode ?? 'NOERROR'

const answerOf = (question: DnsQuestion, packet: Packet): DnsAnswer => ({
  ...question,
  status: statusOf(packet),
  records: (packet.answers ?? []).flatMap(recordOf),
})

function recordOf(answer: Answer): DnsAnswer['records'][number][] {
  const name = clean(answer.name)
  switch (answer.type) {
    case 'A':
    case 'AAAA':
      return [{name, type: answer.type, data: answer.data}]
    case 'CNAME':
    case 'PTR':
      return [{name, type: answer.type, data: clean(answer.data)}]
    case 'SRV':
      return [{name, type: 'SRV', data: `${answer.data.port} ${clean(answer.data.target)}`}]
    default:
      return []
  }
}

const clean = (name: string): string => name.replace(/\.$/, '').toLowerCase()
