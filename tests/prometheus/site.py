"""Two workers under load: one as plain Prometheus sees it, one with the labels that Kubernetes gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.world import CREDENTIALS, Queue, World
from tests.integration.worker import Worker, settings_for
from tests.prometheus.server import ENDS_WITH_US
from tests.prometheus.workload import BUCKET, prepare_database, write_pipelines

NEVER_UP = "stacworker-never"
"""The job of a worker that has not come up."""
_NOBODY_LISTENS = 1
_PGSTAC = "0.10.0"
_CONSUMER = {"visibility_timeout_s": 4, "max_in_flight": 500, "backoff_max_s": 3}


@dataclass(frozen=True, slots=True)
class Site:
    """What a run works with."""

    world: World
    items: Queue
    requests: Queue
    plain: Worker
    pod: Worker
    dsn: str

    def targets(self) -> dict[str, dict[str, Any]]:
        """Return what Prometheus scrapes, by job."""
        return {
            "ingest": {"port": self.plain.events("http.listening")[-1]["port"]},
            "stac/ingest": {
                "port": self.pod.events("http.listening")[-1]["port"],
                "labels": {"namespace": "stac", "pod": "ingest-0"},
            },
            NEVER_UP: {"port": _NOBODY_LISTENS},
        }


@asynccontextmanager
async def site_in(folder: Path) -> AsyncIterator[Site]:
    """Start the servers and both workers, which share the queues and the catalogue; end them all."""
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World())
        await asyncio.to_thread(world.s3.create_bucket, Bucket=BUCKET)
        database = await stack.enter_async_context(world.database(_PGSTAC))
        await asyncio.to_thread(prepare_database, world, database)
        items, requests = world.make_queue("items", tries=4), world.make_queue("requests", tries=2)
        dsn = world.postgres.dsn(database)
        settings = settings_for(
            dsn,
            world.localstack,
            {"name": "items", "type": "load", "queue_url": items.url, **_CONSUMER},
            {"name": "requests", "type": "generate", "queue_url": requests.url, "any_object": True, **_CONSUMER},
            generators={"granules": {"type": "tests.chaos.generator:create_items", "processes": 2}},
            collections={"default": {"max_batch_items": 200, "max_batch_wait_s": 0.5}},
            pipelines={"folder": str(write_pipelines(folder / "pipelines")), "on_broken": "skip"},
            environments={"folder": str(folder / "environments")},
            drain_timeout_s=15,
            log={"format": "json"},
        )
        workers = [Worker(folder, settings, CREDENTIALS, name=name, prefix=ENDS_WITH_US) for name in ("plain", "pod")]
        for worker in workers:
            stack.callback(worker.cleanup)
            worker.spawn()
        for worker in workers:
            await worker.until(worker.is_ready)
        yield Site(world, items, requests, *workers, dsn=dsn)
