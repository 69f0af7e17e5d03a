"""Queues as they are in real life: FIFO, deleted and made again, shared, with deep envelopes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stacworker.testing.localstack import LocalStack
from tests.chaos.aws_faults import PartFailure
from tests.chaos.gateway import Gateway
from tests.integration.aws import MakeQueue, Queue
from tests.integration.conftest import MakeWorker
from tests.integration.worker import Catalogue, item

pytestmark = pytest.mark.newest_pgstac


def loads(queue: Queue, **more: Any) -> dict[str, Any]:
    """Return the settings of a load consumer."""
    return {"name": "items", "type": "load", "queue_url": queue.url, "visibility_timeout_s": 4, **more}


async def versions(catalogue: Catalogue) -> dict[str, int]:
    """Return which version of each item the catalogue has."""
    found = await catalogue.search(collections=["things"])
    return {each["id"]: each["properties"]["version"] for each in found}


def version(id_: str, number: int) -> str:
    """Return an item of a version."""
    body = item(id_)
    body["properties"]["version"] = number
    return json.dumps(body)


async def test_fifo_groups_end_in_order_under_two_replicas_and_kills(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue
) -> None:
    """Whatever dies meanwhile, each group's last message decides; what is bad leaves its group to go on."""
    ordered = queue("ordered", max_receive_count=50, fifo=True)
    first, second = worker(loads(ordered)), worker(loads(ordered))
    await first.start()
    await second.start()
    for number in range(12):
        for group in "abc":
            body = version(group, number) if number != 6 else f"bad {group}"
            await ordered.send(body, group_id=group)
        if number == 4:
            await first.kill()
        if number == 8:
            await first.start(ready=False)
    await ordered.wait_until_empty(timeout_s=60)
    assert await versions(catalogue) == dict.fromkeys("abc", 11)
    assert ordered.dead_letters is not None
    letters = await ordered.dead_letters.drain(3)
    # A worker that is killed between sending a letter and deleting its message leaves the letter twice.
    assert {(letter.body, letter.group_id) for letter in letters} == {(f"bad {group}", group) for group in "abc"}
    assert [await first.stop(), await second.stop()] == [0, 0]


async def test_fifo_messages_of_one_batch_keep_their_order(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue
) -> None:
    """Sent within one millisecond, the last of a group wins all the same, whatever it says of its time."""
    ordered = queue("ordered", fifo=True)
    bodies = []
    for number in range(9):
        body = item("a", datetime=f"2024-03-{20 - number:02}T00:00:00Z")
        body["properties"]["version"] = number
        bodies.append(json.dumps(body))
    await ordered.send(*bodies, group_id="a")
    running = worker(loads(ordered))
    await running.start()
    await ordered.wait_until_empty()
    assert await versions(catalogue) == {"a": 8}
    assert await running.stop() == 0


async def test_an_old_dead_letter_does_not_replace_a_newer_item(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue
) -> None:
    """Sent again, and again, it is as old as it was when it was first sent."""
    items = queue("items", max_receive_count=5)
    assert items.dead_letters is not None
    old = item("a", collection="later")
    old["properties"]["version"] = 1
    running = worker(loads(items))
    await running.start()
    await items.send(json.dumps(old))
    (letter,) = await items.dead_letters.drain(1, timeout_s=20)
    await items.send(letter.body, attributes=letter.attributes)
    (again,) = await items.dead_letters.drain(1, timeout_s=20)
    assert again.attributes["stacworker_sent_at"] == letter.attributes["stacworker_sent_at"]
    await catalogue.add_collection("later")
    new = item("a", collection="later")
    new["properties"]["version"] = 2
    await items.send(json.dumps(new))
    await catalogue.until_count("later", 1)
    await items.send(again.body, attributes=again.attributes)
    await items.wait_until_empty()
    (found,) = await catalogue.search(collections=["later"])
    assert found["properties"]["version"] == 2
    assert running.metric("items_superseded_total") == 1
    assert await running.stop() == 0


async def test_fifo_requests_are_generated_in_order(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, tmp_path: Path
) -> None:
    """A request waits for the one before it in its group, also while that is tried again, and for no other group."""
    (tmp_path / "in_order.py").write_text(
        "import pathlib\n"
        f"ITEM = {item('x')!r}\n"
        "def create_items(request):\n"
        f"    note = pathlib.Path({str(tmp_path)!r}, 'order')\n"
        "    with note.open('a') as file: file.write(request['id'] + ' ')\n"
        "    if request['id'] == 'a0' and note.read_text().count('a0') < 3: raise ConnectionError('not yet')\n"
        "    return {**ITEM, 'id': request['id']}\n"
    )
    ordered = queue("ordered", max_receive_count=5, fifo=True)
    for group in "ab":
        bodies = [json.dumps({"id": f"{group}{number}", "path": "p"}) for number in range(3)]
        await ordered.send(*bodies, group_id=group)
    running = worker(
        {"name": "requests", "type": "generate", "queue_url": ordered.url},
        generators={"ordered": {"type": "in_order:create_items", "processes": 2}},
    )
    await running.start()
    await catalogue.until_count("things", 6)
    order = (tmp_path / "order").read_text().split()
    assert [each for each in order if each[0] == "a"] == ["a0", "a0", "a0", "a1", "a2"]
    assert [each for each in order if each[0] == "b"] == ["b0", "b1", "b2"]
    await ordered.wait_until_empty()
    assert await running.stop() == 0


