#!/bin/sh
# Ends a node of this machine at once, as a power cut would: kill-a-node.sh NAME [--really]
# NAME is what it was started with (--node-id NAME); without --really it only says which process that is
set -eu
name=${1:?which node?} signal=0 found=
if [ "${2:-}" = --really ]; then signal=KILL; fi
for pid in $(pgrep -x starling); do
  case " $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") " in *" serve "*"--node-id $name "* | *" serve "*"--node-id=$name "*)
    echo "SIG$signal to node $name, process $pid"; kill -s "$signal" "$pid"; found=1 ;;
  esac
done
if [ -z "$found" ]; then echo "no node $name runs here" >&2; exit 1; fi
