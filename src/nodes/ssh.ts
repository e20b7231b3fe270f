import {existsSync, readFileSync} from 'node:fs'
import type {Duplex} from 'node:stream'
import ssh2, {
  type AgentAuthMethod,
  type AuthMethod,
  type Client as SshClient,
  type ConnectConfig,
  type NoAuthMethod,
  type PublicKeyAuthMethod,
} from 'ssh2'
import {checkHostKey, fingerprint, keyType, knownKeyTypes} from './known-hosts.js'
import {limited} from '../util/limited.js'
import {Output} from './output.js'
import {NodeUnreachable, type Transport} from './transport.js'
import {ignoreUnreachable, inTurns, sshAsker, type SshAsker, type SshOptions, type SshSettings} from './ssh-settings.js'

/** Reads nodes with ssh2, with the settings that `ssh` itself would use and a strict look at host keys. */
export function sshTransport(options: SshOptions, ask: SshAsker = sshAsker(options)): Transport {
  const open = async (host: string, signal: AbortSignal): Promise<{client: SshClient; close: () => void}> => {
    const settings = await ask.host(host)
    const chain: SshClient[] = []
    const close = (): void => {
      for (const client of chain.reverse()) client.end()
    }
    try {
      return {client: await connectThrough(settings, options, {chain, signal, ask}), close}
    } catch (error) {
      close()
      throw error
    }
  }
  return {
    name: 'ssh',
    way: async ({host}) => {
      const {user, jumps} = await ask.host(host)
      return {name: 'ssh', user, why: jumps.length > 0 ? `by ${jumps.join(', ')}` : ''}
    },
    prepare: async (targets) => {
      const settings = await inTurns(targets, ({host}) => ask.host(host).catch(ignoreUnreachable))
      for (const one of settings) if (one) await authentication(one, options, ask)
    },
    run: async (target, script, signal) => {
      const {client, close} = await open(target.host, signal)
      try {
        return await execute(client, script, signal)
      } finally {
        close()
      }
    },
    tunnel: async (target, {host, port}, signal) => {
      const {client, close} = await open(target.host, signal)
      try {
        return {stream: await within(forward(client, {host, port}, 'the node'), signal), close}
      } catch (error) {
        close()
        throw error
      }
    },
  }
}

/** SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254 5.1): AllowTcpForwarding no, or a key with `restrict`. */
const PROHIBITED = 1
/** Milliseconds for a node to open a connection; a firewall that drops would take its kernel two minutes. */
const OPENING = 5000

function within<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const limit = limited(signal, OPENING)
  return new Promise((resolve, reject) => {
    limit.addEventListener('abort', () => reject(new NodeUnreachable('no connection in 5 s')), {once: true})
    work.then(resolve, reject)
  })
}

/** More would be a circle. */
const MOST_JUMPS = 10

/** The jump hosts in order; the first may be reached by others itself. */
async function allJumps(settings: SshSettings, ask: SshAsker): Promise<SshSettings[]> {
  const hops: SshSettings[] = []
  for (const jump of settings.jumps) hops.push(await ask.jump(jump))
  for (let first = hops[0]; first && first.jumps.length > 0; first = hops[0]) {
    const before: SshSettings[] = []
    for (const jump of first.jumps) before.push(await ask.jump(jump))
    hops.unshift(...before)
    if (hops.length > MOST_JUMPS)
      throw new NodeUnreachable(`more than ${MOST_JUMPS} jump hosts lead to ${settings.host}`)
  }
  return hops
}

/** Work on a connection that ends with the signal, whatever the other side does. */
function aborting<T>(signal: AbortSignal, client: SshClient, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      client.destroy()
      reject(new NodeUnreachable('interrupted, or the time limit of the node is over'))
    }
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop))
    if (signal.aborted) return stop()
    signal.addEventListener('abort', stop, {once: true})
  })
}

/** Connects by the jump hosts, each through the one before. */
async function connectThrough(
  settings: SshSettings,
  options: SshOptions,
  {chain, signal, ask}: {chain: SshClient[]; signal: AbortSignal; ask: SshAsker},
): Promise<SshClient> {
  let sock: Duplex | undefined
  const hops = await allJumps(settings, ask)
  for (const [at, hop] of hops.entries()) {
    const client = await connect(hop, {sock, signal, options, ask})
    chain.push(client)
    sock = await aborting(signal, client, forward(client, hops[at + 1] ?? settings))
  }
  const client = await connect(settings, {sock, signal, options, ask})
  chain.push(client)
  return client
}

function forward(
  client: SshClient,
  {host, port}: {readonly host: string; readonly port: number},
  who = 'the jump host',
): Promise<Duplex> {
  return new Promise((resolve, reject) =>
    client.forwardOut('127.0.0.1', 0, host, port, (error, channel) =>
      error
        ? reject(
            new NodeUnreachable(`${who} cannot reach ${host}:${port}: ${error.message}`, undefined, {
              prohibited: (error as {reason?: unknown}).reason === PROHIBITED,
            }),
          )
        : resolve(channel),
    ),
  )
}

