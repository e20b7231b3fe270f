import type {AskedServer, DnsQuestion} from '../discovery/dns-answers.js'
import {askServer} from './dns-client.js'
import {NodeUnreachable, type NodeTarget, type Transport} from './transport.js'

/** Milliseconds that a server has for one answer; resolvers wait 5 s (resolv.conf(5), timeout). */
const PATIENCE = 5000

/** Asks each server from one node, over TCP through the way into it; one that fails costs itself only. */
export async function askDns(
  transport: Transport,
  target: NodeTarget,
  {
    servers,
    questions,
    signal,
  }: {
    servers: readonly Omit<AskedServer, 'answers'>[]
    questions: readonly DnsQuestion[]
    signal: AbortSignal
  },
): Promise<AskedServer[]> {
  const {tunnel} = transport
  if (!tunnel)
    return servers.map((server) => ({...server, failure: `--via ${transport.name} opens no connections`, answers: []}))
  const asked: AskedServer[] = []
  for (const server of servers) {
    const [, host, port] = /^\[?([^\]]+?)\]?:(\d+)$/.exec(server.server)!
    try {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)])
      const connection = await tunnel(target, {host: host!, port: Number(port)}, limit)
      try {
        asked.push({...server, answers: await askServer(connection.stream, questions, PATIENCE)})
      } finally {
        connection.close()
      }
    } catch (error) {
      if (!(error instanceof NodeUnreachable)) throw error
      asked.push({...server, failure: error.message, answers: []})
    }
  }
  return asked
}
