#!/bin/sh
# Ends a node of this machine at once, as a power cut would: kill-a-node.sh NAME  (the one started with --node-id NAME)
set -eu
pids=$(pgrep -f -- "starling serve .*--node-id[ =]$1( |\$)") || { echo "no node $1 runs here" >&2; exit 1; }
for pid in $pids; do echo "SIGKILL to node $1, process $pid"; kill -KILL "$pid"; done
