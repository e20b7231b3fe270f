/** What people hand on is seldom what was asked for: lists of other forms, half of the dumps, listings by other tools. */
import {expect} from 'chai'
import {check, type CheckResult} from '../../../src/checks/check.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {askNode, fate, oneNode} from '../../helpers/node.js'

const service = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: {name: 'web', namespace: 'default', creationTimestamp: '2024-01-01T00:00:00Z'},
  spec: {
    type: 'ClusterIP',
    clusterIP: '10.96.0.1',
    clusterIPs: ['10.96.0.1'],
    ports: [{port: 80, targetPort: 8080, protocol: 'TCP'}],
  },
}
const endpoints = {
  apiVersion: 'v1',
  kind: 'Endpoints',
  metadata: {name: 'web', namespace: 'default'},
  subsets: [{addresses: [{ip: '10.1.1.2', nodeName: 'n1'}], ports: [{port: 8080, protocol: 'TCP'}]}],
}
const pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {name: 'a', namespace: 'default'},
  spec: {nodeName: 'n1', containers: []},
  status: {phase: 'Running', podIP: '10.1.1.2'},
}
const chains = ':PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n'
const SAVED = `*nat\n${chains}:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -s 10.1.1.2/32 -d 10.1.1.2/32 -j MASQUERADE\n-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-A\n-A KUBE-SVC-A -p tcp -m tcp -j DNAT --to-destination 10.1.1.2:8080\nCOMMIT\n`
const FILTER = '*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n'
const VIP = {to: '10.96.0.1:80'}

const errors = ({findings}: CheckResult): string[] =>
  findings.filter(({severity}) => severity === 'error').map(({name}) => name)

function checked(change: (files: Map<string, string>) => void): CheckResult {
  const files = oneNode({iptables: SAVED + FILTER})
  files.set('api/services.json', JSON.stringify({items: [service]}))
  files.set('api/endpoints.json', JSON.stringify({items: [endpoints]}))
  change(files)
  const snapshot = snapshotFromFiles(files)
  return check(snapshot, buildWorld(snapshot))
}

describe('API lists of other forms', () => {
  const list = {apiVersion: 'v1', kind: 'List', items: [service]}
  const yaml = `apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata:
    creationTimestamp: 2024-01-01T00:00:00Z
    name: web
    namespace: default
  spec:
    clusterIP: 10.96.0.1
    ports:
    - port: 80
      protocol: TCP
      targetPort: 8080
kind: List
`
  const forms: readonly (readonly [string, string])[] = [
    ['a byte order mark', `\ufeff${JSON.stringify(list)}`],
    ['one object', JSON.stringify(service)],
    ['a bare list', JSON.stringify([service])],
    ['the command above it', `$ kubectl get svc -A -o json\n${JSON.stringify(list, null, 2)}\n`],
    ['YAML', yaml],
    [
      'YAML of several documents',
      `---\n${yaml}---\n${yaml.replaceAll('web', 'web2').replace('10.96.0.1', '10.96.0.2')}`,
    ],
  ]
  for (const [name, text] of forms)
    it(name, () => {
      const {services, problems} = checked((files) => files.set('api/services.json', text))
      expect(services[0]).to.equal('default/web')
      expect(problems).to.deep.equal([])
    })

  it('several kinds in one list: each goes to its own, wherever it was found', () => {
    const result = checked((files) => {
      for (const name of ['endpoints', 'pods', 'services']) files.delete(`api/${name}.json`)
      files.set(
        'api/pods.json',
        JSON.stringify({kind: 'List', items: [service, endpoints, pod, {...pod, kind: 'Job'}]}),
      )
    })
    expect(result.services).to.deep.equal(['default/web'])
    expect(result.incomplete.filter(({reason}) => reason.includes('was not read'))).to.deep.equal([])
    expect(errors(result)).to.deep.equal([])
  })

  it('what is neither JSON nor YAML is told', () => {
    const {incomplete} = checked((files) => files.set('api/services.json', 'NAME  TYPE\nweb   ClusterIP\n'))
    expect(incomplete.map(({reason}) => reason).join('\n')).to.match(/services\.json: not valid JSON/)
  })

  it('without any list of endpoints nothing is promised, and that is said', () => {
    const result = checked((files) => files.delete('api/endpoints.json'))
    expect(result.findings.filter(({severity}) => severity !== 'info')).to.deep.equal([])
    expect(result.incomplete.map(({reason}) => reason)).to.include(
      'api/endpointslices.json was not read: what it holds was not checked',
    )
  })
})

