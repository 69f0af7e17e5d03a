"""What is there when a round is over: rows, what a search finds, dead letters, messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

from tests.chaos.oracle import Letter, Row, Violation
from tests.chaos.workload import Copy
from tests.chaos.world import Queue, World

_ROWS = """
SELECT collection, id, content->'properties'->>'rev',
       to_char(datetime AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), public.ST_X(geometry)
FROM pgstac.items
"""
_SEARCH = "SELECT pgstac.search(%s::jsonb)->'features'"
_ALL_TIMES = "2023-07-01T00:00:00Z/2024-07-31T00:00:00Z"


async def rows(world: World, database: str) -> list[Row]:
    """Return every row of the catalogue."""
    return [Row(*row) for row in await asyncio.to_thread(world.fetch, database, _ROWS)]


async def letters(world: World, queues: Iterable[Queue]) -> list[Letter]:
    """Take all dead letters."""
    found = [each for queue in queues for each in await asyncio.to_thread(world.take_all, queue.dead_url)]
    return [
        Letter(each["Body"], each.get("MessageAttributes", {}).get("stacworker_reason", {}).get("StringValue", ""))
        for each in found
    ]


async def bodies(world: World, queues: Iterable[Queue]) -> list[str]:
    """Take what is left in the queues."""
    found = [each for queue in queues for each in await asyncio.to_thread(world.take_all, queue.url)]
    return [each["Body"] for each in found]


async def unfindable(world: World, database: str, sample: Sequence[Copy]) -> list[Violation]:
    """Ask pgstac's search for items, by time too: a partition without statistics is invisible to it."""
    by_collection: dict[str, list[Copy]] = {}
    for copy in sample:
        by_collection.setdefault(copy.collection, []).append(copy)
    missing = []
    for collection, copies in by_collection.items():
        asked = {
            "collections": [collection],
            "ids": [copy.id for copy in copies],
            "datetime": _ALL_TIMES,
            "limit": len(copies) * 2,
        }
        ((features,),) = await asyncio.to_thread(world.fetch, database, _SEARCH, json.dumps(asked))
        found = {feature["id"]: feature for feature in features}
        missing += [
            Violation("unfindable", f"search does not find {copy.key} as it was sent: {found.get(copy.id)}")
            for copy in copies
            if not _equal(found.get(copy.id), copy.body())
        ]
    return missing


def _equal(found: dict[str, Any] | None, sent: dict[str, Any]) -> bool:
    return found is not None and all(
        found.get(name) == sent[name] for name in sent if name not in ("links", "stac_version")
    )
