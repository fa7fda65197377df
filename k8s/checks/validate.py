"""Checks manifests: every object against its schema, and all of them together against what a schema can't say.

    validate.py KUBERNETES_VERSION FILE...

Kubernetes' own kinds are checked strictly against its schemas, custom ones against those in schemas/, which hold the parts that
are used here. A kind that has neither is a fault. Each file is taken as a whole of its own: names that an object refers to have
to be in it, but for secrets, claims and classes, which somebody else may make.
"""

import json
import re
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

SCHEMAS = Path(__file__).parent / "schemas"

# What a pod that scales others may do, by group and resource.
RIGHTS = {
    ("apps", "statefulsets/scale"): {"get", "patch"},
    ("coordination.k8s.io", "leases"): {"get", "update", "create"},
    ("", "pods"): {"get"},
}

# The longest that the API server takes in an HPA's behavior (HPAScalingRules, HPAScalingPolicy).
LONGEST_WINDOW_S = 3600
LONGEST_PERIOD_S = 1800


def main(version, paths):
    """Prints every fault; the exit code says whether there was one."""
    faults, objects = [], 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents = [document for document in yaml.safe_load_all(file) if document]
        objects += len(documents)
        for document in documents:
            faults += [f"{path}: {fault}" for fault in schema_faults(document, version)]
        faults += [f"{path}: {fault}" for fault in together(documents)]
        if not documents:
            faults.append(f"{path}: there is nothing in it")
    print("\n".join(faults) or f"{objects} objects in {len(paths)} files are right for Kubernetes {version}")
    return 1 if faults else 0


def called(document):
    """What an object is called in messages."""
    return f"{document.get('kind')} {document.get('metadata', {}).get('name')}"


def schema_faults(document, version):
    """What is wrong with one object by itself."""
    own = SCHEMAS / f"{document.get('kind', '').lower()}.json"
    try:
        if own.exists():
            validator = jsonschema.Draft202012Validator(json.loads(own.read_text(encoding="utf-8")))
            for error in validator.iter_errors(document):
                yield f"{called(document)}: {error.json_path}: {error.message}"
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        yield f"{called(document)}: there is no schema for {document.get('apiVersion')} {document.get('kind')}"
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(part) for part in error.path)
        yield f"{called(document)}: {where}: {error.message}"


