/** What kube-proxy's chains of iptables are for: for a person's eyes only, the walk knows none of it. nftables' own names say it. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^KUBE-SERVICES$/, 'all Service addresses'],
  [/^KUBE-NODEPORTS?$/, 'all NodePorts'],
  [/^KUBE-NODE-PORT$/, 'NodePorts in ipvs mode'],
  [/^KUBE-SVC-/, 'one Service port: picks an endpoint'],
  [/^KUBE-SVL-/, 'one Service port: endpoints of this node only'],
  [/^KUBE-SEP-/, 'one endpoint'],
  [/^KUBE-EXT-/, 'external traffic of one Service port'],
  [/^KUBE-XLB-/, 'external traffic of one Service port, policy Local'],
  [/^KUBE-FW-/, 'source ranges of one load balancer'],
  [/^KUBE-MARK-MASQ$/, 'marks for masquerade'],
  [/^KUBE-MARK-DROP$/, 'marks for dropping'],
  [/^KUBE-POSTROUTING$/, 'masquerades what is marked'],
  [/^KUBE-FORWARD$/, 'lets Service traffic through'],
  [/^KUBE-FIREWALL$/, 'drops marked and martian packets'],
  [/^KUBE-PROXY-FIREWALL$/, 'source ranges'],
  [/^KUBE-EXTERNAL-SERVICES$/, 'external addresses without endpoints'],
  [/^KUBE-LOAD-BALANCER$/, 'load-balancer addresses in ipvs mode'],
  [/^KUBE-IPVS-/, 'filter of ipvs mode'],
  [/^KUBE-PORTALS-/, 'Services in userspace mode'],
  [/^cali-/, 'Calico'],
  [/^CNI-/, 'CNI plugin'],
  [/^FLANNEL-/, 'Flannel'],
  [/^DOCKER/, 'Docker'],
]

export function explainChain(name: string): string | undefined {
  return NAMES.find(([pattern]) => pattern.test(name))?.[1]
}
