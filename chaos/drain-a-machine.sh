#!/bin/sh
# Empties a machine of a namespace's nodes, as before its maintenance: drain-a-machine.sh NAMESPACE MACHINE [--really]
# Without --really it only says what it would do; afterwards: kubectl uncordon MACHINE
set -eu
namespace=${1:?which namespace?} machine=${2:?which machine?} trial=server nodes=app.kubernetes.io/part-of=starling-cluster
if [ "${3:-}" = --really ]; then trial=none; fi
found=$(kubectl get pods --all-namespaces --selector "$nodes" --field-selector "spec.nodeName=$machine" --no-headers --output custom-columns=N:.metadata.namespace)
if [ "$(echo "$found" | sort -u)" != "$namespace" ]; then echo "on $machine are nodes of: ${found:-no namespace}; not of $namespace alone" >&2; exit 1; fi
kubectl drain "$machine" --pod-selector "$nodes" --delete-emptydir-data --dry-run="$trial"
