"""A cluster as an operator has it: an inventory, the playbooks, and what nodes, units and journals say.

Must never judge a run: what has to hold is for machines.py to say.
"""

import json
import os
import re
import subprocess
import time
from pathlib import Path

from machine import USER, run, ssh_options

ANSIBLE = Path(__file__).resolve().parents[1] / "ansible"

NAMES = ["speech-1", "speech-2", "speech-3"]

# A model for each engine.
MODELS = ["moonshine-tiny-en", "vosk-ko-small"]

# Longer than callers here need to be handed over, shorter than the recordings: a drain that waited for them would be seen.
DRAIN_S = 20

# Longer than a node takes to load both models on a busy machine.
READY_S = 120


class Wrong(Exception):
    """What is not as it should be."""


class Cluster:
    """The machines, and what an operator has of them."""

    def __init__(self, site, programs, home):
        self.site, self.programs, self.home = site, programs, home
        self.program = programs / "starling"
        drawn = run([str(self.program), "keys", "new"], True).stdout.split()
        self.key, self.hash = drawn[1], drawn[3]
        self.machines, self.inventory = {}, {}

    def boot(self):
        """Boots them, with the models where the README has operators put them."""
        layer = self.site.folder / "layer"
        for name in NAMES:
            self.machines[name] = self.site.boot(name, layer)
        hosts = {
            name: {"ansible_host": machine.address, "starling_zone": f"rack-{name[-1]}"}
            for name, machine in self.machines.items()
        }
        self.inventory = {
            "hosts": hosts,
            "vars": {
                "ansible_user": USER,
                "ansible_become": True,
                "ansible_ssh_private_key_file": str(self.site.key),
                "ansible_ssh_common_args": " ".join(ssh_options(self.site)),
                "starling_programs": str(self.programs),
                "starling_secret_file": str(self.site.folder / "cluster.secret"),
                "starling_tenants": [{"name": "acme", "keys": [self.hash], "operator": True}],
                "starling_models": [{"name": name, "hosts": 1, "slots": 4, "threads": 1} for name in MODELS],
                "starling_drain_deadline_seconds": DRAIN_S,
            },
        }
        self.change()

    def change(self, **variables):
        """Writes the inventory, with some variables changed for good."""
        self.inventory["vars"] |= variables
        (self.site.folder / "inventory.yml").write_text(json.dumps({"starling": self.inventory}))

    def play(self, book, *arguments):
        """Runs a playbook; how many things it changed on each machine."""
        given = ["--inventory", str(self.site.folder / "inventory.yml"), *arguments]
        environment = {
            **os.environ,
            "ANSIBLE_HOME": str(self.site.folder / "ansible"),
            # A connection that another run left open would lead to that run's machine at the same address.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.site.folder / "connections"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        begun = time.monotonic()
        done = subprocess.run(["ansible-playbook", *given, book], cwd=ANSIBLE, env=environment, capture_output=True, text=True)
        said = f"{done.stdout}{done.stderr}"
        recap = re.findall(r"(?m)^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", said)
        if done.returncode or not recap or any(int(bad) for _, _, *bads in recap for bad in bads):
            raise Wrong(f"{book} {' '.join(arguments)} failed:\n{said}\n{self.logs()}")
        changed = {name: int(count) for name, count, _, _ in recap}
        tell(f"{' '.join([book, *arguments])}: changed {sum(changed.values())} in {time.monotonic() - begun:.0f} s")
        return changed, said

    def servers(self):
        """Where callers reach the nodes."""
        return [f"--server=ws://{machine.address}:8080" for machine in self.machines.values()]

    def nodes(self):
        """The nodes that the first machine's node knows as alive."""
        address = next(iter(self.machines.values())).address
        told = run([str(self.program), "status", "--json", "--server", f"http://{address}:8080", "--api-key", self.key], True)
        return {node["name"] for node in json.loads(told.stdout)["nodes"] if node["state"] == "alive"}

    def unit(self, name, *properties):
        """What systemd knows of the unit on one of them."""
        shown = self.machines[name].inside(f"systemctl show starling --property={','.join(properties)}").stdout
        return dict(line.split("=", 1) for line in shown.splitlines())

    def since(self, name, cursor):
        """What the unit wrote to the journal since."""
        return self.machines[name].inside(f"journalctl --unit=starling --output=cat --after-cursor='{cursor}'").stdout

    def cursor(self, name):
        """Where the journal is now."""
        shown = self.machines[name].inside("journalctl --show-cursor --lines=0").stdout
        return re.search(r"-- cursor: (\S+)", shown)[1]

    def wait_until_ready(self, name):
        """Until the node takes callers."""
        port = f"http://{self.machines[name].address}:8080/readyz"
        ask = f"python3 -c 'import urllib.request as r; r.urlopen(\"{port}\", timeout=2)'"
        wait(lambda: self.machines[name].inside(ask, check=False).returncode == 0, READY_S, f"{name} is not ready")

    def moves(self, cursors):
        """How many sessions went on at another node than the one they were at, since."""
        return sum(self.since(name, cursor).count('"a session goes on here"') for name, cursor in cursors.items())

    def logs(self):
        """The ends of all journals."""
        ends = []
        for name, machine in self.machines.items():
            end = machine.inside("journalctl --unit=starling --lines=25 --output=cat", check=False).stdout
            ends.append(f"--- {name}\n{end}")
        return "\n".join(ends)


def expect(found, wanted, what):
    """Fails with what is there instead."""
    if found != wanted:
        raise Wrong(f"{what}: {found}, and should be {wanted}")


def wait(until, seconds, otherwise):
    """Asks again and again."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise Wrong(f"{otherwise} after {seconds} s")
        time.sleep(0.3)


def tell(line):
    """Says what was seen."""
    print(f"     {line}", flush=True)
