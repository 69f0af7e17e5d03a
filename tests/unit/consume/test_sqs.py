"""The adapter of one queue: what becomes of answers that are not SQS', late, or missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from stacworker.api import Message
from stacworker.aws import Aws
from stacworker.consume import sqs
from stacworker.consume.deadletter import DeadLetters
from stacworker.consume.sqs import Letter, SqsQueue
from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable
from stacworker.inflight import InFlight
from tests.chaos.tcp import TcpProxy
from tests.unit.test_aws import answering

CALLS: dict[str, Callable[[SqsQueue], Awaitable[Any]]] = {
    "receive": lambda queue: queue.receive(10, wait_s=0, visibility_timeout_s=30, in_flight=InFlight()),
    "delete": lambda queue: queue.delete({"id": "handle"}),
    "change": lambda queue: queue.change_visibility({"id": ("handle", 30)}),
    "send": lambda queue: queue.send([Letter("body", {})]),
    "describe": lambda queue: queue.describe(),
    "depth": lambda queue: queue.depth(),
    "url_of": lambda queue: queue.url_of("arn:aws:sqs:us-east-1:000000000000:queue"),
}


@asynccontextmanager
async def queue_at(url: str) -> AsyncIterator[SqsQueue]:
    async with Aws(endpoint_url=url, region="us-east-1").client("sqs", max_retries=0) as client:
        yield SqsQueue(client, f"{url}/000000000000/queue", "queue")


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("receive", {"Messages": 3}),
        ("receive", {"Messages": [None]}),
        ("receive", {"Messages": [{}]}),
        ("receive", {"Messages": [{"MessageId": "1", "ReceiptHandle": "2", "Attributes": {"SentTimestamp": "now"}}]}),
        ("delete", {"Failed": [{"Id": "99"}]}),
        ("delete", {"Failed": 3}),
        ("change", {"Failed": [{}]}),
        ("send", {"Failed": [{}]}),
        ("describe", {"Attributes": {"VisibilityTimeout": "long"}}),
        ("depth", {"Attributes": {"ApproximateNumberOfMessages": "many"}}),
        ("url_of", {}),
    ],
)
async def test_an_answer_of_another_shape_is_an_outage(call: str, answer: Any) -> None:
    """Whoever answered, it was not SQS: the daemon pauses and asks again, and does not end."""
    async with answering(200, orjson.dumps(answer)) as url, queue_at(url) as queue:
        with pytest.raises(Unavailable) as caught:
            await CALLS[call](queue)
    assert (caught.value.dependency, caught.value.error_class) == ("sqs", "bad_answer")
    assert "the answer is not the service's" in caught.value.reason


@pytest.mark.parametrize("call", [name for name in CALLS if name != "receive"])
async def test_every_call_ends(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which nothing moves costs a call its time, whatever the client's own timeouts are."""
    monkeypatch.setattr(sqs, "_CALL_TIMEOUT_S", 0.2)
    async with TcpProxy("127.0.0.1", 1) as proxy, queue_at(f"http://127.0.0.1:{proxy.port}") as queue:
        proxy.freeze()
        with pytest.raises(Unavailable, match=r"queue.*: TimeoutError: no answer within 0\.2 s") as caught:
            await CALLS[call](queue)
    assert (caught.value.dependency, caught.value.error_class) == ("sqs", "connection")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "ExpiredToken", (Unavailable, "bad_credentials")),
        (403, "AccessDenied", (Transient, "dead_letter")),
        (400, "InvalidMessageContents", (Transient, "dead_letter")),
    ],
)
async def test_a_dead_letter_that_is_not_taken(status: int, code: str, expected: tuple[type, str]) -> None:
    """Credentials that nobody accepts are an outage; a queue that may not be written to concerns its letters only."""
    body = orjson.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "no"})
    message = Message(id="1", body="{", receipt_handle="h", receive_count=1, sent_at=0.0)
    async with answering(status, body) as url, queue_at(url) as queue:
        letters = DeadLetters(queue, consumer="items", source_queue="queue", fifo=False, now=lambda: 0.0)
        with pytest.raises(StacworkerError) as caught:
            await letters.send(message, Permanent("not JSON"))
    assert (type(caught.value), caught.value.error_class) == expected
