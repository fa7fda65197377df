"""What the chart makes of a release that is there already, and of a change: rendered against an API server that only answers.

    renders.py HELM CHART

What Helm's `lookup` finds can't be seen in a rendering without a cluster. The server here knows kinds and what a check says is
there, takes nothing, and is on the loopback.
"""

import base64
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import yaml

# Kinds of what the chart makes, by group and version.
KINDS = {
    "v1": ["ConfigMap", "PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount"],
    "apps/v1": ["StatefulSet"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "keda.sh/v1alpha1": ["ScaledObject"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
}

# More than any default, so that it can come from nowhere else.
PODS = 7

SECRET = "drawn at the first install"

# Each kind of pods, the values that make it, and its set.
WORKLOADS = [
    ("node", "combined", "starling"),
    ("gateway", "split", "starling-gateway"),
    ("decoder", "split", "starling-decoder"),
]


class Server(BaseHTTPRequestHandler):
    """Answers what Helm asks; `there` is what has been installed, by path."""

    there: ClassVar[dict] = {}

    def do_GET(self):
        """Kinds and objects."""
        path = self.path.split("?")[0].strip("/")
        found = {"version": {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}, **discovery(), **self.there}.get(path)
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(found or missing).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: Helm's own words are enough."""


def discovery():
    """Which kinds there are, by path."""
    named = {version: {"groupVersion": version, "version": version.split("/")[1]} for version in KINDS if "/" in version}
    groups = [{"name": v.split("/")[0], "versions": [named[v]], "preferredVersion": named[v]} for v in named]
    found = {
        "api": {"kind": "APIVersions", "versions": ["v1"]},
        "apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }
    for version, kinds in KINDS.items():
        resources = [{"name": plural(kind), "kind": kind, "namespaced": True, "verbs": ["get"]} for kind in kinds]
        found[root_of(version)] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return found


def root_of(version):
    """Where a group's objects are."""
    return f"apis/{version}" if "/" in version else f"api/{version}"


def plural(kind):
    """A kind's name in paths."""
    return kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + "s"


def installed(version, kind, name, more):
    """An object of the release, and its path."""
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    annotations = {"meta.helm.sh/release-name": "starling", "meta.helm.sh/release-namespace": "speech"}
    metadata = {"name": name, "namespace": "speech", "labels": labels, "annotations": annotations}
    return f"{root_of(version)}/namespaces/speech/{plural(kind)}/{name}", {
        "apiVersion": version,
        "kind": kind,
        "metadata": metadata,
        **more,
    }


def main(helm, chart):
    """Prints every fault; the exit code says whether there was one."""
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"

    def rendered(*values):
        settings = [part for value in ("auth.insecureOpen=true", *values) for part in ("--set", value)]
        command = [helm, "template", "starling", chart, "--namespace", "speech", "--skip-tests", *settings]
        command += ["--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}:\n{done.stderr}")
        objects = [document for document in yaml.safe_load_all(done.stdout) if document]
        return {(document["kind"], document["metadata"]["name"]): document for document in objects}

    faults = [*replica_faults(rendered), *secret_faults(rendered), *roll_faults(rendered)]
    server.shutdown()
    print("\n".join(faults) or "a release that is there keeps its pods and its secret, and changes roll it")
    return 1 if faults else 0


def replica_faults(rendered):
    """Whether a set keeps its pods when its scaler is switched on, is told none before it is there, and its own without one."""
    for kind, mode, name in WORKLOADS:
        for scaler in ("hpa", "keda") if kind == "gateway" else ("hpa", "keda", "actuator"):
            values = (f"mode={mode}", f"{kind}.{scaler}.enabled=true")
            Server.there = dict([installed("apps/v1", "StatefulSet", name, {"spec": {"replicas": PODS}})])
            yield from expect(rendered(*values), name, PODS, f"{scaler} switched on at {PODS} pods")
            Server.there = {}
            yield from expect(rendered(*values), name, None, f"{scaler} from the beginning")
        Server.there = dict([installed("apps/v1", "StatefulSet", name, {"spec": {"replicas": PODS}})])
        yield from expect(rendered(f"mode={mode}", f"{kind}.replicas=4"), name, 4, "no scaler")
    Server.there = {}


def expect(objects, name, wanted, when):
    """What is said of a set's pods is what is wanted."""
    said = objects[("StatefulSet", name)]["spec"].get("replicas")
    if said != wanted:
        yield f"{name}, {when}: replicas is {said}, not {wanted}"


def secret_faults(rendered):
    """Whether a secret that was drawn once is kept."""
    name, kept = "starling-cluster", base64.b64encode(SECRET.encode()).decode()
    Server.there = dict([installed("v1", "Secret", name, {"data": {"secret": kept}})])
    if rendered()[("Secret", name)]["data"]["secret"] != kept:
        yield f"Secret {name}: another one is drawn although there is one"
    Server.there = {}


def roll_faults(rendered):
    """Whether pods are replaced when what they read at their start has changed, and not otherwise."""

    def template(*values):
        return rendered(*values)[("StatefulSet", "starling")]["spec"]["template"]["metadata"]

    before = template("models.catalogue=a")
    for change in ("models.catalogue=b", "log.level=debug"):
        if template("models.catalogue=a", change) == before:
            yield f"{change}: pods are not replaced, and go on with what they had"
    if template("models.catalogue=a", "drain.settle=9") != before:
        yield "drain.settle=9: what pods read is the same, but said to be another"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
