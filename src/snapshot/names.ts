import {KINDS} from './api-lists.js'

/** The files that the tool reads, or that the collector leaves for people (docs/snapshot.md). */
const OF_NODES = new Set([
  ...['iptables', 'ip6tables'].flatMap((tool) =>
    ['', '-legacy', '-nft'].map((backend) => `${tool}${backend}-save.txt`),
  ),
  ...['addr', 'link', 'route', 'route6', 'rule', 'rule6'].flatMap((what) => [`ip-${what}.json`, `ip-${what}.txt`]),
  ...'iptables-nat-L.txt ipset-save.txt ipset-list.txt ipvsadm-Ln.txt ipvsadm-Sn.txt proc-net-ip_vs.txt nft.json nft.txt'.split(
    ' ',
  ),
  ...'ip-neigh.json bridge-fdb.json sysctl.txt ss.txt conntrack.txt conntrack6.txt resolv.txt dns.json rc.txt'.split(
    ' ',
  ),
  ...'proxymode.txt healthz.txt kube-proxy-version.txt kube-proxy.log backend.txt'.split(' '),
])
const OF_API = new Set([...Object.keys(KINDS), 'version', 'configmap-kube-proxy'])

/** Whether a file's name, by its path inside a snapshot, is none that the tool reads; whoever put it there is told. */
export function isUnknown(path: string): boolean {
  const [folder, ...rest] = path.split('/')
  const name = rest.at(-1) ?? ''
  if (name.endsWith('.stderr') || name.startsWith('.')) return false
  // other lists of the API are nobody's loss; one of these in another form is
  if (folder === 'api') return OF_API.has(name.replace(/\.\w+$/, '')) && !name.endsWith('.json')
  return folder === 'nodes' && !OF_NODES.has(name)
}
