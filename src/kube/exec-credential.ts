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
  const env = environment(exec, server)
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
        resolve(credentialOf(status))
      } catch {
        fail('did not print an ExecCredential')
      }
    })
  })
}

/** The plugin's environment: ours, its own, and what it is asked for (KEP-541). */
function environment(exec: Entry, server: string): NodeJS.ProcessEnv {
  const own = Array.isArray(exec['env'])
    ? (exec['env'] as Entry[]).map(({name, value}): [string, string] => [String(name), String(value)])
    : []
  const info = {
    kind: 'ExecCredential',
    apiVersion: exec['apiVersion'],
    spec: {interactive: process.stdin.isTTY, ...(exec['provideClusterInfo'] ? {cluster: {server}} : {})},
  }
  return {...process.env, ...Object.fromEntries<string>(own), KUBERNETES_EXEC_INFO: JSON.stringify(info)}
}

function credentialOf({token, clientCertificateData: certificate, clientKeyData: key}: Entry): Credential {
  return {
    ...(typeof token === 'string' ? {token} : {}),
    ...(typeof certificate === 'string' ? {certificate} : {}),
    ...(typeof key === 'string' ? {key} : {}),
  }
}
