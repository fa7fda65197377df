#!/bin/sh
# Ends a process that decodes for a node of this machine: kill-a-decoder.sh NAME
set -eu
node=$(pgrep -o -f -- "starling serve .*--node-id[ =]$1( |\$)") || { echo "no node $1 runs here" >&2; exit 1; }
pkill -KILL -o -P "$node" starling-dec || { echo "node $1 has no decoder hosts" >&2; exit 1; }