async function connect(
  settings: SshSettings,
  {sock, signal, options, ask}: {sock: Duplex | undefined; signal: AbortSignal; options: SshOptions; ask: SshAsker},
): Promise<SshClient> {
  const beyond = beyondSsh2(settings)
  if (beyond !== undefined)
    throw new NodeUnreachable(
      `ssh_config has ${beyond} for ${settings.host}, which this way in cannot use`,
      'use --via openssh, which runs the system’s own ssh',
    )
  const {authHandler, offered} = await authentication(settings, options, ask)
  if (signal.aborted) throw new NodeUnreachable('interrupted, or the time limit of the node is over')
  const client = new ssh2.Client()
  const known = settings.knownHosts
    .filter((file) => existsSync(file))
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n')
  let refusal: NodeUnreachable | undefined
  const ready = new Promise<SshClient>((resolve, reject) => {
    client.on('ready', () => resolve(client))
    client.on('error', (error) => {
      client.destroy()
      reject(refusal ?? explain(error, settings, offered))
    })
    client.on('close', () =>
      reject(
        refusal ??
          new NodeUnreachable(
            `${settings.host}:${settings.port} closed the connection`,
            'is sshd at its limit (MaxStartups), or does it refuse this address?',
            {transient: true},
          ),
      ),
    )
    client.connect({
      authHandler,
      ...(sock ? {sock} : {host: settings.host, port: settings.port}),
      username: settings.user,
      readyTimeout: options.connectTimeout,
      keepaliveInterval: 10_000,
      keepaliveCountMax: 3,
      ...algorithms(knownKeyTypes(known, settings.keyAlias, settings.keyPort)),
      hostVerifier: (key: Buffer) => {
        refusal = hostKeyRefusal(known, settings, key)
        return refusal === undefined
      },
    })
  })
  return aborting(signal, client, ready)
}

/** Settings that must not be passed over: without them another host would be reached, or a revoked key believed. */
const beyondSsh2 = ({proxyCommand, revoked}: SshSettings): string | undefined =>
  proxyCommand ? 'a ProxyCommand' : revoked ? 'RevokedHostKeys' : undefined

/** ssh2's names for the key types that known_hosts has, first; rsa keys sign with SHA-2. */
function algorithms(types: readonly string[]): Pick<ConnectConfig, 'algorithms'> {
  const all = [
    'ssh-ed25519',
    'ecdsa-sha2-nistp256',
    'ecdsa-sha2-nistp384',
    'ecdsa-sha2-nistp521',
    'rsa-sha2-512',
    'rsa-sha2-256',
    'ssh-rsa',
  ]
  const wanted = types.flatMap((type) =>
    type === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256', 'ssh-rsa'] : all.includes(type) ? [type] : [],
  )
  return wanted.length === 0
    ? {}
    : {algorithms: {serverHostKey: [...wanted, ...all.filter((name) => !wanted.includes(name))] as never}}
}

function hostKeyRefusal(
  known: string,
  {keyAlias, keyPort, host, port, knownHosts}: SshSettings,
  key: Buffer,
): NodeUnreachable | undefined {
  const verdict = checkHostKey(known, {host: keyAlias, port: keyPort, key})
  const print = `${keyType(key)} ${fingerprint(key)}`
  const scan = `ssh-keyscan ${port === 22 ? '' : `-p ${port} `}${host} >> ${knownHosts[0] ?? '~/.ssh/known_hosts'}`
  switch (verdict) {
    case 'known':
      return undefined
    case 'changed':
      return new NodeUnreachable(
        `the host key of ${keyAlias} has CHANGED (now ${print}): somebody may be in between`,
        `if it was re-installed: ssh-keygen -R ${keyPort === 22 ? keyAlias : `"[${keyAlias}]:${keyPort}"`}, then ${scan}`,
      )
    case 'revoked':
      return new NodeUnreachable(`the host key of ${keyAlias} is revoked in known_hosts (${print})`)
    case 'authority':
      return new NodeUnreachable(
        `known_hosts has a certificate authority for ${keyAlias}, which this way in cannot check`,
        'use --via openssh',
      )
    default:
      return new NodeUnreachable(
        `the host key of ${keyAlias} is not in known_hosts (${print})`,
        `compare the fingerprint on the node, then: ${scan}`,
      )
  }
}

/** How we prove who we are, and its own words for when nobody believes it. */
interface Credentials {
  readonly authHandler: AuthMethod[]
  readonly offered: string
}

/**
 * Nothing at all first, as ssh does (some servers know their clients otherwise); then every key that can be used without
 * asking, then the agent's; where there is neither, one whose passphrase somebody gives.
 */
