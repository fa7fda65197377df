#!/bin/sh
# Ends a process that decodes for a node of this machine: kill-a-decoder.sh NAME [--really]
# NAME is what the node was started with (--node-id NAME); without --really it only says which process that is
set -eu
name=${1:?for which node?} signal=0
if [ "${2:-}" = --really ]; then signal=KILL; fi
for pid in $(pgrep -x starling); do
  case " $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") " in *" serve "*"--node-id $name "* | *" serve "*"--node-id=$name "*)
    host=$(pgrep -o -P "$pid" '^starling-dec') || { echo "node $name has no decoder hosts" >&2; exit 1; }
    echo "SIG$signal to process $host, which decodes for node $name"; kill -s "$signal" "$host"; exit ;;
  esac
done
echo "no node $name runs here" >&2; exit 1