describe('dumps that lack their half', () => {
  const IPVS_MODE = `*nat\n${chains}:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT\nCOMMIT\n`

  it('rules of ipvs mode without a word of IPVS: unknown, no error', () => {
    const files = (change: (of: Map<string, string>) => void = () => undefined): Map<string, string> => {
      const made = oneNode({
        iptables: IPVS_MODE + FILTER,
        ipset: 'create KUBE-CLUSTER-IP hash:ip,port\nadd KUBE-CLUSTER-IP 10.96.0.1,tcp:80\n',
      })
      made.set('nodes/n1/rc.txt', made.get('nodes/n1/rc.txt')!.replace('ipvsadm-Sn.txt rc=0\n', ''))
      made.delete('nodes/n1/ipvsadm-Sn.txt')
      change(made)
      return made
    }
    expect(askNode(files(), VIP).outcomes).to.deep.equal({unknown: 1})
    const result = checked((all) => {
      all.delete('nodes/n1/ipvsadm-Sn.txt')
      for (const [name, text] of files()) if (name.startsWith('nodes/')) all.set(name, text)
    })
    expect(errors(result)).to.deep.equal([])
    expect(result.incomplete.length).to.be.greaterThan(0)
  })

  it('a save of nat and a listing of filter are read together', () => {
    const listing =
      'Chain INPUT (policy ACCEPT)\ntarget prot opt source destination\n\nChain FORWARD (policy ACCEPT)\ntarget prot opt source destination\nREJECT all -- 0.0.0.0/0 10.1.1.2 reject-with icmp-host-prohibited\n\nChain OUTPUT (policy ACCEPT)\ntarget prot opt source destination\n'
    const outcomes = (files: Record<string, string>): object => fate({iptables: SAVED, files}, VIP).outcomes
    expect(outcomes({})).to.deep.equal({delivered: 1})
    expect(outcomes({'iptables-nat-L.txt': listing})['delivered' as never]).to.equal(undefined)
    // a whole save knows better
    expect(fate({iptables: SAVED + FILTER, files: {'iptables-nat-L.txt': listing}}, VIP).outcomes).to.deep.equal({
      delivered: 1,
    })
  })

  it('iptables that is older than the rules loses their ports: every answer is unknown', () => {
    const lost = SAVED.replace(' -m tcp --dport 80 -j KUBE-SVC-A', ' -j KUBE-SVC-A')
    expect(fate({iptables: lost + FILTER}, VIP).outcomes).to.deep.equal({unknown: 1})
    expect(fate({iptables: lost + FILTER}, {to: '10.96.0.1:443'}).outcomes).to.deep.equal({unknown: 1})
    const result = checked((files) => files.set('nodes/n1/iptables-save.txt', lost + FILTER))
    expect(errors(result)).to.deep.equal([])
    expect(result.findings.map(({name}) => name)).to.include('unreadable-rules')
  })

  const head = 'target     prot opt source               destination\n'
  const listed = (services: string): string =>
    `Chain PREROUTING (policy ACCEPT)\n${head}KUBE-SERVICES  all  --  0.0.0.0/0  0.0.0.0/0\n\nChain OUTPUT (policy ACCEPT)\n${head}KUBE-SERVICES  all  --  0.0.0.0/0  0.0.0.0/0\n\nChain POSTROUTING (policy ACCEPT)\n${head}\nChain KUBE-SERVICES (2 references)\n${head}${services}\n\nChain KUBE-SVC-A (1 references)\n${head}DNAT       tcp  --  0.0.0.0/0  0.0.0.0/0  tcp to:10.1.1.2:8080\n`
  const asListing = (services: string): Map<string, string> => {
    const files = oneNode({files: {'iptables-nat-L.txt': listed(services)}})
    files.delete('nodes/n1/iptables-save.txt')
    files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace('iptables-save.txt rc=0\n', ''))
    return files
  }

  it('the same in a listing', () => {
    const files = asListing('KUBE-SVC-A  tcp  --  0.0.0.0/0  10.96.0.1  /* default/web cluster IP */')
    expect(askNode(files, {to: '10.96.0.1:443'}).outcomes).to.deep.equal({unknown: 1})
  })

  it('rows of a listing that were wrapped are joined again', () => {
    const files = asListing('KUBE-SVC-A  tcp  --  0.0.0.0/0  10.96.0.1\n   /* default/web cluster IP */ tcp dpt:80')
    expect(askNode(files, VIP).outcomes).to.deep.equal({delivered: 1})
    expect(askNode(files, {to: '10.96.0.1:443'}).outcomes['delivered']).to.equal(undefined)
  })

  it('leftovers of iptables mode in a listing', () => {
    const result = checked((files) => {
      for (const [name, text] of asListing('KUBE-SVC-A  tcp  --  0.0.0.0/0  10.96.0.1  tcp dpt:80'))
        if (name.startsWith('nodes/')) files.set(name, text)
      files.delete('nodes/n1/iptables-save.txt')
      files.set('nodes/n1/proxymode.txt', 'ipvs')
    })
    const [leftover] = result.findings.filter(({name}) => name === 'mode-leftovers')
    expect(leftover?.evidence[0]?.text).to.match(/^DNAT/)
  })

  it('ipvsadm -Ln | grep rr shows no real servers, and that says nothing', () => {
    const files = oneNode({files: {'ipvsadm-Ln.txt': '$ ipvsadm -Ln | grep rr\nTCP  10.96.0.1:80 rr\n'}})
    files.delete('nodes/n1/ipvsadm-Sn.txt')
    files.set(
      'nodes/n1/ip-addr.json',
      files.get('nodes/n1/ip-addr.json')!.replace(']', ',{"local":"10.96.0.1","prefixlen":32,"scope":"global"}]'),
    )
    files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace('ipvsadm-Sn.txt rc=0\n', ''))
    expect(askNode(files, VIP).outcomes).to.deep.equal({unknown: 1})
  })
})

