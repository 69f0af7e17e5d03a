"""What anybody might send: each ends with a reason of its own, and costs no neighbour anything."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.aws import MakeBucket, MakeQueue
from tests.integration.conftest import MakeWorker
from tests.integration.worker import Catalogue, item

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"
S3_EVENT = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "%ff"}}}


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data)).decode()


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


BODIES = {
    "not a message": "unknown_envelope",
    '{"type": "Feature"': "unknown_envelope",
    "null": "unknown_envelope",
    dumps(item("x", note=float("nan"))): "unknown_envelope",
    json.dumps(item("\ud800")): "unknown_envelope",
    deep(100_000): "unknown_envelope",
    dumps(item("x"))[:-1] + ', "x": ' + deep(300) + "}": "too_deep",
    packed(b"\0" * 40_000_000): "object_too_large",
    packed(b"{}")[:-12]: "bad_gzip",
    dumps({"Records": "none"}): "bad_envelope",
    dumps({"Records": [S3_EVENT]}): "bad_envelope",
    dumps([POINTER, {"s3BucketName": "../x", "s3Key": "k"}]): "bad_envelope",
    dumps({"Type": "Notification", "Message": "{}", "Timestamp": "yesterday"}): "bad_envelope",
    dumps({"href": "http://169.254.169.254/"}): "unfetchable_href",
    dumps({"href": "s3://no-such-bucket-at-all/k"}): "bucket_missing",
    dumps(item("nul\0")): "invalid_item",
    dumps(item("x" * 900_000)): "invalid_item",
    dumps(item("x", collection="")): "invalid_item",
    dumps(item("x", links=[{}] * 100_000)): "invalid_item",
    dumps(item("x", assets={"x" * 900_000: 0})): "invalid_item",
    dumps(item("x", geometry={"type": "Point", "coordinates": [1e300, 1]})): "invalid_geometry",
    dumps(item("x", geometry={"type": "Polygon", "coordinates": [[[1, 2]] * 3]})): "invalid_geometry",
    dumps(item("x", datetime="0000-01-01T00:00:00Z")): "invalid_datetime",
    dumps(item("x", datetime="99999-01-01T00:00:00Z")): "invalid_datetime",
    dumps(item("x", collection="'; DROP TABLE pgstac.items; --")): "collection_missing",
    dumps({"package_name": "stactools-naip; " + "(" * 5000}): "wrong_queue",
}


async def test_hostile_bodies_cost_nobody_anything(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, bucket: MakeBucket
) -> None:
    """Each becomes one dead letter with its reason; good items among them are loaded, the numbers add up."""
    items, files = queue("items", max_receive_count=3), bucket()
    assert items.dead_letters is not None
    expected = sorted(BODIES.values())
    for name, body, error_class in (
        ("empty.json", b"", "not_json"),
        ("text.json", b"not json", "not_json"),
        ("list.json", b"[1]", "not_stac"),
        ("broken.gz", gzip.compress(b"{}")[:-9], "bad_gzip"),
        ("bomb.gz", gzip.compress(b"\0" * 70_000_000), "object_too_large"),
    ):
        await files.put(name, body)
        expected.append(error_class)
    lines = [dumps(item("line-1")), "", "{bad", dumps(item("line-2")), dumps(item("line-3", geometry=None))]
    await files.put("lines.ndjson", b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    expected += ["not_json", "invalid_geometry"]
    names = ("empty.json", "text.json", "list.json", "broken.gz", "bomb.gz", "lines.ndjson")
    good = [dumps(item(f"good-{n}")) for n in range(len(BODIES))]
    running = worker({"name": "items", "type": "load", "queue_url": items.url})
    await running.start()
    await items.send(*(body for pair in zip(BODIES, good, strict=True) for body in pair))
    await items.send(*(f"s3://{files.name}/{name}" for name in names))
    await catalogue.until_count("things", len(good) + 2)
    letters = await items.dead_letters.drain(expected=len(expected), timeout_s=30)
    assert sorted(letter.attributes["stacworker_error_class"] for letter in letters) == sorted(expected)
    assert all(0 < len(letter.attributes["stacworker_reason"].encode()) <= 1024 for letter in letters)
    await items.wait_until_empty()
    assert running.outcomes() == {"acked": len(good), "dead_lettered": len(BODIES) + len(names)}
    assert running.metric("messages_received_total") == len(good) + len(BODIES) + len(names)
    assert running.events("message.unexpected_error") == []
    assert await running.stop() == 0


async def test_dead_letters_can_be_sent_again(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, bucket: MakeBucket
) -> None:
    """Once the missing collection is there, what was dead-lettered loads as it is."""
    items, files = queue("items", max_receive_count=3), bucket()
    assert items.dead_letters is not None
    some = [item("a"), item("b", "later"), item("c", "later"), item('d"\\/\n\u202e', "later")]
    await files.put("one.json", dumps(item("one", "later")))
    await files.put("some.ndjson", "\n".join(dumps({**each, "id": f"line-{each['id']}"}) for each in some))
    running = worker({"name": "items", "type": "load", "queue_url": items.url})
    await running.start()
    record = {**S3_EVENT, "s3": {"bucket": {"name": files.name}, "object": {"key": "one.json"}}}
    await items.send(
        dumps(item("raw", "later")),
        dumps({"type": "FeatureCollection", "features": some}),
        dumps({"Type": "Notification", "Message": dumps({"Records": [record]}), "Timestamp": "2024-01-01T00:00:00Z"}),
        f"s3://{files.name}/some.ndjson",
    )
    letters = await items.dead_letters.drain(expected=8, timeout_s=20)
    assert {letter.attributes["stacworker_error_class"] for letter in letters} == {"collection_missing"}
    assert await catalogue.ids("things") == ["a", "line-a"]
    await catalogue.add_collection("later")
    await items.send(*(letter.body for letter in letters))
    await items.wait_until_empty()
    ids = ["b", "c", 'd"\\/\n\u202e']
    assert set(await catalogue.ids("later")) == {"raw", "one", *ids, *(f"line-{each}" for each in ids)}
    assert await items.dead_letters.drain() == []


FUNCTION = """
import os
def item(id, collection):
    return {"type": "Feature", "stac_version": "1.0.0", "id": id, "collection": collection,
            "geometry": {"type": "Point", "coordinates": [1.0, 2.0]}, "bbox": [1.0, 2.0, 1.0, 2.0],
            "properties": {"datetime": "2024-05-01T00:00:00Z"}, "links": [], "assets": {}}
