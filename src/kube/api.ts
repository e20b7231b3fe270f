import {readFileSync} from 'node:fs'
import {Agent as HttpAgent, request as httpRequest, type IncomingMessage} from 'node:http'
import {Agent as HttpsAgent, request as httpsRequest, type RequestOptions} from 'node:https'
import {setTimeout as sleep} from 'node:timers/promises'
import {KubeConfig} from '@kubernetes/client-node'
import {SvcTraceError} from '../model/errors.js'
import {limited} from '../util/limited.js'
import {execCredential, type Credential} from './exec-credential.js'
import type {Connection} from './kubeconfig.js'
import {proxyFromEnvironment} from './proxy.js'

/** An answer that is not a success. */
export class ApiFailure extends SvcTraceError {
  readonly status: number
  /** Seconds that the server wants us to wait (Retry-After); 0: it does not say. */
  readonly retryAfter: number

  constructor(status: number, message: string, retryAfter = 0) {
    super(status === 403 ? 'Forbidden' : 'ApiError', `the API server says: ${message} (HTTP ${status})`)
    this.status = status
    this.retryAfter = retryAfter
  }
}

/** A read-only client of one API server. */
export interface Api {
  /** `accept`: another form of the answer than plain JSON objects. */
  readonly get: (path: string, accept?: string) => Promise<Record<string, unknown>>
  readonly post: (path: string, body: object) => Promise<Record<string, unknown>>
  /** Settles with the next change of an object in this list (a watch that begins now). */
  readonly change: (path: string) => Promise<void>
  readonly close: () => void
}

interface ApiOptions {
  /** Milliseconds for one request; 0: none. */
  readonly timeout: number
  readonly signal: AbortSignal
}

/** Opens a connection with client-node's own handling of certificates; credential plugins and token files are ours (style.md §5.2). */
export async function openApi(connection: Connection, options: ApiOptions): Promise<Api> {
  const url = new URL(connection.server)
  const secure = url.protocol === 'https:'
  const proxy = proxyOf(connection)
  const {options: tls, headers, agent: own} = await authenticate(connection, proxy)
  const agent = own ?? (secure ? new HttpsAgent({keepAlive: true}) : new HttpAgent({keepAlive: true}))
  const base = {
    url,
    secure,
    agent,
    options,
    tls,
    plainProxy: secure || proxy === undefined ? undefined : new URL(proxy),
    by: proxy === undefined ? '' : ` by the proxy ${withoutPassword(proxy)}`,
  }
  return {
    get: (path, accept = 'application/json') =>
      retry(() => send({...base, method: 'GET', path, headers: {...headers, Accept: accept}}), options.signal),
    post: (path, body) => send({...base, method: 'POST', path, headers, body: JSON.stringify(body)}),
    change: (path) => nextChange({...base, method: 'GET', path, headers}),
    close: () => agent.destroy(),
  }
}

/** client-node's configuration with the credentials of a connection, for what needs client-node itself (exec). */
export async function credentialConfig(connection: Connection): Promise<KubeConfig> {
  return (await credentials(connection, proxyOf(connection))).config
}

async function credentials(
  {cluster, user, server}: Connection,
  proxy: string | undefined,
): Promise<{config: KubeConfig; token: string | undefined}> {
  const credential = user['exec'] ? await execCredential(user['exec'] as Record<string, unknown>, server) : {}
  const token =
    credential.token ??
    (typeof user['tokenFile'] === 'string' ? readText(user['tokenFile']) : (user['token'] as string | undefined))
  return {config: clientConfig({cluster, user, server}, {token, credential, proxy}), token}
}

/** The cluster's own, else that of the environment. */
const proxyOf = ({cluster, server}: Connection): string | undefined =>
  text(cluster['proxy-url']) ?? proxyFromEnvironment(new URL(server))

function withoutPassword(proxy: string): string {
  try {
    const {protocol, host} = new URL(proxy)
    return `${protocol}//${host}`
  } catch {
    return '(not a URL)'
  }
}

