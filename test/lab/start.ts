/** Makes a lab's namespaces, finds those that run, and goes into them. Nothing of a lab is outside of its namespaces. */
import {spawn, spawnSync, type ChildProcess, type SpawnOptions} from 'node:child_process'
import {existsSync, readdirSync, readFileSync} from 'node:fs'
import {delimiter, join, resolve} from 'node:path'
import {loadFiles} from '../../src/snapshot/load.js'
import {snapshotFromFiles, type SnapshotFiles} from '../../src/snapshot/snapshot.js'
import {snapshotFiles} from '../helpers/corpus.js'
import {environment, SSH_HOME, USER_HOME} from './credentials.js'
import type {LabOptions, LabState} from './inside.js'
import {HOME, type Outcome} from './machine.js'
import {LabError} from './plan-site.js'
import type {Backend} from './restore.js'

export const MODES = ['iptables', 'iptables-legacy', 'iptables-nft', 'nftables', 'ipvs'] as const
export type RecordedMode = (typeof MODES)[number]
/** `userspace`: no cluster of it is recorded, so only with a real kube-proxy. */
export type Mode = RecordedMode | 'userspace'

export interface StartOptions {
  readonly name: string
  readonly mode?: Mode | undefined
  /** A snapshot: folder or archive. Without it a recorded cluster of that mode. */
  readonly from?: string | undefined
  readonly dual?: boolean | undefined
  /** A kube-proxy to run on each node: the binary and its arguments, split at blanks. */
  readonly kubeProxy?: string | undefined
  /** The lab ends with this process, however that ends. */
  readonly withMe?: boolean
}

export interface RunningLab {
  readonly name: string
  /** Process 1 of the lab, as this machine numbers it. */
  readonly pid: number
}

const ROOT = resolve(import.meta.dirname, '../..')
const INSIDE = join(import.meta.dirname, 'inside.ts')
const START_LIMIT = 120_000
const RECORDED: Readonly<Record<Mode, string>> = {
  iptables: 'k136-iptables-v4',
  'iptables-legacy': 'k136-iptables-v4',
  'iptables-nft': 'k136-iptables-v4',
  nftables: 'k136-nftables-v4',
  ipvs: 'k136-ipvs-v4',
  userspace: 'k136-iptables-v4',
}

/** A file system of the lab's own in /run, and a root whose home and shell are nobody's: no dotfiles, no keys. */
const MOUNTS = `set -e
mount -t tmpfs -o mode=755 lab /run
mkdir -p ${SSH_HOME} /run/netns /run/sshd
sed 's,^root:.*,root:x:0:0:root:${USER_HOME}:/bin/sh,' /etc/passwd >${HOME}/passwd
mount --bind ${HOME}/passwd /etc/passwd
cat >${HOME}/files.json
exec "$@" </dev/null`

/** The first thing without which the lab cannot be built. */
export function obstacle(mode: Mode = 'iptables'): string | undefined {
  if (process.platform !== 'linux') return 'the lab needs Linux'
  if (process.getuid?.() !== 0) return 'the lab needs root'
  const tools = [
    'unshare',
    'nsenter',
    'setpriv',
    'ip',
    'nft',
    'ipset',
    'iptables-legacy-restore',
    'iptables-nft-restore',
    'ssh',
    'ssh-keygen',
    'sshd',
    'openssl',
    'sysctl',
    'python3',
    'kubectl',
    ...(mode === 'ipvs' || mode === 'userspace' ? ['ipvsadm', 'linux.uml'] : []),
  ]
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin']
  const lacking = tools.find((tool) => !folders.some((folder) => existsSync(join(folder, tool))))
  if (lacking !== undefined) return `the lab needs ${lacking} (docs/lab.md lists the packages)`
  if (!existsSync(join(ROOT, 'dist/cli/main.js'))) return 'not built: npm run build'
  const made = spawnSync('unshare', ['--net', '--mount', '--pid', '--fork', 'true'], {encoding: 'utf8'})
  return made.status === 0 ? undefined : `no namespaces can be made here: ${made.stderr.trim()}`
}

/** Brings a lab up and waits until everything in it answers. */
export async function startLab(options: StartOptions): Promise<RunningLab> {
  const why = obstacle(options.mode)
  if (why !== undefined) throw new LabError(why)
  if (findLab(options.name))
    throw new LabError(`a lab named ${options.name} is up already; take it down, or give another --name`)
  const files = await filesOf(options)
  const inside = JSON.stringify(settingsOf(options, files))
  const life = options.withMe ? ['setpriv', '--pdeathsig', 'KILL'] : []
  const [command, ...args] = [
    ...life,
    'unshare',
    '--net',
    '--mount',
    '--pid',
    '--fork',
    '--kill-child',
    '--mount-proc',
    'sh',
    '-c',
    MOUNTS,
    'lab',
    process.execPath,
    '--import',
    'tsx',
    INSIDE,
    inside,
  ]
  const child = spawn(command!, args, {
    cwd: ROOT,
    detached: true,
    stdio: ['pipe', 'pipe', options.withMe ? 'inherit' : 'pipe'],
  })
  child.stdin!.on('error', () => undefined).end(JSON.stringify(Object.fromEntries(files)))
  await ready(child)
  child.unref()
  const lab = findLab(options.name)
  if (!lab) throw new LabError('the lab has gone as soon as it was up')
  return lab
}

