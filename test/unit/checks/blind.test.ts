import {expect} from 'chai'
import {check, type CheckResult} from '../../../src/checks/check.js'
import {externalClients} from '../../../src/checks/outside.js'
import {buildWorld} from '../../../src/engine.js'
import {selectServices} from '../../../src/select.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {inRange, parseAddress} from '../../../src/util/ip.js'
import {fate, oneNode} from '../../helpers/node.js'

const chains = ':PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n'
const nat = (...rules: string[]): string => `*nat\n${chains}${rules.join('\n')}\nCOMMIT\n`
const filter = (...rules: string[]): string =>
  `*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n${rules.join('\n')}\nCOMMIT\n`
const translate = (chain: string): string =>
  `-A ${chain} -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.2:8080`
const RULES = nat(
  translate('PREROUTING'),
  translate('OUTPUT'),
  '-A POSTROUTING -s 10.1.1.2/32 -d 10.1.1.2/32 -j MASQUERADE',
)

/** One node, one Service, one pod; all is well. */
function healthy(): Map<string, string> {
  const files = oneNode({iptables: RULES})
  const items = (...list: object[]): string => JSON.stringify({items: list})
  files.set(
    'api/services.json',
    items({
      metadata: {name: 'web', namespace: 'default'},
      spec: {clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'], ports: [{port: 80, targetPort: 8080, protocol: 'TCP'}]},
    }),
  )
  files.set(
    'api/endpointslices.json',
    items({
      metadata: {name: 'web-1', namespace: 'default', labels: {'kubernetes.io/service-name': 'web'}},
      addressType: 'IPv4',
      ports: [{name: '', port: 8080, protocol: 'TCP'}],
      endpoints: [
        {
          addresses: ['10.1.1.2'],
          nodeName: 'n1',
          conditions: {ready: true},
          targetRef: {kind: 'Pod', namespace: 'default', name: 'a'},
        },
      ],
    }),
  )
  return files
}

function checked(change: (files: Map<string, string>) => void): CheckResult {
  const files = healthy()
  change(files)
  const snapshot = snapshotFromFiles(files)
  return check(snapshot, buildWorld(snapshot))
}

const code = (files: Map<string, string>, file: string, status: number, stderr: string): void => {
  files.delete(`nodes/n1/${file}`)
  const codes = (files.get('nodes/n1/rc.txt') ?? '').split('\n').filter((line) => !line.startsWith(`${file} `))
  files.set('nodes/n1/rc.txt', [...codes, `${file} rc=${status}`].join('\n'))
  files.set(`nodes/n1/${file}.stderr`, stderr)
}

/** What must never pass for healthy: each was found as a wrong ok. */
const BLIND: [string, (files: Map<string, string>) => void][] = [
  ['no services.json', (files) => files.delete('api/services.json')],
  ['services.json cut', (files) => files.set('api/services.json', '{"items":[{"meta')],
  ['services.json that is a Status', (files) => files.set('api/services.json', '{"kind":"Status","code":403}')],
  ['no pods.json', (files) => files.delete('api/pods.json')],
  ['no endpoints at all', (files) => files.delete('api/endpointslices.json')],
  [
    'an unreadable listing of IPVS',
    (files) => {
      files.set('nodes/n1/ipvsadm-Sn.txt', 'ipvsadm: connection lost')
      files.set('nodes/n1/proxymode.txt', 'ipvs')
      files.set('nodes/n1/iptables-save.txt', '*nat\nCOMMIT\n')
      const services = files.get('api/services.json')!
      files.set(
        'api/services.json',
        services
          .replace('"port":80', '"nodePort":30080,"port":80')
          .replace('"clusterIP"', '"type":"NodePort","clusterIP"'),
      )
    },
  ],
  ['ip rule failed', (files) => code(files, 'ip-rule.json', 2, 'object "rule" is unknown')],
  ['ip-link.json is garbage', (files) => files.set('nodes/n1/ip-link.json', 'garbage')],
  [
    'nft.json of another shape',
    (files) => files.delete('nodes/n1/nft.txt') && files.set('nodes/n1/nft.json', '{"a":1}'),
  ],
  ['sysctls without forwarding', (files) => files.set('nodes/n1/sysctl.txt', 'net.ipv4.vs.conntrack = 1\n')],
  [
    'the other backend not listed for lack of rights',
    (files) =>
      code(files, 'iptables-legacy-save.txt', 1, 'iptables-save v1.8.9 (legacy): Cannot initialize: Permission denied'),
  ],
  [
    'the xtables lock',
    (files) =>
      code(
        files,
        'iptables-legacy-save.txt',
        4,
        "Fatal: can't open lock file /run/xtables.lock: No such file or directory",
      ),
  ],
  [
    'nftables changed while they were listed',
    (files) => code(files, 'nft.txt', 1, 'Error: cache initialization failed: No such file or directory'),
  ],
  [
    'a route by a device that is not there',
    (files) => files.set('nodes/n1/ip-route.json', files.get('nodes/n1/ip-route.json')!.replaceAll('cni0', 'wg0')),
  ],
  [
    'an XDP program',
    (files) =>
      files.set(
        'nodes/n1/ip-link.json',
        files.get('nodes/n1/ip-link.json')!.replace('"ifname":"eth0"', '"ifname":"eth0","xdp":{"mode":2}'),
      ),
  ],
  [
    'an iptables table that no kernel has',
    (files) => files.set('nodes/n1/iptables-save.txt', RULES.replace('*nat', '*nta')),
  ],
  [
    'an arp chain that drops',
    (files) =>
      files.set(
        'nodes/n1/nft.txt',
        'table arp t {\n\tchain c {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n',
      ),
  ],
  [
    'a base chain at a hook of a later kernel',
    (files) =>
      files.set(
        'nodes/n1/nft.txt',
        'table ip t {\n\tchain c {\n\t\ttype filter hook midway priority 0; policy drop;\n\t}\n}\n',
      ),
  ],
  [
    'an nft rule whose chain is not listed',
    (files) =>
      files.delete('nodes/n1/nft.txt') &&
      files.set(
        'nodes/n1/nft.json',
        '{"nftables":[{"table":{"family":"ip","name":"t"}},{"rule":{"family":"ip","table":"t","chain":"c","expr":[{"drop":null}]}}]}',
      ),
  ],
]

describe('the clients that are tried', () => {
  const clients = (rule: string): boolean => {
    const files = healthy()
    files.set('nodes/n1/iptables-save.txt', nat(translate('PREROUTING'), rule))
    const snapshot = snapshotFromFiles(files)
    const address = parseAddress('10.200.0.9')!
    return externalClients(snapshot.cluster, buildWorld(snapshot), 4).some((range) => inRange(address, range))
  }

  it('are not a node’s own containers, whose small network it masquerades', () => {
    expect(clients('-A POSTROUTING -s 10.200.0.0/16 ! -o docker0 -j MASQUERADE')).to.equal(false)
  })

  it('are not the first address of a network, which is everybody’s in IPv6 (RFC 4291), nor in IPv4 the last one', () => {
    const files = healthy()
    files.set(
      'nodes/n1/ip-addr.json',
      JSON.stringify([
        {
          ifname: 'eth0',
          flags: ['UP'],
          addr_info: [
            {local: 'fd00:5::11', prefixlen: 64, scope: 'global'},
            {local: '192.0.2.11', prefixlen: 24, scope: 'global'},
          ],
        },
      ]),
    )
    const snapshot = snapshotFromFiles(files)
    const world = buildWorld(snapshot)
    const isTried = (text: string, family: 4 | 6): boolean =>
      externalClients(snapshot.cluster, world, family).some((range) => inRange(parseAddress(text)!, range))
    for (const text of ['fd00:5::', 'fd00:5::11']) expect(isTried(text, 6), text).to.equal(false)
    expect(isTried('fd00:5::99', 6)).to.equal(true)
    for (const text of ['192.0.2.0', '192.0.2.11', '192.0.2.255']) expect(isTried(text, 4), text).to.equal(false)
    expect(isTried('192.0.2.99', 4)).to.equal(true)
  })

  it('but all others: a rule for a large network changes what clients are seen as', () => {
    expect(clients('-A POSTROUTING -s 10.0.0.0/8 ! -o docker0 -j MASQUERADE')).to.equal(true)
    expect(clients('-A POSTROUTING -s 10.200.0.0/16 -j MASQUERADE')).to.equal(true)
  })
})

describe('check never calls healthy what it has not seen', () => {
  it('the base itself is healthy and complete', () => {
    const {findings, incomplete} = checked(() => undefined)
    expect(findings.filter(({severity}) => severity !== 'info')).to.deep.equal([])
    expect(incomplete).to.deep.equal([])
  })

  for (const [name, change] of BLIND)
    it(name, () => {
      expect(checked(change).incomplete).not.to.deep.equal([])
    })

  it('a node of which nothing was read is incomplete, and not accused', () => {
    const {findings, incomplete} = checked((files) => {
      for (const path of files.keys()) if (path.startsWith('nodes/n1/')) files.delete(path)
      files.set('nodes/n1/date.txt', 'today')
    })
    expect(findings.filter(({severity}) => severity === 'error')).to.deep.equal([])
    expect(incomplete.map(({reason}) => reason).join()).to.contain('no rules of any kind')
  })

  it('an endpoint on a node that was skipped is not passed over', () => {
    const {incomplete} = checked((files) => {
      files.set('snapshot.json', '{"skipped":["n2"]}')
      const nodes = JSON.parse(files.get('api/nodes.json')!) as {items: object[]}
      nodes.items.push({
        metadata: {name: 'n2'},
        spec: {podCIDR: '10.1.2.0/24'},
        status: {addresses: [{type: 'InternalIP', address: '192.0.2.12'}]},
      })
      files.set('api/nodes.json', JSON.stringify(nodes))
      files.set(
        'api/endpointslices.json',
        files.get('api/endpointslices.json')!.replace('10.1.1.2', '10.1.2.2').replace('"n1"', '"n2"'),
      )
      files.set('nodes/n1/iptables-save.txt', RULES.replaceAll('10.1.1.2', '10.1.2.2'))
      const routes = JSON.parse(files.get('nodes/n1/ip-route.json')!) as object[]
      routes.push({dst: '10.1.2.0/24', gateway: '192.0.2.12', dev: 'eth0', flags: []})
      files.set('nodes/n1/ip-route.json', JSON.stringify(routes))
    })
    expect(incomplete.map(({reason}) => reason).join()).to.contain('was not read')
  })

  it('a selection of nothing is an error', () => {
    const snapshot = snapshotFromFiles(healthy())
    expect(() => selectServices(snapshot, [], {namespace: 'nosuch'})).to.throw('no Services in namespace nosuch')
    expect(() => selectServices(snapshot, [], {'all-namespaces': true, selector: 'app=typo'})).to.throw('app=typo')
  })
})

/** Words in rules that nobody knows, and rules that act on what an earlier one wrote. */
const ODD: [string, string][] = [
  ['a mark that is no number', nat(translate('PREROUTING')) + filter('-A FORWARD -m mark --mark 0xzz -j DROP')],
  ['a negated one', nat(translate('PREROUTING')) + filter('-A FORWARD -m mark ! --mark 0xzz/0x1 -j DROP')],
  ['a strange state', nat(translate('PREROUTING')) + filter('-A FORWARD -m conntrack --ctstate FOO -j DROP')],
  ['a strange address type', nat(translate('PREROUTING')) + filter('-A FORWARD -m addrtype --dst-type BOGUS -j DROP')],
  ['a strange protocol', nat(translate('PREROUTING')) + filter('-A FORWARD -p tcpx -j DROP')],
  ['a changed TTL', nat(translate('PREROUTING')) + `*mangle\n${chains}-A PREROUTING -j TTL --ttl-set 1\nCOMMIT\n`],
  [
    'recent, set and asked by the same packet',
    nat(translate('PREROUTING')) +
      filter('-A FORWARD -m recent --set --name x', '-A FORWARD -m recent --rcheck --name x -j DROP'),
  ],
  [
    'a set, written and asked by the same packet',
    nat(translate('PREROUTING')) +
      filter('-A FORWARD -j SET --add-set BAN src', '-A FORWARD -m set --match-set BAN src -j DROP'),
  ],
]

describe('the walk says unknown', () => {
  for (const [name, iptables] of ODD)
    it(name, () => {
      const ipset = 'create BAN hash:ip family inet hashsize 1024 maxelem 65536\n'
      expect(fate({iptables, ipset}, {to: '10.96.0.1:80'}).outcomes).to.deep.equal({unknown: 1})
    })

  it('and drops martian sources', () => {
    for (const external of ['224.0.0.5', '255.255.255.255', '0.0.0.0'])
      expect(fate({iptables: RULES}, {from: {external}, to: '10.96.0.1:80'}).outcomes).to.deep.equal({dropped: 1})
  })
})