async function authenticate(
  connection: Connection,
  proxy: string | undefined,
): Promise<{options: RequestOptions; headers: Record<string, string | string[]>; agent: HttpsAgent | undefined}> {
  const {cluster, user, server} = connection
  const {config, token} = await credentials(connection, proxy)
  const options: RequestOptions = {}
  if (server.startsWith('https:')) {
    try {
      await config.applyToHTTPSOptions(options)
    } catch (error) {
      const {name: provider} = (user['auth-provider'] ?? {}) as {name?: unknown}
      throw new SvcTraceError(
        'BadKubeconfig',
        `the kubeconfig's credentials cannot be used: ${provider === undefined ? '' : `auth provider ${String(provider)}: `}${(error as Error).message}`,
        provider === undefined ? undefined : 'kubectl has dropped these: use a credential plugin (exec)',
        {cause: error},
      )
    }
  }
  const {headers: own, agent, ...rest} = options
  const headers = {
    ...(own as Record<string, string>),
    ...(token ? {Authorization: `Bearer ${token}`} : {}),
    ...impersonation(user),
  }
  return {
    options: {
      ...rest,
      rejectUnauthorized: cluster['insecure-skip-tls-verify'] !== true,
      ...(text(cluster['tls-server-name']) ? {servername: text(cluster['tls-server-name'])} : {}),
    },
    headers,
    // client-node's agent is the one that speaks with proxies; ours keeps connections open
    agent: proxy === undefined ? undefined : (agent as HttpsAgent),
  }
}

/** client-node's own form of the cluster and user that we chose. */
function clientConfig(
  {cluster, user, server}: Pick<Connection, 'cluster' | 'user' | 'server'>,
  {token, credential, proxy}: {token: string | undefined; credential: Credential; proxy: string | undefined},
): KubeConfig {
  const config = new KubeConfig()
  config.loadFromOptions({
    clusters: [
      {
        name: 'c',
        server,
        skipTLSVerify: cluster['insecure-skip-tls-verify'] === true,
        caFile: text(cluster['certificate-authority']),
        caData: text(cluster['certificate-authority-data']),
        tlsServerName: text(cluster['tls-server-name']),
        proxyUrl: proxy,
      },
    ],
    users: [
      {
        name: 'u',
        token,
        username: text(user['username']),
        password: text(user['password']),
        authProvider: user['auth-provider'],
        certFile: text(user['client-certificate']),
        certData: credential.certificate ? base64(credential.certificate) : text(user['client-certificate-data']),
        keyFile: text(user['client-key']),
        keyData: credential.key ? base64(credential.key) : text(user['client-key-data']),
      },
    ],
    contexts: [{name: 'x', cluster: 'c', user: 'u'}],
    currentContext: 'x',
  })
  return config
}

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)

const base64 = (text: string): string => Buffer.from(text).toString('base64')

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (error) {
    throw new SvcTraceError('BadKubeconfig', `cannot read ${path}: ${(error as Error).message}`, undefined, {
      cause: error,
    })
  }
}

function impersonation(user: Record<string, unknown>): Record<string, string | string[]> {
  return {
    ...(typeof user['as'] === 'string' ? {'Impersonate-User': user['as']} : {}),
    ...(Array.isArray(user['as-groups']) ? {'Impersonate-Group': user['as-groups'].map(String)} : {}),
    ...(typeof user['as-uid'] === 'string' ? {'Impersonate-Uid': user['as-uid']} : {}),
  }
}

interface Call {
  readonly method: string
  readonly url: URL
  readonly path: string
  readonly secure: boolean
  readonly agent: HttpAgent | HttpsAgent
  readonly headers: Record<string, string | string[]>
  readonly options: ApiOptions
  readonly tls: RequestOptions
  /** The proxy of an http server takes whole URLs; that of an https server is the agent's business. */
  readonly plainProxy: URL | undefined
  /** Which proxy is in between, for errors. */
  readonly by: string
  readonly body?: string
}

/** Lists one object to learn where «now» is, then reads events until one is a change. */
async function nextChange(call: Call): Promise<void> {
  const {metadata} = (await send({...call, path: `${call.path}?limit=1`})) as {metadata?: {resourceVersion?: string}}
  const path = `${call.path}?watch=1&resourceVersion=${encodeURIComponent(metadata?.resourceVersion ?? '')}`
  return new Promise((resolve, reject) => {
    const request = open(call.secure, requestOptions({...call, path}), (response) => {
      if (response.statusCode !== 200) return reject(new ApiFailure(response.statusCode ?? 0, 'watching is refused'))
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        const lines = (text + chunk).split('\n')
        text = lines.pop() ?? ''
        if (lines.some((line) => /^\{"type":"(ADDED|MODIFIED|DELETED)"/.test(line))) resolve()
      })
      response.on('error', reject)
      response.on('end', () => reject(new ApiFailure(0, 'the watch has ended')))
    })
    request.on('error', reject)
    request.end()
  })
}

