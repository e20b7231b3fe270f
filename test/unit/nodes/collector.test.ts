import {spawn, spawnSync, type ChildProcess} from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {expect} from 'chai'
import {collectorScript} from '../../../src/nodes/collect.js'
import {readFrames, type CollectedNode} from '../../../src/nodes/frames.js'
import {unpack} from '../../../src/nodes/output.js'

const BUSYBOX = '/bin/busybox'
/** The system's own, which every user may run. */
const PYTHON = '/usr/bin/python3'
const DASH = ['/bin/dash', '-s']
/** What the collector needs of any system besides its shell. */
const COMMON = 'cat cut date grep head id ls printf readlink renice sed sh sleep sort timeout tr true uname'.split(' ')

const pathOf = (tool: string): string => spawnSync('sh', ['-c', `command -v ${tool}`], {encoding: 'utf8'}).stdout.trim()
const missing = (): string | undefined => ['dash', 'bash', 'busybox', 'gzip'].find((tool) => pathOf(tool) === '')

/** Needs these programs; in CI they are there. */
function needs(test: Mocha.Context, why: string | undefined): void {
  if (why === undefined) return
  if (process.env['CI'] === 'true') throw new Error(`${why} is missing`)
  console.log(`collector tests skipped: ${why} is missing`)
  test.skip()
}

