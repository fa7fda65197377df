"""Whether validate.py finds what is wrong: the rendered base with one thing wrong at a time.

validate_fails.py KUBERNETES_VERSION
"""

import copy
import sys
from pathlib import Path

import yaml
from validate import schema_faults, together

BASE = Path(__file__).parent.parent / "base" / "starling.yaml"

NODE = ("StatefulSet", "starling")


def pod(objects):
    """The specification of a node's pod."""
    return objects[NODE]["spec"]["template"]["spec"]


def node(objects):
    """The node's container."""
    return pod(objects)["containers"][0]


def role(verb, names):
    """A role that allows one thing."""
    rule = {"apiGroups": ["apps"], "resources": ["statefulsets/scale"], "verbs": [verb], **names}
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    return {**kind, "metadata": {"name": "scaler"}, "rules": [rule]}


def scaler(period, window):
    """What scales the nodes."""
    rules = {"stabilizationWindowSeconds": window, "policies": [{"type": "Pods", "value": 1, "periodSeconds": period}]}
    target = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "starling"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3, "behavior": {"scaleDown": rules}}
    kind = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    return {**kind, "metadata": {"name": "starling"}, "spec": spec}


def tested(objects):
    """A release with a test and named callers alone."""
    test = {"apiVersion": "v1", "kind": "Pod", "spec": copy.deepcopy(pod(objects))}
    test["metadata"] = {"name": "test", "annotations": {"helm.sh/hook": "test"}, "labels": {"a": "test"}}
    callers = {"ports": [{"port": 8080}], "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    objects[("NetworkPolicy", "starling")]["spec"]["ingress"] = [callers]
    objects["test"] = test


# What is done to the base, and words of the sentence that has to come of it.
WRONG = [
    (lambda o: o[NODE]["spec"].update(replica=3), "Additional properties are not allowed"),
    (lambda o: o[NODE]["spec"].update(replicas="3"), "'3' is not of type"),
    (lambda o: o[NODE].update(kind="NodeSet"), "there is no schema for apps/v1 NodeSet"),
    (lambda o: o[NODE]["spec"]["selector"]["matchLabels"].update(a="b"), "its selector is not that of its own pods"),
    (lambda o: o[NODE]["spec"].update(serviceName="other"), "the service other is not there"),
    (lambda o: pod(o).pop("automountServiceAccountToken"), "it has a token of the API server"),
    (
        lambda o: node(o)["env"].append({"name": "STARLING_KUBERNETES__ENABLED", "value": "true"}),
        "it scales others and has no token",
    ),
    (lambda o: o.update(role=role("delete", {"resourceNames": ["starling"]})), "it allows to delete statefulsets/scale"),
    (lambda o: o.update(role=role("patch", {})), "it allows to patch all statefulsets/scale there are"),
    (lambda o: o.update(role=role("patch", {"resourceNames": ["other"]})), "there is no StatefulSet other"),
    (lambda o: pod(o).pop("enableServiceLinks"), "it has variables for each service"),
    (lambda o: pod(o)["securityContext"].pop("runAsNonRoot"), "it is not kept from being root"),
    (lambda o: pod(o).update(hostNetwork=True), "it shares its machine"),
    (lambda o: pod(o)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "the volume h is a folder of its machine"),
    (lambda o: pod(o).update(terminationGracePeriodSeconds=70), "its grace period is 70 s, but a drain may take 77 s"),
    (lambda o: pod(o)["volumes"].pop(), "the volume models is not there"),
    (lambda o: node(o)["securityContext"].pop("readOnlyRootFilesystem"), "it may become more than it is"),
    (lambda o: node(o)["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}), "it has capabilities"),
    (lambda o: node(o)["resources"]["limits"].update(cpu="2"), "or has a CPU limit"),
    (lambda o: node(o)["resources"].pop("limits"), "it has no memory limit"),
    (lambda o: node(o)["livenessProbe"]["httpGet"].update(port="web"), "livenessProbe asks at web"),
    (lambda o: node(o)["ports"].pop(0), "no pod has the port http"),
    (
        lambda o: o[("PodDisruptionBudget", "starling")]["spec"]["selector"]["matchLabels"].update(a="b"),
        "no pod has the labels",
    ),
    (lambda o: o.pop(("ConfigMap", "starling")), "the config map starling is not there"),
    (lambda o: o.update(hpa=scaler(3620, 300)), "scaleDown: periodSeconds is 3620; it must be 1 to 1800"),
    (lambda o: o.update(hpa=scaler(60, 3601)), "scaleDown: stabilizationWindowSeconds is 3601; it must be 0 to 3600"),
    (tested, "Pod test may not come to 8080"),
    (lambda o: o.update(more=copy.deepcopy(o[NODE])), "StatefulSet starling: comes twice"),
]


def main(version):
    """Prints what was not found; the exit code says whether there was any."""
    documents = [document for document in yaml.safe_load_all(BASE.read_text(encoding="utf-8")) if document]
    right = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    missed = [f"the base is not right: {fault}" for fault in faults(right, version)]
    for spoil, wanted in WRONG:
        spoilt = copy.deepcopy(right)
        spoil(spoilt)
        found = faults(spoilt, version)
        if not any(wanted in fault for fault in found):
            missed.append(f"not found: {wanted}; but: {found}")
    print("\n".join(missed) or f"each of {len(WRONG)} faults is found")
    return 1 if missed else 0


def faults(objects, version):
    """All that validate.py says of them."""
    documents = list(objects.values())
    by_itself = [fault for document in documents for fault in schema_faults(document, version)]
    return by_itself + list(together(documents))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
