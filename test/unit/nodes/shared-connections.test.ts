import {execFileSync, spawn, spawnSync, type ChildProcess} from 'node:child_process'
import {existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {createServer, type AddressInfo} from 'node:net'
import {tmpdir, userInfo} from 'node:os'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {expect} from 'chai'
import {opensshTransport} from '../../../src/nodes/processes.js'
import {endSharedConnections} from '../../../src/nodes/shared-connections.js'

const SSHD = '/usr/sbin/sshd'

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((settle) => server.listen(0, '127.0.0.1', settle))
  const {port} = server.address() as AddressInfo
  server.close()
  return port
}

describe('the system’s ssh, asked more than once', function () {
  this.timeout(30_000)
  let folder: string
  let port: number
  let server: ChildProcess
  const path = (name: string): string => join(folder, name)
  const logins = (): number => (readFileSync(path('log'), 'utf8').match(/Accepted publickey/g) ?? []).length

  before(async function () {
    const why = existsSync(SSHD) && process.getuid?.() === 0 ? undefined : 'no sshd, or not root'
    if (why !== undefined) {
      if (process.env['CI'] === 'true') throw new Error(why)
      console.log(`shared connections skipped: ${why}`)
      return this.skip()
    }
    folder = mkdtempSync(join(tmpdir(), 'svct-sshd-'))
    port = await freePort()
    mkdirSync('/run/sshd', {recursive: true})
    for (const key of ['host', 'id']) execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', path(key)])
    writeFileSync(path('known'), `[127.0.0.1]:${port} ${readFileSync(path('host.pub'), 'utf8')}`)
    writeFileSync(
      path('sshd'),
      `HostKey ${path('host')}\nAuthorizedKeysFile ${path('id.pub')}\nStrictModes no\nPidFile none\nListenAddress 127.0.0.1:${port}\nPermitRootLogin yes\n`,
    )
    writeFileSync(path('config'), 'Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n')
    server = spawn(SSHD, ['-D', '-E', path('log'), '-f', path('sshd')], {stdio: 'ignore'})
    for (
      let tries = 0;
      tries < 100 && !(existsSync(path('log')) && /listening/.test(readFileSync(path('log'), 'utf8')));
      tries++
    )
      await sleep(50)
  })
  after(() => {
    endSharedConnections()
    server?.kill()
    if (folder) rmSync(folder, {recursive: true})
  })

  const ask = async (settings: readonly string[] = []): Promise<string> => {
    const transport = opensshTransport({
      connectTimeout: 5000,
      user: userInfo().username,
      port,
      identity: path('id'),
      config: path('config'),
      knownHosts: path('known'),
      settings,
    })
    const {signal} = new AbortController()
    return (await transport.run({node: 'n', host: '127.0.0.1'}, 'echo "@svc-trace 1"; echo $0', signal)).toString()
  }
  const masters = (): string[] =>
    spawnSync('pgrep', ['-af', 'ssh: /tmp/svct-'], {encoding: 'utf8'}).stdout.split('\n').filter(Boolean)
  const places = (): string[] => readdirSync('/tmp').filter((name) => /^svct-\w{6}$/.test(name))

  it('logs in once, and leaves nothing behind', async () => {
    const [before, others] = [logins(), places()]
    for (let round = 0; round < 3; round++) expect(await ask()).to.include('@svc-trace 1')
    expect(logins() - before).to.equal(1)
    expect(masters()).to.have.lengthOf(1)
    endSharedConnections()
    await sleep(200)
    expect(masters()).to.deep.equal([])
    expect(places().filter((name) => !others.includes(name))).to.deep.equal([])
  })

  it('leaves connections to the user’s own settings where there are any', async () => {
    const before = logins()
    for (let round = 0; round < 2; round++) await ask(['ControlPath=/tmp/svct-nobody-%C', 'ControlMaster=no'])
    expect(logins() - before).to.equal(2)
    expect(masters()).to.deep.equal([])
  })
})
