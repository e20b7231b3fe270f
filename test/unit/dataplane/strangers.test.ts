import {expect} from 'chai'
import {fate, oneNode, type NodeDump} from '../../helpers/node.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'

/** Rules of network plugins and firewalls. Pod a asks pod b on the same node unless it says otherwise. */
const HOOKS = ':INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n'
const filter = (rules: string): string => `*filter\n${HOOKS}${rules}\nCOMMIT\n`
const outcome = (dump: NodeDump, packet: object = {}): string =>
  Object.keys(fate(dump, {from: {pod: 'default/a'}, to: '10.1.1.3:80', ...packet}).outcomes).join(' ')
const fromOutside = {from: {external: '198.51.100.7'}, enter: 'n1', to: '10.1.1.3:80'}
/** The files of a node with some of their entries changed. */
const entries = (name: string, change: (all: Record<string, unknown>[]) => Record<string, unknown>[]): NodeDump => {
  const known = JSON.parse(oneNode({}).get(`nodes/n1/${name}`)!) as Record<string, unknown>[]
  return {files: {[name]: JSON.stringify(change(known))}}
}

describe('iptables rules of strangers', () => {
  it('a rule with two addrtype matches gives each its own limits (Calico’s rule for its tunnel)', () => {
    const both = '-m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL'
    const own = {from: {node: 'n1'}, to: '10.1.1.3:80'}
    // 192.0.2.11 is the node's, and not cni0's
    const rules = filter(`-A OUTPUT -o cni0 -s 192.0.2.11 ${both} -j DROP`)
    expect(outcome({iptables: rules}, own)).to.equal('delivered')
    const masquerade = `*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j SNAT --to-source 192.0.2.11\nCOMMIT\n`
    expect(
      outcome({iptables: masquerade.replace('-j SNAT', `${both} -j DROP\n-A POSTROUTING -j SNAT`)}, own),
      'the route gives it 10.1.1.1, which is cni0’s',
    ).to.equal('delivered')
    const routes = entries('ip-route.json', (all) =>
      all.map((route) => (route['dst'] === '10.1.1.0/24' ? {...route, prefsrc: '192.0.2.11'} : route)),
    )
    expect(outcome({...routes, iptables: filter(`-A OUTPUT -o cni0 ${both} -j DROP`)}, own)).to.equal('dropped')
  })

  it('a set with a netmask holds networks', () => {
    const rules = filter('-A FORWARD -m set --match-set blocked src -j DROP')
    for (const set of [
      'create blocked hash:ip family inet hashsize 1024 maxelem 65536 netmask 24\nadd blocked 198.51.100.0\n',
      'create blocked bitmap:ip range 198.51.0.0/16 netmask 24\nadd blocked 198.51.100.0\n',
    ]) {
      expect(outcome({iptables: rules, ipset: set}, fromOutside)).to.equal('dropped')
      expect(outcome({iptables: rules, ipset: set.replace(' netmask 24', '')}, fromOutside)).to.equal('delivered')
    }
    expect(
      outcome(
        {iptables: rules, ipset: 'create blocked hash:ip family inet bitmask 255.255.0.255\nadd blocked 198.51.0.7\n'},
        fromOutside,
      ),
    ).to.equal('unknown')
  })

  it('--return-nomatch asks for the members that are left out', () => {
    const ipset = 'create nets hash:net family inet\nadd nets 198.51.0.0/16\nadd nets 198.51.100.0/24 nomatch\n'
    const rule = (more: string): string => filter(`-A FORWARD -m set --match-set nets src ${more} -j DROP`)
    expect(outcome({iptables: rule(''), ipset}, fromOutside)).to.equal('delivered')
    expect(outcome({iptables: rule('--return-nomatch'), ipset}, fromOutside)).to.equal('dropped')
    const inside = {...fromOutside, from: {external: '198.51.1.1'}}
    expect(outcome({iptables: rule('--return-nomatch'), ipset}, inside)).to.equal('delivered')
    expect(
      outcome({iptables: rule('--return-nomatch'), ipset}, {...fromOutside, from: {external: '8.8.8.8'}}),
    ).to.equal('delivered')
  })

  it('a mark that comes from a set is not known', () =>
    expect(
      outcome(
        {
          iptables: `*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j SET --map-set marks src --map-mark\nCOMMIT\n${filter('-A FORWARD -m mark --mark 0x64 -j DROP')}`,
          ipset: 'create marks hash:ip skbinfo\nadd marks 198.51.100.7 skbmark 0x64\n',
        },
        fromOutside,
      ),
    ).to.equal('unknown'))

  it('what is forwarded has no socket (Istio)', () => {
    const post = (match: string): string => filter(`-A OUTPUT -m owner ${match} -j DROP`)
    const mangle = (match: string): string =>
      `*mangle\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -m owner ${match} -j DROP\nCOMMIT\n`
    expect(outcome({iptables: mangle('--socket-exists')}, fromOutside)).to.equal('delivered')
    expect(outcome({iptables: mangle('--uid-owner 0')}, fromOutside)).to.equal('delivered')
    expect(outcome({iptables: mangle('! --uid-owner 0')}, fromOutside)).to.equal('dropped')
    const own = {from: {node: 'n1'}, to: '10.1.1.3:80'}
    expect(outcome({iptables: post('--socket-exists')}, own)).to.equal('dropped')
    expect(outcome({iptables: post('--uid-owner 0')}, own)).to.equal('unknown')
  })

  it('rpfilter takes any of several next hops', () => {
    const two = entries('ip-route.json', (all) =>
      all.map((route) =>
        route['dst'] === 'default'
          ? {
              dst: 'default',
              nexthops: [
                {gateway: '10.1.1.9', dev: 'cni0', weight: 1, flags: []},
                {gateway: '192.0.2.1', dev: 'eth0', weight: 1, flags: []},
              ],
            }
          : route,
      ),
    )
    const raw = '*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i eth0 -m rpfilter --invert -j DROP\nCOMMIT\n'
    expect(fate({...two, iptables: raw}, fromOutside).why.join(' ')).not.to.match(/raw\/PREROUTING/)
  })
})

