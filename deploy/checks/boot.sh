# boot.sh NAME ROOT LOWER CGROUP: boots the systemd of an overlay on LOWER as process 1 of a machine of its own. What it writes is in memory.
#
# To be started in namespaces of its own, but for that of cgroups. Its standard input ends when it may go on: the network is there then.
set -eu
name=$1 root=$2 lower=$3 cgroup=$4

mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir "$root/upper" "$root/work" "$root/merged"
# What is only given to another owner is not copied: models are large.
mount -t overlay -o "lowerdir=$lower,upperdir=$root/upper,workdir=$root/work,metacopy=on" overlay "$root/merged"
cd "$root/merged"

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
echo 0 > "$cgroup/cgroup.procs"
# Its root is the cgroup that this process is in: from here on nothing above can be seen.
exec unshare --cgroup sh -eu -c '
  name=$1
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs dev
  for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
  done
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
  mount -t tmpfs tmpfs dev/shm
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "dev/${number#*:}"; done
  # Where systemd and whoever wants to be heard while it boots write to.
  touch dev/console
  mount -t tmpfs -o mode=755 tmpfs run
  hostname "$name"
  echo "$name" > etc/hostname
  echo "127.0.0.1 localhost $name" > etc/hosts
  cat > /dev/null
  exec < /dev/null
  mkdir -p host
  pivot_root . host
  umount -l /host
  rmdir /host
  exec env -i container=starling PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target
' boot "$name"
