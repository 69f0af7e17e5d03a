"""Without Helm's library only what is text can be tested here: `scripts/chart` brings it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_NEEDED = ("helm_python", "kubernetes_validate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run, with the command that runs it."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        for item in items:
            if item.path.parent == Path(__file__).parent and item.path.name != "test_texts.py":
                item.add_marker(pytest.mark.skip(reason=f"no {', '.join(missing)}: scripts/chart brings it"))
