#!/bin/sh
# Has a pod go at once: kill-a-pod.sh NAMESPACE POD [--really]; without --really it only says what it would do
set -eu
namespace=${1:?which namespace?} pod=${2:?which pod?} trial=--dry-run=server
if [ "${3:-}" = --really ]; then trial=--wait=false; fi
kubectl --namespace "$namespace" delete pod --now "$trial" "$pod"
