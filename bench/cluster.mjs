// One generated node (generate.mjs) made into a cluster of many: each with its own address and pods, and the same Services.

const NETWORK = '192.0.2'
const address = (at) => `${NETWORK}.${at + 1}`
const cidr = (at) => `10.244.${at}.0/24`
/** The last address of a node's network; generated pods begin at the first. */
const gateway = (at) => `10.244.${at}.255`
const link = (ifindex, ifname, local, prefixlen) => ({
  ifindex,
  ifname,
  flags: ['UP', 'LOWER_UP'],
  addr_info: [{family: 'inet', local, prefixlen, scope: 'global'}],
})

/** What node `at` of `count` says: the generated files, with addresses and routes of its own. */
export function nodeFiles(files, at, count) {
  const routes = [
    {dst: 'default', gateway: `${NETWORK}.254`, dev: 'eth0', flags: []},
    {dst: `${NETWORK}.0/24`, dev: 'eth0', scope: 'link', prefsrc: address(at), flags: []},
    {dst: cidr(at), dev: 'cni0', scope: 'link', prefsrc: gateway(at), flags: []},
    ...Array.from({length: count}, (_, other) => ({
      dst: cidr(other),
      gateway: address(other),
      dev: 'eth0',
      flags: [],
    })).filter((_, other) => other !== at),
  ]
  return new Map([
    ...files,
    ['ip-addr.json', JSON.stringify([link(2, 'eth0', address(at), 24), link(3, 'cni0', gateway(at), 24)])],
    ['ip-route.json', JSON.stringify(routes)],
  ])
}

/** The API of the cluster: nodes, and pods where their addresses are. */
export function apiFiles(files, count) {
  const nodes = Array.from({length: count}, (_, at) => ({
    metadata: {name: `n${at + 1}`},
    spec: {podCIDR: cidr(at), podCIDRs: [cidr(at)]},
    status: {addresses: [{type: 'InternalIP', address: address(at)}], conditions: [{type: 'Ready', status: 'True'}]},
  }))
  const nodeOf = (ip) => `n${(Number(ip.split('.')[2]) % count) + 1}`
  const pods = JSON.parse(files.get('pods.json'))
  for (const {spec, status} of pods.items) spec.nodeName = nodeOf(status.podIP)
  const slices = JSON.parse(files.get('endpointslices.json'))
  for (const {endpoints} of slices.items) for (const one of endpoints ?? []) one.nodeName = nodeOf(one.addresses[0])
  return new Map([
    ...files,
    ['nodes.json', JSON.stringify({items: nodes})],
    ['pods.json', JSON.stringify(pods)],
    ['endpointslices.json', JSON.stringify(slices)],
  ])
}
