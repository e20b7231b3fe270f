import {existsSync, mkdirSync, readFileSync, statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {expect} from 'chai'
import {loadAll} from 'js-yaml'
import type {Context} from 'mocha'
import {PRIVATE} from '../lab/api-server.js'
import {missing, run, SSH_PORT, startLab, type Lab, type Outcome} from './lab.js'

interface Finding {
  readonly code: string
  readonly severity: string
  readonly node?: string
  readonly services: readonly string[]
  readonly message: string
}

interface Report {
  readonly kind: string
  readonly findings: readonly Finding[]
  readonly incomplete: readonly {readonly node?: string; readonly reason: string}[]
}

interface TraceReport extends Report {
  readonly endpoints: readonly {readonly address: string; readonly nodeName?: string}[]
  readonly paths: readonly {
    readonly parts: readonly {readonly fates: readonly {readonly outcome: string; readonly share: number}[]}[]
  }[]
}

let lab: Lab

/** Runs the plugin by the real kubectl, with an ssh_config of the lab's own. */
const svcTrace = (...args: string[]): Promise<Outcome> =>
  lab.kubectl(['svc-trace', ...args, '--ssh-config', join(lab.folder, 'ssh/config')])
const ssh = (file: string): string => join(lab.folder, 'ssh', file)
const json = <T extends Report = Report>({stdout}: Outcome): T => JSON.parse(stdout) as T
const errors = ({findings}: Report): Finding[] => findings.filter(({severity}) => severity === 'error')

function expectOutcome(outcome: Outcome, code: number): void {
  expect(outcome.code, `${outcome.stdout}\n${outcome.stderr}`).to.equal(code)
  expect(outcome.stderr, 'a stack').not.to.match(/^\s+at .*:\d+/m)
}

/** One line says what is wrong; at most a hint follows. */
function expectRefusal(outcome: Outcome, reason: RegExp): void {
  expectOutcome(outcome, 2)
  expect(outcome.stdout).to.equal('')
  const [first, ...more] = outcome.stderr.trimEnd().split('\n')
  expect(first)
    .to.match(/^error: /)
    .and.match(reason)
  for (const line of more) expect(line).to.match(/^hint: /)
}

/** The nodes that were not read, and that they were named while the others went on. */
function expectLost(outcome: Outcome, node: string, reason: RegExp): void {
  expectOutcome(outcome, 3)
  expect(outcome.stderr)
    .to.match(new RegExp(`node ${node}: .*`))
    .and.match(reason)
  const report = json(outcome)
  expect(report.incomplete.map((one) => one.node)).to.include(node)
  expect(new Set(report.incomplete.flatMap((one) => one.node ?? []))).to.deep.equal(new Set([node]))
  expect(errors(report)).to.deep.equal([])
}

async function setUp(context: Context, cluster: string): Promise<void> {
  const lack = missing()
  if (lack !== undefined) {
    if (process.env['CI'] === 'true') throw new Error(`the live test cannot run: ${lack}`)
    console.log(`live test skipped: ${lack}`)
    context.skip()
  }
  lab = await startLab(cluster)
}

describe('live, iptables', function () {
  this.timeout(60_000)
  before(function () {
    return setUp(this, 'k136-iptables-v4')
  })
  after(() => lab?.stop())
  afterEach(() => lab.faults({}))

  describe('a healthy cluster', () => {
    it('is one that kubectl can read', async () => {
      const {code, stdout} = await lab.kubectl(['get', 'services', '-A'])
      expect(code).to.equal(0)
      expect(stdout).to.match(/^default +web /m)
    })

    it('traces a Service through every node', async () => {
      const outcome = await svcTrace('web')
      expectOutcome(outcome, 0)
      expect(outcome.stderr).to.equal('')
      for (const text of [
        '10.96.68.211',
        '10.244.1.11:8080',
        '10.244.2.11:8080',
        '10.244.2.12:8080',
        'node1',
        'node2',
        'node3',
        'default/web-a',
      ])
        expect(outcome.stdout).to.include(text)
      expect(outcome.stdout).to.match(/delivered on all \d+ ways\n/)
    })

    it('prints the trace as JSON', async () => {
      const outcome = await svcTrace('default/dempapp', '-o', 'json')
      expectOutcome(outcome, 0)
      const report = json<TraceReport>(outcome)
      expect(report.kind).to.equal('TraceReport')
      expect(report.endpoints.map(({address}) => address)).to.have.members(['10.244.2.13:8080', '10.244.3.11:8080'])
      const fates = report.paths.flatMap(({parts}) => parts.flatMap((part) => part.fates))
      expect(new Set(fates.map(({outcome: fate}) => fate))).to.deep.equal(new Set(['delivered']))
    })

    it('passes the gate', async () => {
      expectOutcome(await svcTrace('check', 'web', 'dempapp', 'kube-system/kube-dns'), 0)
    })

    it('fails the gate on what is broken in the API alone', async () => {
      const outcome = await svcTrace('check', '-A', '-o', 'json')
      expectOutcome(outcome, 1)
      expect(errors(json(outcome)).flatMap(({services}) => services)).to.have.members([
        'shop/nopods',
        'shop/notready',
        'default/no-such-service',
      ])
    })

    it('pleases the doctor', async () => {
      const outcome = await svcTrace('doctor')
      expectOutcome(outcome, 0)
      for (const {name} of lab.nodes)
        expect(outcome.stdout).to.match(new RegExp(`ok +node ${name}: everything is readable, kube-proxy iptables`))
    })

    it('takes ssh settings as flags, and the system’s own ssh', async () => {
      const flags = [
        '--ssh-user',
        'root',
        '--ssh-port',
        String(SSH_PORT),
        '--ssh-identity',
        ssh('id'),
        '--ssh-known-hosts',
        ssh('known_hosts'),
      ]
      for (const via of ['ssh', 'openssh'])
        expectOutcome(await lab.kubectl(['svc-trace', 'check', 'web', '--via', via, ...flags]), 0)
    })

    it('reaches a node by another, as ssh_config says', async () => {
      const outcome = await lab.kubectl(['svc-trace', 'check', 'web', '--ssh-config', ssh('config-jump')])
      expectOutcome(outcome, 0)
      const [from] = /(\S+) port \d+ ssh2/
        .exec(
          readFileSync(ssh('log-node3'), 'utf8')
            .split('\n')
            .findLast((line) => line.includes('Accepted publickey'))!,
        )!
        .slice(1)
      expect(from).to.equal('172.18.0.11')
    })

    it('completes names from the cluster', async () => {
      const {stdout} = await lab.kubectl(['__complete', 'svc-trace', 'check', 'w'])
      expect(stdout.split('\n')).to.include.members(['web', 'wordpress'])
    })

    it('reads one node when asked for one', async () => {
      const outcome = await svcTrace('web', '--node', 'node2', '--from', 'node/node2')
      expect(outcome.stdout)
        .to.match(/node node2/)
        .and.not.match(/from node node1/)
    })

    it('begins a list again whose page token has expired', async () => {
      await lab.faults({expire: true})
      const outcome = await svcTrace('check', 'web', '-o', 'json')
      expectOutcome(outcome, 0)
      expect(json(outcome).incomplete).to.deep.equal([])
    })
  })

  describe('a snapshot', () => {
    const file = (): string => join(lab.folder, 'x.tar.gz')
    const unpacked = (): string => join(lab.folder, 'unpacked')

    before(async () => {
      const outcome = await svcTrace('snapshot', '-f', file())
      expectOutcome(outcome, 0)
      expect(outcome.stderr).to.include('3 nodes read')
      mkdirSync(unpacked())
      run('tar', ['-xzf', file(), '-C', unpacked()])
    })

    it('is for its owner only', () => {
      expect(statSync(file()).mode & 0o777).to.equal(0o600)
    })

    it('holds nothing private', () => {
      const found = run('sh', ['-c', `grep -rlE -e '${PRIVATE}|PRIVATE KEY' '${unpacked()}' || true`])
      expect(found).to.equal('')
      expect(readFileSync(join(unpacked(), 'api/pods.json'), 'utf8')).to.include('web-a')
    })

    it('says the same without the cluster', async () => {
      const live = json(await svcTrace('check', '-A', '-o', 'json'))
      const offline = await lab.kubectl(['svc-trace', 'check', '-A', '-o', 'json', '--snapshot', file()], {
        env: {KUBECONFIG: '/nowhere'},
      })
      expectOutcome(offline, 1)
      const bare = ({findings}: Report): object[] =>
        findings.map(({code, node, services, message}) => ({code, node, services, message}))
      expect(bare(json(offline))).to.deep.equal(bare(live))
      const trace = await lab.kubectl(['svc-trace', 'web', '--snapshot', file()], {env: {KUBECONFIG: '/nowhere'}})
      expectOutcome(trace, 0)
      expect(trace.stdout).to.equal((await svcTrace('web')).stdout)
    })

    it('is refused when it is broken', async () => {
      const whole = readFileSync(file())
      const path = join(lab.folder, 'broken.tar.gz')
      const versions = [
        whole.subarray(0, 4000),
        Buffer.alloc(0),
        Buffer.from('not an archive'),
        Buffer.from(whole).fill(7, 5000, 9000),
      ]
      for (const [index, bytes] of versions.entries()) {
        writeFileSync(path, bytes)
        const outcome = await lab.kubectl(['svc-trace', 'check', '--snapshot', path])
        expect(outcome.code, `version ${index}: ${outcome.stdout}${outcome.stderr}`).to.equal(2)
        expectRefusal(outcome, /broken\.tar\.gz/)
      }
      expectRefusal(await lab.kubectl(['svc-trace', 'web', '--snapshot', '/nowhere']), /\/nowhere: no such file/)
    })

    it('with a garbled dump gives no certain answer', async () => {
      const garbage = Buffer.from(Array.from({length: 3000}, (_, at) => (at * 7919) % 251)).toString('latin1')
      for (const {name} of lab.nodes)
        for (const dump of ['iptables-save.txt', 'iptables-nft-save.txt', 'nft.json', 'nft.txt'])
          writeFileSync(join(unpacked(), 'nodes', name, dump), garbage)
      const outcome = await lab.kubectl(['svc-trace', 'web', '--snapshot', unpacked(), '-o', 'json'])
      expect(outcome.code, outcome.stderr).to.be.oneOf([1, 3])
      const fates = json<TraceReport>(outcome).paths.flatMap(({parts}) => parts.flatMap((part) => part.fates))
      expect(fates.map(({outcome: fate}) => fate)).not.to.include('delivered')
      expect((await lab.kubectl(['svc-trace', 'check', 'web', '--snapshot', unpacked()])).code).to.be.oneOf([1, 3])
    })
  })

  describe('a deleted NodePort rule', () => {
    const change = (from: string, to: string): string =>
      `iptables-nft -t nat -S KUBE-NODEPORTS | grep -e '--dport 32327 ' | sed 's/^${from}/${to}/'`
    let rules = ''

    before(() => {
      rules = lab.inNode('node2', change('-A', '-A'))
      lab.inNode('node2', `${change('-A', 'iptables-nft -t nat -D')} | sh -e`)
    })
    after(() => lab.inNode('node2', rules.replaceAll(/^-A/gm, 'iptables-nft -t nat -A')))

    it('fails the gate, which names the node and the Service', async () => {
      const outcome = await svcTrace('check', 'dempapp', 'web', '-o', 'json')
      expectOutcome(outcome, 1)
      const found = errors(json(outcome))
      expect(found).to.have.lengthOf(1)
      expect(found[0]).to.deep.include({node: 'node2', services: ['default/dempapp']})
      const text = await svcTrace('check', 'dempapp')
      expect(text.stdout)
        .to.match(/ERROR SVT\d+ .* on node2/)
        .and.include('default/dempapp')
        .and.include('172.18.0.12:32327')
    })

    it('is told by --watch when it goes and when it comes back', async () => {
      const poke = async (): Promise<void> => {
        await lab.faults({poke: true})
        await new Promise((done) => setTimeout(done, 5000))
      }
      const running = lab.kubectl(
        ['svc-trace', 'check', 'dempapp', '--watch', '10m', '--ssh-config', join(lab.folder, 'ssh/config')],
        {interruptAfter: 20_000},
      )
      await new Promise((done) => setTimeout(done, 6000))
      lab.inNode('node2', rules.replaceAll(/^-A/gm, 'iptables-nft -t nat -A'))
      await poke()
      lab.inNode('node2', `${change('-A', 'iptables-nft -t nat -D')} | sh -e`)
      await poke()
      const {code, stdout} = await running
      expect(code, stdout).to.equal(130)
      expect(stdout).to.match(/\n\d\d:\d\d:\d\d - error SVT\d+ on node2: .*\n\d\d:\d\d:\d\d \+ error SVT\d+ on node2: /)
    })

    it('spares other Services', async () => {
      expectOutcome(await svcTrace('check', 'web'), 0)
    })
  })

  describe('a bridge port that sends nothing back (hairpin mode off)', () => {
    const hairpin = (state: string): string =>
      lab.inNode('node1', `ip link set pods type bridge_slave hairpin ${state}`)
    before(() => hairpin('off'))
    after(() => hairpin('on'))

    it('is one finding for all Services, not one for each', async () => {
      const outcome = await svcTrace('check', '-n', 'default', '-o', 'json')
      expectOutcome(outcome, 1)
      // the Ingress that leads nowhere is no matter of a node
      const found = errors(json(outcome)).filter(({node}) => node !== undefined)
      expect(found.map(({code, node}) => `${code} ${node}`)).to.deep.equal(['SVT116 node1'])
      expect(found[0]!.services).to.include.members(['default/web', 'default/wordpress'])
    })

    it('takes "delivered on all ways" out of the trace', async () => {
      const outcome = await svcTrace('web')
      expectOutcome(outcome, 1)
      expect(outcome.stdout)
        .to.include('hairpin mode is off')
        .and.not.match(/delivered on all/)
    })
  })

  describe('a node that cannot be read', () => {
    const withKnownHosts = (file: string): Promise<Outcome> =>
      svcTrace('check', 'web', '-o', 'json', '--ssh-known-hosts', ssh(file))

    it('is refused for an unknown host key, with a hint', async () => {
      const outcome = await withKnownHosts('known_hosts-without-2')
      expectLost(outcome, 'node2', /not in known_hosts \(ssh-ed25519 SHA256:/)
      expect(outcome.stderr).to.include(`ssh-keyscan -p ${SSH_PORT} 172.18.0.12`)
    })

    it('is refused for a changed host key', async () => {
      const outcome = await withKnownHosts('known_hosts-other-2')
      expectLost(outcome, 'node2', /has CHANGED/)
      expect(outcome.stderr).to.include(`ssh-keygen -R "[172.18.0.12]:${SSH_PORT}"`)
    })

    it('is refused by the system’s own ssh too', async () => {
      for (const file of ['known_hosts-without-2', 'known_hosts-other-2']) {
        const outcome = await svcTrace('check', 'web', '-o', 'json', '--via', 'openssh', '--ssh-known-hosts', ssh(file))
        expectLost(outcome, 'node2', /host key of 172\.18\.0\.12 is unknown or has changed/)
      }
    })

    it('is named when it takes no key of ours', async () => {
      const outcome = await svcTrace('check', 'web', '--ssh-identity', ssh('other'))
      expectOutcome(outcome, 3)
      expect(outcome.stderr.match(/accepts no key of ours for user root/g)).to.have.lengthOf(3)
    })

    describe('because its sshd says nothing', () => {
      before(() => lab.pauseSshd('node3', true))
      after(() => lab.pauseSshd('node3', false))

      it('is given up after --node-timeout', async () => {
        expectLost(await svcTrace('check', 'web', '-o', 'json', '--node-timeout', '3s'), 'node3', /time limit/)
      })

      it('is said to be gone when the API has lost it meanwhile', async () => {
        const asked = svcTrace('check', 'web', '-o', 'json', '--node-timeout', '6s')
        await sleep(3000)
        await lab.faults({remove: [{resource: 'nodes', object: {metadata: {name: 'node3'}}}]})
        const outcome = await asked
        await lab.faults({reset: true})
        expectLost(outcome, 'node3', /time limit.*; the API no longer has this node/)
        expect(outcome.stderr).to.include('it was removed while we read')
      })

      it('does not hold up an interruption', async () => {
        const outcome = await lab.kubectl(['svc-trace', 'web', '--ssh-config', ssh('config')], {interruptAfter: 4000})
        expectOutcome(outcome, 130)
        expect(outcome.stderr).to.include('interrupted; 2 of 3 nodes were read')
      })
    })

    describe('because its sshd is stopped', () => {
      before(() => lab.stopSshd('node3'))
      after(() => lab.startSshd('node3'))

      it('is named, and the others are read', async () => {
        expectLost(await svcTrace('check', 'web', '-o', 'json'), 'node3', /172\.18\.0\.13:2222 refuses the connection/)
        expectOutcome(await svcTrace('check', 'web', '--allow-incomplete'), 0)
        const trace = await svcTrace('web')
        expectOutcome(trace, 3)
        expect(trace.stdout).to.include('node3').and.include('10.244.1.11:8080')
      })

      it('fails the doctor and leaves a hole in a snapshot', async () => {
        const doctor = await svcTrace('doctor')
        expectOutcome(doctor, 1)
        expect(doctor.stdout)
          .to.match(/failed +node node3 at /)
          .and.match(/ok +node node1: /)
        const path = join(lab.folder, 'hole.tar.gz')
        const taken = await svcTrace('snapshot', '-f', path)
        expectOutcome(taken, 3)
        expect(taken.stderr).to.include('node node3: ').and.include('2 nodes read')
        expectOutcome(await lab.kubectl(['svc-trace', 'check', 'web', '--snapshot', path]), 3)
      })
    })
  })

  describe('what cannot be answered', () => {
    it('is a Service that is not there', async () => {
      expectRefusal(await svcTrace('nowhere'), /services "nowhere" not found/)
      expectRefusal(await svcTrace('check', 'nowhere'), /services "nowhere" not found/)
    })

    it('is an API that is down', async () => {
      expectRefusal(await svcTrace('web', '--server', 'https://172.18.0.1:6444'), /cannot reach the API server/)
    })

    it('is an API that is not ours', async () => {
      expectRefusal(await svcTrace('web', '--certificate-authority', join(lab.folder, 'pki/tester.crt')), /certificate/)
    })

    it('is an API that is slow', async () => {
      await lab.faults({delay: 5000})
      expectRefusal(await svcTrace('web', '--request-timeout', '300ms'), /did not answer in time/)
    })

    for (const path of ['', '/pods', '/version']) {
      it(`is an API that is ill${path && ` at ${path}`}`, async () => {
        await lab.faults({status: 500, path})
        expectRefusal(await svcTrace('web'), /request timed out/)
      })
    }

    it('is kube-proxy’s configuration, which costs nothing but must be said', async () => {
      await lab.faults({status: 500, path: '/configmaps'})
      const outcome = await svcTrace('check', 'web')
      expect(outcome.code, outcome.stdout).to.be.oneOf([2, 3])
      expect(`${outcome.stdout}${outcome.stderr}`).to.match(/configmap/)
    })

    it('is a user whom the API does not know', async () => {
      await lab.faults({status: 401})
      expectRefusal(await svcTrace('web'), /Unauthorized|asked for credentials/)
      await lab.faults({})
      const {
        users: _,
        contexts: __,
        ...config
      } = JSON.parse(readFileSync(join(lab.folder, 'kubeconfig'), 'utf8')) as Record<string, unknown>
      writeFileSync(
        join(lab.folder, 'anonymous'),
        JSON.stringify({...config, contexts: [{name: 'lab', context: {cluster: 'lab'}}]}),
      )
      expectRefusal(
        await svcTrace('web', '--kubeconfig', join(lab.folder, 'anonymous')),
        /Unauthorized|asked for credentials/,
      )
    })

    it('is a kubeconfig that is not there', async () => {
      expectRefusal(await svcTrace('web', '--kubeconfig', '/nowhere'), /\/nowhere/)
      expectRefusal(
        await lab.kubectl(['svc-trace', 'web'], {env: {KUBECONFIG: '/nowhere'}}),
        /no kubeconfig: \/nowhere/,
      )
    })

    it('is a client key that is none', async () => {
      writeFileSync(join(lab.folder, 'no.key'), 'no key')
      expectRefusal(await svcTrace('web', '--client-key', join(lab.folder, 'no.key')), /key/)
    })

    it('is a file of ssh settings that is not there', async () => {
      expectRefusal(await lab.kubectl(['svc-trace', 'web', '--ssh-config', '/nowhere']), /\/nowhere/)
    })

    it('is a trace that is interrupted', async () => {
      await lab.faults({delay: 10_000})
      const outcome = await lab.kubectl(['svc-trace', 'web'], {interruptAfter: 1500})
      expectOutcome(outcome, 130)
      expect(outcome.stdout).to.equal('')
    })
  })

  describe('without SSH, by the API’s exec', () => {
    const exec = ['--via', 'exec', '--exec-pod', 'kube-system/nodeexp']
    after(() => lab.faults({}))

    it('reads as much through a pod that has the tools', async () => {
      expectOutcome(await svcTrace('check', 'web', ...exec), 0)
      const outcome = await svcTrace('trace', 'web', '--via', 'exec')
      expectOutcome(outcome, 0)
      expect(outcome.stdout).to.contain('default/web: delivered on all')
    })

    it('asks command by command where there is no shell', async () => {
      await lab.faults({shellless: true})
      expectOutcome(await svcTrace('check', 'web', ...exec), 0)
    })

    it('is incomplete where a node has no such pod, or its network is not the node’s', async () => {
      for (const [pod, reason] of [
        ['kube-system/no-such', /no pod kube-system\/no-such on node1/],
        ['default/cli', /network of its own/],
      ] as const) {
        const outcome = await svcTrace('check', 'web', '--via', 'exec', '--exec-pod', pod)
        expectOutcome(outcome, 3)
        expect(outcome.stderr).to.match(reason)
      }
    })
  })

  describe('with a key that is forced to the collector', () => {
    const limited = (): string[] => ['--ssh-identity', ssh('limited')]

    it('reads everything', async () => {
      expectOutcome(await svcTrace('check', 'web', ...limited()), 0)
    })

    it('can do nothing else: no command, no shell, no forwarding, no file', () => {
      const proof = join(lab.folder, 'proof')
      const options = `-F ${ssh('config')} -i ${ssh('limited')} -o IdentitiesOnly=yes -o IdentityFile=none -o BatchMode=yes`
      const at = lab.nodes[1]!.address
      const said = lab.inNode('node1', `ssh ${options} ${at} 'touch ${proof}; id' </dev/null 2>&1 || true`)
      expect(said).to.contain('@svc-trace gzip').and.not.contain('uid=')
      lab.inNode('node1', `echo 'touch ${proof}' | ssh ${options} -tt ${at} >/dev/null 2>&1 || true`)
      const forwarded = lab.inNode('node1', `ssh ${options} -W ${at}:10256 ${at} </dev/null 2>&1 || true`)
      expect(forwarded).to.match(/prohibited|failed|refused/)
      lab.inNode('node1', `scp -q ${options} /etc/hostname ${at}:${proof} </dev/null >/dev/null 2>&1 || true`)
      expect(existsSync(proof)).to.equal(false)
    })
  })

  describe('with the permissions of manifests/rbac.yaml alone', () => {
    before(async () => {
      const role = loadAll(readFileSync(join(import.meta.dirname, '../../manifests/rbac.yaml'), 'utf8'))[0] as {
        rules: {resources: string[]; resourceNames?: string[]; verbs: string[]}[]
      }
      for (const {verbs, resources} of role.rules)
        expect(['list', 'get', ...(resources.join() === 'endpointslices' ? ['watch'] : [])]).to.include.members(verbs)
      const allow = role.rules.flatMap(({resources, resourceNames}) =>
        resources.flatMap((resource) => resourceNames?.map((name) => `${resource}/${name}`) ?? [resource]),
      )
      await lab.faults({allow})
    })
    after(() => lab.faults({}))

    for (const [name, args] of [
      ['trace', ['web']],
      ['check', ['check', 'web']],
      ['snapshot', ['snapshot', '-f', 'rbac.tar.gz']],
      ['doctor', ['doctor']],
    ] as const) {
      it(`${name} needs no more`, async () => {
        const outcome = await svcTrace(...args)
        expectOutcome(outcome, 0)
        expect(`${outcome.stdout}${outcome.stderr}`).not.to.match(/forbidden/i)
      })
    }
  })

  describe('without a permission', () => {
    for (const forbid of ['pods', 'pods@cluster', 'nodes', 'configmaps', 'networkpolicies']) {
      it(`for ${forbid}, works and says so`, async () => {
        await lab.faults({forbid: [forbid]})
        const outcome = await svcTrace('web')
        expect(outcome.code, outcome.stderr).to.be.oneOf([0, 3])
        expect(outcome.stderr).not.to.match(/^\s+at /m)
        expect(`${outcome.stdout}${outcome.stderr}`).to.match(new RegExp(`${forbid.split(/@|s$/)[0]}.*forbidden`, 's'))
      })
    }

    it('for Services, gives up', async () => {
      await lab.faults({forbid: ['services']})
      expectRefusal(await svcTrace('web'), /services is forbidden/)
    })
  })
})

describe('live, nftables', function () {
  this.timeout(60_000)
  before(function () {
    return setUp(this, 'k136-nftables-v4')
  })
  after(() => lab?.stop())

  it('traces and checks the same Services', async () => {
    const trace = await svcTrace('dempapp')
    expectOutcome(trace, 0)
    for (const text of ['10.244.2.13:8080', '10.244.3.11:8080', 'node1', 'node2', 'node3'])
      expect(trace.stdout).to.include(text)
    expectOutcome(await svcTrace('check', 'web', 'dempapp'), 0)
  })

  it('finds an element that is missing on one node', async () => {
    lab.inNode('node2', "nft delete element ip kube-proxy service-nodeports '{ tcp . 32327 }'")
    const outcome = await svcTrace('check', 'dempapp', 'web', '-o', 'json')
    expectOutcome(outcome, 1)
    const found = errors(json(outcome))
    expect(found.map(({node}) => node)).to.deep.equal(['node2'])
    expect(found[0]!.services).to.deep.equal(['default/dempapp'])
  })
})
