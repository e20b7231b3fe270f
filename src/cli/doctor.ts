import {existsSync} from 'node:fs'
import {readConnection} from '../kube/kubeconfig.js'
import {RESOURCES} from '../kube/read-cluster.js'
import type {Api} from '../kube/api.js'
import {SvcTraceError} from '../model/errors.js'
import {collectNodes} from '../nodes/collect.js'
import {NodeState} from '../snapshot/node-state.js'
import {snapshotFromFiles} from '../snapshot/snapshot.js'
import {duration} from './duration.js'
import {interruption} from './interruption.js'
import {connect, nodeTargets, transportFor, type LiveFlags, type Reach} from './live.js'
import type {KubeObject} from '../model/kube.js'

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
      steps.push(...(await nodes(cluster.nodes, {flags, reach: {connection, pods}, signal: stop})))
    } finally {
      api.close()
    }
  } catch (error) {
    const known = error instanceof SvcTraceError ? error : undefined
    steps.push({
      state: 'failed',
      what: (error as Error).message,
      ...(known?.hint === undefined ? {} : {hint: known.hint}),
    })
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
      return [{state: 'note', what: `permissions cannot be asked for: ${(error as Error).message}`}]
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
    what: `${list.length} nodes; way in: ${transport.name}${flags.via === undefined || flags.via === 'auto' ? ' (the default; others with --via)' : ''}${transport.name === 'ssh' && !process.env['SSH_AUTH_SOCK'] && flags['ssh-identity'] !== undefined && !existsSync(flags['ssh-identity']) ? '; the key file does not exist' : ''}`,
  }
  const results = await collectNodes(targets, transport, {
    sudo: (flags.sudo ?? 'auto') as 'auto',
    parallel: flags.parallel ?? 16,
    timeout: duration(flags['node-timeout'] ?? '60s', '--node-timeout'),
    signal,
    progress: () => undefined,
  })
  return [
    intro,
    ...results.map(({node, files, failure, hint}): Step => {
      if (failure !== undefined)
        return {state: 'failed', what: `node ${node}: ${failure}`, ...(hint === undefined ? {} : {hint})}
      return tools(node, files)
    }),
  ]
}

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
    what: `node ${node}: everything is readable, ${mode}${absent.length > 0 ? `; not on the node: ${absent.join(', ')}` : ''}`,
  }
}
