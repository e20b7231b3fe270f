import {openApi, type Api} from '../kube/api.js'
import {readConnection, type Connection, type ConnectionFlags} from '../kube/kubeconfig.js'
import {readClusterFiles, readNodeNames} from '../kube/read-cluster.js'
import {SvcTraceError} from '../model/errors.js'
import {collectNodes, type CollectOptions, type NodeResult} from '../nodes/collect.js'
import {execTransport, type RunInPod} from '../nodes/exec.js'
import {autoTransport} from '../nodes/auto.js'
import {localTransport, opensshTransport} from '../nodes/processes.js'
import {sshTransport} from '../nodes/ssh.js'
import {NodeUnreachable, type NodeTarget, type Transport} from '../nodes/transport.js'
import type {ExecPod} from '../kube/exec.js'
import type {KubeObject} from '../model/kube.js'
import {list, text} from '../util/json.js'
import type {NodeState} from '../snapshot/node-state.js'
import {PackedFiles} from '../util/packed-files.js'
import {formatAddress} from '../util/ip.js'
import {readList} from '../snapshot/api-lists.js'
import {snapshotFromFiles, type Snapshot, type SnapshotInfo} from '../snapshot/snapshot.js'
import {duration} from './duration.js'
import {passphraseAsker} from './ask.js'
import {interruption} from './interruption.js'
import {progressLine, type Progress} from './progress.js'

export interface LiveFlags extends ConnectionFlags {
  readonly 'request-timeout'?: string | undefined
  readonly via?: string | undefined
  readonly 'exec-pod'?: string | undefined
  readonly 'ssh-user'?: string | undefined
  readonly 'ssh-port'?: number | undefined
  readonly 'ssh-identity'?: string | undefined
  readonly 'ssh-config'?: string | undefined
  readonly 'ssh-known-hosts'?: string | undefined
  readonly 'ssh-option'?: readonly string[] | undefined
  readonly 'node-host'?: readonly string[] | undefined
  readonly 'node-address'?: string | undefined
  readonly 'node-timeout'?: string | undefined
  readonly timeout?: string | undefined
  readonly verbose?: boolean | undefined
  readonly sudo?: string | undefined
  readonly parallel?: number | undefined
  readonly node?: readonly string[] | undefined
  readonly 'api-only'?: boolean | undefined
  readonly 'ask-dns'?: boolean | undefined
}

/** Takes a snapshot of the live cluster: the API first, then its nodes. */
export async function takeSnapshot(flags: LiveFlags, choose?: ChooseNodes): Promise<Snapshot> {
  return snapshotFromFiles(await collectFiles(flags, choose))
}

/** Which nodes matter for a question, from what the API says; undefined: all of them. */
export type ChooseNodes = (api: Snapshot) => readonly string[] | undefined

/** The same as files, for saving. */
export async function collectFiles(flags: LiveFlags, choose?: ChooseNodes): Promise<PackedFiles> {
  const stop = interruption()
  const connection = readConnection(flags)
  const api = await connect(connection, flags, stop)
  try {
    const {files: lists, forbidden} = await readClusterFiles(api, connection.namespace)
    const known = snapshotFromFiles(lists)
    const files = new PackedFiles(lists)
    const {cluster} = known
    const chosen = flags.node ?? choose?.(known)
    if (flags['ask-dns'] && flags['api-only'])
      throw new SvcTraceError('BadUsage', '--ask-dns asks from a node, and --api-only reads none')
    const wanted = flags['api-only'] ? [] : nodeTargets(cluster.nodes, {...flags, node: chosen})
    const transport = await transportFor(flags, {
      connection,
      pods: () => readList('api/pods.json', (path) => lists.get(path), []) ?? [],
    })
    const results = await readNodes(wanted, transport, {flags, signal: stop, api})
    for (const {node, files: own} of results) files.adopt(`nodes/${node}/`, own)
    if (flags['ask-dns']) await addDns(files, {wanted, results, transport, signal: stop})
    files.set(
      'snapshot.json',
      `${JSON.stringify(infoOf({cluster: cluster.nodes.map(({name}) => name), results, forbidden, namespace: connection.namespace}), undefined, 2)}\n`,
    )
    return files
  } finally {
    api.close()
  }
}

export async function connect(connection: Connection, flags: LiveFlags, signal: AbortSignal): Promise<Api> {
  return openApi(connection, {timeout: duration(flags['request-timeout'] ?? '0', '--request-timeout'), signal})
}

type ApiNode = Snapshot['cluster']['nodes'][number]

