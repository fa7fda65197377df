"""A machine of its own to install a node on: a Debian in namespaces, with systemd as process 1, an address and an SSH server.

It shares this machine's kernel and nothing else: its file system is an overlay whose writes stay in memory, its network one end
of a cable to a bridge, its users and processes are its own. Everything is gone when the process that booted it is. Must never
know what is installed on it.
"""

import os
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Whom Ansible logs in as, as on a machine from a cloud: not root, and no password is asked for.
USER = "admin"

# A systemd with twelve units on a machine that does something else as well.
BOOT_S = 60

NETWORK = "10.244.10"

# Beginning of the names of cgroups: what a killed run left is found by it.
CGROUPS = "starling-machines-"

# Questions of a first boot, hardware, clocks and housekeeping.
NOT_WANTED = """systemd-firstboot.service systemd-udevd.service systemd-networkd.service systemd-resolved.service
systemd-timesyncd.service console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
e2scrub_all.timer fstrim.timer sys-kernel-debug.mount sys-kernel-tracing.mount""".split()


class Unbootable(Exception):
    """Why no machine can be booted here."""


class Site:
    """The place machines stand in: a bridge, a folder in memory, a key to log in with, and a group of cgroups."""

    def __init__(self, folder, archive):
        self.folder = Path(folder)
        self.folder.mkdir()
        self.base = self.folder / "base"
        self.base.mkdir()
        self.key = self.folder / "key"
        self.known_hosts = self.folder / "known_hosts"
        self.cgroup = self.folder / "cgroup"
        self.machines = []
        try:
            shell(f"mount -t tmpfs -o mode=755 tmpfs {self.base}")
            self.cgroup.mkdir()
            shell(f"mount -t cgroup2 cgroup2 {self.cgroup}")
            for old in self.cgroup.glob(f"{CGROUPS}*"):
                tidy(old)
            self.cgroup = self.cgroup / f"{CGROUPS}{os.urandom(4).hex()}"
            self.cgroup.mkdir()
            shell("ip link set lo up && ip link add machines type bridge && ip link set machines up")
            shell(f"ip addr add {NETWORK}.254/24 dev machines")
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise Unbootable(told(error)) from error
        try:
            self._prepare(archive)
        except BaseException:
            self.close()
            raise

    def _prepare(self, archive):
        """Makes a machine that anybody could have rented out of the packages."""
        base = self.base
        shell(f"tar -xf {archive} -C {base}")
        shell(f"ssh-keygen -q -t ed25519 -N '' -f {self.key}")
        # Written at the first boot.
        (base / "etc/machine-id").write_text("uninitialized\n")
        for unit in NOT_WANTED:
            link = base / "etc/systemd/system" / unit
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        for old in (base / "etc/ssh").glob("ssh_host_*"):
            old.unlink()
        public = self.key.with_suffix(".pub").read_text()
        shell(f"chroot {base} useradd --create-home --shell /bin/bash {USER}")
        home = base / "home" / USER
        (home / ".ssh").mkdir(mode=0o700)
        (home / ".ssh/authorized_keys").write_text(public)
        shell(f"chroot {base} chown -R {USER}: /home/{USER}/.ssh")
        (base / "etc/sudoers.d").mkdir(exist_ok=True)
        (base / "etc/sudoers.d/admin").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")

    def boot(self, name, layer):
        """Boots a machine; `layer` is a folder whose files it has besides its own. It is up when this returns."""
        machine = Machine(self, name, len(self.machines) + 1, layer)
        self.machines.append(machine)
        machine.wait_until_up()
        return machine

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends all machines, and takes away what is not in memory: the cgroups."""
        for machine in self.machines:
            machine.end()
        until = time.monotonic() + 5
        while self.cgroup.name.startswith(CGROUPS) and not tidy(self.cgroup) and time.monotonic() < until:
            time.sleep(0.1)
        for mount in (self.folder / "cgroup", self.base):
            subprocess.run(["umount", "--lazy", str(mount)], capture_output=True)


def tidy(cgroup):
    """Removes a group and those in it; whether it is gone, which it can't be before the last of its processes is."""
    try:
        if "populated 1" in (cgroup / "cgroup.events").read_text():
            return False
        for path in sorted((path for path, _, _ in os.walk(cgroup)), key=len, reverse=True):
            os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Machine:
    """One of them."""

    def __init__(self, site, name, number, layer):
        self.site, self.name, self.address = site, name, f"{NETWORK}.{number}"
        root, cgroup = site.folder / name, site.cgroup / name
        root.mkdir()
        cgroup.mkdir()
        self.console = site.folder / f"{name}.console"
        apart = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
        boot = ["sh", str(HERE / "boot.sh"), name, str(root), f"{layer}:{site.base}", str(cgroup)]
        with open(self.console, "wb") as console:
            self.process = subprocess.Popen([*apart, *boot], stdin=subprocess.PIPE, stdout=console, stderr=console)
        try:
            self.first = self._child()
            link = f"v{number}"
            shell(f"ip link add {link} type veth peer name eth0 netns {self.first}")
            shell(f"ip link set {link} master machines up")
            within = f"nsenter --net=/proc/{self.first}/ns/net"
            shell(f"{within} ip link set lo up && {within} ip addr add {self.address}/24 dev eth0")
            shell(f"{within} ip link set eth0 up && {within} ip route add default via {NETWORK}.254")
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unbootable(f"{told(error)} {self._console()}") from error
        finally:
            self.process.stdin.close()

    def _child(self):
        """The process that is the first one in there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        until = time.monotonic() + 10
        while time.monotonic() < until and self.process.poll() is None:
            if found := children.read_text().split():
                return int(found[0])
            time.sleep(0.02)
        raise OSError("no process could be started in namespaces of its own.")

    def wait_until_up(self):
        """Until everything that it starts is started and SSH lets the user in."""
        until, said = time.monotonic() + BOOT_S, "nothing"
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise Unbootable(f"systemd ended with {self.process.returncode}: {self._console()}")
            entered = self.inside("systemctl is-system-running", check=False)
            said = (entered.stdout + entered.stderr).strip()
            if said in ("running", "degraded") and self._has_ssh():
                return
            time.sleep(0.2)
        raise Unbootable(f"systemd is not up after {BOOT_S} s, it says {said!r}: {self._console()}")

    def _has_ssh(self):
        """Draws the key of its SSH server, the first time, and remembers it."""
        key = "/etc/ssh/ssh_host_ed25519_key"
        if self.inside(f"test -e {key}", check=False).returncode:
            self.inside(f"ssh-keygen -q -t ed25519 -N '' -f {key} && systemctl restart ssh")
            public = self.inside(f"cut -d' ' -f1,2 {key}.pub").stdout.strip()
            with open(self.site.known_hosts, "a") as known:
                known.write(f"{self.address} {public}\n")
        return self.ssh("true", check=False).returncode == 0

    def _console(self):
        return self.console.read_text(errors="replace")[-800:].strip()

    def inside(self, line, check=True):
        """Runs a line of shell in there as root, without its SSH."""
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        clean = ["env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", line]
        return run(["nsenter", "--target", str(self.first), *spaces, *clean], check)

    def ssh(self, line, check=True):
        """Runs a line of shell in there as whoever may log in."""
        return run(["ssh", *ssh_options(self.site), f"{USER}@{self.address}", line], check)

    def end(self):
        """Ends all its processes at once: they are those of its first one."""
        self.process.kill()
        self.process.wait()


def ssh_options(site):
    """How to log in with the run's own key, to servers with the run's own keys, whatever the user's settings are."""
    options = ["BatchMode=yes", "ConnectTimeout=5", "IdentitiesOnly=yes", f"UserKnownHostsFile={site.known_hosts}"]
    return ["-F", "none", "-i", str(site.key), *(word for option in options for word in ("-o", option))]


def shell(line):
    """Runs a line of shell."""
    subprocess.run(line, shell=True, check=True, capture_output=True, text=True)


def run(command, check):
    """Runs a command; what it says is in an error, too."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise RuntimeError(f"`{command[-1]}` ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def told(error):
    """An error with what the program said."""
    said = getattr(error, "stderr", None)
    return f"{error} {said or ''}".strip()