async function filesOf({from, mode = 'iptables', dual, kubeProxy}: StartOptions): Promise<SnapshotFiles> {
  if (from !== undefined) return loadFiles(from)
  if (mode === 'userspace' && kubeProxy === undefined)
    throw new LabError('no cluster in mode userspace is recorded: give a kube-proxy that knows it with --kube-proxy')
  if (dual && !mode.startsWith('iptables'))
    throw new LabError('--dual: there is a recorded dual-stack cluster in mode iptables only; give another with --from')
  return snapshotFiles(dual ? 'k136-iptables-dual' : RECORDED[mode])
}

function settingsOf({name, mode, from, kubeProxy}: StartOptions, files: SnapshotFiles): LabOptions {
  const nodes = [...snapshotFromFiles(files).nodes.values()]
  const virtual = nodes.some(({ipvs}) => (ipvs?.virtualServers.length ?? 0) > 0)
  const backend: Backend | undefined =
    mode === 'iptables-legacy' ? 'legacy' : mode === 'iptables-nft' ? 'nft' : undefined
  const kernel = ['ipvs', 'userspace'].includes(mode ?? (virtual ? 'ipvs' : '')) ? 'uml' : 'own'
  const recordedMode =
    nodes.find(({proxyMode}) => proxyMode !== undefined)?.proxyMode ?? (virtual ? 'ipvs' : 'iptables')
  const command = kubeProxy?.split(/ +/).filter(Boolean) ?? []
  const proxyMode = mode?.replace(/-(legacy|nft)$/, '') ?? recordedMode
  return {
    name,
    kernel,
    mode: command.length > 0 ? proxyMode : recordedMode,
    ...(command.length > 0
      ? {proxy: {command, mode: proxyMode, backend: kernel === 'uml' ? 'legacy' : (backend ?? 'nft')}}
      : {}),
    ...(backend === undefined ? {} : {backend}),
    from: from ?? 'a recorded cluster',
  }
}

function ready(child: ChildProcess): Promise<void> {
  let said = ''
  let errors = ''
  child.stdout!.setEncoding('utf8')
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (errors += text))
  return new Promise((settle, reject) => {
    const fail = (why: string): void => {
      child.kill('SIGKILL')
      reject(new LabError(why.trim()))
    }
    const timer = setTimeout(() => fail(`the lab was not up after ${START_LIMIT / 1000} s`), START_LIMIT)
    child.stdout!.on('data', (text: string) => {
      said += text
      if (!said.includes('ready\n')) return
      clearTimeout(timer)
      for (const stream of [child.stdout!, child.stderr]) stream?.destroy()
      settle()
    })
    child.once('close', () => {
      clearTimeout(timer)
      fail(said || errors || 'the lab ended at once')
    })
  })
}

/** Labs are found by their process 1. */
export function labs(): RunningLab[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const words = read(`/proc/${pid}/cmdline`).split('\0')
      const at = words.indexOf(INSIDE)
      if (
        at < 0 ||
        words[0] === 'unshare' ||
        words[0] === 'setpriv' ||
        !/^NSpid:\s+\d+\s+1$/m.test(read(`/proc/${pid}/status`))
      )
        return []
      return [{name: (JSON.parse(words[at + 1]!) as LabOptions).name, pid: Number(pid)}]
    })
}

export const findLab = (name: string): RunningLab | undefined => labs().find((lab) => lab.name === name)

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return '' // it has ended meanwhile
  }
}

export const stateOfLab = ({pid}: RunningLab): LabState =>
  JSON.parse(readFileSync(`/proc/${pid}/root${HOME}/lab.json`, 'utf8')) as LabState

/** Runs a command in the lab's own network and file system: what is a terminal stays one. */
export function enter({pid}: RunningLab, command: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const env = {...process.env, ...environment(), ...options.env}
  return spawn(
    'nsenter',
    ['--target', String(pid), '--net', '--mount', '--pid', `--wdns=${options.cwd ?? process.cwd()}`, '--', ...command],
    {stdio: 'inherit', ...options, cwd: '/', env},
  )
}

/** The same, and what it said. */
export function inLab(
  lab: RunningLab,
  command: readonly string[],
  {env = {}, input = '', interruptAfter}: {env?: Record<string, string>; input?: string; interruptAfter?: number} = {},
): Promise<Outcome> {
  const child = enter(lab, command, {stdio: ['pipe', 'pipe', 'pipe'], env})
  if (interruptAfter !== undefined) setTimeout(() => child.kill('SIGINT'), interruptAfter)
  let stdout = ''
  let stderr = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdin!.on('error', () => undefined).end(input)
  return new Promise((settle, reject) =>
    child.on('error', reject).on('close', (code) => settle({code, stdout, stderr})),
  )
}

/** Its process 1 takes everything along. */
export async function stopLab({pid}: RunningLab): Promise<void> {
  const gone = async (signal: NodeJS.Signals, seconds: number): Promise<boolean> => {
    process.kill(pid, signal)
    for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
      if (!existsSync(`/proc/${pid}`)) return true
      await new Promise((settle) => setTimeout(settle, 50))
    }
    return false
  }
  if (!(await gone('SIGTERM', 2)) && !(await gone('SIGKILL', 5))) throw new LabError(`process ${pid} does not end`)
}