describe('iptables in two forms at once', () => {
  const head = 'target     prot opt in  out source               destination\n'
  const LISTED_FILTER = `Chain INPUT (policy ACCEPT)\n${head}\nChain FORWARD (policy DROP 29 packets, 24K bytes)\n${head}\nChain OUTPUT (policy ACCEPT)\n${head}`
  const outcomes = (iptables: string): object => fate({iptables}, VIP).outcomes

  it('nat saved, filter listed', () => expect(outcomes(`${SAVED}\n${LISTED_FILTER}`)).to.deep.equal({dropped: 1}))
  it('filter listed, nat saved', () => expect(outcomes(`${LISTED_FILTER}\n${SAVED}`)).to.deep.equal({dropped: 1}))
  it('behind a prompt', () =>
    expect(outcomes(`${SAVED}\nroot@n1:~# iptables -L -n -v\n${LISTED_FILTER}`)).to.deep.equal({dropped: 1}))
  it('a whole save and the same table listed: nobody knows which', () =>
    expect(outcomes(`${SAVED}${FILTER}\n${LISTED_FILTER}`)).to.deep.equal({unknown: 1}))
  it('a dump that breaks off behind a table lacks the others', () => {
    for (const end of ['command terminated with exit code 137', 'Connection to n1 closed by remote host', 'Killed'])
      expect(outcomes(`${SAVED}${end}\n`), end).to.deep.equal({unknown: 1})
  })
  it('the other backend is there, whatever stands before the warning', () => {
    const warning = 'Warning: iptables-legacy tables present, use iptables-legacy to see them'
    for (const line of [warning, `# ${warning}`])
      expect(outcomes(`${SAVED}${FILTER}${line}\n`), line).to.deep.equal({unknown: 1})
  })
  it('chains that are in nat alone tell the table of a paste', () => {
    const paste = '-A KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment x -j KUBE-SEP-YIL6JZP7A3QYXJU2\n'
    const snapshot = snapshotFromFiles(oneNode({iptables: paste}))
    expect([...snapshot.nodes.get('n1')!.iptables(4)[0]!.tables.keys()]).to.deep.equal(['nat'])
  })
  it('DNAT to port 0 is a misprint', () => {
    const rules = SAVED.replace('10.1.1.2:8080', ':0 --persistent') + FILTER
    expect(outcomes(rules)).to.deep.equal({unknown: 1})
    const result = checked((files) => files.set('nodes/n1/iptables-save.txt', rules))
    expect(result.findings.map(({name}) => name)).to.include('unreadable-rules')
    expect(errors(result)).to.deep.equal([])
  })
})

