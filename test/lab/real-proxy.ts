/** A real kube-proxy on each node of the lab, in place of the rules that a recorded one left (`--kube-proxy`). */
import {chmodSync, copyFileSync} from 'node:fs'
import {join} from 'node:path'
import type {ClusterState} from '../../src/model/kube.js'
import {HOME, type Machine} from './machine.js'
import type {Plan} from './plan.js'
import type {Backend} from './restore.js'

export interface RealProxy {
  /** The binary and further arguments. */
  readonly command: readonly string[]
  /** `--proxy-mode`. */
  readonly mode: string
  readonly backend: Backend
}

const TOOLS = ['iptables', 'ip6tables'].flatMap((tool) => [tool, `${tool}-save`, `${tool}-restore`])
/** Programming a thousand Services takes a while in user-mode Linux. */
const SYNC_LIMIT = 60

/**
 * What kubelets up to 1.27 write: the chain that marks for dropping, which kube-proxies of those years jump to
 * (pkg/kubelet/kubelet_network_linux.go, syncNetworkUtil).
 */
const KUBELET_RULES = `*nat
:KUBE-MARK-DROP - [0:0]
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP
COMMIT`

/** Dumps without what kube-proxy owns: its chains and rules, sets and table. Lines keep their numbers. */
export function withoutProxy(text: string, file: string): string {
  const own = file.startsWith('ipset') || file.startsWith('ipvsadm') ? /./ : /\bKUBE-/
  return text
    .split('\n')
    .map((line) => (own.test(line) ? '' : line))
    .join('\n')
}

export const ownsTable = (family: string, name: string): boolean =>
  (family === 'ip' || family === 'ip6') && name === 'kube-proxy'

/** Starts one on each node and waits until it has written its rules. */
export async function startProxies(
  machine: Machine,
  {plan, cluster, proxy}: {plan: Plan; cluster: ClusterState; proxy: RealProxy},
): Promise<void> {
  // user-mode Linux sees little else of this machine than the lab's folder
  const binary = join(HOME, 'kube-proxy')
  const [path, ...args] = proxy.command
  copyFileSync(path!, binary)
  chmodSync(binary, 0o755)
  const tools = `${HOME}/xtables`
  const cidrs = cluster.kubeProxy?.clusterCIDRs ?? []
  const links = TOOLS.map((tool) => `ln -sf /usr/sbin/xtables-${proxy.backend}-multi ${tools}/${tool}`)
  await machine.must(`mkdir -p ${tools}\n${links.join('\n')}`)
  await Promise.all(
    plan.nodes.map(async ({name}) => {
      const words = [
        binary,
        ...args,
        `--kubeconfig=${HOME}/kubeconfig`,
        `--proxy-mode=${proxy.mode}`,
        `--hostname-override=${name}`,
        '--conntrack-max-per-core=0',
        ...(cidrs.length > 0 ? [`--cluster-cidr=${cidrs.join(',')}`] : []),
      ]
      const script = `export PATH=${tools}:$PATH
iptables-restore --noflush <<'EOF'\n${KUBELET_RULES}\nEOF
ip addr flush dev kube-ipvs0 2>/dev/null
setsid ${words.map(quoted).join(' ')} </dev/null >${HOME}/kube-proxy-${name}.log 2>&1 &
for i in $(seq ${SYNC_LIMIT}); do iptables-save -t nat | grep -q 'KUBE-\\(SERVICES\\|PORTALS-HOST\\)' && sleep 2 && exit 0; nft list table ip kube-proxy 2>/dev/null | grep -q service-ips && sleep 2 && exit 0; sleep 1; done
tail -n 3 ${HOME}/kube-proxy-${name}.log >&2; exit 1`
      const {code, stderr} = await machine.inside(name, script)
      if (code !== 0) throw new Error(`kube-proxy on ${name} wrote no rules: ${stderr.trim()}`)
    }),
  )
}

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`
