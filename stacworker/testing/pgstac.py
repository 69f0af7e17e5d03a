"""A database with pgstac for one test: items in by way of the daemon's own loading, items out as a STAC API would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import orjson
import psycopg

from stacworker.api import Document, Version
from stacworker.database import ConnectArgs, Database
from stacworker.inflight import InFlight
from stacworker.load.batcher import Batcher
from stacworker.load.pgstac import Catalogue
from stacworker.load.sink import PgstacSink
from stacworker.metrics import Metrics
from stacworker.settings import CollectionSettings
from stacworker.testing.generating import outside_loop

_LIMIT = 1000


class PgstacDatabase:
    """What the fixture `pgstac` gives; `dsn` is the database's URL. Works in plain and in async tests."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def load(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Load items; a collection that is not there is made. Raises `Rejected` when some are refused."""
        version = Version(round(time.time() * 1000))
        documents = [Document("item", dict(item), version, "the test") for item in items]
        outside_loop(lambda: asyncio.run(self._put(documents)))

    def load_collection(self, collection: Mapping[str, Any]) -> None:
        """Create or replace a collection. Raises `Rejected` when it is refused."""
        document = Document("collection", dict(collection), Version(round(time.time() * 1000)), "the test")
        outside_loop(lambda: asyncio.run(self._put([document])))

    def search(self, **query: Any) -> list[dict[str, Any]]:
        """Return the items that pgstac's search finds, such as `search(collections=["c"], ids=["a"])`."""
        with psycopg.connect(self.dsn, options="-c search_path=pgstac,public") as connection:
            asked = orjson.dumps({"limit": _LIMIT, **query}).decode()
            row = connection.execute("SELECT search(%s::jsonb)", [asked]).fetchone()
        features: list[dict[str, Any]] = row[0]["features"] if row else []
        return features

    async def _put(self, documents: list[Document]) -> None:
        settings = CollectionSettings(create_missing=True, max_batch_wait_s=0.01)
        metrics = Metrics()
        async with AsyncExitStack() as stack:
            database = Database(ConnectArgs(dsn=self.dsn), max_connections=2)
            await stack.enter_async_context(database)
            await database.open()
            catalogue = await stack.enter_async_context(Catalogue(database=database, metrics=metrics))
            batcher = await stack.enter_async_context(Batcher(catalogue, lambda _: settings, metrics))
            await PgstacSink(catalogue, batcher, lambda _: settings, metrics).put(documents, InFlight())
