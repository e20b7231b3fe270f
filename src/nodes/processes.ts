import {spawn} from 'node:child_process'
import {NodeUnreachable, type Transport} from './transport.js'
import type {SshOptions} from './ssh-settings.js'

/** The system's own ssh, for certificates, FIDO keys, ProxyCommand and Kerberos. Host keys are checked as it is configured; never less. */
export function opensshTransport(options: SshOptions): Transport {
  return {
    name: 'openssh',
    run: ({host}, script, signal) => {
      const args = [
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
        '--',
        host,
        '/bin/sh -s',
      ]
      return feed('ssh', args, {script, signal, explain: (said) => classify(host, said)})
    },
  }
}

/** On the node itself. */
export function localTransport(): Transport {
  return {
    name: 'local',
    run: (_target, script, signal) =>
      feed('/bin/sh', ['-s'], {
        script,
        signal,
        explain: (said) => new NodeUnreachable(`the collector failed here: ${said}`),
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

interface Feed {
  readonly script: string
  readonly signal: AbortSignal
  readonly explain: (said: string) => NodeUnreachable
}

/** Runs a program with the script on its standard input; arguments are a list, no shell sees them here. */
function feed(program: string, args: readonly string[], {script, signal, explain}: Feed): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {stdio: ['pipe', 'pipe', 'pipe'], signal, killSignal: 'SIGKILL'})
    const chunks: Buffer[] = []
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString('utf8').slice(0, 4000)))
    child.on('error', (error) =>
      reject(
        new NodeUnreachable(
          signal.aborted ? 'the time limit of the node is over' : `cannot run ${program}: ${error.message}`,
          undefined,
          Buffer.concat(chunks).toString('utf8'),
        ),
      ),
    )
    child.on('close', () => {
      const output = Buffer.concat(chunks).toString('utf8')
      if (output.includes('@svc-trace 1')) resolve(output)
      else reject(explain(said))
    })
    child.stdin.on('error', () => undefined)
    child.stdin.end(script)
  })
}
