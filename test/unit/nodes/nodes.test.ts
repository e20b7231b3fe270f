import {expect} from 'chai'
import {createHmac} from 'node:crypto'
import {spawnSync} from 'node:child_process'
import {collectorScript} from '../../../src/nodes/collect.js'
import {readFrames} from '../../../src/nodes/frames.js'
import {unpack} from '../../../src/nodes/output.js'
import {checkHostKey} from '../../../src/nodes/known-hosts.js'

const key = (type: string, body = 'abc'): Buffer =>
  Buffer.concat([Buffer.from([0, 0, 0, type.length]), Buffer.from(type), Buffer.from(body)])
const ED = key('ssh-ed25519')
const line = (host: string, k = ED, type = 'ssh-ed25519'): string => `${host} ${type} ${k.toString('base64')} comment\n`

describe('host keys', () => {
  const cases: [string, string, string][] = [
    ['known', line('node1'), 'known'],
    ['known among several', line('a,node1,b'), 'known'],
    ['known by pattern', line('node*'), 'known'],
    ['excluded by pattern', line('node*,!node1'), 'unknown'],
    ['unknown', line('other'), 'unknown'],
    ['nothing', '', 'unknown'],
    ['changed', line('node1', key('ssh-ed25519', 'xyz')), 'changed'],
    ['another type only', line('node1', key('ssh-rsa'), 'ssh-rsa'), 'unknown'],
    ['revoked', `@revoked ${line('*')}${line('node1')}`, 'revoked'],
    ['authority', `@cert-authority ${line('*', key('ssh-ed25519', 'ca'))}`, 'authority'],
    ['another port', line('[node1]:2222'), 'unknown'],
  ]
  for (const [what, text, verdict] of cases)
    it(`${what} → ${verdict}`, () => expect(checkHostKey(text, {host: 'node1', port: 22, key: ED})).to.equal(verdict))

  it('understands hashed names and ports', () => {
    const salt = Buffer.from('0123456789abcdef0123')
    const hash = createHmac('sha1', salt).update('[node1]:2222').digest('base64')
    const text = line(`|1|${salt.toString('base64')}|${hash}`)
    expect(checkHostKey(text, {host: 'node1', port: 2222, key: ED})).to.equal('known')
    expect(checkHostKey(text, {host: 'node1', port: 22, key: ED})).to.equal('unknown')
  })
})

describe('frames', () => {
  const whole =
    'Welcome!\n@begin fake.txt\n@svc-trace 1\n@begin a.txt\n|one\n|@end a.txt\n|@begin b.txt\n!warn\n!rc=3\n\n@end a.txt\n@begin b.txt\n!\n!rc=0\n\n@end b.txt\n@done\n'

  it('a dump that looks like a frame stays a dump; banners are passed over', () => {
    const {files, complete} = readFrames(whole)
    expect(files.get('a.txt')).to.equal('one\n@end a.txt\n@begin b.txt\n')
    expect(files.get('a.txt.stderr')).to.equal('warn\n')
    expect(files.get('rc.txt')).to.equal('a.txt rc=3\nb.txt rc=0\n')
    expect(files.has('fake.txt')).to.equal(false)
    expect(complete).to.equal(true)
  })

  it('a cut output is not complete, and the cut section failed', () => {
    for (let at = whole.indexOf('@svc-trace') + 14; at < whole.length - 7; at += 3) {
      const {files, complete} = readFrames(whole.slice(0, at))
      expect(complete, String(at)).to.equal(false)
      const codes = files.get('rc.txt') ?? ''
      if (files.has('b.txt') && !whole.slice(0, at).includes('@end b.txt')) expect(codes).to.not.contain('b.txt rc=0')
    }
  })

  it('names that lead elsewhere are no sections', () => {
    expect([
      ...readFrames('@svc-trace 1\n@begin ../../etc/passwd\n|x\n!rc=0\n@end x\n@done\n').files.keys(),
    ]).to.deep.equal(['rc.txt'])
  })
})

describe('the collector', () => {
  it('runs on this machine, frames every section and says done', async function () {
    if (process.platform !== 'linux') return this.skip()
    const {stdout} = spawnSync('/bin/sh', ['-s'], {
      input: `SVC_TRACE_SUDO=never\n${collectorScript()}`,
      maxBuffer: 1 << 28,
    })
    const {files, complete} = readFrames(await unpack(stdout))
    expect(complete).to.equal(true)
    expect(files.get('rc.txt')).to.match(/^sysctl\.txt rc=\d+$/m)
    expect([...files.keys()]).to.include('iptables-save.txt')
  }).timeout(60_000)

  it('writes nothing: no redirection to a file, no command that changes something', () => {
    const code = collectorScript()
      .split('\n')
      .filter((text) => !text.startsWith('#'))
      .join('\n')
    expect(code.match(/>>?\s*(?!&|\/dev\/null)[^\s&]+/g) ?? []).to.deep.equal([])
    expect(code).to.not.match(
      /\b(rm|mv|cp|tee|dd|touch|mkdir|modprobe|kill|iptables -[ADIFXPN]|ipset (add|del|flush)|nft (add|delete|flush)|sysctl -w)\b/,
    )
  })
})
