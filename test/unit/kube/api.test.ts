/** What an API server, a proxy and certificates can do wrong, with real TLS. */
import {execFileSync} from 'node:child_process'
import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {createServer as createPlainServer, type Server as PlainServer} from 'node:http'
import {createServer, type Server} from 'node:https'
import {connect, type AddressInfo} from 'node:net'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import type {TLSSocket} from 'node:tls'
import {expect} from 'chai'
import {ApiFailure, openApi} from '../../../src/kube/api.js'
import {execCredential} from '../../../src/kube/exec-credential.js'
import {readConnection, type Connection} from '../../../src/kube/kubeconfig.js'
import {proxyFromEnvironment} from '../../../src/kube/proxy.js'
import {SvcTraceError} from '../../../src/model/errors.js'

describe('an API server', () => {
  let folder = ''
  let web: Server
  let asked: string[] = []
  let respond: (path: string) => {status: number; body?: object; headers?: Record<string, string>; text?: string}

  const openssl = (line: string): string =>
    execFileSync('openssl', line.replaceAll('@', `${folder}/`).split(' '), {encoding: 'utf8', stdio: 'pipe'})
  const key = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
  const certificate = (name: string, flags: string): void => {
    openssl(`req ${key} -subj /CN=${name} -keyout @${name}.key -out @${name}.csr`)
    openssl(`x509 -req -in @${name}.csr -CA @ca.crt -CAkey @ca.key -CAcreateserial -out @${name}.crt ${flags}`)
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'svct-api-'))
    for (const ca of ['ca', 'other'])
      openssl(`req -x509 ${key} -days 2 -subj /CN=${ca} -keyout @${ca}.key -out @${ca}.crt`)
    execFileSync('sh', [
      '-c',
      `printf 'subjectAltName=IP:127.0.0.1,DNS:api.lab\\n' >${folder}/san; printf 'subjectAltName=DNS:elsewhere\\n' >${folder}/san2`,
    ])
    certificate('server', '-days 2 -extfile @san')
    certificate('elsewhere', '-days 2 -extfile @san2')
    certificate('user', '-days 2')
    // its time is over as soon as it begins
    certificate('late', '-days -1')
    web = createServer(
      {
        key: read('server.key'),
        cert: read('server.crt'),
        ca: read('ca.crt'),
        requestCert: true,
        rejectUnauthorized: false,
      },
      (request, response) => {
        asked.push(request.url!)
        const {authorized, authorizationError} = request.socket as TLSSocket
        const {
          status,
          body = {},
          headers = {},
          text,
        } = authorized
          ? respond(request.url!)
          : {status: 401, body: {message: `Unauthorized: ${String(authorizationError)}`}}
        response.writeHead(status, headers).end(text ?? JSON.stringify(body))
      },
    )
    await new Promise<void>((settle) => web.listen(0, '127.0.0.1', settle))
  })
  after(() => {
    web.close()
    rmSync(folder, {recursive: true, force: true})
  })
  beforeEach(() => {
    asked = []
    respond = () => ({status: 200, body: {kind: 'PodList', items: []}})
  })

  const read = (name: string): string => readFileSync(join(folder, name), 'utf8')
  const connection = (changes: {cluster?: object; user?: object; server?: string} = {}): Connection =>
    ({
      context: 'c',
      namespace: 'default',
      server: changes.server ?? `https://127.0.0.1:${(web.address() as AddressInfo).port}`,
      cluster: {'certificate-authority': join(folder, 'ca.crt'), ...changes.cluster},
      user: {'client-certificate': join(folder, 'user.crt'), 'client-key': join(folder, 'user.key'), ...changes.user},
    }) as unknown as Connection

  async function get(changes: Parameters<typeof connection>[0] = {}, timeout = 5000): Promise<Record<string, unknown>> {
    const api = await openApi(connection(changes), {timeout, signal: new AbortController().signal})
    try {
      return await api.get('/api/v1/pods')
    } finally {
      api.close()
    }
  }

  async function failure(changes: Parameters<typeof connection>[0] = {}, timeout?: number): Promise<SvcTraceError> {
    try {
      await get(changes, timeout)
    } catch (error) {
      expect(error).to.be.instanceOf(SvcTraceError)
      return error as SvcTraceError
    }
    throw new Error('it answered')
  }

  it('answers', async () => {
    expect(await get()).to.deep.equal({kind: 'PodList', items: []})
  })

  it('of another authority is refused', async () => {
    const {message, hint} = await failure({cluster: {'certificate-authority': join(folder, 'other.crt')}})
    expect(message).to.match(/^the certificate of https:\/\/127\.0\.0\.1:\d+ is not valid for this kubeconfig/)
    expect(hint).to.match(/certificate-authority/)
    expect(asked).to.deep.equal([])
  })

  it('that is somebody else is refused, unless its name is given', async () => {
    web.setSecureContext({key: read('elsewhere.key'), cert: read('elsewhere.crt'), ca: read('ca.crt')})
    try {
      expect((await failure()).message).to.match(/is not valid for this kubeconfig.*altnames/)
      expect(await get({cluster: {'tls-server-name': 'elsewhere'}})).to.have.property('kind')
    } finally {
      web.setSecureContext({key: read('server.key'), cert: read('server.crt'), ca: read('ca.crt')})
    }
  })

  it('does not take a client certificate whose time is over', async () => {
    const {message, hint} = await failure({
      user: {'client-certificate': join(folder, 'late.crt'), 'client-key': join(folder, 'late.key')},
    })
    expect(message).to.match(/asked for credentials.*CERT_HAS_EXPIRED/)
    expect(hint).to.match(/still valid/)
  })

  it('says too many requests: waits as long as it is told, and asks again', async () => {
    respond = () => (asked.length === 1 ? {status: 429, headers: {'Retry-After': '1'}} : {status: 200})
    const begin = Date.now()
    await get()
    expect(Date.now() - begin).to.be.at.least(990)
    expect(asked).to.have.length(2)
  })

  it('fails for a moment, or for good', async () => {
    respond = () => ({status: asked.length < 3 ? 503 : 200})
    await get()
    expect(asked).to.have.length(3)
    respond = () => ({status: 500, body: {message: 'etcdserver: leader changed'}})
    const error = await failure()
    expect(error).to.be.instanceOf(ApiFailure)
    expect(error.message).to.equal('the API server says: etcdserver: leader changed (HTTP 500)')
  })

  for (const status of [403, 404, 410])
    it(`says ${status}, once`, async () => {
      respond = () => ({status, body: {message: 'no'}})
      expect((await failure()).message).to.equal(`the API server says: no (HTTP ${status})`)
      expect(asked).to.have.length(1)
    })

  it('that is none is told from one', async () => {
    respond = () => ({status: 200, text: '<html>login</html>'})
    const {message, hint} = await failure()
    expect(message).to.match(/does not answer like a Kubernetes API server/)
    expect(hint).to.match(/server address/)
  })

  it('that is too slow', async () => {
    const slow = createPlainServer(() => undefined)
    await new Promise<void>((settle) => slow.listen(0, '127.0.0.1', settle))
    const {message, hint} = await failure({server: `http://127.0.0.1:${(slow.address() as AddressInfo).port}`}, 300)
    expect(message).to.match(/did not answer in time/)
    expect(hint).to.match(/--request-timeout/)
    slow.closeAllConnections()
    slow.close()
  })

  it('where nobody listens', async () => {
    const {message} = await failure({server: 'https://127.0.0.1:1'})
    expect(message).to.match(/cannot reach the API server https:\/\/127\.0\.0\.1:1: ECONNREFUSED/)
  })

  describe('behind a proxy', () => {
    let proxy: PlainServer
    let through: string[] = []
    let refuse = 0
    before(async () => {
      proxy = createPlainServer()
      proxy.on('connect', (request, socket) => {
        through.push(`${request.url} ${request.headers['proxy-authorization'] ?? ''}`)
        if (refuse > 0) return void socket.end(`HTTP/1.1 ${refuse} No\r\n\r\n`)
        const far = connect((web.address() as AddressInfo).port, '127.0.0.1', () => {
          socket.write('HTTP/1.1 200 OK\r\n\r\n')
          far.pipe(socket).pipe(far)
        })
      })
      await new Promise<void>((settle) => proxy.listen(0, '127.0.0.1', settle))
    })
    after(() => proxy.close())
    beforeEach(() => {
      through = []
      refuse = 0
    })
    afterEach(() => {
      delete process.env['HTTPS_PROXY']
      delete process.env['NO_PROXY']
    })
    const address = (): string => `127.0.0.1:${(proxy.address() as AddressInfo).port}`

    it('that the kubeconfig names', async () => {
      await get({server: 'https://api.lab:6443', cluster: {'proxy-url': `http://me:secret@${address()}`}})
      expect(through).to.deep.equal([`api.lab:6443 Basic ${Buffer.from('me:secret').toString('base64')}`])
      expect(asked).to.deep.equal(['/api/v1/pods'])
    })

    it('that the environment names, but for what it leaves out and for this machine', async () => {
      process.env['HTTPS_PROXY'] = `http://${address()}`
      await get({server: 'https://api.lab:6443'})
      expect(through).to.deep.equal(['api.lab:6443 '])
      await get()
      process.env['NO_PROXY'] = '.lab'
      expect((await failure({server: 'https://api.lab:6443'})).message).to.match(/cannot reach the API server/)
      expect(through).to.have.length(1)
    })

    it('of an http server gets whole URLs', async () => {
      const urls: string[] = []
      const plain = createPlainServer((request, response) => {
        urls.push(`${request.url} ${request.headers.host} ${request.headers['proxy-authorization'] ?? ''}`)
        response.end('{"kind":"PodList"}')
      })
      await new Promise<void>((settle) => plain.listen(0, '127.0.0.1', settle))
      const at = `127.0.0.1:${(plain.address() as AddressInfo).port}`
      const found = await get({server: 'http://api.lab:8080', cluster: {'proxy-url': `http://me:pw@${at}`}})
      expect(found).to.deep.equal({kind: 'PodList'})
      expect(urls).to.deep.equal([
        `http://api.lab:8080/api/v1/pods api.lab:8080 Basic ${Buffer.from('me:pw').toString('base64')}`,
      ])
      plain.close()
    })

    it('that refuses is named, without its password', async () => {
      refuse = 407
      const {message} = await failure({
        server: 'https://api.lab:6443',
        cluster: {'proxy-url': `http://me:secret@${address()}`},
      })
      expect(message).to.match(/https:\/\/api\.lab:6443 by the proxy http:\/\/127\.0\.0\.1:\d+: .*407/)
      expect(message).not.to.include('secret')
    })
  })
})

