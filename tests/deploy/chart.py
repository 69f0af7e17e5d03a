"""The chart, rendered with Helm's own library."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "stacworker"
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
Document = dict[str, Any]

MINIMAL: Document = yaml.safe_load((CHART / "ci" / "minimal-values.yaml").read_text(encoding="utf-8"))


def render(values: Document, *, chart: Path = CHART, release: str = "demo", upgrade: bool = False) -> list[Document]:
    """Return the documents of a release, hooks included; raises HelmError as `helm install` would fail."""
    texts = rendered(values, chart=chart, release=release, upgrade=upgrade)
    return [
        document
        for path, text in sorted(texts.items())
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document is not None
    ]


def rendered(values: Document, *, chart: Path = CHART, release: str = "demo", upgrade: bool = False) -> dict[str, str]:
    """Return each template's text."""
    import helm_python  # noqa: PLC0415 - 85 MB that only these tests need

    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        return loaded.render(values, name=release, namespace="stac", is_install=not upgrade, is_upgrade=upgrade)


def minimal(**changes: Any) -> Document:
    """Return the minimal values with other ones at their top level, and `items` for keys of the worker items."""
    values = copy.deepcopy(MINIMAL)
    merge(values["workers"]["items"], changes.pop("items", {}))
    merge(values, changes)
    return values


def merge(onto: Document, over: Document) -> Document:
    """Change `onto` by `over`, mapping by mapping, as Helm merges values."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(onto.get(key), dict):
            merge(onto[key], value)
        else:
            onto[key] = value
    return onto


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    """Return the documents of a kind by name."""
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yield the specification of every pod there is, with its owner's name."""
    for each in documents:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]
        elif each["kind"] in ("Deployment", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def settings_texts(documents: list[Document]) -> dict[str, str]:
    """Return every settings file by its ConfigMap's name."""
    return {
        name: each["data"]["stacworker.yaml"]
        for name, each in of_kind(documents, "ConfigMap").items()
        if "stacworker.yaml" in each["data"]
    }


def values_of(path: Path) -> Document:
    """Return a file of values."""
    values: Document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def deployment(values: Document) -> Any:
    """Return the Deployment of the worker items."""
    return of_kind(render(values), "Deployment")["demo-stacworker-items"]


def refusal(values: Document) -> str:
    """Return the message with which the values are refused; "" when they are not."""
    from helm_python import HelmError  # noqa: PLC0415 - only these tests need it

    try:
        render(values)
    except HelmError as error:
        return str(error)
    return ""
