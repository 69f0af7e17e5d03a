"""Items too large for a message, and items as ndjson: from requests to the catalogue, by way of queues and S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.aws import MakeBucket, MakeQueue, MakeTopic, Queue
from tests.integration.conftest import MakeWorker
from tests.integration.worker import Catalogue

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

FUNCTION = """
def create_items(request):
    for n in range(request.get("many", 1)):
        yield {"type": "Feature", "stac_version": "1.0.0", "id": f"{request['id']}-{n}", "collection": "things",
               "geometry": {"type": "Point", "coordinates": [1.0, 2.0]}, "bbox": [1.0, 2.0, 1.0, 2.0],
               "properties": {"datetime": "2024-05-01T00:00:00Z", "text": "é" * request.get("size", 1)},
               "links": [], "assets": {}}
"""
TAKES_BYTES = 20_000


@pytest.fixture
def generators(tmp_path: Path) -> dict[str, Any]:
    """Write a module with a generator function; give the settings of a generator that calls it."""
    (tmp_path / "sized_items.py").write_text(FUNCTION)
    return {"sized": {"type": "sized_items:create_items", "processes": 1}}


def request(id_: str, **more: Any) -> str:
    return json.dumps({"id": id_, "path": f"some/{id_}", **more})


def generates(queue: Queue, **more: Any) -> dict[str, Any]:
    return {"name": "requests", "type": "generate", "queue_url": queue.url, **more}


def loads(queue: Queue) -> dict[str, Any]:
    return {"name": "items", "type": "load", "queue_url": queue.url}


@pytest.mark.parametrize("way", ["sqs", "sns", "sns raw"])
async def test_large_items_reach_the_catalogue_by_way_of_s3(
    catalogue: Catalogue,
    worker: MakeWorker,
    queue: MakeQueue,
    topic: MakeTopic,
    bucket: MakeBucket,
    generators: dict[str, Any],
    way: str,
    sqs: Any,
    s3: Any,
) -> None:
    """An item larger than the target takes is a pointer in the queue, and an item again once it is loaded."""
    requests, items, large, news = queue("requests", max_receive_count=2), queue("items"), bucket("large"), topic()
    size = 150_000  # of two bytes each
    if way == "sqs":
        output = f"sqs:{items.url}"
        sqs.set_queue_attributes(QueueUrl=items.url, Attributes={"MaximumMessageSize": str(TAKES_BYTES)})
        size = TAKES_BYTES // 2
    else:
        output = f"sns:{news.arn}"
        news.subscribe(items, raw=way == "sns raw")
    await requests.send(request("small", many=3), request("large", many=3, size=size))
    overflow = f"s3://{large.name}/too large/"
    running = worker(
        generates(requests, output=output, output_overflow=overflow.replace(" ", "-")),
        loads(items),
        generators=generators,
    )
    await running.start()
    await catalogue.until_count("things", 6)
    found = {item["id"]: len(item["properties"]["text"]) for item in await catalogue.search()}
    assert found == {f"{name}-{n}": 1 if name == "small" else size for name in ("small", "large") for n in range(3)}
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=large.name)["Contents"]]
    assert [key.rpartition("-")[0] for key in keys] == [f"too-large/things/large-{n}" for n in range(3)]
    await requests.wait_until_empty()
    await items.wait_until_empty()
    assert await running.stop() == 0


async def test_without_overflow_a_large_item_is_a_dead_letter_that_names_the_setting(
    worker: MakeWorker, queue: MakeQueue, generators: dict[str, Any], sqs: Any
) -> None:
    """The limit is the queue's own, and the small items are sent."""
    requests, items = queue("requests", max_receive_count=2), queue("items")
    sqs.set_queue_attributes(QueueUrl=items.url, Attributes={"MaximumMessageSize": str(TAKES_BYTES)})
    await requests.send(request("small"), request("large", size=TAKES_BYTES))
    running = worker(generates(requests, output=f"sqs:{items.url}"), generators=generators)
    await running.start()
    assert requests.dead_letters is not None
    (letter,) = await requests.dead_letters.drain(1)
    assert letter.attributes["stacworker_error_class"] == "too_large"
    assert f"takes {TAKES_BYTES:,}; set output_overflow" in letter.attributes["stacworker_reason"]
    assert [json.loads(message.body)["id"] for message in await items.drain(1)] == ["small-0"]
    assert await running.stop() == 0


async def test_an_output_queue_that_does_not_exist_stops_the_start(
    worker: MakeWorker, queue: MakeQueue, generators: dict[str, Any]
) -> None:
    """Exit code 2, and the line names the setting."""
    requests = queue("requests")
    running = worker(generates(requests, output=f"sqs:{requests.url}-gone"), generators=generators)
    await running.start(ready=False)
    assert await running.ended() == 2
    assert "consumers[requests].output: asking for queue" in running.log()


async def test_items_as_ndjson_reach_the_catalogue_by_s3_s_own_events(
    catalogue: Catalogue,
    worker: MakeWorker,
    queue: MakeQueue,
    bucket: MakeBucket,
    generators: dict[str, Any],
    s3: Any,
) -> None:
    """Many items of many requests are few objects, and each is in the catalogue once."""
    requests, events, files = queue("requests", max_receive_count=2), queue("events"), bucket("files")
    files.notify(events.arn)
    await requests.send(*(request(f"r{n}", many=100) for n in range(20)))
    running = worker(
        generates(requests, output=f"s3://{files.name}/items/", output_format="ndjson"),
        loads(events),
        generators=generators,
    )
    await running.start()
    await catalogue.until_count("things", 2000)
    await requests.wait_until_empty()
    await events.wait_until_empty()
    objects = s3.list_objects_v2(Bucket=files.name)["Contents"]
    assert 2 <= len(objects) <= 20
    assert await running.stop() == 0