describe('the proxy of the environment, by Go’s rules', () => {
  const of = (server: string, env: Record<string, string>): string | undefined =>
    proxyFromEnvironment(new URL(server), env)
  const P = {HTTPS_PROXY: 'http://p:1'}
  for (const [server, env, expected] of [
    ['https://10.1.2.3:6443', P, 'http://p:1'],
    ['https://10.1.2.3:6443', {https_proxy: 'p:3128'}, 'http://p:3128'],
    ['https://10.1.2.3:6443', {HTTP_PROXY: 'http://p:1', ALL_PROXY: 'http://p:1'}, undefined],
    ['http://10.1.2.3:8080', {HTTP_PROXY: 'http://p:1'}, 'http://p:1'],
    ['https://localhost:6443', P, undefined],
    ['https://127.9.9.9:6443', P, undefined],
    ['https://[::1]:6443', P, undefined],
    ['https://10.1.2.3:6443', {...P, NO_PROXY: '10.0.0.0/8'}, undefined],
    ['https://11.1.2.3:6443', {...P, NO_PROXY: '10.0.0.0/8, 10.1.2.3'}, 'http://p:1'],
    ['https://10.1.2.3:6443', {...P, NO_PROXY: '10.1.2.3'}, undefined],
    ['https://10.1.2.3:6443', {...P, NO_PROXY: '10.1.2.3:443'}, 'http://p:1'],
    ['https://10.1.2.3:6443', {...P, NO_PROXY: '10.1.2.3:6443'}, undefined],
    ['https://[fd00::1]:6443', {...P, NO_PROXY: 'fd00::/8'}, undefined],
    ['https://[fd00::1]:6443', {...P, NO_PROXY: '[fd00::1]:6443'}, undefined],
    ['https://api.corp.example', {...P, NO_PROXY: 'corp.example'}, undefined],
    ['https://corp.example', {...P, NO_PROXY: 'corp.example'}, undefined],
    ['https://corp.example', {...P, NO_PROXY: '.corp.example'}, 'http://p:1'],
    ['https://api.corp.example', {...P, no_proxy: '*.corp.example'}, undefined],
    ['https://notcorp.example', {...P, NO_PROXY: 'corp.example'}, 'http://p:1'],
    ['https://API.Corp.Example', {...P, NO_PROXY: 'CORP.example'}, undefined],
    ['https://anything', {...P, NO_PROXY: '*'}, undefined],
    ['https://anything', {...P, NO_PROXY: ' , '}, 'http://p:1'],
  ] as const)
    it(`${server} with ${JSON.stringify(env)}`, () => expect(of(server, env)).to.equal(expected))
})

