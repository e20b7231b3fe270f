import {expect} from 'chai'
import {isLeftOut} from '../../../src/parse/pasted.js'
import {askNode, fate, oneNode, type NodeDump} from '../../helpers/node.js'

/** What people post is often a piece: nothing that it hides may end as understood. */
const VIP = {from: {pod: 'default/a'}, to: '10.96.0.10:80'}
const NAT = `*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.3:8080
COMMIT
`
const outcome = (dump: NodeDump, packet: object = VIP): string =>
  Object.keys(fate(dump, {...VIP, ...packet}).outcomes).join(' ')
const HEAD = 'target     prot opt source               destination\n'
const listing = (forward: string): string =>
  [
    `Chain PREROUTING (policy ACCEPT)\n${HEAD}KUBE-SERVICES  all  --  0.0.0.0/0            0.0.0.0/0`,
    `Chain OUTPUT (policy ACCEPT)\n${HEAD}`,
    `Chain POSTROUTING (policy ACCEPT)\n${HEAD}`,
    `Chain KUBE-SERVICES (1 references)\n${HEAD}DNAT       tcp  --  0.0.0.0/0            10.96.0.10           tcp dpt:80 to:10.1.1.3:8080`,
    `Chain FORWARD (policy DROP)\n${HEAD}${forward}\n`,
  ].join('\n\n')

/** A node of which only this listing is there. */
function listed(text: string): string {
  const files = oneNode({files: {'iptables-nat-L.txt': text}})
  files.delete('nodes/n1/iptables-save.txt')
  files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace('iptables-save.txt rc=0\n', ''))
  return Object.keys(askNode(files, VIP).outcomes).join(' ')
}

