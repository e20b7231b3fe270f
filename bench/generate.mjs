// Writes a snapshot of one node of three, in the layout of kube-proxy 1.36 (mode iptables, a large cluster: rules without
// comments): node bench/generate.mjs N DIRECTORY. The mix is that of a real cluster of a thousand Services: three to five
// endpoints, 22 % NodePort (one in eleven with externalTrafficPolicy Local), 4 % with two ports, 4 % with session affinity.
import {createHash} from 'node:crypto'
import {mkdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'

const NODES = ['n1', 'n2', 'n3']
const POD_BASE = 0x0a000002
const POD_NETWORK = '10.0.0.0/14'
const SERVICE_BASE = 0x0a600001
const AFFINITY = 10800

const hash = (text) =>
  createHash('sha256').update(text).digest('base64url').replace(/[-_]/g, 'A').toUpperCase().slice(0, 16)
const ip = (base, number) => [24, 16, 8, 0].map((shift) => ((base + number) >>> shift) & 255).join('.')
const list = (items) => JSON.stringify({apiVersion: 'v1', kind: 'List', items})

/** The Service of a number, and how many endpoints it has. */
function shapeOf(at) {
  const kind = at % 100
  return {
    name: `svc-${at}`,
    clusterIP: ip(SERVICE_BASE, at + 1),
    nodePort: kind < 22 ? 30_000 + Math.floor(at / 100) * 22 + kind : undefined,
    local: kind < 2,
    sticky: kind >= 22 && kind < 26,
    ports: [
      {name: 'http', port: 80, targetPort: 8080, protocol: 'TCP'},
      ...(kind >= 26 && kind < 30 ? [{name: 'dns', port: 53, targetPort: 5353, protocol: 'UDP'}] : []),
    ],
    endpoints: 3 + (at % 3),
  }
}

function serviceOf({name, clusterIP, nodePort, local, sticky, ports}) {
  return {
    metadata: {name, namespace: 'bench'},
    spec: {
      type: nodePort ? 'NodePort' : 'ClusterIP',
      clusterIP,
      clusterIPs: [clusterIP],
      ipFamilies: ['IPv4'],
      selector: {app: name},
      ports: ports.map((port) => ({...port, ...(nodePort ? {nodePort} : {})})),
      internalTrafficPolicy: 'Cluster',
      ...(nodePort ? {externalTrafficPolicy: local ? 'Local' : 'Cluster'} : {}),
      ...(sticky
        ? {sessionAffinity: 'ClientIP', sessionAffinityConfig: {clientIP: {timeoutSeconds: AFFINITY}}}
        : {sessionAffinity: 'None'}),
    },
  }
}

const sliceOf = ({name, ports}, endpoints) => ({
  metadata: {name: `${name}-a`, namespace: 'bench', labels: {'kubernetes.io/service-name': name}},
  addressType: 'IPv4',
  ports: ports.map(({name: port, targetPort, protocol}) => ({name: port, port: targetPort, protocol})),
  endpoints: endpoints.map(({address, node, pod}) => ({
    addresses: [address],
    nodeName: node,
    conditions: {ready: true, serving: true, terminating: false},
    targetRef: {kind: 'Pod', namespace: 'bench', name: pod},
  })),
})

const podOf = ({name, ports}, {address, node, pod}) => ({
  metadata: {name: pod, namespace: 'bench', labels: {app: name}},
  spec: {
    nodeName: node,
    containers: [{ports: ports.map((port) => ({name: port.name, containerPort: port.targetPort, protocol: port.protocol}))}],
  },
  status: {podIP: address, podIPs: [{ip: address}], phase: 'Running', conditions: [{type: 'Ready', status: 'True'}]},
})

/** The dice of a chain over its endpoints, as kube-proxy writes them; those who were here before come first. */
function balance(chain, ends, sticky) {
  return [
    ...(sticky
      ? ends.map(
          (end) =>
            `-A ${chain} -m recent --rcheck --seconds ${AFFINITY} --reap --name ${end} --mask 255.255.255.255 --rsource -j ${end}`,
        )
      : []),
    ...ends.map((end, at) =>
      at === ends.length - 1
        ? `-A ${chain} -j ${end}`
        : `-A ${chain} -m statistic --mode random --probability ${(1 / (ends.length - at)).toFixed(11)} -j ${end}`,
    ),
  ]
}

/** What kube-proxy writes for one port of a Service: names of chains, the jumps to them, their rules. */
function chainsOf(service, port, endpoints) {
  const {clusterIP, nodePort, local, sticky} = service
  const label = `bench/${service.name}:${port.name}`
  const protocol = port.protocol.toLowerCase()
  const id = hash(label)
  const ends = endpoints.map(({address}) => `KUBE-SEP-${hash(label + address)}`)
  const internal = `KUBE-SVC-${id}`
  const external = `KUBE-EXT-${id}`
  const near = `KUBE-SVL-${id}`
  const destination = `-d ${clusterIP}/32 -p ${protocol} -m comment --comment "${label} cluster IP" -m ${protocol} --dport ${port.port}`
  const comment = (text) => `-m comment --comment "${text} for ${label} external destinations"`
  const localEnds = ends.filter((_, at) => endpoints[at].node === NODES[0])
  return {
    names: [internal, ...ends, ...(nodePort ? [external] : []), ...(local ? [near] : [])],
    services: [`-A KUBE-SERVICES ${destination} -j ${internal}`],
    nodePorts: nodePort
      ? [
          `-A KUBE-NODEPORTS -d 127.0.0.0/8 -p ${protocol} -m comment --comment "${label}" -m ${protocol} --dport ${nodePort} -m nfacct --nfacct-name  localhost_nps_accepted_pkts -j ${external}`,
          `-A KUBE-NODEPORTS -p ${protocol} -m comment --comment "${label}" -m ${protocol} --dport ${nodePort} -j ${external}`,
        ]
      : [],
    rules: [
      `-A ${internal} ! -s ${POD_NETWORK} ${destination} -j KUBE-MARK-MASQ`,
      ...balance(internal, ends, sticky),
      ...ends.flatMap((end, at) => [
        `-A ${end} -s ${endpoints[at].address}/32 -j KUBE-MARK-MASQ`,
        `-A ${end} -p ${protocol}${sticky ? ` -m recent --set --name ${end} --mask 255.255.255.255 --rsource` : ''} -m ${protocol} -j DNAT --to-destination ${endpoints[at].address}:${port.targetPort}`,
      ]),
      ...(nodePort && !local
        ? [`-A ${external} ${comment('masquerade traffic')} -j KUBE-MARK-MASQ`, `-A ${external} -j ${internal}`]
        : []),
      ...(nodePort && local
        ? [
            `-A ${external} -s ${POD_NETWORK} ${comment('pod traffic')} -j ${internal}`,
            `-A ${external} ${comment('masquerade LOCAL traffic')} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ`,
            `-A ${external} ${comment('route LOCAL traffic')} -m addrtype --src-type LOCAL -j ${internal}`,
            `-A ${external} -j ${near}`,
            ...balance(near, localEnds, sticky),
          ]
        : []),
    ],
  }
}

const saveOf = (chains) =>
  [
    '*filter',
    ':INPUT ACCEPT [0:0]',
    ':FORWARD ACCEPT [0:0]',
    ':OUTPUT ACCEPT [0:0]',
    ':KUBE-EXTERNAL-SERVICES - [0:0]',
    ':KUBE-FIREWALL - [0:0]',
    ':KUBE-FORWARD - [0:0]',
    ':KUBE-NODEPORTS - [0:0]',
    ':KUBE-PROXY-FIREWALL - [0:0]',
    ':KUBE-SERVICES - [0:0]',
    '-A INPUT -j KUBE-FIREWALL',
    '-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
    '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
    '-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
    '-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
    '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
    '-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
    '-A OUTPUT -j KUBE-FIREWALL',
    '-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
    '-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
    '-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts -j DROP',
    '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT',
    '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
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
    ...chains.flatMap(({names}) => names.map((name) => `:${name} - [0:0]`)),
    '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
    ...chains.flatMap(({nodePorts}) => nodePorts),
    '-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
    '-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0',
    '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ...chains.flatMap(({services}) => services),
    '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS',
    ...chains.flatMap(({rules}) => rules),
    'COMMIT',
    '',
  ].join('\n')

const device = (ifname, ifindex, local, prefixlen) => ({
  ifindex,
  ifname,
  flags: ['UP', 'LOWER_UP'],
  addr_info: [{family: 'inet', local, prefixlen, scope: 'global'}],
})

const nodeFiles = (save) => ({
  'nodes/n1/iptables-legacy-save.txt': save,
  'nodes/n1/proxymode.txt': 'iptables\n',
  'nodes/n1/healthz.txt': 'ok\n',
  'nodes/n1/ip-addr.json': JSON.stringify([device('eth0', 2, '192.0.2.1', 24), device('cni0', 3, '10.0.0.1', 14)]),
  'nodes/n1/ip-route.json': JSON.stringify([
    {dst: 'default', gateway: '192.0.2.254', dev: 'eth0', flags: []},
    {dst: '192.0.2.0/24', dev: 'eth0', scope: 'link', prefsrc: '192.0.2.1', flags: []},
    {dst: POD_NETWORK, dev: 'cni0', scope: 'link', prefsrc: '10.0.0.1', flags: []},
  ]),
  'nodes/n1/sysctl.txt': 'net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.route_localnet = 1\nnet.bridge.bridge-nf-call-iptables = 1\n',
})

/** The files of the snapshot: path → text. */
export function generate(count) {
  const services = [],
    slices = [],
    pods = [],
    chains = []
  for (let at = 0, number = 0; at < count; at++) {
    const service = shapeOf(at)
    const endpoints = Array.from({length: service.endpoints}, (_, half) => ({
      address: ip(POD_BASE, number++),
      node: NODES[half % NODES.length],
      pod: `${service.name}-${half}`,
    }))
    services.push(serviceOf(service))
    slices.push(sliceOf(service, endpoints))
    pods.push(...endpoints.map((endpoint) => podOf(service, endpoint)))
    chains.push(...service.ports.map((port) => chainsOf(service, port, endpoints)))
  }
  return {
    'api/services.json': list(services),
    'api/endpointslices.json': list(slices),
    'api/pods.json': list(pods),
    'api/nodes.json': list(
      NODES.map((name, at) => ({
        metadata: {name},
        spec: {},
        status: {
          addresses: [{type: 'InternalIP', address: `192.0.2.${at + 1}`}],
          conditions: [{type: 'Ready', status: 'True'}],
        },
      })),
    ),
    ...nodeFiles(saveOf(chains)),
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
