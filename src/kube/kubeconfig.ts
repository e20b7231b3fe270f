import {existsSync, readFileSync} from 'node:fs'
import {homedir} from 'node:os'
import {delimiter, dirname, isAbsolute, join} from 'node:path'
import {load as parseYaml} from 'js-yaml'
import {SvcTraceError} from '../model/errors.js'

/** The kubectl flags that choose and change a connection. */
export interface ConnectionFlags {
  readonly kubeconfig?: string | undefined
  readonly context?: string | undefined
  readonly cluster?: string | undefined
  readonly user?: string | undefined
  readonly namespace?: string | undefined
  readonly server?: string | undefined
  readonly token?: string | undefined
  readonly as?: string | undefined
  readonly 'as-group'?: readonly string[] | undefined
  readonly 'as-uid'?: string | undefined
  readonly 'certificate-authority'?: string | undefined
  readonly 'client-certificate'?: string | undefined
  readonly 'client-key'?: string | undefined
  readonly 'tls-server-name'?: string | undefined
  readonly 'insecure-skip-tls-verify'?: boolean | undefined
}

type Entry = Record<string, unknown>

/** One cluster, user and namespace, chosen as kubectl chooses them. */
export interface Connection {
  readonly server: string
  readonly namespace: string
  readonly cluster: Entry
  readonly user: Entry
  readonly context: string
}

