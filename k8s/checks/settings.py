"""Has the program itself read what pods of rendered manifests are given: `starling check-config` for each StatefulSet.

settings.py STARLING FILE...

Addresses, names and secrets that Kubernetes would fill in are made up.
"""

import os
import subprocess
import sys
import tempfile

import yaml

# What a fieldRef or a secret would give.
FILLED_IN = {
    "POD_IP": "10.1.2.3",
    "MACHINE_ZONE": "0",
    "STARLING_KEYS": "acme=sha256:" + "0" * 64,
    "STARLING_CLUSTER_SECRET": "only for this check",
}


def main(program, paths):
    """Prints every refusal; the exit code says whether there was one."""
    refused, read = [], 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents = [document for document in yaml.safe_load_all(file) if document]
        configs = [document["data"] for document in documents if "cluster.toml" in document.get("data", {})]
        for workload in (document for document in documents if document["kind"] == "StatefulSet"):
            refused += [f"{path}: {workload['metadata']['name']}: {fault}" for fault in faults(program, configs, workload)]
            read += 1
    print("\n".join(refused) or f"settings of {read} kinds of pods are right")
    return 1 if refused or not read else 0


def faults(program, configs, workload):
    """Why the program would not start in the workload's pods."""
    if len(configs) != 1:
        return [f"there are {len(configs)} config maps with cluster.toml"]
    container = workload["spec"]["template"]["spec"]["containers"][0]
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(configs[0]["cluster.toml"])
        file.flush()
        environment = environment_of(container, workload) | {"STARLING_CONFIG": file.name}
        arguments = [argument for argument in container["args"] if argument != "serve"]
        command = [program, "check-config", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [done.stderr.strip()]


def environment_of(container, workload):
    """The container's variables, with references to others resolved as the kubelet does."""
    values = dict(FILLED_IN, STARLING_CLUSTER__NODE_ID=workload["metadata"]["name"] + "-0")
    if any("[$(POD_IP)]" in variable.get("value", "") for variable in container["env"]):
        values["POD_IP"] = "fd00::1"
    environment = {"PATH": os.environ["PATH"], "STARLING_CLUSTER_SECRET": values["STARLING_CLUSTER_SECRET"]}
    for variable in container["env"]:
        value = variable["value"] if "value" in variable else values[variable["name"]]
        for name, given in values.items():
            value = value.replace(f"$({name})", given)
        environment[variable["name"]] = value
    return environment


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