function requestOptions({
  method,
  url,
  path,
  secure,
  agent,
  headers,
  options,
  tls,
  body,
  plainProxy,
}: Call): RequestOptions {
  const prefix = url.pathname === '/' ? '' : url.pathname.replace(/\/$/, '')
  const first = plainProxy ?? url
  return {
    ...(secure ? tls : {}),
    agent,
    method,
    host: first.hostname.replaceAll(/[[\]]/g, ''),
    port: first.port || (secure ? 443 : 80),
    path: `${plainProxy ? url.origin : ''}${prefix}${path}`,
    headers: {
      Accept: 'application/json',
      ...(plainProxy ? proxyHeaders(plainProxy, url) : {}),
      ...(body ? {'Content-Type': 'application/json'} : {}),
      ...headers,
    },
    signal: options.timeout > 0 ? limited(options.signal, options.timeout) : options.signal,
  }
}

function proxyHeaders({username, password}: URL, {host}: URL): Record<string, string> {
  const words = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return {Host: host, ...(username === '' ? {} : {'Proxy-Authorization': `Basic ${base64(words)}`})}
}

function send(call: Call): Promise<Record<string, unknown>> {
  const {url, secure, options, body, by} = call
  return new Promise((resolve, reject) => {
    const request = open(secure, requestOptions(call), (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () =>
        answer(
          response.statusCode ?? 0,
          {
            text: Buffer.concat(chunks).toString('utf8'),
            server: url.origin,
            retryAfter: Number(response.headers['retry-after']) || 0,
          },
          {resolve, reject},
        ),
      )
    })
    request.on('error', (error) => reject(unreachable(error, `${url.origin}${by}`, options)))
    request.end(body)
  })
}

interface Settle {
  readonly resolve: (value: Record<string, unknown>) => void
  readonly reject: (error: Error) => void
}

function answer(
  status: number,
  {text, server, retryAfter}: {text: string; server: string; retryAfter: number},
  {resolve, reject}: Settle,
): void {
  let body: Record<string, unknown> = {}
  try {
    body = JSON.parse(text) as Record<string, unknown>
  } catch {
    if (status < 400)
      return reject(
        new SvcTraceError(
          'ApiError',
          `${server} does not answer like a Kubernetes API server`,
          'is the server address in the kubeconfig right?',
        ),
      )
  }
  if (status < 400) return resolve(body)
  const message = typeof body['message'] === 'string' ? body['message'] : text.trim().split('\n')[0]!.slice(0, 300)
  if (status === 401)
    return reject(
      new SvcTraceError(
        'Unauthorized',
        `the server has asked for credentials: ${message || 'Unauthorized'}`,
        'is the token or certificate of this context still valid? kubectl auth whoami',
      ),
    )
  reject(new ApiFailure(status, message || `HTTP ${status}`, retryAfter))
}

function unreachable(error: Error & {code?: string}, server: string, {signal}: ApiOptions): SvcTraceError {
  if (signal.aborted) return new SvcTraceError('Interrupted', 'interrupted')
  if (error.name === 'TimeoutError' || error.name === 'AbortError')
    return new SvcTraceError('ApiUnreachable', `${server} did not answer in time`, 'raise --request-timeout')
  const certificate = /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ALTNAME/.test(error.code ?? '')
  if (certificate)
    return new SvcTraceError(
      'ApiUnreachable',
      `the certificate of ${server} is not valid for this kubeconfig: ${error.message}`,
      'check certificate-authority and tls-server-name of the cluster',
    )
  return new SvcTraceError(
    'ApiUnreachable',
    `cannot reach the API server ${server}: ${error.code ?? error.message}`,
    'is the cluster up, and the context right? kubectl config current-context',
  )
}

const RETRIES = 3
/** Seconds that we wait at most when the server asks us to. */
const LONGEST_WAIT = 10

type Respond = (response: IncomingMessage) => void

/** Keys and certificates are read when the request is made; bad ones are the kubeconfig's fault. */
function open(secure: boolean, options: RequestOptions, respond: Respond): ReturnType<typeof httpRequest> {
  try {
    return secure ? httpsRequest(options, respond) : httpRequest(options, respond)
  } catch (error) {
    throw new SvcTraceError(
      'BadKubeconfig',
      `the client certificate or key cannot be used: ${(error as Error).message}`,
      'check client-certificate and client-key of the user',
      {cause: error},
    )
  }
}

/** Too many requests and server errors are worth another try. */
async function retry(
  call: () => Promise<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Record<string, unknown>> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call()
    } catch (error) {
      const again =
        error instanceof ApiFailure &&
        (error.status === 429 || error.status >= 500) &&
        attempt < RETRIES &&
        !signal.aborted
      if (!again) throw error
      const wait = error.retryAfter > 0 ? Math.min(error.retryAfter, LONGEST_WAIT) * 1000 : 200 * 2 ** attempt
      await sleep(wait, undefined, {signal}).catch(() => undefined)
    }
  }
}
