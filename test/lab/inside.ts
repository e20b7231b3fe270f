/** The lab itself: process 1 of namespaces of its own (main.ts makes them), with which everything in it ends. */
import {spawn, type ChildProcess} from 'node:child_process'
import {copyFileSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {snapshotFromFiles, type Snapshot, type SnapshotFiles} from '../../src/snapshot/snapshot.js'
import {API_PORT, type ServerOptions} from './api-server.js'
import {makeKubeFiles, makeSshFiles, PKI, SSH, sshdConfig} from './credentials.js'
import {Agent, HOME, Machine, SSH_CONTROL, type Kernel} from './machine.js'
import {planLab, type Plan} from './plan.js'
import {HUB_BRIDGE, LabError} from './plan-site.js'
import {startProxies, type RealProxy} from './real-proxy.js'
import {restore, type Backend, type LeftOut} from './restore.js'
import {bootUml, CONTROL} from './uml.js'

export interface LabOptions {
  readonly name: string
  readonly kernel: Kernel
  readonly mode: string
  readonly backend?: Backend
  /** A real kube-proxy instead of recorded rules. */
  readonly proxy?: RealProxy
  /** Where the snapshot came from, for people. */
  readonly from: string
}

/** What the commands of a running lab read (`lab.json`). */
export interface LabState {
  readonly options: LabOptions
  readonly plan: Plan
  readonly apiAddress: string
  readonly leftOut: readonly LeftOut[]
  readonly seconds: number
}

/** A snapshot as one JSON file: path → text. */
export const FILES = join(HOME, 'files.json')
export const STATE = join(HOME, 'lab.json')
/** Where the stand-ins of kube-proxy answer. */
const HEALTHZ = 10256
const METRICS = 10249

export const recorded = (): Map<string, string> =>
  new Map(Object.entries(JSON.parse(readFileSync(FILES, 'utf8')) as Record<string, string>))

const children = new Set<ChildProcess>()

async function begin(options: LabOptions): Promise<void> {
  const start = Date.now()
  process.on('SIGTERM', () => process.exit(0))
  const files = recorded()
  const snapshot = snapshotFromFiles(files)
  const plan = planLab(snapshot)
  const apiAddress = apiAddressOf(plan)
  writeApi(files)
  copyFileSync(join(import.meta.dirname, 'agent.py'), join(HOME, 'agent.py'))
  copyFileSync(join(import.meta.dirname, '../helpers/attempt.py'), join(HOME, 'attempt.py'))
  await Promise.all([makeSshFiles(plan.nodes, CONTROL), makeKubeFiles(apiAddress), makeHub(plan)])
  const machine =
    options.kernel === 'uml' ? await bootUml((log) => fail(`user-mode Linux stopped: ${log}`)) : new Machine('own')
  const agent = await machine.agent()
  await buildNetwork(machine, {agent, plan})
  const left = await restoreAll(machine, {snapshot, plan, options})
  const deaf = await startServers(machine, {agent, plan, options, apiAddress})
  await startApi(machine, apiAddress)
  if (options.proxy) await startProxies(machine, {plan, cluster: snapshot.cluster, proxy: options.proxy})
  const state: LabState = {
    options,
    plan: {...plan, notes: [...plan.notes, ...deaf.map((line) => `nobody could listen: ${line}`)]},
    apiAddress,
    leftOut: left,
    seconds: (Date.now() - start) / 1000,
  }
  writeFileSync(STATE, JSON.stringify(state))
}

function fail(message: string): void {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

/** The first address of the hub's bridge. */
function apiAddressOf({hub}: Plan): string {
  const [, address] = /^addr add ([^/]+)/.exec(hub[0] ?? '') ?? []
  if (address === undefined) throw new LabError('the snapshot names no gateway that could be the hub')
  return address
}

function writeApi(files: SnapshotFiles): void {
  mkdirSync(join(HOME, 'api'), {recursive: true})
  for (const [path, text] of files) if (/^api\/[\w-]+\.json$/.test(path)) writeFileSync(join(HOME, path), text)
  if (!files.has('api/version.json'))
    writeFileSync(join(HOME, 'api/version.json'), '{"major":"1","minor":"30","gitVersion":"v1.30.0"}')
}

/** Lines for `ip -batch`; those that fail are passed over where `loose`. */
const batch = (namespace: string, lines: readonly string[], loose = false): string =>
  `ip ${loose ? '-force ' : ''}${namespace === '' ? '' : `-n ${namespace} `}-batch - <<'EOF'${loose ? ' 2>/dev/null || true' : ''}\n${lines.join('\n')}\nEOF\n`

async function makeHub({hub}: Plan): Promise<void> {
  const local = new Machine('own')
  await local.must(
    `ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
${batch('', [`link add ${HUB_BRIDGE} type bridge`, `link set ${HUB_BRIDGE} up`, ...hub.filter((line) => line.startsWith('addr'))])}`,
  )
  await local.must(
    batch(
      '',
      hub.filter((line) => !line.startsWith('addr')),
      true,
    ),
  )
}

async function buildNetwork(machine: Machine, {agent, plan}: {agent: Agent; plan: Plan}): Promise<void> {
  const {nodes, pods, clients} = plan
  const all = [
    ...nodes.map(({name}) => name),
    ...pods.map(({namespace}) => namespace),
    ...clients.map(({namespace}) => namespace),
  ]
  await agent.namespaces(all)
  const cables = [
    ...nodes.map(({name, uplink}, index) => `link add node${index} type veth peer name ${uplink} netns ${name}`),
    ...clients.map(({namespace}, index) => `link add client${index} type veth peer name eth0 netns ${namespace}`),
    ...[...nodes.map((_, index) => `node${index}`), ...clients.map((_, index) => `client${index}`)].map(
      (port) => `link set ${port} master ${HUB_BRIDGE} up`,
    ),
  ]
  await machine.must(
    [
      batch('', cables),
      ...nodes.flatMap(({name, uplink}) => batch(name, [`link set ${uplink} up`])),
      ...nodes.map(({name, ip}) => batch(name, ip, true)),
      ...nodes.map(({name}) => batch(name, cablesOf(name, plan))),
      ...pods.map(({namespace, inside}) => batch(namespace, inside)),
      // host routes of pods need the pods' cables
      ...nodes.map(({name, ip}) =>
        batch(
          name,
          ip.filter((line) => line.startsWith('route ')),
          true,
        ),
      ),
      ...clients.map(({namespace, ip}) => batch(namespace, ip)),
    ].join('\n'),
  )
}

const cablesOf = (node: string, {pods}: Plan): string[] =>
  pods
    .filter((pod) => pod.node === node)
    .flatMap(({namespace, cable, outside}) => [
      `link add ${cable} type veth peer name eth0 netns ${namespace}`,
      ...outside,
    ])

export async function restoreAll(
  machine: Machine,
  {snapshot, plan, options}: {snapshot: Snapshot; plan: Plan; options: LabOptions},
): Promise<LeftOut[]> {
  const left = await Promise.all(plan.nodes.map(({name}) => restore(machine, snapshot.nodes.get(name)!, options)))
  return left.flat()
}

/** Who answers: pods, hosts, kube-proxy's own ports, and an sshd on each node. Returns what could not be bound. */
async function startServers(
  machine: Machine,
  {agent, plan, options, apiAddress}: {agent: Agent; plan: Plan; options: LabOptions; apiAddress: string},
): Promise<string[]> {
  const proxies = plan.nodes.flatMap(({name}) => [
    {
      namespace: name,
      name: 'kube-proxy',
      pod: false,
      proto: 'tcp' as const,
      address: '127.0.0.1',
      port: METRICS,
      http: options.mode,
    },
    {
      namespace: name,
      name: 'kube-proxy',
      pod: false,
      proto: 'tcp' as const,
      address: '',
      port: HEALTHZ,
      http: '{"healthy": true}',
    },
  ])
  const hub = plan.listeners.filter(
    ({namespace, address, port}) => namespace === '' && !(address === apiAddress && port === API_PORT),
  )
  const deaf = await agent.listen([
    ...plan.listeners.filter(({namespace}) => namespace !== ''),
    ...(options.proxy ? [] : proxies),
  ])
  if (hub.length > 0)
    deaf.push(...(await (machine.kernel === 'own' ? agent : await new Machine('own').agent()).listen(hub)))
  await machine.must(
    `mkdir -p /run/sshd\n${plan.nodes.map(({name, address}) => sshdCommand(name, address)).join('\n')}`,
  )
  return deaf
}

/** In the background, with its log beside its configuration. */
export const sshdCommand = (name: string, address: string): string =>
  `setsid ip netns exec ${name} /usr/sbin/sshd -D -E ${SSH}/log-${name} -f ${sshdConfig(name, address)} </dev/null >/dev/null 2>&1 &`

async function startApi(machine: Machine, address: string): Promise<void> {
  const prefix = machine.kernel === 'own' ? [] : ['ssh', '-F', SSH_CONTROL, 'control']
  const options: ServerOptions = {
    data: HOME,
    pki: PKI,
    address,
    exec: [...prefix, 'ip', 'netns', 'exec', 'NODE'],
    control: join(HOME, 'api.sock'),
  }
  const api = spawn(
    process.execPath,
    ['--import', 'tsx', join(import.meta.dirname, 'api-server.ts'), JSON.stringify(options)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  children.add(api)
  await new Promise<void>((settle, reject) => {
    api.stdout.once('data', () => settle())
    api.once('exit', (code) => reject(new LabError(`the API stand-in ended (${code})`)))
  })
}

/** For the commands: what runs in a lab that is up. */
export const stateOf = (): LabState => JSON.parse(readFileSync(STATE, 'utf8')) as LabState

if (process.argv[1] === import.meta.filename)
  begin(JSON.parse(process.argv[2]!) as LabOptions).then(
    () => process.stdout.write('ready\n'),
    (error: Error) => {
      process.stdout.write(`${error instanceof LabError ? error.message : error.stack}\n`)
      process.exit(1)
    },
  )
