/** A cluster of network namespaces: a real sshd and the recorded rules in each node, an API server beside them. */
import {execFileSync, spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import {tmpdir} from 'node:os'
import {delimiter, join, resolve} from 'node:path'
import {fileURLToPath} from 'node:url'
import type {Faults, ServerOptions} from '../lab/api-server.js'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const ROOT = resolve(HERE, '../..')
const GATEWAY = '172.18.0.1'
export const SSH_PORT = 2222

export interface LabNode {
  readonly name: string
  readonly address: string
  readonly podCidr: string
  readonly namespace: string
}

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Lab {
  readonly folder: string
  readonly nodes: readonly LabNode[]
  /** Runs the real kubectl where the nodes and the API can be reached. */
  readonly kubectl: (
    args: readonly string[],
    options?: {readonly env?: Record<string, string>; readonly interruptAfter?: number},
  ) => Promise<Outcome>
  readonly faults: (faults: Faults) => Promise<void>
  readonly inNode: (node: string, command: string) => string
  readonly stopSshd: (node: string) => Promise<void>
  /** A node that takes connections and says nothing. */
  readonly pauseSshd: (node: string, paused: boolean) => void
  readonly startSshd: (node: string) => Promise<void>
  readonly stop: () => void
}

/** The first thing without which the lab cannot be built. */
export function missing(): string | undefined {
  if (process.platform !== 'linux') return 'not Linux'
  if (process.getuid?.() !== 0) return 'not root'
  const tools = [
    'kubectl',
    'ip',
    'iptables-nft-restore',
    'ip6tables-nft-restore',
    'nft',
    'openssl',
    'ssh',
    'ssh-keygen',
    'sysctl',
    'curl',
  ]
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin']
  const lacking = tools.find((tool) => !folders.some((folder) => existsSync(join(folder, tool))))
  if (lacking !== undefined) return `no ${lacking}`
  if (!existsSync('/usr/sbin/sshd')) return 'no sshd (openssh-server)'
  if (!existsSync(join(ROOT, 'dist/cli/main.js'))) return 'not built (npm run build)'
  return namespacesWork() ? undefined : 'network namespaces cannot be made here'
}

function namespacesWork(): boolean {
  try {
    run('ip', ['netns', 'add', `svct${process.pid}`])
    run('ip', ['netns', 'del', `svct${process.pid}`])
    return true
  } catch {
    return false
  }
}

export function run(command: string, args: readonly string[], input = ''): string {
  const env = {...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin`}
  return execFileSync(command, args, {
    input,
    env,
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'pipe'],
    maxBuffer: 2 ** 26,
  })
}

const ip = (line: string): string => run('ip', line.split(' '))

export async function startLab(cluster: string): Promise<Lab> {
  const folder = mkdtempSync(join(tmpdir(), `svct${process.pid}-`))
  const hub = `svct${process.pid}-${cluster.slice(5, 8)}`
  const children = new Map<string, ChildProcess>()
  const nodes: LabNode[] = []
  const stop = (): void => tearDown({folder, hub, nodes, children})
  process.once('exit', stop)
  process.once('SIGTERM', () => process.exit(143))
  sweep()
  try {
    run('tar', ['-xzf', join(HERE, 'data', `${cluster}.tar.gz`), '-C', folder])
    nodes.push(...readNodes(folder, hub))
    makeNetwork(hub, nodes)
    for (const node of nodes) restoreRules(folder, node)
    makeSshFiles(folder, nodes)
    makeKubeFiles(folder)
    const sshd = (node: LabNode): Promise<void> => startSshd(folder, node, children)
    for (const node of nodes) startProxy(cluster.includes('nft') ? 'nftables' : 'iptables', node, children)
    await Promise.all([startApi(folder, hub, children), ...nodes.map(sshd)])
    return {folder, nodes, stop, ...controls({folder, hub, nodes, children})}
  } catch (error) {
    stop()
    throw error
  }
}

interface Parts {
  readonly folder: string
  readonly hub: string
  readonly nodes: readonly LabNode[]
  readonly children: Map<string, ChildProcess>
}

function controls({
  folder,
  hub,
  nodes,
  children,
}: Parts): Pick<Lab, 'kubectl' | 'faults' | 'inNode' | 'stopSshd' | 'startSshd' | 'pauseSshd'> {
  const find = (name: string): LabNode => nodes.find((node) => node.name === name)!
  return {
    kubectl: (args, options = {}) => kubectl({folder, hub}, args, options),
    faults: async (faults) => {
      const api = children.get('api')!
      api.send(faults)
      await once(api, 'message')
    },
    inNode: (name, command) => run('ip', ['netns', 'exec', find(name).namespace, 'sh', '-c', command]),
    stopSshd: async (name) => {
      const child = children.get(`sshd ${name}`)!
      child.kill('SIGTERM')
      await once(child, 'exit')
    },
    pauseSshd: (name, paused) => children.get(`sshd ${name}`)!.kill(paused ? 'SIGSTOP' : 'SIGCONT'),
    startSshd: (name) => startSshd(folder, find(name), children),
  }
}

function tearDown({folder, hub, nodes, children}: Parts): void {
  for (const child of children.values()) child.kill('SIGKILL')
  children.clear()
  for (const namespace of [...nodes.map((node) => node.namespace), hub]) remove(namespace)
  rmSync(folder, {recursive: true, force: true})
}

function remove(namespace: string): void {
  try {
    for (const pid of ip(`netns pids ${namespace}`).split('\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL')
    ip(`netns del ${namespace}`)
  } catch {
    // never made, or gone already
  }
}

/** What a killed run could not clean up: its namespaces and its folder bear its process's id. */
function sweep(): void {
  const left = (names: readonly string[]): string[] =>
    names.flatMap((line) => {
      const [name, pid] = /^svct(\d+)-[\w-]+/.exec(line) ?? []
      return name === undefined || existsSync(`/proc/${pid}`) ? [] : [name]
    })
  for (const namespace of left(ip('netns list').split('\n'))) remove(namespace)
  for (const folder of left(readdirSync(tmpdir()))) rmSync(join(tmpdir(), folder), {recursive: true, force: true})
}

interface ApiNode {
  readonly metadata: {readonly name: string}
  readonly spec: {readonly podCIDR: string}
  readonly status: {readonly addresses: readonly {readonly type: string; readonly address: string}[]}
}

function readNodes(folder: string, hub: string): LabNode[] {
  const {items} = JSON.parse(readFileSync(join(folder, 'api/nodes.json'), 'utf8')) as {items: ApiNode[]}
  return items.map(({metadata: {name}, spec, status}) => {
    const address = status.addresses.find(({type}) => type === 'InternalIP')!.address
    return {name, address, podCidr: spec.podCIDR, namespace: `${hub}-${name}`}
  })
}

/** A hub with a bridge, one cable to each node; nothing of it shows in the machine's own namespace. */
function makeNetwork(hub: string, nodes: readonly LabNode[]): void {
  for (const namespace of [hub, ...nodes.map((node) => node.namespace)]) {
    ip(`netns add ${namespace}`)
    ip(`-n ${namespace} link set lo up`)
  }
  ip(`-n ${hub} link add br0 type bridge`)
  ip(`-n ${hub} addr add ${GATEWAY}/24 dev br0`)
  ip(`-n ${hub} link set br0 up`)
  nodes.forEach((node, index) => {
    ip(`-n ${hub} link add port${index} type veth peer name eth0 netns ${node.namespace}`)
    ip(`-n ${hub} link set port${index} master br0 up`)
    makeAddresses(node, nodes)
  })
}

function makeAddresses({namespace, address, podCidr}: LabNode, nodes: readonly LabNode[]): void {
  const settings = ['ip_forward=1', 'conf.all.route_localnet=1', 'conf.all.rp_filter=0', 'conf.default.rp_filter=0']
  for (const setting of settings) run('ip', ['netns', 'exec', namespace, 'sysctl', '-qw', `net.ipv4.${setting}`])
  const on = (line: string): string => ip(`-n ${namespace} ${line}`)
  on(`addr add ${address}/24 dev eth0`)
  on('link set eth0 up')
  on('link add cni0 type bridge')
  on('link add pods type veth peer name pod')
  on('link set pod up')
  on('link set pods master cni0 up')
  on('link set pods type bridge_slave hairpin on')
  on(`addr add ${podCidr.replace('.0/', '.1/')} dev cni0`)
  on('link set cni0 up')
  on(`route add default via ${GATEWAY}`)
  for (const other of nodes) if (other.address !== address) on(`route add ${other.podCidr} via ${other.address}`)
}

/** The recorded rules go into the kernel as they are, but for nfacct counters, whose objects only kube-proxy makes. */
function restoreRules(folder: string, {name, namespace}: LabNode): void {
  const dumps = join(folder, 'nodes', name)
  for (const file of readdirSync(dumps)) {
    const text = readFileSync(join(dumps, file), 'utf8').replaceAll(/-m nfacct --nfacct-name +\S+ /g, '')
    const tool = {'iptables-save.txt': 'iptables-nft-restore', 'ip6tables-save.txt': 'ip6tables-nft-restore'}[file]
    run('ip', ['netns', 'exec', namespace, ...(tool === undefined ? ['nft', '-f', '-'] : [tool])], text)
  }
}

function makeSshFiles(folder: string, nodes: readonly LabNode[]): void {
  const ssh = join(folder, 'ssh')
  mkdirSync(ssh)
  mkdirSync('/run/sshd', {recursive: true})
  const key = (name: string): string => {
    run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', join(ssh, name)])
    return readFileSync(join(ssh, `${name}.pub`), 'utf8')
      .split(' ')
      .slice(0, 2)
      .join(' ')
  }
  // the second key can do one thing only (docs/nodes.md)
  copyFileSync(join(ROOT, 'src/nodes/collector.sh'), join(ssh, 'collector'))
  const forced = `restrict,command="/bin/sh ${ssh}/collector" ${key('limited')}`
  writeFileSync(join(ssh, 'authorized_keys'), `${key('id')}\n${forced}\n`, {mode: 0o600})
  const line = ({address}: LabNode, host: string): string => `[${address}]:${SSH_PORT} ${host}\n`
  const known = nodes.map((node) => line(node, key(`host-${node.name}`)))
  writeFileSync(join(ssh, 'known_hosts'), known.join(''))
  writeFileSync(join(ssh, 'known_hosts-without-2'), [known[0], ...known.slice(2)].join(''))
  writeFileSync(join(ssh, 'known_hosts-other-2'), [known[0], line(nodes[1]!, key('other')), ...known.slice(2)].join(''))
  const config = [
    'Host 172.18.0.*',
    `Port ${SSH_PORT}`,
    'User root',
    `IdentityFile ${ssh}/id`,
    `UserKnownHostsFile ${ssh}/known_hosts`,
    'GlobalKnownHostsFile /dev/null',
  ]
  writeFileSync(join(ssh, 'config'), `${config.join('\n')}\n`)
  const jump = [`Host ${nodes[2]!.address}`, `ProxyJump root@${nodes[0]!.address}:${SSH_PORT}`]
  writeFileSync(join(ssh, 'config-jump'), `${[...jump, ...config].join('\n')}\n`)
  writeFileSync(join(ssh, 'banner'), 'Authorised use only.\n')
}

async function startSshd(
  folder: string,
  {name, address, namespace}: LabNode,
  children: Map<string, ChildProcess>,
): Promise<void> {
  const ssh = join(folder, 'ssh')
  const locked = /^root:!/m.test(readFileSync('/etc/shadow', 'utf8'))
  const config = [
    `ListenAddress ${address}:${SSH_PORT}`,
    `HostKey ${ssh}/host-${name}`,
    `AuthorizedKeysFile ${ssh}/authorized_keys`,
    'PidFile none',
    `Banner ${ssh}/banner`,
    'PermitRootLogin prohibit-password',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'StrictModes no',
    `UsePAM ${locked ? 'yes' : 'no'}`,
  ]
  writeFileSync(join(ssh, `sshd-${name}`), `${config.join('\n')}\n`)
  children.set(
    `sshd ${name}`,
    background(namespace, ['/usr/sbin/sshd', '-D', '-E', join(ssh, `log-${name}`), '-f', join(ssh, `sshd-${name}`)]),
  )
  await waitFor(() => readIfThere(join(ssh, `log-${name}`)).includes('Server listening'), `sshd on ${name}`)
}

/** What a node shows besides its rules: kube-proxy's ports (31999 is a health-check NodePort), and a pod on its network (9100). */
function startProxy(mode: string, {name, namespace}: LabNode, children: Map<string, ChildProcess>): void {
  const script = `const {createServer} = require('node:http')
    createServer((_, to) => to.end('${mode}')).listen(10249, '127.0.0.1')
    createServer((_, to) => to.end(JSON.stringify({healthy: true}))).listen(10256)
    for (const port of [9100, 31999]) createServer().listen(port)`
  children.set(`proxy ${name}`, background(namespace, [process.execPath, '-e', script]))
}

function background(namespace: string, command: readonly string[]): ChildProcess {
  return spawn('ip', ['netns', 'exec', namespace, ...command], {stdio: 'ignore'})
}

function makeKubeFiles(folder: string): void {
  const pki = join(folder, 'pki')
  for (const name of ['pki', 'bin', 'home']) mkdirSync(join(folder, name))
  writeFileSync(join(pki, 'san'), `subjectAltName=IP:${GATEWAY}`)
  const openssl = (line: string): string => run('openssl', line.replaceAll('@', `${pki}/`).split(' '))
  openssl('req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=e2e-ca -keyout @ca.key -out @ca.crt')
  for (const name of ['server', 'tester']) {
    openssl(`req -newkey rsa:2048 -nodes -subj /CN=${name} -keyout @${name}.key -out @${name}.csr`)
    openssl(
      `x509 -req -days 2 -in @${name}.csr -CA @ca.crt -CAkey @ca.key -CAcreateserial -extfile @san -out @${name}.crt`,
    )
  }
  chmodSync(join(pki, 'tester.key'), 0o600)
  writeFileSync(
    join(folder, 'kubeconfig'),
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'lab',
      contexts: [{name: 'lab', context: {cluster: 'lab', user: 'tester'}}],
      clusters: [{name: 'lab', cluster: {server: `https://${GATEWAY}:6443`, 'certificate-authority': 'pki/ca.crt'}}],
      users: [{name: 'tester', user: {'client-certificate': 'pki/tester.crt', 'client-key': 'pki/tester.key'}}],
    }),
  )
  symlinkSync(join(ROOT, 'bin/run.js'), join(folder, 'bin/kubectl-svc_trace'))
  symlinkSync(join(ROOT, 'bin/kubectl_complete-svc_trace'), join(folder, 'bin/kubectl_complete-svc_trace'))
}