describe('the collector on systems of every kind', function () {
  this.timeout(120_000)
  let folder: string
  const started: ChildProcess[] = []

  before(function () {
    needs(this as unknown as Mocha.Context, process.platform === 'linux' ? missing() : 'Linux')
    folder = mkdtempSync(join(tmpdir(), 'svct-collector-'))
    chmodSync(folder, 0o755)
  })
  after(() => {
    for (const child of started) child.kill('SIGKILL')
    if (folder) rmSync(folder, {recursive: true, force: true})
  })

  /** A folder of programs: those named, and small scripts that print what they stand for. */
  const programs = (name: string, real: readonly string[], scripts: Readonly<Record<string, string>> = {}): string => {
    const bin = join(folder, name)
    mkdirSync(bin, {recursive: true})
    for (const tool of real) symlinkSync(pathOf(tool), join(bin, tool))
    for (const [tool, text] of Object.entries(scripts)) {
      writeFileSync(join(bin, tool), `#!${BUSYBOX} sh\n${text}\n`)
      chmodSync(join(bin, tool), 0o755)
    }
    return bin
  }

  const run = async (
    shell: readonly string[],
    path: string,
    edit: (script: string) => string = (script) => script,
  ): Promise<CollectedNode & {sent: Buffer}> => {
    const [command, ...args] = shell
    const {stdout} = spawnSync(command!, args, {
      input: `SVC_TRACE_SUDO=never\n${edit(collectorScript())}`,
      env: {PATH: path},
      maxBuffer: 1 << 28,
    })
    return {...readFrames(await unpack(stdout)), sent: stdout}
  }
  /** Only the given PATH counts, not the usual places of this machine. */
  const nowhereElse = (script: string): string => script.replace(/^PATH=.*$/m, 'true')

  const SHELLS = {
    dash: ['dash', '-s'],
    bash: ['bash', '-s'],
    'bash as sh': ['bash', '--posix', '-s'],
    busybox: [BUSYBOX, 'ash', '-s'],
  }
  for (const [name, shell] of Object.entries(SHELLS))
    it(`runs in ${name}`, async () => {
      const {files, complete} = await run([pathOf(shell[0]!), ...shell.slice(1)], process.env['PATH']!)
      expect(complete).to.equal(true)
      expect(files.get('rc.txt')).to.match(/^sysctl\.txt rc=0$/m)
      if (name !== 'busybox') expect(files.get('ip-addr.json')).to.match(/"ifname":"lo"/)
      expect(files.get('sysctl.txt')).to.match(/^net\.ipv4\.ip_forward = \d$/m)
    })

  it('runs where everything is busybox, and what is missing is missing', async () => {
    const bin = join(folder, 'alpine')
    mkdirSync(bin)
    spawnSync(BUSYBOX, ['--install', '-s', bin])
    const {files, complete} = await run([BUSYBOX, 'ash', '-s'], bin, nowhereElse)
    expect(complete).to.equal(true)
    expect(files.get('rc.txt')).to.match(/^ipset-save\.txt rc=127$/m)
    expect(files.get('sysctl.txt')).to.match(/^net\.ipv4\.ip_forward = \d$/m)
  })

  it('compresses where gzip is there, and not when nobody wants it', async () => {
    const [plain, none, packed] = [
      await run(['sh', '-s'], process.env['PATH']!, (script) => `SVC_TRACE_GZIP=no\n${script}`),
      await run(DASH, programs('no-gzip', COMMON), nowhereElse),
      await run(['sh', '-s'], process.env['PATH']!),
    ]
    for (const one of [plain, none]) expect(one.sent.subarray(0, 13).toString()).to.equal('@svc-trace 1\n')
    expect(packed.sent.subarray(0, 16).toString()).to.equal('@svc-trace gzip\n')
    expect([...packed.files.keys()].sort()).to.deep.equal([...plain.files.keys()].sort())
    expect(packed.sent.length).to.be.lessThan(plain.sent.length / 2)
  })

  it('what is compressed and cut gives the sections before the cut', async () => {
    const {sent, files} = await run(['sh', '-s'], process.env['PATH']!)
    const cut = readFrames(await unpack(sent.subarray(0, Math.round(sent.length * 0.7))))
    expect(cut.complete).to.equal(false)
    expect(cut.files.size).to.be.greaterThan(5)
    expect(cut.files.get('iptables-save.txt')).to.equal(files.get('iptables-save.txt'))
    const damaged = Buffer.from(sent)
    damaged.fill(7, sent.length >> 1)
    expect(readFrames(await unpack(damaged)).complete).to.equal(false)
  })

  it('a line of a dump that looks like the word for compressed output is a line', async () => {
    const sent = '@svc-trace 1\n@begin a.txt\n|x\n@svc-trace gzip\n|y\n!rc=0\n@end a.txt\n@done\n'
    expect(readFrames(await unpack(Buffer.from(sent)))).to.deep.include({complete: true})
    expect(await unpack(Buffer.from('say @svc-trace gzip\n'))).to.equal('say @svc-trace gzip\n')
  })

  it('a gigabyte that was compressed to a megabyte is refused', async () => {
    const {stdout} = spawnSync('sh', ['-c', 'echo "@svc-trace gzip"; head -c 1000000000 /dev/zero | gzip -1'], {
      maxBuffer: 1 << 28,
    })
    const outcome = await unpack(stdout).catch((error: Error) => error.message)
    expect(outcome).to.match(/more than 256 MB/)
  })

  for (const place of [
    '/var/lib/rancher/k3s/data/current/bin',
    '/var/lib/rancher/k3s/data/current/bin/aux',
    '/var/lib/rancher/rke2/bin',
    '/opt/bin',
    '/usr/sbin',
    '/sbin',
  ])
    it(`looks into ${place}`, async () => {
      const root = join(folder, 'root', place)
      mkdirSync(root, {recursive: true})
      writeFileSync(join(root, 'ipset'), `#!${BUSYBOX} sh\necho create SEEN hash:ip\n`, {mode: 0o755})
      const bare = join(folder, 'bare')
      mkdirSync(bare, {recursive: true})
      const {files} = await run(DASH, programs(`bare${place.replaceAll('/', '-')}`, COMMON), (script) =>
        script.replace(/^PATH=.*$/m, (line) => line.replace(/:\//g, `:${join(folder, 'root')}/`)),
      )
      expect(files.get('ipset-save.txt')).to.equal('create SEEN hash:ip\n')
      rmSync(join(root, 'ipset'))
    })

  describe('with a kube-proxy that has tools of its own', () => {
    let bin: string

    /** A process of that name in a root directory of its own, where `ipset` is. */
    const kubeProxy = async (limit: readonly string[], said: string): Promise<ChildProcess> => {
      const root = join(folder, `kube-proxy-${said}`)
      mkdirSync(join(root, 'usr/sbin'), {recursive: true})
      mkdirSync(join(root, 'bin'))
      copyFileSync(BUSYBOX, join(root, 'bin/busybox'))
      for (const tool of ['ipset', 'iptables-legacy-save'])
        writeFileSync(join(root, 'usr/sbin', tool), `#!/bin/busybox sh\necho "# ${said} $0"\n`, {mode: 0o755})
      const child = spawn(
        limit[0] ?? PYTHON,
        [
          ...(limit.length > 0 ? [...limit.slice(1), PYTHON] : []),
          '-c',
          'import os,sys,time\nopen("/proc/self/comm","w").write("kube-proxy")\nos.chroot(sys.argv[1])\nos.chdir("/")\nprint("up",flush=True)\ntime.sleep(60)',
          root,
        ],
        {stdio: ['ignore', 'pipe', 'inherit']},
      )
      started.push(child)
      await new Promise((settle, fail) => {
        child.stdout!.once('data', settle)
        child.once('exit', () => fail(new Error(`${said}: it did not start`)))
      })
      return child
    }
    const stop = async (child: ChildProcess): Promise<void> => {
      child.kill('SIGKILL')
      while (child.exitCode === null && child.signalCode === null) await sleep(10)
    }

    before(function () {
      if (process.getuid?.() !== 0) needs(this as unknown as Mocha.Context, 'root')
      bin = programs('without-ipset', [...COMMON, 'chroot', 'gzip'])
    })

    it('takes them where the node has none, and says so', async () => {
      const child = await kubeProxy([], 'true')
      const {files} = await run(DASH, bin, nowhereElse)
      await stop(child)
      expect(files.get('ipset-save.txt')).to.match(/^# true/)
      expect(files.get('iptables-legacy-save.txt')).to.match(/^# true/)
      expect(files.get('backend.txt')).to.match(/^ipset of kube-proxy \(process \d+\)$/m)
    })

    it('takes nothing of one that has fewer rights than root, another network or other users', async () => {
      for (const [said, limit] of Object.entries({
        weak: ['setpriv', '--bounding-set', '-sys_module'],
        elsewhere: ['unshare', '--net'],
        // with every right there is, among users of its own
        userns: ['setpriv', '--reuid', '65534', '--clear-groups', 'unshare', '--user', '--map-root-user'],
        'root-userns': ['unshare', '--user', '--map-root-user'],
        nobody: [
          'setpriv',
          '--reuid',
          '65534',
          '--clear-groups',
          '--inh-caps',
          '+sys_chroot',
          '--ambient-caps',
          '+sys_chroot',
        ],
      })) {
        const child = await kubeProxy(limit, said)
        expect(readFileSync(`/proc/${child.pid}/comm`, 'utf8')).to.equal('kube-proxy\n')
        const {files} = await run(said === 'userns' ? [BUSYBOX, 'ash', '-s'] : DASH, bin, nowhereElse)
        await stop(child)
        expect(files.get('rc.txt'), said).to.match(/^ipset-save\.txt rc=127$/m)
        expect(files.has('iptables-legacy-save.txt'), said).to.equal(false)
      }
    })
  })
})
