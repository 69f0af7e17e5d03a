"""deploy/k8s's workers as `podman kube play` (4.3) can play them: what is changed, and what is left out and why.

A field that is in neither list is an error, so that nothing counts as tried that was not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.kustomize import Document, build
from tests.image.container import Failed

OVERLAY = Path(__file__).parents[2] / "deploy" / "k8s" / "overlays" / "localstack"
WORKLOADS = {"stacworker-migrate": "Job", "stacworker-items": "Deployment", "stacworker-requests": "Deployment"}
SECRET, SECRET_KEY = "stacworker-database", "dsn"
IN_CLUSTER = "http://localstack:4566"
GRANULES_AT = "/data/naip"
ENVIRONMENTS = "STACWORKER_ENVIRONMENTS__FOLDER"

PLAYED = (
    *("restartPolicy", "terminationGracePeriodSeconds", "securityContext.runAsUser", "securityContext.runAsGroup"),
    *(f"containers.{name}" for name in ("name", "image", "imagePullPolicy", "args", "env")),
    *(f"containers.resources.{name}.memory" for name in ("limits", "requests")),
    *(
        f"containers.securityContext.{name}"
        for name in ("allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem")
    ),
    *(f"containers.volumeMounts.{name}" for name in ("name", "mountPath", "readOnly")),
    *("volumes.name", "volumes.configMap", "volumes.emptyDir"),
)
LEFT_OUT = {
    "containers.startupProbe": "podman 4.3 knows none; its request is made from here",
    "containers.livenessProbe": "podman would run curl in the container, which has none; its request is made from here",
    "containers.readinessProbe": "podman knows none; its request is made from here",
    "containers.lifecycle": "podman runs no preStop",
    "containers.ports": "podman refuses to publish ports of pods on the host's network",
    "containers.resources.requests.cpu": "nothing is scheduled",
    "containers.resources.requests.ephemeral-storage": "podman does not limit it",
    "containers.resources.limits.ephemeral-storage": "podman does not limit it",
    "volumes.emptyDir.sizeLimit": "podman does not limit it",
    "containers.volumeMounts.subPath": "podman 4.3 mounts the whole ConfigMap there; it is mounted one folder higher",
    "securityContext.fsGroup": "podman ignores it; the emptyDir has the rights of the image's /tmp",
    "securityContext.fsGroupChangePolicy": "as above",
    "securityContext.runAsNonRoot": "podman ignores it; the uid is looked at",
    "securityContext.seccompProfile": "podman has a profile of its own; that there is one is looked at",
    "topologySpreadConstraints": "there is one host",
    "serviceAccountName": "there is no Kubernetes",
    "automountServiceAccountToken": "as above",
    "enableServiceLinks": "as above",
}
CHANGED = (
    f"{IN_CLUSTER} and the DSN are this machine's, whose network the pods have; http is on a free port of 127.0.0.1",
    "the Job is played as a Pod: podman passes over Jobs (backoffLimit, activeDeadlineSeconds: not tried)",
    "the Secret is made with `podman secret create`: 4.3 cannot read those that it makes of kind Secret",
    "emptyDirs have a name for each pod: podman shares those of one name",
    f"{ENVIRONMENTS} is the image's, which has the generator's packages: the pods reach no index",
    f"the worker for requests has granules in {GRANULES_AT}, by a hostPath and its generator's local_paths",
    "ServiceAccounts, PodDisruptionBudgets, Services are passed over by podman",
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One pod to be: its documents, where it listens, and what the original says of it."""

    name: str
    pod: str
    container: str
    documents: list[Document]
    port: int
    original: Document
    """The pod's spec as deploy/k8s has it."""

    @property
    def grace_s(self) -> int:
        """How long it may take to stop."""
        return int(self.original["terminationGracePeriodSeconds"])

    def probes(self) -> dict[str, str]:
        """Return the addresses that the kubelet would ask, by the probe's name."""
        (container,) = self.original["containers"]
        ports = [each["name"] for each in container["ports"]]
        found = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
        if strays := {each["port"] for each in found.values()} - set(ports):
            raise Failed(f"{self.name}: probes ask ports that are not there: {strays}")
        return {name: f"http://127.0.0.1:{self.port}{each['path']}" for name, each in found.items()}


def settings_of(name: str) -> str:
    """Return the settings that deploy/k8s gives a worker."""
    return str(_one("ConfigMap", name)["data"]["stacworker.yaml"])


def workload(name: str, endpoint_url: str, port: int, granules: Path) -> Workload:
    """Return a workload as podman can play it."""
    kind = WORKLOADS[name]
    document = _one(kind, name)
    original = document["spec"]["template"]["spec"]
    known = (*PLAYED, *LEFT_OUT)
    if unknown := {path for path in leaves(original) if not any(f"{path}.".startswith(f"{each}.") for each in known)}:
        raise Failed(f"{name}: neither played nor left out: {', '.join(sorted(unknown))}")
    spec = _pruned(original)
    spec["hostNetwork"] = True
    (container,) = spec["containers"]
    container["env"] = [each for each in container["env"] if each["name"] != ENVIRONMENTS]
    for mount in container["volumeMounts"]:
        mount["name"] = f"{name}-{mount['name']}"
        if Path(mount["mountPath"]).suffix:
            mount["mountPath"] = str(Path(mount["mountPath"]).parent)
    for volume in spec["volumes"]:
        volume["name"] = f"{name}-{volume['name']}"
    if name == "stacworker-requests":
        container["volumeMounts"].append({"name": "granules", "mountPath": GRANULES_AT, "readOnly": True})
        spec["volumes"].append({"name": "granules", "hostPath": {"path": str(granules), "type": "Directory"}})
    config = _one("ConfigMap", name)
    settings = json.loads(json.dumps(yaml.safe_load(settings_of(name))).replace(IN_CLUSTER, endpoint_url))
    if "http" in settings:
        settings["http"] = {"host": "127.0.0.1", "port": port}
    for generator in settings.get("generators", {}).values():
        generator["local_paths"] = [GRANULES_AT]
    config["data"] = {"stacworker.yaml": yaml.safe_dump(settings)}
    if kind == "Job":
        labels = document["spec"]["template"]["metadata"]["labels"]
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    else:
        document["spec"]["template"]["spec"] = spec
    pod = name if kind == "Job" else f"{name}-pod-0"
    return Workload(name, pod, f"{pod}-{container['name']}", [config, document], port, original)


def _one(kind: str, name: str) -> Document:
    (found,) = [each for each in build(OVERLAY) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def leaves(node: Any, at: str = "") -> Iterator[str]:
    """Yield the dotted path of each value, the places of lists left out."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{at}.{key}".lstrip("."))
    elif isinstance(node, list):
        for each in node:
            yield from leaves(each, at)
    else:
        yield at


def _pruned(node: Any, at: str = "") -> Any:
    """Return a copy without what is left out."""
    if isinstance(node, dict):
        paths = {key: f"{at}.{key}".lstrip(".") for key in node}
        return {key: _pruned(value, paths[key]) for key, value in node.items() if paths[key] not in LEFT_OUT}
    return [_pruned(each, at) for each in node] if isinstance(node, list) else node