describe('nft rules of strangers', () => {
  const guard = (rule: string, policy = 'accept'): string =>
    `table inet fw {\n\tchain rpf {\n\t\ttype filter hook prerouting priority raw; policy ${policy};\n\t\t${rule}\n\t}\n}\n`

  it('fib … oif exists, missing, 0: whether there is a way back', () => {
    const back = 'fib saddr . iif oif'
    const asymmetric = entries('ip-route.json', (all) => [
      ...all,
      {dst: '10.1.1.2', gateway: '192.0.2.99', dev: 'eth0', flags: []},
    ])
    for (const [rule, policy] of [
      [`${back} missing drop`, 'accept'],
      [`${back} 0 drop`, 'accept'],
      [`${back} exists accept`, 'drop'],
      [`${back} != 0 accept`, 'drop'],
      ['fib saddr . iif check missing drop', 'accept'],
    ] as const) {
      expect(outcome({nft: guard(rule, policy)}), rule).to.equal('delivered')
      expect(outcome({...asymmetric, nft: guard(rule, policy)}), `${rule}, asymmetric`).to.equal('dropped')
    }
    expect(outcome({nft: guard('fib daddr oif "cni0" drop')}, fromOutside)).to.equal('dropped')
    // an address of the node itself leads nowhere (nft_fib4_eval; tried)
    const own = {...fromOutside, to: '192.0.2.11:80'}
    expect(fate({nft: guard('fib daddr oif missing drop')}, own).outcomes).to.deep.equal({dropped: 1})
    for (const rule of ['fib daddr oif exists drop', 'fib daddr oif "lo" drop'])
      expect(fate({nft: guard(rule)}, own).outcomes, rule).to.deep.equal({refused: 1})
    expect(outcome({nft: guard('fib saddr . iif oif 7 drop')}, fromOutside)).to.equal('unknown')
  })

  it('a base chain that somebody added to a table of iptables-nft runs as well', () => {
    const nft = `table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
	}

	chain guard {
		type filter hook forward priority filter; policy accept;
		ip daddr 10.1.1.3 drop
	}
}
`
    const head = "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n"
    const save = `${head}# Generated by iptables-nft-save v1.8.9 (nf_tables)\n${filter('')}`
    expect(outcome({iptables: save, nft})).to.equal('dropped')
    expect(outcome({iptables: save, nft: nft.replace('daddr 10.1.1.3', 'daddr 10.9.9.9')})).to.equal('delivered')
  })

  it('ingress chains of several devices are seen, and what stands in none of the known forms', () => {
    const ingress = (devices: string): string =>
      `table netdev guard {\n\tchain ingress {\n\t\ttype filter hook ingress ${devices} priority -500; policy accept;\n\t\ttcp dport 80 drop\n\t}\n}\ntable inet other {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n`
    for (const devices of [
      'device "eth0"',
      'devices = { eth0, eth1 }',
      'devices = { "eth0", "eth1" }',
      'frobnicate x y',
    ])
      expect(outcome({nft: ingress(devices)}, fromOutside), devices).to.equal('unknown')
  })

  it('blocks with lists inside do not end early, and flowtables are no sets', () => {
    const text = `table inet x {
	flowtable ft {
		hook ingress priority filter
		devices = { eth0, eth1 }
		counter
	}

	ct timeout agg {
		protocol tcp
		policy = { established : 100, close_wait : 4 }
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		ip protocol tcp flow add @ft
		tcp dport 80 drop
	}
}
`
    expect(outcome({nft: text}, fromOutside)).to.equal('dropped')
  })

  it('protocols by the names that nft prints', () => {
    for (const name of ['ipencap', 'vrrp', 'ospf', 'gre'])
      expect(outcome({nft: guard(`meta l4proto ${name} drop`)}, fromOutside), name).to.equal('delivered')
  })
})

