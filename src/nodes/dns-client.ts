import type {Duplex} from 'node:stream'
import {streamDecode, streamEncode, type Answer, type Packet} from 'dns-packet'
import type {DnsAnswer, DnsQuestion} from '../discovery/dns-answers.js'

/** Most questions on the way at once (RFC 7766 6.2.1.1: a server must cope with several on one connection). */
const IN_FLIGHT = 16

/**
 * Asks one DNS server over a TCP stream (RFC 1035 4.2.2, RFC 7766), several questions at a time. A server that does not
 * answer a question in `timeout` milliseconds is not asked any more; the rest is told as timed out.
 */
export async function askServer(
  stream: Duplex,
  questions: readonly DnsQuestion[],
  timeout: number,
): Promise<DnsAnswer[]> {
  const waiting = new Map<number, (packet: Packet | undefined) => void>()
  let buffered = Buffer.alloc(0)
  let broken = false
  const giveUp = (): void => {
    broken = true
    for (const settle of waiting.values()) settle(undefined)
    waiting.clear()
  }
  stream.on('data', (chunk: Buffer) => {
    buffered = Buffer.concat([buffered, chunk])
    for (let message = take(); message; message = take()) {
      const packet = decode(message)
      if (!packet) return giveUp()
      waiting.get(packet.id ?? -1)?.(packet)
      waiting.delete(packet.id ?? -1)
    }
  })
  const take = (): Buffer | undefined => {
    const length = buffered.length < 2 ? Infinity : 2 + buffered.readUInt16BE(0)
    if (buffered.length < length) return undefined
    const message = buffered.subarray(0, length)
    buffered = buffered.subarray(length)
    return message
  }
  for (const event of ['error', 'close', 'end']) stream.on(event, giveUp)
  const ask = (question: DnsQuestion, id: number): Promise<DnsAnswer> =>
    new Promise((resolve) => {
      if (broken) return resolve({...question, status: 'no answer', records: []})
      const timer = setTimeout(giveUp, timeout)
      waiting.set(id, (packet) => {
        clearTimeout(timer)
        resolve(packet ? answerOf(question, packet) : {...question, status: 'no answer', records: []})
      })
      stream.write(
        streamEncode({
          id,
          type: 'query',
          flags: RECURSION,
          questions: [{type: question.type, name: question.name}],
        }),
      )
    })
  const answers: DnsAnswer[] = []
  let next = 0
  const worker = async (): Promise<void> => {
    for (let at = next++; at < questions.length; at = next++) answers[at] = await ask(questions[at]!, at + 1)
  }
  await Promise.all(Array.from({length: Math.min(IN_FLIGHT, questions.length)}, worker))
  stream.destroy()
  return answers
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
