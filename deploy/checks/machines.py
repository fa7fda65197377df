#!/usr/bin/env python3
"""Runs the playbooks and the unit on three machines with a systemd of their own, over SSH, while callers speak.

machines.py PROGRAMS HOME DEBIAN

PROGRAMS is a folder with starling and starling-decoder, HOME one with the models of both engines and the sample recordings,
DEBIAN an archive of a Debian with systemd, sudo, Python and an SSH server. Needs ansible-playbook in the path. Exits with 1 if
anything is not as the documents say, and with 0, saying why, where no machine can be booted.

To be started by root in namespaces of its own: unshare --mount --net --pid --fork --kill-child --mount-proc.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from callers import Callers, transcribe
from cluster import MODELS, NAMES, Cluster, Wrong, expect, tell, wait
from machine import Site, Unbootable

# What is spoken while all nodes are rolled is long; else short, as everybody speaks to the end after each step.
LONG = dict(zip(MODELS, ["two_cities.wav", "ko/ko-long.wav"]))
SHORT = dict(zip(MODELS, ["beckett.wav", "ko/ko-8.wav"]))


def install(cluster):
    """Three machines become a cluster, whose units are as they should be; a second run changes nothing."""
    cluster.play("install.yml", "-e", "starling_serial=100%")
    wait(lambda: cluster.nodes() == set(NAMES), 10, "the nodes do not know each other")
    for name in NAMES:
        state = cluster.unit(name, "ActiveState", "UnitFileState", "NRestarts")
        expect(state, {"ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0"}, name)
    changed, said = cluster.play("install.yml", "-e", "starling_serial=100%")
    expect(changed, dict.fromkeys(NAMES, 0), f"a second run\n{said}")


def hardened(cluster):
    """Neither node nor decoders have what the unit says they have not; both engines are served so."""
    machine = cluster.machines["speech-1"]
    pids = machine.inside("cat /sys/fs/cgroup/system.slice/starling.service/cgroup.procs").stdout.split()
    names = sorted(machine.inside(f"cat /proc/{pid}/comm").stdout.strip() for pid in pids)
    # Decoders name their model's beginning.
    expect(names, ["starling", "starling-dec:mo", "starling-dec:vo"], "the unit's processes")
    for pid in pids:
        status = dict(re.findall(r"(?m)^(\w+):\s+(.*)$", machine.inside(f"cat /proc/{pid}/status").stdout))
        open_to = {name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")}
        expect(open_to, dict.fromkeys(open_to, 0), "capabilities")
        expect((status["NoNewPrivs"], status["Seccomp"], status["Umask"]), ("1", "2", "0077"), "privileges, filter, mask")
        user = machine.inside(f"stat --format=%U /proc/{pid}").stdout.strip()
        expect(user, "starling", "the user")
        # In the processes' own view of the file system, which root would be refused too.
        for path in ("/usr/local/bin/x", "/etc/starling/x", "/var/lib/starling/x", "/proc/sys/kernel/hostname"):
            written = machine.inside(f"nsenter --target {pid} --mount sh -c ': > {path}'", check=False)
            if "Read-only file system" not in written.stderr:
                raise Wrong(f"{path} can be written to in the unit: {written.stderr}")


def upgraded(cluster, callers):
    """Programs that differ are rolled out node by node, each drained, and the callers hear nothing of it."""
    newer = cluster.site.folder / "newer"
    newer.mkdir()
    for name in ("starling", "starling-decoder"):
        shutil.copy2(cluster.programs / name, newer / name)
        # Behind what is loaded: the same program with another digest.
        with open(newer / name, "ab") as program:
            program.write(b"newer")
    cursors = {name: cluster.cursor(name) for name in NAMES}
    changed, said = cluster.play("upgrade.yml", "-e", f"starling_programs={newer}", "-e", "starling_settle_seconds=3")
    # The programs, and the restart.
    expect(changed, dict.fromkeys(NAMES, 2), f"what the upgrade changed\n{said}")
    rolled(cluster, cursors)
    callers.end()
    cluster.change(starling_programs=str(newer))


def resettled(cluster, callers):
    """Other settings are rolled out in the same way."""
    cursors = {name: cluster.cursor(name) for name in NAMES}
    cluster.change(starling_drain_deadline_seconds=300)
    changed, said = cluster.play("install.yml")
    # The settings, the time to stop, and the restart.
    expect(changed, dict.fromkeys(NAMES, 3), f"what other settings changed\n{said}")
    rolled(cluster, cursors)
    for name in NAMES:
        # As systemd writes 315 s: the deadline and what comes after it.
        expect(cluster.unit(name, "TimeoutStopUSec"), {"TimeoutStopUSec": "5min 15s"}, "the unit's time to stop")
    callers.end()


def rolled(cluster, cursors):
    """Every node was drained, ended by itself, and was started once."""
    for name, cursor in cursors.items():
        journal = cluster.since(name, cursor)
        drained(name, journal)
        expect(journal.count("Started starling.service"), 1, f"starts of {name}")
        expect(cluster.unit(name, "ActiveState", "NRestarts"), {"ActiveState": "active", "NRestarts": "0"}, name)
    expect(cluster.nodes(), set(NAMES), "the nodes afterwards")


def drained(name, journal):
    """The node was told to stop, let everybody go, and ended before anybody lost patience."""
    for line in ("stopping; a second signal stops at once", '"stopped"', "starling.service: Deactivated successfully"):
        if line not in journal:
            raise Wrong(f"{name} was not drained: {line!r} is not in its journal:\n{journal}")
    for line in ("Killing process", "timed out", "Failed with result"):
        if line in journal:
            raise Wrong(f"{name} did not end by itself:\n{journal}")


def stopped(cluster, callers):
    """`systemctl stop` drains, and the node stays away until it is started."""
    cursor, begun = cluster.cursor("speech-2"), time.monotonic()
    cluster.machines["speech-2"].ssh("sudo systemctl stop starling")
    took = time.monotonic() - begun
    drained("speech-2", cluster.since("speech-2", cursor))
    state = cluster.unit("speech-2", "ActiveState", "Result")
    expect(state, {"ActiveState": "inactive", "Result": "success"}, "a stopped unit")
    cluster.machines["speech-2"].ssh("sudo systemctl start starling")
    cluster.wait_until_ready("speech-2")
    tell(f"systemctl stop drained in {took:.1f} s")
    callers.end()


def killed(cluster, callers):
    """What is killed with its decoders comes back by itself."""
    machine = cluster.machines["speech-3"]
    before = cluster.unit("speech-3", "MainPID")["MainPID"]
    machine.ssh("sudo systemctl kill --signal=KILL starling")
    wait(lambda: cluster.unit("speech-3", "NRestarts")["NRestarts"] == "1", 10, "a killed unit is not started again")
    cluster.wait_until_ready("speech-3")
    after = cluster.unit("speech-3", "MainPID")["MainPID"]
    if after in (before, "0"):
        raise Wrong(f"the process is {after} and was {before}")
    # Settings and keys are read again by the same process.
    cursor = cluster.cursor("speech-3")
    machine.ssh("sudo systemctl reload starling")
    wait(lambda: "told to read the settings again" in cluster.since("speech-3", cursor), 10, "a reload is not heard of")
    expect(cluster.unit("speech-3", "MainPID", "ActiveState"), {"MainPID": after, "ActiveState": "active"}, "after a reload")
    callers.end()


def drained_by_command(cluster, callers):
    """`starling drain`, on the machine itself: the node hands over and ends, and the unit starts it anew."""
    machine, cursor = cluster.machines["speech-2"], cluster.cursor("speech-2")
    line = f"starling drain speech-2 --server http://{machine.address}:8080 --api-key {cluster.key}"
    machine.ssh(line)
    wait(lambda: cluster.unit("speech-2", "NRestarts")["NRestarts"] == "1", 60, "a drained node is not started again")
    cluster.wait_until_ready("speech-2")
    journal = cluster.since("speech-2", cursor)
    if "told to drain" not in journal or "Failed with result" in journal:
        raise Wrong(f"speech-2 was not drained:\n{journal}")
    callers.end()


def removed(cluster, callers):
    """One node is drained and gone, but for what the README says stays; the others go on. A second time nothing changes."""
    machine, cursor = cluster.machines["speech-3"], cluster.cursor("speech-3")
    cluster.play("remove.yml", "--limit", "speech-3")
    drained("speech-3", cluster.since("speech-3", cursor))
    callers.end()
    wait(lambda: cluster.nodes() == set(NAMES[:2]), 30, "the removed node is still a member")
    state = cluster.unit("speech-3", "LoadState", "ActiveState")
    expect(state, {"LoadState": "not-found", "ActiveState": "inactive"}, "the removed unit")
    machine.inside("test -d /var/lib/starling/models && id starling")
    changed, said = cluster.play("remove.yml", "--limit", "speech-3")
    expect(changed, {"speech-3": 0}, f"a second removal\n{said}")


def returned(cluster):
    """A node is installed on its own, and its settings name the others; then it goes for good, and leaves nothing."""
    machine = cluster.machines["speech-3"]
    cluster.play("install.yml", "--limit", "speech-3")
    wait(lambda: cluster.nodes() == set(NAMES), 10, "the node that came back is no member")
    seeds = machine.inside("grep '^seeds' /etc/starling/cluster.toml").stdout
    expect([machine.address in seeds for machine in cluster.machines.values()], [True] * len(NAMES), f"all in {seeds}")
    cluster.play("remove.yml", "--limit", "speech-3", "-e", "starling_remove_models=true")
    left = ["find / -xdev -iname '*starling*'", "getent passwd starling", "getent group starling", "cat /proc/[0-9]*/comm"]
    found = machine.inside("; ".join(left) + " | grep starling", check=False).stdout
    expect(found, "", "what is left of the removed node")


def layer_of(home, site):
    """What machines have of models: links to the files, or copies where that can't be."""
    to = site.folder / "layer/var/lib/starling"
    to.mkdir(parents=True)
    for name in ("models", "lib"):
        linked = subprocess.run(["cp", "-al", str(home / name), str(to)], capture_output=True)
        if linked.returncode:
            subprocess.run(["cp", "-a", str(home / name), str(to)], check=True)


