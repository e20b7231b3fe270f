// Time and peak memory of reading 200 nodes by SSH and of checking what they said, as ratios to a yardstick in the same run:
// the same bytes over plain TCP, as many at once. npm run bench:nodes -- [NODES] [SERVICES]
// The servers are a process of their own (ssh2 on loopback), so that its memory does not count.
import {fork} from 'node:child_process'
import {once} from 'node:events'
import {mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync} from 'node:fs'
import {connect, createServer} from 'node:net'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import ssh2 from 'ssh2'
import {apiFiles, nodeFiles} from './cluster.mjs'
import {write} from './generate.mjs'

const PARALLEL = 16
/** At most 250: each node is one address of a network. */
const [count = 200, services = 1000] = process.argv.slice(2).map(Number)
const root = join(import.meta.dirname, '..')
/** Loopback addresses, by which the server knows which node is asked. */
const hostOf = (at) => `127.0.1.${at}`

const readAll = (folder) => new Map(readdirSync(folder).map((file) => [file, readFileSync(join(folder, file), 'utf8')]))

/** What the collector would print on a node with these files. */
function frames(files) {
  const sections = [...files].map(([file, whole]) => {
    const text = whole.replace(/\n$/, '')
    return `@begin ${file}\n|${text.replaceAll('\n', '\n|')}\n|\n!rc=0\n\n@end ${file}\n`
  })
  return `@svc-trace 1\n${sections.join('')}@done\n`
}

/** Serves each node's text by SSH and by plain TCP. */
async function serve(folder) {
  const files = readAll(join(folder, 'nodes/n1'))
  const textFor = ({localAddress}) => frames(nodeFiles(files, Number(localAddress.split('.').at(-1)), count))
  const key = ssh2.utils.generateKeyPairSync('ed25519')
  const ssh = new ssh2.Server({hostKeys: [key.private]}, (client) => {
    client.on('error', () => undefined)
    client.on('authentication', (context) => context.accept())
    client.on('session', (accept) =>
      accept().on('exec', (take) => {
        const channel = take()
        channel.resume()
        channel.write(textFor(client._sock))
        channel.exit(0)
        channel.end()
      }),
    )
  })
  const plain = createServer((socket) => socket.end(textFor(socket)))
  for (const server of [ssh, plain]) await new Promise((settle) => server.listen(0, '0.0.0.0', settle))
  process.send({
    ssh: ssh.address().port,
    plain: plain.address().port,
    key: key.public,
    bytes: frames(nodeFiles(files, 0, count)).length,
  })
}

async function plainly(port) {
  let next = 0
  const start = performance.now()
  const worker = async () => {
    while (next < count) {
      const socket = connect(port, hostOf(next++))
      const chunks = []
      socket.on('data', (chunk) => chunks.push(chunk))
      await once(socket, 'end')
    }
  }
  await Promise.all(Array.from({length: PARALLEL}, worker))
  return (performance.now() - start) / 1000
}

/** In a process of its own as well: reads all nodes, then checks them. */
async function measure({folder, port}) {
  const names = ['nodes/collect.js', 'nodes/ssh.js', 'snapshot/snapshot.js', 'engine.js', 'checks/check.js']
  const [{collectNodes}, {sshTransport}, {snapshotFromFiles}, {buildWorld}, {check}] = await Promise.all(
    names.map((name) => import(join(root, 'dist', name))),
  )
  const [config, knownHosts] = ['config', 'known'].map((name) => join(folder, name))
  const transport = sshTransport({connectTimeout: 10_000, user: 'x', port, config, knownHosts})
  const targets = Array.from({length: count}, (_, at) => ({node: `n${at + 1}`, host: hostOf(at)}))
  const {signal} = new AbortController()
  let start = performance.now()
  const options = {sudo: 'never', parallel: PARALLEL, timeout: 60_000, signal, progress: () => undefined}
  const results = await collectNodes(targets, transport, options)
  const failed = results.find(({failure}) => failure !== undefined)
  if (failed) throw new Error(`${failed.node}: ${failed.failure}`)
  const read = (performance.now() - start) / 1000
  const peakRead = process.resourceUsage().maxRSS / 1024
  start = performance.now()
  const files = new Map([...apiFiles(readAll(join(folder, 'api')), count)].map(([file, text]) => [`api/${file}`, text]))
  for (const {node, files: own} of results) for (const [file, text] of own) files.set(`nodes/${node}/${file}`, text)
  const snapshot = snapshotFromFiles(files)
  const {findings} = check(snapshot, buildWorld(snapshot))
  const checked = (performance.now() - start) / 1000
  process.send({read, peakRead, checked, peak: process.resourceUsage().maxRSS / 1024, findings: findings.length})
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), 'svc-trace-bench-'))
  const children = []
  const child = async (role, extra = {}) => {
    const env = {...process.env, BENCH: JSON.stringify({role, folder, ...extra})}
    const one = fork(import.meta.filename, process.argv.slice(2), {env, execArgv: ['--heap-growing-percent=60']})
    children.push(one)
    const failed = once(one, 'exit').then(([code, signal]) =>
      Promise.reject(new Error(`${role} ended: ${signal ?? code}`)),
    )
    const [message] = await Promise.race([once(one, 'message'), failed])
    return message
  }
  try {
    write(services, folder)
    writeFileSync(join(folder, 'config'), 'Host *\n  IdentityAgent none\n  IdentityFile none\n')
    const server = await child('serve')
    writeFileSync(join(folder, 'known'), `* ${server.key}\n`)
    const plain = await plainly(server.plain)
    const {read, peakRead, checked, peak, findings} = await child('measure', {port: server.ssh})
    const megabytes = ((server.bytes * count) / 1e6).toFixed(0)
    const ratio = (read / plain).toFixed(1)
    console.log(`${count} nodes with ${services} Services each, ${megabytes} MB, ${PARALLEL} at once:
  read by SSH in ${read.toFixed(1)} s = ${ratio} x the same bytes over plain TCP (${plain.toFixed(2)} s), peak ${peakRead.toFixed(0)} MB
  checked in ${checked.toFixed(1)} s = ${((checked / count) * 1000).toFixed(0)} ms a node, peak ${peak.toFixed(0)} MB, ${findings} findings`)
  } finally {
    for (const one of children) one.kill()
    rmSync(folder, {recursive: true, force: true})
  }
}

const task = process.env.BENCH ? JSON.parse(process.env.BENCH) : {role: 'main'}
if (task.role === 'serve') await serve(task.folder)
else if (task.role === 'measure') await measure(task)
else await main()