interface Merged {
  readonly clusters: Map<string, Entry>
  readonly users: Map<string, Entry>
  readonly contexts: Map<string, Entry>
  current: string | undefined
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

/** Precedence: --kubeconfig, $KUBECONFIG (a list; the first to name a thing wins, missing files are passed over), ~/.kube/config, the pod's own account. */
export function readConnection(flags: ConnectionFlags): Connection {
  const files = configFiles(flags.kubeconfig)
  const merged: Merged = {clusters: new Map(), users: new Map(), contexts: new Map(), current: undefined}
  let found = 0
  for (const file of files) if (existsSync(file)) found += mergeFile(merged, file)
  if (flags.kubeconfig !== undefined && !existsSync(flags.kubeconfig))
    throw new SvcTraceError('BadKubeconfig', `kubeconfig ${flags.kubeconfig}: no such file`)
  if (found === 0 && flags.server === undefined) return inCluster(files)
  return choose(merged, flags)
}

function configFiles(flag: string | undefined): string[] {
  if (flag !== undefined) return [flag]
  const list = process.env['KUBECONFIG']
  return list ? list.split(delimiter).filter(Boolean) : [join(homedir(), '.kube', 'config')]
}

function mergeFile(merged: Merged, file: string): 1 {
  let config: Entry
  try {
    config = (parseYaml(readFileSync(file, 'utf8')) ?? {}) as Entry
  } catch (error) {
    throw new SvcTraceError(
      'BadKubeconfig',
      `kubeconfig ${file} is not valid: ${(error as Error).message.split('\n')[0]}`,
      undefined,
      {cause: error},
    )
  }
  if (typeof config !== 'object') throw new SvcTraceError('BadKubeconfig', `kubeconfig ${file} is not a mapping`)
  const base = dirname(file)
  addAll(merged.clusters, config['clusters'], 'cluster', (entry) =>
    resolvePaths(entry, base, ['certificate-authority']),
  )
  addAll(merged.users, config['users'], 'user', (entry) =>
    resolvePaths(entry, base, ['client-certificate', 'client-key', 'tokenFile']),
  )
  addAll(merged.contexts, config['contexts'], 'context', (entry) => entry)
  merged.current ??=
    typeof config['current-context'] === 'string' && config['current-context'] !== ''
      ? config['current-context']
      : undefined
  return 1
}

function addAll(into: Map<string, Entry>, list: unknown, key: string, change: (entry: Entry) => Entry): void {
  for (const item of Array.isArray(list) ? (list as Entry[]) : []) {
    const name = String(item['name'])
    if (!into.has(name)) into.set(name, change((item[key] ?? {}) as Entry))
  }
}

function resolvePaths(entry: Entry, base: string, keys: readonly string[]): Entry {
  const resolved = {...entry}
  for (const key of keys)
    if (typeof entry[key] === 'string' && entry[key] !== '' && !isAbsolute(entry[key]))
      resolved[key] = join(base, entry[key])
  const exec = entry['exec'] as Entry | undefined
  if (exec && typeof exec['command'] === 'string' && exec['command'].includes('/') && !isAbsolute(exec['command']))
    resolved['exec'] = {...exec, command: join(base, exec['command'])}
  return resolved
}

function choose(merged: Merged, flags: ConnectionFlags): Connection {
  const name = flags.context ?? merged.current
  const context = name === undefined ? undefined : merged.contexts.get(name)
  if (flags.context !== undefined && !context)
    throw new SvcTraceError(
      'BadKubeconfig',
      `context "${flags.context}" does not exist`,
      `contexts: ${[...merged.contexts.keys()].join(', ') || 'none'}`,
    )
  if (name !== undefined && !context && flags.server === undefined && flags.cluster === undefined)
    throw new SvcTraceError(
      'BadKubeconfig',
      `the current context "${name}" does not exist in the kubeconfig`,
      `contexts: ${[...merged.contexts.keys()].join(', ') || 'none'}`,
    )
  const clusterName = flags.cluster ?? (context?.['cluster'] as string | undefined)
  const userName = flags.user ?? (context?.['user'] as string | undefined)
  const cluster = clusterName === undefined ? {} : merged.clusters.get(clusterName)
  const user = userName === undefined ? {} : merged.users.get(userName)
  if (!cluster) throw new SvcTraceError('BadKubeconfig', `cluster "${clusterName}" does not exist in the kubeconfig`)
  if (!user) throw new SvcTraceError('BadKubeconfig', `auth info "${userName}" does not exist in the kubeconfig`)
  const server = flags.server ?? (cluster['server'] as string | undefined)
  if (!server)
    throw new SvcTraceError(
      'BadKubeconfig',
      name === undefined ? 'the kubeconfig has no current context' : `cluster "${clusterName}" has no server`,
      'kubectl config use-context NAME, or --context NAME',
    )
  return {
    server: serverUrl(server, clusterName ?? '', cluster),
    namespace: flags.namespace ?? (context?.['namespace'] as string | undefined) ?? 'default',
    cluster: withClusterFlags(cluster, flags),
    user: withUserFlags(user, flags),
    context: name ?? '',
  }
}

function withClusterFlags(cluster: Entry, flags: ConnectionFlags): Entry {
  return {
    ...cluster,
    ...(flags['certificate-authority']
      ? {'certificate-authority': flags['certificate-authority'], 'certificate-authority-data': undefined}
      : {}),
    ...(flags['tls-server-name'] ? {'tls-server-name': flags['tls-server-name']} : {}),
    ...(flags['insecure-skip-tls-verify'] ? {'insecure-skip-tls-verify': true} : {}),
  }
}

function withUserFlags(user: Entry, flags: ConnectionFlags): Entry {
  return {
    ...(flags.token ? {token: flags.token} : user),
    ...(flags['client-certificate']
      ? {'client-certificate': flags['client-certificate'], 'client-certificate-data': undefined}
      : {}),
    ...(flags['client-key'] ? {'client-key': flags['client-key'], 'client-key-data': undefined} : {}),
    ...(flags.as ? {as: flags.as} : {}),
    ...(flags['as-group'] ? {'as-groups': flags['as-group']} : {}),
    ...(flags['as-uid'] ? {'as-uid': flags['as-uid']} : {}),
  }
}

/** As client-go does (rest.DefaultServerURL): without a scheme it is https where the cluster has TLS settings. */
function serverUrl(server: string, name: string, cluster: Readonly<Record<string, unknown>>): string {
  const secure = Object.keys(cluster).some((key) => /^(certificate-authority|insecure-skip-tls)/.test(key))
  const full = server.includes('://') ? server : `${secure ? 'https' : 'http'}://${server}`
  const url = URL.canParse(full) ? new URL(full) : undefined
  if (url !== undefined && /^https?:$/.test(url.protocol) && url.hostname !== '') return full
  throw new SvcTraceError(
    'BadKubeconfig',
    `the server of cluster "${name}" is not a URL: ${server}`,
    'it looks like https://HOST:6443',
  )
}

/** A pod's own service account (rest.InClusterConfig). */
function inCluster(files: readonly string[]): Connection {
  const {KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port} = process.env
  if (!host || !port || !existsSync(`${SERVICE_ACCOUNT}/token`)) {
    throw new SvcTraceError(
      'BadKubeconfig',
      `no kubeconfig: ${files.join(', ')} ${files.length > 1 ? 'do' : 'does'} not exist`,
      'name one with --kubeconfig or KUBECONFIG, or work on a saved snapshot with --snapshot PATH',
    )
  }
  const namespace = existsSync(`${SERVICE_ACCOUNT}/namespace`)
    ? readFileSync(`${SERVICE_ACCOUNT}/namespace`, 'utf8').trim()
    : 'default'
  return {
    server: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    namespace,
    cluster: {'certificate-authority': `${SERVICE_ACCOUNT}/ca.crt`},
    user: {tokenFile: `${SERVICE_ACCOUNT}/token`},
    context: 'in-cluster',
  }
}
