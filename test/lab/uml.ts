/** A kernel with IPVS as a process (Debian's user-mode-linux), on the hub's bridge by a tap device. */
import {spawn, spawnSync} from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import {basename, join} from 'node:path'
import {MODULES} from '../kernel/ipvs/uml.js'
import {sshdConfig} from './credentials.js'
import {HOME, Machine} from './machine.js'
import {HUB_BRIDGE, LabError} from './plan-site.js'

const KERNEL = '/usr/bin/linux.uml'
const FOLDER = join(HOME, 'uml')
export const CONTROL = '169.254.213.2'
const HUB_CONTROL = '169.254.213.1/30'
const MODULE_FOLDER = '/usr/lib/uml/modules'
const BOOT_LIMIT = 60_000

/** Boots it; `onExit` is called when it stops for whatever reason. */
export async function bootUml(onExit: (log: string) => void): Promise<Machine> {
  if (!existsSync(KERNEL)) throw new LabError('mode ipvs needs user-mode Linux: apt-get install user-mode-linux')
  mkdirSync(FOLDER, {recursive: true})
  const tap = spawnSync(
    'sh',
    [
      '-ec',
      `ip tuntap add dev uml0 mode tap; ip link set uml0 master ${HUB_BRIDGE} up; ip addr add ${HUB_CONTROL} dev ${HUB_BRIDGE}`,
    ],
    {encoding: 'utf8'},
  )
  if (tap.status !== 0) throw new LabError(`no tap device for user-mode Linux: ${tap.stderr.trim()}`)
  copyFileSync(join(import.meta.dirname, 'uml-init.py'), join(FOLDER, 'init.py'))
  chmodSync(join(FOLDER, 'init.py'), 0o755)
  copyFileSync(join(import.meta.dirname, '../kernel/ipvs/modules.py'), join(FOLDER, 'modules.py'))
  writeFileSync(join(FOLDER, 'modules'), modules().join('\n'))
  const config = sshdConfig('control', CONTROL)
  const root = ['root=/dev/root', 'rootfstype=hostfs', 'rootflags=/', 'ro', `init=${FOLDER}/init.py`]
  const lab = [`LAB_HOME=${HOME}`, `LAB_CONTROL=${CONTROL}/30`, `LAB_SSHD=${config}`]
  const args = [
    'mem=768M',
    ...root,
    ...lab,
    'vec0:transport=tap,ifname=uml0,depth=128',
    'umid=lab',
    'con=null',
    'con0=null,fd:1',
    'quiet',
  ]
  const log = openSync(join(FOLDER, 'console'), 'w')
  const child = spawn(KERNEL, args, {stdio: ['ignore', log, log], env: {...process.env, TMPDIR: FOLDER, HOME: FOLDER}})
  child.on('exit', () => onExit(readFileSync(join(FOLDER, 'console'), 'utf8').slice(-2000)))
  return waitForIt()
}

/** A stranger's rules may use any match, and nothing loads modules by itself in there. */
function modules(): string[] {
  const [version] = readdirSync(MODULE_FOLDER)
  const all = readFileSync(join(MODULE_FOLDER, version!, 'modules.dep'), 'utf8').split('\n')
  const names = all.map((line) => basename(line.split(':')[0]!, '.ko').replaceAll('-', '_'))
  return [...MODULES, ...names.filter((name) => /^(xt|ipt|ip6t|ip_set)_/.test(name))]
}

async function waitForIt(): Promise<Machine> {
  const machine = new Machine('uml')
  for (const end = Date.now() + BOOT_LIMIT; Date.now() < end;) {
    if ((await machine.shell('true')).code === 0) return machine
    await new Promise((settle) => setTimeout(settle, 200))
  }
  throw new LabError(`user-mode Linux did not come up: ${readFileSync(join(FOLDER, 'console'), 'utf8').slice(-1000)}`)
}
