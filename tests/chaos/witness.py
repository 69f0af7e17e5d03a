"""A witness of every delete: a message may go only when its items are committed, or its dead letters accepted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import psycopg

from tests.chaos.handed import Sent
from tests.chaos.oracle import Violation, marks_in
from tests.chaos.workload import Copy, Key, Parcel
from tests.chaos.world import World

_COMMITTED = """
SELECT collection, id, coalesce((private->'stacworker'->>'v')::bigint, 0)
FROM pgstac.items WHERE collection = ANY(%s) AND id = ANY(%s)
"""


class Witness:
    """Stands at the gateway of one round (`before_delete`, `on_send`).

    While the database is away nobody can look: such deletes are looked at when it is back, which a commit
    has to survive.
    """

    def __init__(self, world: World, database: str) -> None:
        self._world = world
        self._database = database
        self._parcels: dict[str, Parcel] = {}
        self._letters: Counter[str] = Counter()
        self._unseen: list[str] = []
        self.violations: list[Violation] = []
        self.looked_at = 0

    def expect(self, message_id: str, parcel: Parcel) -> None:
        """Note what a message carries."""
        self._parcels[message_id] = parcel

    async def on_send(self, _: str, sent: Sequence[Sent]) -> None:
        """Note the marks in dead letters."""
        for letter in sent:
            self._letters.update(marks_in(letter.body))

    async def before_delete(self, _: str, message_ids: Sequence[str]) -> None:
        """Look at what is about to be deleted, and at what could not be looked at before."""
        due, self._unseen = [*self._unseen, *message_ids], []
        try:
            await self._look(due)
        except psycopg.OperationalError:
            self._unseen += due

    async def look_again(self) -> None:
        """Look at what could not be seen."""
        due, self._unseen = self._unseen, []
        await self._look(due)

    async def _look(self, message_ids: Sequence[str]) -> None:
        # A worker may be quicker than the answer to whoever sent the message: then its contents are not known yet.
        self._unseen += [each for each in message_ids if each not in self._parcels]
        parcels = [self._parcels[each] for each in message_ids if each in self._parcels]
        copies = [copy for parcel in parcels for copy in parcel.copies]
        committed = await asyncio.to_thread(self._committed, copies) if copies else {}
        for copy in copies:
            if committed.get(copy.key, -1) < copy.version[0]:
                self.violations.append(Violation("deleted_early", f"{copy} is not committed"))
        for parcel in parcels:
            missing = [mark for mark in parcel.marks if not self._letters[mark]]
            self.violations += [Violation("deleted_early", f"{mark} has left no dead letter") for mark in missing]
        self.looked_at += len(parcels)

    def _committed(self, copies: Sequence[Copy]) -> dict[Key, int]:
        collections = sorted({copy.collection for copy in copies})
        rows = self._world.fetch(self._database, _COMMITTED, collections, [copy.id for copy in copies])
        return {(collection, id_): version for collection, id_, version in rows}
