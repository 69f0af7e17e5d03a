"""A batcher on a catalogue in memory, and items to put in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stacworker.api import Version
from stacworker.errors import Permanent
from stacworker.inflight import InFlight
from stacworker.load.batcher import Batcher
from stacworker.load.prepare import Prepared
from stacworker.metrics import Metrics
from stacworker.settings import CollectionSettings
from stacworker.testing.catalogue import FakeCatalogue

WHEN = datetime(2020, 1, 31, tzinfo=UTC)


def make(item_id: str, version: int = 1, *, collection: str = "c", size: int = 10, **content: Any) -> Prepared:
    """Return an item as `prepare` would; `content` tells apart what has one version."""
    body = {"id": item_id, "collection": collection, **content}
    return Prepared(item_id, collection, WHEN, WHEN, b"", body, size, Version(version), "message body")


def bad(item: Prepared) -> str | None:
    """Say why the database refuses an item: it is called bad."""
    return f"invalid input: {item.id}" if item.body.get("bad") else None


@dataclass
class Bench:
    """A batcher and all that a test wants to look at.

    The wait for a batch is so long that a test which needs it to pass hangs; `more` stands for a queue
    that has more to give, so that nothing flushes early.
    """

    catalogue: FakeCatalogue = field(default_factory=lambda: FakeCatalogue("abc", refuses=bad))
    metrics: Metrics = field(default_factory=Metrics)
    in_flight: InFlight = field(default_factory=InFlight)
    more: InFlight = field(default_factory=lambda: InFlight(more_expected=True))
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.catalogue, self.settings_for, self.metrics, busy_pause_s=0.0)

    def settings_for(self, collection: str) -> CollectionSettings:
        del collection
        return CollectionSettings(**{"max_batch_wait_s": 300.0, **self.settings})

    async def submit(self, *items: Prepared, in_flight: InFlight | None = None) -> list[Permanent | None]:
        """Submit as one message does."""
        in_flight = in_flight or self.in_flight
        in_flight.enter()
        try:
            return await self.batcher.submit(items, in_flight)
        finally:
            in_flight.leave()

    def start(self, *items: Prepared, in_flight: InFlight | None = None) -> asyncio.Task[list[Permanent | None]]:
        """Submit in a task of its own."""
        return asyncio.ensure_future(self.submit(*items, in_flight=in_flight))

    def count(self, name: str, collection: str = "c", **labels: str) -> float:
        """Return a metric's value."""
        labels["collection"] = collection
        return self.metrics.registry.get_sample_value(f"stacworker_{name}", labels) or 0.0

    def counts(self, collection: str = "c") -> dict[str, float]:
        """Return how the items of a collection ended, and how many still wait."""
        rejected = sum(
            sample.value
            for metric in self.metrics.items_rejected.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.labels["collection"] == collection
        )
        return {
            "loaded": self.count("items_loaded_total", collection),
            "superseded": self.count("items_superseded_total", collection),
            "rejected": rejected,
            "buffered": self.count("buffered_items", collection),
        }

    def versions(self) -> dict[str, int]:
        """Return the version of each item in the catalogue."""
        return {item_id: item.version.time_ms for (_, item_id), item in self.catalogue.items.items()}

    def batches(self) -> list[Sequence[str]]:
        """Return the ids of each load begun."""
        return [ids for _, ids in self.catalogue.loads]


@asynccontextmanager
async def bench(catalogue: FakeCatalogue | None = None, **settings: Any) -> AsyncIterator[Bench]:
    """Run a batcher whose collections have these settings; nothing may be left of it afterwards."""
    made = Bench(settings=settings) if catalogue is None else Bench(catalogue=catalogue, settings=settings)
    async with asyncio.timeout(20), made.batcher:
        yield made
    assert made.batcher._lanes == {}


async def settled(tasks: int = 3) -> None:
    """Let everything that is ready to run do so, a few steps of it."""
    for _ in range(tasks):
        await asyncio.sleep(0)


def told(verdicts: Sequence[Permanent | None]) -> list[tuple[str, str | None, str | None, str] | None]:
    """Return what is in refusals, comparable."""
    return [v and (v.error_class, v.collection, v.item_id, v.reason) for v in verdicts]
