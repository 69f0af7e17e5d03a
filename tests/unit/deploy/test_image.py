"""What the image is made from fits together; that it works is for scripts/image to show."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

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
