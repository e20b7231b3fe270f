/** What `lab break` can do to a node: each of them changes what packets meet. `lab heal` undoes all. */
import type {Service} from '../../src/model/kube.js'
import type {Snapshot} from '../../src/snapshot/snapshot.js'
import {formatAddress, parseAddress} from '../../src/util/ip.js'
import type {Plan} from './plan.js'
import {LabError} from './plan-site.js'

export type ProxyMode = 'iptables' | 'nftables' | 'ipvs'

/** A running node, to read and to change. */
export interface Node {
  readonly name: string
  readonly mode: ProxyMode
  /** `iptables-legacy` or `iptables-nft`, whichever holds kube-proxy's rules. */
  readonly iptables: string
  readonly snapshot: Snapshot
  readonly plan: Plan
  /** Runs a shell script on the node; a failure is an exception. */
  readonly sh: (script: string, input?: string) => Promise<string>
}

export interface Fault {
  readonly what: string
  readonly modes: readonly ProxyMode[]
  /** Returns what it did, in words. */
  readonly inflict: (node: Node) => Promise<string>
}

const ALL: readonly ProxyMode[] = ['iptables', 'nftables', 'ipvs']
const TABLE_OF_PROXY = 'ip kube-proxy'

/** A TCP Service with a NodePort and ready endpoints, one of them on another node: the first by name. */
function victim({snapshot: {cluster}, name}: Node): {
  service: Service
  nodePort: number
  port: number
  clusterIP: string
  endpoint: string
} {
  const found = cluster.services
    .toSorted((one, other) => (one.id < other.id ? -1 : 1))
    .flatMap((service) => {
      const port = service.ports.find(({protocol, nodePort}) => protocol === 'TCP' && nodePort !== undefined)
      const ready = cluster.slices
        .filter((slice) => slice.service === service.id && slice.family !== 6)
        .flatMap(({endpoints, ports}) =>
          endpoints
            .filter((one) => one.ready && one.zoneHints.length === 0 && one.node !== undefined && one.node !== name)
            .map(({address}) => `${address}:${ports.find((own) => own.name === port?.name)?.port}`),
        )
      const clusterIP = service.clusterIPs.find((address) => typeof parseAddress(address) === 'number')
      const plain =
        service.externalTrafficPolicy === 'Cluster' &&
        service.internalTrafficPolicy === 'Cluster' &&
        service.affinityTimeout === undefined &&
        service.trafficDistribution === undefined
      return port?.nodePort !== undefined && clusterIP !== undefined && ready[0] !== undefined && plain
        ? [{service, nodePort: port.nodePort, port: port.port, clusterIP, endpoint: ready[0]}]
        : []
    })[0]
  if (!found) throw new LabError('no Service of the snapshot has a NodePort and a ready endpoint on another node')
  return found
}

/** Reads a dump, changes it, and puts it back. */
async function edit(
  node: Node,
  {read, write, change}: {read: string; write: string; change: (line: string) => string | undefined},
): Promise<void> {
  const before = (await node.sh(read)).split('\n')
  const after = before.flatMap((line) => change(line) ?? [])
  if (after.join('\n') === before.join('\n'))
    throw new LabError(`node ${node.name} has nothing that this fault could change`)
  await node.sh(write, `${after.join('\n')}\n`)
}

const without =
  (pattern: RegExp) =>
  (line: string): string | undefined =>
    pattern.test(line) ? undefined : line

const editIptables = (node: Node, table: string, change: (line: string) => string | undefined): Promise<void> =>
  edit(node, {read: `${node.iptables}-save -t ${table}`, write: `${node.iptables}-restore -T ${table}`, change})

const editNft = (node: Node, change: (line: string) => string | undefined): Promise<void> =>
  edit(node, {
    read: `echo 'flush table ${TABLE_OF_PROXY}'; nft list table ${TABLE_OF_PROXY} | grep -v '^#'`,
    write: `cat >/run/lab/edit.nft; nft delete table ${TABLE_OF_PROXY}; grep -v '^flush' /run/lab/edit.nft | nft -f -`,
    change,
  })