describe('a kubeconfig that is broken', () => {
  const good = {
    'current-context': 'a',
    contexts: [{name: 'a', context: {cluster: 'a', user: 'a'}}],
    clusters: [{name: 'a', cluster: {server: 'https://127.0.0.1:1'}}],
    users: [{name: 'a', user: {token: 't'}}],
  }
  const cluster = (settings: object): object => ({...good, clusters: [{name: 'a', cluster: settings}]})
  const user = (settings: object): object => ({...good, users: [{name: 'a', user: settings}]})
  const plugin = (settings: object): object =>
    user({exec: {apiVersion: 'client.authentication.k8s.io/v1', ...settings}})
  const server = 'https://127.0.0.1:1'
  let folder = ''
  before(() => (folder = mkdtempSync(join(tmpdir(), 'svct-kc-'))))
  after(() => rmSync(folder, {recursive: true, force: true}))

  for (const [what, config, message] of [
    ['empty', '', /no current context/],
    ['no YAML', 'a: [b', /kubeconfig .* is not valid: .*\(2:1\)/],
    ['a word', 'hello', /is not a mapping/],
    ['no current context', {...good, 'current-context': undefined}, /no current context/],
    ['an unknown context', {...good, 'current-context': 'zz'}, /context "zz" does not exist/],
    ['an unknown cluster', {...good, clusters: []}, /cluster "a" does not exist/],
    ['an unknown user', {...good, users: []}, /auth info "a" does not exist/],
    ['no server', cluster({}), /cluster "a" has no server/],
    ['a server that is no URL', cluster({server: '::nonsense'}), /server of cluster "a" is not a URL: ::nonsense/],
    ['a CA file that is not there', cluster({server, 'certificate-authority': '/nope'}), /ENOENT.*\/nope/],
    ['a certificate that is not there', user({'client-certificate': '/nope'}), /ENOENT.*\/nope/],
    [
      'a certificate that is none',
      user({'client-certificate-data': 'aGVsbG8=', 'client-key-data': 'aGVsbG8='}),
      /client certificate or key cannot be used/,
    ],
    ['a token file that is not there', user({tokenFile: '/nope'}), /cannot read \/nope/],
    ['a plugin without a command', plugin({}), /names no command/],
    [
      'a plugin that is not installed',
      plugin({command: 'no-such-plugin'}),
      /credential plugin no-such-plugin is not installed/,
    ],
    [
      'a plugin that fails',
      plugin({command: 'sh', args: ['-c', 'echo first >&2; echo log in again >&2; exit 1']}),
      /credential plugin sh failed: log in again/,
    ],
    ['an auth provider that is gone', user({'auth-provider': {name: 'gcp'}}), /auth provider gcp/],
  ] as const)
    it(`${what}: one sentence, no stack`, async () => {
      const kubeconfig = join(folder, 'config')
      writeFileSync(kubeconfig, typeof config === 'string' ? config : JSON.stringify(config))
      let error: unknown
      try {
        const api = await openApi(readConnection({kubeconfig}), {timeout: 1000, signal: new AbortController().signal})
        await api.get('/version')
      } catch (caught) {
        error = caught
      }
      expect(error).to.be.instanceOf(SvcTraceError)
      expect((error as Error).message)
        .to.match(message)
        .and.not.include('\n')
    })

  it('a plugin that says nothing is given up', async () => {
    const error = await execCredential({command: 'sleep', args: ['5']}, server, 200).catch((caught: Error) => caught)
    expect(error).to.be.instanceOf(SvcTraceError)
    expect((error as Error).message).to.equal('credential plugin sleep did not answer within 0.2 s')
  })

  it('a server without a scheme is https where there are TLS settings', () => {
    const kubeconfig = join(folder, 'config')
    const of = (settings: object): string => {
      writeFileSync(kubeconfig, JSON.stringify(cluster(settings)))
      return readConnection({kubeconfig}).server
    }
    expect(of({server: 'host:6443', 'certificate-authority-data': 'x'})).to.equal('https://host:6443')
    expect(of({server: 'host:8080'})).to.equal('http://host:8080')
  })
})
