/** Stands in for a Kubernetes API server: recorded lists over their real paths, for holders of a client certificate. */
import {spawn} from 'node:child_process'
import {existsSync, readFileSync} from 'node:fs'
import type {IncomingMessage, ServerResponse} from 'node:http'
import {createServer} from 'node:https'
import {join} from 'node:path'
import type {TLSSocket} from 'node:tls'
import {WebSocketServer, type WebSocket} from 'ws'

/** What the test can ask the server to do wrong. */
export interface Faults {
  /** Resources that answer 403: `pods` everywhere, `pods@cluster` only when listed across namespaces. */
  readonly forbid?: readonly string[]
  /** Whatever is not in here answers 403: `pods`, `configmaps/kube-proxy`. */
  readonly allow?: readonly string[]
  /** Status of every answer, or of those whose path has `path` in it. */
  readonly status?: number
  readonly path?: string
  /** Milliseconds before an answer. */
  readonly delay?: number
  /** The first page token of each list has expired (410). */
  readonly expire?: boolean
  /** Pods have no shell. */
  readonly shellless?: boolean
  /** Tells everybody who watches that an object has changed. */
  readonly poke?: boolean
}

/** Stands in every place of an object that a snapshot must leave out. */
export const PRIVATE = 'e2e-private-value'
/** Most items of one answer, so that lists come in pages. */
const PAGE = 40

type Json = Record<string, unknown>
interface Item extends Json {
  metadata: {name: string; namespace?: string; annotations?: Record<string, string>}
}

const GROUPS: Readonly<Record<string, readonly string[]>> = {
  '/api/v1': ['namespaces', 'nodes', 'services', 'endpoints', 'pods'],
  '/apis/discovery.k8s.io/v1': ['endpointslices'],
  '/apis/networking.k8s.io/v1': ['ingresses', 'networkpolicies'],
  '/apis/apps/v1': ['daemonsets'],
}
const CLUSTER_SCOPED = new Set(['namespaces', 'nodes'])

class Failure extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

if (process.send) {
  const [data, pki, address, hub] = process.argv.slice(2)
  serve(data!, pki!, {address: address!, hub: hub!})
}

function serve(data: string, pki: string, {address, hub}: {address: string; hub: string}): void {
  const read = (name: string): string => readFileSync(join(pki, name), 'utf8')
  let faults: Faults = {}
  const expired = new Set<string>()
  const watchers: ServerResponse[] = []
  const server = createServer(
    {
      key: read('server.key'),
      cert: read('server.crt'),
      ca: read('ca.crt'),
      requestCert: true,
      rejectUnauthorized: false,
    },
    (request, response) => {
      if (/[?&]watch=1/.test(request.url!)) return void watchers.push(response.writeHead(200))
      const send = (): void => reply(request, response, () => answer(data, request, {faults, expired}))
      setTimeout(send, faults.delay ?? 0)
    },
  )
  const sockets = new WebSocketServer({noServer: true, handleProtocols: () => 'v4.channel.k8s.io'})
  server.on('upgrade', (request, socket, head) =>
    sockets.handleUpgrade(request, socket, head, (peer) => execute(peer, request.url!, {data, hub, faults})),
  )
  process.on('message', (message: Faults) => {
    faults = message
    if (message.poke) for (const watcher of watchers) watcher.write('{"type":"MODIFIED","object":{}}\n')
    expired.clear()
    process.send!('done')
  })
  process.on('disconnect', () => process.exit(0))
  server.listen(6443, address, () => process.send!('ready'))
}

