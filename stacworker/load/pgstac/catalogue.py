"""The pgstac catalogue: loads batches, deletes items, keeps collections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from weakref import WeakValueDictionary

import orjson
import stamina

from stacworker.api import Version
from stacworker.database import Connection, Database
from stacworker.errors import StacworkerError, Transient, Unavailable
from stacworker.load.pgstac import sql
from stacworker.load.pgstac.collection import READING, Collection, create_collection, put_collection, read_collection
from stacworker.load.pgstac.ddl import PartitionMaker
from stacworker.load.pgstac.partitions import Partitions
from stacworker.load.pgstac.results import Busy, Loaded, MissingCollection
from stacworker.load.pgstac.rows import make_rows
from stacworker.load.pgstac.schema import Schema, read_schema
from stacworker.load.pgstac.slots import Slots
from stacworker.load.pgstac.transaction import Changed, delete_items, write_batch
from stacworker.load.prepare import Prepared
from stacworker.metrics import Metrics
from stacworker.postgres_errors import Contended, Gone, OutOfRange
from stacworker.settings import Conflict, CreateMissing

_Result = TypeVar("_Result")

_ATTEMPTS = 4
_KNOWN_MAX = 1000
_STALE = (Changed, Gone, OutOfRange)
"""What we know of the collection is no longer so."""
_RETRIED = (Contended, *_STALE)


class Catalogue:
    """Items and collections in pgstac; an async context manager.

    Entering it raises `ConfigError` for a pgstac that is missing or not supported, and `Unavailable`. One
    load is one transaction under a lock that all replicas share. What loses against another transaction, a
    changed collection or a lost connection is tried again here, a few times, always with all rows.
    """

    def __init__(
        self,
        *,
        database: Database,
        metrics: Metrics,
        lock_timeout_s: float = 5.0,
        statement_timeout_s: float = 60.0,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._settings = {
            "search_path": "pgstac, public",
            "statement_timeout": f"{round(statement_timeout_s * 1000)}",
            "lock_timeout": f"{round(lock_timeout_s * 1000)}",
            # Plans are kept while a leaf grows: one made when it was empty would read all of it.
            "enable_seqscan": "off",
        }
        self._slots = Slots(database, self._settings)
        self._partitions = PartitionMaker(database, metrics, self._settings)
        self._schema: Schema | None = None
        self._known: dict[str, tuple[Collection, Partitions]] = {}
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        async with self._database.transaction("reading pgstac's version") as connection:
            self._schema = await read_schema(connection)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to close: the database is somebody else's."""

    @property
    def version(self) -> str:
        """The version of pgstac in the database, such as `0.10.0`."""
        return self._read_schema.version

    @property
    def _read_schema(self) -> Schema:
        if self._schema is None:
            raise RuntimeError("the catalogue is used outside its context")
        return self._schema

    async def load(
        self,
        collection: str,
        items: Sequence[Prepared],
        *,
        conflict: Conflict = "upsert",
        max_concurrency: int = 1,
        create_missing: CreateMissing = False,
    ) -> Loaded:
        """Commit all items (of one collection, with distinct ids) or none, and return what became of each.

        At most `max_concurrency` loads run in the collection at a time, over all replicas; in a collection
        that is partitioned by time only one, whatever the setting: two could each leave a row of one item
        whose datetime moves. One more may be called for meanwhile: its rows are made before it waits.

        Raises `Busy` when others held the collection for `lock_timeout_s`, `Refused` when the database refuses
        some item, `MissingCollection` (with `create_missing="wait"` a `Transient`), `Transient` and
        `Unavailable`. What was raised as `Unavailable` may have been committed: loading it again is harmless.
        """

        async def attempt() -> Loaded:
            known, partitions = await self._find(collection, items, create_missing)
            slots = 1 if known.trunc else max_concurrency
            batch = await make_rows(items, known, partitions)
            async with self._gate(collection, slots):
                for part in batch:
                    await self._partitions.ensure(collection, partitions, part.leaf, part.span)
                label = self._metrics.collection_label(collection)
                with self._metrics.load_duration.labels(label).time():
                    started = time.monotonic()
                    waited = self._metrics.lock_wait.labels(label, "collection")
                    doing = f"loading into collection {collection!r}"
                    try:
                        async with self._slots.transaction(collection, slots, doing) as connection:
                            waited.observe(time.monotonic() - started)
                            remembers = self._read_schema.remembers_deletions
                            return await write_batch(
                                connection, known, partitions.root, batch, conflict, remembers_deletions=remembers
                            )
                    except Busy:
                        waited.observe(time.monotonic() - started)  # waiting in vain is waiting too
                        raise

        return await self._persistently(collection, attempt)

    async def delete(self, collection: str, ids: Mapping[str, Version], *, max_concurrency: int = 1) -> frozenset[str]:
        """Delete the items that are not newer than the versions given, and return which were there.

        Where stacworker's own schema is installed the deletion is remembered for 30 days: an older version
        that arrives later stays out. Raises as `load` does; a missing collection has nothing to delete.
        """

        async def attempt() -> frozenset[str]:
            found = await self._read(collection)
            if found is None:
                return frozenset()
            known, partitions = found
            slots = 1 if known.trunc else max_concurrency
            doing = f"deleting from collection {collection!r}"
            async with (
                self._gate(collection, slots),
                self._slots.transaction(collection, slots, doing, take_all=True) as connection,
            ):
                remembers = self._read_schema.remembers_deletions
                return await delete_items(connection, known, partitions.root, ids, remembers_deletions=remembers)

        return await self._persistently(collection, attempt)

    async def put_collection(self, body: dict[str, Any], version: Version | None = None) -> None:
        """Create or replace a collection; keep what is there when its version is greater than `version`.

        Waits for loads in hand, which keep the collection's row locked. Raises as `load` does.
        """
        collection: str = body["id"]

        async def attempt() -> None:
            async with self._transaction(f"writing collection {collection!r}") as connection:
                await put_collection(connection, body, version)

        try:
            await self._persistently(collection, attempt)
        finally:
            self._known.pop(collection, None)

    async def ensure_collection(
        self, body: dict[str, Any], version: Version
    ) -> Literal["created", "updated", "unchanged"]:
        """Create or replace a collection, unless it is there as it is already: then no lock is waited for."""
        collection: str = body["id"]
        async with self._transaction(f"comparing collection {collection!r}") as connection:
            is_same = await connection.fetchval(sql.SAME_COLLECTION, collection, orjson.dumps(body).decode())
        if is_same:
            return "unchanged"
        await self.put_collection(body, version)
        return "created" if is_same is None else "updated"

    async def exists(self, collection: str) -> bool:
        """Say whether a collection exists now."""
        async with self._transaction(f"looking for collection {collection!r}") as connection:
            return bool(await connection.fetchval(sql.EXISTS, collection))

    async def ping(self) -> None:
        """Raise `Unavailable` when the database does not answer."""
        await self._database.ping()

    def _transaction(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        return self._database.transaction(doing, settings=self._settings)

    def _gate(self, collection: str, slots: int) -> asyncio.Semaphore:
        """Return what lets only as many of our own loads through as there are slots.

        Who waits here holds no connection, so that one collection cannot use up the pool.
        """
        return self._gates.setdefault(f"{slots} {collection}", asyncio.Semaphore(slots))

    async def _find(
        self, collection: str, items: Sequence[Prepared], create_missing: CreateMissing
    ) -> tuple[Collection, Partitions]:
        found = await self._read(collection)
        if found is None and create_missing is True:
            async with self._transaction(f"creating collection {collection!r}") as connection:
                await create_collection(connection, collection, items[0].body["stac_version"])
            found = await self._read(collection)
        if found is not None:
            return found
        if create_missing == "wait":
            raise Transient(
                f"collection {collection!r} does not exist yet (its setting is create_missing: wait)",
                error_class=MissingCollection.default_class,
            )
        raise MissingCollection(
            f"collection {collection!r} does not exist: create it, or set create_missing", collection=collection
        )

    async def _read(self, collection: str) -> tuple[Collection, Partitions] | None:
        """Return what is known of a collection, reading it where nothing is."""
        known = self._known.get(collection)
        if known is None:
            async with self._database.transaction(
                f"reading collection {collection!r}", settings={**self._settings, **READING}
            ) as connection:
                known = await read_collection(connection, collection, has_base_items=self._read_schema.has_base_items)
            if known is not None:
                if len(self._known) >= _KNOWN_MAX:
                    self._known.pop(next(iter(self._known)))
                self._known[collection] = known
        return known

    async def _persistently(self, collection: str, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return what `attempt` returns, calling again after what a second try may cure."""
        lost = 0
        failed_with = ""

        def worth_retrying(error: Exception) -> bool:
            nonlocal lost
            # A connection may be lost while the database is there; twice in a row it is not.
            lost += isinstance(error, Unavailable)
            return isinstance(error, _RETRIED) or (isinstance(error, Unavailable) and lost == 1)

        async for trial in stamina.retry_context(
            on=worth_retrying, attempts=_ATTEMPTS, timeout=None, wait_initial=0.05, wait_max=1.0, wait_jitter=0.1
        ):
            if trial.num > 1:
                label = self._metrics.collection_label(collection)
                self._metrics.load_retries.labels(label, failed_with).inc()
            with trial:
                try:
                    return await attempt()
                except StacworkerError as error:
                    failed_with = error.error_class
                    if isinstance(error, _STALE):
                        self._known.pop(collection, None)
                    raise
        raise AssertionError("stamina ends with a result or an error")
