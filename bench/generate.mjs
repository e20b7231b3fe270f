// Writes a snapshot of one node with N ClusterIP Services of two endpoints each, in the layout of kube-proxy 1.36 (mode
// iptables): node bench/generate.mjs N DIRECTORY
import {createHash} from 'node:crypto'
import {mkdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'

const hash = (text) =>
  createHash('sha256').update(text).digest('base64url').replace(/[-_]/g, 'A').toUpperCase().slice(0, 16)
const ip = (base, number) => [24, 16, 8, 0].map((shift) => ((base + number) >>> shift) & 255).join('.')
const list = (items) => JSON.stringify({apiVersion: 'v1', kind: 'List', items})

/** The files of the snapshot: path → text. */
export function generate(count) {
  const services = [],
    slices = [],
    pods = [],
    chains = [],
    jumps = [],
    rules = []
  const POD_BASE = 0x0af40002,
    SERVICE_BASE = 0x0a600001
  for (let at = 0; at < count; at++) {
    const name = `svc-${at}`
    const clusterIP = ip(SERVICE_BASE, at + 1)
    const label = `bench/${name}:http`
    const endpoints = [0, 1].map((half) => ip(POD_BASE, at * 2 + half))
    services.push({
      metadata: {name, namespace: 'bench'},
      spec: {
        type: 'ClusterIP',
        clusterIP,
        clusterIPs: [clusterIP],
        ipFamilies: ['IPv4'],
        selector: {app: name},
        ports: [{name: 'http', port: 80, targetPort: 8080, protocol: 'TCP'}],
      },
    })
    slices.push({
      metadata: {name: `${name}-a`, namespace: 'bench', labels: {'kubernetes.io/service-name': name}},
      addressType: 'IPv4',
      ports: [{name: 'http', port: 8080, protocol: 'TCP'}],
      endpoints: endpoints.map((address, half) => ({
        addresses: [address],
        nodeName: 'n1',
        conditions: {ready: true, serving: true},
        targetRef: {kind: 'Pod', namespace: 'bench', name: `${name}-${half}`},
      })),
    })
    endpoints.forEach((podIP, half) =>
      pods.push({
        metadata: {name: `${name}-${half}`, namespace: 'bench', labels: {app: name}},
        spec: {nodeName: 'n1', containers: [{ports: [{name: 'http', containerPort: 8080, protocol: 'TCP'}]}]},
        status: {podIP, podIPs: [{ip: podIP}], phase: 'Running', conditions: [{type: 'Ready', status: 'True'}]},
      }),
    )
    const chain = `KUBE-SVC-${hash(label)}`
    const ends = endpoints.map((address) => `KUBE-SEP-${hash(label + address)}`)
    chains.push(`:${chain} - [0:0]`, ...ends.map((end) => `:${end} - [0:0]`))
    jumps.push(
      `-A KUBE-SERVICES -d ${clusterIP}/32 -p tcp -m comment --comment "${label} cluster IP" -m tcp --dport 80 -j ${chain}`,
    )
    rules.push(
      `-A ${chain} ! -s 10.244.0.0/14 -d ${clusterIP}/32 -p tcp -m comment --comment "${label} cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ`,
      `-A ${chain} -m comment --comment "${label} -> ${endpoints[0]}:8080" -m statistic --mode random --probability 0.50000000000 -j ${ends[0]}`,
      `-A ${chain} -m comment --comment "${label} -> ${endpoints[1]}:8080" -j ${ends[1]}`,
      ...ends.flatMap((end, half) => [
        `-A ${end} -s ${endpoints[half]}/32 -m comment --comment "${label}" -j KUBE-MARK-MASQ`,
        `-A ${end} -p tcp -m comment --comment "${label}" -m tcp -j DNAT --to-destination ${endpoints[half]}:8080`,
      ]),
    )
  }
  const save = [
    '*filter',
    ':INPUT ACCEPT [0:0]',
    ':FORWARD ACCEPT [0:0]',
    ':OUTPUT ACCEPT [0:0]',
    ':KUBE-FORWARD - [0:0]',
    '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
    '-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP',
    '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT',
    '-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    'COMMIT',
    '*nat',
    ':PREROUTING ACCEPT [0:0]',
    ':INPUT ACCEPT [0:0]',
    ':OUTPUT ACCEPT [0:0]',
    ':POSTROUTING ACCEPT [0:0]',
    ':KUBE-MARK-MASQ - [0:0]',
    ':KUBE-NODEPORTS - [0:0]',
    ':KUBE-POSTROUTING - [0:0]',
    ':KUBE-SERVICES - [0:0]',
    ...chains,
    '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
    '-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
    '-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0',
    '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ...jumps,
    '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS',
    ...rules,
    'COMMIT',
    '',
  ].join('\n')
  const device = (ifname, ifindex, local, prefixlen) => ({
    ifindex,
    ifname,
    flags: ['UP', 'LOWER_UP'],
    addr_info: [{family: 'inet', local, prefixlen, scope: 'global'}],
  })
  return {
    'api/services.json': list(services),
    'api/endpointslices.json': list(slices),
    'api/pods.json': list(pods),
    'api/nodes.json': list([
      {
        metadata: {name: 'n1'},
        spec: {podCIDR: '10.244.0.0/14', podCIDRs: ['10.244.0.0/14']},
        status: {
          addresses: [{type: 'InternalIP', address: '192.0.2.1'}],
          conditions: [{type: 'Ready', status: 'True'}],
        },
      },
    ]),
    'nodes/n1/iptables-legacy-save.txt': save,
    'nodes/n1/proxymode.txt': 'iptables\n',
    'nodes/n1/healthz.txt': 'ok\n',
    'nodes/n1/ip-addr.json': JSON.stringify([device('eth0', 2, '192.0.2.1', 24), device('cni0', 3, '10.244.0.1', 14)]),
    'nodes/n1/ip-route.json': JSON.stringify([
      {dst: 'default', gateway: '192.0.2.254', dev: 'eth0', flags: []},
      {dst: '192.0.2.0/24', dev: 'eth0', scope: 'link', prefsrc: '192.0.2.1', flags: []},
      {dst: '10.244.0.0/14', dev: 'cni0', scope: 'link', prefsrc: '10.244.0.1', flags: []},
    ]),
    'nodes/n1/sysctl.txt': 'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n',
  }
}

export function write(count, directory) {
  for (const [path, text] of Object.entries(generate(count))) {
    mkdirSync(join(directory, path, '..'), {recursive: true})
    writeFileSync(join(directory, path), text)
  }
}

if (process.argv[1] === import.meta.filename) {
  const [count, directory] = process.argv.slice(2)
  if (!Number(count) || !directory) {
    console.error('usage: node bench/generate.mjs N DIRECTORY')
    process.exit(2)
  }
  write(Number(count), directory)
}
