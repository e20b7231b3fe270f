import {execFile} from 'node:child_process'
import {SvcTraceError} from '../model/errors.js'

type Entry = Record<string, unknown>

export interface Credential {
  readonly token?: string
  readonly certificate?: string
  readonly key?: string
}

/** A person may have to look into a browser (ms). */
const LONGEST = 60_000

/** Runs a credential plugin once (client.authentication.k8s.io); its stderr and terminal are the user's. */
export function execCredential(exec: Entry, server: string, timeout = LONGEST): Promise<Credential> {
  const {command} = exec
  if (typeof command !== 'string' || command === '')
    return Promise.reject(
      new SvcTraceError('BadKubeconfig', 'the credential plugin of this user (exec) names no command'),
    )
  const args = Array.isArray(exec['args']) ? exec['args'].map(String) : []
  const own = Array.isArray(exec['env'])
    ? (exec['env'] as Entry[]).map(({name, value}): [string, string] => [String(name), String(value)])
    : []
  const info = {
    kind: 'ExecCredential',
    apiVersion: exec['apiVersion'],
    spec: {interactive: process.stdin.isTTY, ...(exec['provideClusterInfo'] ? {cluster: {server}} : {})},
  }
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    ...Object.fromEntries<string>(own),
    KUBERNETES_EXEC_INFO: JSON.stringify(info),
  }
  return new Promise((resolve, reject) => {
    const fail = (what: string): void =>
      reject(
        new SvcTraceError(
          'Unauthorized',
          `credential plugin ${command} ${what}`,
          typeof exec['installHint'] === 'string' ? exec['installHint'] : undefined,
        ),
      )
    execFile(command, args, {env, timeout, maxBuffer: 1024 * 1024}, (error, stdout, stderr) => {
      if (error)
        return fail(
          (error as NodeJS.ErrnoException).code === 'ENOENT'
            ? 'is not installed'
            : error.killed
              ? `did not answer within ${timeout / 1000} s`
              : `failed: ${stderr.trim().split('\n').at(-1) || error.message}`,
        )
      try {
        const {status} = JSON.parse(stdout) as {status?: Entry}
        if (!status) return fail('gave no status')
        resolve({
          ...(typeof status['token'] === 'string' ? {token: status['token']} : {}),
          ...(typeof status['clientCertificateData'] === 'string'
            ? {certificate: status['clientCertificateData']}
            : {}),
          ...(typeof status['clientKeyData'] === 'string' ? {key: status['clientKeyData']} : {}),
        })
      } catch {
        fail('did not print an ExecCredential')
      }
    })
  })
}
