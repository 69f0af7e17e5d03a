"""Documents into the catalogue: order, refusals, failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from stacworker.api import Document, Version
from stacworker.errors import Permanent, Rejected, Transient, Unavailable
from stacworker.load.pgstac import Busy
from stacworker.load.sink import PgstacSink
from stacworker.testing.catalogue import FakeCatalogue
from tests.unit.load.documents import collection, collection_body, delete, item
from tests.unit.load.harness import Bench, bad, bench


@asynccontextmanager
async def sink(catalogue: FakeCatalogue | None = None, **settings: Any) -> AsyncIterator[tuple[PgstacSink, Bench]]:
    async with bench(catalogue, **settings) as b:
        yield PgstacSink(b.catalogue, b.batcher, b.settings_for, b.metrics), b


async def put(to: PgstacSink, b: Bench, *documents: Document) -> None:
    """Put documents as one message does."""
    b.in_flight.enter()
    try:
        await to.put(documents, b.in_flight)
    finally:
        b.in_flight.leave()


async def refusals(to: PgstacSink, b: Bench, *documents: Document) -> list[tuple[str, str | None, str | None]]:
    """Put documents of which some are bad; return each refusal's class, item and body."""
    with pytest.raises(Rejected) as raised:
        await put(to, b, *documents)
    return [(r.error.error_class, r.error.item_id, r.body) for r in raised.value.refusals]


async def test_items_are_durable_when_put_returns() -> None:
    """Good items are in the catalogue."""
    async with sink() as (to, b):
        await put(to, b, item("x"), item("y"))
        assert b.versions() == {"x": 1, "y": 1}


async def test_nothing_to_put_is_no_work() -> None:
    """A message that asks for nothing touches nothing."""
    async with sink() as (to, b):
        await put(to, b)
        assert b.batches() == []


async def test_a_collection_is_there_before_its_items() -> None:
    """One message may bring a collection and its items, in any order."""
    async with sink(FakeCatalogue()) as (to, b):
        await put(to, b, item("x"), collection("c"))
        assert b.catalogue.collections == {"c": collection_body("c")}
        assert b.versions() == {"x": 1}


async def test_the_newest_collection_stays() -> None:
    """An older collection that comes later does not replace a newer one."""
    async with sink(FakeCatalogue()) as (to, b):
        await put(to, b, collection("c", 2, title="new"), collection("c", 1, title="old"))
        assert b.catalogue.collections["c"]["title"] == "new"


async def test_bad_documents_are_refused_and_good_ones_loaded() -> None:
    """Each refusal has its document alone, whether we or the database refused it."""
    async with sink(FakeCatalogue("c", refuses=bad)) as (to, b):
        invalid, refused, malformed = item("i", geometry=None), item("r", bad=True), collection("m", extent={})
        found = await refusals(to, b, item("x"), invalid, malformed, refused, item("y"))
        assert found == [
            ("invalid_geometry", "i", orjson.dumps(invalid.body).decode()),
            ("invalid_collection", None, orjson.dumps(malformed.body).decode()),
            ("refused", "r", orjson.dumps(refused.body).decode()),
        ]
        assert sorted(b.versions()) == ["x", "y"]
        assert b.count("items_rejected_total", error_class="invalid_geometry") == 1
        assert b.count("items_rejected_total", error_class="refused") == 1


async def test_an_item_without_a_collection_is_counted_under_other() -> None:
    """What names no collection adds no label."""
    async with sink() as (to, b):
        await refusals(to, b, item("x", collection=""), item("y"))
        assert b.count("items_rejected_total", "other", error_class="invalid_item") == 1


async def test_the_message_s_body_stands_for_its_only_document() -> None:
    """A message that held one bad document is dead-lettered as it came."""
    async with sink() as (to, b):
        assert await refusals(to, b, item("x", geometry=None)) == [("invalid_geometry", "x", None)]


async def test_a_document_too_large_for_a_message_is_not_repeated() -> None:
    """The whole message stands for a bad document that a queue would not take."""
    async with sink() as (to, b):
        large = item("l", geometry=None, text="x" * 1_000_000)
        assert await refusals(to, b, large, item("x")) == [("invalid_geometry", "l", None)]


async def test_items_are_deleted_up_to_their_version() -> None:
    """A delete takes what is not newer, in one call for each collection."""
    async with sink(FakeCatalogue("cd")) as (to, b):
        await put(to, b, item("x", 1), item("y", 5), item("z", 1, collection="d"))
        await put(to, b, delete("x", 3), delete("x", 2), delete("y", 3), delete("z", 3, collection="d"))
        assert b.versions() == {"y": 5}
        assert b.catalogue.deletes == [("c", {"x": Version(3), "y": Version(3)}), ("d", {"z": Version(3)})]


async def test_versions_decide_between_a_delete_and_an_item_of_one_message() -> None:
    """Their order in the message does not matter."""
    async with sink() as (to, b):
        await put(to, b, delete("x", 2), item("x", 1), item("y", 2), delete("y", 1))
        assert b.versions() == {"y": 2}


async def test_a_refused_delete_has_no_body() -> None:
    """No message can ask for a delete in so many words: the message's own body stands for it."""
    async with sink() as (to, b):
        b.catalogue.fail_next(None, Permanent("no such thing", error_class="refused"))
        assert await refusals(to, b, item("x"), delete("y")) == [("refused", None, None)]


@pytest.mark.parametrize("failure", [Transient("deadlock"), Unavailable("gone", dependency="database")])
async def test_a_failure_comes_before_refusals(failure: Transient | Unavailable) -> None:
    """While anything may yet succeed the message comes again, bad documents and all."""
    async with sink() as (to, b):
        b.catalogue.fail_next(failure)
        with pytest.raises(type(failure)) as raised:
            await put(to, b, item("x"), item("y", geometry=None))
        assert raised.value is failure


async def test_a_busy_collection_spends_no_attempt() -> None:
    """Collections and deletes wait for other writers as items do."""
    async with sink(FakeCatalogue()) as (to, b):
        b.catalogue.fail_next(Busy("locked"), None, Busy("locked"), None)
        await put(to, b, collection("c"), delete("x"))
        assert (list(b.catalogue.collections), len(b.catalogue.deletes)) == (["c"], 1)


async def test_a_refused_collection_is_told_with_its_body() -> None:
    """What the database says about a collection reaches its dead letter; the items go on."""
    async with sink() as (to, b):
        b.catalogue.fail_next(Permanent("no room", error_class="refused"))
        body = orjson.dumps(collection_body("d")).decode()
        assert await refusals(to, b, collection("d"), item("x")) == [("refused", None, body)]
        assert b.versions() == {"x": 1}


async def test_checking_many_documents_lets_others_run() -> None:
    """An object with very many items does not hold up the heartbeats."""
    async with sink() as (to, b):
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        b.catalogue.pause("c")
        putting = asyncio.ensure_future(put(to, b, *(item(str(number)) for number in range(1000))))
        await b.catalogue.reached(1)
        assert turns >= 10
        await b.catalogue.resume()
        await putting
        task.cancel()


async def test_ping_asks_the_database() -> None:
    """A database that is away makes the sink unavailable."""
    async with sink() as (to, b):
        await to.ping()
        b.catalogue.fail_next(Unavailable("gone", dependency="database"))
        with pytest.raises(Unavailable):
            await to.ping()
