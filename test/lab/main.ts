/** `npm run lab`: a cluster of real kernels on one machine (docs/lab.md). */
import {join} from 'node:path'
import {parseArgs} from 'node:util'
import {SvcTraceError} from '../../src/model/errors.js'
import {safeLine} from '../../src/util/text.js'
import {FAULTS} from './faults.js'
import {SSH_CONTROL} from './machine.js'
import {LabError} from './plan-site.js'
import {enter, findLab, labs, MODES, startLab, stateOfLab, stopLab, type Mode, type RunningLab} from './start.js'

const HELP = `A cluster of real kernels, one command away (docs/lab.md).

  npm run lab [-- up] [--mode MODE] [--dual] [--from SNAPSHOT] [--name NAME]
      MODE: ${MODES.join(', ')}
      --kube-proxy 'BINARY [ARG…]'  a real one on each node, not recorded rules
      (its MODE may be userspace, too)
  npm run lab -- exec [PLACE] -- COMMAND…
      in the lab, on a node, in a pod (namespace/name) or a client (client-1)
  npm run lab -- shell [PLACE]              the same with a shell
  npm run lab -- faults                     what can be broken
  npm run lab -- break FAULT [NODE]         breaks a node (the last, unless named)
  npm run lab -- heal                       everything as recorded again
  npm run lab -- probe [SERVICE…] [--json]  real packets beside the prediction
  npm run lab -- record FOLDER [NODE]       a capture as in ../shared/corpus
  npm run lab -- api JSON                   faults of the API stand-in, e.g.
      '{"status":500,"path":"/pods"}'; '{}' ends them
  npm run lab -- list | down
`

const ORDERS = join(import.meta.dirname, 'orders.ts')
const ROOT = join(import.meta.dirname, '../..')

interface Words {
  readonly values: {
    readonly name: string
    readonly mode?: string
    readonly from?: string
    readonly dual?: boolean
    readonly 'kube-proxy'?: string
    readonly json?: boolean
    readonly snapshot?: string
  }
  readonly command: string
  readonly words: readonly string[]
  /** What follows `--`. */
  readonly rest: readonly string[]
}

function readWords(argv: readonly string[]): Words {
  const cut = argv.indexOf('--')
  const {values, positionals} = parseArgs({
    args: cut < 0 ? [...argv] : argv.slice(0, cut),
    allowPositionals: true,
    options: {
      name: {type: 'string', default: 'lab'},
      mode: {type: 'string'},
      from: {type: 'string'},
      dual: {type: 'boolean'},
      'kube-proxy': {type: 'string'},
      json: {type: 'boolean'},
      snapshot: {type: 'string'},
      help: {type: 'boolean', short: 'h'},
    },
  })
  const [command = 'up', ...words] = positionals
  return {values, command: values.help ? 'help' : command, words, rest: cut < 0 ? [] : argv.slice(cut + 1)}
}

async function main(argv: readonly string[]): Promise<number> {
  const {values, command, words, rest} = readWords(argv)
  if (command === 'help') return say(HELP)
  if (command === 'up') return up(values)
  if (command === 'list')
    return say(
      labs()
        .map((lab) => `${lab.name}\t${stateOfLab(lab).options.from}\n`)
        .join(''),
    )
  if (command === 'faults')
    return say(
      Object.entries(FAULTS)
        .map(
          ([name, {what, modes}]) =>
            `${name.padEnd(16)} ${what}${modes.length === 3 ? '' : ` (${modes.join(', ')})`}\n`,
        )
        .join(''),
    )
  const lab = findLab(values.name)
  if (!lab) throw new LabError(`no lab named ${values.name} is up; bring one up with: npm run lab`)
  if (command === 'down') return stopLab(lab).then(() => say(`${lab.name} is down\n`))
  if (command === 'exec' || command === 'shell')
    return goInto(lab, {
      place: rest.length > 0 || command === 'shell' ? words[0] : undefined,
      command: command === 'shell' ? [process.env['SHELL'] ?? 'sh'] : rest.length > 0 ? rest : words,
    })
  if (['break', 'heal', 'probe', 'record', 'api'].includes(command))
    return order(lab, [
      command,
      ...words,
      ...(values.json ? ['--json'] : []),
      ...(values.snapshot === undefined ? [] : ['--snapshot', values.snapshot]),
    ])
  throw new LabError(`${JSON.stringify(command)} is no command of the lab: npm run lab -- --help`)
}

function say(text: string): number {
  process.stdout.write(text)
  return 0
}

async function up({name, mode, from, dual, 'kube-proxy': kubeProxy}: Words['values']): Promise<number> {
  if (mode !== undefined && mode !== 'userspace' && !(MODES as readonly string[]).includes(mode))
    throw new LabError(`--mode is one of ${MODES.join(', ')}`)
  const lab = await startLab({name, mode: mode as Mode | undefined, from, dual, kubeProxy})
  const {plan, leftOut, seconds, options} = stateOfLab(lab)
  const lost = leftOut.map(({place, line, why}) => `left out: ${place}: ${why}: ${line}`)
  const notes = [...plan.notes, ...lost].map((line) => `${safeLine(line)}\n`)
  const own = name === 'lab' ? '' : ` --name ${name}`
  return say(`${notes.join('')}The lab is up (${seconds.toFixed(0)} s): ${options.mode}, ${plan.nodes.length} nodes, ${plan.pods.length} pods, ${plan.clients.length} clients.
  npm run lab --${own} exec -- kubectl get svc -A
  npm run lab --${own} exec -- kubectl svc-trace check -A
  npm run lab --${own} probe
  npm run lab --${own} break node-port-lost
  npm run lab --${own} down
`)
}

/** A place is the hub, a node, a pod or a client. */
function goInto(
  lab: RunningLab,
  {place, command}: {place: string | undefined; command: readonly string[]},
): Promise<number> {
  if (command.length === 0) throw new LabError('exec what? npm run lab -- exec [PLACE] -- COMMAND…')
  if (place === undefined) return ended(enter(lab, command))
  const {plan, options} = stateOfLab(lab)
  const namespace = [
    ...plan.nodes.map(({name}) => [name, name]),
    ...plan.pods.map((pod) => [pod.id, pod.namespace]),
    ...plan.clients.map((client) => [client.namespace, client.namespace]),
  ].find(([name]) => name === place)?.[1]
  if (namespace === undefined) throw new LabError(`${place} is no node, pod (namespace/name) or client of this lab`)
  const words = ['ip', 'netns', 'exec', namespace, ...command]
  if (options.kernel === 'own') return ended(enter(lab, words))
  const quoted = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  return ended(enter(lab, ['ssh', '-F', SSH_CONTROL, 'control', quoted]))
}

const order = (lab: RunningLab, words: readonly string[]): Promise<number> =>
  ended(enter(lab, [process.execPath, '--import', 'tsx', ORDERS, ...words], {cwd: ROOT}))

const ended = (child: ReturnType<typeof enter>): Promise<number> =>
  new Promise((settle, reject) => child.on('error', reject).on('close', (code) => settle(code ?? 1)))

main(process.argv.slice(2)).then(
  (code) => (process.exitCode = code),
  (error: Error) => {
    const ours =
      error instanceof LabError ||
      error instanceof SvcTraceError ||
      (error as {code?: string}).code?.startsWith('ERR_PARSE_ARGS')
    process.stderr.write(`error: ${safeLine(ours ? error.message : (error.stack ?? error.message))}\n`)
    process.exitCode = 2
  },
)
