"""Items as rows of pgstac's `items`, by leaf."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import orjson

from stacworker.api import Version
from stacworker.load.pgstac.collection import Collection
from stacworker.load.pgstac.dehydrate import dehydrate
from stacworker.load.pgstac.partitions import Leaf, Partitions, Span
from stacworker.load.prepare import Prepared

_YIELD_EVERY = 25


@dataclass(frozen=True, slots=True)
class Row:
    """One item; `content` is dehydrated JSON, `private` what the item itself wants hidden."""

    id: str
    geometry: bytes
    datetime: dt.datetime
    end_datetime: dt.datetime
    content: str
    version: Version
    private: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class LeafRows:
    """The rows of one leaf, sorted by id: writers that take locks in one order do not deadlock."""

    leaf: Leaf
    rows: list[Row]

    @property
    def span(self) -> Span:
        """The times that the leaf's constraints have to allow."""
        starts = [row.datetime for row in self.rows]
        return Span(min(starts), max(starts), max(row.end_datetime for row in self.rows))


async def make_rows(items: Sequence[Prepared], collection: Collection, partitions: Partitions) -> list[LeafRows]:
    """Return the rows of all items by leaf, leaves sorted by name; lets others run now and then."""
    by_leaf: dict[str, LeafRows] = {}
    here: LeafRows | None = None
    for number, item in enumerate(sorted(items, key=attrgetter("id")), start=1):
        # Items that come together mostly belong together.
        if here is None or not here.leaf.holds(item.datetime):
            leaf = partitions.leaf_of(item.datetime)
            here = by_leaf.setdefault(leaf.name, LeafRows(leaf, []))
        here.rows.append(_row(item, collection))
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return [by_leaf[name] for name in sorted(by_leaf)]


def _row(item: Prepared, collection: Collection) -> Row:
    content = dehydrate(collection.base_item, item.body)
    # What has a column of its own, and a key of pgstac's that a sender must not set.
    for key in ("id", "collection", "geometry", "pgstac:base_item"):
        content.pop(key, None)
    private = content.pop("private", None)
    if collection.base_item_id is not None:
        content["pgstac:base_item"] = collection.base_item_id
    text = orjson.dumps(content).decode()
    return Row(item.id, item.geometry, item.datetime, item.end_datetime, text, item.version, private)
