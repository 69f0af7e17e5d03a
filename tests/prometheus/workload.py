"""What the workers work on: good and bad items, objects, requests, and pipelines of which some fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.chaos.world import Queue, World
from tests.integration.worker import item

COLLECTIONS = ("naip", "sentinel-2-l2a", "made")
BUCKET = "granules"
_ROUND_S = 0.5
_BATCH = 10

_TROUBLE = """
    CREATE FUNCTION pgstac.trouble() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.id LIKE 'bad%' THEN RAISE EXCEPTION 'this is bad'; END IF;
        IF NEW.id LIKE 'again%' AND random() < 0.5 THEN
            RAISE EXCEPTION 'another transaction was first' USING ERRCODE = '40001';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER trouble BEFORE INSERT ON pgstac.items FOR EACH ROW EXECUTE FUNCTION pgstac.trouble();
"""
"""The database refuses some items for good, and lets others lose against a rival that is not there."""


def prepare_database(world: World, database: str) -> None:
    """Create the collections, and the trouble."""
    for collection in COLLECTIONS:
        body = {
            "id": collection,
            "type": "Collection",
            "stac_version": "1.0.0",
            "description": "-",
            "license": "other",
            "links": [],
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        }
        world.postgres.execute(
            f"SET search_path TO pgstac, public; SELECT pgstac.create_collection('{json.dumps(body)}'); "
            f"UPDATE pgstac.collections SET partition_trunc = 'month' WHERE id = '{collection}'",
            database=database,
        )
    world.postgres.execute(_TROUBLE, database=database)


def write_pipelines(folder: Path) -> Path:
    """Write a folder of pipelines: one works, one asks for more than there is, one is broken."""
    works = {
        "triggers": {"schedule": {"every": "2s", "requests": [{"id": f"scene-{n}"} for n in range(5)]}},
        "generator": {"type": "items:create_items"},
        "collection": "made",
    }
    files = {
        "scenes/pipeline.yaml": json.dumps(works),
        "scenes/items.py": _ITEMS,
        "archive/pipeline.yaml": json.dumps({**works, "triggers": {"once": True}}),
        "archive/items.py": _ITEMS,
        "archive/inventory.py": "def create_requests():\n    raise ConnectionError('the archive does not answer')\n",
        "broken/pipeline.yaml": json.dumps({"triggers": {}}),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


_ITEMS = """
def create_items(request):
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": request["id"], "collection": "made",
        "geometry": {"type": "Point", "coordinates": [10.0, 50.0]}, "bbox": [10.0, 50.0, 10.0, 50.0],
        "properties": {"datetime": "2024-03-05T10:00:00Z"}, "links": [], "assets": {},
    }
"""


async def send_for(seconds: float, world: World, items: Queue, requests: Queue, *, first: int = 0) -> None:
    """Send for a while, now more, now less; `first` numbers the first round, and with it its items."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in itertools.count(first):
        if loop.time() - started > seconds:
            return
        swell = 1.2 + math.sin(number / 12)
        await asyncio.to_thread(_send, world, items, list(_items(world, number, int(40 * swell))))
        await asyncio.to_thread(_send, world, requests, list(_requests(number, int(8 * swell))))
        await asyncio.sleep(_ROUND_S)


def _items(world: World, number: int, count: int) -> Iterator[str]:
    for n in range(count):
        year, month = divmod(number // 5 + n % 3, 12)  # from time to time a month that has no partition yet
        yield json.dumps(item(f"{number}-{n}", COLLECTIONS[n % 2], f"{2010 + year}-{month + 1:02}-05T10:00:00Z"))
    yield json.dumps(item(f"again-{number}", "naip"))
    if number % 3 == 0:
        key = f"{number}.ndjson"
        lines = "\n".join(json.dumps(item(f"object-{number}-{n}", "sentinel-2-l2a")) for n in range(50))
        world.s3.put_object(Bucket=BUCKET, Key=key, Body=lines.encode())
        yield json.dumps({"href": f"s3://{BUCKET}/{key}"})
    if number % 5 == 0:
        yield _late(item(f"{number - 5}-0", "naip", f"{2010 + (number - 5) // 5 // 12}-01-05T10:00:00Z"))
        yield json.dumps(item(f"bad-{number}", "naip"))
        yield json.dumps(item(f"nowhere-{number}", "nowhere"))
        yield "this is no JSON"


def _late(body: dict[str, Any]) -> str:
    """Return an old version of an item, in SNS' envelope."""
    notification = {"Type": "Notification", "Message": json.dumps(body), "Timestamp": "2020-01-01T00:00:00.000Z"}
    return json.dumps(notification)


def _requests(number: int, count: int) -> Iterator[str]:
    for n in range(count):
        made: dict[str, Any] = item(f"made-{number}-{n}", "made")
        trouble = "raise" if n == 0 and number % 4 == 0 else None
        yield json.dumps({"id": f"{number}-{n}", "items": [made], "trouble": trouble})


def _send(world: World, queue: Queue, bodies: Iterable[str]) -> None:
    numbered = [(str(n), body) for n, body in enumerate(bodies)]
    for first in range(0, len(numbered), _BATCH):
        world.send(queue.url, dict(numbered[first : first + _BATCH]))