def together(documents):
    """What is wrong with objects beside each other."""
    templates = {called(document): pod_of(document) for document in documents if pod_of(document)}
    for name, pod in templates.items():
        yield from (f"{name}: {fault}" for fault in pod_faults(pod["spec"]))
    names = [(document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"]) for document in documents]
    yield from (f"{kind} {name}: comes twice" for kind, space, name in set(names) if names.count((kind, space, name)) > 1)
    config_maps = {name for kind, _, name in names if kind == "ConfigMap"}
    for name, pod in templates.items():
        yield from (f"{name}: {fault}" for fault in drain_faults(pod["spec"], documents))
        for volume in pod["spec"].get("volumes", []):
            if "configMap" in volume and volume["configMap"]["name"] not in config_maps:
                yield f"{name}: the config map {volume['configMap']['name']} is not there"
    for document in documents:
        yield from (f"{called(document)}: {fault}" for fault in reference_faults(document, templates, names))


def pod_of(document):
    """The pod that an object is or makes."""
    if document["kind"] == "Pod":
        return document
    return (
        document.get("spec", {}).get("template")
        if document["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job")
        else None
    )


def matches(selector, pod):
    """Whether all the labels are the pod's."""
    labels = pod["metadata"].get("labels", {})
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def reference_faults(document, templates, names):
    """What an object refers to and is not there."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Service":
        chosen = [pod for pod in templates.values() if matches(spec.get("selector"), pod)]
        ports = {
            port["name"] for pod in chosen for container in pod["spec"]["containers"] for port in container.get("ports", [])
        }
        yield from (f"no pod has the port {port['targetPort']}" for port in spec["ports"] if port["targetPort"] not in ports)
    if kind in ("PodDisruptionBudget", "NetworkPolicy"):
        selector = spec.get("selector", spec.get("podSelector", {})).get("matchLabels")
        if not any(matches(selector, pod) for pod in templates.values()):
            yield f"no pod has the labels {selector}"
    if kind in ("StatefulSet", "Deployment", "DaemonSet") and not matches(spec["selector"]["matchLabels"], spec["template"]):
        yield "its selector is not that of its own pods"
    if kind == "StatefulSet" and ("Service", None, spec["serviceName"]) not in names:
        yield f"the service {spec['serviceName']} is not there"
    if kind == "NetworkPolicy":
        yield from policy_faults(spec, templates)
    yield from behavior_faults(spec)
    target = spec.get("scaleTargetRef")
    if target and (target["kind"], None, target["name"]) not in names:
        yield f"there is no {target['kind']} {target['name']} to scale"
    if kind == "Role":
        yield from role_faults(document["rules"], names)
    if kind == "RoleBinding" and (document["roleRef"]["kind"], None, document["roleRef"]["name"]) not in names:
        yield f"there is no {document['roleRef']['kind']} {document['roleRef']['name']}"
    if kind == "Ingress":
        for rule in spec["rules"]:
            for path in rule["http"]["paths"]:
                if ("Service", None, path["backend"]["service"]["name"]) not in names:
                    yield f"the service {path['backend']['service']['name']} is not there"


def policy_faults(spec, templates):
    """Whether a pod that tests the release is kept from it."""
    for name, pod in templates.items():
        if "helm.sh/hook" not in pod["metadata"].get("annotations", {}) or "Ingress" not in spec["policyTypes"]:
            continue
        rules = [rule for rule in spec.get("ingress", []) if any(port["port"] == 8080 for port in rule.get("ports", []))]
        peers = [peer.get("podSelector", {}).get("matchLabels") for rule in rules for peer in rule.get("from", [])]
        if all("from" in rule for rule in rules) and not any(matches(labels, pod) for labels in peers):
            yield f"{name} may not come to 8080"


def behavior_faults(spec):
    """What the API server refuses in how a workload is scaled, though its schema does not say so."""
    advanced = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
    for way, rules in {**spec.get("behavior", {}), **advanced.get("behavior", {})}.items():
        window = rules.get("stabilizationWindowSeconds", 0)
        if not 0 <= window <= LONGEST_WINDOW_S:
            yield f"{way}: stabilizationWindowSeconds is {window}; it must be 0 to {LONGEST_WINDOW_S}"
        for period in (policy["periodSeconds"] for policy in rules.get("policies", [])):
            if not 0 < period <= LONGEST_PERIOD_S:
                yield f"{way}: periodSeconds is {period}; it must be 1 to {LONGEST_PERIOD_S}"


def role_faults(rules, names):
    """What a role allows beyond what scaling takes."""
    for rule in rules:
        verbs, objects = set(rule["verbs"]), rule.get("resourceNames", [])
        for group, resource in ((group, resource) for group in rule["apiGroups"] for resource in rule["resources"]):
            more = verbs - RIGHTS.get((group, resource), set())
            if more:
                yield f"it allows to {', '.join(sorted(more))} {resource}"
            # The name of what is made is not known to who decides.
            if not objects and verbs != {"create"}:
                yield f"it allows to {', '.join(sorted(verbs))} all {resource} there are"
            if resource == "statefulsets/scale":
                yield from (f"there is no StatefulSet {name}" for name in objects if ("StatefulSet", None, name) not in names)


def scales(spec):
    """Whether a pod scales others."""
    variables = (variable for container in spec["containers"] for variable in container.get("env", []))
    return any(variable["name"] == "STARLING_KUBERNETES__ENABLED" for variable in variables)


def pod_faults(spec):
    """What Kubernetes' level "restricted" asks of a pod, and what this project asks."""
    if spec.get("automountServiceAccountToken") is not scales(spec):
        yield "it scales others and has no token" if scales(spec) else "it has a token of the API server"
    if spec.get("enableServiceLinks") is not False:
        yield "it has variables for each service, which may look like settings"
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "it is not kept from being root, or has no seccomp profile"
    if spec.get("hostNetwork") or spec.get("hostPID") or spec.get("hostIPC"):
        yield "it shares its machine"
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"the volume {volume['name']} is a folder of its machine"
    for container in spec.get("initContainers", []) + spec["containers"]:
        yield from (f"container {container['name']}: {fault}" for fault in container_faults(container, volumes))


def drain_faults(spec, documents):
    """Whether a pod has the time that its longest drain takes: the deadline, 2 s of last words, 10 s for decoders to end."""
    settle = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds")
    for config in (document["data"]["cluster.toml"] for document in documents if "cluster.toml" in document.get("data", {})):
        deadline = int(re.search(r'^drain_deadline = "(\d+)s"$', config, re.MULTILINE).group(1))
        grace, longest = spec.get("terminationGracePeriodSeconds", 30), (settle or 0) + deadline + 12
        if settle is not None and grace < longest:
            yield f"its grace period is {grace} s, but a drain may take {longest} s"


def container_faults(container, volumes):
    """What is wrong with one container."""
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("readOnlyRootFilesystem") is not True:
        yield "it may become more than it is, or write to its root"
    if security.get("capabilities") != {"drop": ["ALL"]} or security.get("privileged"):
        yield "it has capabilities"
    limits = container.get("resources", {}).get("limits", {})
    if "memory" not in limits or "cpu" in limits:
        yield "it has no memory limit, or has a CPU limit"
    yield from (
        f"the volume {mount['name']} is not there"
        for mount in container.get("volumeMounts", [])
        if mount["name"] not in volumes
    )
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        port = container.get(probe, {}).get("httpGet", {}).get("port")
        if port and port not in ports:
            yield f"{probe} asks at {port}, which is no port of it"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