describe('routes and bridges of strangers', () => {
  it('dead routes are passed over, those for other types of service too', () => {
    const with1 = (more: object): NodeDump =>
      entries('ip-route.json', (all) => [...all, {dst: '10.1.1.3', dev: 'eth0', gateway: '192.0.2.99', ...more}])
    expect(outcome(with1({flags: []}), {from: {node: 'n1'}})).not.to.equal('delivered')
    expect(outcome(with1({flags: ['dead', 'linkdown']}), {from: {node: 'n1'}})).to.equal('delivered')
    expect(outcome(with1({flags: [], tos: '0x10'}), {from: {node: 'n1'}})).to.equal('delivered')
  })

  it('wg-quick’s rules are understood', () => {
    const rules = JSON.stringify([
      {priority: 0, src: 'all', table: 'local'},
      {priority: 100, src: 'all', nop: null},
      {priority: 32764, src: 'all', table: 'main', suppress_prefixlen: 0},
      {priority: 32765, not: null, src: 'all', fwmark: '0xca6c', table: '51820'},
      {priority: 32766, src: 'all', table: 'main'},
    ])
    expect(outcome({files: {'ip-rule.json': rules}})).to.equal('delivered')
    const world = buildWorld(snapshotFromFiles(oneNode({files: {'ip-rule.json': rules}})))
    expect(world.machines.get('n1')!.state.policyRules.flatMap(({unmodelled}) => unmodelled)).to.deep.equal([])
  })

  it('isolated ports of a bridge do not reach each other', () => {
    const ports = (...isolated: readonly boolean[]): NodeDump =>
      entries('ip-link.json', (all) => [
        ...all.filter(({ifname}) => ifname !== 'veth1'),
        ...isolated.map((flag, at) => ({
          ifindex: 10 + at,
          ifname: `veth${at}`,
          flags: ['UP'],
          master: 'cni0',
          linkinfo: {info_slave_kind: 'bridge', info_slave_data: {hairpin: false, isolated: flag}},
        })),
      ])
    expect(outcome(ports(false, false))).to.equal('delivered')
    expect(outcome(ports(true, true))).to.equal('dropped')
    expect(outcome(ports(true, true, false))).to.equal('unknown')
    expect(outcome(ports(true, true), {from: {node: 'n1'}})).to.equal('delivered')
  })
})
