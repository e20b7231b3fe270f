// Makes the embedded data from corpus folders: node tools/make-data.mjs ../shared/corpus CAPTURES-OF-THE-LAB…
// test/data/corpus.tar.br: every cluster with its faults and packets; examples/*.tar.gz: small snapshots for people.
import {cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync, existsSync, readFileSync, statSync, chmodSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join, relative} from 'node:path'
import {brotliCompressSync, constants} from 'node:zlib'
import {create} from 'tar'
import {listText} from '../dist/util/json.js'

const folders = process.argv.length > 2 ? process.argv.slice(2) : ['../shared/corpus']
const root = join(import.meta.dirname, '..')
/** Repeated or unneeded by the walk. */
const LEFT_OUT = new Set(['iptables-nft-save.txt', 'conntrack.txt', 'conntrack6.txt', 'kube-proxy.log'])
const SECOND = {'iptables-nat-L.txt': 'iptables-save.txt', 'ipset-list.txt': 'ipset-save.txt', 'ipvsadm-Ln.txt': 'ipvsadm-Sn.txt', 'proc-net-ip_vs.txt': 'ipvsadm-Sn.txt'}

function isKept(source) {
  const name = source.split('/').pop()
  if (LEFT_OUT.has(name)) return false
  const better = SECOND[name]
  return better === undefined || !existsSync(join(source, '..', better))
}

function copy(from, to) {
  cpSync(from, to, {recursive: true, filter: isKept})
  writable(to)
  askedOnly(from, to)
}

/** rc.txt must not promise files that were left out. */
function askedOnly(from, to) {
  for (const entry of readdirSync(to, {withFileTypes: true})) if (entry.isDirectory()) askedOnly(join(from, entry.name), join(to, entry.name))
  const codes = join(to, 'rc.txt')
  if (!existsSync(codes)) return
  const lines = readFileSync(codes, 'utf8').split('\n')
  writeFileSync(codes, lines.filter((line) => isKept(join(from, line.split(' ')[0]))).join('\n'))
}
function writable(path) {
  chmodSync(path, 0o755)
  if (statSync(path).isDirectory()) for (const name of readdirSync(path)) writable(join(path, name))
}

const work = mkdtempSync(join(tmpdir(), 'svc-trace-data-'))
for (const corpus of folders)
  for (const name of readdirSync(corpus)) if (name !== 'scale' && statSync(join(corpus, name)).isDirectory()) copy(join(corpus, name), join(work, name))
const tar = join(work, '..', `${relative(tmpdir(), work)}.tar`)
await create({cwd: work, file: tar, portable: true}, readdirSync(work).sort())
const bytes = readFileSync(tar)
writeFileSync(join(root, 'test/data/corpus.tar.br'), brotliCompressSync(bytes, {params: {[constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length}}))

/** A cluster with one fault laid over it. */
async function example(file, cluster, fault) {
  const dir = mkdtempSync(join(tmpdir(), 'svc-trace-example-'))
  for (const part of ['api', 'nodes']) cpSync(join(work, cluster, part), join(dir, part), {recursive: true})
  const over = fault && join(work, cluster, 'faults', fault)
  if (over && existsSync(join(over, 'api'))) cpSync(join(over, 'api'), join(dir, 'api'), {recursive: true})
  for (const node of over && existsSync(join(over, 'nodes')) ? readdirSync(join(over, 'nodes')) : []) {
    rmSync(join(dir, 'nodes', node), {recursive: true})
    cpSync(join(over, 'nodes', node), join(dir, 'nodes', node), {recursive: true})
  }
  // as `svc-trace snapshot` writes lists: an object a line
  for (const name of readdirSync(join(dir, 'api')).map((one) => join(dir, 'api', one)))
    writeFileSync(name, listText(JSON.parse(readFileSync(name, 'utf8'))))
  writeFileSync(join(dir, 'snapshot.json'), JSON.stringify({tool: 'kubectl-svc-trace', taken: '2026-11-20T05:00:00Z', namespace: 'default'}))
  await create({gzip: true, cwd: dir, file: join(root, 'examples', file), portable: true}, ['snapshot.json', 'api', 'nodes'])
  rmSync(dir, {recursive: true})
}
await example('missing-nodeport.tar.gz', 'k136-iptables-v4', 'nodeport-rule-deleted')
await example('healthy-ipvs.tar.gz', 'k136-ipvs-v4')
await example('dormant-nftables.tar.gz', 'k136-nftables-v4', 'kube-proxy-table-dormant')
rmSync(work, {recursive: true})
rmSync(tar)
