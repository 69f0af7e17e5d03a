"""Sending: batches, limits, partial failures, queues that refuse."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacworker.cli.sending import Target, endpoint_of, region_of
from stacworker.errors import ConfigError
from stacworker.ops import send as module
from stacworker.ops.outgoing import Outgoing, Unsent
from stacworker.ops.send import Report, send

URL = "https://sqs.us-west-2.amazonaws.com/1/items"
FIFO = f"{URL}.fifo"


class Sqs:
    """A queue in memory that refuses what it is told to."""

    def __init__(self, *, refuses: dict[str, list[dict[str, Any]]] | None = None, max_bytes: int = 1000) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.at_once = self.most_at_once = 0
        self.wait_for: int | None = None
        self._enough = asyncio.Event()
        self.error: Exception | None = None
        self._refuses = refuses or {}
        self._max_bytes = max_bytes

    async def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {"Attributes": {"MaximumMessageSize": str(self._max_bytes)}}

    async def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert QueueUrl in (URL, FIFO)
        assert len(Entries) <= 10
        assert sum(len(entry["MessageBody"].encode()) for entry in Entries) <= self._max_bytes
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.at_once == self.wait_for:
            self._enough.set()
        if self.wait_for is not None:
            await self._enough.wait()
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        self.batches.append(Entries)
        failed = [
            {"Id": entry["Id"], **answers.pop(0)}
            for entry in Entries
            if (answers := self._refuses.get(entry["MessageBody"]))
        ]
        return {"Failed": failed}

    @property
    def bodies(self) -> list[str]:
        return [entry["MessageBody"] for batch in self.batches for entry in batch]


def message(body: str) -> Outgoing:
    return Outgoing(f"f:{body}", body, len(body.encode()))


def refused(status: int, code: str) -> Exception:
    return botocore.exceptions.ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "SendMessageBatch"
    )


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.0)


@given(sizes=st.lists(st.integers(1, 40), max_size=80))
async def test_everything_is_sent_once_within_the_limits(sizes):
    """Whatever the sizes, every message is sent once, in batches that the queue takes, or is told."""
    sqs = Sqs(max_bytes=30)
    messages = [Outgoing(str(number), f"{number:02}".ljust(size), max(2, size)) for number, size in enumerate(sizes)]

    report = await send(sqs, URL, messages)

    assert Counter(sqs.bodies) == Counter(one.body for one in messages if one.size_bytes <= 30)
    assert report.sent == len(sqs.bodies)
    assert [one.origin for one in report.unsent] == [one.origin for one in messages if one.size_bytes > 30]


async def test_several_batches_are_in_flight():
    """A slow answer does not hold back the other batches, of which there are only so many."""
    sqs = Sqs()
    sqs.wait_for = module.BATCHES_IN_FLIGHT

    async with asyncio.timeout(10):
        await send(sqs, URL, [message(str(number)) for number in range(500)])

    assert sqs.most_at_once == module.BATCHES_IN_FLIGHT


async def test_failed_entries_are_sent_again():
    """Only the entries that failed on the server's side go again, until they are in."""
    busy = {"Code": "ServiceUnavailable", "Message": "later", "SenderFault": False}
    sqs = Sqs(refuses={"b": [busy, busy]})

    report = await send(sqs, URL, [message(body) for body in "abc"])

    assert report == Report(sent=3)
    assert Counter(sqs.bodies) == {"a": 1, "b": 3, "c": 1}


async def test_an_entry_at_fault_is_told():
    """An entry that SQS calls wrong is not tried again and stands in the report with SQS's words."""
    wrong = {"Code": "InvalidMessageContents", "Message": "bad", "SenderFault": True}
    sqs = Sqs(refuses={"b": [wrong]})

    report = await send(sqs, URL, [message(body) for body in "abc"])

    assert report == Report(sent=2, unsent=[Unsent("f:b", "InvalidMessageContents: bad")])
    assert not report.complete


async def test_an_entry_that_never_gets_in_is_told():
    """After the last attempt the reason of the last failure stands in the report."""
    busy = {"Code": "ServiceUnavailable", "Message": "later", "SenderFault": False}
    sqs = Sqs(refuses={"b": [busy] * 99})

    report = await send(sqs, URL, [message(body) for body in "ab"])

    assert report == Report(sent=1, unsent=[Unsent("f:b", "ServiceUnavailable: later")])


async def test_what_was_unreadable_is_told_beside_the_rest():
    """Messages that could not be read pass through to the report."""
    unreadable = Unsent("f:1", "not UTF-8 at byte 0: convert it")

    assert await send(Sqs(), URL, [unreadable, message("a")]) == Report(sent=1, unsent=[unreadable])


