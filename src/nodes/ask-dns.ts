import type {AskedServer, DnsAnswer, DnsQuestion} from '../discovery/dns-answers.js'
import {askServer} from './dns-client.js'
import {NodeUnreachable, type NodeTarget, type Transport} from './transport.js'

/** Milliseconds that a server has for one answer, and a connection to open; resolvers wait 5 s (resolv.conf(5), timeout). */
const PATIENCE = 5000

type Server = Omit<AskedServer, 'answers'>

/** Asks each server from one node, over TCP through the way into it; one that fails costs itself only. */
export async function askDns(
  transport: Transport,
  target: NodeTarget,
  {servers, questions, signal}: {servers: readonly Server[]; questions: readonly DnsQuestion[]; signal: AbortSignal},
): Promise<AskedServer[]> {
  const {tunnel} = transport
  if (!tunnel)
    return servers.map((server) => ({
      ...server,
      unasked: `--via ${transport.name} opens no connections`,
      answers: [],
    }))
  const asked: AskedServer[] = []
  for (const server of servers) {
    if (signal.aborted) break
    asked.push(await askOne(server, questions, {tunnel: (to) => tunnel(target, to, signal), signal}))
  }
  return asked
}

interface Way {
  readonly tunnel: (to: {readonly host: string; readonly port: number}) => ReturnType<NonNullable<Transport['tunnel']>>
  readonly signal: AbortSignal
}

/** A server may close a connection after some questions (RFC 7766 6.2.3); as long as each gets us on, we open another. */
async function askOne(server: Server, questions: readonly DnsQuestion[], {tunnel, signal}: Way): Promise<AskedServer> {
  const [, host, port] = /^\[?([^\]]+?)\]?:(\d+)$/.exec(server.server)!
  const answers: DnsAnswer[] = []
  while (answers.length < questions.length && !signal.aborted) {
    try {
      const connection = await tunnel({host: host!, port: Number(port)})
      try {
        const {answered, timedOut} = await askServer(connection.stream, questions.slice(answers.length), PATIENCE)
        answers.push(...answered)
        if (answered.length > 0 && !timedOut) continue
      } finally {
        connection.close()
      }
    } catch (error) {
      if (!(error instanceof NodeUnreachable)) throw error
      if (answers.length === 0) return {...server, [error.prohibited ? 'unasked' : 'failure']: error.message, answers}
    }
    break
  }
  const silent = questions.slice(answers.length).map((question) => ({...question, status: 'no answer', records: []}))
  return {...server, answers: [...answers, ...silent]}
}
