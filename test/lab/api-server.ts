/**
 * Stands in for a Kubernetes API server: a snapshot's objects over TLS, with the real protocol – discovery, lists in pages,
 * selectors, watches, exec over WebSocket, access reviews – and faults on demand.
 */
import {spawn} from 'node:child_process'
import {readFileSync} from 'node:fs'
import {createServer as createPlainServer, type IncomingMessage, type ServerResponse} from 'node:http'
import {createServer} from 'node:https'
import {join} from 'node:path'
import {WebSocketServer, type WebSocket} from 'ws'
import {mayDo, mustBeAllowed, userOf, type Request} from './api-access.js'
import {Failure, KINDS, selects, statusOf, Store, type Item, type Json} from './api-store.js'

/** What one can ask the server to do wrong. */
export interface Faults {
  /** Resources that answer 403: `pods` everywhere, `pods@cluster` only when listed across namespaces. */
  readonly forbid?: readonly string[]
  /** Whatever is not in here answers 403: `pods`, `configmaps/kube-proxy`. */
  readonly allow?: readonly string[]
  /** Status of every answer, or of those whose path has `path` in it. */
  readonly status?: number
  readonly path?: string
  /** That many answers only, then all is well; with `retryAfter` seconds in their headers. */
  readonly times?: number
  readonly retryAfter?: number
  /** Milliseconds before an answer. */
  readonly delay?: number
  /** The first page token of each list has expired (410). */
  readonly expire?: boolean
  /** Pods have no shell. */
  readonly shellless?: boolean
  /** Tells everybody who watches that an object has changed. */
  readonly poke?: boolean
  /** Changes of objects: these are put in, those taken out, or everything is as recorded again. */
  readonly put?: readonly {readonly resource: string; readonly object: Item}[]
  readonly remove?: readonly {readonly resource: string; readonly object: Item}[]
  readonly reset?: boolean
}

export interface ServerOptions {
  /** A snapshot's folder; `rbac.json` and `tokens.json` may be in it. */
  readonly data: string
  /** ca.crt, server.crt, server.key */
  readonly pki: string
  readonly address: string
  /** What runs a command on a node: NODE stands for its name. */
  readonly exec: readonly string[]
  /** A Unix socket that takes faults as JSON by POST. */
  readonly control?: string
}

/** Stands in every place of an object that a snapshot must leave out. */
export const PRIVATE = 'e2e-private-value'
export const API_PORT = 6443
/** Most items of one answer, so that lists come in pages. */
const PAGE = 40
const BOOKMARK_EVERY = 2000

/** What kube-proxies before 1.21 ask for; kubectl and svc-trace never do. */
const OLD_SLICES = '/apis/discovery.k8s.io/v1beta1'

const GROUPS: Readonly<Record<string, readonly string[]>> = {
  '/api/v1': ['namespaces', 'nodes', 'services', 'endpoints', 'pods'],
  '/apis/discovery.k8s.io/v1': ['endpointslices'],
  [OLD_SLICES]: ['endpointslices'],
  '/apis/networking.k8s.io/v1': ['ingresses', 'networkpolicies'],
  '/apis/apps/v1': ['daemonsets'],
}
const CLUSTER_SCOPED = new Set(['namespaces', 'nodes'])

interface Server {
  readonly options: ServerOptions
  readonly store: Store
  readonly expired: Set<string>
  readonly watchers: Set<ServerResponse>
  faults: Faults
  /** Faulty answers so far. */
  failed: number
}

if (process.argv[1] === import.meta.filename) serve(JSON.parse(process.argv[2]!) as ServerOptions)

function serve(options: ServerOptions): void {
  const read = (name: string): string => readFileSync(join(options.pki, name), 'utf8')
  const server: Server = {
    options,
    store: new Store(options.data),
    faults: {},
    failed: 0,
    expired: new Set(),
    watchers: new Set(),
  }
  const tls = {
    key: read('server.key'),
    cert: read('server.crt'),
    ca: read('ca.crt'),
    requestCert: true,
    rejectUnauthorized: false,
  }
  const web = createServer(tls, (request, response) => {
    setTimeout(() => reply(server, request, response), server.faults.delay ?? 0)
  })
  const sockets = new WebSocketServer({noServer: true, handleProtocols: () => 'v4.channel.k8s.io'})
  web.on('upgrade', (request, socket, head) =>
    sockets.handleUpgrade(request, socket, head, (peer) => execute(server, peer, request)),
  )
  process.on('message', (faults: Faults) => process.send!(change(server, faults)))
  if (process.send) process.on('disconnect', () => process.exit(0))
  if (options.control !== undefined) takeOrders(server, options.control)
  web.listen(API_PORT, options.address, () => (process.send ? process.send('ready') : console.log('ready')))
}