describe('listings of sockets, sysctls and connections', () => {
  const outcome = (ss: string, proto = 'TCP'): string =>
    Object.keys(fate({ss}, {to: '192.0.2.11:53', proto, from: {node: 'n1'}}).outcomes).join()
  const row = 'tcp   LISTEN 0  128  0.0.0.0:22  0.0.0.0:*  users:(("sshd",pid=1,fd=3))\n'

  it('a whole one shows that nobody listens', () => {
    expect(outcome(row)).to.equal('refused')
    expect(outcome(`Netid State Recv-Q Send-Q Local Address:Port Peer Address:Port\n${row}`, 'UDP')).to.equal('refused')
    expect(outcome(`$ ss -lntup\n${row}`, 'UDP')).to.equal('refused')
    expect(outcome('')).to.equal('refused')
  })
  const blind: readonly (readonly [string, string, string])[] = [
    ['grep', `[root@n1 ~]# netstat -tlnp | grep 30080\n${row}`, 'TCP'],
    ['TCP alone, by its command', `n1:~$ ss -lntp\n${row}`, 'UDP'],
    ['UDP alone, by its command', 'n1:~$ ss -lnup\nudp UNCONN 0 0 0.0.0.0:68 0.0.0.0:*\n', 'TCP'],
    [
      'one protocol, by its columns',
      'State Recv-Q Send-Q Local Address:Port\nLISTEN 0 128 0.0.0.0:22 0.0.0.0:*\n',
      'UDP',
    ],
    [
      'netstat without UDP',
      `Active Internet connections (only servers)\ntcp 0 0 0.0.0.0:22 0.0.0.0:* LISTEN 1/sshd\n`,
      'UDP',
    ],
    ['connections alone', 'ESTAB 0 0 192.0.2.11:22 192.0.2.1:4711\n', 'TCP'],
    ['an error', 'bash: ss: command not found\n', 'TCP'],
  ]
  for (const [name, ss, proto] of blind) it(`${name}: unknown`, () => expect(outcome(ss, proto)).to.equal('unknown'))

  it('sysctls by their files', () => {
    const sysctl = (text: string): string =>
      Object.keys(fate({iptables: SAVED + FILTER, sysctl: text}, VIP).outcomes).join()
    expect(sysctl('/proc/sys/net/ipv4/ip_forward = 0\n')).to.equal('dropped')
    expect(sysctl('/proc/sys/net/ipv4/ip_forward = 1\n')).to.equal('delivered')
  })
  it('sysctls that are not in the list were not asked for, and that is said', () => {
    const {incomplete} = checked((files) => files.set('nodes/n1/sysctl.txt', 'net.ipv4.ip_forward = 1\n'))
    const reasons = incomplete.map(({reason}) => reason).join('\n')
    expect(reasons)
      .to.match(/rp_filter is not in sysctl\.txt/)
      .and.to.match(/route_localnet is not in sysctl\.txt/)
  })
  it('events and deleted entries are no connections', () => {
    const entry =
      'udp      17 30 src=10.1.1.2 dst=10.96.0.1 sport=34152 dport=80 [UNREPLIED] src=10.1.1.99 dst=10.1.1.2 sport=80 dport=34152'
    const flows = (text: string): number =>
      snapshotFromFiles(oneNode({files: {'conntrack.txt': text}})).nodes.get('n1')!.conntrack.length
    expect(flows(`${entry}\n`)).to.equal(1)
    expect(flows(`    [NEW] ${entry}\n[DESTROY] ${entry}\n`)).to.equal(0)
    expect(flows(`${entry}\nconntrack v1.4.8 (conntrack-tools): 1 flow entries have been deleted.\n`)).to.equal(0)
  })
})

