"""Rolls the nodes of a rendered StatefulSet while callers speak, as Kubernetes would: without a cluster, in network namespaces.

pods.py STARLING HOME FILE RECORDING

Each pod is a network namespace with an address and a hosts file in which the headless service has the addresses of all. It
is given the rendered settings and variables, is sent SIGTERM, has its grace period to end by itself with 0, is started again,
and has to be ready before the next one's turn comes, after minReadySeconds. `starling load` judges: it exits with 0 only if no
caller lost a word.

To be started by root in namespaces of its own: unshare --mount --net --pid --fork --kill-child.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import yaml
from settings import environment_of

NETWORK = "10.244.9"

# Longer than a node takes to load a small model on a busy machine.
START_S = 120


class Pod:
    """One ordinal of the StatefulSet."""

    def __init__(self, folder, program, home, workload, ordinal):
        self.folder, self.program, self.workload = folder, program, workload
        self.spec = workload["spec"]["template"]["spec"]
        self.name, self.address = f"{workload['metadata']['name']}-{ordinal}", f"{NETWORK}.{ordinal + 1}"
        environment = environment_of(self.spec["containers"][0], workload)
        self.environment = {name: value.replace("10.1.2.3", self.address) for name, value in environment.items()}
        self.environment |= {
            "STARLING_CLUSTER__NODE_ID": self.name,
            "STARLING_CONFIG": str(folder / "cluster.toml"),
            "STARLING_HOME": home,
        }
        link = f"v{ordinal}"
        shell(f"ip netns add {self.name} && ip link add {link} type veth peer name eth0 netns {self.name}")
        shell(f"ip link set {link} master pods up && ip -n {self.name} addr add {self.address}/24 dev eth0")
        shell(f"ip -n {self.name} link set eth0 up && ip -n {self.name} link set lo up")
        self.start()

    def start(self):
        """Starts the container."""
        hosts = f'mount --bind {self.folder}/hosts /etc/hosts && exec "$0" "$@"'
        within = ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c", hosts, self.program]
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [*within, *self.spec["containers"][0]["args"]], env=self.environment, stdout=log, stderr=log
            )

    def wait_until_ready(self):
        """Asks what the readiness probe asks."""
        path = self.spec["containers"][0]["readinessProbe"]["httpGet"]["path"]
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://{self.address}:8080{path}", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        sys.exit(f"{self.name} is not ready after {START_S} s:\n{(self.folder / f'{self.name}.log').read_text()}")

    def roll(self):
        """Has the pod end and come back."""
        self.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        code = self.process.wait(timeout=self.spec["terminationGracePeriodSeconds"])
        print(f"{self.name} drained in {time.monotonic() - begun:.1f} s and ended with {code}", flush=True)
        if code != 0:
            sys.exit(f"{self.name} did not end as it should")
        self.start()
        self.wait_until_ready()


def main(program, home, manifests, recording):
    """Starts, loads, rolls and judges."""
    with open(manifests, encoding="utf-8") as file:
        documents = [document for document in yaml.safe_load_all(file) if document]
    workload = next(document for document in documents if document["kind"] == "StatefulSet")
    config = next(document["data"]["cluster.toml"] for document in documents if document["kind"] == "ConfigMap")
    # Names of namespaces are files there; nobody else is to see them.
    shell("mount -t tmpfs tmpfs /run && ip link set lo up")
    folder = Path("/run/pods")
    folder.mkdir()
    replicas, service = workload["spec"]["replicas"], workload["spec"]["serviceName"]
    (folder / "cluster.toml").write_text(config)
    addresses = "".join(f"{NETWORK}.{ordinal + 1} {service}\n" for ordinal in range(replicas))
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{addresses}")
    shell(f"ip link add pods type bridge && ip addr add {NETWORK}.254/24 dev pods && ip link set pods up")
    pods = [Pod(folder, program, home, workload, ordinal) for ordinal in range(replicas)]
    for pod in pods:
        pod.wait_until_ready()
    servers = [f"--server=ws://{pod.address}:8080" for pod in pods]
    load = [program, "load", "--clients", "3", "--requests", "1", *servers, recording]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with subprocess.Popen(load, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as callers:
        for pod in reversed(pods):
            time.sleep(workload["spec"]["minReadySeconds"])
            pod.roll()
        if callers.poll() is not None:
            sys.exit("the callers had gone before the last pod was rolled")
        told, _ = callers.communicate(timeout=180)
    print(told)
    return callers.returncode


def shell(line):
    """Runs a line of shell."""
    subprocess.run(line, shell=True, check=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
