"""The batcher and the sink on a real pgstac: bad items isolated, newest version wins, over two replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from stacworker.api import Document
from stacworker.database import ConnectArgs, Database
from stacworker.errors import Rejected
from stacworker.inflight import InFlight
from stacworker.load.batcher import Batcher
from stacworker.load.pgstac import Catalogue
from stacworker.load.sink import PgstacSink
from stacworker.metrics import Metrics
from stacworker.settings import CollectionSettings
from tests.unit.load.documents import collection, item

TIE = "2020-01-31T00:00:00Z"
REFUSES_BAD = """
    CREATE FUNCTION pgstac.refuse_bad() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.id LIKE 'bad%' THEN RAISE EXCEPTION 'this is bad'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse_bad BEFORE INSERT ON pgstac.items FOR EACH ROW EXECUTE FUNCTION pgstac.refuse_bad();
"""


def settings_for(collection_id: str) -> CollectionSettings:
    del collection_id
    return CollectionSettings(max_batch_items=100, max_batch_wait_s=300)


@asynccontextmanager
async def replica(dsn: str) -> AsyncIterator[tuple[PgstacSink, Metrics]]:
    """Run what one process loads with."""
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(ConnectArgs(dsn=dsn), max_connections=3))
        catalogue = await stack.enter_async_context(Catalogue(database=database, metrics=metrics))
        batcher = await stack.enter_async_context(Batcher(catalogue, settings_for, metrics))
        yield PgstacSink(catalogue, batcher, settings_for, metrics), metrics


async def put_each(sink: PgstacSink, documents: list[Document]) -> list[Rejected]:
    """Put each document as a message of its own; return the refusals."""
    in_flight = InFlight(more_expected=True)

    async def one(document: Document) -> Rejected | None:
        in_flight.enter()
        try:
            await sink.put([document], in_flight)
        except Rejected as rejected:
            return rejected
        finally:
            in_flight.leave()
        return None

    tasks = [asyncio.ensure_future(one(document)) for document in documents]
    await asyncio.sleep(0)
    in_flight.expect_more(more=False)
    return [refused for refused in await asyncio.gather(*tasks) if refused is not None]


@pytest.fixture
async def database(pgstac_dsn: str) -> AsyncIterator[Any]:
    """Connect to look at what was loaded."""
    connection = await asyncpg.connect(pgstac_dsn)
    yield connection
    await connection.close()


async def test_one_bad_item_among_500_costs_only_itself(pgstac_dsn: str, database: Any) -> None:
    """What only the database can refuse is found, told with the database's reason, and 499 are in."""
    await database.execute(REFUSES_BAD)
    documents = [item("bad" if number == 321 else f"i{number:03}") for number in range(500)]
    async with asyncio.timeout(60), replica(pgstac_dsn) as (sink, metrics):
        await sink.put([collection("c")], InFlight())
        refused = await put_each(sink, documents)
        assert [(error.item_id, "this is bad" in error.reason) for error in refused] == [("bad", True)]
        value = metrics.registry.get_sample_value
        assert value("stacworker_items_loaded_total", {"collection": "c"}) == 499
        assert value("stacworker_items_rejected_total", {"collection": "c", "error_class": "refused"}) == 1
    found = await database.fetchval("SELECT count(*) FROM pgstac.items WHERE collection = 'c' AND id LIKE 'i%'")
    assert found == await database.fetchval("SELECT count(*) FROM pgstac.items") == 499


async def test_two_replicas_end_with_the_newest_of_each_item(pgstac_dsn: str, database: Any) -> None:
    """Whichever replica gets which version, in whatever order, each id has one row: the newest."""
    async with asyncio.timeout(60), replica(pgstac_dsn) as (one, _), replica(pgstac_dsn) as (other, _):
        await one.put([collection("a"), collection("b")], InFlight())
        documents = [
            item(f"i{number:02}", version, name, properties={"datetime": "2020-01-31T00:00:00Z", "version": version})
            for version in range(1, 6)
            for number in range(50)
            for name in "ab"
        ]
        results = await asyncio.gather(put_each(one, documents[::2]), put_each(other, documents[1::2][::-1]))
        results += await asyncio.gather(put_each(one, documents[1::2]), put_each(other, documents[::2][::-1]))
    assert results == [[], [], [], []]
    rows = await database.fetch(
        "SELECT collection, count(*), count(DISTINCT id), min((content->'properties'->>'version')::int) AS oldest "
        "FROM pgstac.items GROUP BY collection ORDER BY collection"
    )
    assert [tuple(row) for row in rows] == [("a", 50, 50, 5), ("b", 50, 50, 5)]


async def test_ties_end_the_same_in_one_batch_and_apart(pgstac_dsn: str, database: Any) -> None:
    """Of two items of one version and time the same one stays, whether they meet in a batch or in the catalogue."""
    rivals = {
        # As text the longer key is the smaller of each pair; as jsonb, which looks at lengths first, the greater.
        "content": [item("content", properties={"datetime": TIE, key: 1}) for key in ("a_long_key", "z")],
        "geometry": [item("geometry", geometry={"type": "Point", "coordinates": [x, 1]}) for x in (1, 2)],
    }
    ends = set()
    async with replica(pgstac_dsn) as (sink, _):
        await sink.put([collection("c")], InFlight())
        for together in (True, False):
            for turned in (False, True):
                orders = [pair[::-1] if turned else pair for pair in rivals.values()]
                documents = [document for pair in orders for document in pair]
                if together:
                    assert await put_each(sink, documents) == []
                else:
                    for document in documents:
                        await sink.put([document], InFlight())
                rows = await database.fetch("SELECT id, geometry::text, content::text FROM pgstac.items ORDER BY id")
                assert [row["id"] for row in rows] == ["content", "geometry"]
                ends.add(tuple(map(tuple, rows)))
                await database.execute("DELETE FROM pgstac.items")
    assert len(ends) == 1
