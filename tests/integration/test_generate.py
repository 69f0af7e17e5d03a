"""Generate consumers in the daemon: requests on a queue, items in the catalogue or published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stacworker.demo.rasters import make_granules
from tests.integration.aws import MakeBucket, MakeQueue, MakeTopic, Queue
from tests.integration.conftest import MakeWorker
from tests.integration.worker import Catalogue

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

FUNCTION = """
import os, time
def item(id, **properties):
    return {"type": "Feature", "stac_version": "1.0.0", "id": id, "collection": "things",
            "geometry": {"type": "Point", "coordinates": [1.0, 2.0]}, "bbox": [1.0, 2.0, 1.0, 2.0],
            "properties": {"datetime": "2024-05-01T00:00:00Z", **properties}, "links": [], "assets": {}}
def create_items(request):
    if "crash" in request:
        os._exit(1)
    if "raise" in request:
        raise ValueError(request["raise"])
    if "seconds" in request:
        time.sleep(request["seconds"])
    if "many" in request:
        return (item(f"{request['id']}-{n}") for n in range(request["many"]))
    if "assets" in request:
        return {**item(request["id"], **request["properties"]), "assets": request["assets"]}
    if "href" in request:
        return item(request["href"].rsplit("/", 1)[-1], bucket=request.get("bucket"))
    return item(request["id"])
