"""The slots of a collection: how many may write to it at a time, over all replicas.

A slot is an advisory lock of a transaction, so it is free again when its holder ends, however it ends.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b

from stacworker.database import Connection, Database
from stacworker.load.pgstac import sql
from stacworker.load.pgstac.results import Busy
from stacworker.postgres_errors import Contended, translated


def slot_keys(collection_id: str, slots: int) -> list[int]:
    """Return the keys of a collection's locks; every replica and release must compute the same."""
    texts = (f"stacworker:load:{slot}:{collection_id}" for slot in range(slots))
    digests = (blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return [int.from_bytes(digest, "big", signed=True) for digest in digests]


@asynccontextmanager
async def transaction_in_slot(
    database: Database, collection_id: str, slots: int, doing: str, settings: Mapping[str, str]
) -> AsyncIterator[Connection]:
    """Lend a connection in a transaction that holds one of the collection's slots: a free one, else wait.

    Raises `Busy` when the lock_timeout of `settings` passes, and as `Database.transaction` does.
    """
    keys = slot_keys(collection_id, slots)
    random.shuffle(keys)
    entered = False
    try:
        # With one slot there is nothing to choose, and waiting for it costs no round trip.
        first = sql.wait_for_lock(keys[0]) if slots == 1 else ""
        async with database.transaction(doing, settings=settings, first=first) as connection:
            if slots > 1 and await connection.fetchval(sql.TRY_LOCKS, keys) is None:
                with translated(doing):
                    await connection.execute(sql.wait_for_lock(keys[0]))
            entered = True
            yield connection
    except Contended as error:
        if entered:
            raise
        raise _busy(collection_id) from error


async def take_all_slots(connection: Connection, collection_id: str, slots: int) -> None:
    """Take every slot of the collection until the transaction ends; raises `Busy` as above."""
    try:
        with translated(f"waiting for collection {collection_id!r}"):
            for key in slot_keys(collection_id, slots):
                await connection.execute(sql.wait_for_lock(key))
    except Contended as error:
        raise _busy(collection_id) from error


def _busy(collection_id: str) -> Busy:
    return Busy(f"collection {collection_id!r} is busy: as many loads as it allows are running")
