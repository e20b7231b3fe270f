/** Real name servers (Debian's nsd) in the place of the recorded kube-dns replicas. */
import {mkdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import type {Lab} from './lab.js'

export interface Replica {
  readonly node: string
  readonly address: string
}

/** The recorded endpoints of kube-dns. */
export const REPLICAS: readonly [Replica, Replica] = [
  {node: 'node1', address: '10.244.1.17'},
  {node: 'node3', address: '10.244.3.15'},
]

/** Some Services of the recorded cluster, written down by hand from the DNS specification. */
export const ZONE: readonly string[] = [
  'web.default.svc.cluster.local. A 10.96.68.211',
  'db.shop.svc.cluster.local. A 10.244.1.18',
  'db.shop.svc.cluster.local. A 10.244.3.16',
  'db-0.db.shop.svc.cluster.local. A 10.244.1.18',
  'db-1.db.shop.svc.cluster.local. A 10.244.3.16',
  '_pg._tcp.db.shop.svc.cluster.local. SRV 0 50 5432 db-0.db.shop.svc.cluster.local.',
  '_pg._tcp.db.shop.svc.cluster.local. SRV 0 50 5432 db-1.db.shop.svc.cluster.local.',
  'extname.shop.svc.cluster.local. CNAME db.example.com.',
]
const REVERSE = [
  '211.68.96.10.in-addr.arpa. PTR web.default.svc.cluster.local.',
  '18.1.244.10.in-addr.arpa. PTR db-0.db.shop.svc.cluster.local.',
  '16.3.244.10.in-addr.arpa. PTR db-1.db.shop.svc.cluster.local.',
]

const HEAD = 'SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5'

export class NameServer {
  private readonly lab: Lab
  private readonly replica: Replica
  private readonly folder: string

  constructor(lab: Lab, replica: Replica) {
    this.lab = lab
    this.replica = replica
    this.folder = join(lab.folder, `dns-${replica.node}`)
    mkdirSync(this.folder, {recursive: true})
    this.run(`ip addr add ${replica.address}/32 dev lo`)
  }

  /** Serves these records; a zone of `undefined` is configured and cannot be loaded, so that nsd answers SERVFAIL. */
  serve(zone: readonly string[] | undefined): void {
    this.stop()
    const file = (name: string): string => join(this.folder, name)
    const write = (name: string, origin: string, lines: readonly string[]): void =>
      writeFileSync(
        file(name),
        [`$ORIGIN ${origin}`, '$TTL 5', `@ IN ${HEAD}`, '@ IN NS ns.dns.cluster.local.', ...lines, ''].join('\n'),
      )
    write('forward', 'cluster.local.', zone ?? ['this is no record'])
    write('reverse', '10.in-addr.arpa.', zone ? REVERSE : ['this is no record'])
    writeFileSync(
      file('conf'),
      [
        'server:',
        `  ip-address: ${this.replica.address}`,
        '  username: ""',
        '  chroot: ""',
        '  server-count: 1',
        `  zonesdir: "${this.folder}"`,
        `  xfrdir: "${this.folder}"`,
        `  pidfile: "${file('pid')}"`,
        `  logfile: "${file('log')}"`,
        '  database: ""',
        `  zonelistfile: "${file('zones')}"`,
        `  xfrdfile: "${file('xfrd')}"`,
        'remote-control:',
        '  control-enable: no',
        'zone:',
        '  name: cluster.local',
        '  zonefile: forward',
        'zone:',
        '  name: 10.in-addr.arpa',
        '  zonefile: reverse',
        '',
      ].join('\n'),
    )
    this.run(`nsd -c ${file('conf')}`)
    this.waitForPort()
  }

  /** Takes connections and sends this, or nothing at all. */
  say(bytes: readonly number[]): void {
    this.stop()
    const script = `require('node:net').createServer((to) => to.write(Buffer.from(${JSON.stringify(bytes)}))).listen(53, '${this.replica.address}')`
    writeFileSync(join(this.folder, 'say.cjs'), script)
    this.run(
      `nohup ${process.execPath} ${join(this.folder, 'say.cjs')} >/dev/null 2>&1 & echo $! >${join(this.folder, 'pid')}`,
    )
    this.waitForPort()
  }

  stop(): void {
    this.run(
      `if [ -s ${this.folder}/pid ]; then kill -9 $(cat ${this.folder}/pid) $(pgrep -P $(cat ${this.folder}/pid)); fi 2>/dev/null; rm -f ${this.folder}/pid; while ss -Hlnt | grep -q '${this.replica.address}:53 '; do sleep 0.05; done`,
    )
  }

  private waitForPort(): void {
    this.run(
      `for try in $(seq 100); do ss -Hlnt | grep -q '${this.replica.address}:53 ' && exit 0; sleep 0.05; done; cat ${this.folder}/log >&2; exit 1`,
    )
  }

  private run(command: string): string {
    return this.lab.inNode(this.replica.node, command)
  }
}
