import {expect} from 'chai'
import {check, type CheckResult} from '../../src/checks/check.js'
import type {Finding} from '../../src/checks/finding.js'
import {buildWorld} from '../../src/engine.js'
import {corpusSnapshot, faultInfo, faultsOf} from '../helpers/corpus.js'

async function findings(cluster: string, fault?: string): Promise<CheckResult> {
  const snapshot = await corpusSnapshot(cluster, fault)
  return check(snapshot, buildWorld(snapshot))
}

const key = ({code, services, node, severity, frontends}: Finding): string =>
  [code, services.join(','), node ?? '', severity, frontends.join(',')].join('|')

/** Real breakage besides the probed Services: see docs/accuracy.md. */
const MORE_BROKEN_THAN_PROBED = new Set(['k136-ipvs-v4/mark-masq-emptied'])

/** What the first finding about a fault must say. */
const FIRST: Readonly<Record<string, string>> = {
  'nat-table-flushed': 'node-not-programmed',
  'kube-proxy-table-deleted': 'node-not-programmed',
  'kube-proxy-table-dormant': 'node-not-programmed',
  'ip-forward-0': 'ip-forward-off',
  'bridge-nf-call-iptables-0': 'bridge-nf-off',
  'nodeport-rule-deleted': 'node-port-not-programmed',
  'service-nodeports-element-removed': 'node-port-not-programmed',
  'pod-route-missing': 'pod-route-missing',
  'kube-postrouting-masquerade-deleted': 'masquerade-missing',
  'masquerading-emptied': 'masquerade-missing',
  'ipvs-conntrack-0': 'masquerade-missing',
  'sep-stale-ip': 'stale-endpoint',
  'rs-stale': 'stale-endpoint',
  'admin-drop-forward-targetport': 'packet-dropped-by-rule',
  'admin-drop-raw-prerouting': 'packet-dropped-by-rule',
  'legacy-forward-drop': 'packet-dropped-by-rule',
  'forward-drop-no-accepts': 'forward-policy-drop',
  'vs-no-rs': 'no-endpoints-programmed',
  'rs-deleted': 'endpoint-missing',
  'scheduler-wrong': 'scheduler-differs',
  'persistent-timeout-lost': 'affinity-lost',
  'lb-source-range-rule-deleted': 'source-range-incomplete',
  'firewall-ips-element-removed': 'source-range-not-enforced',
  'clusterip-vs-deleted': 'cluster-ip-not-programmed',
  'service-ips-element-removed': 'cluster-ip-not-programmed',
  'route-localnet-0': 'route-localnet-off',
  'svc-first-rule-probability-lost': 'endpoint-missing',
  'admin-notrack-raw': 'connection-tracking-off',
  'admin-redirect-hijack': 'traffic-hijacked',
}

