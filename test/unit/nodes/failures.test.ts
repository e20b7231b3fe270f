import {execFileSync, spawn} from 'node:child_process'
import {existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {createServer, type AddressInfo} from 'node:net'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {gzipSync} from 'node:zlib'
import {setTimeout as sleep} from 'node:timers/promises'
import {expect} from 'chai'
import ssh2, {type ServerChannel} from 'ssh2'
import {collectNodes, type NodeResult} from '../../../src/nodes/collect.js'
import {sshTransport} from '../../../src/nodes/ssh.js'
import {NodeUnreachable, type Transport} from '../../../src/nodes/transport.js'

const {Server, utils} = ssh2
const section = (file: string, text: string): string =>
  `@begin ${file}\n${text
    .split('\n')
    .map((line) => `|${line}`)
    .join('\n')}\n!rc=0\n@end ${file}\n`
const GOOD = `@svc-trace 1\n${section('iptables-save.txt', '*nat\nCOMMIT')}@done\n`

/** What a node does with the collector; the address that it is reached by says which. */
const NODES: Readonly<Record<string, (channel: ServerChannel) => void>> = {
  good: (channel) => finish(channel, GOOD),
  noisy: (channel) => finish(channel, `Welcome to node7!\nLast login: never\n${GOOD}bye\n`),
  cut: (channel) => finish(channel, GOOD.slice(0, 60)),
  hangs: (channel) => void channel.write(GOOD.slice(0, 60)),
  slow: (channel) => void channel.write(GOOD.replace('@done\n', '')),
  resets: (channel) => {
    channel.write(GOOD.slice(0, 60))
    setTimeout(
      () => (channel as unknown as {_client: {_sock: {resetAndDestroy: () => void}}})._client._sock.resetAndDestroy(),
      20,
    )
  },
  killed: (channel) => {
    channel.write(GOOD.slice(0, 40))
    channel.exit('KILL', false, 'Killed')
    channel.end()
  },
  nologin: (channel) => finish(channel, 'This account is currently not available.\n', 1),
  fish: (channel) => {
    channel.stderr.write('fish: Unknown command: /bin/sh\n')
    finish(channel, '', 127)
  },
  garbage: (channel) => finish(channel, Buffer.from(Array.from({length: 65536}, (_, at) => (at * 7919) % 256))),
  endless: (channel) => {
    const block = Buffer.alloc(256 * 1024, 'x')
    let closed = false
    let left = 1600
    for (const event of ['close', 'error']) channel.on(event, () => (closed = true))
    const more = (): void => {
      if (closed || left-- === 0) return void channel.end()
      if (channel.write(block)) setImmediate(more)
      else channel.once('drain', more)
    }
    more()
  },
}
const NAMES = Object.keys(NODES)

function finish(channel: ServerChannel, output: string | Buffer, code = 0): void {
  channel.write(output)
  channel.exit(code)
  channel.end()
}

/** The last byte of the address of a node that takes sessions and answers none. */
const DEAF = 250

/** ssh2 makes one key in some hundred that it cannot read itself. */
function keyPair(lock?: {
  passphrase: string
  cipher: string
  rounds: number
}): ReturnType<typeof utils.generateKeyPairSync> {
  for (;;) {
    const pair = lock ? utils.generateKeyPairSync('ed25519', lock) : utils.generateKeyPairSync('ed25519')
    if (!(utils.parseKey(pair.private, lock?.passphrase) instanceof Error)) return pair
  }
}

describe('nodes that fail, each in its own way', function () {
  this.timeout(60_000)
  let folder: string
  let server: InstanceType<typeof Server>
  let port: number
  /** Connections that are refused before the handshake, as sshd at its limit does. */
  let refusals = 0
  /** Whether the server asks for no key, as Tailscale's does. */
  let trusting = false

  before((done) => {
    folder = mkdtempSync(join(tmpdir(), 'svct-ssh-'))
    const host = keyPair()
    const user = keyPair()
    const locked = keyPair({passphrase: 'secret', cipher: 'aes256-ctr', rounds: 4})
    // the user's own key, locked
    writeFileSync(join(folder, 'locked-id'), user.private, {mode: 0o600})
    execFileSync('ssh-keygen', ['-q', '-p', '-N', 'secret', '-f', join(folder, 'locked-id')])
    const other = keyPair()
    for (const [name, {private: own}] of Object.entries({id: user, locked, other}))
      writeFileSync(join(folder, name), own, {mode: 0o600})
    server = new Server({hostKeys: [host.private]}, (client) => {
      if (refusals > 0) {
        refusals--
        return client.end()
      }
      const {localAddress} = (client as unknown as {_sock: {localAddress: string}})._sock
      client.on('error', () => undefined)
      client.on('authentication', (context) => {
        const ours = utils.parseKey(user.public)
        if (trusting && context.method === 'none') return context.accept()
        const same =
          context.method === 'publickey' &&
          !(ours instanceof Error) &&
          context.key.data.equals((ours as ssh2.ParsedKey).getPublicSSH())
        return same ? context.accept() : context.reject(['publickey'])
      })
      client.on('session', (accept) =>
        accept().on('exec', (take) => {
          if (localAddress.endsWith(`.${DEAF}`)) return
          const channel = take()
          channel.resume()
          const [, net, number] = /^127\.0\.(\d+)\.(\d+)$/.exec(localAddress) ?? []
          const name = net === '1' ? NAMES[Number(number) - 1] : 'good'
          NODES[name ?? 'good']!(channel)
        }),
      )
    })
    server.listen(0, '0.0.0.0', () => {
      port = (server.address() as AddressInfo).port
      writeFileSync(join(folder, 'known'), `[127.0.*]:${port},* ${host.public}\n`)
      writeFileSync(join(folder, 'revoked'), `@revoked * ${host.public}\n`)
      writeFileSync(join(folder, 'config'), 'Host *\n  IdentityAgent none\n')
      done()
    })
  })
  after(() => {
    server.close()
    rmSync(folder, {recursive: true})
  })

  const read = (
    hosts: readonly string[],
    more: object = {},
    timeout = 4000,
    around: (transport: Transport) => Transport = (transport) => transport,
  ): Promise<NodeResult[]> => {
    const transport = sshTransport({
      connectTimeout: 3000,
      user: 'oncall',
      port,
      identity: join(folder, 'id'),
      config: join(folder, 'config'),
      knownHosts: join(folder, 'known'),
      ...more,
    })
    return collectNodes(
      hosts.map((host) => ({node: host, host})),
      around(transport),
      {sudo: 'never', parallel: 16, timeout, signal: new AbortController().signal, progress: () => undefined},
    )
  }
  const hostOf = (name: string): string => `127.0.1.${name === 'deaf' ? DEAF : NAMES.indexOf(name) + 1}`

  it('all at once: each is told by itself, and the good ones are read', async () => {
    const results = new Map(
      (await read(NAMES.filter((name) => name !== 'endless').map(hostOf))).map((result) => [result.node, result]),
    )
    const failure = (name: string): string => results.get(hostOf(name))!.failure ?? ''
    for (const name of ['good', 'noisy']) {
      expect(failure(name), name).to.equal('')
      expect(results.get(hostOf(name))!.files.get('iptables-save.txt')).to.equal('*nat\nCOMMIT\n')
    }
    expect(failure('cut')).to.contain('cut short')
    expect(failure('killed')).to.contain('cut short')
    expect(failure('hangs')).to.contain('time limit')
    expect(failure('slow')).to.contain('time limit')
    expect(results.get(hostOf('slow'))!.hint).to.contain('--node-timeout')
    expect(results.get(hostOf('slow'))!.files.get('iptables-save.txt'), 'what was there').to.equal('*nat\nCOMMIT\n')
    expect(failure('resets')).to.match(/broke|closed|cut short|does not run commands/)
    for (const name of ['nologin', 'fish', 'garbage'])
      expect(failure(name), name).to.contain('did not run the collector')
    expect(failure('fish')).to.contain('Unknown command')
    expect([...results.values()].filter(({failure: why}) => why === undefined)).to.have.length(2)
  })

  it('a gigabyte is not kept', async () => {
    const before = process.memoryUsage().rss
    const [result] = await read([hostOf('endless')], {}, 30_000)
    expect(result!.failure).to.contain('more than 256 MB')
    expect(process.memoryUsage().rss - before).to.be.below(900 * 1024 * 1024)
  })

  it('an sshd at its limit is tried again', async () => {
    refusals = 2
    const [result] = await read([hostOf('good')])
    expect(result!.failure).to.equal(undefined)
    refusals = 5
    const [lost] = await read([hostOf('good')])
    expect(lost!.failure).to.contain('closed the connection')
    refusals = 0
  })

  for (const [what, options, reason, hint] of [
    ['a key that it does not take', {identity: 'other'}, /accepts no key of ours/, /--ssh-identity/],
    ['a key with a passphrase', {identity: 'locked'}, /accepts no key of ours/, /ssh-add/],
    ['a revoked host key', {knownHosts: 'revoked'}, /is revoked/, /^$/],
  ] as const)
    it(what, async () => {
      const paths = Object.fromEntries(Object.entries(options).map(([key, name]) => [key, join(folder, name)]))
      const [result] = await read([hostOf('good')], paths)
      expect(result!.failure).to.match(reason)
      expect(result!.hint ?? '').to.match(hint)
    })

  it('a key whose passphrase somebody gives opens the door; a wrong one does not', async () => {
    const asked: string[] = []
    const ask = (words: string | undefined) => (file: string) => {
      asked.push(file)
      return Promise.resolve(words)
    }
    const locked = {identity: join(folder, 'locked-id')}
    const [good] = await read([hostOf('good')], {...locked, passphrase: ask('secret')})
    expect(good!.failure).to.equal(undefined)
    for (const words of ['wrong', undefined]) {
      const [bad] = await read([hostOf('good')], {...locked, passphrase: ask(words)})
      expect(bad!.failure).to.match(/accepts no key of ours/)
    }
    expect(new Set(asked)).to.deep.equal(new Set([locked.identity]))
  })

  it('every identity is offered, not only the first', async () => {
    const config = join(folder, 'two')
    writeFileSync(
      config,
      `Host *\n  IdentityAgent none\n  IdentityFile ${join(folder, 'other')}\n  IdentityFile ${join(folder, 'id')}\n`,
    )
    const [both] = await read([hostOf('good')], {identity: undefined, config})
    expect(both!.failure).to.equal(undefined)
  })

  it('an agent without keys is named, and one with the right key opens the door', async () => {
    const socket = join(folder, 'real-agent')
    const agent = spawn('ssh-agent', ['-D', '-a', socket], {stdio: 'ignore'})
    try {
      const config = join(folder, 'with-agent')
      writeFileSync(config, `Host *\n  IdentityAgent ${socket}\n  IdentityFile none\n`)
      const settings = {config, identity: undefined}
      while (!existsSync(socket)) await sleep(20)
      const [bad] = await read([hostOf('good')], settings)
      expect(bad!.failure).to.match(/accepts no key of ours for user oncall \(we have: an agent without keys\)/)
      expect(bad!.hint).to.match(/ssh-add/)
      execFileSync('ssh-add', ['-q', join(folder, 'id')], {env: {...process.env, SSH_AUTH_SOCK: socket}})
      const [good] = await read([hostOf('good')], settings)
      expect(good!.failure).to.equal(undefined)
    } finally {
      agent.kill()
    }
  })

  it('a server that knows its clients without keys opens the door', async () => {
    trusting = true
    const config = join(folder, 'keyless')
    writeFileSync(config, 'Host *\n  IdentityAgent none\n  IdentityFile none\n')
    const [good] = await read([hostOf('good')], {config, identity: undefined})
    trusting = false
    expect(good!.failure).to.equal(undefined)
  })

  it('too much of a node that is cut takes nobody else down', async () => {
    const packed = gzipSync(Buffer.alloc(300 * 1024 * 1024))
    const transport: Transport = {
      name: 'x',
      run: ({node}) => {
        if (node === 'good') return Promise.resolve(Buffer.from(GOOD))
        const partial = Buffer.concat([Buffer.from('@svc-trace gzip\n'), packed])
        return Promise.reject(new NodeUnreachable('the time limit of the node is over', undefined, {partial}))
      },
    }
    const [bomb, good] = await read(['bomb', 'good'], {}, 4000, () => transport)
    expect(bomb!.failure).to.equal('the time limit of the node is over')
    expect(good!.failure).to.equal(undefined)
  })

  it('an agent that answers after the node’s time is over costs that node only', async () => {
    const socket = join(folder, 'slow-agent')
    const agent = createServer(
      (peer) => void setTimeout(() => peer.end(Buffer.from([0, 0, 0, 5, 12, 0, 0, 0, 0])), 1500),
    )
    await new Promise<void>((settle) => agent.listen(socket, settle))
    const config = join(folder, 'slow-agent-config')
    writeFileSync(config, `Host *\n  IdentityAgent ${socket}\n`)
    const unhandled: unknown[] = []
    const note = (error: unknown): void => void unhandled.push(error)
    process.on('unhandledRejection', note)
    const results = await read([hostOf('good'), hostOf('noisy')], {config}, 1000, (transport) => {
      const {prepare: _prepare, ...rest} = transport
      return rest
    })
    await sleep(1500)
    process.off('unhandledRejection', note)
    agent.close()
    expect(results.map(({failure}) => failure)).to.deep.equal(
      Array(2).fill('interrupted, or the time limit of the node is over'),
    )
    expect(unhandled).to.deep.equal([])
  })

  it('an agent is asked once, for however many nodes', async () => {
    const socket = join(folder, 'counted-agent')
    let asked = 0
    const agent = createServer((peer) => {
      asked++
      peer.end(Buffer.from([0, 0, 0, 5, 12, 0, 0, 0, 0]))
    })
    await new Promise<void>((settle) => agent.listen(socket, settle))
    const config = join(folder, 'counted-agent-config')
    writeFileSync(config, `Host *\n  IdentityAgent ${socket}\n`)
    const results = await read([hostOf('good'), hostOf('noisy'), '127.0.2.9'], {config})
    agent.close()
    expect(results.map(({failure}) => failure)).to.deep.equal([undefined, undefined, undefined])
    expect(asked).to.equal(1)
  })

  it('an agent that never answers holds nobody up', async () => {
    const socket = join(folder, 'agent')
    const agent = createServer(() => undefined)
    await new Promise<void>((settle) => agent.listen(socket, settle))
    const config = join(folder, 'mute-agent')
    writeFileSync(config, `Host *\n  IdentityAgent ${socket}\n`)
    const [good] = await read([hostOf('good')], {config}, 10_000)
    expect(good!.failure).to.equal(undefined)
    agent.close()
  })

  it('a jump host whose ProxyCommand ssh2 cannot run is not dialled without it', async () => {
    const config = join(folder, 'jump-command')
    writeFileSync(
      config,
      `Host bastion\n  ProxyCommand nc %h %p\nHost 127.*\n  IdentityAgent none\n  ProxyJump bastion\n`,
    )
    const [lost] = await read([hostOf('good')], {config})
    expect(lost!.failure).to.match(/ssh_config has a ProxyCommand for bastion/)
  })

  it('a HostKeyAlias stands in known_hosts without its port', async () => {
    const [config, knownHosts] = [join(folder, 'alias'), join(folder, 'known-alias')]
    writeFileSync(config, 'Host *\n  IdentityAgent none\n  HostKeyAlias behind-the-tunnel\n')
    writeFileSync(knownHosts, readFileSync(join(folder, 'revoked'), 'utf8').replace('@revoked *', 'behind-the-tunnel'))
    const [good] = await read([hostOf('good')], {config, knownHosts})
    expect(good!.failure).to.equal(undefined)
  })

  it('a broken ssh_config is that node’s failure, in ssh’s own words', async () => {
    const config = join(folder, 'broken')
    writeFileSync(config, 'Host *\n  Bogus yes\n')
    const [lost] = await read([hostOf('good')], {config})
    expect(lost!.failure).to.match(/^ssh -G 127\.0\.1\.\d+ failed: .*bad configuration option/)
  })

  it('one that takes the connection and never answers the question ends with the limit', async () => {
    const start = Date.now()
    const [mute] = await read([hostOf('deaf')], {}, 1500)
    expect(mute!.failure).to.match(/time limit/)
    expect(Date.now() - start).to.be.lessThan(4000)
  })

  it('a name that does not resolve, a port where nobody listens, a listener that says nothing', async () => {
    const [lost] = await read(['no-such-host.invalid'])
    expect(lost!.failure).to.match(/does not resolve/)
    const silent = createServer((socket) => socket.on('error', () => undefined).resume())
    await new Promise<void>((ready) => silent.listen(0, '127.0.0.1', ready))
    const [mute] = await read(['127.0.0.1'], {port: (silent.address() as AddressInfo).port}, 8000)
    expect(mute!.failure).to.match(/handshake|time limit/)
    const free = (silent.address() as AddressInfo).port
    await new Promise((closed) => silent.close(closed))
    const [refused] = await read(['127.0.0.1'], {port: free})
    expect(refused!.failure).to.match(/refuses the connection/)
  })

  it('two hundred nodes, sixteen at a time', async () => {
    const hosts = Array.from({length: 200}, (_, at) => (at % 50 === 49 ? hostOf('cut') : `127.0.3.${at + 1}`))
    let running = 0
    let most = 0
    const results = await read(hosts, {}, 30_000, (transport) => ({
      ...transport,
      run: async (...what) => {
        most = Math.max(most, ++running)
        try {
          return await transport.run(...what)
        } finally {
          running--
        }
      },
    }))
    expect(results).to.have.length(200)
    expect(results.filter(({failure}) => failure !== undefined).map(({node}) => node)).to.deep.equal(
      Array.from({length: 4}, () => hostOf('cut')),
    )
    expect(most).to.be.at.most(16)
  })
})
