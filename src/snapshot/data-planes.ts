import type {NodeState} from './node-state.js'

/** Network plugins and Service proxies that act on packets by other means than netfilter's rules, by what they leave on a node. */
export interface DataPlane {
  readonly name: string
  /** Its devices. */
  readonly link: RegExp
  /** How the names of its chains begin. */
  readonly chains?: string
  /** A rule of its own in other chains. */
  readonly rule?: RegExp
  /** It takes kube-proxy's place. */
  readonly isProxy: boolean
  /** What it does out of sight of every dump. */
  readonly hides?: string
}

const OPEN_VSWITCH = 'Open vSwitch flows handle packets'

export const DATA_PLANES: readonly DataPlane[] = [
  {
    name: 'Cilium',
    link: /^cilium_(host|net|vxlan|geneve)$/,
    chains: 'CILIUM_',
    isProxy: true,
    hides: 'Cilium handles packets in eBPF programs',
  },
  {
    name: 'Calico (eBPF)',
    link: /^bpf(in|out)\.cali$/,
    // felix/dataplane/linux/int_dataplane.go
    rule: /pre-approved by (cali(co)?'?s? )?BPF programs/i,
    isProxy: true,
    hides: 'Calico handles packets in eBPF programs',
  },
  {name: 'Antrea', link: /^antrea-gw0$/, chains: 'ANTREA-', isProxy: true, hides: OPEN_VSWITCH},
  {name: 'OVN-Kubernetes', link: /^ovn-k8s-mp0$/, chains: 'OVN-KUBE-', isProxy: true, hides: OPEN_VSWITCH},
  {name: 'Open vSwitch', link: /^(ovs-system|br-int)$/, isProxy: false, hides: OPEN_VSWITCH},
  {name: 'kube-router', link: /^kube-dummy-if$/, chains: 'KUBE-ROUTER-SERVICES', isProxy: true},
]

/** What shows that a data plane is there: the file, its line (0: none) and its words. */
export interface Sign {
  readonly kind: 'device' | 'chain' | 'rule'
  readonly source: string
  readonly line: number
  readonly text: string
}

/** The sign of this data plane on the node; undefined where there is none. */
export function signOf(state: NodeState, {link, chains, rule}: DataPlane): Sign | undefined {
  const device = state.links.find(({name}) => link.test(name))
  if (device) return {kind: 'device', source: state.ipPath('ip-link'), line: 0, text: `device ${device.name}`}
  for (const {file, tables} of state.iptables(4))
    for (const table of tables.values())
      for (const chain of table.chains.values()) {
        if (chains !== undefined && chain.name.startsWith(chains))
          return {kind: 'chain', source: file, line: chain.line, text: `chain ${table.name}/${chain.name}`}
        // kube-proxy's own chains are very many
        const own =
          rule === undefined || chain.name.startsWith('KUBE-')
            ? undefined
            : chain.lines.find(({text}) => rule.test(text))
        if (own) return {kind: 'rule', source: file, line: own.line, text: own.text}
      }
  return undefined
}
