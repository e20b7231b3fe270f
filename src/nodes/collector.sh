#!/bin/sh
# svc-trace collector: prints what a node's kernel does with packets. It only reads: no file is written, nothing is changed.
#
# Output: "@svc-trace 1", then for each section "@begin FILE", the command's output with "|" before every line, what it
# said on stderr with "!" before every line (last of them "!rc=N"), "@end FILE"; at the end "@done". A line of a dump can
# never look like a frame, because every line of it begins with "|" or "!". Where gzip is there and nobody watches, it is
# "@svc-trace gzip" and the same compressed, section by section.
#
# SVC_TRACE_SUDO=auto|never|always decides about "sudo -n"; SVC_TRACE_TIMEOUT is the limit of one command in seconds;
# SVC_TRACE_GZIP=no leaves it uncompressed.
set -u
LC_ALL=C
PATH="${PATH:-/bin:/usr/bin}:/usr/local/sbin:/usr/sbin:/sbin:/opt/bin:/var/lib/rancher/k3s/data/current/bin:/var/lib/rancher/k3s/data/current/bin/aux:/var/lib/rancher/rke2/bin"
export LC_ALL PATH
LIMIT="${SVC_TRACE_LIMIT:-402653184}"
SECONDS_EACH="${SVC_TRACE_TIMEOUT:-30}"
SQUEEZE=cat
if [ "${SVC_TRACE_GZIP:-yes}" = yes ] && [ ! -t 1 ] && command -v gzip >/dev/null 2>&1; then SQUEEZE="gzip -c"; fi
renice -n 10 -p $$ >/dev/null 2>&1 || true

# How to become root: already, by sudo without a password, or not at all.
ROOT=""
if [ "$(id -u)" != 0 ]; then
  case "${SVC_TRACE_SUDO:-auto}" in
    never) ;;
    always) ROOT="sudo -n" ;;
    *) if command -v sudo >/dev/null 2>&1 && sudo -n true </dev/null >/dev/null 2>&1; then ROOT="sudo -n"; fi ;;
  esac
fi
BOUND=""
if timeout 9 true >/dev/null 2>&1; then BOUND="timeout $SECONDS_EACH"; fi

