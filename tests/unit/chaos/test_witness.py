"""The witness sees a message that goes before its items are committed."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.chaos.handed import Sent
from tests.chaos.witness import Witness
from tests.chaos.workload import Copy, Parcel

COPY = Copy("plain", "item-1", "rev-1", "2024-01-01T12:00:00Z", (1000, ""))
CARRIES_AN_ITEM = Parcel("{}", (COPY,))
LEAVES_A_LETTER = Parcel("{}", (), ("bad-000001",))


class Database:
    """What the witness asks: rows of (collection, id, version in ms), or nobody is there."""

    def __init__(self, *rows: tuple[str, str, int], away: bool = False) -> None:
        self.rows = list(rows)
        self.away = away

    def fetch(self, *_: Any) -> list[tuple[str, str, int]]:
        if self.away:
            raise psycopg.OperationalError("nobody is there")
        return self.rows


def witness_of(parcel: Parcel, database: Database) -> Witness:
    """Return a witness that knows one message, `m`."""
    witness = Witness(database, "catalogue")  # type: ignore[arg-type]
    witness.expect("m", parcel)
    return witness


def kinds(witness: Witness) -> list[str]:
    """Return what it saw."""
    return [each.kind for each in witness.violations]


@pytest.mark.parametrize("version_ms", [1000, 2000])
async def test_is_content_when_the_item_or_a_newer_one_is_committed(version_ms: int) -> None:
    """The version of the message is in place, or one that superseded it."""
    witness = witness_of(CARRIES_AN_ITEM, Database(("plain", "item-1", version_ms)))
    await witness.before_delete("queue", ["m"])
    assert (kinds(witness), witness.looked_at) == ([], 1)


@pytest.mark.parametrize("rows", [(), (("plain", "item-1", 999),), (("yearly", "item-1", 1000),)])
async def test_sees_an_item_that_is_not_committed(rows: tuple[tuple[str, str, int], ...]) -> None:
    """The item is not there, or older, or in another collection."""
    witness = witness_of(CARRIES_AN_ITEM, Database(*rows))
    await witness.before_delete("queue", ["m"])
    assert kinds(witness) == ["deleted_early"]


async def test_sees_a_dead_letter_that_was_not_accepted() -> None:
    """A bad message may go only when the queue has taken its letter."""
    witness = witness_of(LEAVES_A_LETTER, Database())
    await witness.before_delete("queue", ["m"])
    assert kinds(witness) == ["deleted_early"]
    await witness.on_send("dead", [Sent("1", "what bad-000001 was", {})])
    await witness.before_delete("queue", ["m"])
    assert kinds(witness) == ["deleted_early"]


async def test_looks_later_when_nobody_answers() -> None:
    """Deletes during an outage are looked at with the next one after it, or at the end."""
    database = Database(away=True)
    witness = witness_of(CARRIES_AN_ITEM, database)
    await witness.before_delete("queue", ["m"])
    assert (kinds(witness), witness.looked_at) == ([], 0)
    database.away = False
    await witness.look_again()
    assert (kinds(witness), witness.looked_at) == (["deleted_early"], 1)


async def test_looks_later_at_a_message_that_it_does_not_know_yet() -> None:
    """A worker may be quicker than the answer to the message's sender."""
    witness = Witness(Database(), "catalogue")  # type: ignore[arg-type]
    await witness.before_delete("queue", ["m"])
    witness.expect("m", CARRIES_AN_ITEM)
    await witness.before_delete("queue", [])
    assert kinds(witness) == ["deleted_early"]
