#!/bin/sh
# Ends a process that decodes in a pod: kill-a-decoder-in-a-pod.sh NAMESPACE POD [--really]; without --really it only names one
set -eu
namespace=${1:?which namespace?} pod=${2:?which pod?} signal=0
if [ "${3:-}" = --really ]; then signal=KILL; fi
kubectl --namespace "$namespace" exec "$pod" --container starling -- sh -c 'for p in /proc/[0-9]*; do read -r name <"$p/comm" || continue
  case $name in starling-dec*) echo "SIG$1 to process ${p#/proc/}"; kill -s "$1" "${p#/proc/}"; exit ;; esac
done; echo "no decoder hosts here" >&2; exit 1' sh "$signal"
