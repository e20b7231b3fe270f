/** What a user needs on a node: the lines of docs/nodes.md, and nothing more. */
import {existsSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {expect} from 'chai'
import type {Outcome} from '../lab/machine.js'
import {inLab, obstacle, startLab, stopLab, type RunningLab} from '../lab/start.js'

const ROOT = join(import.meta.dirname, '../..')
/** The lines that docs/nodes.md tells people to write. */
const DOC = readFileSync(join(ROOT, 'docs/nodes.md'), 'utf8')
const FORCED = /^restrict,command="sudo [^"]*"/m.exec(DOC)![0]
const SUDOERS = /^oncall ALL=.*$/m.exec(DOC)![0]

/** Runs a command in a terminal and types the first argument when it is asked for. */
const TYPIST = `import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
text, typed = b'', False
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    text += data
    if b'passphrase of' in text and not typed:
        typed = True
        os.write(fd, sys.argv[1].encode() + b'\\r')
print(text.decode(), flush=True)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`

describe('a user without rights on the nodes', function () {
  this.timeout(60_000)
  let lab: RunningLab

  const sh = async (script: string): Promise<string> => {
    const {code, stdout, stderr} = await inLab(lab, ['sh', '-ec', script])
    expect(code, stderr).to.equal(0)
    return stdout
  }
  const svcTrace = (...words: string[]): Promise<Outcome> =>
    inLab(lab, ['kubectl', 'svc-trace', ...words, '--ssh-user', 'oncall', '--ssh-identity', '/run/lab/oncall/key'])

  before(async function () {
    const why = obstacle() ?? (existsSync('/usr/bin/sudo') ? undefined : 'no sudo')
    if (why !== undefined) {
      if (process.env['CI'] === 'true') throw new Error(why)
      console.log(`test of rights skipped: ${why}`)
      this.skip()
    }
    lab = await startLab({name: `rights-${process.pid}`, withMe: true})
    // a user of the lab's nodes alone: the files lie over the machine's own, where only the lab sees them
    await sh(`mkdir -p /run/lab/oncall /run/lab/sudoers.d /run/lab/sbin
      echo 'oncall:x:1999:1999::/run/lab/oncall:/bin/sh' >>/etc/passwd
      { cat /etc/shadow; echo 'oncall:*:19000:0:99999:7:::'; } >/run/lab/shadow
      chmod 600 /run/lab/shadow; mount --bind /run/lab/shadow /etc/shadow
      mount --bind /run/lab/sudoers.d /etc/sudoers.d
      cp '${ROOT}/src/nodes/collector.sh' /run/lab/sbin/svc-trace-collector; chmod 755 /run/lab/sbin/svc-trace-collector
      mount --bind /run/lab/sbin /usr/local/sbin
      ssh-keygen -q -t ed25519 -N '' -f /run/lab/oncall/key
      # those that run already do not see the files
      pkill sshd; sleep 0.5
      for node in node1 node2 node3; do ip netns exec $node /usr/sbin/sshd -f /run/lab/ssh/sshd-$node; done`)
  })
  after(async () => {
    if (lab) await stopLab(lab)
  })

  const admit = (prefix: string): Promise<string> =>
    sh(`sed -i '/oncall$/d' /run/lab/ssh/authorized_keys
      echo '${prefix} '"$(cut -d' ' -f1,2 /run/lab/oncall/key.pub)"' oncall' >>/run/lab/ssh/authorized_keys`)
  const grant = (line: string): Promise<string> =>
    sh(
      `rm -f /etc/sudoers.d/*; if [ -n '${line}' ]; then echo '${line}' >/etc/sudoers.d/svc-trace; chmod 440 /etc/sudoers.d/svc-trace; fi`,
    )

  it('gives no verdict, and says what is missing', async () => {
    await admit('')
    await grant('')
    const {code, stdout} = await svcTrace('check', 'web', '-o', 'json')
    expect(code, stdout).to.equal(3)
    const {incomplete, findings} = JSON.parse(stdout) as {
      incomplete: {node?: string; reason: string}[]
      findings: {severity: string}[]
    }
    expect(new Set(incomplete.map(({node}) => node))).to.include.members(['node1', 'node2', 'node3'])
    expect(incomplete.map(({reason}) => reason).join('\n')).to.match(/root|permission|permitted/i)
    expect(findings.filter(({severity}) => severity === 'error')).to.deep.equal([])
    const doctor = await svcTrace('doctor')
    expect(doctor.code).to.equal(1)
    expect(doctor.stdout)
      .to.match(/failed +node node1: cannot read iptables/)
      .and.match(/sudo without a password/)
  })

  it('with sudo for everything reads everything', async () => {
    await grant('oncall ALL=(root) NOPASSWD: ALL')
    expect((await svcTrace('check', 'web')).code).to.equal(0)
    expect((await svcTrace('doctor')).stdout).to.match(/login oncall, root by sudo -n/)
    expect((await svcTrace('check', 'web', '--sudo', 'never')).code).to.equal(3)
  })

  it('is asked for the passphrase of a key on a terminal, and nowhere else', async () => {
    await admit('')
    await sh(`cp /run/lab/oncall/key /run/lab/oncall/locked; ssh-keygen -q -p -N secret -f /run/lab/oncall/locked`)
    const words = [
      'kubectl',
      'svc-trace',
      'check',
      'web',
      '--ssh-user',
      'oncall',
      '--ssh-identity',
      '/run/lab/oncall/locked',
    ]
    const mute = await inLab(lab, words)
    expect(mute.code).to.equal(3)
    expect(mute.stderr).to.match(/the key has a passphrase: add it to an agent/)
    const shown = await inLab(lab, ['python3', '-c', TYPIST, 'secret', ...words])
    expect(shown.code, shown.stdout).to.equal(0)
    expect(shown.stdout)
      .to.match(/passphrase of \/run\/lab\/oncall\/locked: \r\n/)
      .and.not.include('secret')
    expect(shown.stdout.match(/passphrase of/g)).to.have.length(1)
  })

  describe('with the two lines of docs/nodes.md', () => {
    before(async () => {
      await admit(FORCED)
      await grant(SUDOERS)
    })

    it('reads everything', async () => {
      const {code, stdout, stderr} = await svcTrace('check', 'web')
      expect(code, `${stdout}${stderr}`).to.equal(0)
    })

    it('can do nothing else: no command, no other sudo, no argument, no forwarding', async () => {
      const ssh = (words: string): Promise<Outcome> =>
        inLab(lab, ['sh', '-c', `ssh -o BatchMode=yes -o IdentityFile=none -i /run/lab/oncall/key ${words}`])
      const {stdout} = await ssh('oncall@node1 "id; touch /run/lab/proof"')
      expect(stdout).to.include('@svc-trace gzip').and.not.include('uid=')
      expect((await ssh('-W 172.18.0.11:10256 oncall@node1')).stderr).to.match(/prohibited|failed|refused/)
      for (const command of ['/usr/bin/id', '/usr/local/sbin/svc-trace-collector x', '/bin/sh'])
        expect(
          (await inLab(lab, ['setpriv', '--reuid', '1999', '--clear-groups', 'sh', '-c', `sudo -n ${command}`])).code,
          command,
        ).to.equal(1)
      expect((await inLab(lab, ['ls', '/run/lab/proof'])).code).not.to.equal(0)
    })
  })
})
