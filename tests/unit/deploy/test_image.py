"""What the image is made from fits together; that it works is for scripts/image to show."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.image.container import Failed
from tests.image.manifests import LEFT_OUT, WORKLOADS, leaves, settings_of, workload

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
EXTRAS = ("environments", "raster", "stactools")
"""Those of the image by default."""
LOCKED = tuple(sorted(path.stem.removeprefix("extra-") for path in (ROOT / "requirements").glob("extra-*.txt")))


def pins(name: str) -> dict[str, str]:
    """Return what a lock file pins, name (with its marker, where it has one) to version."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)([^\\\n]*)", text, re.MULTILINE)
    return {f"{package}{marker}": version for package, version, marker in found}


@pytest.mark.parametrize("extra", LOCKED)
def test_an_extra_brings_what_was_tested(extra: str) -> None:
    """Its lock has the versions of the one that tests run with, so that extras can be put together."""
    tested, locked = pins("dev.txt"), pins(f"extra-{extra}.txt")
    versions = {(key.partition(" ")[0], version) for key, version in tested.items()}
    assert {(key.partition(" ")[0], version) for key, version in locked.items()} <= versions
    assert {key.partition(" ")[0] for key in pins("runtime.txt")} < {key.partition(" ")[0] for key in locked}


def test_every_extra_of_the_image_has_a_lock() -> None:
    """What is built by default can be built."""
    (default,) = re.findall(r'^ARG EXTRAS="(.*)"$', DOCKERFILE, re.MULTILINE)
    assert tuple(sorted(default.split())) == EXTRAS


def test_the_documentation_names_every_extra() -> None:
    """Whoever builds an image finds each extra in docs/docker.md, and in the Dockerfile those that it can have."""
    extras = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    )
    assert extras <= set(re.findall(r"`([a-z]+)`", (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")))
    (named,) = re.findall(r"^# Any of: ([a-z ]+) \(", DOCKERFILE, re.MULTILINE)
    assert tuple(sorted(named.split())) == LOCKED


def test_the_context_has_what_is_copied() -> None:
    """The .dockerignore, which leaves out all but what it names, names every source of a COPY."""
    named = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    sources = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert {source for source in sources if source not in named} == {"requirements", "requirements/uv.txt"}
    assert "requirements/*.txt" in named
    assert all((ROOT / source).exists() for source in sources)


def test_podman_is_given_every_field_or_told_to_leave_it_out() -> None:
    """What scripts/image plays of deploy/k8s has no field that nobody decided on, and no decision without a field."""
    found = set()
    for name in WORKLOADS:
        found |= set(leaves(workload(name, "http://127.0.0.1:1", 8081, Path("/granules")).original))
    assert {path for path in LEFT_OUT if not any(f"{each}.".startswith(f"{path}.") for each in found)} == set()


def test_a_field_that_is_neither_played_nor_left_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would count as tried."""
    monkeypatch.delitem(LEFT_OUT, "topologySpreadConstraints")
    with pytest.raises(Failed, match=r"stacworker-items: neither played nor left out: topologySpreadConstraints"):
        workload("stacworker-items", "http://127.0.0.1:1", 8081, Path("/granules"))


def test_only_places_change_in_what_podman_is_given() -> None:
    """Arguments, environment, rights and limits are those of deploy/k8s."""
    load = workload("stacworker-items", "http://127.0.0.1:1", 8081, Path("/granules"))
    (container,) = load.documents[1]["spec"]["template"]["spec"]["containers"]
    (original,) = load.original["containers"]
    for key in ("args", "image", "env", "securityContext"):
        assert container[key] == original[key]
    settings = load.documents[0]["data"]["stacworker.yaml"]
    assert "localstack:4566" in settings_of("stacworker-items")
    assert "localstack:4566" not in settings
    assert load.probes()["readinessProbe"] == "http://127.0.0.1:8081/readyz"
