"""Finding the bad items of a refused batch."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stacworker.errors import Permanent, Transient, Unavailable
from stacworker.load.bisect import Isolated, load_isolating
from stacworker.load.pgstac import Loaded, MissingCollection, Refused
from stacworker.load.prepare import Prepared
from tests.unit.load.harness import make


class Table:
    """Takes batches whole or not at all, as a transaction does."""

    def __init__(self, *bad: str) -> None:
        self.bad = set(bad)
        self.rows: list[str] = []
        self.tried: list[tuple[str, ...]] = []
        self.raises: dict[str, Exception] = {}

    async def load(self, items: Sequence[Prepared]) -> Loaded:
        ids = tuple(item.id for item in items)
        self.tried.append(ids)
        for item_id in ids:
            if item_id in self.raises:
                raise self.raises[item_id]
        if self.bad & set(ids):
            raise Refused(f"a bad one among {len(ids)}")
        self.rows += ids
        return Loaded(frozenset(ids), frozenset(), frozenset())


def items(count: int) -> list[Prepared]:
    return [make(f"i{number}") for number in range(count)]


def ids(*numbers: int) -> set[str]:
    return {f"i{number}" for number in numbers}


async def test_a_good_batch_is_loaded_at_once() -> None:
    """One load is all that a batch without bad items costs."""
    table = Table()
    found = await load_isolating(table.load, items(3))
    assert found == Isolated(loaded=ids(0, 1, 2))
    assert table.tried == [("i0", "i1", "i2")]


async def test_what_the_catalogue_keeps_is_superseded() -> None:
    """Ids that a committed load names neither loaded nor conflicting are superseded."""

    async def load(items: Sequence[Prepared]) -> Loaded:
        return Loaded(frozenset({"i0"}), frozenset(), frozenset({"i1"}))

    found = await load_isolating(load, items(3))
    assert found == Isolated(loaded=ids(0), conflicting=ids(1), superseded=ids(2))


async def test_one_bad_among_500_costs_few_loads() -> None:
    """The bad item is named with the database's reason, 499 are in, and 19 loads were enough."""
    table = Table("i321")
    found = await load_isolating(table.load, items(500))
    assert {key: str(error) for key, error in found.errors.items()} == {"i321": "a bad one among 1"}
    assert len(table.rows) == len(found.loaded) == 499
    assert len(table.tried) <= 2 * math.ceil(math.log2(500)) + 1


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
def test_exactly_the_bad_items_are_left_out(case: tuple[int, set[int]]) -> None:
    """Whichever items are bad: they are refused, all others are loaded once, at fewer than 2·n loads."""
    size, bad = case
    table = Table(*ids(*bad))
    found = asyncio.run(load_isolating(table.load, items(size)))
    assert set(found.errors) == ids(*bad)
    assert sorted(table.rows) == sorted(ids(*(set(range(size)) - bad)))
    assert found.loaded == set(table.rows)
    assert len(table.tried) == 2 * found.splits + 1 < 2 * size + 1
    assert found.failure is None


@pytest.mark.parametrize("failure", [Transient("deadlock"), Unavailable("gone", dependency="database")])
async def test_a_failure_stops_the_search(failure: Transient | Unavailable) -> None:
    """What is committed stays committed; what was not tried yet is not tried any more."""
    table = Table("i3")

    async def load(batch: Sequence[Prepared]) -> Loaded:
        if [item.id for item in batch] == ["i2", "i3"]:
            raise failure
        return await table.load(batch)

    found = await load_isolating(load, items(8))
    assert found == Isolated(loaded=ids(0, 1), failure=failure, splits=2)
    assert table.rows == ["i0", "i1"]


async def test_a_missing_collection_is_the_answer_for_all() -> None:
    """What is not about one item is not looked for in items."""
    table = Table()
    missing = MissingCollection("collection 'c' does not exist")
    table.raises["i1"] = missing
    found = await load_isolating(table.load, items(3))
    assert found == Isolated(errors={"i0": missing, "i1": missing, "i2": missing})
    assert len(table.tried) == 1


async def test_an_unexpected_error_costs_only_the_item_that_sets_it_off() -> None:
    """A defect is logged and makes its item come again; the others are loaded."""
    table = Table()
    table.raises["i2"] = KeyError("geometry")
    with capture_logs() as logs:
        found = await load_isolating(table.load, items(4))
    assert found.loaded == ids(0, 1, 3)
    assert found.failure is None
    assert {key: (type(error), str(error)) for key, error in found.errors.items()} == {
        "i2": (
            Transient,
            "loading item 'i2' of collection 'c' failed unexpectedly (KeyError: 'geometry'); message body",
        )
    }
    assert logs == [
        {
            "event": "load.unexpected",
            "log_level": "error",
            "collection": "c",
            "item_id": "i2",
            "exc_info": table.raises["i2"],
        }
    ]


async def test_many_unexpected_errors_are_not_taken_for_the_items_fault() -> None:
    """After three items the search ends and the rest comes again."""
    table = Table()
    table.raises = {item.id: RuntimeError("broken") for item in items(100)}
    with capture_logs() as logs:
        found = await load_isolating(table.load, items(100))
    assert list(found.errors) == ["i0", "i1", "i2"]
    assert not any(isinstance(error, Permanent) for error in found.errors.values())
    assert isinstance(found.failure, Transient)
    assert len(logs) == 3
    assert len(table.tried) < 15


async def test_cancellation_is_not_taken_for_an_error() -> None:
    """A cancelled load ends the search at once."""

    async def load(items: Sequence[Prepared]) -> Loaded:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await load_isolating(load, items(2))
