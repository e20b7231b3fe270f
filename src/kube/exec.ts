import {PassThrough} from 'node:stream'
import {Exec, type V1Status} from '@kubernetes/client-node'
import {SvcTraceError} from '../model/errors.js'
import {credentialConfig} from './api.js'
import type {Connection} from './kubeconfig.js'

export interface ExecPod {
  readonly namespace: string
  readonly pod: string
  readonly container: string
}

export interface ExecResult {
  readonly stdout: string
  readonly stderr: string
  /** The command's exit code; undefined when it did not run at all. */
  readonly code: number | undefined
  /** Why it did not run, in the API server's words. */
  readonly failure?: string
}

export type PodExec = (at: ExecPod, command: readonly string[], signal: AbortSignal) => Promise<ExecResult>

/** Runs commands in pods by the API's exec (pods/exec, v4.channel.k8s.io); nothing goes to their standard input. */
export async function podExec(connection: Connection): Promise<PodExec> {
  const exec = new Exec(await credentialConfig(connection))
  return (at, command, signal) => runOnce(exec, at, {command, signal})
}

function runOnce(
  exec: Exec,
  {namespace, pod, container}: ExecPod,
  {command, signal}: {command: readonly string[]; signal: AbortSignal},
): Promise<ExecResult> {
  const [stdout, stderr] = [new Collected(), new Collected()]
  return new Promise((resolve, reject) => {
    const done = (status: V1Status): void => resolve({stdout: stdout.text, stderr: stderr.text, ...outcome(status)})
    const stop = (): void => reject(new SvcTraceError('Interrupted', 'the time limit of the node is over'))
    if (signal.aborted) return stop()
    signal.addEventListener('abort', stop, {once: true})
    exec
      .exec(namespace, pod, container, [...command], stdout.stream, stderr.stream, null, false, done)
      .then((socket) => {
        signal.addEventListener('abort', () => socket.close(), {once: true})
        socket.onclose = () =>
          resolve({stdout: stdout.text, stderr: stderr.text, code: undefined, failure: 'the connection was closed'})
      })
      .catch((error: unknown) => reject(new SvcTraceError('ApiError', `exec into ${namespace}/${pod}: ${said(error)}`)))
  })
}

class Collected {
  readonly stream = new PassThrough()
  private readonly chunks: Buffer[] = []

  constructor() {
    this.stream.on('data', (chunk: Buffer) => this.chunks.push(chunk))
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString('utf8')
  }
}

/** `Success`, or `NonZeroExitCode` with the code among the causes; anything else means that nothing ran. */
function outcome({status, reason, message, details}: V1Status): Pick<ExecResult, 'code' | 'failure'> {
  if (status === 'Success') return {code: 0}
  const code = details?.causes?.find((cause) => cause.reason === 'ExitCode')?.message
  if (reason === 'NonZeroExitCode' && code !== undefined) return {code: Number(code)}
  return {code: undefined, failure: message ?? reason ?? 'the command did not run'}
}

/** ws reports a refused upgrade as an event with an error in it. */
const said = (error: unknown): string =>
  error instanceof Error ? error.message : String((error as {message?: unknown}).message ?? 'the connection failed')
