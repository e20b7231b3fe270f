import type {Severity} from './finding.js'

/** What a code means, how it is found and what to do. Codes are stable and never used again for something else. */
export interface CodeInfo {
  readonly code: string
  readonly severity: Severity
  readonly title: string
  readonly meaning: string
  readonly found: string
  readonly fix: string
}

/** Lower ranks are nearer to the root: a flushed table explains a missing NodePort, never the other way round. */
export const CODES = {
  'kube-proxy-not-running': {
    code: 'SVT100',
    severity: 'warning',
    title: 'kube-proxy does not answer',
    meaning:
      'kube-proxy on this node does not answer on its health or mode endpoint. Its rules stay as they were and grow stale.',
    found:
      'healthz.txt and proxymode.txt of the node failed or say unhealthy. An error where three Services or more have no rules on the node.',
    fix: '{log}',
  },
  'sync-fails': {
    code: 'SVT102',
    severity: 'warning',
    title: 'kube-proxy cannot write its rules',
    meaning:
      'One bad rule, a full set or a lock makes iptables-restore, ipset or nft refuse the whole change: the rules stay as they were, and new Services and endpoints are not there.',
    found: 'kube-proxy.log of the node, where the snapshot has it, says that a sync failed.',
    fix: '{log}; iptables-restore --test on {node}; look for two versions of iptables or a foreign writer',
  },
  'node-address-elsewhere': {
    code: 'SVT118',
    severity: 'error',
    title: 'a node holds the address of another one',
    meaning:
      'The node takes packets for the other one as its own: its kernel delivers them to itself, and answers never come back. Often a leftover of a virtual IP, or of a node that was replaced.',
    found: 'The addresses of each node’s devices against the addresses that the API gives the other nodes.',
    fix: 'on {node}: ip addr del {held}; find out who put it there (keepalived, kube-vip, the node’s network configuration)',
  },
  'ip-forward-off': {
    code: 'SVT110',
    severity: 'error',
    title: 'the node does not forward packets',
    meaning: 'Translated packets must be forwarded to pods; with forwarding off the node drops them.',
    found: 'The walk reaches a forwarding decision and net.ipv4.ip_forward (or IPv6 forwarding) is 0.',
    fix: 'sysctl -w {sysctl}=1 on {node}, and find what switched it off (sysctl.d, a tuning daemon)',
  },
  'node-not-programmed': {
    code: 'SVT101',
    severity: 'error',
    title: 'the node has no working Service rules',
    meaning:
      'None of the Services works on this node: the tables were flushed, a hook jump is missing, a table is dormant, or kube-proxy never synced.',
    found: 'Every Service that should work here leaves the node untranslated or is refused.',
    fix: 'restart kube-proxy on the node so that it writes everything again: {restart}; find who flushed the rules',
  },
  'forward-policy-drop': {
    code: 'SVT202',
    severity: 'error',
    title: 'a chain policy drops Service packets',
    meaning:
      'The packet falls off the end of a chain whose policy is DROP: FORWARD (Docker sets it so, and the accept rules of the CNI or of kube-proxy are missing), or INPUT and OUTPUT (a host firewall).',
    found: 'The walk ends at the policy of that chain.',
    fix: 'add the accept rules of whoever set the policy (in FORWARD the CNI’s), or let the chain accept: {accept}',
  },
  'packet-dropped-by-rule': {
    code: 'SVT201',
    severity: 'error',
    title: 'a rule drops or rejects Service packets',
    meaning: 'Somebody’s rule ends packets that Kubernetes promises to deliver.',
    found: 'The walk ends at that rule.',
    fix: 'remove the rule, or except the Service’s addresses from it',
  },
  'traffic-hijacked': {
    code: 'SVT203',
    severity: 'error',
    title: 'a rule sends Service packets somewhere else',
    meaning:
      'A NAT rule that is not kube-proxy’s sends the packets to an address that is no endpoint of the Service, gives them a source that nobody answers to, or takes them out of the chains before they are translated.',
    found:
      'The walk delivers to an address that is not among the endpoints, or passes that rule on the way to nowhere.',
    fix: 'remove the rule',
  },
  'connection-tracking-off': {
    code: 'SVT204',
    severity: 'error',
    title: 'a rule takes Service packets out of connection tracking',
    meaning: 'Without tracking there is no NAT, so Service addresses are not translated.',
    found: 'The walk meets NOTRACK before the packet is lost.',
    fix: 'remove the NOTRACK rule, or except Service addresses',
  },
  'bridge-nf-off': {
    code: 'SVT111',
    severity: 'error',
    title: 'bridged answers bypass connection tracking',
    meaning:
      'With net.bridge.bridge-nf-call-iptables=0 the answer between two pods on one bridge is not translated back; the client ignores it.',
    found: 'The answer arrives with the pod’s own address.',
    fix: 'modprobe br_netfilter; sysctl -w {sysctl}=1',
  },
  'rp-filter-drops': {
    code: 'SVT112',
    severity: 'error',
    title: 'reverse path filtering drops Service packets',
    meaning: 'The packet or its answer comes in by another device than the route back leaves by.',
    found: 'The walk ends at rp_filter.',
    fix: 'sysctl -w net.ipv4.conf.DEVICE.rp_filter=2 (loose), or mend the routes',
  },
  'route-localnet-off': {
    code: 'SVT113',
    severity: 'error',
    title: '127.0.0.1:nodePort needs route_localnet',
    meaning:
      'Without net.ipv4.conf.all.route_localnet=1 packets from 127.0.0.1 may not leave, and answers to it may not come in.',
    found: 'The walk of 127.0.0.1:nodePort ends there.',
    fix: 'sysctl -w net.ipv4.conf.all.route_localnet=1 (kube-proxy sets it at start), or use the node’s address',
  },
  'pod-route-missing': {
    code: 'SVT114',
    severity: 'error',
    title: 'the node has no way to the endpoints',
    meaning: 'The route to another node’s pods is missing, dead or leads elsewhere.',
    found: 'The walk leaves by a route that does not lead to the pod.',
    fix: 'check the CNI’s agent on the node and its routes: ip route get POD-IP',
  },
  'device-down': {
    code: 'SVT115',
    severity: 'error',
    title: 'a device on the way is down',
    meaning: 'The route leaves by a device that is administratively down.',
    found: 'The walk’s route names the device.',
    fix: 'ip link set DEVICE up',
  },
  'neighbour-discovery-blocked': {
    code: 'SVT205',
    severity: 'error',
    title: 'rules drop IPv6’s neighbour discovery',
    meaning:
      'IPv6 resolves addresses by ICMPv6 messages (types 135 and 136), which pass INPUT and OUTPUT. Where rules drop them, everything works until the entries of neighbours are too old, and then nothing of IPv6 does.',
    found:
      'Such messages are walked through the rules, from a link-local and from a global address, in and out of each device with an IPv6 network.',
    fix: 'accept them before the rule that drops: ip6tables -I INPUT -p icmpv6 -m icmp6 --icmpv6-type 135 -j ACCEPT, the same for 136 and for OUTPUT',
  },
  'tunnel-entry-missing': {
    code: 'SVT117',
    severity: 'error',
    title: 'a tunnel does not know where another node is',
    meaning:
      'VXLAN without learning sends by two tables that the network plugin’s agent fills: neighbours (pod network → hardware address) and forwarding entries (hardware address → node). An entry lacks, or is one of a node that was replaced.',
    found:
      'The next hop is looked up in ip neigh and bridge fdb, and compared with the other node’s device and addresses.',
    fix: 'restart the network plugin’s agent on {node}, which writes them anew; now: ip neigh replace HOP lladdr MAC dev DEVICE nud permanent; bridge fdb replace MAC dev DEVICE dst NODE-IP',
  },
  'hairpin-mode-off': {
    code: 'SVT116',
    severity: 'error',
    title: 'a pod cannot reach itself through its Service',
    meaning:
      'The bridge does not send a frame back by the port it came from, so a pod whose Service picks itself gets nothing.',
    found: 'ip -d link shows hairpin off on the bridge’s ports.',
    fix: 'hairpinMode: true in the CNI configuration; now: ip link set PORT type bridge_slave hairpin on',
  },
  'masquerade-missing': {
    code: 'SVT120',
    severity: 'error',
    title: 'packets are not masqueraded where they must be',
    meaning:
      'The answer goes past the node that translated, or the pod sees itself or 127.0.0.1 as client: the connection never comes up.',
    found: 'The walk’s answer is lost because the source was not rewritten.',
    fix: 'look at KUBE-MARK-MASQ, KUBE-POSTROUTING (nftables: masquerading), KUBE-LOOP-BACK and net.ipv4.vs.conntrack; --cluster-cidr must hold pods only; restart kube-proxy: {restart}',
  },
  'service-not-programmed': {
    code: 'SVT134',
    severity: 'error',
    title: 'a Service is not programmed on a node at all',
    meaning:
      'The node knows none of its addresses and ports: its kube-proxy has not seen the Service, or its sync fails.',
    found: 'Packets to every frontend of the Service leave untranslated or are refused on this node.',
    fix: '{log}; then {restart}',
  },
  'cluster-ip-not-programmed': {
    code: 'SVT130',
    severity: 'error',
    title: 'a cluster IP is not programmed on a node',
    meaning: 'The node has no working entry for the cluster IP and port.',
    found: 'Packets to it leave untranslated or are refused.',
    fix: 'compare with another node; restart kube-proxy on this one: {restart}',
  },
  'node-port-not-programmed': {
    code: 'SVT131',
    severity: 'error',
    title: 'a NodePort entry is missing on a node',
    meaning: 'The node has no working entry for the NodePort: rule, set member or virtual server.',
    found: 'Packets to the node’s address and port are refused or lost.',
    fix: 'compare with another node; restart kube-proxy on this one: {restart}',
  },
  'external-ip-not-programmed': {
    code: 'SVT132',
    severity: 'error',
    title: 'an external or load-balancer address is not programmed on a node',
    meaning: 'The node has no working entry for the address.',
    found: 'Packets to it leave untranslated or are refused.',
    fix: 'compare with another node; restart kube-proxy on this one: {restart}',
  },
  'health-check-port-closed': {
    code: 'SVT135',
    severity: 'error',
    title: 'the health check port of a load balancer does not answer',
    meaning:
      'With externalTrafficPolicy Local the load balancer asks healthCheckNodePort of every node; a node that does not answer gets no traffic, although its endpoints are well.',
    found:
      'A packet from outside to the port is walked: a rule drops it, or nothing listens there. A warning where the node has no endpoint.',
    fix: 'open the port in the firewall of the node; where nothing listens, restart kube-proxy: {restart}',
  },
  'no-endpoints-programmed': {
    code: 'SVT133',
    severity: 'error',
    title: 'a Service entry leads to no endpoint',
    meaning: 'The node knows the Service but has no endpoint behind it although the API has ready ones.',
    found: 'An empty chain, a virtual server without usable real servers, or a stale "has no endpoints" rule.',
    fix: 'look into kube-proxy’s log for failing syncs: {log}; then restart it: {restart}',
  },
  'stale-endpoint': {
    code: 'SVT140',
    severity: 'error',
    title: 'traffic goes to an address that is no endpoint',
    meaning:
      'The node still sends part of the traffic to an endpoint that the API does not have (any more), or to a wrong port.',
    found: 'The walk is translated to that address.',
    fix: 'look into kube-proxy’s log for failing syncs: {log}; then restart it: {restart}',
  },
  'endpoint-missing': {
    code: 'SVT141',
    severity: 'warning',
    title: 'a ready endpoint gets no traffic from a node',
    meaning: 'The other endpoints carry its load.',
    found: 'No walk from this node ends there.',
    fix: 'look into kube-proxy’s log for failing syncs: {log}; then restart it: {restart}',
  },
  'endpoint-unreachable': {
    code: 'SVT142',
    severity: 'error',
    title: 'an endpoint of the API is not reachable',
    meaning: 'The endpoint’s address belongs to no pod, or packets to it are lost on the way.',
    found: 'The walk ends before the endpoint.',
    fix: 'kubectl get endpointslices,pods {namespace} -o wide; ping the address from {node}',
  },
  'unequal-shares': {
    code: 'SVT143',
    severity: 'warning',
    title: 'endpoints get unequal shares',
    meaning: 'Load balancing is skewed: some endpoints get more connections than others.',
    found: 'The shares of the walk differ from one to the number of endpoints.',
    fix: 'restart kube-proxy on the node: {restart}',
  },
  'affinity-lost': {
    code: 'SVT144',
    severity: 'warning',
    title: 'session affinity is not as the Service asks',
    meaning:
      'The Service asks for ClientIP affinity, and the node does not keep clients at their endpoint, or for another time; or it keeps them although nobody asks.',
    found:
      'No recent match, affinity set or persistent flag on the way, one that leads to another endpoint, another timeout, or one that should not be there.',
    fix: 'restart kube-proxy on the node: {restart}',
  },
  'scheduler-differs': {
    code: 'SVT145',
    severity: 'warning',
    title: 'the IPVS scheduler is not the configured one',
    meaning: 'A virtual server spreads connections otherwise than kube-proxy’s configuration says.',
    found: 'The scheduler of the virtual server.',
    fix: 'restart kube-proxy on the node: {restart}',
  },
  'source-range-not-enforced': {
    code: 'SVT150',
    severity: 'error',
    title: 'loadBalancerSourceRanges are not enforced',
    meaning: 'Clients outside the ranges get in on this node.',
    found: 'A walk from outside the ranges is delivered.',
    fix: 'restart kube-proxy on the node: {restart}',
  },
  'source-range-incomplete': {
    code: 'SVT154',
    severity: 'error',
    title: 'a client inside loadBalancerSourceRanges is dropped',
    meaning:
      'The node’s rules lack a range that the Service allows, so the rule that drops everybody else drops these clients too.',
    found: 'The walk from inside the ranges ends at the dropping rule.',
    fix: 'compare the ranges with another node; restart kube-proxy on this one: {restart}; in ipvs mode 0.0.0.0/0 cannot be in an ipset: leave it out, or write 0.0.0.0/1 and 128.0.0.0/1',
  },
  'policy-not-kept': {
    code: 'SVT151',
    severity: 'error',
    title: 'traffic passes where a policy says it must not',
    meaning:
      'externalTrafficPolicy or internalTrafficPolicy Local promises that no endpoint of another node is used; the node uses one. Or an address answers that nodePortAddresses leaves out, or that belongs to a load balancer of ipMode Proxy.',
    found: 'The walk is delivered elsewhere, or delivered at all.',
    fix: 'restart kube-proxy on the node: {restart}',
  },
  'client-address-lost': {
    code: 'SVT152',
    severity: 'warning',
    title: 'the client address is not kept',
    meaning:
      'externalTrafficPolicy: Local promises that endpoints see the client’s address; they see a node’s. Or kube-proxy takes pods of its own node for strangers and masquerades what they send to cluster IPs: NetworkPolicies no longer know them.',
    found: 'The source at the end of the walk. For pods only where the rule says that it spares the node’s own.',
    fix: 'find the masquerade rule with: kubectl svc-trace {service} --from pod/POD -o wide; for pods compare clusterCIDR and detectLocalMode of kube-proxy’s configuration with the pods’ addresses',
  },
  'silent-port': {
    code: 'SVT153',
    severity: 'warning',
    title: 'a port that should refuse is silent',
    meaning:
      'Nobody serves the port, so a client should hear a refusal at once; a rule drops the packets instead, or the rule that refuses is missing, and the client waits.',
    found: 'The walk is dropped where a refusal is due.',
    fix: 'let the rule reject instead of drop; where kube-proxy’s own REJECT is missing, {restart}',
  },
  'competing-nat-chains': {
    code: 'SVT160',
    severity: 'warning',
    title: 'two NAT chains compete for the same packets',
    meaning:
      'Two chains of the same hook and priority would both translate the packet; the one registered last runs first, and this dump does not tell which that is.',
    found: 'Both chains act on the walk.',
    fix: 'remove the rules of the one that does not belong there (leftovers of another proxy mode, a foreign DNAT rule)',
  },
  'both-backends': {
    code: 'SVT161',
    severity: 'warning',
    title: 'Service rules in both iptables backends',
    meaning:
      'iptables-legacy and iptables-nft both hold chains with the same purpose; one set is stale and still acts.',
    found: 'The same KUBE- chains have rules in both dumps.',
    fix: 'see which of the two kube-proxy writes (its counters grow; {log}), and empty the other, table by table: iptables-legacy -t nat -F, or iptables-nft -t nat -F, and so on for filter and mangle; or reboot the node',
  },
  'mode-leftovers': {
    code: 'SVT162',
    severity: 'warning',
    title: 'leftovers of another proxy mode',
    meaning: 'Rules, sets or addresses of a mode that kube-proxy does not run in are still there.',
    found:
      'KUBE-SVC chains, a kube-ipvs0 device, virtual servers or a kube-proxy table that do not belong to the mode, or the device of kube-router’s or Calico’s own proxy.',
    fix: 'reboot the node after kubectl drain {node}, or take away what the evidence shows: nft delete table ip kube-proxy; ip link delete kube-ipvs0; ipvsadm -C (not kube-proxy --cleanup: it takes the live rules as well); where another proxy runs too, stop one of the two',
  },
  'listener-on-node-port': {
    code: 'SVT163',
    severity: 'warning',
    title: 'a process listens on a NodePort',
    meaning:
      'A process of the node listens on the port of a Service; which of the two gets a packet depends on its way.',
    found: 'ss shows the socket.',
    fix: 'move the process to another port',
  },
  'external-ip-is-node-ip': {
    code: 'SVT164',
    severity: 'warning',
    title: 'an external IP is a node’s own address',
    meaning: 'In ipvs mode the other nodes take the address for their own and cut themselves off from that node.',
    found: 'spec.externalIPs or a load-balancer address equals a node address.',
    fix: 'use an address that no node has',
  },
  'node-port-in-local-range': {
    code: 'SVT165',
    severity: 'warning',
    title: 'a NodePort is inside ip_local_port_range',
    meaning: 'The node may use the port for its own outgoing connections.',
    found: 'net.ipv4.ip_local_port_range covers the NodePort and does not reserve it.',
    fix: 'sysctl -w net.ipv4.ip_local_reserved_ports=30000-32767 (with what is there already), or change net.ipv4.ip_local_port_range',
  },
  'stale-conntrack': {
    code: 'SVT166',
    severity: 'warning',
    title: 'stale conntrack entries keep UDP traffic on a dead endpoint',
    meaning: 'A live UDP flow to the Service is pinned to an address that is no endpoint any more.',
    found: 'A conntrack entry of a Service address whose reply source is no endpoint.',
    fix: 'conntrack -D -p udp --orig-dst {address}',
  },
  'unreadable-rules': {
    code: 'SVT167',
    severity: 'warning',
    title: 'the dump cannot show all rules',
    meaning: 'The node’s iptables is older than the rules and prints them incompletely.',
    found: '[unsupported revision] in the dump.',
    fix: 'read the rules with the iptables of kube-proxy’s image',
  },
  'set-nearly-full': {
    code: 'SVT168',
    severity: 'warning',
    title: 'an ipset is nearly full',
    meaning: 'When maxelem is reached new Services are not programmed.',
    found: 'Members against maxelem.',
    fix: 'kube-proxy has no option for it: spread the Services over more addresses, or use mode nftables or iptables',
  },
  'duplicate-rules': {
    code: 'SVT169',
    severity: 'warning',
    title: 'the same rule many times',
    meaning: 'A proxy adds the same rule again and again; packets pay for each.',
    found: 'Identical lines in one chain.',
    fix: 'find the failing "iptables -C" in the proxy’s log',
  },
  'conntrack-table-full': {
    code: 'SVT172',
    severity: 'warning',
    title: 'the connection table is full, or nearly so',
    meaning:
      'A full table drops the first packet of every new connection, for all Services of the node (“nf_conntrack: table full”).',
    found: 'net.netfilter.nf_conntrack_count is 90 % of nf_conntrack_max or more; all of it is an error.',
    fix: 'sysctl -w net.netfilter.nf_conntrack_max=NUMBER, or conntrack.maxPerCore of kube-proxy; conntrack -L | sort shows who holds the connections',
  },
  'mtu-mismatch': {
    code: 'SVT170',
    severity: 'warning',
    title: 'pods may send larger packets than the network takes',
    meaning:
      'A connection opens and small answers arrive; large ones hang wherever ICMP “fragmentation needed” is filtered or lost.',
    found:
      'The MTU of the pods’ bridge or veth is larger than that of the device towards other nodes’ pods (ip-link.json).',
    fix: 'set the CNI’s MTU to that of the smaller device (a tunnel takes 50 bytes for VXLAN, 20 for IP-in-IP, 60 for WireGuard) and restart the pods',
  },
  'arp-for-service-address': {
    code: 'SVT171',
    severity: 'warning',
    title: 'every node answers ARP for a Service address',
    meaning:
      'In ipvs mode kube-ipvs0 holds the external and load-balancer addresses on every node. Without strictARP all nodes answer for those in their own network, and the announcing node (MetalLB, kube-vip) is not the one that gets the traffic.',
    found: 'The address is on kube-ipvs0 and in the network of another device, and arp_ignore is 0 for it.',
    fix: 'ipvs.strictARP: true in kube-proxy’s configuration (sets arp_ignore 1 and arp_announce 2)',
  },
  'nothing-selected': {
    code: 'SVT301',
    severity: 'error',
    title: 'the selector matches no pod',
    meaning: 'The Service has no endpoints because no pod has its labels.',
    found: 'selector against the pods of the namespace.',
    fix: 'kubectl get pods {namespace} --show-labels; correct the selector or the pods’ labels',
  },
  'no-ready-endpoint': {
    code: 'SVT302',
    severity: 'error',
    title: 'no endpoint is ready',
    meaning: 'Pods match, but none is ready, so the Service refuses connections.',
    found: 'conditions of the endpoints.',
    fix: 'kubectl get pods {namespace} -o wide; kubectl describe pod {pod}: readiness probe, container state',
  },
  'no-endpoints': {
    code: 'SVT303',
    severity: 'error',
    title: 'the Service has no endpoints',
    meaning: 'There is no EndpointSlice with an address for this port.',
    found: 'the slices of the Service.',
    fix: 'kubectl describe service {service}; for a Service without selector: create an EndpointSlice; else check the endpoint controller',
  },
  'slices-behind': {
    code: 'SVT319',
    severity: 'warning',
    title: 'the EndpointSlices do not follow the pods',
    meaning:
      'Pods that are ready get nothing, or pods that are not get packets: every node does what the slices say. The endpointslice controller, a part of kube-controller-manager, does not write them anew.',
    found:
      'Each selected pod’s condition Ready against the slices of the Service, where it last changed two minutes ago or longer; slices of other controllers are left alone.',
    fix: 'kubectl -n kube-system get lease kube-controller-manager -o yaml: is renewTime of now?; kubectl -n kube-system logs -l component=kube-controller-manager --tail=100; kubectl get endpointslices,pods {namespace} -o wide',
  },
  'target-port-undeclared': {
    code: 'SVT304',
    severity: 'warning',
    title: 'the target port is declared by no container',
    meaning: 'Container ports are documentation, but a number that none of them has is often a mistake.',
    found: 'targetPort against containerPorts of the selected pods.',
    fix: 'compare targetPort with the port that the process listens on',
  },
  'named-port-missing': {
    code: 'SVT305',
    severity: 'error',
    title: 'a named target port is missing',
    meaning: 'No selected pod has a container port of that name, so there is no endpoint for the port.',
    found: 'targetPort name against containerPorts.',
    fix: 'name the container port',
  },
  'load-balancer-pending': {
    code: 'SVT306',
    severity: 'warning',
    title: 'the load balancer is pending',
    meaning: 'status.loadBalancer is empty: no controller has given the Service an address.',
    found: 'the Service’s status.',
    fix: 'kubectl describe service {service}: events; is a load-balancer controller installed?',
  },
  'no-node-for-load-balancer': {
    code: 'SVT307',
    severity: 'error',
    title: 'no node is a target of the load balancer',
    meaning:
      'With externalTrafficPolicy Local nodes without an endpoint fail the load balancer’s health check; nodes with the label node.kubernetes.io/exclude-from-external-load-balancers are left out. None is left.',
    found: 'endpoints by node, labels of nodes.',
    fix: 'schedule the pods on nodes that the balancer uses; remove the label',
  },
  'endpoints-disagree': {
    code: 'SVT308',
    severity: 'warning',
    title: 'Endpoints and EndpointSlices disagree',
    meaning: 'Whoever reads Endpoints sees other addresses than kube-proxy.',
    found: 'both lists compared.',
    fix: 'check the endpoint controllers',
  },
  'duplicate-node-port': {
    code: 'SVT309',
    severity: 'error',
    title: 'two Services claim the same port',
    meaning: 'Only one of them gets the packets.',
    found: 'NodePorts, health check ports, and the ports at external and load-balancer addresses of all Services.',
    fix: 'change one of them',
  },
  'endpoint-without-pod': {
    code: 'SVT310',
    severity: 'warning',
    title: 'an endpoint names a pod that is gone',
    meaning: 'The slice still lists an address whose pod does not exist or has another address.',
    found: 'targetRef and address against the pods.',
    fix: 'kubectl describe endpointslice {slice}: one of the endpointslice controller is written anew once it is deleted; correct one that was made by hand',
  },
  'ingress-backend-missing': {
    code: 'SVT314',
    severity: 'error',
    title: 'an Ingress leads to a Service or port that does not exist',
    meaning: 'The Ingress controller answers 503 (or leaves the rule out) for this host and path.',
    found:
      'Each backend of each Ingress is looked up among the Services of its namespace, and its port, by number or name, among theirs.',
    fix: 'kubectl describe ingress {ingress}; correct the backend, or create the Service',
  },
  'ingress-path-conflict': {
    code: 'SVT315',
    severity: 'warning',
    title: 'two Ingresses claim the same host and path',
    meaning: 'Which one wins is up to the controller (ingress-nginx: the older one). The other has no effect there.',
    found: 'Two Ingresses of the same class have a rule with the same host, path and path type and different backends.',
    fix: 'kubectl get ingress -A; take the rule out of one of them',
  },
  'ingress-without-class': {
    code: 'SVT316',
    severity: 'warning',
    title: 'no Ingress controller takes this Ingress',
    meaning:
      'It names an IngressClass that does not exist, or none while no class is the default. Most controllers leave such an Ingress alone.',
    found: 'spec.ingressClassName and the annotation kubernetes.io/ingress.class against the IngressClasses.',
    fix: 'kubectl get ingressclass; set spec.ingressClassName',
  },
  'ingress-tls-secret-missing': {
    code: 'SVT317',
    severity: 'warning',
    title: 'the TLS secret of an Ingress is missing',
    meaning: 'The controller answers with a certificate of its own, which clients refuse, or not at all.',
    found: 'spec.tls[].secretName against the names of the Secrets, where they may be listed; contents are never read.',
    fix: 'kubectl get secrets {namespace}; create the Secret, or look at cert-manager: kubectl describe certificate',
  },
  'gateway-route-broken': {
    code: 'SVT318',
    severity: 'error',
    title: 'a Gateway API route leads nowhere',
    meaning:
      'No listener of its Gateways takes the route, or its backend Service or port does not exist or may not be used from its namespace.',
    found:
      'parentRefs against Gateways and their listeners (protocol, allowedRoutes, hostname), backendRefs against Services and ReferenceGrants.',
    fix: 'kubectl describe {route}: its conditions name the same; correct parentRefs or backendRefs, or add a ReferenceGrant',
  },
  'dns-server-fails': {
    code: 'SVT330',
    severity: 'error',
    title: 'a DNS server of the cluster gives no answers',
    meaning: 'Names resolve slowly or not at all; with several replicas every second or third lookup fails.',
    found: 'With --ask-dns: the DNS Service and each of its replicas are asked over TCP from a node.',
    fix: 'kubectl svc-trace kube-dns -n kube-system; kubectl -n kube-system logs -l k8s-app=kube-dns',
  },
  'dns-answer-wrong': {
    code: 'SVT331',
    severity: 'error',
    title: 'the cluster DNS says something else than the API',
    meaning: 'A record is missing or stale: clients get no address, or an old one.',
    found:
      'With --ask-dns: the answers of each server against the records that the Kubernetes DNS specification wants.',
    fix: 'kubectl -n kube-system logs -l k8s-app=kube-dns (does it see the API?); kubectl -n kube-system rollout restart deployment coredns',
  },
  'external-name-broken': {
    code: 'SVT332',
    severity: 'error',
    title: 'an ExternalName leads nowhere',
    meaning:
      'The CNAME points at an address, at a name of this cluster that no Service has, or in a circle: every lookup fails.',
    found: 'spec.externalName, followed through the Services of the cluster.',
    fix: 'kubectl edit service {service}: externalName must be a DNS name; for an address make a Service without selector and an EndpointSlice',
  },
  'environment-stale': {
    code: 'SVT333',
    severity: 'info',
    title: 'pods that do not know the Service by their environment',
    meaning:
      'kubelet sets {SVC}_SERVICE_HOST and the like when a container starts. Containers older than the Service have none, or those of an earlier Service of the name. Programs that use DNS do not care.',
    found: 'start of the containers against the creation of the Service, in its namespace.',
    fix: 'use the DNS name, or start the pods anew: kubectl rollout restart deployment {namespace} NAME',
  },
  'not-ready-endpoints': {
    code: 'SVT311',
    severity: 'info',
    title: 'some endpoints are not ready',
    meaning: 'They get no traffic until they are.',
    found: 'conditions of the endpoints.',
    fix: 'kubectl get pods {namespace} -o wide; kubectl describe pod {pod}',
  },
  'policy-local-no-endpoint': {
    code: 'SVT312',
    severity: 'info',
    title: 'policy Local and no endpoint on some nodes',
    meaning: 'By design these nodes drop the traffic (externalTrafficPolicy or internalTrafficPolicy: Local).',
    found: 'endpoints by node.',
    fix: 'nothing, if clients do not use these nodes',
  },
  'answered-by-node-cache': {
    code: 'SVT323',
    severity: 'info',
    title: 'NodeLocal DNSCache answers on the node itself',
    meaning:
      'The device nodelocaldns has the Service’s address, so a cache on the node answers before kube-proxy’s rules are asked (KEP-1024). This is so by design; what is cached may be older than what the DNS Service would say.',
    found:
      'The device nodelocaldns of the node carries the cluster IP. The walk still asks whether anybody listens there.',
    fix: 'nothing; kubectl svc-trace {service} --ask-dns compares what the cache says with the DNS Service',
  },
  'foreign-service-proxy': {
    code: 'SVT320',
    severity: 'info',
    title: 'Services are handled by another proxy',
    meaning: 'This node has no kube-proxy; Cilium, Calico, Antrea, kube-router or another proxy handles Services.',
    found: 'its devices, chains or tables.',
    fix: 'use that proxy’s own tools for what is out of sight here',
  },
  'network-policy-denies': {
    code: 'SVT322',
    severity: 'info',
    title: 'a NetworkPolicy keeps a client out',
    meaning:
      'The packet is dropped at or after the endpoint’s choice, and a NetworkPolicy wants it so. This is no fault.',
    found: 'The walk ends at a rule, and by the API’s semantics the policies of the pods leave the connection out.',
    fix: 'kubectl describe networkpolicy {policy}; allow the client there if it should pass',
  },
  'network-policy-unseen': {
    code: 'SVT321',
    severity: 'info',
    title: 'a NetworkPolicy that no rule enforces',
    meaning:
      'The policies leave a client out, and the node’s rules let it through. The network plugin enforces no policies, or it does so out of sight of netfilter (eBPF, Open vSwitch): then the client is dropped although the walk delivers it.',
    found: 'The walk delivers a connection that podSelector, peers and ports of the policies leave out.',
    fix: 'kubectl describe networkpolicy {policy}; ask the network plugin what it enforces (cilium policy get, calicoctl get wep)',
  },
} as const satisfies Record<string, CodeInfo>

export type CodeName = keyof typeof CODES

export function codeInfo(name: CodeName): CodeInfo {
  return CODES[name]
}

/** Finds a code by its number or its name, in any case. */
export function findCode(text: string): {name: CodeName; info: CodeInfo} | undefined {
  const wanted = text.toLowerCase()
  const entry = Object.entries(CODES).find(([name, info]) => name === wanted || info.code.toLowerCase() === wanted)
  return entry && {name: entry[0] as CodeName, info: entry[1]}
}

/** Root causes first. */
export const rankOf = (name: CodeName): number => Object.keys(CODES).indexOf(name)