/** Which nodes to read and under which address. Names that could be taken for options never reach ssh. */
export function nodeTargets(nodes: readonly ApiNode[], flags: LiveFlags): NodeTarget[] {
  for (const name of flags.node ?? [])
    if (!nodes.some((node) => node.name === name))
      throw new SvcTraceError(
        'NotFound',
        `nodes "${name}" not found`,
        `nodes: ${nodes.map((node) => node.name).join(', ')}`,
      )
  const hosts = hostMap(flags['node-host'] ?? [])
  return nodes
    .filter(({name}) => flags.node === undefined || flags.node.includes(name))
    .map((node) => ({
      node: node.name,
      host: hosts.get(node.name) ?? hostOf(node, flags['node-address'] ?? 'InternalIP'),
    }))
}

/** `NODE=HOST` each: where a node is reached by another name than the API knows. */
function hostMap(pairs: readonly string[]): Map<string, string> {
  return new Map(
    pairs.map((pair) => {
      const [, node, host] = /^([^=]+)=([\w.:[\]][\w.:[\]-]*)$/.exec(pair) ?? []
      if (node === undefined || host === undefined)
        throw new SvcTraceError('BadUsage', `--node-host ${JSON.stringify(pair)} is not NODE=HOST`)
      return [node, host]
    }),
  )
}

function hostOf({name, addresses}: ApiNode, kind: string): string {
  const address = kind === 'name' ? name : (addresses.find(({type}) => type === kind)?.address ?? name)
  if (!/^[\w.:[\]-]+$/.test(address) || address.startsWith('-'))
    throw new SvcTraceError(
      'ApiError',
      `node ${name} has the address ${JSON.stringify(address)}, which is no host name`,
    )
  return address
}

/** What a way into the nodes may need of the cluster itself. */
export interface Reach {
  readonly connection: Connection
  readonly pods: () => readonly KubeObject[]
}

export async function transportFor(flags: LiveFlags, reach: Reach): Promise<Transport> {
  const ask = passphraseAsker()
  const options = {
    connectTimeout: 10_000,
    ...(flags['ssh-user'] ? {user: flags['ssh-user']} : {}),
    ...(flags['ssh-port'] ? {port: flags['ssh-port']} : {}),
    ...(flags['ssh-identity'] ? {identity: flags['ssh-identity']} : {}),
    ...(flags['ssh-config'] ? {config: flags['ssh-config']} : {}),
    ...(flags['ssh-known-hosts'] ? {knownHosts: flags['ssh-known-hosts']} : {}),
    ...(flags['ssh-option'] ? {settings: flags['ssh-option']} : {}),
    ...(ask ? {passphrase: ask} : {}),
  }
  if (flags.via === 'openssh') return opensshTransport(options)
  if (flags.via === 'exec') return execTransport(await runInPods(flags, reach))
  if (flags.via === 'local') return localTransport()
  return flags.via === 'ssh' ? sshTransport(options) : autoTransport(options)
}

/** Runs commands in the pod that stands for each node: kube-proxy's, or one that `--exec-pod` names. */
async function runInPods(flags: LiveFlags, {connection, pods}: Reach): Promise<RunInPod> {
  const {podExec} = await import('../kube/exec.js')
  const exec = await podExec(connection)
  const all = pods()
  return (node, command, signal) => exec(podOn(node, all, flags['exec-pod']), command, signal)
}

function podOn(node: string, pods: readonly KubeObject[], wanted: string | undefined): ExecPod {
  const [namespace, name] = wanted?.includes('/') ? wanted.split('/') : ['kube-system', wanted]
  const found = pods
    .filter(({spec}) => spec?.['nodeName'] === node)
    .find(({metadata}) =>
      name === undefined
        ? metadata.labels?.['k8s-app'] === 'kube-proxy' || metadata.labels?.['component'] === 'kube-proxy'
        : metadata.namespace === namespace && (metadata.name === name || metadata.name.startsWith(`${name}-`)),
    )
  if (!found)
    throw new NodeUnreachable(
      `there is no ${name === undefined ? 'kube-proxy pod' : `pod ${namespace}/${name}`} on ${node}`,
      'name the pods of a DaemonSet on the nodes’ own network with --exec-pod NAMESPACE/NAME',
    )
  if (found.spec?.['hostNetwork'] !== true)
    throw new NodeUnreachable(`pod ${found.metadata.name} has a network of its own (hostNetwork is not set)`)
  const [container] = list(found.spec['containers'])
  return {
    namespace: found.metadata.namespace ?? 'default',
    pod: found.metadata.name,
    container: text(container?.['name']) ?? '',
  }
}

