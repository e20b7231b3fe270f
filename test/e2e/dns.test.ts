import {existsSync} from 'node:fs'
import {join} from 'node:path'
import {expect} from 'chai'
import {missing, startLab, type Lab, type Outcome} from './lab.js'
import {NameServer, REPLICAS, ZONE} from './name-server.js'

interface Finding {
  readonly code: string
  readonly severity: string
  readonly services: readonly string[]
  readonly message: string
}

const WEB = 'web.default.svc.cluster.local. A'

describe('live, the cluster DNS', function () {
  this.timeout(120_000)
  let lab: Lab
  let first: NameServer
  let second: NameServer

  before(async function () {
    const lack = missing() ?? (existsSync('/usr/sbin/nsd') ? undefined : 'no nsd')
    if (lack !== undefined) {
      if (process.env['CI'] === 'true') throw new Error(`the test of DNS cannot run: ${lack}`)
      console.log(`test of DNS skipped: ${lack}`)
      this.skip()
    }
    lab = await startLab('k136-iptables-v4')
    first = new NameServer(lab, REPLICAS[0])
    second = new NameServer(lab, REPLICAS[1])
  })
  after(() => lab?.stop())
  beforeEach(() => {
    first.serve(ZONE)
    second.serve(ZONE)
  })

  const ask = (...args: string[]): Promise<Outcome> =>
    lab.kubectl(['svc-trace', ...args, '--ask-dns', '--ssh-config', join(lab.folder, 'ssh/config')])

  /** What `check` finds about DNS. */
  async function found(...services: string[]): Promise<Finding[]> {
    const {stdout, stderr} = await ask('check', ...services, '-o', 'json')
    expect(stdout, stderr).to.match(/^\{/)
    const {findings} = JSON.parse(stdout) as {findings: Finding[]}
    return findings.filter(({code}) => code === 'SVT330' || code === 'SVT331')
  }

  it('is silent about servers that answer as the specification says', async () => {
    expect(await found('web', 'shop/db', 'shop/extname')).to.deep.equal([])
  })

  it('asks through the system’s own ssh as well', async () => {
    first.serve([])
    const [finding] = await found('web', '--via', 'openssh')
    expect(finding?.code).to.equal('SVT331')
  })

  it('names the replica with a stale address', async () => {
    second.serve([...ZONE.filter((line) => !line.startsWith(WEB)), `${WEB} 10.96.9.9`])
    const findings = await found('web', 'shop/db')
    const replica = findings.filter(({message}) => message.includes(REPLICAS[1].address))
    expect(replica.map(({code, services}) => [code, ...services])).to.deep.equal([['SVT331', 'default/web']])
    expect(replica[0]!.message).to.contain('lacks 10.96.68.211').and.contain('10.96.9.9')
    expect(findings.filter(({message}) => message.includes(REPLICAS[0].address))).to.deep.equal([])
  })

  it('names a record that is missing', async () => {
    for (const server of [first, second]) server.serve(ZONE.filter((line) => !line.startsWith('db-1.db')))
    const findings = await found('shop/db')
    expect(findings).to.have.length(3)
    for (const {code, message} of findings) {
      expect(code).to.equal('SVT331')
      expect(message).to.contain('db-1.db.shop.svc.cluster.local A: NXDOMAIN')
    }
  })

  it('names an endpoint that the headless name lacks', async () => {
    first.serve(ZONE.filter((line) => line !== 'db.shop.svc.cluster.local. A 10.244.3.16'))
    const findings = await found('shop/db')
    const own = findings.find(({message}) => message.includes(REPLICAS[0].address))
    expect(own?.message).to.contain('db.shop.svc.cluster.local A lacks 10.244.3.16')
  })

  it('names a replica that fails to serve', async () => {
    second.serve(undefined)
    const replica = (await found('web')).find(({message}) => message.includes(REPLICAS[1].address))
    expect(replica?.code).to.equal('SVT330')
    expect(replica?.message).to.contain('SERVFAIL')
  })

  it('names a replica that says nothing, and one that says nonsense', async () => {
    for (const bytes of [[], [0, 5, 1, 2, 3, 4, 5]]) {
      second.say(bytes)
      const replica = (await found('web')).find(({message}) => message.includes(REPLICAS[1].address))
      expect(replica?.code, String(bytes)).to.equal('SVT330')
      expect(replica?.message).to.contain('no answer')
    }
  })

  it('names a replica that nobody serves', async () => {
    second.stop()
    const replica = (await found('web')).find(({message}) => message.includes(REPLICAS[1].address))
    expect(replica?.code).to.equal('SVT330')
  })

  it('traces the way to a DNS that fails', async () => {
    second.stop()
    const {stdout} = await ask('web')
    expect(stdout).to.contain('the cluster DNS: kube-system/kube-dns').and.contain('10.96.0.10:53/TCP')
  })

  it('keeps the answers in a snapshot', async () => {
    second.serve(undefined)
    const file = join(lab.folder, 'dns.tar.gz')
    expect((await ask('snapshot', '-f', file)).code).to.equal(0)
    const {stdout} = await lab.kubectl(['svc-trace', 'check', 'web', '--snapshot', file, '-o', 'json'])
    const {findings} = JSON.parse(stdout) as {findings: Finding[]}
    expect(findings.filter(({code}) => code === 'SVT330')).not.to.deep.equal([])
  })
})
