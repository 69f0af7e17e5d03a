"""Real items and their collection, from Microsoft's Planetary Computer: NAIP aerial photographs."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson

_FOLDER = Path(__file__).parent / "data"
_ITEMS = [orjson.loads(line) for line in (_FOLDER / "naip-items.ndjson").read_bytes().splitlines()]
_COLLECTION: dict[str, Any] = orjson.loads((_FOLDER / "naip-collection.json").read_bytes())


def naip_items() -> list[dict[str, Any]]:
    """Return copies of all items: distinct ids, several years."""
    return deepcopy(_ITEMS)


def naip_item(**changes: Any) -> dict[str, Any]:
    """Return a copy of one item with some members replaced."""
    return {**deepcopy(_ITEMS[0]), **changes}


def naip_collection(**changes: Any) -> dict[str, Any]:
    """Return a copy of the collection with some members replaced."""
    return {**deepcopy(_COLLECTION), **changes}
