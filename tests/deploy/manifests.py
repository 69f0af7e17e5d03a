"""deploy/k8s as it has to be: what the chart renders, without what only Helm understands."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.chart import ROOT, Document, merge, render

K8S = ROOT / "deploy" / "k8s"
BASE = K8S / "base"
OVERLAYS = K8S / "overlays"

_LABELS_OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")
_KINDS_LEFT_OUT = ("Pod",)  # the tests of a release
_HASH = re.compile(r"-[2456789bcdfghkmt]{10}$")
"""What kustomize appends to a generated ConfigMap's name: ten letters and digits that spell no word."""
_HEAD = "# Made from the chart with values.yaml by scripts/chart --write.\n"


def from_chart(*values_files: Path) -> list[Document]:
    """Return the chart's documents for these values, the later over the earlier, as plain manifests."""
    values: Document = {}
    for path in values_files:
        merge(values, copy.deepcopy(yaml.safe_load(path.read_text(encoding="utf-8"))))
    documents = render(values, release="stacworker")
    return [_plain(each) for each in documents if each["kind"] not in _KINDS_LEFT_OUT]


def base_files() -> dict[Path, str]:
    """Return the text of every file of the base by its path: one for each kind, settings, and what names them."""
    kinds: dict[str, list[Document]] = {}
    for each in from_chart(BASE / "values.yaml"):
        kinds.setdefault(each["kind"].lower(), []).append(each)
    settings = kinds.pop("configmap")
    files = {BASE / f"{kind}.yaml": _HEAD + dump(documents) for kind, documents in sorted(kinds.items())}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [path.name for path in files],
        "configMapGenerator": [_generator(each["metadata"]) for each in settings],
    }
    files |= {BASE / _settings_file(each["metadata"]): _HEAD + each["data"]["stacworker.yaml"] for each in settings}
    return {**files, BASE / "kustomization.yaml": _HEAD + dump([kustomization])}


def _generator(metadata: Document) -> Document:
    """Return what makes a ConfigMap whose name changes with the settings, and so replaces the pods that have them."""
    return {
        "name": metadata["name"],
        "files": [f"stacworker.yaml={_settings_file(metadata)}"],
        "options": {"labels": metadata["labels"]},
    }


def _settings_file(metadata: Document) -> str:
    return f"settings/{metadata['name']}.yaml"


def overlay_files() -> dict[Path, str]:
    """Return the text of each file with kinds that an overlay adds to the base, by its path."""
    ours = {(each["kind"], each["metadata"]["name"]) for each in from_chart(BASE / "values.yaml")}
    files = {}
    for values in sorted(OVERLAYS.glob("*/values.yaml")):
        added: dict[str, list[Document]] = {}
        for each in from_chart(BASE / "values.yaml", values):
            if (each["kind"], each["metadata"]["name"]) not in ours:
                added.setdefault(each["kind"].lower(), []).append(each)
        files |= {values.parent / f"{kind}.yaml": _HEAD + dump(documents) for kind, documents in added.items()}
    return files


def normal(documents: list[Document]) -> dict[tuple[str, str], Document]:
    """Return documents by kind and name; left out: variables' order, settings' layout, what a name has of kustomize."""
    found = {}
    for each in copy.deepcopy(documents):
        _forget_hashes(each)
        for container in each.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            container.get("env", []).sort(key=lambda variable: variable["name"])
        if each["kind"] == "ConfigMap" and "stacworker.yaml" in each["data"]:
            each["data"]["stacworker.yaml"] = yaml.safe_load(each["data"]["stacworker.yaml"])
        found[each["kind"], each["metadata"]["name"]] = each
    return found


def _forget_hashes(document: Document) -> None:
    volumes = document.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", ())
    named = [volume["configMap"] for volume in volumes if "configMap" in volume]
    for each in [*named, *([document["metadata"]] if document["kind"] == "ConfigMap" else [])]:
        each["name"] = _HASH.sub("", each["name"])


def _plain(document: Document) -> Document:
    metadata: dict[str, Any] = document["metadata"]
    for label in _LABELS_OF_HELM:
        metadata["labels"].pop(label, None)
    kept = {key: value for key, value in metadata.pop("annotations", {}).items() if not key.startswith("helm.sh/")}
    if kept:
        metadata["annotations"] = kept
    template = document.get("spec", {}).get("template", {}).get("metadata", {})
    template.get("annotations", {}).pop("checksum/config", None)  # kustomize has hashes in names
    if template.get("annotations") == {}:
        del template["annotations"]
    return document


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(documents: list[Document]) -> str:
    """Return documents as a YAML file, in their own order of keys."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=1000)
