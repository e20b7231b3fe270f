import {randomBytes} from 'node:crypto'
import {join} from 'node:path'
import {expect} from 'chai'
import fc from 'fast-check'
import {check} from '../../../src/checks/check.js'
import {buildWorld} from '../../../src/engine.js'
import {loadFiles} from '../../../src/snapshot/load.js'
import {redactFiles} from '../../../src/snapshot/redact.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {inRange, parseAddress, parseRange} from '../../../src/util/ip.js'
import {oneNode} from '../../helpers/node.js'

const ROOT = join(import.meta.dirname, '../../..')
const EXAMPLES = ['missing-nodeport', 'healthy-ipvs', 'dormant-nftables']

/** What is found, without the names and addresses in it. */
function shape(files: ReadonlyMap<string, string>): string[] {
  const snapshot = snapshotFromFiles(files)
  const {findings, incomplete, walks} = check(snapshot, buildWorld(snapshot))
  return [
    `${walks} walks`,
    ...findings
      .map(({code, severity, services, frontends, node}) =>
        [code, severity, services.length, frontends.length, node === undefined].join(' '),
      )
      .sort(),
    ...incomplete.map(() => 'incomplete'),
  ]
}

const redactText = (text: string, key: Uint8Array): string =>
  redactFiles(new Map([['nodes/n/x.txt', text]]), key).get(
    [...redactFiles(new Map([['nodes/n/x.txt', text]]), key).keys()][0]!,
  )!