async def test_ownership_lost_is_counted_and_harms_nobody(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, localstack: LocalStack, tmp_path: Path
) -> None:
    """A message taken over by another replica is finished by both: the item is there once, and the loss is told."""
    (tmp_path / "slow_one.py").write_text(
        "import asyncio, pathlib\n"
        f"GO = pathlib.Path({str(tmp_path)!r}, 'go')\n"
        "class Slow:\n"
        "    def __init__(self, reader, sink): self.reader, self.sink = reader, sink\n"
        "    async def handle(self, message):\n"
        "        async with self.reader.documents(message) as read:\n"
        "            while not GO.exists(): await asyncio.sleep(0.05)\n"
        "            await self.sink.put(read.documents, message.in_flight)\n"
        "    async def ping(self): pass\n"
    )
    items = queue("items", max_receive_count=5)
    async with Gateway(localstack.endpoint_url) as gateway:
        slow = worker(
            # It has no room for more: else it would take the message a second time itself.
            {
                "name": "slow",
                "type": "slow_one:Slow",
                "queue_url": items.url,
                "visibility_timeout_s": 4,
                "max_in_flight": 1,
            },
            aws={"endpoint_url": gateway.endpoint_url, "region": "us-east-1"},
        )
        await slow.start()
        await items.send(json.dumps(item("shared")))
        await slow.until(lambda: slow.metric("in_flight_messages") == 1)
        gateway.add(PartFailure(on=("ChangeMessageVisibilityBatch",), code="MessageNotInflight", sender_fault=True))
        await slow.until(lambda: slow.metric("ownership_lost_total") == 1)
        assert [event["why"] for event in slow.events("lease.lost")] == ["MessageNotInflight: injected"]
        quick = worker(loads(items))
        await quick.start()
        await catalogue.until_count("things", 1)
        (tmp_path / "go").touch()
        await slow.until(lambda: slow.outcomes() == {"acked": 1})
        await items.wait_until_empty()
        assert quick.outcomes() == {"acked": 1}
        assert await catalogue.ids("things") == ["shared"]
        assert [await slow.stop(), await quick.stop()] == [0, 0]


async def test_a_queue_that_is_deleted_pauses_its_consumer_only(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue
) -> None:
    """Readiness says so, the neighbour goes on, and when the queue is there again so does its consumer."""
    gone, other = queue("gone"), queue("other")
    running = worker(loads(gone, name="gone"), loads(other, name="other"))
    await running.start()
    gone.sqs.delete_queue(QueueUrl=gone.url)
    await running.until(lambda: running.get("/readyz")[0] == 503, within_s=40)
    assert "gone: " in running.get("/readyz")[1]
    await other.send(json.dumps(item("neighbour")))
    await catalogue.until_count("things", 1)
    gone.sqs.create_queue(QueueName=gone.name)
    await gone.send(json.dumps(item("later")))
    await catalogue.until_count("things", 2)
    await running.until(running.is_ready)
    assert await running.stop() == 0


async def test_a_message_whose_dead_letter_queue_is_gone_stays(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue
) -> None:
    """What cannot be dead-lettered is not deleted; good messages go on; later it leaves with its reason."""
    items = queue("items", max_receive_count=100)
    assert items.dead_letters is not None
    running = worker(loads(items, backoff_max_s=0.5))
    await running.start()
    items.sqs.delete_queue(QueueUrl=items.dead_letters.url)
    await items.send("bad", json.dumps(item("good")))
    await catalogue.until_count("things", 1)
    await running.until(lambda: running.metric("messages_total", outcome="retried") >= 2)
    assert running.metric("messages_total", outcome="dead_lettered") == 0
    items.sqs.create_queue(QueueName=items.dead_letters.name)
    (letter,) = await items.dead_letters.drain(1, timeout_s=30)
    assert letter.body == "bad"
    assert letter.attributes["stacworker_error_class"] == "unknown_envelope"
    await items.wait_until_empty()
    assert await running.stop() == 0


async def test_envelopes_deeper_than_ten_levels_are_refused(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue
) -> None:
    """Ten levels are unwrapped, eleven are a dead letter that says so."""

    def wrapped(body: str, levels: int) -> str:
        for _ in range(levels):
            body = json.dumps({"Type": "Notification", "Message": body, "Timestamp": "2024-01-01T00:00:00.000Z"})
        return body

    items = queue("items", max_receive_count=5)
    running = worker(loads(items))
    await running.start()
    await items.send(wrapped(json.dumps(item("deep")), 10), wrapped(json.dumps(item("deeper")), 11))
    await catalogue.until_count("things", 1)
    assert await catalogue.ids("things") == ["deep"]
    assert items.dead_letters is not None
    (letter,) = await items.dead_letters.drain(1)
    assert "more than 10 envelopes" in letter.attributes["stacworker_reason"]
    assert await running.stop() == 0
