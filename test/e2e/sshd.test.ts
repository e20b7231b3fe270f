import {spawnSync} from 'node:child_process'
import {chmodSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {expect} from 'chai'
import {collectNodes, collectorScript, type CollectOptions} from '../../src/nodes/collect.js'
import {opensshTransport} from '../../src/nodes/processes.js'
import {endSharedConnections} from '../../src/nodes/shared-connections.js'
import {sshTransport} from '../../src/nodes/ssh.js'
import type {Transport} from '../../src/nodes/transport.js'
import {Sshd, withoutSshd} from '../helpers/sshd.js'

const MANY = 200
/** A connection that died is noticed when the collector says the next thing: behind one slow command. */
const SLOW = 4

describe('a real sshd', function () {
  this.timeout(180_000)
  let sshd: Sshd | undefined

  before(function () {
    const why = withoutSshd()
    if (why === undefined) return
    console.log(`sshd tests skipped: ${why}`)
    this.skip()
  })
  afterEach(() => {
    endSharedConnections()
    sshd?.stop()
    sshd = undefined
  })

  const options = (more: Partial<CollectOptions> = {}): CollectOptions => ({
    sudo: 'never',
    parallel: 16,
    timeout: 60_000,
    signal: new AbortController().signal,
    progress: () => undefined,
    ...more,
  })

  it(`is ${MANY} nodes, read sixteen at a time, none of them lost`, async () => {
    sshd = await Sshd.start('MaxStartups 100\nMaxSessions 100\n')
    const answer = join(sshd.folder, 'answer')
    const rules = `*nat\n${'-A POSTROUTING -j MASQUERADE\n'.repeat(20_000)}COMMIT\n`
    writeFileSync(
      answer,
      `@svc-trace 1\n@begin iptables-save.txt\n${rules.replaceAll(/^/gm, '|').slice(0, -1)}\n!rc=0\n@end iptables-save.txt\n@done\n`,
    )
    const force = `command="cat ${answer}" ${readFileSync(join(sshd.folder, 'id.pub'), 'utf8')}`
    writeFileSync(join(sshd.folder, 'id.pub'), force)
    const targets = Array.from({length: MANY}, (_, at) => ({node: `n${at}`, host: `127.2.0.${at + 1}`}))
    const results = await collectNodes(targets, sshTransport(sshd.options), options())
    expect(results.filter(({failure}) => failure !== undefined)).to.deep.equal([])
    for (const {files} of results) expect(files.get('iptables-save.txt')).to.equal(rules)
    expect(sshd.logins).to.equal(MANY)
  })

  for (const [name, transportOf] of Object.entries({
    ssh2: (): Transport => sshTransport(sshd!.options),
    'the system’s ssh': (): Transport => opensshTransport(sshd!.options),
  }))
    it(`has no collector any more soon after the connection died (${name})`, async () => {
      sshd = await Sshd.start()
      const slow = join(sshd.folder, 'bin')
      mkdirSync(slow)
      for (const tool of ['iptables-save', 'ip6tables-save', 'ipset', 'nft', 'ipvsadm', 'conntrack']) {
        writeFileSync(join(slow, tool), `#!/bin/sh\nexec sleep ${SLOW}\n`)
        chmodSync(join(slow, tool), 0o755)
      }
      const running = (): string =>
        spawnSync('pgrep', ['-af', `${slow}|^sleep ${SLOW}$`], {encoding: 'utf8'}).stdout.trim()
      const stop = new AbortController()
      const transport = transportOf()
      const reading = transport
        .run({node: 'n', host: '127.0.0.1'}, `PATH=${slow}:$PATH\n${collectorScript()}`, stop.signal)
        .catch((error: Error) => error.message)
      for (let tries = 0; running() === '' && tries < 100; tries++) await sleep(100)
      expect(running()).not.to.equal('')
      stop.abort()
      expect(await reading).to.match(/time limit/)
      await sleep((SLOW + 2) * 1000)
      expect(running()).to.equal('')
    })
})
