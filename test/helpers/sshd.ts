import {execFileSync, spawn, type ChildProcess} from 'node:child_process'
import {existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {createServer, type AddressInfo} from 'node:net'
import {tmpdir, userInfo} from 'node:os'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import type {SshOptions} from '../../src/nodes/ssh-settings.js'

const SSHD = '/usr/sbin/sshd'

/** Why there can be no server here; in CI that is an error. */
export function withoutSshd(): string | undefined {
  const why = existsSync(SSHD) && process.getuid?.() === 0 ? undefined : 'no sshd, or not root'
  if (why !== undefined && process.env['CI'] === 'true') throw new Error(why)
  return why
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((settle) => server.listen(0, '127.0.0.1', settle))
  const {port} = server.address() as AddressInfo
  server.close()
  return port
}

/** A real sshd on every loopback address, with one key that it takes. */
export class Sshd {
  readonly folder: string
  readonly port: number
  private readonly server: ChildProcess

  private constructor(folder: string, port: number, server: ChildProcess) {
    this.folder = folder
    this.port = port
    this.server = server
  }

  static async start(settings = ''): Promise<Sshd> {
    const folder = mkdtempSync(join(tmpdir(), 'svct-sshd-'))
    const port = await freePort()
    const path = (name: string): string => join(folder, name)
    mkdirSync('/run/sshd', {recursive: true})
    for (const key of ['host', 'id']) execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', path(key)])
    writeFileSync(path('known'), `* ${readFileSync(path('host.pub'), 'utf8')}`)
    writeFileSync(
      path('sshd'),
      `HostKey ${path('host')}\nAuthorizedKeysFile ${path('id.pub')}\nStrictModes no\nPidFile none\nListenAddress 0.0.0.0:${port}\nPermitRootLogin yes\n${settings}`,
    )
    writeFileSync(path('config'), 'Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n')
    const server = spawn(SSHD, ['-D', '-E', path('log'), '-f', path('sshd')], {stdio: 'ignore'})
    const sshd = new Sshd(folder, port, server)
    for (let tries = 0; tries < 100 && !/listening/.test(sshd.log); tries++) await sleep(50)
    return sshd
  }

  get log(): string {
    const file = join(this.folder, 'log')
    return existsSync(file) ? readFileSync(file, 'utf8') : ''
  }

  /** How often somebody got in. */
  get logins(): number {
    return (this.log.match(/Accepted publickey/g) ?? []).length
  }

  get options(): SshOptions {
    const path = (name: string): string => join(this.folder, name)
    return {
      connectTimeout: 5000,
      user: userInfo().username,
      port: this.port,
      identity: path('id'),
      config: path('config'),
      knownHosts: path('known'),
    }
  }

  stop(): void {
    this.server.kill()
    rmSync(this.folder, {recursive: true, force: true})
  }
}