async function startApi(folder: string, hub: string, children: Map<string, ChildProcess>): Promise<void> {
  const options: ServerOptions = {
    data: folder,
    pki: join(folder, 'pki'),
    address: GATEWAY,
    exec: ['ip', 'netns', 'exec', `${hub}-NODE`],
  }
  const server = join(HERE, '../lab/api-server.ts')
  const command = [process.execPath, '--import', 'tsx', server, JSON.stringify(options)]
  const api = spawn('ip', ['netns', 'exec', hub, ...command], {
    cwd: ROOT,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  children.set('api', api)
  const [first] = (await Promise.race([once(api, 'message'), once(api, 'exit')])) as [unknown]
  if (first !== 'ready') throw new Error('the API server did not start')
}

function kubectl(
  {folder, hub}: {folder: string; hub: string},
  args: readonly string[],
  {env, interruptAfter}: {env?: Record<string, string>; interruptAfter?: number},
): Promise<Outcome> {
  const path = `${join(folder, 'bin')}:${process.env['PATH']}:/usr/sbin:/sbin`
  const child = spawn('ip', ['netns', 'exec', hub, 'kubectl', ...args], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {PATH: path, HOME: join(folder, 'home'), KUBECONFIG: join(folder, 'kubeconfig'), ...env},
  })
  if (interruptAfter !== undefined) setTimeout(() => child.kill('SIGINT'), interruptAfter)
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  return new Promise((settle, reject) =>
    child.on('error', reject).on('close', (code) => settle({code, stdout, stderr})),
  )
}

const readIfThere = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '')

async function waitFor(done: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + 10_000; !done();) {
    if (Date.now() > end) throw new Error(`${what} did not start`)
    await new Promise((settle) => setTimeout(settle, 50))
  }
}