function change(server: Server, faults: Faults): string {
  server.faults = faults
  server.failed = 0
  server.expired.clear()
  try {
    if (faults.reset) server.store.reset()
    for (const {resource, object} of faults.put ?? []) server.store.put(resource, object)
    for (const {resource, object} of faults.remove ?? []) server.store.remove(resource, object)
  } catch (error) {
    return (error as Error).message
  }
  if (faults.poke) for (const watcher of server.watchers) watcher.write('{"type":"MODIFIED","object":{}}\n')
  return 'done'
}

function takeOrders(server: Server, path: string): void {
  createPlainServer((request, response) => {
    let body = ''
    request.setEncoding('utf8').on('data', (text: string) => (body += text))
    request.on('end', () => response.end(change(server, JSON.parse(body) as Faults)))
  }).listen(path)
}

function reply(server: Server, request: IncomingMessage, response: ServerResponse): void {
  let body = ''
  request.setEncoding('utf8').on('data', (text: string) => (body += text))
  request.on('end', () => {
    try {
      const answer = work(server, request, {response, body})
      if (answer)
        response
          .writeHead(request.method === 'POST' ? 201 : 200, {'Content-Type': 'application/json'})
          .end(JSON.stringify(answer))
    } catch (error) {
      const failure =
        error instanceof Failure ? error : new Failure(500, (error as Error).message, {reason: 'InternalError'})
      const wait = failure.retryAfter === undefined ? {} : {'Retry-After': String(failure.retryAfter)}
      response
        .writeHead(failure.status, {'Content-Type': 'application/json', ...wait})
        .end(JSON.stringify(statusOf(failure)))
    }
  })
}

/** Nothing when the answer goes on, as a watch does. */
function work(
  server: Server,
  request: IncomingMessage,
  {response, body}: {response: ServerResponse; body: string},
): Json | undefined {
  const {options, store, faults} = server
  const user = userOf(request, options.data)
  failIfAsked(server, request.url!)
  const url = new URL(request.url!, 'https://api')
  if (url.pathname === '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews')
    return review({folder: options.data, user}, request, body)
  const known = url.pathname === '/version' ? store.file('version') : discovery(url.pathname)
  if (known) return known
  const {group, namespace, resource, name} = pathOf(url)
  const watching = /^(1|true)$/.test(url.searchParams.get('watch') ?? '')
  allowed(resource, name, faults)
  const verb = watching ? 'watch' : name === undefined ? 'list' : 'get'
  mustBeAllowed(options.data, user, {verb, resource, namespace, name})
  if (resource === 'configmaps' && name === 'kube-proxy') return proxyConfig(store, faults)
  if (!GROUPS[group]?.includes(resource)) throw notFound()
  refuse(resource, {namespace, faults})
  const shape = group === OLD_SLICES ? oldSlice : withPrivate
  if (watching) return void watch(server, response, {url, resource, namespace, shape})
  return answer(server, {url, resource, namespace, name, shape})
}

const notFound = (): Failure =>
  new Failure(404, 'the server could not find the requested resource', {reason: 'NotFound'})

function failIfAsked(server: Server, path: string): void {
  const {status, path: part = '', times, retryAfter} = server.faults
  if (!status || !path.includes(part) || (times !== undefined && server.failed >= times)) return
  server.failed++
  const message =
    status === 401
      ? 'Unauthorized'
      : status === 429
        ? 'too many requests, please try again later'
        : 'etcdserver: request timed out'
  throw new Failure(status, message, retryAfter === undefined ? {} : {retryAfter})
}

/** How an object is told to those who ask. */
type Shape = (item: Item) => Item

/** discovery.k8s.io/v1beta1 names an endpoint's node in its topology. */
function oldSlice(item: Item): Item {
  const endpoints = ((item['endpoints'] ?? []) as Json[]).map(({nodeName, ...endpoint}) => ({
    ...endpoint,
    ...(nodeName === undefined ? {} : {topology: {'kubernetes.io/hostname': nodeName}}),
  }))
  return {...item, apiVersion: 'discovery.k8s.io/v1beta1', kind: 'EndpointSlice', endpoints}
}

const versionOf = (store: Store, resource: string, shape: Shape): string =>
  shape === oldSlice ? OLD_SLICES.slice('/apis/'.length) : store.list(resource).apiVersion

