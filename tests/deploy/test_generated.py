"""What is made from the chart is in step with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import Document
from tests.deploy.kubernetes import problems
from tests.deploy.kustomize import build
from tests.deploy.manifests import BASE, K8S, OVERLAYS, base_files, from_chart, normal, overlay_files

ADVICE = "run scripts/chart --write"
FOLDERS = [BASE, *sorted(path.parent for path in OVERLAYS.glob("*/kustomization.yaml"))]
folders = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def test_the_manifests_are_what_the_chart_renders() -> None:
    """No file of deploy/k8s that is made from the chart was left behind by it or changed by hand."""
    expected = base_files() | overlay_files()
    assert {path: path.read_text(encoding="utf-8") for path in expected} == expected, ADVICE
    assert {path for path in BASE.rglob("*") if path.is_file()} == {*base_files(), BASE / "values.yaml"}


@folders
def test_kubernetes_would_take_every_manifest(folder: Path) -> None:
    """Each document that an overlay gives fits its schema strictly."""
    found = {f"{each['kind']} {each['metadata']['name']}": problems(each) for each in build(folder)}
    assert {name: lines for name, lines in found.items() if lines} == {}


@folders
def test_an_overlay_is_the_chart_with_its_values(folder: Path) -> None:
    """What an overlay makes of the base is what the chart renders with the base's values and the overlay's."""
    values = [BASE / "values.yaml", *([folder / "values.yaml"] if folder != BASE else [])]
    chart = normal(from_chart(*values))
    assert {key: each for key, each in normal(build(folder)).items() if key in chart} == chart


@folders
def test_only_what_an_overlay_is_for_stands_beside_the_chart(folder: Path) -> None:
    """Beyond the chart's resources there are LocalStack and a Postgres, and only in the overlay for them."""
    values = [BASE / "values.yaml", *([folder / "values.yaml"] if folder != BASE else [])]
    beside = {name for kind, name in normal(build(folder)).keys() - normal(from_chart(*values)).keys()}
    expected = {"localstack", "localstack-queues", "postgres", "stacworker-database"}
    assert beside == (expected if folder.name == "localstack" else set())


@folders
def test_changed_settings_replace_the_pods(folder: Path, tmp_path: Path) -> None:
    """Pods name their settings with a hash of them: other settings are another name, and so other pods."""
    copied = shutil.copytree(K8S, tmp_path / "k8s") / folder.relative_to(K8S)
    before = names_of_settings(real_kustomize(copied))
    for path in copied.rglob("settings/stacworker-*.yaml"):
        path.write_text(path.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    if folder.name == "eks-keda":
        path = tmp_path / "k8s" / "base" / "settings" / "stacworker-items.yaml"
        path.write_text(path.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    after = names_of_settings(real_kustomize(copied))
    assert after.keys() == before.keys() == {"stacworker-items", "stacworker-requests", "stacworker-migrate"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == ({"stacworker-items"} if folder.name == "eks-keda" else set(before))


def names_of_settings(documents: list[Document]) -> dict[str, str]:
    """Return by each pod template's owner the ConfigMap with its settings; it has to be there."""
    made = {each["metadata"]["name"] for each in documents if each["kind"] == "ConfigMap"}
    found = {}
    for each in documents:
        for volume in each.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", ()):
            if volume["name"] == "config":
                found[each["metadata"]["name"]] = volume["configMap"]["name"]
    assert set(found.values()) <= made
    return found


@folders
def test_our_kustomize_does_what_the_real_one_does(folder: Path) -> None:
    """Where kustomize or kubectl is installed, it makes the same of every folder."""
    assert normal(build(folder)) == normal(real_kustomize(folder))


def real_kustomize(folder: Path) -> list[Document]:
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, str(folder)], check=True, capture_output=True, text=True, timeout=60)
            return list(yaml.safe_load_all(done.stdout))
    pytest.skip("neither kustomize nor kubectl on the PATH")
