/** Keys and configurations by which kubectl, ssh and svc-trace find their way in the lab. */
import {chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync} from 'node:fs'
import {join, resolve} from 'node:path'
import {API_PORT} from './api-server.js'
import {HOME, run, SSH_CONTROL} from './machine.js'
import type {NodePlan} from './plan.js'

const ROOT = resolve(import.meta.dirname, '../..')
export const SSH = join(HOME, 'ssh')
export const PKI = join(HOME, 'pki')
/** Root's home in the lab. */
export const USER_HOME = join(HOME, 'home')
export const SSH_HOME = join(USER_HOME, '.ssh')

async function must(command: readonly string[]): Promise<void> {
  const {code, stderr} = await run(command)
  if (code !== 0) throw new Error(`${command.join(' ')}: ${stderr.trim()}`)
}

/** `control`: the address by which a kernel in user-mode Linux is steered. */
export async function makeSshFiles(nodes: readonly NodePlan[], control: string): Promise<void> {
  mkdirSync(SSH, {recursive: true})
  const names = ['id', 'host-control', ...nodes.map(({name}) => `host-${name}`)]
  await Promise.all(
    names.map((name) => must(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', join(SSH, name)])),
  )
  const key = (name: string): string =>
    readFileSync(join(SSH, `${name}.pub`), 'utf8')
      .split(' ')
      .slice(0, 2)
      .join(' ')
  // sshd reads it as the user who logs in
  writeFileSync(join(SSH, 'authorized_keys'), `${key('id')}\n`, {mode: 0o644})
  const known = [
    `${control} ${key('host-control')}`,
    ...nodes.map(({name, address}) => `${address},${name} ${key(`host-${name}`)}`),
  ]
  writeFileSync(join(SSH, 'known_hosts'), `${known.join('\n')}\n`)
  const common = [
    'User root',
    `IdentityFile ${SSH}/id`,
    'IdentitiesOnly yes',
    `UserKnownHostsFile ${SSH}/known_hosts`,
    'GlobalKnownHostsFile /dev/null',
    'LogLevel ERROR',
  ]
  const hosts = nodes.map(({name, address}) => `Host ${name}\nHostName ${address}`)
  writeFileSync(join(SSH_HOME, 'config'), `${[...hosts, 'Host *', ...common].join('\n')}\n`)
  const keep = [`HostName ${control}`, 'ControlMaster auto', `ControlPath ${SSH}/mux-%C`, 'ControlPersist 600']
  writeFileSync(SSH_CONTROL, `${['Host control', ...keep, ...common].join('\n')}\n`)
}

/** A CA, the server's certificate, and a client's: `admin`. */
export async function makeKubeFiles(address: string): Promise<void> {
  for (const folder of [PKI, join(HOME, 'bin')]) mkdirSync(folder, {recursive: true})
  writeFileSync(join(PKI, 'san'), `subjectAltName=IP:${address}`)
  const openssl = (line: string): Promise<void> => must(['openssl', ...line.replaceAll('@', `${PKI}/`).split(' ')])
  const key = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
  await openssl(`req -x509 ${key} -days 2 -subj /CN=lab-ca -keyout @ca.key -out @ca.crt`)
  await Promise.all(
    ['server', 'admin'].map(async (name) => {
      await openssl(`req ${key} -subj /CN=${name} -keyout @${name}.key -out @${name}.csr`)
      await openssl(
        `x509 -req -days 2 -in @${name}.csr -CA @ca.crt -CAkey @ca.key -set_serial ${name === 'server' ? 1 : 2} -extfile @san -out @${name}.crt`,
      )
    }),
  )
  chmodSync(join(PKI, 'admin.key'), 0o600)
  const server = `https://${address.includes(':') ? `[${address}]` : address}:${API_PORT}`
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'lab',
    contexts: [{name: 'lab', context: {cluster: 'lab', user: 'admin'}}],
    clusters: [{name: 'lab', cluster: {server, 'certificate-authority': join(PKI, 'ca.crt')}}],
    users: [
      {name: 'admin', user: {'client-certificate': join(PKI, 'admin.crt'), 'client-key': join(PKI, 'admin.key')}},
    ],
  }
  writeFileSync(join(HOME, 'kubeconfig'), JSON.stringify(config))
  for (const name of ['kubectl-svc_trace', 'svc-trace', 'kubectl_complete-svc_trace']) {
    const file = name.includes('complete') ? name : 'run.js'
    if (!existsSync(join(HOME, 'bin', name))) symlinkSync(join(ROOT, 'bin', file), join(HOME, 'bin', name))
  }
}

/** sshd as an unprivileged build machine has it: root may be locked there, which only PAM overlooks. */
export function sshdConfig(name: string, address: string): string {
  const locked = /^root:!/m.test(readFileSync('/etc/shadow', 'utf8'))
  const lines = [
    `ListenAddress ${address.includes(':') ? `[${address}]` : address}:22`,
    `HostKey ${SSH}/host-${name}`,
    `AuthorizedKeysFile ${SSH}/authorized_keys`,
    'PidFile none',
    'PermitRootLogin prohibit-password',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'StrictModes no',
    'MaxStartups 100',
    'MaxSessions 100',
    `UsePAM ${locked ? 'yes' : 'no'}`,
  ]
  const path = join(SSH, `sshd-${name}`)
  writeFileSync(path, `${lines.join('\n')}\n`)
  return path
}

/** The environment of whoever works in the lab. */
export const environment = (): Record<string, string> => ({
  HOME: USER_HOME,
  KUBECONFIG: join(HOME, 'kubeconfig'),
  PATH: `${join(HOME, 'bin')}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${process.env['PATH'] ?? ''}`,
})
