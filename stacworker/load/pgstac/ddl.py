"""Making and widening partitions: rarely, in short transactions of their own, never inside a batch.

pgstac's `check_partition` takes ACCESS EXCLUSIVE locks. Readers queue behind whoever waits for such a lock, so
it is waited for only briefly, and tried again later.
"""

from __future__ import annotations

import time

import stamina

from stacworker.database import Connection, Database
from stacworker.errors import Transient
from stacworker.load.pgstac import sql
from stacworker.load.pgstac.collection import READING, read_leaves
from stacworker.load.pgstac.partitions import Leaf, Partitions, Span
from stacworker.metrics import Metrics
from stacworker.postgres_errors import Contended, Gone, Orphan, translated

_LOCK_TIMEOUT = "'200ms'"
_QUEUE_TIMEOUT = "'10s'"


class PartitionMaker:
    """Calls `check_partition` under one lock for all replicas and collections.

    `settings` are those of its transactions.
    """

    def __init__(self, database: Database, metrics: Metrics, settings: dict[str, str]) -> None:
        self._database = database
        self._metrics = metrics
        self._settings = {**settings, **READING, "lock_timeout": _QUEUE_TIMEOUT}

    async def ensure(self, collection_id: str, partitions: Partitions, leaf: Leaf, span: Span) -> None:
        """Make rows with `span` fit in a leaf, creating the leaf where it does not exist.

        Raises `Transient` with error class `partition` when readers or writers never left a gap for it.
        """
        try:
            async for attempt in stamina.retry_context(
                on=Contended, attempts=12, timeout=30, wait_initial=0.05, wait_max=2, wait_jitter=0.2
            ):
                with attempt:
                    wanted = partitions.wanted(leaf, span)
                    if wanted is not None:
                        await self._check_partition(collection_id, partitions, wanted)
        except Contended as error:
            raise Transient(error.reason, error_class="partition") from error

    async def _check_partition(self, collection_id: str, partitions: Partitions, wanted: Span) -> None:
        label = self._metrics.collection_label(collection_id)
        doing = f"making a partition of collection {collection_id!r} for {wanted.first:%Y-%m-%d}"
        async with self._database.transaction(doing, settings=self._settings) as connection:
            started = time.monotonic()
            await connection.execute(sql.DDL_LOCK)
            self._metrics.lock_wait.labels(label, "ddl").observe(time.monotonic() - started)
            await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT}")
            made = await _make(connection, doing, collection_id, partitions, wanted)
        partitions.allow(made, wanted)


async def _make(connection: Connection, doing: str, collection_id: str, partitions: Partitions, wanted: Span) -> Leaf:
    try:
        with translated(doing):
            name = await connection.fetchval(
                sql.CHECK_PARTITION, collection_id, wanted.first, wanted.last, wanted.last_end
            )
    except Orphan:
        raise
    except Gone as error:
        # pgstac could not lock what it needed, hid that, and then missed what it had not made.
        raise Contended(error.reason) from error
    for leaf in await read_leaves(connection, partitions):
        if leaf.name == name:
            return leaf
    raise Contended(f"{doing}: pgstac did not make {name}")
