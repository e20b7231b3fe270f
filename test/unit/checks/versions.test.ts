import {expect} from 'chai'
import {check} from '../../../src/checks/check.js'
import {proxyFacts} from '../../../src/checks/proxy.js'
import {buildWorld} from '../../../src/engine.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {oneNode, type NodeDump} from '../../helpers/node.js'

interface Given extends NodeDump {
  readonly version?: string
  readonly mode?: string
  /** The Service asked for; all when undefined. */
  readonly only?: string
}
interface Service {
  readonly name: string
  readonly ip: string
  readonly spec?: object
  readonly endpoints?: readonly string[]
}

/** Findings that are no info, as `CODE services`. */
function loud({version = 'v1.30.0', mode = 'iptables', only, ...dump}: Given, services: readonly Service[]): string[] {
  const files = oneNode({
    ...dump,
    files: {'proxymode.txt': `${mode}\n`, 'kube-proxy-version.txt': `Kubernetes ${version}\n`, ...dump.files},
  })
  const ports = [{name: 'http', port: 80, targetPort: 8080, protocol: 'TCP'}]
  files.set(
    'api/services.json',
    JSON.stringify({
      items: services.map(({name, ip, spec}) => ({
        metadata: {name, namespace: 'd'},
        spec: {type: 'ClusterIP', clusterIP: ip, clusterIPs: [ip], ports, ...spec},
      })),
    }),
  )
  files.set(
    'api/endpointslices.json',
    JSON.stringify({
      items: services.map(({name, endpoints = []}) => ({
        metadata: {name: `${name}-x`, namespace: 'd', labels: {'kubernetes.io/service-name': name}},
        addressType: 'IPv4',
        ports: [{name: 'http', port: 8080, protocol: 'TCP'}],
        endpoints: endpoints.map((address) => ({addresses: [address], nodeName: 'n1', conditions: {ready: true}})),
      })),
    }),
  )
  const snapshot = snapshotFromFiles(files)
  const asked = snapshot.cluster.services.filter(({id}) => only === undefined || id === `d/${only}`)
  return check(snapshot, buildWorld(snapshot), {services: asked})
    .findings.filter(({severity}) => severity !== 'info')
    .map(({code, services: ids}) => `${code} ${ids.join()}`)
    .sort()
}

const nat = (rules: string): string =>
  `*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j MASQUERADE\n${rules}COMMIT\n`
const filter = (rules = ''): string =>
  `*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n${rules}COMMIT\n`
const leads = (ip: string, port = 80): string =>
  `-A KUBE-SERVICES -d ${ip}/32 -p tcp -m tcp --dport ${port} -j DNAT --to-destination 10.1.1.3:8080\n`
const A: Service = {name: 'a', ip: '10.96.0.10', endpoints: ['10.1.1.3']}

