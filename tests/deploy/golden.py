"""What every scenario of the chart's ci folder renders, kept so that each change of it is looked at."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.deploy.chart import SCENARIOS, Document, render
from tests.deploy.manifests import dump

GOLDEN = Path(__file__).parent / "golden"

_HEAD = "# What the chart renders with {name}; made by scripts/chart --write.\n"
_LABELS_WITH_VERSIONS = ("helm.sh/chart", "app.kubernetes.io/version")
_ELSEWHERE = "left out here"


def golden_files() -> dict[Path, str]:
    """Return the text of every golden file by its path."""
    return {GOLDEN / path.name.replace("-values", ""): _golden(path) for path in SCENARIOS}


def _golden(path: Path) -> str:
    documents = render(yaml.safe_load(path.read_text(encoding="utf-8")))
    kept = sorted((_kept(each) for each in documents), key=lambda each: (each["kind"], each["metadata"]["name"]))
    return _HEAD.format(name=f"ci/{path.name}") + dump(kept)


def _kept(document: Document) -> Document:
    """Return a document without what changes with versions, and without the bodies that are files of their own."""
    for label in _LABELS_WITH_VERSIONS:
        document["metadata"].get("labels", {}).pop(label, None)
    if document["kind"] == "PrometheusRule":
        document["spec"] = _ELSEWHERE
    if document["kind"] == "ConfigMap" and "-dashboard-" in document["metadata"]["name"]:
        document["data"] = dict.fromkeys(document["data"], _ELSEWHERE)
    return document
