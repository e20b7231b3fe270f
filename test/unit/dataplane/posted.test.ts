import {expect} from 'chai'
import {findGaps} from '../../../src/dataplane/gaps.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {askNode, oneNode, type NodeDump} from '../../helpers/node.js'

/** A pod asks 10.96.0.10:80; healthy rules lead it to 10.1.1.3:8080. */
const NAT = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.3:8080
COMMIT
`
const FILTER = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
COMMIT
`
const GOOD = NAT + FILTER
const before = (mark: string, line: string): string => GOOD.replace(mark, `${line}\n${mark}`)
const NFT_NAT = `table ip kube-proxy {
	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 10.96.0.10 tcp dport 80 dnat to 10.1.1.3:8080
	}
}
`
const nftForward = (rule: string): string => `${NFT_NAT}table inet fw {
	chain forward {
		type filter hook forward priority filter; policy accept;
		${rule}
	}
}
`
const iptablesNft = (rule: string): string => `${NFT_NAT}table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
		${rule}
	}
}
`

const fate = (dump: NodeDump): string => {
  const {outcomes} = askNode(oneNode(dump), {from: {pod: 'default/a'}, to: '10.96.0.10:80'})
  return Object.entries(outcomes)
    .map(([outcome, share]) => `${outcome} ${share}`)
    .join(', ')
}
const iptables = (text: string): string => fate({iptables: text})
const nft = (text: string): string => fate({nft: text})
/** What the walk says of text and of the other form of the same rules. */
const UNKNOWN = /^unknown 1$/
const DROPPED = 'dropped 1'
const DELIVERED = 'delivered 1'

