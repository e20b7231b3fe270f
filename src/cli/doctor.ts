import {readConnection} from '../kube/kubeconfig.js'
import {RESOURCES} from '../kube/read-cluster.js'
import {ApiFailure, type Api} from '../kube/api.js'
import {SvcTraceError} from '../model/errors.js'
import {collectNodes, type NodeResult} from '../nodes/collect.js'
import {NodeState} from '../snapshot/node-state.js'
import {snapshotFromFiles} from '../snapshot/snapshot.js'
import {interruption} from './interruption.js'
import {progressLine} from './progress.js'
import {collectOptions, connect, nodeTargets, transportFor, type LiveFlags, type Reach} from './live.js'
import type {KubeObject} from '../model/kube.js'
import {plural} from '../util/text.js'

export interface Step {
  readonly state: 'ok' | 'note' | 'failed'
  readonly what: string
  readonly hint?: string
}

/** Looks at everything on the way to a trace, in order; a failed step ends only what needs it. */
export async function examine(flags: LiveFlags): Promise<Step[]> {
  const stop = interruption()
  const steps: Step[] = []
  try {
    const connection = readConnection(flags)
    steps.push({
      state: 'ok',
      what: `kubeconfig: context "${connection.context}", server ${connection.server}, namespace ${connection.namespace}`,
    })
    const api = await connect(connection, flags, stop)
    try {
      const version = await api.get('/version')
      steps.push({state: 'ok', what: `API server answers: ${String(version['gitVersion'])}`})
      steps.push(...(await permissions(api)))
      const {cluster} = snapshotFromFiles(new Map([['api/nodes.json', JSON.stringify(await api.get('/api/v1/nodes'))]]))
      const pods = flags.via === 'exec' ? ((await api.get('/api/v1/pods'))['items'] as KubeObject[]) : []
      steps.push(...(await nodes(cluster.nodes, {flags, reach: {connection, pods: () => pods}, signal: stop})))
    } finally {
      api.close()
    }
  } catch (error) {
    if (!(error instanceof SvcTraceError) || error.code === 'Interrupted') throw error
    steps.push({state: 'failed', what: error.message, ...(error.hint === undefined ? {} : {hint: error.hint})})
  }
  return steps
}

/** Asks the API itself (SelfSubjectAccessReview); where that is not possible, the lists will tell. */
async function permissions(api: Api): Promise<Step[]> {
  const steps: Step[] = []
  for (const {name, group, optional} of RESOURCES.filter(({spare}) => !spare)) {
    const review = {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: {
        resourceAttributes: {
          verb: 'list',
          resource: name,
          group: group.startsWith('/apis/') ? group.split('/')[2] : '',
        },
      },
    }
    try {
      const {status} = (await api.post('/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', review)) as {
        status?: {allowed?: boolean}
      }
      if (!status?.allowed)
        steps.push({
          state: optional ? 'note' : 'failed',
          what: `may not list ${name} in all namespaces`,
          hint: 'manifests/rbac.yaml has the minimal ClusterRole',
        })
    } catch (error) {
      if (!(error instanceof ApiFailure)) throw error
      return [...steps, {state: 'note', what: `permissions cannot be asked for: ${error.message}`}]
    }
  }
  return steps.length > 0
    ? steps
    : [
        {
          state: 'ok',
          what: `may list everything needed (${RESOURCES.filter(({spare}) => !spare).length} kinds of objects)`,
        },
      ]
}

async function nodes(
  list: Parameters<typeof nodeTargets>[0],
  {flags, reach, signal}: {flags: LiveFlags; reach: Reach; signal: AbortSignal},
): Promise<Step[]> {
  const targets = nodeTargets(list, flags)
  const transport = await transportFor(flags, reach)
  const intro: Step = {
    state: 'ok',
    what: `${plural(list.length, 'node')}; way in: ${WAYS[transport.name] ?? transport.name}`,
  }
  const line = progressLine('asking nodes', targets.length, flags.verbose)
  const results = await collectNodes(targets, transport, collectOptions(flags, signal, line))
  line.end()
  const hosts = new Map(targets.map(({node, host}) => [node, host]))
  return [intro, ...results.flatMap((result) => nodeSteps(result, hosts.get(result.node) ?? '', Date.now()))]
}

const WAYS: Readonly<Record<string, string>> = {
  auto: 'ssh2, or the system’s own ssh where a host needs it (--via auto)',
  ssh: 'ssh2 (--via ssh)',
  openssh: 'the system’s own ssh (--via openssh)',
  exec: 'the API’s exec (--via exec)',
  local: 'this machine itself (--via local)',
}