async def test_a_queue_that_lets_nobody_in_stops_it():
    """Without permission the rest is not tried, and where it stopped is told."""
    sqs = Sqs()
    sqs.error = refused(403, "AccessDenied")

    report = await send(sqs, FIFO, [message(f"{number:03}") for number in range(500)], group_id="g")

    assert report.sent == 0
    assert report.stopped is not None
    assert report.stopped.startswith(f"sending to {FIFO}: AccessDenied: no; nothing was tried from f:0")
    assert {one.reason for one in report.unsent} == {f"sending to {FIFO}: AccessDenied: no"}


async def test_a_queue_that_is_away_is_tried_again(monkeypatch):
    """A connection error is tried again; when it stays, each message of the batch is told."""
    sqs = Sqs()
    sqs.error = botocore.exceptions.EndpointConnectionError(endpoint_url=URL)

    report = await send(sqs, URL, [message("a")])

    assert [one.origin for one in report.unsent] == ["f:a"]
    assert "EndpointConnectionError" in report.unsent[0].reason
    assert report.stopped is None


async def test_a_fifo_queue_gets_its_messages_in_order():
    """A FIFO queue has one batch in flight, one group, and ids that are the same on the next run."""
    runs = []
    for _ in range(2):
        sqs = Sqs()
        await send(sqs, FIFO, [message(f"{number:03}") for number in range(100)], group_id="g")
        assert sqs.bodies == [f"{number:03}" for number in range(100)]
        assert sqs.most_at_once == 1
        runs.append([entry["MessageDeduplicationId"] for batch in sqs.batches for entry in batch])
        assert {entry["MessageGroupId"] for batch in sqs.batches for entry in batch} == {"g"}
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 100


async def test_a_fifo_queue_is_never_overtaken():
    """When a message of the group cannot be sent, those after it are not sent either."""
    wrong = {"Code": "InvalidMessageContents", "Message": "bad", "SenderFault": True}
    sqs = Sqs(refuses={"000": [wrong]})

    report = await send(sqs, FIFO, [message(f"{number:03}") for number in range(50)], group_id="g")

    assert report.stopped is not None
    assert len(sqs.batches) == 1


@pytest.mark.parametrize(
    ("url", "group_id", "problem"),
    [
        (FIFO, None, f"{FIFO} is a FIFO queue: give --group-id"),
        (URL, "g", f"{URL} is not a FIFO queue: leave --group-id out"),
    ],
)
async def test_groups_belong_to_fifo_queues(url, group_id, problem):
    """A group that does not fit the queue is wrong usage."""
    with pytest.raises(ConfigError, match=problem):
        await send(Sqs(), url, [], group_id=group_id)


async def test_a_reader_that_breaks_is_no_success():
    """An error while reading ends the sending with that error."""

    def messages() -> Iterator[Outgoing]:
        yield message("a")
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await send(Sqs(), URL, messages())
    assert caught.group_contains(ZeroDivisionError)


async def test_bodies_are_sent_unchanged():
    """What is sent is what was read, to the character."""
    sqs = Sqs()
    body = json.dumps({"name": "Zürich ✓", "text": "a\\u0000b"}, ensure_ascii=False)

    await send(sqs, URL, [message(body)])

    assert sqs.bodies == [body]


AWS_URL = "https://sqs.us-west-2.amazonaws.com/1/items"


@pytest.mark.parametrize(
    ("target", "environ", "endpoint", "region"),
    [
        (Target(AWS_URL), {}, None, "us-west-2"),
        (Target("https://us-west-2.queue.amazonaws.com/1/items"), {}, None, "us-west-2"),
        (Target("https://queue.amazonaws.com/1/items"), {"AWS_REGION": "us-east-1"}, None, "us-east-1"),
        (Target("https://queue.amazonaws.com/1/items"), {}, None, None),
        (Target(AWS_URL, region="eu-west-1"), {}, None, "eu-west-1"),
        (Target(AWS_URL), {"AWS_ENDPOINT_URL": "http://localhost:1"}, None, "us-west-2"),
        (Target(AWS_URL, endpoint_url="http://localhost:1"), {}, "http://localhost:1", "us-west-2"),
        (Target("http://localhost:4566/0/items"), {}, "http://localhost:4566", "us-east-1"),
        (
            Target("http://localhost:4566/0/items"),
            {"AWS_DEFAULT_REGION": "eu-west-1"},
            "http://localhost:4566",
            "eu-west-1",
        ),
        (
            Target("https://vpce-1a.sqs.us-west-2.vpce.amazonaws.com/1/items"),
            {},
            "https://vpce-1a.sqs.us-west-2.vpce.amazonaws.com",
            "us-west-2",
        ),
    ],
)
def test_how_a_queue_is_reached(target, environ, endpoint, region):
    """The queue's URL is enough, also for an emulator; options and variables win."""
    assert (endpoint_of(target, environ), region_of(target, environ)) == (endpoint, region)