# kube-proxy's own tools stand in for those that the node lacks, in its root directory. LEND runs as root: it enters that
# directory first and looks at the process then, so that what was looked at is what is used. The process must be root's, with
# every right that root has here, in this network, and (looked at last, because nobody comes back to it) among the same users:
# running its tools gives it nothing that it does not have.
LEND='
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
pid=$1
shift
born() { sed "s/.*) //" "/proc/$pid/stat" 2>/dev/null | cut -d " " -f 20; }
same() { [ -n "$1" ] && [ "$1" = "$2" ]; }
began=$(born)
cd "/proc/$pid/root" 2>/dev/null || exit 127
status=$(grep -E "^(Uid|CapEff):" "/proc/$pid/status" 2>/dev/null | tr "\t\n" "  ")
mine=$(grep "^CapEff:" /proc/self/status | tr "\t\n" "  ")
same "$status" "Uid: 0 0 0 0 $mine" || exit 127
for kind in net user; do same "$(readlink "/proc/$pid/ns/$kind")" "$(readlink "/proc/self/ns/$kind")" || exit 127; done
same "$began" "$(born)" || exit 127
if [ $# = 0 ]; then exec ls usr/sbin sbin usr/bin bin 2>/dev/null; fi
exec chroot . "$@"
'
KUBE_PROXY=""
TOOLS=""
find_kube_proxy() {
  if [ "$(id -u)" != 0 ] && [ -z "$ROOT" ]; then return; fi
  for comm in $($ROOT sh -c 'grep -lsx kube-proxy /proc/[0-9]*/comm' </dev/null 2>/dev/null); do
    pid=${comm#/proc/}
    pid=${pid%/comm}
    TOOLS=" $($ROOT sh -c "$LEND" lend "$pid" </dev/null 2>/dev/null | tr '\n' ' ') "
    if [ -z "${TOOLS#  }" ]; then continue; fi
    KUBE_PROXY=$pid
    return
  done
}

# has TOOL: on the node, or in kube-proxy's root directory.
has() {
  if command -v "$1" >/dev/null 2>&1; then return 0; fi
  borrowed "$1"
}

# borrowed TOOL: the node lacks it, kube-proxy has it.
borrowed() {
  if command -v "$1" >/dev/null 2>&1; then return 1; fi
  case "$TOOLS" in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

# section FILE COMMAND...: runs a command as root if we can, and frames what it says. When nobody listens any more, that is the end.
section() {
  frame "$@" | $SQUEEZE 2>/dev/null || exit 1
}

# The empty line behind a command's output ends a last line that has no end of its own; the reader takes it away again.
frame() {
  exec 4>&1
  file=$1
  shift
  printf '@begin %s\n' "$file" >&4
  if borrowed "$1"; then set -- sh -c "$LEND" lend "$KUBE_PROXY" "$@"; fi
  said=$( { { $BOUND $ROOT "$@" 2>&3 </dev/null; printf '\nrc=%s\n' "$?" >&3; echo; } | head -c "$LIMIT" | sed 's/^/|/' >&4; } 3>&1 )
  printf '%s\n' "$said" | sed 's/^/!/' >&4
  printf '\n@end %s\n' "$file" >&4
}

# get PATH: asks kube-proxy's own HTTP ports on the node.
get() {
  if command -v curl >/dev/null 2>&1; then curl -fsS -m 3 "$1"; elif command -v wget >/dev/null 2>&1; then wget -q -T 3 -O - "$1"; else echo "neither curl nor wget: not found" >&2; return 127; fi
}

# plain FILE COMMAND...: the same without root, for functions of this script.
plain() {
  keep=$ROOT
  bound=$BOUND
  ROOT=""
  BOUND=""
  section "$@"
  ROOT=$keep
  BOUND=$bound
}

# What kube-proxy says of itself. Its binary is never run: a process can call itself anything.
proxy_version() {
  get http://127.0.0.1:10249/metrics | sed -n '/^kubernetes_build_info/s/.*git_version="\(v[^"]*\)".*/\1/p' | grep .
}

backends() {
  iptables --version 2>/dev/null
  readlink -f "$(command -v iptables)" 2>/dev/null
  uname -r
  nft --version 2>/dev/null
  ipset --version 2>/dev/null
  date -u +%Y-%m-%dT%H:%M:%SZ
  if [ "$(id -u)" = 0 ]; then by=itself; else by=${keep:-nothing}; fi
  echo "login $(id -un 2>/dev/null || id -u), root by $by"
  for tool in iptables-save iptables-legacy-save iptables-nft-save ipset ipvsadm nft ip bridge ss; do
    if borrowed "$tool"; then echo "$tool of kube-proxy (process $KUBE_PROXY)"; fi
  done
}

# plain() keeps in $keep how to become root.
conntrack_entries() {
  if command -v conntrack >/dev/null 2>&1; then $keep conntrack -L -f "$1"; elif [ "$1" = ipv4 ]; then $keep cat /proc/net/nf_conntrack; else return 0; fi
}

# As sysctl(8) prints them, without reading the hundreds that say nothing about packets: a dot in a name is a slash there.
sysctls() {
  cd /proc/sys/net || return 1
  grep -s . ipv4/conf/*/accept_local ipv4/conf/*/arp_announce ipv4/conf/*/arp_filter ipv4/conf/*/arp_ignore \
    ipv4/conf/*/forwarding ipv4/conf/*/proxy_arp ipv4/conf/*/route_localnet ipv4/conf/*/rp_filter ipv4/conf/*/src_valid_mark \
    ipv6/conf/*/disable_ipv6 ipv6/conf/*/forwarding ipv4/ip_forward* ipv4/ip_local_* ipv4/ip_nonlocal_bind ipv4/fib_multipath* \
    ipv4/vs/* bridge/* netfilter/nf_conntrack_max netfilter/nf_conntrack_count netfilter/nf_conntrack_buckets \
    netfilter/nf_conntrack_tcp_be_liberal netfilter/nf_conntrack_tcp_loose | sed 's,:, = ,; y,/.,./,; s,^,net.,' | grep .
}

# What kubelet hands to pods that use the node's own DNS: systemd-resolved's real servers, not its stub.
resolv_conf() {
  for file in /run/systemd/resolve/resolv.conf /etc/resolv.conf; do
    if [ -r "$file" ]; then cat "$file"; return; fi
  done
}

find_kube_proxy
if [ "$SQUEEZE" != cat ]; then echo "@svc-trace gzip"; fi
echo "@svc-trace 1" | $SQUEEZE
section iptables-save.txt iptables-save -c
section ip6tables-save.txt ip6tables-save -c
for backend in legacy nft; do
  if has "iptables-$backend-save"; then
    section "iptables-$backend-save.txt" "iptables-$backend-save" -c
    section "ip6tables-$backend-save.txt" "ip6tables-$backend-save" -c
  fi
done
section ipset-save.txt ipset save
section ipvsadm-Sn.txt ipvsadm -Sn
section proc-net-ip_vs.txt cat /proc/net/ip_vs
section nft.json nft -j list ruleset
section nft.txt nft list ruleset
section ip-addr.json ip -j addr show
section ip-link.json ip -d -j link show
section ip-route.json ip -4 -j route show table all
section ip-route6.json ip -6 -j route show table all
section ip-rule.json ip -4 -j rule show
section ip-rule6.json ip -6 -j rule show
section ip-neigh.json ip -j neigh show
section bridge-fdb.json bridge -j fdb show
plain sysctl.txt sysctls
section ss.txt ss -H -lntup
plain conntrack.txt conntrack_entries ipv4
plain conntrack6.txt conntrack_entries ipv6
plain proxymode.txt get http://127.0.0.1:10249/proxyMode
plain healthz.txt get http://127.0.0.1:10256/healthz
plain kube-proxy-version.txt proxy_version
plain backend.txt backends
plain resolv.txt resolv_conf
echo "@done" | $SQUEEZE
