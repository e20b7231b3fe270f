import {expect} from 'chai'
import {check, type CheckResult} from '../../../src/checks/check.js'
import type {Finding} from '../../../src/checks/finding.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {oneNode} from '../../helpers/node.js'

const items = (...list: object[]): string => JSON.stringify({items: list})
const NAT = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -s 10.1.1.3/32 -d 10.1.1.3/32 -j MASQUERADE
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.1.1.3:53
COMMIT
`
const CACHE = `*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -j NOTRACK
-A OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -j NOTRACK
-A OUTPUT -s 10.96.0.10/32 -p udp -m udp --sport 53 -j NOTRACK
COMMIT
`

/** A cluster DNS with one endpoint, on a node that has what others put beside kube-proxy. */
function site(change: (files: Map<string, string>) => void = () => undefined): CheckResult {
  const files = oneNode({iptables: NAT})
  files.set(
    'api/services.json',
    items({
      metadata: {name: 'kube-dns', namespace: 'kube-system'},
      spec: {clusterIP: '10.96.0.10', clusterIPs: ['10.96.0.10'], ports: [{port: 53, protocol: 'UDP'}]},
    }),
  )
  files.set(
    'api/endpointslices.json',
    items({
      metadata: {name: 'dns', namespace: 'kube-system', labels: {'kubernetes.io/service-name': 'kube-dns'}},
      addressType: 'IPv4',
      ports: [{name: '', port: 53, protocol: 'UDP'}],
      endpoints: [{addresses: ['10.1.1.3'], nodeName: 'n1', conditions: {ready: true}}],
    }),
  )
  change(files)
  const snapshot = snapshotFromFiles(files)
  return check(snapshot, buildWorld(snapshot))
}
const loud = ({findings}: CheckResult): string[] =>
  findings.filter(({severity}) => severity !== 'info').map(({code, node}) => `${code} ${node ?? ''}`)
const of = ({findings}: CheckResult, code: string): Finding[] => findings.filter((finding) => finding.code === code)

function edit(files: Map<string, string>, name: string, change: (all: object[]) => object[]): void {
  const path = `nodes/n1/${name}`
  files.set(path, JSON.stringify(change(JSON.parse(files.get(path)!) as object[])))
}

/** NodeLocal DNSCache as its manifest makes it (KEP-1024). */
function withCache(files: Map<string, string>, listens = true): void {
  files.set('nodes/n1/iptables-save.txt', NAT + CACHE)
  edit(files, 'ip-addr.json', (all) => [
    ...all,
    {ifname: 'nodelocaldns', flags: ['UP'], addr_info: [{local: '10.96.0.10', prefixlen: 32, scope: 'global'}]},
  ])
  edit(files, 'ip-link.json', (all) => [...all, {ifindex: 9, ifname: 'nodelocaldns', flags: ['UP']}])
  edit(files, 'ip-route.json', (all) => [
    ...all,
    {type: 'local', dst: '10.96.0.10', dev: 'nodelocaldns', table: 'local', scope: 'host', flags: []},
  ])
  if (listens)
    files.set('nodes/n1/ss.txt', 'udp UNCONN 0 0 10.96.0.10:53 0.0.0.0:* users:(("node-cache",pid=1,fd=9))\n')
}

describe('beside kube-proxy', () => {
  it('all is well', () => expect(loud(site())).to.deep.equal([]))

  it('NodeLocal DNSCache answers in its place, and that is said', () => {
    const found = site((files) => withCache(files))
    expect(loud(found)).to.deep.equal([])
    expect(of(found, 'SVT323').map(({node, services}) => [node, services])).to.deep.equal([
      ['n1', ['kube-system/kube-dns']],
    ])
  })

  it('unless nobody listens there', () => expect(loud(site((files) => withCache(files, false)))).not.to.be.empty)

  it('a Service is not missing where the list of Services was not read', () => {
    const found = site((files) => {
      files.delete('api/services.json')
      files.set(
        'api/ingresses.json',
        items({
          metadata: {name: 'i', namespace: 'default'},
          spec: {defaultBackend: {service: {name: 'web', port: {number: 80}}}},
        }),
      )
    })
    expect(of(found, 'SVT314')).to.deep.equal([])
    expect(found.incomplete.map(({reason}) => reason).join(' ')).to.match(/services\.json was not read/)
  })

  describe('kube-proxy’s log', () => {
    const failed = 'E1120 05:00:01.1 1 proxier.go:1] "Failed to execute iptables-restore" err="exit 4" ipFamily="IPv4"'
    const done = (family: string): string =>
      `I1120 05:00:02.1 1 proxier.go:2] "SyncProxyRules complete" ipFamily="${family}" elapsed="1ms"`
    const logged = (...lines: string[]): string[] =>
      loud(site((files) => files.set('nodes/n1/kube-proxy.log', `${lines.join('\n')}\n`)))
    it('tells of a sync that failed', () => expect(logged(failed)).to.deep.equal(['SVT102 n1']))
    it('its own end, in the same words as a good one, is none that went well', () =>
      expect(logged(failed, done('IPv4'))).to.deep.equal(['SVT102 n1']))
    it('nor is one of the other family', () =>
      expect(logged(failed, done('IPv4'), done('IPv6'), done('IPv6'))).to.deep.equal(['SVT102 n1']))
    it('a later one that went well ends it', () =>
      expect(logged(failed, done('IPv4'), done('IPv6'), done('IPv4'))).to.deep.equal([]))
    it('and one that fails again does not', () =>
      expect(logged(failed, done('IPv4'), done('IPv4'), failed)).to.deep.equal(['SVT102 n1']))
  })

  it('a list that names itself takes nothing down', () => {
    const found = site((files) => {
      files.set('nodes/n1/ipset-save.txt', 'create l list:set size 8\nadd l l\n')
      files.set(
        'nodes/n1/iptables-save.txt',
        `${NAT}*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set l src -j DROP\nCOMMIT\n`,
      )
    })
    expect(found.incomplete.map(({reason}) => reason).join(' ')).to.match(/undecided/)
  })

  it('a full set of strangers is none of ours', () => {
    const full = (name: string): string =>
      `create ${name} hash:ip family inet hashsize 64 maxelem 2\nadd ${name} 198.51.100.1\nadd ${name} 198.51.100.2\n`
    expect(loud(site((files) => files.set('nodes/n1/ipset-save.txt', full('f2b-sshd'))))).to.deep.equal([])
    expect(loud(site((files) => files.set('nodes/n1/ipset-save.txt', full('KUBE-CLUSTER-IP'))))).to.deep.equal([
      'SVT168 n1',
    ])
  })

  it('one device that does not forward is named by its own sysctl', () => {
    const found = site((files) =>
      files.set(
        'nodes/n1/sysctl.txt',
        'net.ipv4.ip_forward = 1\nnet.ipv4.conf.cni0.forwarding = 0\nnet.bridge.bridge-nf-call-iptables = 1\n',
      ),
    )
    expect(of(found, 'SVT110')[0]?.message).to.match(/net\.ipv4\.conf\.cni0\.forwarding is 0/)
    expect(of(found, 'SVT110')[0]?.evidence[0]?.text).to.match(/cni0\.forwarding = 0/)
  })
})

describe('two owners of one port', () => {
  it('are the cause of all that goes wrong there', () => {
    const rule = (chain: string, to: string): string =>
      `-A ${chain} -p tcp -m tcp --dport 30080 -j DNAT --to-destination ${to}`
    const found = site((files) => {
      const service = (name: string, ip: string): object => ({
        metadata: {name, namespace: 'default'},
        spec: {
          type: 'NodePort',
          clusterIP: ip,
          clusterIPs: [ip],
          ports: [{port: 80, targetPort: 8080, protocol: 'TCP', nodePort: 30080}],
        },
      })
      files.set('api/services.json', items(service('one', '10.96.0.21'), service('two', '10.96.0.22')))
      const slice = (name: string, address: string): object => ({
        metadata: {name, namespace: 'default', labels: {'kubernetes.io/service-name': name}},
        addressType: 'IPv4',
        ports: [{name: '', port: 8080, protocol: 'TCP'}],
        endpoints: [{addresses: [address], nodeName: 'n1', conditions: {ready: true}}],
      })
      files.set('api/endpointslices.json', items(slice('one', '10.1.1.2'), slice('two', '10.1.1.3')))
      const own = (vip: string, ip: string): string =>
        ['PREROUTING', 'OUTPUT']
          .map((hook) => `-A ${hook} -d ${vip}/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination ${ip}:8080`)
          .join('\n')
      files.set(
        'nodes/n1/iptables-save.txt',
        `*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-SEP-ONE - [0:0]\n${own('10.96.0.21', '10.1.1.2')}\n${own('10.96.0.22', '10.1.1.3')}\n-A PREROUTING -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n-A OUTPUT -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-SEP-ONE\n${rule('KUBE-SEP-ONE', '10.1.1.2:8080')}\n-A POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE\nCOMMIT\n`,
      )
    })
    expect(found.findings[0]?.code).to.equal('SVT309')
    expect(loud(found).filter((text) => text.startsWith('SVT140'))).to.deep.equal([])
  })
})

describe('a Service with more than a thousand endpoints', () => {
  const many = (lost: number): CheckResult =>
    site((files) => {
      const ips = Array.from({length: 1200}, (_, at) => `10.1.${1 + Math.floor(at / 200)}.${2 + (at % 200)}`)
      files.set(
        'api/endpointslices.json',
        items({
          metadata: {name: 'dns', namespace: 'kube-system', labels: {'kubernetes.io/service-name': 'kube-dns'}},
          addressType: 'IPv4',
          ports: [{name: '', port: 53, protocol: 'UDP'}],
          endpoints: ips.map((ip, at) => ({
            addresses: [ip],
            nodeName: 'n1',
            conditions: {ready: true},
            targetRef: {kind: 'Pod', namespace: 'kube-system', name: `e${at}`},
          })),
        }),
      )
      const pod = (name: string, podIP: string): object => ({
        metadata: {name, namespace: 'kube-system'},
        spec: {nodeName: 'n1', containers: []},
        status: {phase: 'Running', podIP},
      })
      files.set('api/pods.json', items(...ips.map((ip, at) => pod(`e${at}`, ip))))
      edit(files, 'ip-route.json', (all) => [
        ...all,
        {dst: '10.1.0.0/16', dev: 'cni0', scope: 'link', prefsrc: '10.1.1.1', flags: []},
      ])
      const dice = ips.map((ip, at) => {
        const chance =
          at === ips.length - 1
            ? ''
            : `-m statistic --mode random --probability ${(1 / (ips.length - at)).toFixed(11)} `
        return `-A KUBE-SVC-X ${chance}-p udp -j DNAT --to-destination ${ip}:53`
      })
      const hairpin = '-A POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE'
      const drops = ips.slice(0, lost).map((ip) => `-A FORWARD -d ${ip}/32 -j DROP`)
      files.set(
        'nodes/n1/iptables-save.txt',
        `*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SVC-X - [0:0]\n${['PREROUTING', 'OUTPUT'].map((hook) => `-A ${hook} -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC-X`).join('\n')}\n${hairpin}\n${dice.join('\n')}\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n${drops.join('\n')}\nCOMMIT\n`,
      )
    })
  it('is well', () => expect(loud(many(0)).filter((text) => !text.startsWith('SVT152'))).to.deep.equal([])).timeout(
    60_000,
  )
  it('one that is lost is seen', () => expect(loud(many(1))).to.include('SVT201 n1')).timeout(60_000)
  it('all that are lost are seen', () => expect(loud(many(1200))).to.include('SVT201 n1')).timeout(60_000)
})
