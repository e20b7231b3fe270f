import {expect} from 'chai'
import {parseIpsetList} from '../../../src/parse/ipset.js'
import {parseIptablesList} from '../../../src/parse/iptables-list.js'
import {parseIptablesSave, type IptablesDump} from '../../../src/parse/iptables.js'
import {parseIpvsList} from '../../../src/parse/ipvs.js'
import {parseNftText} from '../../../src/parse/nft-text.js'
import {askedTable, withoutNote} from '../../../src/parse/pasted.js'

const FILTER = [
  '-P INPUT ACCEPT',
  '-P FORWARD DROP',
  '-P OUTPUT ACCEPT',
  '-N KUBE-FORWARD',
  '-A FORWARD -j KUBE-FORWARD',
]
const NAT = [
  '-P PREROUTING ACCEPT',
  '-P INPUT ACCEPT',
  '-P OUTPUT ACCEPT',
  '-P POSTROUTING ACCEPT',
  '-N KUBE-SERVICES',
  '-A PREROUTING -j KUBE-SERVICES',
]
const MANGLE = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'].map((hook) => `-P ${hook} ACCEPT`)
const RAW = ['-P PREROUTING ACCEPT', '-P OUTPUT ACCEPT']
const save = (...lines: readonly string[]): IptablesDump => parseIptablesSave(`${lines.join('\n')}\n`, 'save.txt')
const chainsOf = (dump: IptablesDump, table: string): string[] =>
  [...(dump.tables.get(table)?.chains.keys() ?? [])].sort()

describe('parse/pasted: several listings of iptables -S in one file are tables of their own', () => {
  const orders = [
    [FILTER, NAT, MANGLE, RAW],
    [MANGLE, RAW, NAT, FILTER],
    [NAT, FILTER, RAW, MANGLE],
  ]
  for (const order of orders)
    it(order.map(([first]) => first).join(', '), () => {
      const dump = save(...order.flat())
      expect(dump.tables.get('filter')?.chains.get('FORWARD')?.policy).to.equal('DROP')
      expect(chainsOf(dump, 'filter')).to.deep.equal(['FORWARD', 'INPUT', 'KUBE-FORWARD', 'OUTPUT'])
      expect(chainsOf(dump, 'nat')).to.deep.equal(['INPUT', 'KUBE-SERVICES', 'OUTPUT', 'POSTROUTING', 'PREROUTING'])
      expect(chainsOf(dump, 'raw')).to.deep.equal(['OUTPUT', 'PREROUTING'])
      expect(dump.tables.get('mangle')?.chains.size).to.equal(5)
      expect([...dump.tables.values()].every(({complete}) => complete)).to.equal(true)
    })
  it('chains that filter and nat both have stay apart', () => {
    const dump = save(...FILTER, '-A FORWARD -j KUBE-SERVICES', '-N KUBE-SERVICES', ...NAT)
    expect(dump.tables.get('filter')?.chains.get('FORWARD')?.length).to.equal(2)
    expect(dump.tables.get('nat')?.chains.has('FORWARD')).to.equal(false)
  })
  it('the command before a listing names its table', () => {
    const dump = save(
      'root@n1:~# iptables -t raw -S',
      '-A PREROUTING -j DROP',
      '$ sudo iptables -S FORWARD',
      '-A FORWARD -j X',
    )
    expect(dump.tables.get('raw')?.chains.get('PREROUTING')?.length).to.equal(1)
    expect(dump.tables.get('filter')?.chains.get('FORWARD')?.length).to.equal(1)
  })
  it('nat in the order of iptables-nft is one table', () => {
    const nat = [0, 1, 3, 2, 4, 5].map((at) => NAT[at]!)
    expect(chainsOf(save(...FILTER, ...nat), 'nat')).to.deep.equal(chainsOf(save(...NAT), 'nat'))
    expect(chainsOf(save(...FILTER, ...nat), 'filter')).to.deep.equal(['FORWARD', 'INPUT', 'KUBE-FORWARD', 'OUTPUT'])
  })
  it('listings of single chains are one table where they call each other', () => {
    const dump = save(
      '-P OUTPUT ACCEPT',
      '-A OUTPUT -j KUBE-SERVICES',
      '-P PREROUTING ACCEPT',
      '-A PREROUTING -j KUBE-SERVICES',
      '-N KUBE-SERVICES',
      '-A KUBE-SERVICES -d 10.96.0.10/32 -j KUBE-SEP-A',
      '-N KUBE-SEP-A',
      '-A KUBE-SEP-A -j DNAT --to-destination 10.1.1.3:8080',
    )
    expect(chainsOf(dump, 'nat')).to.deep.equal(['KUBE-SEP-A', 'KUBE-SERVICES', 'OUTPUT', 'PREROUTING'])
    expect([...dump.tables.keys()]).to.deep.equal(['nat'])
  })
  it('one table twice is two hosts or two moments', () => {
    expect(save(...FILTER, ...FILTER).tables.get('filter')?.complete).to.equal(false)
  })
  it('the order of sorted lines is not known', () => {
    const lines = [
      ...NAT,
      '-A KUBE-SERVICES -d 10.96.0.1/32 -j A',
      '-A KUBE-SERVICES -j B',
      '-A KUBE-SERVICES -d 10.96.0.2/32 -j A',
    ]
    for (const dump of [
      save(...lines.toSorted()),
      save('these are mine:', ...lines.toSorted()),
      save('# iptables -t nat -S | sort', ...lines.filter((line) => line.startsWith('-A')).toSorted()),
    ]) {
      const {chains} = dump.tables.get('nat')!
      expect(chains.get('KUBE-SERVICES')?.rules.every(({problem}) => problem?.includes('sort'))).to.equal(true)
      expect(chains.get('PREROUTING')?.rules.every(({problem}) => problem === undefined)).to.equal(true)
    }
  })
})

