"""A sink in memory that takes and refuses what a load queue would, with assertions that say what went wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from stacworker.api import Document
from stacworker.errors import Permanent, Unavailable
from stacworker.inflight import InFlight
from stacworker.load.prepare import Prepared, prepare, prepare_collection
from stacworker.load.refusals import BadDocument, raise_refused


class MemorySink:
    """An `api.Sink`. Of an item's states the newest stays, as in the catalogue.

    Items and collections are checked as they are before the database sees them, so a collection need not be there.
    `refusals` has what was refused, in order; `collections` the collections by id; `unavailable`, once set, is raised
    by `put` and `ping`.
    """

    def __init__(self) -> None:
        self.refusals: list[Permanent] = []
        self.collections: dict[str, dict[str, Any]] = {}
        self.unavailable: Unavailable | None = None
        self._items: dict[tuple[str, str], Prepared] = {}

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:  # noqa: ARG002 - a Sink's
        """Take all good documents; raise `Rejected` with the others."""
        await self.ping()
        bad: list[BadDocument] = []
        for document in documents:
            try:
                self._take(document)
            except Permanent as error:
                bad.append((document, error))
                self.refusals.append(error)
        raise_refused(bad, of=len(documents))

    async def ping(self) -> None:
        """Raise what `unavailable` says."""
        if self.unavailable:
            raise self.unavailable

    def items(self, collection: str | None = None) -> list[dict[str, Any]]:
        """Return the items that are there, of one collection or of all, sorted by collection and id."""
        return [item.body for (of, _), item in sorted(self._items.items()) if collection in (None, of)]

    def assert_loaded(self, *ids: str, collection: str | None = None) -> None:
        """Fail unless items with these ids are there (in one collection, or in any)."""
        __tracebackhide__ = True  # pytest then shows the line of the test
        found = {item["id"] for item in self.items(collection)}
        missing = [item_id for item_id in ids if item_id not in found]
        if missing:
            where = "" if collection is None else f" in collection {collection!r}"
            raise AssertionError(f"not loaded{where}: {_listed(missing)}\n{self._contents()}")

    def assert_refused(self, item_id: str, match: str | None = None) -> None:
        """Fail unless an item with this id was refused, for a reason in which the regular expression is found."""
        __tracebackhide__ = True
        reasons = [f"{error.reason} [{error.error_class}]" for error in self.refusals if error.item_id == item_id]
        if not reasons:
            raise AssertionError(f"not refused: {item_id!r}\n{self._contents()}")
        if match is not None and not any(re.search(match, reason) for reason in reasons):
            told = "\n  ".join(reasons)
            raise AssertionError(f"{item_id!r} was refused, but no reason matches {match!r}:\n  {told}")

    def _take(self, document: Document) -> None:
        if document.kind == "collection":
            body = prepare_collection(document)
            self.collections[body["id"]] = body
        elif document.kind == "delete":
            key = document.body["collection"], document.body["id"]
            if key in self._items and self._items[key].version <= document.version:
                del self._items[key]
        else:
            item = prepare(document)
            held = self._items.get((item.collection, item.id))
            if held is None or _age(held) <= _age(item):
                self._items[item.collection, item.id] = item

    def _contents(self) -> str:
        loaded = _listed(f"{collection}/{item_id}" for collection, item_id in sorted(self._items))
        refused = "".join(f"\n  {error.item_id!r}: {error.reason} [{error.error_class}]" for error in self.refusals)
        return f"loaded: {loaded}\nrefused: {refused or 'nothing'}"


def _age(item: Prepared) -> tuple[object, ...]:
    return item.version, item.datetime, item.end_datetime, orjson.dumps(item.body, option=orjson.OPT_SORT_KEYS)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "nothing"