describe('faults that were really injected', () => {
  for (const cluster of ['k136-iptables-v4', 'k136-ipvs-v4', 'k136-nftables-v4']) {
    it(`${cluster}: found where traffic changed, quiet where it did not`, async () => {
      const healthy = new Set((await findings(cluster)).findings.map(key))
      for (const fault of await faultsOf(cluster)) {
        const info = await faultInfo(cluster, fault)
        const fresh = (await findings(cluster, fault)).findings.filter((finding) => !healthy.has(key(finding)))
        const about = fresh.filter(
          ({node, services, severity}) =>
            severity !== 'info' &&
            (node === undefined || (info.nodes ?? [info.node]).includes(node)) &&
            services.some((service) => info.services.includes(service)),
        )
        if (info.changesTraffic) expect(about, `${fault} is not found`).to.not.be.empty
        else if (!MORE_BROKEN_THAN_PROBED.has(`${cluster}/${fault}`))
          expect(
            fresh.filter(({severity, services}) => severity === 'error' && services.length > 0),
            `${fault} is a false alarm`,
          ).to.be.empty
        const wanted = FIRST[fault]
        if (
          wanted !== undefined &&
          info.changesTraffic &&
          !(cluster.includes('nftables') && fault.startsWith('admin-redirect'))
        )
          expect(about[0]?.name, `first finding of ${fault}`).to.equal(wanted)
      }
    }).timeout(120_000)
  }

  it('one cause is one finding', async () => {
    for (const [cluster, fault] of [
      ['k136-iptables-v4', 'nat-table-flushed'],
      ['k136-iptables-v4', 'ip-forward-0'],
      ['k136-nftables-v4', 'kube-proxy-table-deleted'],
      ['k136-nftables-v4', 'iptables-forward-policy-drop'],
    ] as const) {
      const healthy = new Set((await findings(cluster)).findings.map(key))
      const fresh = (await findings(cluster, fault)).findings.filter(
        (finding) => !healthy.has(key(finding)) && finding.severity === 'error',
      )
      expect(
        fresh.map(({name, node, message}) => `${name} ${node} ${message}`),
        `${cluster}/${fault}`,
      ).to.have.length(1)
      expect(fresh[0]!.services.length).to.be.greaterThan(1)
    }
  })

  it('every error of a healthy cluster is about what is broken there', async () => {
    for (const cluster of ['k136-iptables-v4', 'k136-ipvs-v4', 'k136-iptables-dual']) {
      const errors = (await findings(cluster)).findings.filter(({severity}) => severity === 'error')
      expect(
        errors.map(({name, service}) => `${name} ${service}`),
        cluster,
      ).to.have.members([
        'nothing-selected shop/nopods',
        'no-ready-endpoint shop/notready',
        'ingress-backend-missing default/no-such-service',
      ])
    }
  })

  it('evidence points at the deciding line', async () => {
    const {findings: found} = await findings('k136-iptables-v4', 'admin-drop-forward-targetport')
    const rule = found.find(({name}) => name === 'packet-dropped-by-rule')!
    expect(rule.evidence[0]!.text).to.contain('corp hardening')
    expect(rule.node).to.equal('node2')
  })
})

describe('faults of a kube-proxy 1.20 in the lab: the first finding on the node is the cause', () => {
  const wanted: readonly (readonly [cluster: string, fault: string, name: string])[] = [
    ['k120-iptables-v4', 'node-port-lost', 'node-port-not-programmed'],
    ['k120-iptables-v4', 'node-port-lost-held', 'node-port-not-programmed'],
    ['k120-iptables-v4', 'cluster-ip-lost', 'cluster-ip-not-programmed'],
    ['k120-iptables-v4', 'endpoint-stale', 'stale-endpoint'],
    ['k120-iptables-v4', 'masquerade-lost', 'masquerade-missing'],
    ['k120-iptables-v4', 'forward-dropped', 'forward-policy-drop'],
    ['k120-iptables-v4', 'rules-flushed', 'node-not-programmed'],
    ['k120-ipvs-v4', 'node-port-lost', 'node-port-not-programmed'],
    ['k120-ipvs-v4', 'endpoint-stale', 'stale-endpoint'],
    ['k120-ipvs-v4', 'weights-zero', 'no-endpoints-programmed'],
  ]
  for (const [cluster, fault, name] of wanted)
    it(`${cluster} ${fault}: ${name}`, async () => {
      const healthy = new Set((await findings(cluster)).findings.map(key))
      const fresh = (await findings(cluster, fault)).findings.filter((finding) => !healthy.has(key(finding)))
      const errors = fresh.filter(({severity, node}) => severity === 'error' && node === 'node3')
      expect(errors.map((finding) => finding.name)).to.deep.equal([name])
    }).timeout(60_000)

  for (const cluster of ['k120-iptables-v4', 'k120-iptables-dual', 'k120-ipvs-v4', 'k120-userspace-v4'])
    it(`${cluster}: nothing on the nodes is an error or a warning while all is well`, async () => {
      const {findings: all, incomplete} = await findings(cluster)
      const loud = all.filter(({severity, node}) => severity !== 'info' && node !== undefined)
      expect(loud.map(key)).to.deep.equal([])
      expect(incomplete).to.deep.equal([])
    }).timeout(60_000)
})