def create_items(request):
    name = request["href"].rsplit("/", 1)[-1]
    if name.startswith("crash"):
        os._exit(1)
    return [item(f"{name}-{n}", "later" if n else "things") for n in range(2)]
"""


async def test_requests_can_be_sent_again_and_crashes_cost_themselves_only(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, tmp_path: Path
) -> None:
    """A hundred requests, ten of which crash their process; their items need a collection that comes later."""
    (tmp_path / "my_two.py").write_text(FUNCTION)
    requests = queue("requests", max_receive_count=1)
    assert requests.dead_letters is not None
    running = worker(
        {"name": "requests", "type": "generate", "queue_url": requests.url},
        generators={"mine": {"type": "my_two:create_items", "processes": 2}},
    )
    await running.start()
    names = [f"crash-{n}" if n % 10 == 0 else f"file-{n}" for n in range(96)]
    record = {"eventName": "ObjectCreated:Put"}
    event = {"Records": [{**record, "s3": {"bucket": {"name": "b"}, "object": {"key": f"in-{n}"}}} for n in range(4)]}
    await requests.send(*(f"https://example.com/{name}" for name in names), dumps(event))
    letters = await requests.dead_letters.drain(expected=100, timeout_s=60)
    classes = [letter.attributes["stacworker_error_class"] for letter in letters]
    assert sorted(classes) == ["collection_missing"] * 90 + ["generator_crashed"] * 10
    assert await catalogue.count("things") == 90
    await catalogue.add_collection("later")
    again = [letter.body for letter, why in zip(letters, classes, strict=True) if why == "collection_missing"]
    await requests.send(*again)
    await requests.wait_until_empty()
    good = [name for name in [*names, *(f"in-{n}" for n in range(4))] if not name.startswith("crash")]
    assert await catalogue.ids("later") == sorted(f"{name}-1" for name in good)
    assert await requests.dead_letters.drain() == []
