/** Nodes that cannot be reached, each for its own reason: named, and no verdict rests on them. */
import {expect} from 'chai'
import {inLab, obstacle, startLab, stopLab, type RunningLab} from '../lab/start.js'

describe('a node that cannot be reached', function () {
  this.timeout(60_000)
  let lab: RunningLab

  before(async function () {
    const why = obstacle()
    if (why !== undefined) {
      if (process.env['CI'] === 'true') throw new Error(why)
      console.log(`test of nodes out of reach skipped: ${why}`)
      this.skip()
    }
    lab = await startLab({name: `reach-${process.pid}`, withMe: true})
    const {code, stderr} = await inLab(lab, [
      'sh',
      '-ec',
      `ip route add unreachable 192.0.2.1
      ip route add prohibit 192.0.2.2
      ip route add 192.0.2.3 via 172.18.0.11
      ip netns exec node1 iptables-legacy -t raw -I PREROUTING -d 192.0.2.3 -j DROP`,
    ])
    expect(code, stderr).to.equal(0)
  })
  after(async () => {
    if (lab) await stopLab(lab)
  })

  for (const [what, host, reason] of [
    ['no route', '192.0.2.1', /192\.0\.2\.1:22 cannot be reached \(EHOSTUNREACH\)/],
    ['a route that prohibits', '192.0.2.2', /192\.0\.2\.2:22 cannot be reached \(EACCES\)|192\.0\.2\.2:22/],
    ['a firewall that swallows', '192.0.2.3', /192\.0\.2\.3:22 did not finish the SSH handshake in time/],
    ['nobody on the wire', '172.18.0.200', /172\.18\.0\.200:22 (cannot be reached|did not finish)/],
    ['a name that nobody knows', 'no-such-node.invalid', /the name no-such-node\.invalid does not resolve/],
  ] as const)
    it(`for ${what}`, async () => {
      const {code, stdout} = await inLab(lab, [
        'kubectl',
        'svc-trace',
        'check',
        'web',
        '-o',
        'json',
        '--node-host',
        `node2=${host}`,
      ])
      expect(code, stdout).to.equal(3)
      const {incomplete, findings} = JSON.parse(stdout) as {
        incomplete: {node?: string; reason: string}[]
        findings: {severity: string}[]
      }
      expect(incomplete.find(({node}) => node === 'node2')?.reason).to.match(reason)
      expect(findings.filter(({severity}) => severity === 'error')).to.deep.equal([])
    })

  it('because it listens to another name: the map leads there', async () => {
    const {code, stdout} = await inLab(lab, [
      'kubectl',
      'svc-trace',
      'check',
      'web',
      '--node-address',
      'name',
      '--node-host',
      'node2=172.18.0.12',
    ])
    expect(code, stdout).to.equal(0)
  })
})
