import {existsSync, readFileSync} from 'node:fs'
import ssh2 from 'ssh2'
import {checkHostKey} from './known-hosts.js'
import {opensshTransport} from './processes.js'
import {sshTransport} from './ssh.js'
import {
  ignoreUnreachable,
  inTurns,
  onceEach,
  sshAsker,
  type SshAsker,
  type SshOptions,
  type SshSettings,
} from './ssh-settings.js'
import type {NodeTarget, Transport} from './transport.js'

/** ssh2, and the system's own ssh for hosts that need what only that can. */
export function autoTransport(options: SshOptions): Transport {
  const ask = sshAsker(options)
  const own = sshTransport(options, ask)
  const system = opensshTransport(options, ask)
  const reasonOf = onceEach((host) => needsOpenssh(host, ask))
  const choose = async ({host}: NodeTarget): Promise<Transport> => ((await reasonOf(host)) === undefined ? own : system)
  return {
    name: 'auto',
    way: async (target) => {
      const reason = await reasonOf(target.host)
      if (reason === undefined) return own.way!(target)
      return {...(await system.way!(target)), why: reason}
    },
    prepare: async (targets) => {
      // a host whose settings cannot be read says so when it is its turn
      const chosen = await inTurns(targets, (target) => choose(target).catch(ignoreUnreachable))
      await own.prepare!(targets.filter((_, at) => chosen[at] === own))
    },
    run: async (target, script, signal) => (await choose(target)).run(target, script, signal),
    tunnel: async (target, to, signal) => (await choose(target)).tunnel!(target, to, signal),
  }
}

/** What ssh2 cannot do for this host, if anything. */
async function needsOpenssh(host: string, ask: SshAsker): Promise<string | undefined> {
  const settings = await ask.host(host)
  for (const jump of settings.jumps) {
    const {proxyCommand, revoked} = await ask.jump(jump)
    if (proxyCommand) return `the jump host ${jump} has a ProxyCommand`
    if (revoked) return `ssh_config names revoked host keys for the jump host ${jump}`
  }
  if (settings.proxyCommand) return 'ssh_config has a ProxyCommand for it'
  if (settings.certificates.some((file) => existsSync(file))) return 'there is an SSH certificate'
  if (settings.revoked) return 'ssh_config names revoked host keys'
  if (hasAuthority(settings)) return 'known_hosts has a certificate authority for it'
  return keysOnlyOpensshHas(settings)
}

/** A key of no type. */
const NO_KEY = Buffer.alloc(4)

function hasAuthority({knownHosts, keyAlias, keyPort}: SshSettings): boolean {
  const known = knownHosts
    .filter((file) => existsSync(file))
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n')
  return checkHostKey(known, {host: keyAlias, port: keyPort, key: NO_KEY}) === 'authority'
}

function keysOnlyOpensshHas({identities, agent, kerberos}: SshSettings): string | undefined {
  const files = identities.filter((file) => existsSync(file))
  const usable = files.some((file) => !(ssh2.utils.parseKey(readFileSync(file)) instanceof Error))
  if (usable || agent !== undefined) return undefined
  const token = files.find((file) => /^sk-/.test(existsSync(`${file}.pub`) ? readFileSync(`${file}.pub`, 'utf8') : ''))
  if (token !== undefined) return `${token} is on a FIDO token`
  return kerberos && files.length === 0 ? 'there is no key, and ssh_config allows Kerberos' : undefined
}
