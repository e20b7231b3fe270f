import {execFile} from 'node:child_process'
import {homedir, userInfo} from 'node:os'
import {join} from 'node:path'
import {existsSync} from 'node:fs'
import {SvcTraceError} from '../model/errors.js'

export interface SshOptions {
  readonly user?: string
  readonly port?: number
  readonly identity?: string
  readonly config?: string
  readonly knownHosts?: string
  /** Milliseconds. */
  readonly connectTimeout: number
}

/** What `ssh` itself would use for a host. */
export interface SshSettings {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly identities: readonly string[]
  readonly knownHosts: readonly string[]
  /** The name under which the key is looked up. */
  readonly keyAlias: string
  readonly agent: string | undefined
  readonly jumps: readonly string[]
  readonly proxyCommand: boolean
}

/** Asks `ssh -G` for the effective settings (Host, Match, Include, tokens); without an ssh binary the defaults. */
export async function sshSettings(host: string, options: SshOptions): Promise<SshSettings> {
  for (const file of [options.config, options.identity])
    if (file !== undefined && !existsSync(file))
      throw new SvcTraceError('BadUsage', `${file}: no such file`, 'look at --ssh-config and --ssh-identity')
  const told = await effective(host, options)
  const value = (key: string): string | undefined => told.get(key)?.[0]
  const name = value('hostname') ?? host
  const jump = value('proxyjump')
  return {
    host: name,
    port: options.port ?? Number(value('port') ?? 22),
    user: options.user ?? value('user') ?? userInfo().username,
    identities: options.identity ? [options.identity] : (told.get('identityfile') ?? DEFAULT_IDENTITIES).map(expand),
    knownHosts: options.knownHosts
      ? [options.knownHosts]
      : [
          ...split(value('userknownhostsfile') ?? '~/.ssh/known_hosts'),
          ...split(value('globalknownhostsfile') ?? '/etc/ssh/ssh_known_hosts'),
        ],
    keyAlias: value('hostkeyalias') ?? name,
    agent: agentOf(value('identityagent')),
    jumps: jump === undefined || jump === 'none' ? [] : jump.split(','),
    proxyCommand: (value('proxycommand') ?? 'none') !== 'none',
  }
}

const DEFAULT_IDENTITIES = ['~/.ssh/id_ed25519', '~/.ssh/id_ecdsa', '~/.ssh/id_rsa']
const expand = (path: string): string => (path.startsWith('~/') ? join(homedir(), path.slice(2)) : path)
const split = (text: string): string[] => text.split(/\s+/).filter(Boolean).map(expand)

function agentOf(setting: string | undefined): string | undefined {
  if (setting === 'none') return undefined
  return setting === undefined || setting === 'SSH_AUTH_SOCK' ? process.env['SSH_AUTH_SOCK'] : expand(setting)
}

async function effective(host: string, {config, user, port}: SshOptions): Promise<Map<string, string[]>> {
  const args = [
    '-G',
    ...(config ? ['-F', config] : []),
    ...(user ? ['-l', user] : []),
    ...(port ? ['-p', String(port)] : []),
    '--',
    host,
  ]
  const text = await new Promise<string>((resolve) =>
    execFile('ssh', args, {timeout: 5000}, (error, stdout) => resolve(error ? '' : stdout)),
  )
  const settings = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const blank = line.indexOf(' ')
    if (blank < 0) continue
    const key = line.slice(0, blank)
    settings.set(key, [...(settings.get(key) ?? []), line.slice(blank + 1)])
  }
  return settings
}
