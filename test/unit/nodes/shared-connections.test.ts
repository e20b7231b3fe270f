import {spawnSync} from 'node:child_process'
import {readdirSync} from 'node:fs'
import {setTimeout as sleep} from 'node:timers/promises'
import {expect} from 'chai'
import {opensshTransport} from '../../../src/nodes/processes.js'
import {endSharedConnections} from '../../../src/nodes/shared-connections.js'
import {Sshd, withoutSshd} from '../../helpers/sshd.js'

describe('the system’s ssh, asked more than once', function () {
  this.timeout(30_000)
  let sshd: Sshd | undefined

  before(async function () {
    const why = withoutSshd()
    if (why === undefined) sshd = await Sshd.start()
    else {
      console.log(`shared connections skipped: ${why}`)
      this.skip()
    }
  })
  after(() => {
    endSharedConnections()
    sshd?.stop()
  })

  const ask = async (settings: readonly string[] = []): Promise<string> => {
    const transport = opensshTransport({...sshd!.options, settings})
    const {signal} = new AbortController()
    return (await transport.run({node: 'n', host: '127.0.0.1'}, 'echo "@svc-trace 1"; echo $0', signal)).toString()
  }
  const masters = (): string[] =>
    spawnSync('pgrep', ['-af', 'ssh: /tmp/svct-'], {encoding: 'utf8'}).stdout.split('\n').filter(Boolean)
  const places = (): string[] => readdirSync('/tmp').filter((name) => /^svct-\w{6}$/.test(name))

  it('logs in once, and leaves nothing behind', async () => {
    const [before, others] = [sshd!.logins, places()]
    for (let round = 0; round < 3; round++) expect(await ask()).to.include('@svc-trace 1')
    expect(sshd!.logins - before).to.equal(1)
    expect(masters()).to.have.lengthOf(1)
    endSharedConnections()
    await sleep(200)
    expect(masters()).to.deep.equal([])
    expect(places().filter((name) => !others.includes(name))).to.deep.equal([])
  })

  it('leaves connections to the user’s own settings where there are any', async () => {
    const before = sshd!.logins
    for (let round = 0; round < 2; round++) await ask(['ControlPath=/tmp/svct-nobody-%C', 'ControlMaster=no'])
    expect(sshd!.logins - before).to.equal(2)
    expect(masters()).to.deep.equal([])
  })
})
