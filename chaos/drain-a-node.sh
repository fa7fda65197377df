#!/bin/sh
# Lets a node go, and waits until the others no longer count on it: drain-a-node.sh NAME [ANY OTHER NODE'S ADDRESS]
set -eu
server=${2:-http://127.0.0.1:8080}
starling drain "$1" --server "$server"
while starling status --server "$server" | grep -qE "^$1\*? +(alive|draining|suspected)"; do sleep 1; done
