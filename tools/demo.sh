#!/bin/sh
# The main job on an embedded real snapshot: no cluster needed.
set -eu
here="$(cd "$(dirname "$0")/.." && pwd)"
sh "$here/tools/setup.sh" >&2
status=0
node "$here/bin/run.js" "${1:-dempapp}" --snapshot "$here/examples/missing-nodeport.tar.gz" --to nodePort || status=$?
# 1 is the verdict here, not a failure: the snapshot has a fault.
[ "$status" -le 1 ] || exit "$status"