describe('snapshot --redact', () => {
  for (const name of EXAMPLES) {
    it(`${name}: the same findings, and no name or address of before`, async () => {
      const files = await loadFiles(join(ROOT, `examples/${name}.tar.gz`))
      const redacted = redactFiles(files, randomBytes(32))
      expect(shape(redacted)).to.deep.equal(shape(files))
      const all = [...redacted].map(([path, text]) => `${path}\n${text}`).join('\n')
      const {cluster} = snapshotFromFiles(files)
      for (const {address} of cluster.nodes.flatMap(({addresses}) => addresses))
        if (address.includes('.')) expect(all).not.to.contain(address)
      for (const {ips, id, namespace} of cluster.pods ?? []) {
        for (const ip of ips)
          expect(all, ip).not.to.match(new RegExp(`(?<![\\d.])${ip.replaceAll('.', '\\.')}(?![\\d.])`))
        if (namespace !== 'kube-system') expect(all).not.to.contain(id)
      }
      for (const {name: node} of cluster.nodes) expect(all).not.to.match(new RegExp(`(?<![\\w-])${node}(?![\\w-])`))
    }).timeout(30_000)
  }

  it('keeps what two addresses have in common in front, and what is special', () => {
    const octet = fc.integer({min: 0, max: 255})
    const ip = fc.tuple(fc.constantFrom(10, 172, 192, 100), octet, octet, octet).map((parts) => parts.join('.'))
    fc.assert(
      fc.property(ip, ip, fc.uint8Array({minLength: 8, maxLength: 8}), (one, two, key) => {
        const [first, second] = redactText(`${one} ${two}`, key).split(' ')
        const common = (a: string, b: string): number =>
          Math.clz32((parseAddress(a) as number) ^ (parseAddress(b) as number))
        expect(Math.min(common(first!, second!), 24)).to.equal(Math.min(common(one, two), 24))
      }),
    )
    for (const special of ['127.0.0.1', '0.0.0.0/0', '255.255.255.0', '::1', '224.0.0.251'])
      expect(redactText(special, randomBytes(8))).to.equal(special)
  })

  it('keeps an address inside of its network', () => {
    fc.assert(
      fc.property(
        fc.integer({min: 0, max: 255}),
        fc.integer({min: 0, max: 255}),
        fc.integer({min: 8, max: 30}),
        fc.uint8Array({minLength: 8, maxLength: 8}),
        (b, c, length, key) => {
          const address = `10.${b}.${c}.77`
          const network = parseRange(`${address}/${length}`)!
          const text = `${(network.lo as number) >>> 24}.${((network.lo as number) >>> 16) & 255}.${((network.lo as number) >>> 8) & 255}.${(network.lo as number) & 255}/${length}`
          const [inside, around] = redactText(`${address} ${text}`, key).split(' ')
          expect(
            inRange(parseAddress(inside!)!, parseRange(around!)!),
            `${address} ${text} → ${inside} ${around}`,
          ).to.equal(true)
        },
      ),
    )
  })

  it('takes free text, process names and foreign comments out', () => {
    const files = oneNode({
      iptables:
        '*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 10.9.8.7/32 -m comment --comment "ticket of Bob" -j DROP\nCOMMIT\n',
      ss: 'tcp LISTEN 0 128 10.1.1.1:5432 0.0.0.0:* users:(("acme-billing",pid=1,fd=3))\n',
      files: {'resolv.txt': 'search corp.example.com\nnameserver 10.1.1.53\n'},
    })
    const all = [...redactFiles(files, randomBytes(32)).values()].join('\n')
    for (const word of ['Bob', 'acme', 'corp', '10.9.8.7', '10.1.1.53']) expect(all).not.to.contain(word)
  })

  it('leaves nothing of names that no list has', () => {
    const object = (metadata: object, rest: object): string =>
      JSON.stringify({items: [{metadata: {name: 'payroll', namespace: 'acme', ...metadata}, ...rest}]})
    const files = oneNode({
      files: {
        'dns.json': JSON.stringify({
          asked: [
            {
              server: '10.96.0.10:53',
              kind: 'replica',
              pod: 'acme/dns-acme',
              failure: 'acme refuses',
              answers: [
                {
                  name: 'payroll.acme.svc.acme.internal',
                  type: 'SRV',
                  status: 'NOERROR',
                  records: [
                    {name: '_http._tcp.x', type: 'SRV', data: '0 50 80 10-7-8-9.payroll.acme.svc.acme.internal.'},
                  ],
                },
                {name: '9.8.7.10.in-addr.arpa', type: 'PTR', status: 'NOERROR', records: []},
              ],
            },
          ],
          incomplete: ['acme.internal was not asked'],
        }),
        'backend.txt': 'iptables v1.8.9 (nf_tables)\nlogin acme.doe, root by sudo\n',
        'nft.json.stderr': 'acme-host: Operation not permitted, ask acme',
      },
    })
    const all = new Map([
      ...files,
      [
        'snapshot.json',
        JSON.stringify({
          namespace: 'acme',
          forbidden: {pods: 'User "acme" cannot list'},
          unread: {'n9.acme': 'acme is down'},
          skipped: ['n8.acme'],
          via: {'n9.acme': 'ssh'},
        }),
      ],
      [
        'api/services.json',
        object(
          {ownerReferences: [{kind: 'X', name: 'acme-owner'}]},
          {spec: {loadBalancerClass: 'acme.com/lb', ports: [{name: 'http'}]}},
        ),
      ],
      [
        'api/ingresses.json',
        object(
          {name: 'in'},
          {
            spec: {
              ingressClassName: 'acme-class',
              rules: [
                {
                  host: 'www.acme.com',
                  http: {paths: [{path: '/acme/pay', backend: {service: {name: 'acme-gone', port: {name: 'web'}}}}]},
                },
              ],
            },
          },
        ),
      ],
      [
        'api/nodes.json',
        object(
          {name: 'n1', labels: {'kubernetes.io/hostname': 'n1.acme.com'}},
          {
            spec: {taints: [{key: 'dedicated', value: 'acme'}]},
            status: {addresses: [{type: 'Hostname', address: 'n1.acme.com'}]},
          },
        ),
      ],
      [
        'api/configmaps.json',
        object(
          {name: 'coredns', namespace: 'kube-system'},
          {
            data: {
              Corefile: 'kubernetes acme.internal in-addr.arpa',
              '9000': 'acme/gone:80',
              'kubeconfig.conf': 'https://acme',
            },
          },
        ),
      ],
    ])
    const redacted = redactFiles(all, randomBytes(32))
    const words = [...redacted].map(([path, text]) => `${path}\n${text}`).join('\n')
    expect(words).not.to.match(/acme|payroll|pay\b|doe\b/)
    for (const kept of ['_http', 'Operation not permitted', 'root by sudo', '"name":"http"', 'in-addr.arpa', 'in-addr'])
      expect(words).to.contain(kept)
    expect(words).to.match(/"0 50 80 10-\d+-\d+-9\.svc-/)
    expect(words).to.match(/"9\.\d+\.\d+\.10\.in-addr\.arpa"/)
  })
})
