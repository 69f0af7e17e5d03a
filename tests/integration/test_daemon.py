"""The daemon as its users run it: a process, real queues, a real catalogue."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.aws import MakeBucket, MakeQueue, MakeTopic, Queue
from tests.integration.conftest import MakeWorker
from tests.integration.worker import Catalogue, catalogue_at, item


def loads(queue: Queue, **more: Any) -> dict[str, Any]:
    """Return the settings of a load consumer."""
    return {"name": "items", "type": "load", "queue_url": queue.url, **more}


async def test_every_envelope_ends_in_the_catalogue(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, topic: MakeTopic, bucket: MakeBucket
) -> None:
    """Raw, SNS wrapped and raw, S3 events straight and through SNS, EventBridge, collections, many in one."""
    items, files, news = queue("items", max_receive_count=3), bucket(), topic()
    raw_news = topic("raw")
    news.subscribe(items)
    raw_news.subscribe(items, raw=True)
    files.notify(items.arn)
    running = worker(loads(items))
    await running.start()

    dumps = json.dumps
    await items.send(dumps(item("raw")))
    await items.send(dumps({"type": "FeatureCollection", "features": [item("fc-1"), item("fc-2")]}))
    await news.publish(dumps(item("sns")))
    await raw_news.publish(dumps(item("sns-raw")))
    await files.put("a folder/ü+é %41/plain.json", dumps(item("s3-event")))
    await files.put("packed.json.gz", gzip.compress(dumps(item("s3-gzip")).encode()))
    await files.put("many.ndjson", "\n".join(dumps(item(f"ndjson-{n}")) for n in range(3)))
    await files.put("collection.json", dumps({"type": "FeatureCollection", "features": [item("s3-fc")]}))
    quiet = bucket("quiet")
    await quiet.put("eb key+1.json", dumps(item("eventbridge")))
    await items.send(
        dumps(
            {
                "version": "0",
                "source": "aws.s3",
                "detail-type": "Object Created",
                "time": "2024-01-01T00:00:00Z",
                "detail": {"bucket": {"name": quiet.name}, "object": {"key": "eb key+1.json", "sequencer": "0A"}},
            }
        )
    )
    event = {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "eventTime": "2024-01-01T00:00:00.000Z",
                "s3": {"bucket": {"name": quiet.name}, "object": {"key": key, "sequencer": "0A"}},
            }
            for key in ("two%2B1.json", "two+2.json")
        ]
    }
    await quiet.put("two+1.json", dumps(item("record-1")))
    await quiet.put("two 2.json", dumps(item("record-2")))
    await news.publish(dumps(event))
    await items.send(dumps({"href": await quiet.put("href.json", dumps(item("href")))}))
    await items.send(await quiet.put("url.json", dumps(item("bare-url"))))
    await quiet.put("pointed", dumps(item("pointer")))
    pointer = ["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": quiet.name, "s3Key": "pointed"}]
    await items.send(dumps(pointer))

    expected = sorted(
        [
            "raw",
            "fc-1",
            "fc-2",
            "sns",
            "sns-raw",
            "s3-event",
            "s3-gzip",
            "ndjson-0",
            "ndjson-1",
            "ndjson-2",
            "s3-fc",
            "eventbridge",
            "record-1",
            "record-2",
            "href",
            "bare-url",
            "pointer",
        ]
    )
    await running.until(lambda: running.metric("items_loaded_total") >= len(expected))
    assert await catalogue.ids("things") == expected
    found = await catalogue.search(collections=["things"], datetime="2024-03-01T00:00:00Z/2024-03-31T00:00:00Z")
    assert sorted(feature["id"] for feature in found) == expected

    new = {**item("in-new", "new"), "properties": {"datetime": "2020-01-01T00:00:00Z"}}
    body = {
        "type": "Collection",
        "id": "new",
        "stac_version": "1.0.0",
        "description": "made through the queue",
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }
    await items.send(dumps(body))
    await items.wait_until_empty()
    await items.send(dumps(new))
    await catalogue.until_count("new", 1)
    assert await running.stop() == 0
    assert items.dead_letters is not None
    assert await items.dead_letters.drain() == []
    await items.wait_until_empty()


async def test_one_bad_item_among_five_hundred(catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue) -> None:
    """Only the bad one is dead-lettered, with its reason; all others are in the catalogue."""
    items = queue("items", max_receive_count=3)
    bodies = [json.dumps(item(f"i{n:03}")) for n in range(500)]
    bodies[250] = json.dumps(item("i250", geometry=None))
    await items.send(*bodies)
    running = worker(loads(items))
    await running.start()
    await catalogue.until_count("things", 499)
    await items.wait_until_empty()
    assert items.dead_letters is not None
    (letter,) = await items.dead_letters.drain(1)
    assert letter.body == bodies[250]
    assert letter.attributes["stacworker_item_id"] == "i250"
    assert letter.attributes["stacworker_collection"] == "things"
    assert letter.attributes["stacworker_consumer"] == "items"
    assert letter.attributes["stacworker_source_queue"] == items.url
    assert "geometry" in letter.attributes["stacworker_reason"]
    assert running.outcomes() == {"acked": 499, "dead_lettered": 1}
    assert running.metric("messages_received_total") == 500
    assert await running.stop() == 0


async def test_only_the_database_knows_what_is_bad(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, pgstac_dsn: str
) -> None:
    """What passes our checks and the database refuses is found by bisection and dead-lettered with its words."""
    async with catalogue_at(pgstac_dsn) as other:
        await other._connection.execute(
            "ALTER TABLE pgstac.items ADD CONSTRAINT no_seven CHECK (content->'properties'->>'note' <> 'seven')"
        )
    items = queue("items", max_receive_count=3)
    bodies = [item(f"i{n:03}") for n in range(100)]
    bodies[7]["properties"]["note"] = "seven"
    await items.send(*(json.dumps(body) for body in bodies))
    running = worker(loads(items))
    await running.start()
    await catalogue.until_count("things", 99)
    await items.wait_until_empty()
    assert items.dead_letters is not None
    (letter,) = await items.dead_letters.drain(1)
    assert letter.attributes["stacworker_item_id"] == "i007"
    assert "no_seven" in letter.attributes["stacworker_reason"]
    assert running.metric("batch_bisections_total") > 0


@pytest.mark.newest_pgstac
async def test_bad_messages_say_why(catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue) -> None:
    """Each kind of bad message becomes a dead letter with a reason a person can act on."""
    items = queue("items", max_receive_count=2)
    bad = {
        "this is no message": "expected",
        "{": "JSON",
        '{"hello": "world"}': "expected",
        json.dumps(item("x", "nowhere")): "nowhere",
        json.dumps({**item("x"), "properties": {"datetime": "now"}}): "datetime",
        json.dumps({"href": "s3://no-such-bucket-here/x.json"}): "no-such-bucket-here",
        json.dumps({"package_name": "p", "group_name": "g", "create_item_args": []}): "generate",
        json.dumps(item("nul", properties={"datetime": "2024-01-01T00:00:00Z", "n": "a\x00b"})): "NUL",
    }
    await items.send(*bad)
    running = worker(loads(items))
    await running.start()
    await running.until(lambda: running.metric("messages_total", outcome="dead_lettered") == len(bad))
    assert items.dead_letters is not None
    letters = {letter.body: letter.attributes for letter in await items.dead_letters.drain(len(bad))}
    assert set(letters) == set(bad)
    for body, words in bad.items():
        assert words in letters[body]["stacworker_reason"], letters[body]
        assert letters[body]["stacworker_error_class"]
    assert await catalogue.count("things") == 0


@pytest.mark.newest_pgstac
async def test_good_parts_of_a_bad_message_are_loaded(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, bucket: MakeBucket
) -> None:
    """Of a feature collection and of an ndjson object only the bad items are dead-lettered, each loadable alone."""
    items, files = queue("items", max_receive_count=3), bucket()
    bad = item("bad", geometry={"type": "Point", "coordinates": [500, 0]})
    await items.send(json.dumps({"type": "FeatureCollection", "features": [item("a"), bad, item("b")]}))
    await files.put("x.ndjson", "\n".join([json.dumps(item("c")), "{broken", json.dumps(item("d"))]))
    await items.send(json.dumps({"href": f"s3://{files.name}/x.ndjson"}))
    running = worker(loads(items))
    await running.start()
    await catalogue.until_count("things", 4)
    await items.wait_until_empty()
    assert items.dead_letters is not None
    letters = await items.dead_letters.drain(2)
    found = {letter.body for letter in letters}
    assert "{broken" in found
    (other,) = found - {"{broken"}
    assert json.loads(other) == bad


async def test_newest_wins_within_and_across_batches(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue
) -> None:
    """Of several messages for one id the newest stays, in whatever order they are worked on."""
    items = queue("items", max_receive_count=3)

    def news(number: int, timestamp: str) -> str:
        body = item("same")
        body["properties"]["number"] = number
        return json.dumps({"Type": "Notification", "Timestamp": timestamp, "Message": json.dumps(body)})

    await items.send(
        news(3, "2024-01-03T00:00:00.000Z"), news(1, "2024-01-01T00:00:00.000Z"), news(2, "2024-01-02T00:00:00.000Z")
    )
    running = worker(loads(items))
    await running.start()
    await items.wait_until_empty()
    await items.send(news(0, "2023-12-31T00:00:00.000Z"))
    await items.wait_until_empty()
    (found,) = await catalogue.search(collections=["things"])
    assert found["properties"]["number"] == 3
    await items.send(news(4, "2024-01-04T00:00:00.000Z"))
    await items.wait_until_empty()
    (found,) = await catalogue.search(collections=["things"])
    assert found["properties"]["number"] == 4
    assert running.metric("items_superseded_total", collection="things") == 3


async def test_an_item_that_moves_leaves_one_row(catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue) -> None:
    """A new datetime in another partition moves the item; an older message does not move it back."""
    items = queue("items", max_receive_count=3)
    running = worker(loads(items))
    await running.start()
    for month in ("2024-01", "2024-06", "2023-02"):
        await items.send(json.dumps(item("mover", datetime=f"{month}-15T00:00:00Z")))
        await items.wait_until_empty()
        assert await catalogue.ids("things") == ["mover"]
        (found,) = await catalogue.search(collections=["things"], datetime=f"{month}-01T00:00:00Z/{month}-28T00:00:00Z")
        assert found["id"] == "mover"
    old = {"Type": "Notification", "Timestamp": "2020-01-01T00:00:00Z", "Message": json.dumps(item("mover"))}
    await items.send(json.dumps(old))
    await items.wait_until_empty()
    assert await catalogue.ids("things") == ["mover"]
    (found,) = await catalogue.search(collections=["things"], datetime="2023-02-01T00:00:00Z/2023-02-28T00:00:00Z")
    assert found["id"] == "mover"


async def test_two_replicas_and_two_collections(catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue) -> None:
    """Two processes share a queue and load two collections: the sum of rows is exact."""
    await catalogue.add_collection("others", "month")
    items = queue("items", max_receive_count=5)
    bodies = [
        json.dumps(item(f"i{n:04}", ("things", "others")[n % 2], datetime=f"2024-{n % 12 + 1:02}-01T00:00:00Z"))
        for n in range(2000)
    ]
    first, second = worker(loads(items)), worker(loads(items))
    await asyncio.gather(first.start(), second.start(), items.send(*bodies))
    await catalogue.until_count("things", 1000)
    await catalogue.until_count("others", 1000)
    await items.wait_until_empty()
    assert len(set(await catalogue.ids("things"))) == 1000
    assert len(set(await catalogue.ids("others"))) == 1000
    both = [worker.metric("items_loaded_total") for worker in (first, second)]
    assert sum(both) == 2000
    assert items.dead_letters is not None
    assert await items.dead_letters.drain() == []
    assert [await first.stop(), await second.stop()] == [0, 0]


async def test_drain_under_load_redelivers_nothing(catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue) -> None:
    """SIGTERM in the middle of work: what is in hand is finished, the rest stays in the queue untouched."""
    items = queue("items", max_receive_count=5, visibility_timeout_s=30)
    await items.send(*(json.dumps(item(f"i{n:04}")) for n in range(3000)))
    running = worker(loads(items, max_in_flight=200))
    await running.start()
    await running.until(lambda: running.metric("items_loaded_total") > 100)
    assert await running.stop() == 0
    loaded = await catalogue.count("things")
    left = await items.drain(3000 - loaded, timeout_s=20)
    assert loaded + len(left) == 3000
    again = [message for message in left if message.receive_count > 1]
    released = sum(event.get("released", 0) for event in running.events("consumer.drained"))
    assert len(again) <= released <= 80  # what receives under way brought after the signal


async def test_killed_in_the_middle_nothing_is_lost(catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue) -> None:
    """Kill -9 while loading, twice; after a restart every item is there once."""
    items = queue("items", max_receive_count=10)
    await items.send(*(json.dumps(item(f"i{n:04}")) for n in range(2000)))
    settings = loads(items, visibility_timeout_s=3, max_in_flight=300)
    for _ in range(2):
        victim = worker(settings)
        await victim.start()
        await victim.until(lambda victim=victim: victim.metric("items_loaded_total") > 50)
        await victim.kill()
    survivor = worker(settings)
    await survivor.start()
    await catalogue.until_count("things", 2000)
    await items.wait_until_empty()
    assert len(set(await catalogue.ids("things"))) == 2000
    assert items.dead_letters is not None
    assert await items.dead_letters.drain() == []
    assert await survivor.stop() == 0


@pytest.mark.newest_pgstac
async def test_a_second_signal_exits_at_once(catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue) -> None:
    """While a drain waits for a long poll, a second SIGTERM does not."""
    running = worker(loads(queue(), wait_time_s=20))
    await running.start()
    running.signal(signal.SIGTERM)
    await running.until(lambda: running.get("/readyz")[0] == 503)
    assert json.loads(running.get("/readyz")[1])["reasons"] == ["draining"]
    assert running.get("/livez")[0] == 200
    running.signal(signal.SIGTERM)
    assert await running.ended(within_s=5) == 128 + signal.SIGTERM


@pytest.mark.newest_pgstac
async def test_a_signal_ends_a_start_that_hangs(worker: MakeWorker, queue: MakeQueue, tmp_path: Path) -> None:
    """A consumer that waits for ever while it is entered keeps nobody from ending the process."""
    (tmp_path / "late_consumer.py").write_text(
        "import asyncio\n"
        "class Late:\n"
        '    async def __aenter__(self): print(\'{"event": "entering"}\', flush=True); await asyncio.Event().wait()\n'
        "    async def __aexit__(self, *error): pass\n"
        "    async def handle(self, message): pass\n"
        "    async def ping(self): pass\n"
    )
    running = worker({"name": "late", "type": "late_consumer:Late", "queue_url": queue().url})
    await running.start(ready=False)
    await running.until(lambda: running.events("entering"))
    assert running.get("/readyz")[0] == 503
    assert await running.stop() == 0


@pytest.mark.newest_pgstac
async def test_a_fifo_failure_is_dead_lettered_in_its_turn(
    worker: MakeWorker, queue: MakeQueue, tmp_path: Path
) -> None:
    """What fails is tried as often as the queue allows and leaves with its reason; the rest of its group follows."""
    (tmp_path / "picky_consumer.py").write_text(
        "class Picky:\n"
        "    async def handle(self, message):\n"
        "        if message.body == 'bad': raise RuntimeError('no')\n"
        "    async def ping(self): pass\n"
    )
    ordered = queue("ordered", max_receive_count=2, fifo=True)
    await ordered.send("one", "bad", "two", "three", group_id="g")
    running = worker({"name": "picky", "type": "picky_consumer:Picky", "queue_url": ordered.url})
    await running.start()
    await ordered.wait_until_empty()
    assert ordered.dead_letters is not None
    (letter,) = await ordered.dead_letters.drain(1)
    assert (letter.body, letter.group_id) == ("bad", "g")
    assert letter.attributes["stacworker_reason"] == "gave up after 2 receives: RuntimeError: no"
    assert running.outcomes() == {"acked": 3, "retried": 1, "released": 2, "dead_lettered": 1}
    assert await running.stop() == 0


@pytest.mark.parametrize("policy", [False, True, "wait"])
async def test_a_missing_collection_follows_the_setting(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, policy: object
) -> None:
    """Dead-letter with the reason, create a minimal one, or wait for it."""
    items = queue("items", max_receive_count=20)
    await items.send(json.dumps(item("a", "absent")))
    running = worker(loads(items), collections={"default": {"create_missing": policy}})
    await running.start()
    assert items.dead_letters is not None
    if policy is False:
        (letter,) = await items.dead_letters.drain(1)
        assert "absent" in letter.attributes["stacworker_reason"]
        return
    if policy == "wait":
        await running.until(lambda: running.metric("messages_total", outcome="retried") >= 1)
        await catalogue.add_collection("absent")
    await catalogue.until_count("absent", 1)
    assert await items.dead_letters.drain() == []


async def test_an_unsupported_pgstac_is_refused_by_name(worker: MakeWorker, queue: MakeQueue, pgstac_dsn: str) -> None:
    """Another version of pgstac stops the start with exit code 2, before anything is received."""
    async with catalogue_at(pgstac_dsn) as catalogue:
        await catalogue._connection.execute(
            "CREATE OR REPLACE FUNCTION pgstac.get_version() RETURNS text LANGUAGE sql AS $$ SELECT '0.8.6' $$"
        )
    items = queue()
    await items.send("untouched")
    running = worker(loads(items))
    await running.start(ready=False)
    assert await running.ended() == 2
    assert "0.8.6" in running.log()
    assert (await items.drain(1))[0].receive_count == 1


@pytest.mark.newest_pgstac
async def test_a_starved_consumer_does_not_stall_its_neighbour(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, tmp_path: Path
) -> None:
    """One consumer whose every message hangs, one that loads: the second goes on."""
    (tmp_path / "slow_consumer.py").write_text(
        "import asyncio\n"
        "class Slow:\n"
        "    async def handle(self, message): await asyncio.Event().wait()\n"
        "    async def ping(self): pass\n"
    )
    slow, items = queue("slow"), queue("items")
    await slow.send(*map(str, range(50)))
    await items.send(*(json.dumps(item(f"i{n}")) for n in range(200)))
    running = worker(
        {"name": "slow", "type": "slow_consumer:Slow", "queue_url": slow.url, "max_in_flight": 5},
        loads(items),
        drain_timeout_s=2,
    )
    await running.start()
    await catalogue.until_count("things", 200)
    assert running.metric("in_flight_messages", queue=slow.name) == 5
    assert await running.stop() == 0
    assert (await slow.depth()).visible == 50


async def test_deletes_follow_removed_objects(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, bucket: MakeBucket, s3: Any
) -> None:
    """Where deletes are enabled an ObjectRemoved event deletes the item that its key names."""
    items, files = queue("items", max_receive_count=3), bucket()
    files.notify(items.arn)
    running = worker(loads(items, deletes={"enabled": True}))
    await running.start()
    await files.put("things/one.json", json.dumps(item("one")))
    await files.put("things/two.json", json.dumps(item("two")))
    await catalogue.until_count("things", 2)
    await asyncio.to_thread(s3.delete_object, Bucket=files.name, Key="things/one.json")
    await catalogue.until_count("things", 1)
    assert await catalogue.ids("things") == ["two"]


@pytest.mark.newest_pgstac
async def test_gzip_in_a_body(catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue) -> None:
    """A body that is base64 of gzip is unpacked."""
    items = queue("items", max_receive_count=3)
    packed = base64.b64encode(gzip.compress(json.dumps(item("packed")).encode())).decode()
    await items.send(packed)
    running = worker(loads(items))
    await running.start()
    await catalogue.until_count("things", 1)
