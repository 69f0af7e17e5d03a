"""The pgstac sink against pypgstac's Loader and against a bare COPY of prepared rows.

A throw-away Postgres of its own, the same items, a collection partitioned by month for each of the three,
which take turns. Items are parsed JSON and advance in time over two months from the first turn to the last, as
ingest does; so the partitions grow. Counted are:

- sink: `prepare` of every item and `Catalogue.load` of each batch, two batches at a time, so that the rows of
  the next are made while the database has this one;
- Loader: `load_items(batch, Methods.upsert)`, one Loader for all batches;
- COPY: `copy_records_to_table` of rows that are ready, into their partition, a transaction for each batch.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
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
from stacworker.app import tune_gc
from stacworker.database import Database
from stacworker.load.pgstac import Catalogue
from stacworker.load.pgstac.collection import read_collection
from stacworker.load.pgstac.rows import LeafRows, make_rows
from stacworker.load.prepare import Prepared, prepare
from stacworker.metrics import Metrics
from stacworker.testing.postgres import Postgres


@dataclass(frozen=True, slots=True)
class Case:
    """Items of one kind in batches of one size; `items` in each run."""

    kind: Kind
    batch: int
    items: int
    against_loader: str = ""

    @property
    def targets(self) -> dict[str, str]:
        """What the sink should reach against each of the others."""
        return {"sink": "", "Loader": self.against_loader, "COPY": "≥ 0.5"}


@dataclass(frozen=True, slots=True)
class Tools:
    """What the three load with."""

    database: Database
    catalogue: Catalogue
    loader: Loader


CASES = (
    Case("small", 100, 10_000, "≥ 5"),
    Case("small", 500, 10_000),
    Case("large", 100, 3000),
    Case("large", 500, 3000, "≥ 1.5"),
)
WAYS = ("sink", "Loader", "COPY")
IN_FLIGHT = 2
SETTINGS = {"search_path": "pgstac, public"}
COLUMNS = ["id", "geometry", "collection", "datetime", "end_datetime", "content"]
Body = dict[str, Any]
Batches = Sequence[Sequence[Body]]


async def prepared(bodies: Sequence[Body]) -> list[Prepared]:
    """Check items, giving way now and then: in the daemon each message is a task of its own."""
    found = []
    for number, body in enumerate(bodies):
        found.append(prepare(Document("item", body, Version(1))))
        if number % 10 == 0:
            await asyncio.sleep(0)
    return found


class Contest:
    """One of the three in one case: its collection grows from run to run."""

    def __init__(self, way: str, case: Case, runs: int, tools: Tools) -> None:
        self.way = way
        self.case = case
        self.tools = tools
        self.collection_id = f"{case.kind}-{case.batch}-{way}"
        self.total = case.items * runs
        self.done = 0

    async def open(self) -> None:
        """Make the collection, and load the first item of each month (March and April)."""
        await self.tools.catalogue.put_collection(collection(self.case.kind, self.collection_id))
        async with self.tools.database.transaction("bench", settings=SETTINGS) as connection:
            await connection.execute(
                "UPDATE pgstac.collections SET partition_trunc = 'month' WHERE id = $1", self.collection_id
            )
        first = [self._item(day, of=61) for day in (0, 31)]
        await self.tools.catalogue.load(self.collection_id, await prepared(first))
        self.tools.loader.collection_json.cache_clear()

    async def run(self) -> float:
        """Load the next items and return how many per second."""
        numbers = range(self.done + 1, self.done + self.case.items + 1)
        bodies = [self._item(number, of=self.total + 1) for number in numbers]
        step = self.case.batch
        work = await self._work([bodies[start : start + step] for start in range(0, len(bodies), step)])
        gc.collect()
        started = time.perf_counter()
        await work()
        elapsed_s = time.perf_counter() - started
        self.done += len(bodies)
        async with self.tools.database.transaction("bench", settings=SETTINGS) as connection:
            count = "SELECT count(*) FROM pgstac.items WHERE collection = $1"
            found = await connection.fetchval(count, self.collection_id)
        assert found == self.done + 2, f"{found} of {self.done + 2} items"
        return len(bodies) / elapsed_s

    def _item(self, number: int, of: int) -> Body:
        # Through JSON, so that items share no parts, as what is received shares none.
        body: Body = orjson.loads(orjson.dumps(item(self.case.kind, self.collection_id, number, of)))
        return body

    async def _work(self, batches: Batches) -> Callable[[], Awaitable[None]]:
        if self.way == "sink":
            return partial(self._sink, batches)
        if self.way == "Loader":
            return partial(self._loader, batches)
        async with self.tools.database.transaction("bench", settings=SETTINGS) as connection:
            known = await read_collection(connection, self.collection_id, has_base_items=True)
        assert known is not None
        rows = [await make_rows(await prepared(bodies), *known) for bodies in batches]
        return partial(self._copy, [[_records(self.collection_id, part) for part in batch] for batch in rows])

    async def _sink(self, batches: Batches) -> None:
        left = iter(batches)

        async def work() -> None:
            for bodies in left:
                await self.tools.catalogue.load(self.collection_id, await prepared(bodies))

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

    async def _loader(self, batches: Batches) -> None:
        for bodies in batches:
            self.tools.loader.load_items(iter(bodies), Methods.upsert)

    async def _copy(self, batches: Sequence[Sequence[tuple[str, list[tuple[Any, ...]]]]]) -> None:
        for batch in batches:
            async with self.tools.database.transaction("bench", settings=SETTINGS) as connection:
                for leaf, records in batch:
                    await connection.copy_records_to_table(leaf, schema_name="pgstac", columns=COLUMNS, records=records)


def _records(collection_id: str, part: LeafRows) -> tuple[str, list[tuple[Any, ...]]]:
    return part.leaf.name, [
        (row.id, row.geometry, collection_id, row.datetime, row.end_datetime, row.content) for row in part.rows
    ]


async def measure(dsn: str, rounds: int) -> dict[tuple[Case, str], list[float]]:
    found: dict[tuple[Case, str], list[float]] = {}
    with ConnectionPool(dsn, min_size=0, max_size=1, open=True) as pool:
        loader = Loader(PgstacDB(pool=pool))
        async with Database(dsn) as database, Catalogue(database=database, metrics=Metrics()) as catalogue:
            tools = Tools(database, catalogue, loader)
            for case in CASES:
                contests = [Contest(way, case, rounds + 1, tools) for way in WAYS]
                for contest in contests:
                    await contest.open()
                for turn in range(rounds + 1):
                    for contest in contests:
                        rate = await contest.run()
                        if turn:  # the first turn warms up
                            found.setdefault((case, contest.way), []).append(rate)
        loader.db.disconnect()
    return found


def main(rounds: int = 5, pgstac: str = "0.10.0", json: str = "") -> None:
    """Run the benchmark and print its table."""
    log.configure("warning")
    tune_gc()
    with Postgres() as postgres:
        found = asyncio.run(measure(postgres.dsn(postgres.clone(pgstac)), rounds))
    rows = []
    for case in CASES:
        runs = {way: found[case, way] for way in WAYS}
        ratios = {
            way: statistics.median(ours / theirs for ours, theirs in zip(runs["sink"], runs[way], strict=True))
            for way in WAYS
        }
        for way in WAYS:
            name = f"{case.kind}, batch {case.batch}, {way}, items/s"
            is_sink = way == "sink"
            rows.append(Row(name, statistics.median(runs[way]), None if is_sink else ratios[way], case.targets[way]))
    about = f"pgstac {pgstac}, {rounds} rounds, medians, × is the sink against it; {machine()}"
    write("sink", about, rows, json)


if __name__ == "__main__":
    typer.run(main)