interface Path {
  readonly group: string
  readonly namespace: string | undefined
  readonly resource: string
  readonly name: string | undefined
}

function pathOf({pathname}: URL): Path {
  const match = /^(\/api\/v1|\/apis\/[\w.]+\/v1(?:beta1)?)(?:\/namespaces\/([\w-]+))?\/([\w-]+)(?:\/([\w.-]+))?$/.exec(
    pathname,
  )
  if (!match) throw notFound()
  return {group: match[1]!, namespace: match[2], resource: match[3]!, name: match[4]}
}

function answer(
  {store, faults, expired}: Server,
  {url, resource, namespace, name, shape}: {url: URL; shape: Shape} & Omit<Path, 'group'>,
): Json {
  const {items} = store.list(resource)
  const apiVersion = versionOf(store, resource, shape)
  const own = items.filter((item) => namespace === undefined || item.metadata.namespace === namespace)
  if (name !== undefined) {
    const found = own.find((item) => item.metadata.name === name)
    if (!found) throw new Failure(404, `${resource} "${name}" not found`, {reason: 'NotFound'})
    return {...shape(found), apiVersion, kind: KINDS[resource]}
  }
  const list = {
    apiVersion,
    kind: `${KINDS[resource]}List`,
    items: own.filter((item) => selects(url, item)).map(shape),
  }
  return page(list, {url, version: store.version, expired: faults.expire ? expired : undefined})
}

function page(
  list: Json & {items: Item[]},
  {url, version, expired}: {url: URL; version: number; expired: Set<string> | undefined},
): Json {
  const {items} = list
  const {pathname, searchParams} = url
  const limit = Math.min(PAGE, Number(searchParams.get('limit') ?? items.length) || items.length)
  const token = searchParams.get('continue')
  if (token !== null && expired && !expired.has(pathname)) {
    expired.add(pathname)
    throw new Failure(410, 'The provided continue parameter is too old to display a consistent list result.', {
      reason: 'Expired',
    })
  }
  const start = token === null ? 0 : Number(Buffer.from(token, 'base64').toString())
  const end = searchParams.has('limit') ? start + limit : items.length
  const next =
    end < items.length
      ? {continue: Buffer.from(String(end)).toString('base64'), remainingItemCount: items.length - end}
      : {}
  return {...list, metadata: {resourceVersion: String(version), ...next}, items: items.slice(start, end)}
}

/** Events as lines of JSON, and bookmarks for those who asked for them. */
function watch(
  {store, watchers}: Server,
  response: ServerResponse,
  {url, resource, namespace, shape}: {url: URL; shape: Shape} & Pick<Path, 'resource' | 'namespace'>,
): void {
  const send = (type: string, object: Json): void => void response.write(`${JSON.stringify({type, object})}\n`)
  const kind = {apiVersion: versionOf(store, resource, shape), kind: KINDS[resource]}
  const since = Number(url.searchParams.get('resourceVersion') ?? '') || store.version
  response.writeHead(200, {'Content-Type': 'application/json'})
  response.flushHeaders()
  try {
    const stop = store.watch(since, (event) => {
      const mine =
        event.resource === resource && (namespace === undefined || event.object.metadata.namespace === namespace)
      if (mine && selects(url, event.object)) send(event.type, {...shape(event.object), ...kind})
    })
    const marks = /^(1|true)$/.test(url.searchParams.get('allowWatchBookmarks') ?? '')
      ? setInterval(
          () => send('BOOKMARK', {...kind, metadata: {resourceVersion: String(store.version)}}),
          BOOKMARK_EVERY,
        )
      : undefined
    watchers.add(response)
    response.on('close', () => {
      stop()
      clearInterval(marks)
      watchers.delete(response)
    })
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    send('ERROR', statusOf(error))
    response.end()
  }
}

