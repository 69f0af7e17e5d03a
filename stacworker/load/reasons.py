"""Words for what is wrong with a document."""

from __future__ import annotations

import reprlib
from typing import Any

from pydantic import ValidationError

# Documents may be large and deep; a reason shows the beginning.
_SHOWN_MAX = 120
_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = 80


def shown(value: Any) -> str:
    """Return a value as a reason quotes it: clipped, whatever its size."""
    text = _shortener.repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"


def explain(error: ValidationError) -> str:
    """Say in one line where a document is wrong, why, and what stands there."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:_SHOWN_MAX] or "document"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}, not {shown(first['input'])}{more}"