describe('parse/pasted: what stands around dumps', () => {
  const LISTING = `Chain PREROUTING (policy ACCEPT)
target     prot opt source               destination
KUBE-SERVICES  all  --  0.0.0.0/0            0.0.0.0/0            /* kubernetes service portals */
`
  const IPVS = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.107.193.191:80 rr
  -> 10.244.1.5:80                Masq    1      0          0
`
  const IPSET = `Name: X
Type: hash:ip,port
Header: family inet hashsize 1024 maxelem 65536
Members:
10.96.0.10,udp:53
`
  const NFT = `table ip t {
	chain A {
		type filter hook input priority filter; policy accept;
		accept
	}
}
`
  const around = [
    '```',
    '```sh',
    '~~~',
    'bash-4.2# ',
    'sh-4.2# nft list ruleset',
    '/ # ipvsadm -Ln',
    '~ # exit',
    'n1:~ # iptables -L',
    'harvester1:/home/rancher # sudo nft list ruleset',
    '(root@k8s-master01-15:~)# ipvsadm -Ln',
    'worker/08c8a260:/var/vcap/bosh_ssh/x# ipset list',
    'controlplane ~ ➜  iptables -t nat -L',
    '❯ ipset list',
    'user@host ~ % nft list ruleset',
    'minikube$ sudo iptables -L',
    'PS C:\\> ssh n1',
    'sudo ipvsadm -Ln',
    'docker exec -it kind-worker ipset list',
    'exit',
    'logout',
    '</details>',
    'Connection to 10.0.0.1 closed.',
    '# Warning: iptables-legacy tables present, use iptables-legacy to see them',
  ]
  for (const line of around)
    it(line, () => {
      for (const put of [(text: string) => `${line}\n${text}`, (text: string) => `${text}${line}\n`]) {
        const rows = [...parseIptablesList(put(LISTING), 'f').tables.values()].flatMap(({chains}) =>
          [...chains.values()].flatMap(({rules}) => rules),
        )
        expect(rows.map(({problem}) => problem)).to.deep.equal([undefined])
        expect(parseIpvsList(put(IPVS), 'f').partial ?? false).to.equal(false)
        expect(parseIpsetList(put(IPSET), 'f').problems).to.deep.equal([])
        expect(parseNftText(put(NFT), 'f').cut).to.equal(false)
      }
    })
  it('a dump wholly behind # signs is no empty dump', () => {
    const hashed = (text: string): string => text.replaceAll(/^/gm, '# ')
    expect(parseIptablesList(hashed(LISTING), 'f').problems[0]?.message).to.match(/^not a line.*behind # signs/)
    expect(save(...FILTER.map((line) => `# ${line}`)).problems[0]?.message).to.match(/^not a line.*behind # signs/)
    expect(save('# Generated by iptables-save v1.8.9 on Fri Nov 20 2026').problems).to.deep.equal([])
  })
  it('a note of the poster is no part of a rule', () => {
    const [rule] = save('*filter', ':FORWARD ACCEPT', '-A FORWARD -j REJECT   ← this is the problem', 'COMMIT')
      .tables.get('filter')!
      .chains.get('FORWARD')!.rules
    expect([rule?.problem, rule?.target?.options]).to.deep.equal([undefined, []])
    for (const line of ['ip daddr 10.1.1.0/24 tcp dport <= 9000 drop', 'ip ttl <= 5 drop', 'tcp dport < 1024 accept'])
      expect(withoutNote(line)).to.equal(line)
    expect(withoutNote('-A X -j DROP ← here\r')).to.equal('-A X -j DROP')
    expect(withoutNote('-A X -j DROP ← "here"')).to.equal('-A X -j DROP')
    expect(withoutNote('-A X -m comment --comment "a <- b" -j DROP <--- here')).to.equal(
      '-A X -m comment --comment "a <- b" -j DROP',
    )
    expect(withoutNote('tcp /* a -> 10.0.0.1:80 */ to:10.0.0.1:80')).to.equal(
      'tcp /* a -> 10.0.0.1:80 */ to:10.0.0.1:80',
    )
  })
  it('listings of single chains are of the table that their command names', () => {
    const listing = (command: string, chain: string): string =>
      `# ${command}\nChain ${chain} (policy ACCEPT)\ntarget prot opt source destination\nX  all  --  0.0.0.0/0  0.0.0.0/0\n`
    const dump = parseIptablesList(
      listing('iptables -t nat -nL PREROUTING', 'PREROUTING') + listing('iptables -nL FORWARD', 'FORWARD'),
      'f',
    )
    expect([chainsOf(dump, 'nat'), chainsOf(dump, 'filter')]).to.deep.equal([['PREROUTING'], ['FORWARD']])
  })
  it('knows a command that lists rules', () => {
    expect(askedTable('[root@n1 ~]# iptables -nvL --line-numbers -t mangle')).to.deep.equal({
      table: 'mangle',
      sorted: false,
    })
    expect(askedTable('# Generated by iptables-save v1.8.9')).to.equal(undefined)
    expect(askedTable('iptables -A INPUT -j DROP')).to.equal(undefined)
  })
})

describe('parse/pasted: nft of an age that does not know -m statistic', () => {
  it('leaves open which of several endpoints a packet goes to', () => {
    const {tables} = parseNftText(
      `table ip nat {
	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		counter packets 1 bytes 60 jump KUBE-SVC-A
	}
	chain KUBE-SVC-A {
		counter packets 3 bytes 156 jump KUBE-SEP-B
		counter packets 0 bytes 0 jump KUBE-SEP-C
	}
	chain KUBE-SEP-B {
		counter packets 3 bytes 156 dnat to 10.1.1.2:80
	}
	chain KUBE-SEP-C {
		counter packets 0 bytes 0 dnat to 10.1.1.3:80
	}
}
`,
      'nft.txt',
    )
    const rules = tables.get('ip nat')!.chains.get('KUBE-SVC-A')!.rules
    expect(rules.map(({problem}) => problem !== undefined)).to.deep.equal([true, false])
  })
})
