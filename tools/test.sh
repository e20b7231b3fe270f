#!/bin/sh
# All tests and checks. With CI=true everything that they need is installed and nothing may be skipped.
set -eu
cd "$(dirname "$0")/.."
if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  missing=""
  for need in iptables:iptables ipset:ipset nft:nftables ip:iproute2 /usr/sbin/sshd:openssh-server ssh:openssh-client python3:python3 openssl:openssl conntrack:conntrack linux.uml:user-mode-linux ipvsadm:ipvsadm /usr/sbin/nsd:nsd sudo:sudo curl:curl unshare:util-linux sysctl:procps busybox:busybox-static dash:dash bash:bash gzip:gzip setpriv:util-linux; do
    command -v "${need%%:*}" >/dev/null 2>&1 || missing="$missing ${need#*:}"
  done
  command -v kubectl >/dev/null 2>&1 || missing="$missing kubernetes-client"
  if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 -- a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  fi
fi
sh tools/setup.sh
npm run --silent lint
log="$(mktemp)"
status=0
npx mocha 'test/unit/**/*.test.ts' 'test/corpus/*.test.ts' 'test/kernel/**/*.test.ts' 'test/e2e/*.test.ts' 'test/fuzz/*.test.ts' "$@" >"$log" 2>&1 || status=$?
cat "$log"
passed="$(sed -n 's/^ *\([0-9][0-9]*\) passing.*/\1/p' "$log" | tail -n 1)"
failed="$(sed -n 's/^ *\([0-9][0-9]*\) failing.*/\1/p' "$log" | tail -n 1)"
pending="$(sed -n 's/^ *\([0-9][0-9]*\) pending.*/\1/p' "$log" | tail -n 1)"
rm -f "$log"
echo "${passed:-0} passed, ${failed:-0} failed${pending:+, $pending skipped}"
if [ "${CI:-}" = true ] && [ -n "$pending" ]; then
  echo "error: CI skips nothing" >&2
  exit 1
fi
exit "$status"
