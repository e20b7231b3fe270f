import {execFile} from 'node:child_process'
import {createHash} from 'node:crypto'
import {homedir, hostname, userInfo} from 'node:os'
import {join} from 'node:path'
import {existsSync} from 'node:fs'
import {SvcTraceError} from '../model/errors.js'
import {AgentInTime} from './ssh-agent.js'
import {NodeUnreachable} from './transport.js'

export interface SshOptions {
  readonly user?: string
  readonly port?: number
  readonly identity?: string
  readonly config?: string
  readonly knownHosts?: string
  /** `KEY=VALUE` each, as for ssh -o. */
  readonly settings?: readonly string[]
  /** Asks for the passphrase of a key file; only where there is somebody to ask. */
  readonly passphrase?: (file: string) => Promise<string | undefined>
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
  /** The name and port under which the key is looked up: a HostKeyAlias stands without its port (sshconnect.c, get_hostfile_hostname_ipaddr). */
  readonly keyAlias: string
  readonly keyPort: number
  /** ssh_config names files of revoked keys, which only the system's own ssh can read. */
  readonly revoked: boolean
  readonly agent: string | undefined
  readonly jumps: readonly string[]
  readonly proxyCommand: boolean
  readonly certificates: readonly string[]
  readonly kerberos: boolean
  /** The user has a place for connections that are shared (ControlPath). */
  readonly shares: boolean
}

/** Asks `ssh -G` for the effective settings (Host, Match, Include, tokens); without an ssh binary the defaults. */
export async function sshSettings(host: string, options: SshOptions): Promise<SshSettings> {
  for (const file of [options.config, options.identity])
    if (file !== undefined && !existsSync(file))
      throw new SvcTraceError('BadUsage', `${file}: no such file`, 'look at --ssh-config and --ssh-identity')
  const told = await effective(host, options)
  const value = (key: string): string | undefined => told.get(key)?.[0]
  const name = value('hostname') ?? host
  const port = options.port ?? Number(value('port') ?? 22)
  const user = options.user ?? value('user') ?? userInfo().username
  const keyAlias = value('hostkeyalias') ?? name
  const expand = expander({original: host, host: name, port, user, alias: keyAlias, jump: value('proxyjump') ?? ''})
  const split = (text: string): string[] => text.split(/\s+/).filter(Boolean).map(expand)
  const jump = value('proxyjump')
  return {
    host: name,
    port,
    user,
    identities: options.identity ? [options.identity] : (told.get('identityfile') ?? DEFAULT_IDENTITIES).map(expand),
    knownHosts: options.knownHosts
      ? [options.knownHosts]
      : [
          ...split(value('userknownhostsfile') ?? '~/.ssh/known_hosts'),
          ...split(value('globalknownhostsfile') ?? '/etc/ssh/ssh_known_hosts'),
        ],
    keyAlias,
    keyPort: value('hostkeyalias') === undefined ? port : 22,
    revoked: (value('revokedhostkeys') ?? 'none') !== 'none',
    agent: agentOf(value('identityagent'), expand),
    jumps: jump === undefined || jump === 'none' ? [] : jump.split(','),
    proxyCommand: (value('proxycommand') ?? 'none') !== 'none',
    certificates: [
      ...(told.get('certificatefile') ?? []).map(expand),
      ...(options.identity ? [options.identity] : (told.get('identityfile') ?? []).map(expand)).map(
        (file) => `${file}-cert.pub`,
      ),
    ],
    kerberos: value('gssapiauthentication') === 'yes',
    shares: (value('controlpath') ?? 'none') !== 'none',
  }
}

/** What ssh uses for a jump host: its own settings; flags for the node do not count there (ssh_config(5), ProxyJump). */
export function jumpSettings(jump: string, options: SshOptions): Promise<SshSettings> {
  const place = jumpHost(jump)
  if (!place) return Promise.reject(new NodeUnreachable(`ProxyJump "${jump}" is not understood`))
  const {user: _user, port: _port, settings: _settings, ...common} = options
  const {host, ...own} = place
  return sshSettings(host, {...common, ...own})
}

/** Asks once for each key, whoever wants to know. */
export function onceEach<T>(ask: (key: string) => Promise<T>): (key: string) => Promise<T> {
  const known = new Map<string, Promise<T>>()
  return (key) => {
    const answer = known.get(key) ?? ask(key)
    known.set(key, answer)
    return answer
  }
}