/** `now`: this machine's clock when the node was read (ms). */
export function nodeSteps({node: name, files, way, failure, hint}: NodeResult, host: string, now: number): Step[] {
  const by = `${way?.name ?? ''}${way?.user === undefined ? '' : ` as ${way.user}`}${way?.why ? `, ${way.why}` : ''}`
  const place = `node ${name} at ${host}, by ${by}`
  if (failure !== undefined)
    return [{state: 'failed', what: `${place}: ${failure}`, ...(hint === undefined ? {} : {hint})}]
  const [, login, root] = /^login (.*), root by (.*)$/m.exec(files.get('backend.txt') ?? '') ?? []
  const rights = login === undefined ? '' : `: login ${login}, ${ROOT_BY[root!] ?? `root by ${root}`}`
  const key = way?.name.endsWith('ssh') ? ', host key known' : ''
  return [{state: 'ok', what: `${place}${key}${rights}`}, tools(name, files), ...clock(name, files, now)]
}

/** More than reading a node takes (ms). */
const CLOCK_OFF = 120_000

function clock(node: string, files: ReadonlyMap<string, string>, now: number): Step[] {
  const told = Date.parse(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/m.exec(files.get('backend.txt') ?? '')?.[0] ?? '')
  if (Number.isNaN(told) || Math.abs(told - now) <= CLOCK_OFF) return []
  const minutes = Math.round(Math.abs(told - now) / 60_000)
  const what = `node ${node}: its clock is ${minutes} min ${told > now ? 'ahead of' : 'behind'} this machine's`
  return [
    {state: 'note', what, hint: 'one of the two is wrong: timedatectl; times in logs and certificates will not fit'},
  ]
}

const ROOT_BY: Readonly<Record<string, string>> = {itself: 'no sudo needed', nothing: 'no root (sudo -n does not work)'}

function tools(node: string, files: ReadonlyMap<string, string>): Step {
  const state = new NodeState(node, files)
  const sections = [
    ['iptables', state.iptablesSection],
    ['ipset', state.ipsetSection],
    ['IPVS', state.ipvsSection],
    ['nftables', state.nftSection],
    ['routes', state.routeSection(4)],
    ['sockets', state.section('ss.txt')],
    ['sysctls', state.section('sysctl.txt')],
  ] as const
  const bad = sections.filter(([, section]) => section.state === 'unreadable')
  const absent = sections.filter(([, section]) => section.state === 'absent').map(([name]) => name)
  const mode = `kube-proxy ${state.proxyMode ?? 'mode unknown'}${state.proxyVersion ? ` ${state.proxyVersion}` : ''}`
  if (bad.length > 0)
    return {
      state: 'failed',
      what: `node ${node}: cannot read ${bad.map(([name, {reason}]) => `${name} (${reason ?? ''})`).join(', ')}`,
      hint: 'these need root: a login as root, or sudo without a password (sudo -n)',
    }
  return {
    state: 'ok',
    what: `node ${node}: everything is readable, ${mode}${backend(state)}; ${versions(files)}${absent.length > 0 ? `; not on the node: ${absent.join(', ')}` : ''}`,
  }
}

/** Which iptables holds kube-proxy's rules, where it is iptables at all. */
function backend(state: NodeState): string {
  const dump = state.iptables(4).find(({tables}) => tables.get('nat')?.chains.has('KUBE-SERVICES'))
  return dump?.backend === undefined ? '' : ` with rules in iptables-${dump.backend}`
}

/** What the tools say of themselves. */
function versions(files: ReadonlyMap<string, string>): string {
  const text = files.get('backend.txt') ?? ''
  const found = [/^iptables v\S+ \(\w+\)/m, /^nftables v\S+/m, /^ipset v[\d.]+/m].flatMap(
    (one) => one.exec(text)?.[0] ?? [],
  )
  const kernel = /^\d+\.\d+\S*$/m.exec(text)?.[0]
  const lent = [...text.matchAll(/^(\S+) of kube-proxy \(process \d+\)$/gm)].map(([, tool]) => tool!)
  const said = [
    ...found,
    ...(kernel === undefined ? [] : [`kernel ${kernel}`]),
    ...(lent.length === 0 ? [] : [`${lent.join(' and ')} of kube-proxy’s own`]),
  ]
  return said.join(', ') || 'no tool told its version'
}
