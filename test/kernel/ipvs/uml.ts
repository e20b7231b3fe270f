import {spawn, spawnSync} from 'node:child_process'
import {copyFileSync, existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {buildScript, PROBES, type Seen, type Shot} from '../lab.js'

/** What the router is loaded with, and who sends what, all at the same time. */
export interface Job {
  readonly load: string
  readonly shots: readonly Shot[]
  readonly timeout: number
}

interface Dumped {
  readonly text: string
  readonly rc: number
}

/** `error`: the rules did not load. */
export type JobResult = {readonly error: string} | {readonly files: Record<string, Dumped>; readonly seen: Seen[]}

const KERNEL = '/usr/bin/linux.uml'
const TOOLS = ['ip', 'ipset', 'ipvsadm', 'ss', 'iptables-legacy-restore']
const INIT = `${import.meta.dirname}/init.py`

const SCHEDULERS = 'rr wrr lc wlc sh sed nq dh mh lblc lblcr fo ovf'.split(' ')
const SETS = 'bitmap_port hash_ip hash_net hash_ipport hash_netport hash_ipportip hash_ipportnet list_set'.split(' ')
const MATCHES =
  'tcpudp mark connmark set nat MASQUERADE REDIRECT CT addrtype comment conntrack ipvs multiport physdev state'
/** What kube-proxy and the tools need, in Debian's names. */
export const MODULES = [
  ...'veth dummy bridge br_netfilter ipv6 nf_conntrack nf_conntrack_netlink nf_nat ip_vs ip_set nf_tables'.split(' '),
  ...'ip6table_raw ip6table_mangle ip6table_nat ip6table_filter ip6t_REJECT nf_reject_ipv6'.split(' '),
  ...'iptable_raw iptable_mangle iptable_nat iptable_filter iptable_security ipt_REJECT nf_reject_ipv4'.split(' '),
  ...SCHEDULERS.map((name) => `ip_vs_${name}`),
  ...SETS.map((name) => `ip_set_${name}`),
  ...MATCHES.split(' ').map((name) => `xt_${name}`),
]

/** The same network as the netfilter lab, and kube-proxy's device. */
const BUILD = `${buildScript('')}
for port in 1 3; do ip -n router link set port$port type bridge_slave hairpin on; done
ip -n router link add kube-ipvs0 type dummy`

/** What no case changes. */
const FIXED: Readonly<Record<string, string>> = {
  'nft.json': 'nft -j list ruleset',
  'ip-link.json': 'ip -d -j link show',
  'ip-rule.json': 'ip -4 -j rule show',
  'ip-rule6.json': 'ip -6 -j rule show',
  'ss.txt': 'ss -H -lntup',
}

const DUMPS: Readonly<Record<string, string>> = {
  'ipvsadm-Sn.txt': 'ipvsadm -Sn',
  'iptables-legacy-save.txt': 'iptables-legacy-save',
  'ip6tables-legacy-save.txt': 'ip6tables-legacy-save',
  'ipset-save.txt': 'ipset save',
  'ip-addr.json': 'ip -j addr show',
  'ip-route.json': 'ip -4 -j route show table all',
  'ip-route6.json': 'ip -6 -j route show table all',
}

/** Why it cannot be run here. */
export function obstacle(): string | undefined {
  if (process.platform !== 'linux') return 'not Linux'
  if (process.getuid?.() !== 0) return 'not root'
  if (!existsSync(KERNEL)) return 'user-mode-linux is not installed'
  const missing = TOOLS.filter((tool) => spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0)
  if (!existsSync('/usr/bin/python3')) missing.push('/usr/bin/python3')
  return missing.length > 0 ? `missing: ${missing.join(', ')}` : undefined
}

/** Boots a kernel with IPVS, plays the jobs, and waits until it is off. */
export async function boot(jobs: readonly Job[], limit = 300_000): Promise<JobResult[]> {
  const folder = mkdtempSync(join(realpathSync(tmpdir()), 'uml-ipvs-'))
  try {
    const setup = {
      modules: MODULES,
      build: BUILD,
      router: 'router',
      probes: PROBES,
      fixed: FIXED,
      dumps: DUMPS,
      cases: jobs,
    }
    writeFileSync(join(folder, 'jobs.json'), JSON.stringify(setup))
    // inside, /tmp is another one: the checkout may be out of sight there
    copyFileSync(INIT, join(folder, 'init.py'))
    copyFileSync(`${import.meta.dirname}/modules.py`, join(folder, 'modules.py'))
    copyFileSync(`${import.meta.dirname}/../probe.py`, join(folder, 'probe.py'))
    copyFileSync(`${import.meta.dirname}/../../helpers/attempt.py`, join(folder, 'attempt.py'))
    const console = await run(folder, limit)
    const read = (name: string): string =>
      existsSync(join(folder, name)) ? readFileSync(join(folder, name), 'utf8') : ''
    const [fixed, ...results] = read('results.jsonl').split('\n').slice(0, -1)
    if (results.length < jobs.length)
      throw new Error(
        `the kernel played ${results.length} of ${jobs.length} cases: ${read('error.txt') || console.slice(-3000)}`,
      )
    const common = JSON.parse(fixed!) as Record<string, Dumped>
    return results.map((line) => {
      const result = JSON.parse(line) as JobResult
      return 'error' in result ? result : {...result, files: {...common, ...result.files}}
    })
  } finally {
    rmSync(folder, {recursive: true, force: true})
  }
}

function run(folder: string, limit: number): Promise<string> {
  const root = ['root=/dev/root', 'rootfstype=hostfs', 'rootflags=/', 'ro', `init=${INIT}`, `IPVS_DIR=${folder}`]
  const args = ['mem=256M', ...root, `umid=ipvs${process.pid}`, 'con=null', 'con0=null,fd:1', 'quiet']
  return new Promise((done, fail) => {
    const child = spawn(KERNEL, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env: {...process.env, TMPDIR: folder, HOME: folder},
    })
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()))
    const kill = (): void => {
      try {
        process.kill(-child.pid!, 'SIGKILL')
      } catch {
        // It is gone.
      }
    }
    const timer = setTimeout(kill, limit)
    const stop = (): void => process.exit(143)
    process.once('exit', kill)
    process.once('SIGTERM', stop)
    child.once('error', fail)
    child.once('exit', () => {
      clearTimeout(timer)
      process.removeListener('exit', kill)
      process.removeListener('SIGTERM', stop)
      kill()
      done(text)
    })
  })
}
