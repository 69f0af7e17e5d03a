"""Without Helm's library there is nothing to test here: `scripts/chart` brings it."""

from __future__ import annotations

import importlib.util

import pytest

_NEEDED = ("helm_python", "kubernetes_validate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run, with the command that runs it."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        for item in items:
            if "tests/deploy/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason=f"no {', '.join(missing)}: scripts/chart brings it"))
