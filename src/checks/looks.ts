import type {CodeName} from './codes.js'

/** How a finding looks to somebody who goes to the node (or to kubectl), by kube-proxy's mode; `any`: the same in all. */
export type Looks =
  {readonly any: string} | {readonly iptables: string; readonly ipvs: string; readonly nftables: string}

const api = (command: string): Looks => ({any: command})

/** `iptables` holds for userspace mode too, with KUBE-PORTALS-* and KUBE-NODEPORT-* for KUBE-SERVICES and KUBE-NODEPORTS. */
export const LOOKS: Readonly<Record<CodeName, Looks>> = {
  'kube-proxy-not-running': api(
    'curl -s 127.0.0.1:10256/healthz and 127.0.0.1:10249/proxyMode on the node: refused, or 503',
  ),
  'sync-fails': {
    iptables:
      'kubectl -n kube-system logs POD: "Failed to execute iptables-restore"; metric kubeproxy_sync_proxy_rules_iptables_restore_failures_total grows',
    ipvs: 'the same log, or "Failed to add entry into ip set", "Hash is full"',
    nftables: '"nftables sync failed"; metric kubeproxy_sync_proxy_rules_nftables_sync_failures_total grows',
  },
  'ip-forward-off': api('sysctl net.ipv4.ip_forward (IPv6: net.ipv6.conf.all.forwarding) prints 0'),
  'node-not-programmed': {
    iptables: 'iptables-save -t nat has no KUBE-SERVICES, or no "-A PREROUTING … -j KUBE-SERVICES"',
    ipvs: 'ipvsadm -Ln lists no virtual server, or kube-ipvs0 is missing',
    nftables: 'nft list table ip kube-proxy: no such table, or "flags dormant"',
  },
  'forward-policy-drop': {
    iptables: 'iptables-save -t filter: ":FORWARD DROP", and no rule above the end accepts the packet',
    ipvs: 'the same; FORWARD is passed after IPVS has chosen the pod',
    nftables: 'nft list chains: "hook forward … policy drop" in any table, kube-proxy’s own accept does not help there',
  },
  'packet-dropped-by-rule': {
    iptables: 'iptables-save -c: a DROP or REJECT whose counter grows',
    ipvs: 'the same in INPUT, where packets to virtual servers go, and in FORWARD',
    nftables: 'nft list ruleset: a drop or reject in another table; an accept in kube-proxy’s does not overrule it',
  },
  'traffic-hijacked': {
    iptables: 'iptables-save -t nat: a DNAT or REDIRECT above "-j KUBE-SERVICES"',
    ipvs: 'the same: what is translated in PREROUTING never reaches the virtual server',
    nftables:
      'nft list ruleset: a chain "type nat hook prerouting" of a lower or the same priority with dnat or redirect',
  },
  'connection-tracking-off': {
    iptables: 'iptables-save -t raw: NOTRACK or CT --notrack',
    ipvs: 'the same; masquerading of the virtual server’s packets is lost',
    nftables: 'nft list ruleset: notrack in a chain of priority raw',
  },
  'bridge-nf-off': api('sysctl net.bridge.bridge-nf-call-iptables prints 0, or there is no such key'),
  'rp-filter-drops': api(
    'sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.DEVICE.rp_filter: the larger is 1; nstat TcpExtIPReversePathFilter grows',
  ),
  'route-localnet-off': {
    iptables: 'sysctl net.ipv4.conf.all.route_localnet prints 0',
    ipvs: 'by design: no virtual server for 127.0.0.1',
    nftables: 'by design: node ports of 127.0.0.1 do not exist',
  },
  'pod-route-missing': api('ip route get POD-IP answers with the default route, or "unreachable"'),
  'device-down': api('ip link shows the device without UP, or with NO-CARRIER'),
  'node-address-elsewhere': api('ip addr shows an address that kubectl get nodes -o wide has for another node'),
  'neighbour-discovery-blocked': api('ip -6 neigh: FAILED or INCOMPLETE for every host of the network'),
  'tunnel-entry-missing': api('ip neigh show dev flannel.1 or bridge fdb show dev flannel.1 lacks a node'),
  'hairpin-mode-off': api('ip -d link show master BRIDGE: "hairpin off" on the pods’ ports'),
  'masquerade-missing': {
    iptables: 'no "-j KUBE-MARK-MASQ" in front of the entry, or KUBE-POSTROUTING is empty or not called',
    ipvs: 'KUBE-LOOP-BACK lacks the pod, KUBE-MARK-MASQ is empty, or net.ipv4.vs.conntrack is 0',
    nftables: 'nft list chain ip kube-proxy masquerading is empty, or no rule on the way sets the mark 0x4000',
  },
  'service-not-programmed': {
    iptables: 'iptables-save -t nat | grep CLUSTER-IP prints nothing on this node',
    ipvs: 'ipvsadm -Ln -t CLUSTER-IP:PORT: no such service',
    nftables: 'nft list map ip kube-proxy service-ips has no element with the cluster IP',
  },
  'cluster-ip-not-programmed': {
    iptables: 'KUBE-SERVICES has no "-d CLUSTER-IP … --dport PORT -j KUBE-SVC-…"',
    ipvs: 'no virtual server CLUSTER-IP:PORT, or the address is not on kube-ipvs0 (ip addr show kube-ipvs0)',
    nftables: 'service-ips has no element "CLUSTER-IP . tcp . PORT"',
  },
  'node-port-not-programmed': {
    iptables: 'KUBE-NODEPORTS has no "--dport NODE-PORT", or KUBE-SERVICES does not end with it',
    ipvs: 'ipset list KUBE-NODE-PORT-TCP lacks the port, or a virtual server NODE-IP:NODE-PORT is missing',
    nftables: 'nft list map ip kube-proxy service-nodeports lacks "tcp . NODE-PORT", or nodeport-ips lacks the address',
  },
  'external-ip-not-programmed': {
    iptables: 'KUBE-SERVICES has no "-d ADDRESS … -j KUBE-EXT-…" (before 1.24: KUBE-FW-…, KUBE-XLB-…)',
    ipvs: 'KUBE-EXTERNAL-IP or KUBE-LOAD-BALANCER lacks it, or there is no virtual server ADDRESS:PORT',
    nftables: 'service-ips has no element "ADDRESS . tcp . PORT"',
  },
  'health-check-port-closed': api(
    'curl http://NODE:HEALTHCHECKNODEPORT/healthz from outside: no answer; ss -ltnp on the node shows whether kube-proxy listens',
  ),
  'no-endpoints-programmed': {
    iptables: 'KUBE-SVC-… has no rule, or KUBE-SERVICES of filter rejects it: "has no endpoints"',
    ipvs: 'ipvsadm -Ln: the virtual server has no real server, or all have weight 0',
    nftables: 'nft list map ip kube-proxy no-endpoint-services names it',
  },
  'stale-endpoint': {
    iptables: 'a KUBE-SEP-… with a DNAT to an address that kubectl get endpointslices does not list',
    ipvs: 'ipvsadm -Ln: a real server with a weight that no slice lists',
    nftables: 'a chain endpoint-… with a dnat to an address that no slice lists',
  },
  'endpoint-missing': {
    iptables: 'KUBE-SVC-… has fewer KUBE-SEP-… than there are ready endpoints',
    ipvs: 'the virtual server has fewer real servers, or one has weight 0',
    nftables: 'the vmap of service-… has fewer elements than there are ready endpoints',
  },
  'endpoint-unreachable': api(
    'kubectl get pods -o wide has no pod with the address; ip route get ADDRESS on the node leads nowhere',
  ),
  'unequal-shares': {
    iptables: 'the probabilities of KUBE-SVC-… are not 1/n, 1/(n-1), …, or a rule is missing in between',
    ipvs: 'ipvsadm -Ln: unequal weights, or a scheduler that does not take turns',
    nftables: '"numgen random mod N" with another N than the vmap has elements',
  },
  'affinity-lost': {
    iptables: 'no "-m recent --rcheck --seconds N" in KUBE-SVC-…',
    ipvs: 'ipvsadm -Ln: no "persistent N" at the virtual server',
    nftables: 'no set affinity-…, or no "update @affinity-…" in the endpoint’s chain',
  },
  'scheduler-differs': {
    iptables: 'not in this mode',
    ipvs: 'ipvsadm -Ln: another word behind the virtual server than ipvs.scheduler of kube-proxy’s configuration',
    nftables: 'not in this mode',
  },
  'source-range-not-enforced': {
    iptables: 'KUBE-FW-… does not end in KUBE-MARK-DROP or DROP',
    ipvs: 'KUBE-LOAD-BALANCER-FW lacks the address, or its rules in KUBE-LOAD-BALANCER or KUBE-PROXY-FIREWALL are gone',
    nftables: 'nft list map ip kube-proxy firewall-ips lacks the address',
  },
  'source-range-incomplete': {
    iptables: 'KUBE-FW-… has no "-s RANGE" for one of loadBalancerSourceRanges',
    ipvs: 'KUBE-LOAD-BALANCER-SOURCE-CIDR lacks "ADDRESS,tcp:PORT,RANGE"',
    nftables: 'the chain firewall-… has no "ip saddr" for the range',
  },
  'policy-not-kept': {
    iptables: 'KUBE-EXT-… of a Local Service calls KUBE-SVC-… instead of KUBE-SVL-… (before 1.24: KUBE-XLB-…)',
    ipvs: 'the virtual server has real servers of other nodes',
    nftables: 'external-… leads to service-…/… instead of endpoints of this node',
  },
  'client-address-lost': {
    iptables:
      'KUBE-MARK-MASQ is called for it (for pods: by a rule "! -s CIDR" whose CIDR is not theirs), or another rule of POSTROUTING masquerades',
    ipvs: 'KUBE-NODE-PORT-LOCAL-TCP or KUBE-LOAD-BALANCER-LOCAL lacks it',
    nftables: 'external-… sets the mark 0x4000 for it, or another table masquerades',
  },
  'silent-port': api('a client hangs where "connection refused" is due; a DROP stands in front of the REJECT'),
  'competing-nat-chains': api(
    'nft list ruleset and iptables-save -t nat: two chains at the same hook and priority have a rule for the packet',
  ),
  'both-backends': {
    iptables: 'iptables-legacy-save and iptables-nft-save both have KUBE-SVC-… chains',
    ipvs: 'both have KUBE-SERVICES with -m set rules',
    nftables: 'iptables-legacy-save or iptables-nft-save has KUBE-SVC-… chains beside the table kube-proxy',
  },
  'mode-leftovers': {
    iptables: 'kube-ipvs0, virtual servers or a table kube-proxy are there',
    ipvs: 'KUBE-SVC-… and KUBE-SEP-… chains, or a table kube-proxy are there',
    nftables: 'KUBE-SVC-… chains, kube-ipvs0 or virtual servers are there',
  },
  'listener-on-node-port': api('ss -lntup "sport = :NODE-PORT" shows a process other than kube-proxy'),
  'external-ip-is-node-ip': {
    iptables: 'no finding: only the Service’s own port of the node is taken (KUBE-SERVICES has "-d NODE-IP")',
    ipvs: 'ip addr show kube-ipvs0 has another node’s address: packets to that node stay here',
    nftables: 'no finding, as in iptables mode (service-ips has an element with the node’s address)',
  },
  'node-port-in-local-range': api(
    'sysctl net.ipv4.ip_local_port_range covers it; net.ipv4.ip_local_reserved_ports does not',
  ),
  'stale-conntrack': api('conntrack -L -p udp --orig-dst SERVICE-IP: the second src= is no endpoint'),
  'unreadable-rules': {
    iptables: 'iptables-save prints "[unsupported revision]", or rules without their --dport',
    ipvs: 'the same in the rules around the sets',
    nftables: 'nft prints "xt match" or "# xt_…"',
  },
  'set-nearly-full': {
    iptables: 'not in this mode',
    ipvs: 'ipset list NAME -t: "Number of entries" close to maxelem; kube-proxy logs "Hash is full"',
    nftables: 'not in this mode',
  },
  'duplicate-rules': api('iptables-save | sort | uniq -d prints rules'),
  'conntrack-table-full': api(
    'dmesg: "nf_conntrack: table full, dropping packet"; sysctl net.netfilter.nf_conntrack_count',
  ),
  'mtu-mismatch': api('ip link: the pods’ devices have a larger mtu than the one to the other nodes'),
  'arp-for-service-address': {
    iptables: 'not in this mode',
    ipvs: 'arping ADDRESS from the same network is answered by several nodes; sysctl net.ipv4.conf.all.arp_ignore prints 0',
    nftables: 'not in this mode',
  },
  'nothing-selected': api('kubectl get endpointslices -l kubernetes.io/service-name=NAME: no addresses'),
  'no-ready-endpoint': {
    iptables: 'KUBE-SERVICES of filter rejects the Service: "has no endpoints"',
    ipvs: 'a virtual server without real servers refuses',
    nftables: 'no-endpoint-services refuses',
  },
  'no-endpoints': api('kubectl get endpointslices -l kubernetes.io/service-name=NAME: none, or without addresses'),
  'slices-behind': api(
    'kubectl get endpointslices -l kubernetes.io/service-name=NAME and kubectl get pods -o wide differ in READY or IP',
  ),
  'target-port-undeclared': api('kubectl get pod POD -o jsonpath={.spec.containers[*].ports} lacks the number'),
  'named-port-missing': api('kubectl get pod POD -o jsonpath={.spec.containers[*].ports[*].name} lacks the name'),
  'load-balancer-pending': api('kubectl get svc NAME: EXTERNAL-IP <pending>'),
  'no-node-for-load-balancer': api('curl NODE:healthCheckNodePort answers 503 on every node'),
  'endpoints-disagree': api(
    'kubectl get endpoints NAME and kubectl get endpointslices -l kubernetes.io/service-name=NAME differ',
  ),
  'duplicate-node-port': api('kubectl get svc -A -o wide | grep NODE-PORT prints two'),
  'endpoint-without-pod': api('kubectl get endpointslices -o yaml: a targetRef whose pod is not found'),
  'ingress-backend-missing': api('kubectl describe ingress NAME: "endpoints … not found", or "<error: …>"'),
  'ingress-path-conflict': api('kubectl get ingress -A -o wide: the same host and path twice'),
  'ingress-without-class': api('kubectl get ingress: CLASS <none>, and ADDRESS stays empty'),
  'ingress-tls-secret-missing': api('curl -v https://HOST shows the controller’s own certificate'),
  'gateway-route-broken': api('kubectl get httproute NAME -o yaml: conditions Accepted or ResolvedRefs are False'),
  'dns-server-fails': api('dig @DNS-POD-IP kubernetes.default.svc.cluster.local +tcp times out from a node'),
  'dns-answer-wrong': api('dig @DNS-IP NAME.NAMESPACE.svc.cluster.local +tcp differs from kubectl get svc NAME'),
  'external-name-broken': api('dig NAME.NAMESPACE.svc.cluster.local: a CNAME without an address behind it'),
  'environment-stale': api('kubectl exec POD -- env | grep _SERVICE_HOST lacks the Service, or has an old address'),
  'not-ready-endpoints': api('kubectl get endpointslices -o yaml: conditions.ready is false'),
  'policy-local-no-endpoint': {
    iptables: 'KUBE-XLB-… or KUBE-EXT-… ends in KUBE-MARK-DROP, or filter has "has no local endpoints" DROP',
    ipvs: 'the virtual server has no real server on this node',
    nftables: 'no-endpoint-services or no-endpoint-nodeports drops it',
  },
  'answered-by-node-cache': api(
    'ip address show dev nodelocaldns; kubectl -n kube-system get pods -l k8s-app=node-local-dns -o wide',
  ),
  'foreign-service-proxy': api(
    'no KUBE-SERVICES, no kube-ipvs0, no table kube-proxy; cilium_host, bpfin.cali, antrea-gw0 or KUBE-ROUTER-… is there',
  ),
  'network-policy-denies': api(
    'kubectl get networkpolicy -A; on the node a chain of the network plugin (cali-…, KUBE-POD-FW-…, WEAVE-NPC) drops',
  ),
  'network-policy-unseen': api('kubectl get networkpolicy -A, and no chain of a network plugin on the node'),
}
