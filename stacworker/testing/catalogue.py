"""A catalogue in memory, for tests of everything that loads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from stacworker.api import Version
from stacworker.load.pgstac import Loaded, MissingCollection, Refused
from stacworker.load.prepare import Prepared
from stacworker.settings import Conflict, CreateMissing


class FakeCatalogue:
    """Keeps the contract of `load.pgstac.Catalogue`: all of a batch or nothing, newest version wins.

    `refuses` says why the database would refuse an item, or None. `fail_next` makes the next calls raise.
    Loads into a paused collection wait; `reached` waits until so many loads have begun. `loads` has the
    collection and the ids of each load begun, `most_at_once` how many ran together.
    """

    def __init__(
        self,
        collections: Iterable[str] = (),
        *,
        refuses: Callable[[Prepared], str | None] = lambda item: None,  # noqa: ARG005 - takes what it is given
    ) -> None:
        self.collections: dict[str, dict[str, Any]] = {name: {"id": name} for name in collections}
        self._collection_versions: dict[str, Version] = {}
        self.items: dict[tuple[str, str], Prepared] = {}
        self.loads: list[tuple[str, tuple[str, ...]]] = []
        self.deletes: list[tuple[str, dict[str, Version]]] = []
        self.running = 0
        self.most_at_once = 0
        self._refuses = refuses
        self._failures: deque[BaseException | None] = deque()
        self._paused: set[str] = set()
        self._changed = asyncio.Condition()

    def fail_next(self, *errors: BaseException | None) -> None:
        """Raise these from the next calls, one each, in order; None lets a call pass."""
        self._failures += errors

    def pause(self, *collections: str) -> None:
        """Let loads into these collections wait from now on."""
        self._paused.update(collections)

    async def resume(self) -> None:
        """Let all loads go on."""
        self._paused.clear()
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, loads: int) -> None:
        """Return when so many loads have begun."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.loads) >= loads)

    async def load(
        self,
        collection: str,
        items: Sequence[Prepared],
        *,
        conflict: Conflict = "upsert",
        max_concurrency: int = 1,  # noqa: ARG002 - the contract
        create_missing: CreateMissing = False,
    ) -> Loaded:
        """Load as the real one does; also assert what callers owe it."""
        ids = tuple(item.id for item in items)
        assert ids, "an empty batch"  # noqa: S101 - a fake for tests
        assert len(set(ids)) == len(ids), "an id twice in one batch"  # noqa: S101 - as above
        assert {item.collection for item in items} == {collection}, "another collection's item"  # noqa: S101 - as above
        self.loads.append((collection, ids))
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            async with self._changed:
                self._changed.notify_all()
                await self._changed.wait_for(lambda: collection not in self._paused)
            self._raise_next()
            return self._commit(collection, items, conflict, create_missing)
        finally:
            self.running -= 1

    async def put_collection(self, body: dict[str, Any], version: Version | None = None) -> None:
        """Create or replace a collection, unless what is there has a greater version."""
        self._raise_next()
        held = self._collection_versions.get(body["id"])
        if version is None or held is None or held <= version:
            self.collections[body["id"]] = body
            if version is not None:
                self._collection_versions[body["id"]] = version

    async def delete(
        self,
        collection: str,
        ids: Mapping[str, Version],
        *,
        max_concurrency: int = 1,  # noqa: ARG002 - the contract
    ) -> frozenset[str]:
        """Delete the items that are not newer than the versions given; return which."""
        self._raise_next()
        self.deletes.append((collection, dict(ids)))
        doomed = {
            item_id
            for item_id, version in ids.items()
            if (held := self.items.get((collection, item_id))) is not None and held.version <= version
        }
        for item_id in doomed:
            del self.items[collection, item_id]
        return frozenset(doomed)

    async def ping(self) -> None:
        """Answer, or raise what `fail_next` says."""
        self._raise_next()

    def _raise_next(self) -> None:
        error = self._failures.popleft() if self._failures else None
        if error is not None:
            raise error

    def _commit(
        self, collection: str, items: Sequence[Prepared], conflict: Conflict, create_missing: CreateMissing
    ) -> Loaded:
        if collection not in self.collections:
            if create_missing is not True:
                raise MissingCollection(f"collection {collection!r} does not exist")
            self.collections[collection] = {"id": collection}
        for item in items:
            reason = self._refuses(item)
            if reason is not None:
                raise Refused(reason)
        loaded, superseded, conflicting = set(), set(), set()
        for item in items:
            held = self.items.get((collection, item.id))
            if held is not None and conflict == "error":
                conflicting.add(item.id)
            elif held is not None and (conflict == "ignore" or _age(held) > _age(item)):
                superseded.add(item.id)
            else:
                loaded.add(item.id)
                self.items[collection, item.id] = item
        return Loaded(frozenset(loaded), frozenset(superseded), frozenset(conflicting))


def _age(item: Prepared) -> tuple[object, ...]:
    return item.version, item.datetime, item.end_datetime, orjson.dumps(item.body, option=orjson.OPT_SORT_KEYS)
