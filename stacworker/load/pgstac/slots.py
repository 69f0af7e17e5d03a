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


class Slots:
    """Lends transactions that hold slots.

    Who waits for a slot keeps a connection meanwhile. So only as many as half the connections wait; the others
    look once and are told `Busy` at once, to come again: collections that are busy elsewhere do not use up the
    connections that other collections need.
    """

    def __init__(self, database: Database, settings: Mapping[str, str]) -> None:
        self._database = database
        self._settings = settings
        self._may_wait = max(1, (database.max_connections - 1) // 2)
        self._waiting = 0

    @asynccontextmanager
    async def transaction(
        self, collection_id: str, slots: int, doing: str, *, take_all: bool = False
    ) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction that holds one of the collection's slots, or all of them.

        Raises `Busy` when the lock_timeout of `settings` passes, and as `Database.transaction` does.
        """
        keys = slot_keys(collection_id, slots)
        if not take_all:
            random.shuffle(keys)
        # Where there is nothing to choose, taking the locks costs no round trip.
        chosen = keys if take_all or slots == 1 else []
        patient = self._waiting < self._may_wait
        first = "; ".join(map(sql.wait_for_lock, chosen))
        if chosen and not patient:
            first = f"SET LOCAL lock_timeout = 1; {first}; SET LOCAL lock_timeout = {self._settings['lock_timeout']}"
        entered = False
        self._waiting += 1
        try:
            async with self._database.transaction(doing, settings=self._settings, first=first) as connection:
                if not chosen and await connection.fetchval(sql.TRY_LOCKS, keys) is None:
                    if not patient:
                        raise _busy(collection_id)
                    with translated(doing):
                        await connection.execute(sql.wait_for_lock(keys[0]))
                entered = True
                self._waiting -= 1
                yield connection
        except Contended as error:
            if entered:
                raise
            raise _busy(collection_id) from error
        finally:
            if not entered:
                self._waiting -= 1


def _busy(collection_id: str) -> Busy:
    return Busy(f"collection {collection_id!r} is busy: as many loads as it allows are running")