def main(programs, home, archive):
    """Boots, plays, judges."""
    home, programs = Path(home), Path(programs)
    # As Ctrl-C does: what was made is taken away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(prefix="machines-", dir=home) as scratch:
        try:
            with Site(Path(scratch) / "site", archive) as site:
                layer_of(home, site)
                cluster = Cluster(site, programs, home)
                cluster.boot()
                return course(cluster)
        except Unbootable as why:
            print(f"no machine can be booted here, so that playbooks and unit are not tried: {why}")
            return 0


def course(cluster):
    """All of it, in the order in which an operator would; what fails does not keep the rest from being tried."""
    begin = [cluster.program, cluster.servers(), cluster.key]
    recordings = [cluster.home / "audio" / name for name in [*LONG.values(), *SHORT.values()]]
    failed = []

    def judged(step, spoken=None, at_least=1):
        callers, begun, heard = None, time.monotonic(), ""
        try:
            if spoken:
                cursors = {name: cluster.cursor(name) for name in NAMES}
                callers = Callers(*begin, dict(zip(MODELS, spoken)), told)
                step(cluster, callers)
                moves = cluster.moves(cursors)
                heard = f": {callers.calls} calls told whole, which went on at another node {moves} times"
                if moves < at_least:
                    raise Wrong(f"{step.__name__} was to move {at_least} calls at least{heard}")
            else:
                step(cluster)
        except (Wrong, RuntimeError, subprocess.TimeoutExpired) as wrong:
            failed.append(step.__name__)
            print(f"FAIL {step.__name__}: {wrong}", flush=True)
        else:
            print(f"ok   {step.__name__} in {time.monotonic() - begun:.0f} s{heard}", flush=True)
        finally:
            if callers:
                callers.leave()

    judged(install)
    if failed:
        return 1
    told = {path: transcribe(*begin, model, path, False)[0] for model, path in zip(MODELS * 2, recordings)}
    judged(hardened)
    # A call for each node that goes.
    judged(upgraded, recordings[:2], len(NAMES))
    judged(resettled, recordings[2:], len(NAMES))
    for step in (stopped, killed, drained_by_command, removed):
        judged(step, recordings[2:])
    judged(returned)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
