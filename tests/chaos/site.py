"""What the workers of a round work with: their settings, and the collections of their catalogue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.fault import Fault
from tests.chaos.workload import COLLECTIONS, UNPARTITIONED
from tests.chaos.world import ROLE, Queue, World

_CONSUMER = {
    "max_in_flight": 100,
    "visibility_timeout_s": 4,
    "wait_time_s": 1,
    "backoff_base_s": 0.2,
    "backoff_max_s": 1.5,
}


def worker_settings(
    faults: Sequence[Fault], queues: Mapping[str, Queue], *, aws_url: str, postgres_port: int, database: str
) -> dict[str, Any]:
    """Return the settings of every worker: it reaches AWS and Postgres through the proxies only."""
    changed = {name: value for fault in faults for name, value in fault.settings.items()}
    consumers = [
        {
            "name": name,
            "type": "load" if name == "items" else "generate",
            "queue_url": queue.url,
            **_CONSUMER,
            **changed,
        }
        for name, queue in queues.items()
    ]
    settings: dict[str, Any] = {
        "aws": {"endpoint_url": aws_url, "region": "us-east-1"},
        "database": {
            "dsn": f"postgresql://{ROLE}@127.0.0.1:{postgres_port}/{database}",
            "max_connections": 6,
            "lock_timeout_s": 1.5,
            "statement_timeout_s": 15,
        },
        "collections": {
            "default": {"max_batch_items": 300, "max_batch_wait_s": 0.3},
            UNPARTITIONED: {"max_concurrency": 2},
        },
        "consumers": consumers,
        "drain_timeout_s": 20,
    }
    if "requests" in queues:
        generator = {"type": "tests.chaos.generator:create_items", "processes": 2, "timeout_s": 3, "memory_mb": 256}
        settings["generators"] = {"chaos": generator}
    return settings


def create_collections(world: World, database: str) -> None:
    """Create the collections that items go to."""
    for collection, trunc in COLLECTIONS.items():
        body = {
            "id": collection,
            "type": "Collection",
            "stac_version": "1.0.0",
            "description": "-",
            "license": "other",
            "links": [],
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        }
        part = f"'{trunc}'" if trunc else "NULL"
        world.postgres.execute(
            f"SET search_path TO pgstac, public; SELECT pgstac.create_collection('{json.dumps(body)}'); "
            f"UPDATE pgstac.collections SET partition_trunc = {part} WHERE id = '{collection}'",
            database=database,
        )
