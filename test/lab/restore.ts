/** A node's recorded rules, sets, virtual servers and settings, put into a real kernel. */
import {mkdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import type {NodeState} from '../../src/snapshot/node-state.js'
import type {Family} from '../../src/util/ip.js'
import {ipsetText, iptablesText, ipvsText} from './listings.js'
import {HOME, type Machine, type Outcome} from './machine.js'
import {ownsTable, withoutProxy, type RealProxy} from './real-proxy.js'

export type Backend = 'legacy' | 'nft'

/** What one tool reads from its standard input. */
interface Load {
  readonly file: string
  readonly command: string
  readonly text: string
}

/** As recorded: the file in the snapshot, the number of its line, the line. */
export interface LeftOut {
  readonly place: string
  readonly line: string
  readonly why: string
}

/** Each failing line costs one more try. */
const MOST_TRIES = 40
const TABLES = ['nat', 'filter', 'mangle', 'raw', 'security']

/** Everything that `restore` loads, gone; cables, addresses and processes stay. */
export const CLEAR = [
  'nft flush ruleset 2>/dev/null || true',
  ...['iptables', 'ip6tables'].flatMap((tool) =>
    TABLES.map(
      (table) =>
        `if grep -qx ${table} /proc/net/${tool.replace('tables', '_tables')}_names 2>/dev/null; then ${tool}-legacy-save -t ${table} | sed -n 's/^:\\([A-Z]*\\) [AD][CR].*/-P \\1 ACCEPT/p' | while read -r rule; do ${tool}-legacy -t ${table} $rule; done; ${tool}-legacy -t ${table} -F; ${tool}-legacy -t ${table} -X; fi`,
    ),
  ),
  'ipset destroy 2>/dev/null || true',
  'ipvsadm -C 2>/dev/null || true',
].join('\n')

/** `backend`: instead of the recorded one. `proxy`: a real one will write what is kube-proxy's. */
interface Wishes {
  readonly backend?: Backend
  readonly proxy?: RealProxy
}

/** Loads a node; what the kernel refuses is left out, line by line, and told. */
export async function restore(machine: Machine, state: NodeState, wishes: Wishes): Promise<LeftOut[]> {
  const folder = join(HOME, 'state', state.name)
  mkdirSync(folder, {recursive: true})
  const left: LeftOut[] = []
  for (const load of loadsOf(state, {machine, wishes, left})) left.push(...(await play(machine, {state, load, folder})))
  await settings(machine, state, folder)
  return left
}

function loadsOf(
  state: NodeState,
  {machine, wishes: {backend, proxy}, left}: {machine: Machine; wishes: Wishes; left: LeftOut[]},
): Load[] {
  const only = (file: string, allowed: RegExp): string => safe(state, {file, allowed, left})
  const saved = only('ipset-save.txt', /^(create|add) /)
  const loads: Load[] = [
    {
      file: 'ipset-save.txt',
      command: 'ipset restore -exist',
      text: saved || (state.ipsets ? ipsetText(state.ipsets) : ''),
    },
  ]
  for (const family of [4, 6] as const)
    for (const dump of state.iptables(family)) {
      const file = dump.file.split('/').at(-1)!
      const wanted = machine.kernel === 'uml' ? 'legacy' : (backend ?? dump.backend ?? 'legacy')
      const listed = file.endsWith('-L.txt')
      const text = listed ? iptablesText(dump) : only(file, /^(\*\w+$|:|(\[\d+:\d+\] )?-A |COMMIT$|#)/)
      loads.push({file, command: `${family === 4 ? 'iptables' : 'ip6tables'}-${wanted}-restore`, text})
    }
  if (machine.kernel === 'own')
    loads.push({file: 'nft.txt', command: 'nft -f -', text: nativeTables(state, proxy !== undefined)})
  const servers = only('ipvsadm-Sn.txt', /^-[Aa] /)
  loads.push({file: 'ipvsadm-Sn.txt', command: 'ipvsadm -R', text: servers || (state.ipvs ? ipvsText(state.ipvs) : '')})
  return loads
    .map((load) => (proxy ? {...load, text: withoutProxy(load.text, load.file)} : load))
    .filter(({text}) => text.trim() !== '')
}

/** `--modprobe` in a rule names a program to run; a line that is no rule may do anything. Lines keep their numbers. */
export function safe(
  state: NodeState,
  {file, allowed, left}: {file: string; allowed: RegExp; left: LeftOut[]},
): string {
  const text = state.text(file)
  if (text === undefined || state.section(file).state !== 'read') return ''
  return text
    .split('\n')
    .map((line, at) => {
      const odd = line.trim() !== '' && !allowed.test(line)
      const program = line.split(/\s+/).some((word) => /^(-M|--mo(?!de$))/.test(word.replace(/^["']/, '')))
      if (!odd && !program) return line.replaceAll(/-m nfacct --nfacct-name +\S+ /g, '')
      left.push({
        place: `${state.path(file)}:${at + 1}`,
        line,
        why: odd ? 'not a line of this dump' : 'it names a program',
      })
      return ''
    })
    .join('\n')
}

/** Tables of nft that iptables-nft does not own, as text; lines keep their numbers. */
export function nativeTables(state: NodeState, withoutProxys = false): string {
  const text = state.text('nft.txt')
  if (text === undefined || state.section('nft.txt').state !== 'read') return ''
  const owned = new Set(
    ([4, 6] as Family[]).flatMap((family) =>
      state
        .iptables(family)
        .filter(({backend}) => backend === 'nft')
        .flatMap(({tables}) => [...tables.keys()].map((table) => `${family === 4 ? 'ip' : 'ip6'} ${table}`)),
    ),
  )
  let keep = false
  return text
    .split('\n')
    .map((line) => {
      const [, family, name] = /^table (\w+) (\S+) \{/.exec(line) ?? []
      if (family !== undefined) keep = !owned.has(`${family} ${name}`) && !(withoutProxys && ownsTable(family, name!))
      return keep && !/^\s*include\b/.test(line) ? line : ''
    })
    .join('\n')
}

async function play(
  machine: Machine,
  {state, load, folder}: {state: NodeState; load: Load; folder: string},
): Promise<LeftOut[]> {
  const lines = load.text.split('\n')
  const left: LeftOut[] = []
  const path = join(folder, load.file)
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    writeFileSync(path, `${lines.join('\n').trimEnd()}\n`)
    const outcome = await machine.shell(`ip netns exec ${state.name} ${load.command} <${path}`)
    if (outcome.code === 0) return left
    const at = failingLine(outcome, lines)
    const why = outcome.stderr.trim().split('\n')[0] ?? ''
    const place = `${state.path(load.file)}:${at ?? 0}`
    left.push({place, line: at === undefined ? '' : lines[at - 1]!, why})
    if (at === undefined) return left
    lines[at - 1] = ''
  }
  return left
}

function failingLine({stderr}: Outcome, lines: readonly string[]): number | undefined {
  const [, digits] = /(?:line:? |stdin:|Error in line )(\d+)/.exec(stderr) ?? []
  const at = Number(digits)
  return digits !== undefined && (lines[at - 1] ?? '').trim() !== '' && lines[at - 1] !== 'COMMIT' ? at : undefined
}

const SETTING =
  /^net\.(ipv4\.(conf\.|ip_forward$|ip_local_port_range$|ip_nonlocal_bind$|vs\.|fib_multipath)|ipv6\.conf\.|bridge\.bridge-nf-call|netfilter\.nf_conntrack_tcp_(be_liberal|loose)$)/

/** Recorded sysctls; those that set many others come first. What this kernel has no file for is passed over. */
async function settings(machine: Machine, state: NodeState, folder: string): Promise<void> {
  const lines = [...state.sysctls].filter(
    ([name, {value}]) => SETTING.test(name) && /^[\w \t-]*$/.test(value) && /^[\w./@:-]+$/.test(name),
  )
  const rank = (name: string): number =>
    name === 'net.ipv4.ip_forward' ? 0 : /\.conf\.all\./.test(name) ? 1 : /\.conf\.default\./.test(name) ? 2 : 3
  const text = (lines.length > 0 ? lines.map(([name, {value}]) => [name, value] as const) : USUAL)
    .toSorted(([one], [other]) => rank(one) - rank(other))
    .map(([name, value]) => `${name} = ${value}`)
  const path = join(folder, 'sysctl.txt')
  writeFileSync(path, `${[...text, ...PATIENCE].join('\n')}\n`)
  await machine.shell(`ip netns exec ${state.name} sysctl -e -q -p ${path}`)
}

const USUAL: readonly (readonly [string, string])[] = [
  ['net.ipv4.ip_forward', '1'],
  ['net.ipv6.conf.all.forwarding', '1'],
  ['net.bridge.bridge-nf-call-iptables', '1'],
  ['net.bridge.bridge-nf-call-ip6tables', '1'],
]

/** A kernel sends few ICMP errors a second; the lab wants to see each. */
const PATIENCE = ['net.ipv4.icmp_ratemask = 0', 'net.ipv4.icmp_ratelimit = 0', 'net.ipv6.icmp.ratelimit = 0']
