import {expect} from 'chai'
import {
  parseAddresses,
  parseBridgeFdb,
  parseLinks,
  parseNeighbours,
  parsePolicyRules,
  parseRoutes,
} from '../../../src/parse/iproute.js'
import {parseConntrack, parseSockets, parseSysctl} from '../../../src/parse/system.js'
import {formatAddress, formatRange, type Address} from '../../../src/util/ip.js'
import {ADDR_JSON, CONNTRACK_TEXT, ROUTE_JSON, RULE_JSON, SS_TEXT, SYSCTL_TEXT} from './dumps.js'

const show = (address: Address | undefined): string | undefined =>
  address === undefined ? undefined : formatAddress(address)
const one = (item: object): string => JSON.stringify([item])

describe('parse/iproute', () => {
  it('ip -j addr', () => {
    const {value, problems} = parseAddresses(ADDR_JSON, 'f')
    expect(problems).to.deep.equal([])
    expect(
      value.map(({address, length, device, scope, secondary}) => [show(address), length, device, scope, secondary]),
    ).to.deep.equal([
      ['127.0.0.1', 8, 'lo', 'host', false],
      ['::1', 128, 'lo', 'host', false],
      ['172.18.0.11', 24, 'eth0', 'global', true],
    ])
  })

  it('ip -j -d link', () => {
    const [link] = parseLinks(
      one({
        ifindex: 5,
        ifname: 'veth1',
        flags: ['UP'],
        mtu: 1450,
        master: 'cni0',
        linkinfo: {info_kind: 'veth', info_slave_kind: 'bridge', info_slave_data: {hairpin: true}},
      }),
      'f',
    ).value
    expect(link).to.deep.equal({
      index: 5,
      name: 'veth1',
      up: true,
      loopback: false,
      xdp: false,
      master: 'cni0',
      kind: 'veth',
      mtu: 1450,
      hairpin: true,
    })
    expect(parseLinks(ADDR_JSON, 'f').value.map(({name, loopback, up}) => [name, loopback, up])).to.deep.equal([
      ['lo', true, true],
      ['eth0', false, true],
    ])
  })

  it('ip -j route', () => {
    const {value, problems} = parseRoutes(ROUTE_JSON, 'f')
    expect(problems).to.deep.equal([])
    expect(
      value.map(({type, destination, table, source, nextHops}) => [
        type,
        formatRange(destination),
        table,
        show(source),
        ...nextHops.map(({gateway, device, weight, dead}) => [show(gateway), device, weight, dead]),
      ]),
    ).to.deep.equal([
      ['unicast', '0.0.0.0/0', 'main', undefined, ['172.18.0.1', 'eth0', 1, false]],
      ['unicast', '10.244.1.0/24', 'main', '10.244.1.1', [undefined, 'cni0', 1, false]],
      ['local', '10.244.1.1', 'local', '10.244.1.1', [undefined, 'cni0', 1, false]],
      ['unicast', '0.0.0.0/0', 'main', undefined, ['10.0.0.1', 'eth0', 1, true], ['10.0.0.2', 'eth1', 2, false]],
    ])
  })

  const families: readonly (readonly [object, 4 | 6])[] = [
    [{dst: 'default', gateway: 'fe80::1', dev: 'eth0'}, 6],
    [{dst: 'fd00::/8', dev: 'eth0', metric: 256, pref: 'medium'}, 6],
    [{dst: 'default', dev: 'wg0', scope: 'link'}, 4],
    [{dst: 'default', dev: 'eth0', metric: 1024, pref: 'medium'}, 6],
    [{dst: '10.0.0.0/8', via: {family: 'inet6', host: 'fe80::1'}, dev: 'eth0'}, 4],
    [{dst: 'default', via: {family: 'inet6', host: 'fe80::1'}, dev: 'eth0'}, 4],
  ]
  for (const [item, family] of families)
    it(`the family of ${JSON.stringify(item)} is ${family}`, () =>
      expect(parseRoutes(one(item), 'f').value[0]?.family).to.equal(family))

  it('ip -j rule', () => {
    const {value, problems} = parsePolicyRules(RULE_JSON, 'f', 4)
    expect(problems).to.deep.equal([])
    expect(value[1]).to.deep.include({
      family: 4,
      priority: 100,
      not: true,
      mark: {value: 0x80, mask: 0x80},
      inDevice: 'eth0',
      table: '2',
      action: 'lookup',
      unmodelled: [],
    })
    expect(formatRange(value[1]!.source!)).to.equal('10.0.0.0/8')
    expect(value[2]!.source).to.equal(undefined)
  })

  const selectors: readonly object[] = [
    {uid_start: 0, uid_end: 10},
    {ipproto: 'tcp'},
    {sport: 80},
    {l3mdev: null},
    {tos: '0x10'},
    {suppress_ifgroup: 'x'},
  ]
  for (const selector of selectors) {
    it(`a rule with ${JSON.stringify(selector)} says what is not modelled`, () =>
      expect(
        parsePolicyRules(one({priority: 1, src: 'all', table: 'main', ...selector}), 'f').value[0]?.unmodelled,
      ).to.not.deep.equal([]))
  }

  it('ip -j neigh and bridge -j fdb', () => {
    expect(
      parseNeighbours(one({dst: '10.0.0.1', dev: 'eth0', lladdr: 'aa:bb:cc:dd:ee:ff', state: ['REACHABLE']}), 'f')
        .value,
    ).to.deep.equal([{address: 167772161, device: 'eth0', mac: 'aa:bb:cc:dd:ee:ff', state: 'REACHABLE'}])
    expect(parseBridgeFdb(one({mac: 'AA:bb:cc:dd:ee:ff', ifname: 'veth1', master: 'cni0'}), 'f').value).to.deep.equal([
      {mac: 'aa:bb:cc:dd:ee:ff', device: 'veth1'},
    ])
    expect(
      parseBridgeFdb(one({mac: 'aa:bb:cc:dd:ee:ff', ifname: 'flannel.1', dst: '192.0.2.12', flags: ['self']}), 'f')
        .value,
    ).to.deep.equal([{mac: 'aa:bb:cc:dd:ee:ff', device: 'flannel.1', remote: 3221225996}])
  })

  const doubts: readonly (readonly [string, () => {problems: readonly unknown[]}])[] = [
    ['a list that was cut', () => parseRoutes('[{"dst":"def', 'f')],
    ['text that is not ip’s', () => parseRoutes('Kernel IP routing table', 'f')],
    ['a word that ip does not have', () => parseRoutes('10.0.0.0/8 dev eth0\ndefault frobnicate 7 dev eth0', 'f')],
    ['no list', () => parseLinks('{"a": 1}', 'f')],
    ['entries that are none', () => parseLinks('[7]', 'f')],
    [
      'a redacted address',
      () => parseAddresses(one({ifname: 'eth0', addr_info: [{family: 'inet', local: 'x.x.x.x', prefixlen: 24}]}), 'f'),
    ],
    ['a redacted destination', () => parseRoutes(one({dst: 'x.x.x.x/24', dev: 'eth0'}), 'f')],
    ['a redacted gateway', () => parseRoutes(one({dst: '10.0.0.0/8', gateway: 'x.x.x.x', dev: 'eth0'}), 'f')],
    [
      'a redacted source of a rule',
      () => parsePolicyRules(one({priority: 1, src: 'x.x.x.x', srclen: 24, table: '5'}), 'f'),
    ],
    ['a redacted neighbour', () => parseNeighbours(one({dst: 'x.x.x.x', dev: 'eth0'}), 'f')],
  ]
  for (const [what, parse] of doubts) it(`reports ${what}`, () => expect(parse().problems).to.have.length(1))

  it('passes over the empty objects of old iproute2', () =>
    expect(parseLinks('[{},{"ifname":"lo"}]', 'f').problems).to.deep.equal([]))
})