const editIpvs = (node: Node, change: (line: string) => string | undefined): Promise<void> =>
  edit(node, {
    read: 'ipvsadm -Sn',
    write: 'cat >/run/lab/edit.ipvs; ipvsadm -C; ipvsadm -R </run/lab/edit.ipvs',
    change,
  })

const escaped = (text: string): string => text.replaceAll('.', '\\.')

export const FAULTS: Readonly<Record<string, Fault>> = {
  'rules-flushed': {
    what: "kube-proxy's Service rules are gone (iptables -t nat -F, nft delete table, ipvsadm -C)",
    modes: ALL,
    inflict: async ({mode, iptables, sh}) => {
      await sh(
        {
          iptables: `${iptables} -t nat -F; ${iptables} -t nat -X`,
          nftables: `nft delete table ${TABLE_OF_PROXY}`,
          ipvs: 'ipvsadm -C',
        }[mode],
      )
      return 'all Service rules removed'
    },
  },
  'node-port-lost': {
    what: 'the NodePort of one Service is not programmed',
    modes: ALL,
    inflict: async (node) => {
      const {service, nodePort} = victim(node)
      if (node.mode === 'iptables')
        await editIptables(node, 'nat', without(new RegExp(`^-A KUBE-NODEPORTS .*--dport ${nodePort} `)))
      else if (node.mode === 'nftables')
        await node.sh(`nft delete element ${TABLE_OF_PROXY} service-nodeports '{ tcp . ${nodePort} }'`)
      else await editIpvs(node, without(new RegExp(`^-[Aa] -t [^ ]+:${nodePort} `)))
      return `NodePort ${nodePort} of ${service.id} removed`
    },
  },
  'cluster-ip-lost': {
    what: 'the cluster IP of one Service is not programmed',
    modes: ALL,
    inflict: async (node) => {
      const {service, clusterIP, port} = victim(node)
      const at = `${escaped(clusterIP)}`
      if (node.mode === 'iptables')
        await editIptables(node, 'nat', without(new RegExp(`^-A KUBE-SERVICES -d ${at}/32 .*--dport ${port} `)))
      else if (node.mode === 'nftables')
        await node.sh(`nft delete element ${TABLE_OF_PROXY} service-ips '{ ${clusterIP} . tcp . ${port} }'`)
      else await editIpvs(node, without(new RegExp(`^-[Aa] -t ${at}:${port} `)))
      return `${clusterIP}:${port} of ${service.id} removed`
    },
  },
  'endpoint-stale': {
    what: 'one endpoint is still an address that nobody has any more',
    modes: ALL,
    inflict: async (node) => {
      const {service, endpoint} = victim(node)
      const [address, port] = endpoint.split(':')
      const gone = unused(node, address!)
      const stale = `${gone}:${port}`
      const change = (line: string): string =>
        line
          .replace(new RegExp(`(--to-destination|dnat to) ${escaped(endpoint)}$`), `$1 ${stale}`)
          .replace(` -r ${endpoint} `, ` -r ${stale} `)
          .replace(` : ${address} . ${port}`, ` : ${gone} . ${port}`)
      const by = {
        iptables: () => editIptables(node, 'nat', change),
        nftables: () => editNft(node, change),
        ipvs: () => editIpvs(node, change),
      }
      await by[node.mode]()
      return `endpoint ${endpoint} of ${service.id} is ${gone}:${port} now, which nobody has`
    },
  },
  'mark-dropped': {
    what: 'KUBE-MARK-MASQ marks nothing, so that nothing is masqueraded',
    modes: ['iptables', 'ipvs'],
    inflict: async ({iptables, sh}) => {
      await sh(`${iptables} -t nat -F KUBE-MARK-MASQ`)
      return 'chain KUBE-MARK-MASQ emptied'
    },
  },
  'masquerade-lost': {
    what: 'marked packets are not masqueraded',
    modes: ALL,
    inflict: async ({mode, iptables, sh}) => {
      await sh(
        mode === 'nftables'
          ? `nft flush chain ${TABLE_OF_PROXY} masquerading`
          : `${iptables} -t nat -F KUBE-POSTROUTING`,
      )
      return 'the chain that masquerades is empty'
    },
  },
  'forward-dropped': {
    what: 'the policy of FORWARD is DROP, and nobody accepts Service traffic before it',
    modes: ALL,
    inflict: async ({mode, iptables, sh}) => {
      await sh(
        mode === 'nftables'
          ? 'nft "add table inet lab; add chain inet lab forward { type filter hook forward priority 10; policy drop; }"'
          : `${iptables} -F FORWARD; ${iptables} -P FORWARD DROP`,
      )
      return 'FORWARD drops'
    },
  },
  'forwarding-off': {
    what: 'net.ipv4.ip_forward is 0',
    modes: ALL,
    inflict: async ({sh}) => {
      await sh('sysctl -qw net.ipv4.ip_forward=0')
      return 'net.ipv4.ip_forward = 0'
    },
  },
  'route-lost': {
    what: "the route to another node's pods is gone",
    modes: ALL,
    inflict: async (node) => {
      const other = node.snapshot.cluster.nodes.find(({name, podCIDRs}) => name !== node.name && podCIDRs.length > 0)
      const cidr = other?.podCIDRs.find((one) => !one.includes(':'))
      if (cidr === undefined) throw new LabError('no other node has a podCIDR')
      await node.sh(`ip route del ${cidr}`)
      return `route to ${cidr} (pods of ${other!.name}) deleted`
    },
  },
  'foreign-drop': {
    what: "somebody else's rule drops a NodePort before kube-proxy sees it",
    modes: ALL,
    inflict: async (node) => {
      const {service, nodePort} = victim(node)
      await node.sh(
        node.mode === 'nftables'
          ? `nft "add table ip lab; add chain ip lab pre { type filter hook prerouting priority raw; }; add rule ip lab pre tcp dport ${nodePort} drop"`
          : `${node.iptables} -t raw -I PREROUTING -p tcp --dport ${nodePort} -j DROP`,
      )
      return `a rule in raw/PREROUTING drops NodePort ${nodePort} of ${service.id}`
    },
  },
  'port-taken': {
    what: "somebody else's REDIRECT takes a cluster IP's packets away",
    modes: ['iptables'],
    inflict: async (node) => {
      const {service, clusterIP, port} = victim(node)
      await node.sh(
        `${node.iptables} -t nat -I PREROUTING -d ${clusterIP}/32 -p tcp --dport ${port} -j REDIRECT --to-ports 9`,
      )
      return `nat/PREROUTING redirects ${clusterIP}:${port} of ${service.id} to port 9`
    },
  },
  'address-lost': {
    what: 'a cluster IP is not on kube-ipvs0',
    modes: ['ipvs'],
    inflict: async (node) => {
      const {service, clusterIP} = victim(node)
      await node.sh(`ip addr del ${clusterIP}/32 dev kube-ipvs0`)
      return `${clusterIP} of ${service.id} taken from kube-ipvs0`
    },
  },
  'weights-zero': {
    what: 'all real servers of one Service have weight 0',
    modes: ['ipvs'],
    inflict: async (node) => {
      const {service, clusterIP, port} = victim(node)
      await editIpvs(node, (line) =>
        line.startsWith(`-a -t ${clusterIP}:${port} `) ? line.replace(/-w \d+/, '-w 0') : line,
      )
      return `real servers of ${clusterIP}:${port} (${service.id}) have weight 0`
    },
  },
}

/** An address of the same network that no pod has. */
function unused({snapshot: {cluster}}: Node, near: string): string {
  const taken = new Set([
    ...(cluster.pods ?? []).flatMap(({ips}) => ips),
    ...cluster.slices.flatMap(({endpoints}) => endpoints.map(({address}) => address)),
  ])
  const base = (parseAddress(near) as number) & ~0xff
  for (let last = 250; last > 2; last--) {
    const text = formatAddress((base >>> 0) + last)
    if (!taken.has(text)) return text
  }
  throw new LabError(`every address beside ${near} is taken`)
}