describe('check and the versions of kube-proxy', () => {
  const NODE_PORT = {
    type: 'NodePort',
    ports: [{name: 'http', port: 80, targetPort: 8080, protocol: 'TCP', nodePort: 30080}],
  }
  const rules = (more = ''): string =>
    nat(
      `${leads(A.ip)}-A KUBE-SERVICES -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j DNAT --to-destination 10.1.1.3:8080\n`,
    ) + filter(more)

  it('1.23 with internalTrafficPolicy: Local: what is lost from outside is lost', () => {
    for (const externalTrafficPolicy of ['Local', 'Cluster']) {
      const service = {...A, spec: {...NODE_PORT, internalTrafficPolicy: 'Local', externalTrafficPolicy}}
      for (const version of ['v1.23.9', 'v1.24.0']) {
        const dropped = loud({version, iptables: rules('-A FORWARD -i eth0 -d 10.1.1.3/32 -j DROP\n')}, [service])
        expect(dropped, `${version} ${externalTrafficPolicy}`).to.include('SVT201 d/a')
        expect(loud({version, iptables: nat(leads(A.ip)) + filter()}, [service])).to.include('SVT131 d/a')
      }
    }
  })

  it('an external IP that 1.20 leaves to the network is hijacked all the same where a rule leads it to a stranger', () => {
    const service = {...A, spec: {externalIPs: ['192.0.2.200']}}
    const hijack =
      '-A KUBE-SERVICES -s 10.1.1.0/24 -d 192.0.2.200/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.1.2:8080\n'
    const external =
      '-A KUBE-SERVICES -d 192.0.2.200/32 -p tcp -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -m tcp --dport 80 -j DNAT --to-destination 10.1.1.3:8080\n'
    const of = (first: string): string[] =>
      loud({version: 'v1.20.2', iptables: nat(first + external + leads(A.ip)) + filter()}, [service])
    expect(of('')).to.deep.equal([])
    expect(of(hijack)).to.deep.equal(['SVT203 d/a'])
  })

  it('a Service that is not programmed and one that is not refused are two causes', () => {
    const services = [A, {name: 'b', ip: '10.96.0.11', endpoints: ['10.1.1.3']}, {name: 'c', ip: '10.96.0.12'}]
    expect(loud({iptables: nat(leads(A.ip)) + filter()}, services)).to.include.members(['SVT130 d/b', 'SVT153 d/c'])
  })

  it('a virtual server that keeps clients is of the Service that has its address, whatever NodePort has its number', () => {
    const port = {name: 'http', targetPort: 8080, protocol: 'TCP'}
    const affine = {sessionAffinity: 'ClientIP', sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}}
    const services: Service[] = [
      {name: 'a', ip: '10.96.0.20', endpoints: ['10.1.1.3'], spec: {...affine, ports: [{...port, port: 30080}]}},
      {
        name: 'b',
        ip: '10.96.0.21',
        endpoints: ['10.1.1.3'],
        spec: {type: 'NodePort', ports: [{...port, port: 80, nodePort: 30080}]},
      },
    ]
    const server = (address: string): string =>
      `-A -t ${address} -s rr -p 10800\n-a -t ${address} -r 10.1.1.3:8080 -m -w 1\n`
    const kept = (address: string, only?: string): string[] =>
      loud({mode: 'ipvs', ipvs: server(address), ...(only ? {only} : {})}, services).filter((text) =>
        text.startsWith('SVT144'),
      )
    expect(kept('10.96.0.20:30080')).to.not.include('SVT144 d/b')
    expect(kept('10.96.0.20:30080', 'b')).to.deep.equal([])
    expect(kept('192.0.2.11:30080')).to.include('SVT144 d/b')
  })

  it("schedulers: kube-proxy's own virtual servers are compared with each other, where more than half agree", () => {
    const server = (address: string, scheduler: string): string =>
      `-A -t ${address}:80 -s ${scheduler}\n-a -t ${address}:80 -r 10.1.1.3:8080 -m -w 1\n`
    const others = '-A -f 1 -s wlc\n-A -t 192.0.2.11:443 -s wlc\n-A -t 192.0.2.11:444 -s wlc\n'
    const addresses = (ips: string[]): Record<string, string> => ({
      'ip-addr.json': JSON.stringify([
        {ifname: 'eth0', flags: ['UP'], addr_info: [{local: '192.0.2.11', prefixlen: 24, scope: 'global'}]},
        {ifname: 'kube-ipvs0', flags: ['UP'], addr_info: ips.map((local) => ({local, prefixlen: 32, scope: 'global'}))},
      ]),
    })
    const schedulers = (...kinds: string[]): string[] => {
      const services = kinds.map((_, at) => ({name: `s${at}`, ip: `10.96.0.${10 + at}`, endpoints: ['10.1.1.3']}))
      const ipvs = others + services.map(({ip}, at) => server(ip, kinds[at]!)).join('')
      return loud({mode: 'ipvs', ipvs, files: addresses(services.map(({ip}) => ip))}, services).filter((text) =>
        text.startsWith('SVT145'),
      )
    }
    expect(schedulers('rr')).to.deep.equal([])
    expect(schedulers('rr', 'wrr')).to.deep.equal([])
    expect(schedulers('rr', 'wrr', 'rr')).to.deep.equal(['SVT145 d/s1'])
  })

  it('a kube-proxy that says no version has that of the others beside the same kubelet, and of no one else', () => {
    const kubelets: Record<string, string> = {n1: 'v1.36.2', n2: 'v1.36.2', n3: 'v1.22.1', n4: 'v1.27.3', n5: 'v1.27.3'}
    const told: Record<string, string> = {n2: 'v1.20.2', n4: 'v1.27.3', n5: 'v1.26.0'}
    const items = Object.entries(kubelets).map(([name, kubeletVersion]) => ({
      metadata: {name},
      status: {addresses: [], nodeInfo: {kubeletVersion}},
    }))
    const {cluster, nodes} = snapshotFromFiles(
      new Map([
        ['api/nodes.json', JSON.stringify({items})],
        ...Object.keys(kubelets).map((node) => [`nodes/${node}/ss.txt`, ''] as const),
        ...Object.entries(told).map(([node, version]) => [`nodes/${node}/kube-proxy-version.txt`, version] as const),
      ]),
    )
    const minors = [...nodes.values()].map((state) => `${state.name} ${proxyFacts(cluster, state).minor}`)
    expect(minors.sort()).to.deep.equal(['n1 20', 'n2 20', 'n3 22', 'n4 27', 'n5 26'])
  })
})
