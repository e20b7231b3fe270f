#!/bin/sh
# Makes the small copies of two captures that the live test serves and restores: sh make.sh /path/to/corpus
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for cluster in k136-iptables-v4 k136-nftables-v4; do
  from="$1/$cluster" to="$work/$cluster"
  mkdir -p "$to/api"
  for file in "$from"/api/*.json; do
    node -e 'const drop = (key, value) => (key === "managedFields" ? undefined : value)
      process.stdout.write(JSON.stringify(JSON.parse(require("fs").readFileSync(process.argv[1]), drop)))' "$file" >"$to/api/$(basename "$file")"
  done
  for node in "$from"/nodes/*; do
    own="$to/nodes/$(basename "$node")"
    mkdir -p "$own"
    for file in iptables-save.txt ip6tables-save.txt; do
      sed -E 's/^\[[0-9:]+\] //; s/\[[0-9:]+\]$/[0:0]/; /^#/d' "$node/$file" >"$own/$file"
    done
    case $cluster in *nftables*) awk '/^table /{own = $3 == "kube-proxy"} own' "$node/nft.txt" >"$own/nft.txt" ;; esac
  done
  tar -C "$to" --sort=name --owner=0 --group=0 --mtime=@0 -c . | gzip -9n >"$here/$cluster.tar.gz"
done
