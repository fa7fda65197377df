#!/bin/sh
# Lets a node go, and waits until the others no longer count on it: drain-a-node.sh NAME ANY-OTHER-NODES-ADDRESS [--really]
# Without --really it only says how the node stands
set -eu
name=${1:?which node?} server=${2:?where is another node?} tries=600
state() { seen=$(starling status --server "$server") && echo "$seen" | awk -v name="$name" 'NR > 1 && NF == 0 { exit } $1 == name { print $2 } $1 == name "*" { print "asked itself" }'; }
now=$(state)
case $now in
  '') echo "$server knows of no node $name" >&2; exit 1 ;;
  'asked itself') echo "$server is $name, which will not be there to ask; name another" >&2; exit 1 ;;
esac
echo "node $name is $now"
if [ "${3:-}" != --really ]; then exit; fi
starling drain "$name" --server "$server"
while :; do
  now=$(state)
  case $now in alive | draining | suspected) ;; *) break ;; esac
  tries=$((tries - 1))
  if [ "$tries" = 0 ]; then echo "node $name is still $now after 10 minutes" >&2; exit 1; fi
  sleep 1
done
echo "node $name is ${now:-gone}"
