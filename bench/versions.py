"""What it costs that the newest version wins: the load of prepared batches against a plain upsert of the same rows.

Both write prepared rows to one collection partitioned by month, in turns, 500 a transaction. The load looks up what is
there, compares versions and keeps them; the plain upsert (`ON CONFLICT DO UPDATE`) replaces whatever is there, so that
an older item that comes later wins. Rows are new, or replace older ones, or are older than what is there.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import orjson
import typer

from bench.items import collection, item
from bench.report import Row, machine, write
from bench.sink import SETTINGS, prepared
from stacworker import log
from stacworker.api import Version
from stacworker.app import tune_gc
from stacworker.database import Database
from stacworker.load.pgstac import Catalogue
from stacworker.load.pgstac.collection import read_collection
from stacworker.load.pgstac.rows import make_rows
from stacworker.load.prepare import Prepared
from stacworker.metrics import Metrics
from stacworker.testing.postgres import Postgres

BATCH = 500
STATES = {"rows are new": 10, "rows are newer than those there": 20, "rows are older than those there": 5}
"""The version of what is loaded, in this order into the same collection; what is there has the one before it."""


class Contest:
    """One way of writing, in a collection of its own."""

    def __init__(self, name: str, catalogue: Catalogue, database: Database, items: int) -> None:
        self.collection_id = name
        self.catalogue = catalogue
        self.database = database
        self.items = items

    async def open(self) -> None:
        """Make the collection and its partitions."""
        await self.catalogue.put_collection(collection("small", self.collection_id))
        async with self.database.transaction("bench", settings=SETTINGS) as connection:
            await connection.execute(
                "UPDATE pgstac.collections SET partition_trunc = 'month' WHERE id = $1", self.collection_id
            )
        for batch in await self.batches(turn=0, version=1):
            await self.catalogue.load(self.collection_id, batch)

    async def batches(self, turn: int, version: int) -> list[list[Prepared]]:
        """Prepare the items of a turn; each turn has its own ids, spread over the same two months."""
        bodies = [
            orjson.loads(orjson.dumps(item("small", self.collection_id, number, of=self.items)))
            for number in range(self.items)
        ]
        for number, body in enumerate(bodies):
            body["id"] = f"{turn}-{number}"
            body["properties"]["revision"] = version
        made = [replace(each, version=Version(version)) for each in await prepared(bodies)]
        return [made[start : start + BATCH] for start in range(0, len(made), BATCH)]

    async def load(self, batches: Sequence[Sequence[Prepared]]) -> None:
        """Write as the daemon does."""
        for batch in batches:
            await self.catalogue.load(self.collection_id, batch)

    async def upsert(self, batches: Sequence[Sequence[Prepared]]) -> None:
        """Write over whatever is there."""
        async with self.database.transaction("bench", settings=SETTINGS) as connection:
            known = await read_collection(connection, self.collection_id, has_base_items=True)
        assert known is not None
        for batch in batches:
            parts = await make_rows(batch, *known)
            async with self.database.transaction("bench", settings=SETTINGS) as connection:
                for part in parts:
                    await connection.execute(
                        f"""
                        INSERT INTO pgstac."{part.leaf.name}"
                            (id, geometry, collection, datetime, end_datetime, content)
                        SELECT u.id, u.geometry, $1, u.datetime, u.end_datetime, u.content
                        FROM unnest($2::text[], $3::geometry[], $4::timestamptz[], $5::timestamptz[], $6::jsonb[])
                            AS u (id, geometry, datetime, end_datetime, content)
                        ON CONFLICT (id) DO UPDATE SET geometry = EXCLUDED.geometry, datetime = EXCLUDED.datetime,
                            end_datetime = EXCLUDED.end_datetime, content = EXCLUDED.content
                        """,
                        self.collection_id,
                        [row.id for row in part.rows],
                        [row.geometry for row in part.rows],
                        [row.datetime for row in part.rows],
                        [row.end_datetime for row in part.rows],
                        [row.content for row in part.rows],
                    )


async def measure(dsn: str, items: int, rounds: int) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    async with Database(dsn) as database, Catalogue(database=database, metrics=Metrics()) as catalogue:
        newest, plain = (Contest(name, catalogue, database, items) for name in ("newest", "plain"))
        ways: dict[str, tuple[Contest, Callable[[Sequence[Sequence[Prepared]]], Awaitable[None]]]] = {
            "newest wins": (newest, newest.load),
            "last wins": (plain, plain.upsert),
        }
        for contest in (newest, plain):
            await contest.open()
        for turn in range(1, rounds + 1):
            for state, version in STATES.items():
                for way, (contest, work) in ways.items():
                    batches = await contest.batches(turn, version)
                    started = time.perf_counter()
                    await work(batches)
                    found.setdefault((state, way), []).append(items / (time.perf_counter() - started))
    return found


def main(items: int = 5000, rounds: int = 7, pgstac: str = "0.10.0", json: str = "") -> None:
    """Run the benchmark and print its table."""
    log.configure("warning")
    tune_gc()
    with Postgres() as postgres:
        found = asyncio.run(measure(postgres.dsn(postgres.clone(pgstac)), items, rounds))
    rows = []
    for state in STATES:
        for way in ("last wins", "newest wins"):
            ratio = statistics.median(a / b for a, b in zip(found[state, way], found[state, "last wins"], strict=True))
            shown = None if way == "last wins" else ratio
            rows.append(Row(f"{state}: {way}, items/s", statistics.median(found[state, way]), ratio=shown))
    write("versions", f"Small items, batches of {BATCH}, one at a time, pgstac {pgstac}; {machine()}", rows, json)


if __name__ == "__main__":
    typer.run(main)
