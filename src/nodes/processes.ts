import {spawn, type ChildProcessWithoutNullStreams} from 'node:child_process'
import {connect} from 'node:net'
import {Duplex} from 'node:stream'
import {Output} from './output.js'
import {NodeUnreachable, type Transport, type Tunnel} from './transport.js'
import {sharedConnection} from './shared-connections.js'
import {sshAsker, type SshAsker, type SshOptions} from './ssh-settings.js'

/** The system's own ssh, for certificates, FIDO keys, ProxyCommand and Kerberos. Host keys are checked as it is configured; never less. */
export function opensshTransport(options: SshOptions, ask: SshAsker = sshAsker(options)): Transport {
  /** Sessions share a connection by the user's own settings, else by ours. */
  const argumentsFor = async (host: string): Promise<string[]> =>
    (await ask.host(host)).shares ? sshArguments(options) : [...sshArguments(options), ...sharedConnection()]
  return {
    name: 'openssh',
    way: async ({host}) => ({
      name: 'openssh',
      user: (await ask.host(host)).user,
      why: "the system's own ssh, as --via says",
    }),
    run: async ({host}, script, signal) => {
      const args = [...(await argumentsFor(host)), '--', host, '/bin/sh -s']
      return feed('ssh', args, {script, signal, explain: (said) => classify(host, said)})
    },
    tunnel: async ({host}, to, signal) => {
      const args = [...(await argumentsFor(host)), '-W', `${bracketed(to.host)}:${to.port}`, '--', host]
      const child = spawn('ssh', args, {stdio: ['pipe', 'pipe', 'pipe'], signal, killSignal: 'SIGKILL'})
      const stream = Duplex.from({readable: child.stdout, writable: child.stdin})
      child.on('error', (error) => stream.destroy(error))
      return opened(child, stream)
    },
  }
}

/** Milliseconds for a connection to open. */
const OPENING = 5000
/** ssh -W says nothing when the connection stands; what fails at once, fails within this. */
const QUIET = 400

/** Waits until it is likely that ssh has not failed; its own words tell why it did. */
function opened(child: ChildProcessWithoutNullStreams, stream: Duplex): Promise<Tunnel> {
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString('utf8').slice(0, MOST_SAID)))
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve({stream, close: () => child.kill('SIGKILL')}), QUIET)
    child.on('close', () => {
      clearTimeout(timer)
      const line = said.trim().split('\n').at(-1) ?? 'ssh ended'
      const reached = /connect failed|Connection refused|No route|timed out/i.test(said)
      reject(new NodeUnreachable(line, undefined, {prohibited: !reached}))
    })
  })
}

const bracketed = (host: string): string => (host.includes(':') ? `[${host}]` : host)

const sshArguments = (options: SshOptions): string[] => [
  '-T',
  '-o',
  'BatchMode=yes',
  '-o',
  `ConnectTimeout=${Math.max(1, Math.round(options.connectTimeout / 1000))}`,
  '-o',
  'StrictHostKeyChecking=yes',
  ...(options.config ? ['-F', options.config] : []),
  ...(options.user ? ['-l', options.user] : []),
  ...(options.port ? ['-p', String(options.port)] : []),
  ...(options.identity ? ['-i', options.identity] : []),
  ...(options.knownHosts ? ['-o', `UserKnownHostsFile=${options.knownHosts}`] : []),
  ...(options.settings ?? []).flatMap((setting) => ['-o', setting]),
]

/** On the node itself. */
export function localTransport(): Transport {
  return {
    name: 'local',
    way: () => Promise.resolve({name: 'local', why: 'on this machine, as --via says'}),
    run: (_target, script, signal) =>
      feed('/bin/sh', ['-s'], {
        script,
        signal,
        explain: (said) => new NodeUnreachable(`the collector failed here: ${said}`),
      }),
    tunnel: (_target, {host, port}, signal) =>
      new Promise((resolve, reject) => {
        const socket = connect({host, port, timeout: OPENING})
        signal.addEventListener('abort', () => socket.destroy(), {once: true})
        socket.once('timeout', () => socket.destroy(new Error('no connection in 5 s')))
        socket.once('error', (error) => reject(new NodeUnreachable(`cannot reach ${host}:${port}: ${error.message}`)))
        socket.once('connect', () => {
          socket.setTimeout(0)
          resolve({stream: socket, close: () => socket.destroy()})
        })
      }),
  }
}

function classify(host: string, said: string): NodeUnreachable {
  const line = said.trim().split('\n').at(-1) ?? ''
  if (/Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED/.test(said))
    return new NodeUnreachable(`the host key of ${host} is unknown or has changed`, `look at it with: ssh ${host}`)
  if (/Permission denied/.test(said))
    return new NodeUnreachable(
      `${host} accepts no key of ours (${line})`,
      'try it by hand: ssh -o BatchMode=yes HOST true',
    )
  return new NodeUnreachable(`ssh ${host}: ${line || 'failed'}`)
}

/** What a program says on stderr is kept up to here. */
const MOST_SAID = 4000

interface Feed {
  readonly script: string
  readonly signal: AbortSignal
  readonly explain: (said: string) => NodeUnreachable
}

/** Runs a program with the script on its standard input; arguments are a list, no shell sees them here. */
function feed(program: string, args: readonly string[], {script, signal, explain}: Feed): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {stdio: ['pipe', 'pipe', 'pipe'], signal, killSignal: 'SIGKILL'})
    const output = new Output()
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => {
      if (output.add(chunk)) return
      child.kill('SIGKILL')
      reject(Output.tooBig())
    })
    child.stderr.on('data', (chunk: Buffer) => {
      if (said.length < MOST_SAID) said += chunk.toString('utf8').slice(0, MOST_SAID)
    })
    child.on('error', (error) =>
      reject(
        new NodeUnreachable(
          signal.aborted ? 'the time limit of the node is over' : `cannot run ${program}: ${error.message}`,
          undefined,
          {partial: output.bytes},
        ),
      ),
    )
    child.on('close', () => {
      if (output.begun) resolve(output.bytes)
      else reject(explain(said))
    })
    child.stdin.on('error', () => undefined)
    child.stdin.end(script)
  })
}
