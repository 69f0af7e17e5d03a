"""A pgstac database under test: the catalogue that loads, and an administrator who looks and interferes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest

from stacworker.api import Document, Version
from stacworker.database import Database
from stacworker.load.pgstac import Catalogue
from stacworker.load.prepare import Prepared, prepare
from stacworker.metrics import Metrics
from tests.naip import naip_collection, naip_item


class Site:
    """One database: `catalogue` is a replica's, `admin` a superuser's connection beside it."""

    def __init__(self, dsn: str, catalogue: Catalogue, metrics: Metrics, admin: asyncpg.Connection) -> None:
        self.dsn = dsn
        self.catalogue = catalogue
        self.metrics = metrics
        self.admin = admin

    async def add_collection(self, collection: str = "naip", trunc: str | None = None, **changes: Any) -> None:
        """Create a collection, partitioned or not."""
        await self.catalogue.put_collection(naip_collection(id=collection, **changes))
        await self.admin.execute("UPDATE pgstac.collections SET partition_trunc = $2 WHERE id = $1", collection, trunc)

    async def rows(self, collection: str = "naip") -> list[tuple[str, str, int | None]]:
        """Return id, leaf without the collection's key, and version in ms of every row, sorted."""
        found = await self.admin.fetch(
            "SELECT id, regexp_replace(tableoid::regclass::text, '^_items_\\d+_?', ''), "
            "(private->'stacworker'->>'v')::bigint FROM pgstac.items WHERE collection = $1 ORDER BY 1, 2",
            collection,
        )
        return [tuple(row) for row in found]

    async def root(self, collection: str = "naip") -> str:
        """Return the name of a collection's own table."""
        return f"_items_{await self.admin.fetchval('SELECT key FROM pgstac.collections WHERE id = $1', collection)}"

    async def search(self, datetime: str = "1990-01-01T00:00:00Z/2030-01-01T00:00:00Z", **query: Any) -> list[Any]:
        """Return what search finds with a datetime filter, sorted by id, as stac-fastapi would ask."""
        asked = {"collections": ["naip"], "limit": 1000, "datetime": datetime, **query}
        found = await self.admin.fetchval("SELECT pgstac.search($1::jsonb)", orjson.dumps(asked).decode())
        return sorted(orjson.loads(found)["features"], key=lambda item: item["id"])

    async def blocked(self) -> int:
        """Return the process id of the replica's backend that waits for a lock, once one does."""

        async def look() -> int | None:
            await self.admin.execute("SELECT pg_stat_clear_snapshot()")  # or a transaction sees only what it saw
            pid: int | None = await self.admin.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'stacworker' AND wait_event_type = 'Lock'"
            )
            return pid

        return int(await until(look))

    def count(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(f"stacworker_{name}", {"collection": "naip", **labels}) or 0.0


@asynccontextmanager
async def site_at(dsn: str, *, role: str | None = None, **options: Any) -> AsyncIterator[Site]:
    """Open a site; `options` are the catalogue's, `role` is whom it logs in as."""
    admin = await asyncpg.connect(dsn, server_settings={"search_path": "pgstac,public"})
    metrics = Metrics()
    try:
        async with (
            Database(dsn if role is None else dsn.replace("postgres@", f"{role}@")) as database,
            Catalogue(database=database, metrics=metrics, **options) as catalogue,
        ):
            yield Site(dsn, catalogue, metrics, admin)
    finally:
        await admin.close(timeout=5)


@pytest.fixture
async def site(pgstac_dsn: str) -> AsyncIterator[Site]:
    """Lend a database, once on each supported line of pgstac."""
    async with site_at(pgstac_dsn) as opened:
        yield opened


async def until(condition: Callable[[], Any], within_s: float = 20.0) -> Any:
    """Return what the condition returns once that is true; fail when it never is."""
    deadline = time.monotonic() + within_s
    while not (found := await condition()):
        if time.monotonic() > deadline:
            pytest.fail("it never happened")
        await asyncio.sleep(0.01)
    return found


def at(when: str, **properties: Any) -> dict[str, Any]:
    """Return the properties of an item at a day or a time."""
    return {"datetime": when if "T" in when else f"{when}T00:00:00Z", **properties}


def made(item_id: str, when: str = "2021-11-03", version: int = 1, **changes: Any) -> Prepared:
    """Return an item as the batcher gets it."""
    body = naip_item(id=item_id, properties=at(when), **changes)
    return prepare(Document("item", body, Version(version)))


def all_made(bodies: Iterable[dict[str, Any]], version: int = 1) -> list[Prepared]:
    """Return items as the batcher gets them."""
    return [prepare(Document("item", body, Version(version))) for body in bodies]