async function authentication(
  {identities, agent, user}: SshSettings,
  {passphrase}: SshOptions,
  ask: SshAsker,
): Promise<Credentials> {
  const files = identities.filter((file) => existsSync(file))
  const keys = files
    .map((file) => ({file, key: readFileSync(file)}))
    .filter(({key}) => !(ssh2.utils.parseKey(key) instanceof Error))
  const held = agent === undefined ? undefined : await ask.agent(agent)
  const nothing: NoAuthMethod = {type: 'none', username: user}
  if (keys.length === 0 && !held)
    for (const file of passphrase ? files.filter(isEncrypted) : []) {
      const words = await passphrase!(file)
      const key = readFileSync(file)
      if (words !== undefined && !(ssh2.utils.parseKey(key, words) instanceof Error))
        return {authHandler: [nothing, publicKey(user, key, words)], offered: file}
    }
  const methods: AuthMethod[] = [nothing, ...keys.map(({key}) => publicKey(user, key))]
  if (held) methods.push({type: 'agent', username: user, agent} as AgentAuthMethod)
  const offered = [...keys.map(({file}) => file), ...(agent === undefined ? [] : [agentWords(held)])]
  return {authHandler: methods, offered: offered.join(', ') || 'no identity file, no agent'}
}

const NO_KEYS = 'an agent without keys'
const agentWords = (held: number | undefined): string =>
  held === undefined ? 'an agent that does not answer' : held === 0 ? NO_KEYS : `${held} of the agent`

const publicKey = (username: string, key: Buffer, passphrase?: string): PublicKeyAuthMethod => ({
  type: 'publickey',
  username,
  key,
  ...(passphrase === undefined ? {} : {passphrase}),
})

const isEncrypted = (file: string): boolean => {
  const parsed = ssh2.utils.parseKey(readFileSync(file))
  return parsed instanceof Error && /encrypted|passphrase/i.test(parsed.message)
}

function explain(
  error: Error & {level?: string; code?: string},
  {host, port, user, identities}: SshSettings,
  offered: string,
): NodeUnreachable {
  const at = `${host}:${port}`
  if (error.level === 'client-authentication') {
    const encrypted = identities.filter((file) => existsSync(file)).some(isEncrypted)
    return new NodeUnreachable(
      `${at} accepts no key of ours for user ${user} (we have: ${offered})`,
      encrypted
        ? 'the key has a passphrase: add it to an agent with ssh-add'
        : offered.includes(NO_KEYS)
          ? 'give the agent a key with ssh-add, or name one with --ssh-identity'
          : 'name another user or key with --ssh-user, --ssh-identity, or use an agent',
    )
  }
  if (error.level === 'client-timeout')
    return new NodeUnreachable(
      `${at} did not finish the SSH handshake in time`,
      'is it an sshd, and is a firewall in between?',
    )
  if (error.code === 'ECONNREFUSED')
    return new NodeUnreachable(`${at} refuses the connection`, 'does sshd run there? another port: --ssh-port')
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE')
    return new NodeUnreachable(`${at} broke the connection (${error.code})`, 'is something in between?', {
      transient: true,
    })
  if (error.code === 'ENOTFOUND' || error.code === 'EAI_AGAIN')
    return new NodeUnreachable(`the name ${host} does not resolve`, 'another kind of address: --node-address')
  if (error.code === 'ETIMEDOUT' || error.code === 'EHOSTUNREACH' || error.code === 'ENETUNREACH')
    return new NodeUnreachable(`${at} cannot be reached (${error.code})`, 'by a jump host? ProxyJump in ~/.ssh/config')
  return new NodeUnreachable(`${at}: ${error.message}`, 'try --via openssh')
}

/** What a node says on stderr is kept up to here. */
const MOST_SAID = 4000

/** Runs the script by a plain `/bin/sh -s`, which every login shell can start; the script itself goes to its standard input. */
function execute(client: SshClient, script: string, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const output = new Output()
    const fail = (failure: NodeUnreachable): void => {
      client.destroy()
      reject(failure)
    }
    const stop = (): void =>
      fail(
        new NodeUnreachable('the time limit of the node is over', 'raise it with --node-timeout', {
          partial: output.bytes,
        }),
      )
    if (signal.aborted) return stop()
    signal.addEventListener('abort', stop, {once: true})
    client.exec('/bin/sh -s', (error, channel) => {
      if (error) return reject(new NodeUnreachable(`the node does not run commands: ${error.message}`))
      let said = ''
      channel.on('data', (chunk: Buffer) => {
        if (!output.add(chunk)) fail(Output.tooBig())
      })
      channel.stderr.on('data', (chunk: Buffer) => {
        if (said.length < MOST_SAID) said += chunk.toString('utf8').slice(0, MOST_SAID)
      })
      channel.on('close', () => {
        signal.removeEventListener('abort', stop)
        if (output.begun) resolve(output.bytes)
        else
          reject(
            new NodeUnreachable(
              `the node did not run the collector${said.trim() === '' ? '' : `: ${said.trim().split('\n')[0]}`}`,
              'its login shell must run /bin/sh',
            ),
          )
      })
      client.on('error', (failure) =>
        reject(new NodeUnreachable(`the connection broke: ${failure.message}`, undefined, {partial: output.bytes})),
      )
      channel.end(script)
    })
  })
}
