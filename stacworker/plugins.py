"""Resolve plugin references: an entry point's name, or `module:attribute`."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from stacworker.errors import ConfigError

KINDS = ("consumers", "generators", "sinks", "feeds")


def installed(kind: str) -> list[str]:
    """Return the names registered under `stacworker.<kind>`, sorted."""
    return sorted({point.name for point in entry_points(group=f"stacworker.{kind}")})


def resolve(kind: str, reference: str) -> Any:
    """Import what `reference` names: `module:attr`, or an entry point in `stacworker.<kind>`.

    Raises ConfigError with one line that says what is wrong and what there is.
    """
    if ":" in reference:
        return _import(reference, reference)
    for point in entry_points(group=f"stacworker.{kind}"):
        if point.name == reference:
            return _import(point.value, reference)
    raise ConfigError(
        f"unknown type {reference!r} for {kind}: installed are {', '.join(installed(kind)) or 'none'}; "
        "or give module:attribute"
    )


def _import(target: str, reference: str) -> Any:
    module_name, _, attribute = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # a module in the working directory, as `python -m` would find it
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises while it is imported
        raise ConfigError(
            f"type {reference!r}: cannot import {module_name!r}: {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"type {reference!r}: {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    return found
