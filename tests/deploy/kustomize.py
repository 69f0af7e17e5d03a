"""The part of kustomize that deploy/k8s uses, for machines that have none; a test holds it against the real one.

Anything else in a kustomization is an error, so that an overlay cannot use what is not checked.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "resources", "configMapGenerator", "patches", "images"}
_MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
"""Lists that are merged by a key of their entries; all others are replaced."""


def build(folder: Path) -> list[Document]:
    """Return what `kustomize build` prints, in any order and without the hashes in names of generated ConfigMaps.

    Raises ValueError for what it does not know.
    """
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    if unknown := set(kustomization) - _KNOWN:
        raise ValueError(f"{folder}: not known here: {', '.join(sorted(unknown))}")
    documents: list[Document] = []
    for name in kustomization.get("resources", ()):
        path = folder / name
        documents += build(path) if path.is_dir() else _read(path)
    for entry in kustomization.get("configMapGenerator", ()):
        _generate(folder, documents, entry)
    for entry in kustomization.get("patches", ()):
        if set(entry) != {"path"}:
            raise ValueError(f"{folder}: a patch is a path here, not {entry}")
        for patch in _read(folder / entry["path"]):
            _patch(documents, patch)
    for image in kustomization.get("images", ()):
        _rename(documents, image)
    return documents


def _read(path: Path) -> list[Document]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each is not None]


def _generate(folder: Path, documents: list[Document], entry: Document) -> None:
    keys = dict(each.split("=") for each in entry["files"])
    data = {key: (folder / name).read_text(encoding="utf-8") for key, name in keys.items()}
    metadata = {"name": entry["name"], **entry.get("options", {})}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    match entry:
        case {"name": _, "files": _, "behavior": "merge", **rest} if not rest:
            _patch(documents, made)
        case {"name": _, "files": _, "options": {"labels": _}, **rest} if not rest:
            documents.append(made)
        case _:
            raise ValueError(f"{folder}: a ConfigMap is made of files with labels, or merged, not {entry}")


def _patch(documents: list[Document], patch: Document) -> None:
    key = _id(patch)
    found = [each for each in documents if _id(each) == key]
    if len(found) != 1:
        raise ValueError(f"a patch of {key} meets {len(found)} resources")
    if patch.get("$patch") == "delete":
        documents.remove(found[0])
        return
    _merge(found[0], patch)


def _id(document: Document) -> tuple[str, str, str]:
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def _merge(onto: Document, patch: Document) -> None:
    for key, value in patch.items():
        if value is None:
            onto.pop(key, None)
        elif isinstance(value, dict):
            _merge(onto.setdefault(key, {}), value)
        elif isinstance(value, list) and key in _MERGE_KEYS:
            onto[key] = _merged(onto.get(key, []), value, _MERGE_KEYS[key])
        else:
            onto[key] = copy.deepcopy(value)


def _merged(entries: list[Document], patches: list[Document], by: str) -> list[Document]:
    """Merge lists by a key; what is new comes first, as kustomize does it."""
    known = {each[by] for each in entries}
    for patch in patches:
        for each in entries:
            if each[by] == patch[by]:
                _merge(each, patch)
    return [copy.deepcopy(each) for each in patches if each[by] not in known] + entries


def _rename(documents: list[Document], image: Document) -> None:
    for document in documents:
        template = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in template.get("containers", []) + template.get("initContainers", []):
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