describe('files of other names and forms', () => {
  it('ip for people, in files of either name', () => {
    for (const name of ['ip-route.json', 'ip-route.txt']) {
      const files = oneNode({iptables: SAVED + FILTER})
      files.delete('nodes/n1/ip-route.json')
      files.set(
        `nodes/n1/${name}`,
        '$ ip route\ndefault via 192.0.2.1 dev eth0\nblackhole 10.1.1.0/24\n192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.11\n',
      )
      expect(Object.keys(askNode(files, VIP).outcomes), name).to.deep.equal(['dropped'])
    }
  })

  it('a line of ip that is not understood makes routes unknown', () => {
    const files = oneNode({iptables: SAVED + FILTER})
    files.set('nodes/n1/ip-route.json', 'default via 192.0.2.1 dev eth0\n10.1.1.0/24 frobnicate 7 dev cni0\n')
    expect(Object.keys(askNode(files, VIP).outcomes)).to.deep.equal(['unknown'])
  })

  it('files that nobody reads are told', () => {
    const told = (path: string): string[] =>
      checked((files) => files.set(path, 'x'))
        .problems.filter(({file}) => file === path)
        .map(({message}) => message)
    for (const path of ['nodes/n1/ipvsadm.txt', 'nodes/n1/iptables.txt', 'api/services.yaml'])
      expect(told(path).join(), path).to.match(/unknown file name/)
    for (const path of ['nodes/n1/nft.txt.stderr', 'api/deployments.json', 'nodes/n1/ip-rule6.txt'])
      expect(told(path).join(), path).not.to.match(/unknown file name/)
  })
})

describe('nft’s view of the same rules', () => {
  const save = (rule: string): string =>
    `# Generated by iptables-nft-save v1.8.7 on x\n${SAVED}*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A FORWARD${rule} -j DROP\nCOMMIT\n`
  const nft = (words: string): string =>
    `table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t${words} counter packets 0 bytes 0 drop\n\t}\n}\n`
  const outcome = (rule: string, words: string): string =>
    Object.keys(fate({files: {'iptables-nft-save.txt': save(rule)}, nft: nft(words)}, VIP).outcomes).join()

  it('shows what iptables has lost', () => {
    expect(outcome('', 'meta mark & 0x00010000 == 0x00010000')).to.equal('unknown')
    expect(outcome(' -p tcp', 'meta l4proto tcp tcp dport 81')).to.equal('unknown')
  })
  it('or that nothing is lost', () => {
    expect(outcome(' -p tcp', 'meta l4proto tcp')).to.equal('dropped')
    expect(outcome(' -p tcp -m tcp --dport 81', 'meta l4proto tcp tcp dport 81')).to.equal('delivered')
    expect(
      outcome(' -p tcp -m multiport --ports 81', 'meta l4proto tcp tcp sport . tcp dport { 0-65535 . 81 }'),
    ).to.equal('delivered')
  })
})

describe('what no list has told is not known', () => {
  const without = (files: Map<string, string>, ...names: readonly string[]): Map<string, string> => {
    for (const name of names) {
      files.delete(name.includes('/') ? name : `nodes/n1/${name}`)
      files.set('nodes/n1/rc.txt', files.get('nodes/n1/rc.txt')!.replace(`${name} rc=0`, ''))
    }
    return files
  }
  const all = (rule: string): Map<string, string> =>
    oneNode({
      iptables: `*nat\n${chains}-A PREROUTING -d 10.96.0.1/32 -j DNAT --to-destination ${rule}\nCOMMIT\n${FILTER}`,
    })

  it('who listens on a node, where a rule leads there', () => {
    const files = (): Map<string, string> => all('192.0.2.11:6443')
    expect(askNode(files(), VIP).outcomes, 'ss shows nobody').to.deep.equal({refused: 1})
    expect(askNode(without(files(), 'ss.txt'), VIP).outcomes).to.deep.equal({unknown: 1})
  })
  it('who has an address, without pods and endpoints', () => {
    expect(askNode(all('10.1.1.99:80'), VIP).outcomes, 'no pod has it').to.deep.equal({dropped: 1})
    expect(askNode(without(all('10.1.1.99:80'), 'api/pods.json'), VIP).outcomes).to.deep.equal({unknown: 1})
  })
  it('by which device a packet leaves, without routes', () => {
    const masquerade = SAVED.replace('-s 10.1.1.2/32 -d 10.1.1.2/32 ', '')
    const files = without(oneNode({iptables: masquerade + FILTER}), 'ip-route.json')
    expect(askNode(files, {...VIP, from: {pod: 'default/b'}}).outcomes).not.to.have.property('dropped')
  })
  it('and what a filter in front of a listing has left out', () => {
    for (const command of ['# iptables-save | grep -v cali', "$ sudo iptables-save | egrep 'KUBE|COMMIT|^:|^\\*'"])
      expect(fate({iptables: `${command}\n${SAVED}${FILTER}`}, VIP).outcomes, command).to.deep.equal({unknown: 1})
    expect(fate({iptables: `# iptables-save\n${SAVED}${FILTER}`}, VIP).outcomes).to.deep.equal({delivered: 1})
  })
})
