"""The pgstac sink against pypgstac's Loader and against a bare COPY of prepared rows.

A throw-away Postgres of its own, the same items, a new collection partitioned by month for each run, the
three in turns. Items are JSON texts, as messages hold them, and advance in time over two months, as ingest
does; one item in each month is there before. Counted are:

- sink: parsing, `prepare`, and `Catalogue.load` of each batch, two batches at a time, so that the rows of the
  next are made while the database has this one;
- Loader: `load_items(batch, Methods.upsert)` with the same texts, one Loader for all batches;
- COPY: `copy_records_to_table` of rows that are ready, into their partition, a transaction for each batch.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import orjson
import typer
from psycopg_pool import ConnectionPool
from pypgstac.db import PgstacDB
from pypgstac.load import Loader, Methods

from bench.items import Kind, collection, item
from bench.report import Row, machine, write
from stacworker import log
from stacworker.api import Document, Version
from stacworker.database import Database
from stacworker.load.pgstac import Catalogue
from stacworker.load.pgstac.collection import read_collection
from stacworker.load.pgstac.rows import LeafRows, make_rows
from stacworker.load.prepare import Prepared, prepare
from stacworker.metrics import Metrics
from stacworker.testing.postgres import Postgres

CASES: tuple[tuple[Kind, int, int], ...] = (
    ("small", 100, 12_000),
    ("small", 500, 12_000),
    ("large", 100, 3000),
    ("large", 500, 3000),
)
METHODS = ("sink", "Loader", "COPY")
TARGETS = {("small", 100): "≥ 5", ("large", 500): "≥ 1.5"}
IN_FLIGHT = 2
SETTINGS = {"search_path": "pgstac, public"}
COLUMNS = ["id", "geometry", "collection", "datetime", "end_datetime", "content"]
Batches = Sequence[Sequence[bytes]]


async def prepared(texts: Sequence[bytes]) -> list[Prepared]:
    """Parse and check, giving way now and then: in the daemon each message is a task of its own."""
    found = []
    for number, text in enumerate(texts):
        found.append(prepare(Document("item", orjson.loads(text), Version(1))))
        if number % 10 == 0:
            await asyncio.sleep(0)
    return found


class Contest:
    """The three, on one database."""

    def __init__(self, database: Database, catalogue: Catalogue, loader: Loader) -> None:
        self.database = database
        self.catalogue = catalogue
        self.loader = loader
        self.runs = 0

    async def run(self, method: str, kind: Kind, batch: int, items: int) -> float:
        """Return the items per second of one run."""
        self.runs += 1
        collection_id = f"{kind}-{self.runs}"
        await self.catalogue.put_collection(collection(kind, collection_id))
        async with self.database.transaction("bench", settings=SETTINGS) as connection:
            await connection.execute(
                "UPDATE pgstac.collections SET partition_trunc = 'month' WHERE id = $1", collection_id
            )
        texts = [orjson.dumps(item(kind, collection_id, number, items)) for number in range(items)]
        second_month = next(number for number in range(items) if b'"2023-04-' in texts[number])
        await self.catalogue.load(collection_id, await prepared([texts.pop(second_month), texts.pop(0)]))
        batches = [texts[start : start + batch] for start in range(0, len(texts), batch)]
        work = await self._work(method, collection_id, batches)
        started = time.perf_counter()
        await work()
        elapsed_s = time.perf_counter() - started
        await self._check(collection_id, items)
        return len(texts) / elapsed_s

    async def _work(self, method: str, collection_id: str, batches: Batches) -> Callable[[], Awaitable[None]]:
        if method == "sink":
            return partial(self._sink, collection_id, batches)
        if method == "Loader":
            self.loader.collection_json.cache_clear()
            return partial(self._loader, batches)
        async with self.database.transaction("bench", settings=SETTINGS) as connection:
            known = await read_collection(connection, collection_id, has_base_items=True)
        assert known is not None
        rows = [await make_rows(await prepared(texts), *known) for texts in batches]
        return partial(self._copy, [[_records(collection_id, part) for part in batch] for batch in rows])

    async def _sink(self, collection_id: str, batches: Batches) -> None:
        left = iter(batches)

        async def work() -> None:
            for texts in left:
                await self.catalogue.load(collection_id, await prepared(texts))

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

    async def _loader(self, batches: Batches) -> None:
        for texts in batches:
            self.loader.load_items(iter(texts), Methods.upsert)

    async def _copy(self, batches: Sequence[Sequence[tuple[str, list[tuple[Any, ...]]]]]) -> None:
        for batch in batches:
            async with self.database.transaction("bench", settings=SETTINGS) as connection:
                for leaf, records in batch:
                    await connection.copy_records_to_table(leaf, schema_name="pgstac", columns=COLUMNS, records=records)

    async def _check(self, collection_id: str, items: int) -> None:
        """Every way must have loaded everything."""
        async with self.database.transaction("bench", settings=SETTINGS) as connection:
            found = await connection.fetchval("SELECT count(*) FROM pgstac.items WHERE collection = $1", collection_id)
            assert found == items, f"{found} of {items} items"
            await connection.execute("DELETE FROM pgstac.collections WHERE id = $1", collection_id)


def _records(collection_id: str, part: LeafRows) -> tuple[str, list[tuple[Any, ...]]]:
    return part.leaf.name, [
        (row.id, row.geometry, collection_id, row.datetime, row.end_datetime, row.content) for row in part.rows
    ]


async def measure(dsn: str, rounds: int) -> dict[tuple[str, int, str], list[float]]:
    found: dict[tuple[str, int, str], list[float]] = {}
    with ConnectionPool(dsn, min_size=0, max_size=1, open=True) as pool:
        loader = Loader(PgstacDB(pool=pool))
        async with Database(dsn) as database, Catalogue(database=database, metrics=Metrics()) as catalogue:
            contest = Contest(database, catalogue, loader)
            for turn in range(rounds + 1):
                for kind, batch, items in CASES:
                    for method in METHODS:
                        rate = await contest.run(method, kind, batch, items)
                        if turn:  # the first turn warms up
                            found.setdefault((kind, batch, method), []).append(rate)
        loader.db.disconnect()
    return found


def main(rounds: int = 5, pgstac: str = "0.10.0", json: str = "") -> None:
    """Run the benchmark and print its table."""
    log.configure("warning")
    with Postgres() as postgres:
        found = asyncio.run(measure(postgres.dsn(postgres.clone(pgstac)), rounds))
    rows = []
    for kind, batch, _ in CASES:
        runs = {method: found[kind, batch, method] for method in METHODS}
        rows += [Row(f"{kind}, batch {batch}, {way}, items/s", statistics.median(runs[way])) for way in METHODS]
        for against, target in (("Loader", TARGETS.get((kind, batch), "")), ("COPY", "≥ 0.5")):
            ratio = statistics.median(ours / theirs for ours, theirs in zip(runs["sink"], runs[against], strict=True))
            rows.append(Row(f"{kind}, batch {batch}, sink against {against}", ratio, ratio=ratio, target=target))
    write("sink", f"pgstac {pgstac}, {rounds} rounds, medians; {machine()}", rows, json)


if __name__ == "__main__":
    typer.run(main)