/** pods/exec: the command runs on the pod's node, whose network a pod with hostNetwork shares. */
function execute({options, store, faults}: Server, peer: WebSocket, request: IncomingMessage): void {
  const url = new URL(request.url!, 'https://api')
  const [, namespace, name] = /^\/api\/v1\/namespaces\/([\w-]+)\/pods\/([\w-]+)\/exec$/.exec(url.pathname) ?? []
  const command = url.searchParams.getAll('command')
  const end = (status: Json): void => {
    peer.send(Buffer.from(`\u0003${JSON.stringify({apiVersion: 'v1', kind: 'Status', ...status})}`))
    peer.close()
  }
  try {
    mustBeAllowed(options.data, userOf(request, options.data), {verb: 'create', resource: 'pods/exec', namespace, name})
  } catch (error) {
    return end(statusOf(error as Failure))
  }
  const pod = store.list('pods').items.find(({metadata}) => metadata.name === name && metadata.namespace === namespace)
  if (!pod) return end({status: 'Failure', reason: 'NotFound', message: `pods "${name}" not found`, code: 404})
  if (faults.shellless && command[0] === 'sh')
    return end({
      status: 'Failure',
      reason: 'InternalError',
      message: 'exec: "sh": executable file not found in $PATH',
      code: 500,
    })
  const {nodeName} = pod['spec'] as {nodeName: string}
  const [program, ...args] = [
    ...options.exec.map((word) => word.replace('NODE', nodeName)),
    ...command.map((word) => quote(word, options.exec)),
  ]
  const child = spawn(program!, args, {stdio: ['ignore', 'pipe', 'pipe']})
  child.stdout.on('data', (chunk: Buffer) => peer.send(Buffer.concat([Buffer.from([1]), chunk])))
  child.stderr.on('data', (chunk: Buffer) => peer.send(Buffer.concat([Buffer.from([2]), chunk])))
  child.on('close', (code) => {
    const causes = [{reason: 'ExitCode', message: String(code)}]
    end(code === 0 ? {status: 'Success'} : {status: 'Failure', reason: 'NonZeroExitCode', details: {causes}})
  })
}

/** ssh joins its words into one line for a shell. */
const quote = (word: string, exec: readonly string[]): string =>
  exec[0] === 'ssh' ? `'${word.replaceAll("'", "'\\''")}'` : word

function allowed(resource: string, name: string | undefined, {allow}: Faults): void {
  const what = name === undefined ? resource : `${resource}/${name}`
  if (allow && !allow.includes(what))
    throw new Failure(403, `${what} is forbidden: User "tester" cannot read it`, {reason: 'Forbidden'})
}

function refuse(
  resource: string,
  {namespace, faults: {forbid}}: {namespace: string | undefined; faults: Faults},
): void {
  const cluster = namespace === undefined && forbid?.includes(`${resource}@cluster`)
  if (!cluster && !forbid?.includes(resource)) return
  const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`
  throw new Failure(
    403,
    `${resource} is forbidden: User "tester" cannot list resource "${resource}" in API group "" ${scope}`,
    {reason: 'Forbidden'},
  )
}

function review({folder, user}: {folder: string; user: string}, {headers}: IncomingMessage, body: string): Json {
  if (!/json/.test(headers['content-type'] ?? 'json'))
    throw new Failure(415, 'only JSON is understood here', {reason: 'UnsupportedMediaType'})
  const {spec} = JSON.parse(body || '{}') as {
    spec?: {
      resourceAttributes?: {verb?: string; resource?: string; subresource?: string; namespace?: string; name?: string}
    }
  }
  const {verb = '*', resource = '*', subresource, namespace, name} = spec?.resourceAttributes ?? {}
  const request: Request = {
    verb,
    resource: subresource ? `${resource}/${subresource}` : resource,
    namespace: namespace || undefined,
    name,
  }
  const kind = {apiVersion: 'authorization.k8s.io/v1', kind: 'SelfSubjectAccessReview'}
  return {...kind, spec, status: {allowed: mayDo(folder, user, request)}}
}

function discovery(path: string): Json | undefined {
  const named = Object.keys(GROUPS)
    .filter((group) => group.startsWith('/apis/') && group !== OLD_SLICES)
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
    verbs: ['get', 'list', 'watch'],
    ...SHORT[name],
  }))
  return {kind: 'APIResourceList', apiVersion: 'v1', groupVersion: path.replace(/^\/apis?\//, ''), resources}
}

const SHORT: Readonly<Record<string, {shortNames: string[]}>> = {
  namespaces: {shortNames: ['ns']},
  nodes: {shortNames: ['no']},
  services: {shortNames: ['svc']},
  endpoints: {shortNames: ['ep']},
  pods: {shortNames: ['po']},
  ingresses: {shortNames: ['ing']},
  networkpolicies: {shortNames: ['netpol']},
  daemonsets: {shortNames: ['ds']},
}

function proxyConfig(store: Store, {forbid}: Faults): Json {
  if (forbid?.includes('configmaps'))
    throw new Failure(403, 'configmaps "kube-proxy" is forbidden', {reason: 'Forbidden'})
  const config = store.file('configmap-kube-proxy')
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
