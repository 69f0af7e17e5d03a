"""Reading the settings file as YAML. Its mistakes are told without a word of what stands in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from stacworker.errors import ConfigError

_QUOTED = re.compile(r"'([^']*)'")


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a file, {} when it is empty; raise ConfigError that quotes nothing of it."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read settings from {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read settings from {path}: not UTF-8 at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {_problem(error)}") from None
    except (ValueError, RecursionError) as error:  # such as a date with a month 13
        raise ConfigError(f"{path} is not YAML that can be read: {type(error).__name__}") from None
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"{path}: the top level must be a mapping, such as `consumers: […]`")
    return found or {}


def _problem(error: yaml.YAMLError) -> str:
    """Say what and where. PyYAML's own text shows the line, and what it puts in quotes may be half a password."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None:
        return "it holds a character that YAML does not allow"
    told = str(getattr(error, "problem", None) or "it cannot be read")
    problem = _QUOTED.sub(lambda found: found[0] if _is_syntax(found[1]) else "…", told)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _is_syntax(word: str) -> bool:
    return len(word.removeprefix("\\")) == 1 or (word.startswith("<") and word.endswith(">"))