/** pods/exec: the command runs on the pod's node, whose network a pod with hostNetwork shares. */
function execute(
  peer: WebSocket,
  path: string,
  {data, hub, faults}: {data: string; hub: string; faults: Faults},
): void {
  const url = new URL(path, 'https://api')
  const [, namespace, name] = /^\/api\/v1\/namespaces\/([\w-]+)\/pods\/([\w-]+)\/exec$/.exec(url.pathname) ?? []
  const pod = (load(data, 'pods')['items'] as Item[]).find(
    ({metadata}) => metadata.name === name && metadata.namespace === namespace,
  )
  const command = url.searchParams.getAll('command')
  const end = (status: Json): void => {
    peer.send(Buffer.from(`\u0003${JSON.stringify({apiVersion: 'v1', kind: 'Status', ...status})}`))
    peer.close()
  }
  if (!pod) return end({status: 'Failure', reason: 'NotFound', message: `pods "${name}" not found`, code: 404})
  if (faults.shellless && command[0] === 'sh')
    return end({
      status: 'Failure',
      reason: 'InternalError',
      message: 'exec: "sh": executable file not found in $PATH',
      code: 500,
    })
  const child = spawn('ip', ['netns', 'exec', `${hub}-${(pod['spec'] as {nodeName: string}).nodeName}`, ...command], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.on('data', (chunk: Buffer) => peer.send(Buffer.concat([Buffer.from([1]), chunk])))
  child.stderr.on('data', (chunk: Buffer) => peer.send(Buffer.concat([Buffer.from([2]), chunk])))
  child.on('close', (code) => {
    const causes = [{reason: 'ExitCode', message: String(code)}]
    end(code === 0 ? {status: 'Success'} : {status: 'Failure', reason: 'NonZeroExitCode', details: {causes}})
  })
}

function reply(request: IncomingMessage, response: ServerResponse, work: () => Json): void {
  let status = request.method === 'POST' ? 201 : 200
  let body: Json
  try {
    body = work()
  } catch (error) {
    status = error instanceof Failure ? error.status : 500
    body = {kind: 'Status', apiVersion: 'v1', status: 'Failure', message: (error as Error).message, code: status}
  }
  response.writeHead(status, {'Content-Type': 'application/json'}).end(JSON.stringify(body))
}

function answer(
  data: string,
  request: IncomingMessage,
  {faults, expired}: {faults: Faults; expired: Set<string>},
): Json {
  if (!(request.socket as TLSSocket).authorized) throw new Failure(401, 'Unauthorized')
  if (faults.status && request.url!.includes(faults.path ?? ''))
    throw new Failure(faults.status, faults.status === 401 ? 'Unauthorized' : 'etcdserver: request timed out')
  const url = new URL(request.url!, 'https://api')
  if (url.pathname === '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews') return review()
  const known = url.pathname === '/version' ? load(data, 'version') : discovery(url.pathname)
  if (known) return known
  const match = /^(\/api\/v1|\/apis\/[\w.]+\/v1)(?:\/namespaces\/([\w-]+))?\/([\w-]+)(?:\/([\w-]+))?$/.exec(
    url.pathname,
  )
  if (!match) throw new Failure(404, 'the server could not find the requested resource')
  const [, group, namespace, resource, name] = match as unknown as [string, string, string?, string?, string?]
  allowed(resource!, name, faults)
  if (resource === 'configmaps' && name === 'kube-proxy') return proxyConfig(data, faults)
  if (!GROUPS[group]?.includes(resource!)) throw new Failure(404, 'the server could not find the requested resource')
  refuse(resource!, {namespace, faults})
  const list = load(data, resource!)
  const items = (list['items'] as Item[]).filter(
    (item) => namespace === undefined || item.metadata.namespace === namespace,
  )
  if (name !== undefined) return single(items, {list, name, resource: resource!})
  return page({...list, items: items.map(withPrivate)}, url, faults.expire ? expired : undefined)
}

function allowed(resource: string, name: string | undefined, {allow}: Faults): void {
  const what = name === undefined ? resource : `${resource}/${name}`
  if (allow && !allow.includes(what)) throw new Failure(403, `${what} is forbidden: User "tester" cannot read it`)
}

function refuse(resource: string, {namespace, faults}: {namespace: string | undefined; faults: Faults}): void {
  const cluster = namespace === undefined && faults.forbid?.includes(`${resource}@cluster`)
  if (!cluster && !faults.forbid?.includes(resource)) return
  const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`
  throw new Failure(
    403,
    `${resource} is forbidden: User "tester" cannot list resource "${resource}" in API group "" ${scope}`,
  )
}

const review = (): Json => ({
  apiVersion: 'authorization.k8s.io/v1',
  kind: 'SelfSubjectAccessReview',
  status: {allowed: true},
})

function discovery(path: string): Json | undefined {
  const named = Object.keys(GROUPS)
    .filter((group) => group.startsWith('/apis/'))
    .map((group) => group.slice('/apis/'.length))
  if (path === '/api') return {kind: 'APIVersions', versions: ['v1']}
  if (path === '/apis') {
    const groups = named.map((groupVersion) => {
      const version = {groupVersion, version: 'v1'}
      return {name: groupVersion.split('/')[0], versions: [version], preferredVersion: version}
    })
    return {kind: 'APIGroupList', apiVersion: 'v1', groups}
  }
  const own = GROUPS[path]
  if (!own) return undefined
  const resources = own.map((name) => ({
    name,
    singularName: '',
    namespaced: !CLUSTER_SCOPED.has(name),
    kind: KINDS[name],
    verbs: ['get', 'list'],
  }))
  return {kind: 'APIResourceList', apiVersion: 'v1', groupVersion: path.replace(/^\/apis?\//, ''), resources}
}

const KINDS: Readonly<Record<string, string>> = {
  namespaces: 'Namespace',
  nodes: 'Node',
  services: 'Service',
  endpoints: 'Endpoints',
  pods: 'Pod',
  endpointslices: 'EndpointSlice',
  ingresses: 'Ingress',
  networkpolicies: 'NetworkPolicy',
  daemonsets: 'DaemonSet',
}

function load(data: string, name: string): Json {
  const path = join(data, 'api', `${name}.json`)
  if (!existsSync(path)) throw new Failure(404, 'the server could not find the requested resource')
  return JSON.parse(readFileSync(path, 'utf8')) as Json
}

function single(items: readonly Item[], {list, name, resource}: {list: Json; name: string; resource: string}): Json {
  const found = items.find((item) => item.metadata.name === name)
  if (!found) throw new Failure(404, `${resource} "${name}" not found`)
  return {...found, apiVersion: list['apiVersion'], kind: KINDS[resource]}
}

function proxyConfig(data: string, {forbid}: Faults): Json {
  if (forbid?.includes('configmaps')) throw new Failure(403, 'configmaps "kube-proxy" is forbidden')
  const config = load(data, 'configmap-kube-proxy')
  return {...config, data: {...(config['data'] as Json), 'kubeconfig.conf': PRIVATE}}
}

function withPrivate(item: Item): Item {
  const spec = item['spec'] as {containers?: Json[]} | undefined
  const containers = spec?.containers?.map((one) => ({
    ...one,
    args: [PRIVATE],
    env: [{name: 'PASSWORD', value: PRIVATE}],
  }))
  const annotations = {...item.metadata.annotations, 'kubectl.kubernetes.io/last-applied-configuration': PRIVATE}
  return {...item, metadata: {...item.metadata, annotations}, ...(containers ? {spec: {...spec, containers}} : {})}
}

function page(list: Json, {pathname, searchParams}: URL, expired: Set<string> | undefined): Json {
  const items = list['items'] as Item[]
  const limit = Math.min(PAGE, Number(searchParams.get('limit') ?? items.length) || items.length)
  const token = searchParams.get('continue')
  if (token !== null && expired && !expired.has(pathname)) {
    expired.add(pathname)
    throw new Failure(410, 'The provided continue parameter is too old to display a consistent list result.')
  }
  const start = token === null ? 0 : Number(Buffer.from(token, 'base64').toString())
  const end = searchParams.has('limit') ? start + limit : items.length
  const next =
    end < items.length
      ? {continue: Buffer.from(String(end)).toString('base64'), remainingItemCount: items.length - end}
      : {}
  return {...list, metadata: {resourceVersion: '1', ...next}, items: items.slice(start, end)}
}
