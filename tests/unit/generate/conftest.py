"""Generators over real child processes, and a check that none is left."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stacworker.generate.function import FunctionGenerator
from stacworker.generate.recipe import Limits
from stacworker.metrics import Metrics

FUNCTIONS = str(Path(__file__).parent / "functions")


def make_generator(ref: str, **changes: Any) -> FunctionGenerator:
    """Make a generator for a function in generate_samples; keywords are Limits' or FunctionGenerator's."""
    of_limits = {key: changes.pop(key) for key in list(changes) if key in Limits.__dataclass_fields__}
    arguments: dict[str, Any] = {
        "name": "sample",
        "ref": f"generate_samples:{ref}" if ":" not in ref else ref,
        "options": {},
        "limits": Limits(**{"processes": 1, "timeout_s": 20, **of_limits}),
        "metrics": Metrics(),
        "environ": dict(os.environ),
        "path": [FUNCTIONS],
    }
    return FunctionGenerator(**{**arguments, **changes})


@pytest.fixture
def generator() -> Callable[..., FunctionGenerator]:
    return make_generator


def state_and_parent(pid: int) -> tuple[str, int]:
    """Return what /proc says of a process; ("", 0) when there is none."""
    try:  # "pid (name) state parent …", and a name may hold spaces and brackets
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


def is_running(pid: int) -> bool:
    """Whether a process is there and not just waiting to be buried."""
    return state_and_parent(pid)[0] not in ("", "Z", "X")


def child_pids() -> set[int]:
    """Our child processes, dead ones that were not waited for included."""
    pids = {int(folder.name) for folder in Path("/proc").glob("[0-9]*")}
    return {pid for pid in pids if state_and_parent(pid)[1] == os.getpid()}


def open_descriptors() -> int:
    """Count our open descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No test leaves a process, a folder or a descriptor behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before, descriptors = child_pids(), open_descriptors()
    yield
    assert child_pids() <= before
    assert list(temporary.iterdir()) == []
    assert open_descriptors() <= descriptors
