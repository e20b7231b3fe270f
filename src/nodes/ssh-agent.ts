import type {Duplex} from 'node:stream'
import ssh2 from 'ssh2'

/** Milliseconds for an agent to say what it holds. */
const AGENT_LIMIT = 3000

/** An agent whose connection can be given up; ssh2's own would keep the process alive. */
export class AgentInTime extends ssh2.OpenSSHAgent {
  private stream: Duplex | undefined

  override getStream(done: Parameters<ssh2.OpenSSHAgent['getStream']>[0]): void {
    super.getStream((error, stream) => {
      this.stream = stream
      done(error, stream)
    })
  }

  /** How many keys it holds; undefined when it does not answer. */
  keys(): Promise<number | undefined> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.stream?.destroy(), AGENT_LIMIT)
      this.getIdentities((error, keys) => {
        clearTimeout(timer)
        resolve(error ? undefined : (keys?.length ?? 0))
      })
    })
  }
}