describe('pieces of dumps', () => {
  it("an ACCEPT of a listing without -v may be one of another interface, but for kube-proxy's own", () => {
    expect(listed(listing('ACCEPT     all  --  0.0.0.0/0            0.0.0.0/0'))).to.equal('unknown')
    expect(listed(listing('ACCEPT     all  --  0.0.0.0/0            0.0.0.0/0            /* loopback */'))).to.equal(
      'unknown',
    )
    expect(listed(listing('ACCEPT     all  --  10.1.0.0/16          0.0.0.0/0'))).to.equal('unknown')
    const own = `KUBE-FORWARD  all  --  0.0.0.0/0            0.0.0.0/0\n\nChain KUBE-FORWARD (1 references)\n${HEAD}ACCEPT     all  --  0.0.0.0/0            0.0.0.0/0`
    expect(listed(listing(own))).to.equal('delivered')
  })

  it('rules picked by grep: the policy of their built-in chain is not there', () => {
    expect(outcome({iptables: NAT})).to.equal('delivered')
    expect(outcome({iptables: `${NAT}-A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n`})).to.equal('unknown')
    expect(outcome({iptables: `${NAT}-P FORWARD ACCEPT\n-A FORWARD -m mark --mark 0x1 -j DROP\n`})).to.equal(
      'delivered',
    )
  })

  it('a table without its built-in chains is what kube-proxy feeds to iptables-restore', () =>
    expect(
      outcome({
        iptables:
          '*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -d 10.96.0.10/32 -j DNAT --to-destination 10.1.1.3\nCOMMIT\n',
      }),
    ).to.equal('unknown'))

  it('native base chains beside a table, which iptables cannot show', () => {
    const says = (words: string): string => `# Table \`nat' ${words}, use 'nft' tool to list them.\n${NAT}`
    const files = (words: string): Map<string, string> => {
      const all = oneNode({iptables: says(words)})
      all.delete('nodes/n1/nft.txt')
      all.set('nodes/n1/rc.txt', all.get('nodes/n1/rc.txt')!.replace('nft.txt rc=0\n', ''))
      return all
    }
    for (const words of ['contains incompatible base-chains', 'is incompatible'])
      expect(Object.keys(askNode(files(words), VIP).outcomes), words).to.deep.equal(['unknown'])
  })

  it('two hosts in one file: nobody knows whose rules these are', () => {
    const servers = 'IP Virtual Server version 1.2.1 (size=4096)\nTCP  10.1.1.1:80 rr\n'
    const nft = `table ip t {\n\tchain pre {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tip daddr 10.96.0.10 dnat to 10.1.1.3\n\t}\n}\n`
    expect(outcome({nft})).to.equal('delivered')
    expect(outcome({nft: nft + nft})).to.equal('unknown')
    const files = oneNode({files: {'ipvsadm-Ln.txt': `${servers}  -> 10.1.1.3:8080 Masq 1 0 0\n${servers}`}})
    files.delete('nodes/n1/ipvsadm-Sn.txt')
    files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace('ipvsadm-Sn.txt rc=0\n', ''))
    expect(Object.keys(askNode(files, {...VIP, to: '10.1.1.1:80'}).outcomes)).to.deep.equal(['unknown'])
  })

  it('nft: what it cannot translate stands behind # and is a rule all the same', () => {
    const chain = (rule: string): string =>
      `table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t${rule}\n\t}\n}\n`
    expect(outcome({iptables: NAT, nft: chain('# match-set KUBE-X dst,dst counter packets 0 bytes 0 drop')})).to.equal(
      'unknown',
    )
    for (const rule of [
      '# match-set X dst counter reject',
      '# match-set X dst drop comment "x"',
      '# x counter meta mark set 0x1',
    ])
      expect(outcome({iptables: NAT, nft: chain(rule)}), rule).to.equal('unknown')
    expect(outcome({iptables: NAT, nft: chain('# my own words about this chain')})).to.equal('delivered')
  })

  it('nft: chains without a hook, and a listing behind # signs, are no whole ruleset', () => {
    expect(outcome({iptables: NAT, nft: 'table ip nat {\n\tchain KUBE-X {\n\t\tdrop\n\t}\n}\n'})).to.equal('unknown')
    expect(outcome({iptables: NAT, nft: '# table ip nat {\n# \tchain X {\n# \t}\n# }\n'})).to.equal('unknown')
  })

  it('what kubelet leaves in nft beside legacy rules is an empty chain, and no piece', () =>
    expect(outcome({iptables: NAT, nft: 'table ip mangle {\n\tchain KUBE-KUBELET-CANARY {\n\t}\n}\n'})).to.equal(
      'delivered',
    ))

  it('a filter table without its built-in chains is a piece, too', () =>
    expect(outcome({iptables: `${NAT}*filter\n:KUBE-FORWARD - [0:0]\n-A KUBE-FORWARD -j DROP\nCOMMIT\n`})).to.equal(
      'unknown',
    ))

  it('a listener whose port is not understood may be any', () => {
    const to = {from: {external: '198.51.100.7'}, to: '192.0.2.11:443'}
    for (const line of [
      'tcp 0 0 0.0.0.0:frobnicate 0.0.0.0:* LISTEN 701/nginx',
      'tcp LISTEN 0 128 0.0.0.0:frobnicate 0.0.0.0:*',
    ])
      expect(outcome({ss: `${line}\n`}, to), line).to.equal('unknown')
    expect(outcome({ss: 'tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\n'}, to)).to.equal('refused')
  })

  it('loopback that comes in by a wire is open where nobody asked for sysctls', () => {
    const files = oneNode({
      iptables: NAT.replace('10.1.1.3:8080', '127.0.0.1:8080'),
      ss: 'tcp LISTEN 0 128 127.0.0.1:8080 0.0.0.0:*\n',
    })
    files.delete('nodes/n1/sysctl.txt')
    files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace('sysctl.txt rc=0\n', ''))
    expect(Object.keys(askNode(files, VIP).outcomes)).to.deep.equal(['unknown'])
  })

  it('nobody says in more than 200 signs that lines are left out: longer ones are not searched for it', () => {
    expect(isLeftOut('...')).to.equal(true)
    expect(isLeftOut('# ... many other services omitted ...')).to.equal(true)
    expect(isLeftOut('.'.repeat(20_000))).to.equal(false)
  })

  it('dots in rules without a table are heard', () =>
    expect(
      outcome({
        iptables:
          '-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n-P POSTROUTING ACCEPT\n...\n-A PREROUTING -d 10.96.0.11/32 -j DNAT --to-destination 10.1.1.3\n',
      }),
    ).to.equal('unknown'))

  it('sysctls that nobody asked for: loopback is routed, as forwarding is on', () => {
    const iptables = NAT.replace('-A PREROUTING', '-A OUTPUT')
      .replace('10.96.0.10/32', '127.0.0.1/32')
      .replace('COMMIT', '-A POSTROUTING -j MASQUERADE\nCOMMIT')
    const files = oneNode({iptables})
    files.delete('nodes/n1/sysctl.txt')
    files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace('sysctl.txt rc=0\n', ''))
    const asked = {from: {node: 'n1'}, to: '127.0.0.1:80'}
    expect(Object.keys(askNode(files, asked).outcomes)).to.deep.equal(['delivered'])
    expect(outcome({iptables}, asked)).to.equal('dropped')
  })

  it('addresses that nobody asked for: IPVS sees what is for the node itself', () => {
    const files = oneNode({ipvs: '-A -t 10.96.0.10:80 -s rr\n-a -t 10.96.0.10:80 -r 10.1.1.3:8080 -m -w 1\n'})
    files.delete('nodes/n1/ip-addr.json')
    files.delete('nodes/n1/ip-route.json')
    files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace(/ip-(addr|route).json rc=0\n/g, ''))
    expect(Object.keys(askNode(files, VIP).outcomes)).to.deep.equal(['delivered'])
  })

  it('broadcasts are not what a walk sends', () => {
    const rule = (kind: string): string =>
      `${NAT}*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m pkttype --pkt-type ${kind} -j DROP\nCOMMIT\n`
    expect([outcome({iptables: rule('broadcast')}), outcome({iptables: rule('unicast')})]).to.deep.equal([
      'delivered',
      'dropped',
    ])
  })
})
