"""What a target returns → items as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import singledispatch
from typing import Any

try:
    import orjson
except ImportError:  # another environment need not have it
    orjson = None  # type: ignore[assignment]

MAX_DEPTH = 100


class NotItems(Exception):  # noqa: N818 - says what the value is
    """The target returned something that is not items, or items that are not JSON."""

    error_class = "generator_error"


def items_of(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the items in what a target returned; raise NotItems where it is anything else."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, dict):
        value = value.get("features") if value.get("type") == "FeatureCollection" else [value]
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise NotItems(
            f"the function returned {kind(value)}; expected an item (dict or pystac.Item) or an iterable of "
            "items, [] where there are none"
        )
    for entry in value:
        item = entry.to_dict() if hasattr(entry, "to_dict") else entry
        if not isinstance(item, dict):
            raise NotItems(f"the function gave {kind(item)} among its items; expected a dict or pystac.Item")
        yield item


def kind(value: Any) -> str:
    """Name a value's type for people."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def encode(item: dict[str, Any]) -> bytes:
    """Return an item as JSON; raise NotItems, with the path of the culprit, when it has none."""
    if orjson is not None:
        try:
            options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
            return orjson.dumps(item, option=options)
        except TypeError:
            pass  # `plain` knows more types, and says which one it is that nobody knows
    return json.dumps(plain(item, "item"), ensure_ascii=False, allow_nan=False).encode()


@singledispatch
def plain(value: Any, path: str, depth: int = 0) -> Any:
    """Return `value` as plain JSON types; raise NotItems with the path of what cannot be.

    Dates become RFC 3339 text (UTC where they name no zone), NaN and infinities null, numpy's values and
    arrays their Python equals.
    """
    if type(value).__module__ != "numpy":
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        raise NotItems(f"{path} is a {name}, which JSON cannot hold")
    if value.dtype.kind == "M":  # in nanoseconds they would become integers
        value = value.astype("datetime64[us]")
    return plain(value.tolist(), path, depth + 1)


@plain.register(type(None))
@plain.register(bool)
def _(value: Any, path: str, depth: int = 0) -> Any:  # noqa: ARG001 - one signature for all
    return value


@plain.register
def _(value: int, path: str, depth: int = 0) -> int:  # noqa: ARG001 - as above
    if not -(2**63) <= value < 2**64:
        raise NotItems(f"{path} is an integer of more than 64 bits")
    return int(value)


@plain.register
def _(value: float, path: str, depth: int = 0) -> float | None:  # noqa: ARG001 - as above
    return float(value) if math.isfinite(value) else None


@plain.register
def _(value: str, path: str, depth: int = 0) -> str:  # noqa: ARG001 - as above
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotItems(f"{path} is text with lone surrogates, which JSON cannot hold") from None
    return value


@plain.register
def _(value: datetime, path: str, depth: int = 0) -> str:  # noqa: ARG001 - as above
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat().replace("+00:00", "Z")


@plain.register
def _(value: date, path: str, depth: int = 0) -> str:  # noqa: ARG001 - as above
    return value.isoformat()


@plain.register(dict)
def _(value: dict[Any, Any], path: str, depth: int = 0) -> dict[str, Any]:
    _check_depth(path, depth)
    for key in value:
        if not isinstance(key, str):
            raise NotItems(f"{path} has the key {key!r} of type {type(key).__name__}, expected text")
    return {plain(key, f"{path} key"): plain(entry, f"{path}.{key}", depth + 1) for key, entry in value.items()}


@plain.register(list)
@plain.register(tuple)
def _(value: Any, path: str, depth: int = 0) -> list[Any]:
    _check_depth(path, depth)
    return [plain(entry, f"{path}[{index}]", depth + 1) for index, entry in enumerate(value)]


def _check_depth(path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotItems(f"{path[:200]}… is nested more than {MAX_DEPTH} levels deep")