"""


@pytest.fixture
def functions(tmp_path: Path) -> dict[str, Any]:
    """Write a module with a generator function; give the settings of a generator that calls it."""
    (tmp_path / "my_items.py").write_text(FUNCTION)
    return {"mine": {"type": "my_items:create_items", "processes": 2}}


def generates(queue: Queue, **more: Any) -> dict[str, Any]:
    """Return the settings of a generate consumer."""
    return {"name": "requests", "type": "generate", "queue_url": queue.url, **more}


def request(id_: str, **more: Any) -> str:
    """Return a request in the form {id, path}."""
    return json.dumps({"id": id_, "path": f"some/{id_}", **more})


async def test_requests_become_items_in_the_catalogue(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, functions: dict[str, Any]
) -> None:
    """One request may make many items; S3 events and URLs are requests; a crash or an error costs only itself."""
    requests = queue("requests", max_receive_count=2)
    event = {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "eventTime": "2024-01-01T00:00:00.000Z",
                "s3": {"bucket": {"name": "b"}, "object": {"key": "granules/from-event", "sequencer": "0A"}},
            }
        ]
    }
    await requests.send(
        request("one"),
        request("some", many=3),
        json.dumps(event),
        "s3://bucket/granules/from-url",
        request("crash", crash=True),
        request("error", **{"raise": "no such granule"}),
    )
    running = worker(generates(requests), generators=functions)
    await running.start()
    await catalogue.until_count("things", 6)
    assert await catalogue.ids("things") == ["from-event", "from-url", "one", "some-0", "some-1", "some-2"]
    assert requests.dead_letters is not None
    letters = {json.loads(letter.body)["id"]: letter.attributes for letter in await requests.dead_letters.drain(2)}
    assert letters["crash"]["stacworker_error_class"] == "generator_crashed"
    assert "ValueError: no such granule" in letters["error"]["stacworker_reason"]
    await requests.wait_until_empty()
    assert await running.stop() == 0


async def test_partial_items_are_finished(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, topic: MakeTopic, functions: dict[str, Any]
) -> None:
    """STAC in, STAC out: what the sender knew of an item stays in it."""
    requests, news = queue("requests", max_receive_count=2), topic()
    news.subscribe(requests)
    partials = [{"id": name, "assets": {"data": {"href": f"s3://b/{name}"}}, "properties": {"gsd": 3}} for name in "ab"]
    await requests.send(json.dumps(partials[0]))
    await news.publish(json.dumps(partials[1]))
    running = worker(generates(requests), generators=functions)
    await running.start()
    await catalogue.until_count("things", 2)
    found = {item["id"]: (item["assets"], item["properties"]["gsd"]) for item in await catalogue.search()}
    assert found == {partial["id"]: (partial["assets"], 3) for partial in partials}
    await requests.wait_until_empty()
    assert await running.stop() == 0


async def test_item_requests_of_stactools_users_work_unchanged(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, tmp_path: Path
) -> None:
    """The messages that StactoolsItemGenerator takes make the same items, with a real package."""
    await catalogue.add_collection("naip")
    granules = list(make_granules(tmp_path, 5))
    requests = queue("requests", max_receive_count=2)
    bodies = [
        {
            "package_name": "stactools-naip",
            "group_name": "naip",
            "create_item_args": [granule.state, granule.year, str(granule.path)],
            "collection_id": "naip",
        }
        for granule in granules
    ]
    forbidden = {**bodies[0], "package_name": "stactools-landsat"}
    await requests.send(*map(json.dumps, [*bodies, forbidden]))
    naip = {"type": "stactools", "packages": ["stactools-naip==0.5.0"], "local_paths": [str(tmp_path)]}
    running = worker(generates(requests), generators={"naip": naip})
    await running.start()
    await catalogue.until_count("naip", 5)
    assert await catalogue.ids("naip") == sorted(granule.item_id for granule in granules)
    assert requests.dead_letters is not None
    (letter,) = await requests.dead_letters.drain(1)
    assert json.loads(letter.body) == forbidden
    assert letter.attributes["stacworker_error_class"] == "package_not_allowed"


async def test_a_drain_releases_what_no_child_has_started(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, functions: dict[str, Any]
) -> None:
    """SIGTERM finishes the jobs that run and gives the other requests back at once."""
    requests = queue("requests", max_receive_count=5, visibility_timeout_s=120)
    await requests.send(*(request(f"r{n:02}", seconds=0.5) for n in range(40)))
    running = worker(generates(requests), generators=functions)
    await running.start()
    await running.until(lambda: running.metric("items_loaded_total") >= 2)
    assert await running.stop() == 0
    done = await catalogue.count("things")
    assert done < 20
    assert (await requests.depth()).visible == 40 - done


@pytest.mark.parametrize("kind", ["sns", "sqs", "s3"])
async def test_items_can_be_published_instead(
    worker: MakeWorker,
    queue: MakeQueue,
    topic: MakeTopic,
    bucket: MakeBucket,
    functions: dict[str, Any],
    kind: str,
    s3: Any,
) -> None:
    """With another output the items go to a topic, a queue or a bucket, and the request is acknowledged."""
    requests, target, news, files = queue("requests", max_receive_count=2), queue("target"), topic(), bucket()
    news.subscribe(target, raw=True)
    await requests.send(request("many", many=25))
    output = {"sns": f"sns:{news.arn}", "sqs": f"sqs:{target.url}", "s3": f"s3://{files.name}/items/"}[kind]
    running = worker(generates(requests, output=output), generators=functions)
    await running.start()
    await requests.wait_until_empty()
    expected = sorted(f"many-{n}" for n in range(25))
    if kind == "s3":
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=files.name)["Contents"]]
        assert keys == sorted(f"items/things/{id_}.json" for id_ in expected)
    else:
        assert sorted(json.loads(message.body)["id"] for message in await target.drain(25)) == expected
    assert await running.stop() == 0


async def test_a_generator_that_cannot_be_loaded_stops_the_start(worker: MakeWorker, queue: MakeQueue) -> None:
    """A wrong reference or a package that is not installed is exit code 2 with a line that says so."""
    running = worker(
        generates(queue()),
        generators={"a": {"type": "no_such_module:f"}, "b": {"type": "stactools", "packages": ["stactools-nope==1"]}},
    )
    await running.start(ready=False)
    assert await running.ended() == 2
    assert "no_such_module" in running.log()