/** The settings of hosts and of jump hosts, and agents; each is asked once. */
export interface SshAsker {
  readonly host: (host: string) => Promise<SshSettings>
  readonly jump: (jump: string) => Promise<SshSettings>
  /** How many keys an agent holds; undefined when it does not answer. */
  readonly agent: (socket: string) => Promise<number | undefined>
}

export const sshAsker = (options: SshOptions): SshAsker => ({
  host: onceEach((host) => sshSettings(host, options)),
  jump: onceEach((jump) => jumpSettings(jump, options)),
  agent: onceEach((socket) => new AgentInTime(socket).keys()),
})

/** For what is only prepared: whoever cannot be reached will be told of when it is tried. */
export const ignoreUnreachable = (error: unknown): undefined => {
  if (error instanceof NodeUnreachable) return undefined
  throw error
}

/** `[USER@]HOST[:PORT]` of a ProxyJump. */
function jumpHost(jump: string): {host: string; user?: string; port?: number} | undefined {
  const match = /^(?:ssh:\/\/)?(?:([^@]+)@)?(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(jump)
  if (!match) return undefined
  return {
    host: match[2]!.replaceAll(/[[\]]/g, ''),
    ...(match[1] ? {user: match[1]} : {}),
    ...(match[3] ? {port: Number(match[3])} : {}),
  }
}

const DEFAULT_IDENTITIES = ['~/.ssh/id_ed25519', '~/.ssh/id_ecdsa', '~/.ssh/id_rsa']

interface Names {
  readonly original: string
  readonly host: string
  readonly port: number
  readonly user: string
  readonly alias: string
  readonly jump: string
}

/** `~`, `${NAME}` and the %-tokens of a file's name, which `ssh -G` leaves as they are (ssh_config(5), TOKENS). */
function expander({original, host, port, user, alias, jump}: Names): (path: string) => string {
  const own = userInfo()
  const machine = hostname()
  const hash = createHash('sha1')
    .update(`${machine}${host}${port}${user}${jump === 'none' ? '' : jump}`)
    .digest('hex')
  const tokens: Readonly<Record<string, string>> = {
    '%': '%',
    C: hash,
    d: homedir(),
    h: host,
    i: String(own.uid),
    j: jump,
    k: alias,
    L: machine.split('.')[0]!,
    l: machine,
    n: original,
    p: String(port),
    r: user,
    u: own.username,
  }
  return (path) =>
    (path.startsWith('~/') ? join(homedir(), path.slice(2)) : path)
      .replaceAll(/%([%CdhijkLlnpru])/g, (_, token: string) => tokens[token]!)
      .replaceAll(/\$\{(\w+)\}/g, (whole, name: string) => process.env[name] ?? whole)
}

function agentOf(setting: string | undefined, expand: (path: string) => string): string | undefined {
  if (setting === 'none') return undefined
  return setting === undefined || setting === 'SSH_AUTH_SOCK' ? process.env['SSH_AUTH_SOCK'] : expand(setting)
}

/** Milliseconds for ssh to tell its settings; `Match exec` may ask somebody else. */
const SETTINGS_LIMIT = 10_000

async function effective(
  host: string,
  {config, user, port, settings: own}: SshOptions,
): Promise<Map<string, string[]>> {
  const args = [
    '-G',
    ...(config ? ['-F', config] : []),
    ...(user ? ['-l', user] : []),
    ...(port ? ['-p', String(port)] : []),
    ...(own ?? []).flatMap((setting) => ['-o', setting]),
    '--',
    host,
  ]
  const text = await new Promise<string>((resolve, reject) =>
    execFile('ssh', args, {timeout: SETTINGS_LIMIT}, (error, stdout, stderr) => {
      if (!error) return resolve(stdout)
      if (error.code === 'ENOENT') return resolve('')
      const why = error.killed ? 'it did not answer' : (stderr.trim().split('\n').at(-1) ?? error.message)
      reject(
        new NodeUnreachable(`ssh -G ${host} failed: ${why}`, 'ssh itself would not start with this ssh_config either'),
      )
    }),
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

/** As many at once as a machine bears: each question is a process. */
const AT_ONCE = 16

export async function inTurns<T, R>(items: readonly T[], ask: (item: T) => Promise<R>): Promise<R[]> {
  const answers: R[] = []
  for (let at = 0; at < items.length; at += AT_ONCE)
    answers.push(...(await Promise.all(items.slice(at, at + AT_ONCE).map(ask))))
  return answers
}
