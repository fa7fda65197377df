# in-image.sh FILES SCRIPT: serves from an image's files and runs `helm test`'s script in there against that. To be started by root in
# namespaces of its own (unshare --mount --net --pid --fork): the files are mounted read-only, /tmp is all that can be written to.
files=$1 script=$2
ip link set lo up
mount --bind "$files" "$files"
mount -o remount,ro,bind "$files"
mount -t tmpfs tmpfs "$files/tmp"
mount -t proc proc "$files/proc"
mount --rbind /dev "$files/dev"

become() {
  exec env -i PATH=/usr/local/bin:/usr/bin:/bin STARLING_HOME=/var/lib/starling STARLING_SERVER=ws://127.0.0.1:8080 \
    /usr/sbin/chroot --userspec=10001:10001 "$files" "$@"
}
inside() { (become "$@"); }

if inside touch /var/lib/starling/written 2>/dev/null; then echo "the image's files can be written to" >&2; exit 1; fi
become starling serve --vosk off &
node=$!
trap 'kill -KILL $node 2>/dev/null' EXIT
ready='exec 3<>/dev/tcp/127.0.0.1/8080 && printf "GET /readyz HTTP/1.0\r\n\r\n" >&3 && read -r -t 2 answer <&3 && [[ $answer == *" 200 "* ]]'
tries=0
until inside bash -c "$ready" 2>/dev/null; do
  tries=$((tries + 1))
  if [ $tries -gt 120 ]; then echo "not ready after a minute" >&2; exit 1; fi
  sleep 0.5
done
inside sh -eu -c "$(cat "$script")" transcript /var/lib/starling/audio/beckett.wav "ever tried" "ever failed" "no matter" "try again" "fail better"
# As process 1 of a pod: the signal drains, and it ends by itself.
kill -TERM $node
wait $node
trap - EXIT
echo "served read-only, as nobody in particular, and ended when told to"
