"""What the demo needs before it begins."""

from __future__ import annotations

import pytest

from stacworker.demo import run
from stacworker.demo.show import Show
from stacworker.errors import ConfigError


def test_missing_packages_are_named_before_anything_starts(monkeypatch):
    """Without the extra `demo` it says what is missing and how to get it."""
    monkeypatch.setattr(run, "_NEEDED", ("orjson", "no_such_package", "no_such_parent.child"))

    with pytest.raises(ConfigError) as caught:
        run.run_demo(run.Options(), Show())

    missing = "no_such_package, no_such_parent.child"
    assert str(caught.value) == (
        f"the demo needs packages that are not installed ({missing}): pip install 'stacworker[demo]'"
    )