/** How nodes are read, as the flags say. */
export const collectOptions = (flags: LiveFlags, signal: AbortSignal, line: Progress): CollectOptions => ({
  sudo: (flags.sudo ?? 'auto') as CollectOptions['sudo'],
  parallel: flags.parallel ?? 16,
  timeout: duration(flags['node-timeout'] ?? '60s', '--node-timeout'),
  limit: duration(flags.timeout ?? '0', '--timeout'),
  signal,
  progress: line.update,
  finished: line.finished,
})

async function readNodes(
  targets: readonly NodeTarget[],
  transport: Transport,
  {flags, signal, api}: {flags: LiveFlags; signal: AbortSignal; api: Api},
): Promise<NodeResult[]> {
  const line = progressLine('reading nodes', targets.length, flags.verbose)
  try {
    const read = await collectNodes(targets, transport, collectOptions(flags, signal, line))
    const results = read.every(({failure}) => failure === undefined) ? read : await sayGone(read, api)
    if (signal.aborted)
      throw new SvcTraceError(
        'Interrupted',
        `interrupted; ${results.filter(({failure}) => failure === undefined).length} of ${targets.length} nodes were read`,
      )
    line.end()
    for (const {node, failure, hint} of results)
      if (failure !== undefined) line.warn(`node ${node}: ${failure}${hint === undefined ? '' : ` (hint: ${hint})`}`)
    return results
  } finally {
    line.end()
  }
}

/** Of nodes that could not be read: whether the API still knows them. An API that does not say adds nothing to their own failures. */
async function sayGone(results: readonly NodeResult[], api: Api): Promise<NodeResult[]> {
  const names = await readNodeNames(api).catch(() => undefined)
  return results.map((result) =>
    result.failure === undefined || !names || names.has(result.node)
      ? result
      : {
          ...result,
          failure: `${result.failure}; the API no longer has this node`,
          hint: 'it was removed while we read: ask again',
        },
  )
}

/** More questions than this are not asked of one server. */
const MOST_QUESTIONS = 5000

/** Asks the cluster's DNS servers about every Service, from the first node that was read. */
async function addDns(
  files: PackedFiles,
  {
    wanted,
    results,
    transport,
    signal,
  }: {
    wanted: readonly NodeTarget[]
    results: readonly NodeResult[]
    transport: Transport
    signal: AbortSignal
  },
): Promise<void> {
  const target = wanted.find(({node}) => results.some((result) => result.node === node && result.failure === undefined))
  if (!target)
    throw new SvcTraceError(
      'ApiError',
      '--ask-dns: no node was read, so there is none to ask from',
      'kubectl svc-trace doctor',
    )
  const {cluster, nodes} = snapshotFromFiles(files)
  const {askDns} = await import('../nodes/ask-dns.js')
  const {questionsFor, serversOf} = await import('../discovery/dns-answers.js')
  const servers = serversOf(cluster, devicesOf(nodes.get(target.node)!))
  const questions = cluster.services.flatMap((service) => questionsFor(cluster, service))
  const asked = await askDns(transport, target, {servers, questions: questions.slice(0, MOST_QUESTIONS), signal})
  if (signal.aborted) throw new SvcTraceError('Interrupted', 'interrupted while the DNS servers were asked')
  const incomplete =
    servers.length === 0
      ? ['no DNS server was found to ask: no Service with port 53/TCP and the label k8s-app=kube-dns in kube-system']
      : []
  files.set(`nodes/${target.node}/dns.json`, JSON.stringify({asked, incomplete}))
}

const devicesOf = ({links, addresses}: NodeState): {name: string; addresses: string[]}[] =>
  links.map(({name}) => ({
    name,
    addresses: addresses.filter(({device}) => device === name).map(({address}) => formatAddress(address)),
  }))

function infoOf({
  cluster,
  results,
  forbidden,
  namespace,
}: {
  cluster: readonly string[]
  results: readonly NodeResult[]
  forbidden: Record<string, string>
  namespace: string
}): SnapshotInfo {
  const read = new Set(results.map(({node}) => node))
  return {
    tool: 'kubectl-svc-trace',
    namespace,
    taken: new Date().toISOString(),
    forbidden,
    skipped: cluster.filter((name) => !read.has(name)),
    unread: Object.fromEntries(results.flatMap(({node, failure}) => (failure === undefined ? [] : [[node, failure]]))),
    via: Object.fromEntries(results.flatMap(({node, way}) => (way ? [[node, way.name]] : []))),
  }
}