describe('parse/system', () => {
  it('sysctl', () => {
    const {value, problems} = parseSysctl(SYSCTL_TEXT, 'f')
    expect(problems).to.deep.equal([])
    expect([...value].map(([key, {value: text, line}]) => [key, text, line])).to.deep.equal([
      ['net.ipv4.ip_forward', '1', 1],
      ['net.ipv4.conf.eth0.100.rp_filter', '2', 2],
      ['net.ipv4.ip_local_port_range', '32768\t60999', 3],
    ])
    expect(parseSysctl('root@node1:~# sysctl -a\n下面\n....\n', 'f').problems).to.have.length(3)
  })

  it('ss -lntup', () => {
    const {value, problems} = parseSockets(SS_TEXT, 'f')
    expect(problems).to.deep.equal([])
    expect(
      value.map(({protocol, address, families, device, port, process}) => [
        protocol,
        show(address),
        families.join(),
        device,
        port,
        process,
      ]),
    ).to.deep.equal([
      ['UDP', '127.0.0.53', '4', 'lo', 53, 'systemd-resolve'],
      ['TCP', '172.18.0.11', '4', undefined, 22, 'sshd'],
      ['TCP', undefined, '4', undefined, 31999, 'kube-proxy'],
      ['TCP', undefined, '4,6', undefined, 9100, 'python3'],
      ['TCP', '::1', '6', undefined, 6060, undefined],
    ])
  })

  it('ss without Netid, with mapped addresses, other families', () => {
    const {value, problems} = parseSockets(
      'State Recv-Q Send-Q Local Address:Port Peer Address:Port\nLISTEN 0 128 [::ffff:10.0.0.1]:80 *:*\nu_str LISTEN 0 128 /run/x.sock 1 * 0\ntcp ESTAB 0 0 10.0.0.1:22 10.0.0.2:5\n',
      'f',
    )
    expect(problems).to.deep.equal([])
    expect(value.map(({protocol, address, families, port}) => [protocol, show(address), families, port])).to.deep.equal(
      [['TCP', '10.0.0.1', [4], 80]],
    )
  })

  const sockets = [
    'tcp LISTEN 0 128 *:ssh *:*',
    'tcp LISTEN 0 128 0.0.0.0: 0.0.0.0:*',
    'tcp LISTEN 0 128',
    'tcp LISTEN 0 128 x.x.x.x:22 *:*',
    'node1: tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:*',
  ]
  for (const line of sockets)
    it(`ss: reports ${line}`, () => expect(parseSockets(`${line}\n`, 'f').problems).to.have.length(1))

  it('netstat -lntup', () => {
    const {value, problems} = parseSockets(
      [
        'Active Internet connections (only servers)',
        'Proto Recv-Q Send-Q Local Address           Foreign Address         State       PID/Program name',
        'tcp        0      0 192.0.2.1:2379          0.0.0.0:*               LISTEN      1234/etcd',
        'tcp6       0      0 :::9100                 :::*                    LISTEN      7/node_exporter: x',
        'tcp        0      0 192.0.2.1:2379          192.0.2.9:40000         ESTABLISHED 1234/etcd',
        'udp        0      0 0.0.0.0:68              0.0.0.0:*                           -',
      ].join('\n'),
      'f',
    )
    expect(problems).to.deep.equal([])
    expect(
      value.map(({protocol, address, families, port, process}) => [protocol, show(address), families, port, process]),
    ).to.deep.equal([
      ['TCP', '192.0.2.1', [4], 2379, 'etcd'],
      ['TCP', undefined, [4, 6], 9100, 'node_exporter'],
      ['UDP', undefined, [4], 68, undefined],
    ])
  })

  it('conntrack', () => {
    const {value, problems} = parseConntrack(CONNTRACK_TEXT, 'f')
    expect(problems).to.deep.equal([])
    expect(
      value.map(({protocol, state, unreplied, assured, mark, original, reply, line}) => [
        protocol,
        state,
        unreplied,
        assured,
        mark,
        original.destinationPort,
        reply.sourcePort,
        line,
      ]),
    ).to.deep.equal([
      ['TCP', 'TIME_WAIT', false, true, 0, 8080, 8080, 1],
      ['UDP', undefined, true, false, 16384, 53, 53, 2],
      ['TCP', 'ESTABLISHED', false, true, 0, 2, 2, 3],
    ])
  })

  it('conntrack: every state', () => {
    for (const state of ['SYN_SENT', 'SYN_SENT2', 'SYN_RECV', 'CLOSE', 'LAST_ACK', 'HEARTBEAT_SENT']) {
      expect(
        parseConntrack(
          `tcp 6 10 ${state} src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 mark=0 use=1`,
          'f',
        ).value[0]?.state,
      ).to.equal(state)
    }
  })

  for (const line of [
    'tcp 6 10 CLOSE src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2',
    'tcp 6 10 CLOSE src=x.x.x.x dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1',
    '[sudo] password for x:',
    '....',
  ]) {
    it(`conntrack: reports ${line}`, () => expect(parseConntrack(line, 'f').problems).to.have.length(1))
  }
})

describe('routes that wrap packets', () => {
  it('are not understood: an older ip prints their outer destination in the place of their own', () => {
    const text = '[{"dst":"10.35.0.0/16","encap":"ip","id":5,"src":"0.0.0.0","dst":"1.2.3.4","dev":"eth0","flags":[]}]'
    expect(parseRoutes(text, 'f').problems).to.have.length(1)
  })
})