describe('dumps as people post them', () => {
  it('healthy ones deliver', () => {
    expect(iptables(GOOD)).to.equal(DELIVERED)
    expect(nft(nftForward('counter'))).to.equal(DELIVERED)
  })

  describe('a line of iptables-save that is damaged may have been a rule', () => {
    for (const line of [
      '> -A FORWARD -j DROP',
      '–A FORWARD -j DROP',
      '12: -A FORWARD -j DROP',
      '+-A FORWARD -j DROP',
      'sudo iptables -A FORWARD -j DROP',
      'Nov 14 10:00:00 n1 kube-proxy[1]: -A FORWARD -j DROP',
      '-t filter -A FORWARD -j DROP',
      '<snip>',
      '[...]',
      '...',
      '(snipped)',
    ]) {
      it(`${line}, first in its table`, () => expect(iptables(before('-A INPUT', line))).to.match(UNKNOWN))
      it(`${line}, between the chains`, () => expect(iptables(before('-A FORWARD', line))).to.match(UNKNOWN))
    }
    it('one that names no chain is of the chain above it or of the next', () => {
      expect(iptables(before('-A INPUT', 'xyzzy'))).to.equal(DELIVERED)
      expect(iptables(before('-A FORWARD', 'xyzzy'))).to.match(UNKNOWN)
      expect(iptables(before('-A OUTPUT', 'xyzzy'))).to.match(UNKNOWN)
    })
    it('in the chain that it names, not in the one above it', () =>
      expect(iptables(before('-A FORWARD', '> -A OUTPUT -j DROP'))).to.equal(DELIVERED))
    it('one that names several may be of each, and a name in quotes is none', () => {
      expect(iptables(before('-A FORWARD', '> -A OUTPUT -j ACCEPT -A FORWARD -j DROP'))).to.match(UNKNOWN)
      expect(iptables(before('-A FORWARD', 'A FORWARD -m comment --comment "see -A OUTPUT" -j DROP'))).to.match(UNKNOWN)
    })
    it('behind the last rule it may be of a chain that has none', () =>
      expect(iptables(GOOD.replace(/-A FORWARD.*\n/, '').replace(/COMMIT\n$/, 'xyzzy\nCOMMIT\n'))).to.match(UNKNOWN))
    it('also in a whole dump that was quoted', () => expect(iptables(GOOD.replaceAll(/^/gm, '> '))).to.match(UNKNOWN))
  })

  describe('blanks that web pages and tools make', () => {
    for (const [name, blank] of Object.entries({tabs: '\t', 'no-break spaces': '\u00a0', 'narrow ones': '\u202f'}))
      it(name, () => {
        expect(iptables(before('-A FORWARD', '-A FORWARD -j DROP').replaceAll(' ', blank))).to.equal(DROPPED)
        expect(iptables(before('-A FORWARD', `-A${blank}FORWARD -j DROP`))).to.equal(DROPPED)
        expect(iptables(GOOD.replaceAll(' ', blank))).to.equal(DELIVERED)
      })
    it('counters without one', () =>
      expect(iptables(before('-A FORWARD', '[0:0]-A FORWARD -j DROP'))).to.equal(DROPPED))
  })

  describe('rules that the tool names and does not show', () => {
    const note = "# Table `filter' is incompatible, use 'nft' tool.\n"
    const legacy = '# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n'
    const unread = {'rc.txt': 'iptables-save.txt rc=0\nip-addr.json rc=0\nip-route.json rc=0\nsysctl.txt rc=0\n'}
    const withoutNft = (text: string): string => {
      const files = oneNode({iptables: text})
      files.delete('nodes/n1/nft.txt')
      files.set('nodes/n1/rc.txt', unread['rc.txt'])
      const {outcomes} = askNode(files, {from: {pod: 'default/a'}, to: '10.96.0.10:80'})
      return Object.keys(outcomes).join(' ')
    }
    it('native nftables rules that nobody read', () => expect(withoutNft(note + NAT)).to.equal('unknown'))
    it('native nftables rules that were read', () =>
      expect(fate({iptables: note + NAT, nft: nftForward('drop')})).to.equal(DROPPED))
    it('tables of the legacy backend that nobody read, as the dump or its stderr says', () => {
      expect(iptables(legacy + GOOD)).to.match(UNKNOWN)
      expect(fate({iptables: GOOD, files: {'iptables-save.txt.stderr': legacy}})).to.match(UNKNOWN)
    })
    it('tables of the legacy backend that were read', () => {
      const read = {
        'iptables-legacy-save.txt': '*filter\n:FORWARD DROP [0:0]\nCOMMIT\n',
        'iptables-nft-save.txt': legacy + GOOD,
      }
      expect(fate({files: read})).to.equal(DROPPED)
    })
  })

  it('a listing of some tables says which ones nobody asked for', () => {
    const unseen = (listing: string): string | undefined => {
      const files = oneNode({files: {'iptables-nat-L.txt': listing}})
      files.delete('nodes/n1/iptables-save.txt')
      files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace(/^iptables-save.*\n/m, ''))
      const state = snapshotFromFiles(files).nodes.get('n1')!
      return findGaps(state, 4, {unasked: undefined, unseen: undefined}).find(({key}) => key === 'other tables')?.what
    }
    const chain = (name: string): string =>
      `Chain ${name} (policy ACCEPT)\ntarget     prot opt source               destination\n\n`
    const nat = ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'].map(chain).join('')
    const filter = ['INPUT', 'FORWARD', 'OUTPUT'].map(chain).join('')
    expect(unseen(nat)).to.include('no raw, mangle, filter table')
    expect(unseen(filter + nat)).to.include('no raw, mangle table')
    expect(unseen(nat + filter)).to.include('no raw, mangle table')
  })

  it('a dump of kube-proxy’s nat table alone says that filter was not asked for', () => {
    const unasked = (iptables: string): string | undefined =>
      buildWorld(snapshotFromFiles(oneNode({iptables})))
        .machines.get('n1')!
        .gaps(4)
        .find(({key}) => key === 'unasked')?.what
    expect(unasked(NAT)).to.match(/iptables-save\.txt has no filter table/)
    expect(unasked(GOOD)).to.equal(undefined)
    // no table of kube-proxy's: a node may well have no filter rules
    expect(unasked(NAT.replaceAll('KUBE-SERVICES', 'OWN'))).to.equal(undefined)
  })

  describe('nft list ruleset', () => {
    it('`# xt_…` is an expression that could not be printed, not a comment', () => {
      expect(nft(iptablesNft('# xt_conntrack counter packets 9 bytes 540 drop'))).to.match(UNKNOWN)
      expect(nft(iptablesNft('ip protocol tcp # xt_comment counter packets 9 bytes 540 drop'))).to.equal(DROPPED)
      expect(nft(iptablesNft('# a comment of somebody'))).to.equal(DELIVERED)
    })
    it('options of a header that are there or missing', () => {
      for (const rule of [
        'tcp option maxseg exists drop',
        'tcp option 30 missing drop',
        'ip option rr exists drop',
        'exthdr hbh exists drop',
      ])
        expect(nft(nftForward(rule)), rule).to.match(UNKNOWN)
    })
    it('a condition without a right side is none', () => expect(nft(nftForward('ip daddr drop'))).to.match(UNKNOWN))
    it('elements that were left out', () => {
      const map = (elements: string): string => `table ip kube-proxy {
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { ${elements} }
	}
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}
	chain web {
		meta l4proto tcp dnat to 10.1.1.3:8080
	}
}
`
      expect(nft(map('10.96.0.10 . tcp . 80 : goto web'))).to.equal(DELIVERED)
      for (const elements of [
        '...',
        '10.96.0.1 . tcp . 443 : goto web, ...',
        '10.96.0.1 . tcp . 443 : goto web, …, 10.96.0.2 . tcp . 1 : goto web',
      ])
        expect(nft(map(elements)), elements).to.match(UNKNOWN)
    })
    it('chains and tables that were left out', () => {
      const whole = nftForward('counter')
      expect(nft(whole.replace('table inet', '...\ntable inet'))).to.match(UNKNOWN)
      expect(nft(whole.replace('\tchain forward', '\t...\n\tchain forward'))).to.match(UNKNOWN)
      for (const prompt of [
        'root@n1:~# nft list ruleset',
        '[root@n1 ~]# nft list ruleset',
        '$ sudo nft list ruleset',
        'nft list ruleset',
      ])
        expect(nft(`${prompt}\n${whole}\nuser@n1:~$ \n`), prompt).to.equal(DELIVERED)
      const oneTable = whole.replace('table inet', 'user@n1:~$ sudo nft list table inet fw\ntable inet')
      expect(nft(oneTable), 'nobody has asked for the others').to.match(UNKNOWN)
      expect(nft(`# nft list ruleset\n${oneTable}`)).to.equal(DELIVERED)
    })
    it('what libxtables makes of --ctstate with DNAT or SNAT in it', () => {
      for (const rule of [
        'ct status dnat counter packets 0 bytes 0 drop',
        'ct status snat counter packets 0 bytes 0 drop',
      ])
        expect(nft(iptablesNft(rule)), rule).to.match(UNKNOWN)
      expect(nft(nftForward('ct status dnat drop'))).to.equal(DROPPED)
      // somebody's own rule in a table of that name
      expect(nft(iptablesNft('ct status dnat drop'))).to.equal(DROPPED)
      expect(nft(nftForward('ct status snat drop'))).to.equal(DELIVERED)
    })
    it('iptables’ statistic', () => {
      expect(nft(iptablesNft('meta random & 2147483647 < 1073741824 counter packets 0 bytes 0 drop'))).to.equal(
        // the answer is asked as well
        'dropped 0.75, delivered 0.25',
      )
      expect(nft(iptablesNft('meta random & 2147483647 >= 2147483648 drop'))).to.equal(DELIVERED)
    })
    it('flags with a mask, and none of them', () => {
      // the answer is a SYN,ACK
      expect(nft(nftForward('tcp flags != syn / fin,syn,rst,ack drop'))).to.equal(DROPPED)
      expect(nft(nftForward('tcp flags syn / fin,syn,rst,ack drop'))).to.equal(DROPPED)
      expect(nft(nftForward('tcp flags == ack / fin,syn,rst,ack drop'))).to.equal(DELIVERED)
      expect(nft(nftForward('ct state ! established,related drop'))).to.equal(DROPPED)
      expect(nft(nftForward('ct state ! new,established drop'))).to.equal(DELIVERED)
    })
    it('a copy is heard of where a rule may reject it, also one that nft cannot show', () => {
      const chain = (hook: string): object => ({
        family: 'ip',
        table: 't',
        name: hook,
        type: 'filter',
        hook,
        prio: 1,
        policy: 'accept',
      })
      const rule = (name: string, ...expr: object[]): object => ({rule: {family: 'ip', table: 't', chain: name, expr}})
      const copying = (...more: object[]): string => {
        const copy = rule('forward', {dup: {addr: '10.9.9.9', dev: 'eth0'}})
        const nftables = [
          {table: {family: 'ip', name: 't'}},
          ...['forward', 'output'].map((hook) => ({chain: chain(hook)})),
          copy,
          ...more,
        ]
        return fate({iptables: NAT, files: {'nft.json': JSON.stringify({nftables})}})
      }
      expect(copying()).to.equal(DELIVERED)
      expect(copying(rule('output', {reject: null}))).to.match(UNKNOWN)
      expect(copying(rule('output', {xt: {type: 'target', name: 'REJECT'}}))).to.match(UNKNOWN)
    })
    it('a limit in a set says no to some', () => {
      const set = (more: string): string => `table inet fw {
	set seen {
		type ipv4_addr
		size 128
		flags dynamic,timeout
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		add @seen { ip saddr timeout 10s ${more}} drop
	}
}
`
      expect(nft(NFT_NAT + set(''))).to.equal(DROPPED)
      expect(nft(NFT_NAT + set('limit rate over 10/second '))).to.match(UNKNOWN)
    })
  })
})
