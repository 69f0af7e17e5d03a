"""Items that are too large for a message go to S3, and a message points to them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from stacworker.api import Document, Message
from stacworker.envelope.forms import S3Location
from stacworker.envelope.reader import Reader
from stacworker.errors import Permanent, Rejected, StacworkerError, Unavailable
from stacworker.inflight import InFlight
from stacworker.load.publish import Bucket, Overflow, SnsSink, SqsSink
from tests.unit.load.buckets import Stored
from tests.unit.load.documents import item, item_body
from tests.unit.load.test_publish import QUEUE, TOPIC, refused_with

IN_FLIGHT = InFlight()
POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"


@dataclass
class Client:
    """A queue and a topic; `stored` is looked at when a message is sent."""

    stored: Stored
    takes_bytes: int | None = 1000
    error: Exception | None = None
    sent: list[dict[str, Any]] = field(default_factory=list)
    objects_before: list[set[str]] = field(default_factory=list)

    async def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> Mapping[str, Any]:  # noqa: N803 - boto's names
        assert (QueueUrl, AttributeNames) == (QUEUE, ["MaximumMessageSize"])
        if self.error is not None:
            raise self.error
        return {} if self.takes_bytes is None else {"Attributes": {"MaximumMessageSize": str(self.takes_bytes)}}

    async def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> Mapping[str, Any]:  # noqa: N803 - boto's names
        self.objects_before.append(set(self.stored.objects))
        self.sent += Entries
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    async def publish_batch(
        self,
        *,
        TopicArn: str,  # noqa: N803 - boto's names
        PublishBatchRequestEntries: list[dict[str, Any]],  # noqa: N803 - boto's names
    ) -> Mapping[str, Any]:
        return await self.send_message_batch(QueueUrl=TopicArn, Entries=PublishBatchRequestEntries)


async def sent_to_queue(client: Client, *documents: Document, overflow: bool = True) -> StacworkerError | None:
    """Put documents to a queue that has been measured; return what it raises."""
    place = Overflow(Bucket(client.stored, "b", "large/")) if overflow else None
    async with asyncio.timeout(5), SqsSink(client, QUEUE, overflow=place, linger_s=0.001) as sink:
        await sink.measure()
        try:
            await sink.put(documents, IN_FLIGHT)
        except StacworkerError as error:
            return error
    return None


async def test_a_large_item_goes_to_s3_and_its_pointer_to_the_queue() -> None:
    """The object is there before the message, which carries what the extended client libraries look for."""
    client = Client(Stored())
    large = item("a/b", text="é\ufffe" * 1000)
    assert await sent_to_queue(client, large, item("small")) is None
    ((key, data),) = client.stored.objects.items()
    assert orjson.loads(data) == large.body
    assert key == f"large/c/a%2Fb-{hashlib.sha256(data).hexdigest()[:16]}.json"
    pointer, small = client.sent
    assert orjson.loads(pointer["MessageBody"]) == [POINTER, {"s3BucketName": "b", "s3Key": key}]
    assert pointer["MessageAttributes"] == {
        "ExtendedPayloadSize": {"DataType": "Number", "StringValue": str(len(data))}
    }
    assert orjson.loads(small["MessageBody"]) == item_body("small")
    assert "MessageAttributes" not in small
    assert client.objects_before == [{key}]


async def test_the_pointer_is_what_our_own_reader_opens() -> None:
    """What is sent comes out as the item that was put."""
    client = Client(Stored())
    large = item("x", text="t" * 2000)
    await sent_to_queue(client, large)

    class Objects:
        max_concurrency = 1

        async def get(self, location: S3Location) -> bytes:
            assert location.bucket == "b"
            return client.stored.objects[location.key]

        async def ping(self) -> None:
            pass

    message = Message("m", client.sent[0]["MessageBody"], "r", 1, sent_at=1.7e9)
    async with Reader(Objects()).documents(message) as read:
        assert [document.body for document in read.documents] == [large.body]


async def test_putting_twice_leaves_one_object() -> None:
    """A message that comes again writes the same object."""
    client = Client(Stored())
    for _ in range(2):
        await sent_to_queue(client, item("x", text="t" * 2000))
    assert (client.stored.writes, len(client.stored.objects), len(client.sent)) == (2, 1, 2)


async def test_large_items_of_a_topic_go_the_same_way() -> None:
    """SNS takes 256 KiB, whatever its subscribers take."""
    client = Client(Stored())
    overflow = Overflow(Bucket(client.stored, "b"))
    async with asyncio.timeout(5), SnsSink(client, TOPIC, overflow=overflow, linger_s=0.001) as sink:
        await sink.put([item("x", text="t" * 262_144), item("y", text="t" * 1000)], IN_FLIGHT)
    pointer, plain = client.sent
    assert orjson.loads(pointer["Message"])[0] == POINTER
    assert "ExtendedPayloadSize" in pointer["MessageAttributes"]
    assert orjson.loads(plain["Message"])["id"] == "y"


async def test_a_queue_that_takes_less_is_honoured() -> None:
    """Its own limit decides, to the byte; without overflow the reason names the setting."""
    room = 1000 - len(orjson.dumps(item_body("x", text="")))
    client = Client(Stored())
    assert await sent_to_queue(client, item("x", text="t" * room), overflow=False) is None
    error = await sent_to_queue(client, item("x", text="t" * (room + 1)), overflow=False)
    assert isinstance(error, Rejected)
    assert (error.error_class, error.reason) == (
        "too_large",
        (
            f"item 'x' of collection 'c' has 1,001 bytes and {QUEUE} takes 1,000; set output_overflow: "
            "s3://bucket/prefix/, or use output: load or an s3:// output"
        ),
    )


async def test_a_queue_that_does_not_say_takes_what_sqs_takes() -> None:
    """Stand-ins for SQS need not know the attribute."""
    client = Client(Stored(), takes_bytes=None)
    assert await sent_to_queue(client, item("x", text="t" * 1_000_000)) is None
    assert client.stored.writes == 0


async def test_a_limit_that_is_changed_is_learnt_by_the_next_ping() -> None:
    """A circuit that opened because the queue refused everything closes once what is sent is small enough."""
    client = Client(Stored(), takes_bytes=1_000_000)
    overflow = Overflow(Bucket(client.stored, "b"))
    async with asyncio.timeout(5), SqsSink(client, QUEUE, overflow=overflow, linger_s=0.001) as sink:
        await sink.measure()
        client.takes_bytes = 1000
        client.stored.head_bucket = _there  # type: ignore[attr-defined]
        await sink.ping()
        await sink.put([item("x", text="t" * 2000)], IN_FLIGHT)
    assert orjson.loads(client.sent[0]["MessageBody"])[0] == POINTER


async def _there(**_: str) -> None:
    pass


async def test_measuring_a_queue_that_does_not_exist_says_so() -> None:
    """At start that is a wrong setting; later it is an outage."""
    client = Client(Stored(), error=refused_with("QueueDoesNotExist"))
    sink = SqsSink(client, QUEUE)
    with pytest.raises(Permanent, match="QueueDoesNotExist"):
        await sink.measure()
    with pytest.raises(Unavailable, match="QueueDoesNotExist"):
        await sink.ping()


async def test_nothing_is_sent_while_the_bucket_is_away() -> None:
    """The message comes again as a whole."""
    client = Client(Stored(errors={"large/": refused_with("NoSuchBucket", 404)}))
    error = await sent_to_queue(client, item("x", text="t" * 2000), item("y"))
    assert isinstance(error, Unavailable)
    assert (error.dependency, error.error_class, client.sent) == ("s3", "bucket_missing", [])


async def test_an_object_that_s3_refuses_costs_no_other_item() -> None:
    """The reason names the item."""
    client = Client(Stored(errors={"large/c/x-": refused_with("InvalidRequest")}))
    error = await sent_to_queue(client, item("x", text="t" * 2000), item("y"), item("z", text="t" * 2000))
    assert isinstance(error, Rejected)
    assert [(refusal.error.error_class, refusal.error.item_id) for refusal in error.refusals] == [("s3_refused", "x")]
    assert len(client.sent) == 2


@pytest.mark.parametrize(
    ("document", "error_class", "reason"),
    [
        (item("", text="t" * 2000), "invalid_item", "cannot be written to S3 without an id and a collection"),
        (item("i" * 1020), "too_large", "would need a key of 1,050 bytes, S3 takes 1,024"),
        (item("i" * 900), "too_large", "has a pointer of 1,0"),
    ],
)
async def test_items_that_cannot_go_either_way_are_refused(document: Document, error_class: str, reason: str) -> None:
    """Others are sent."""
    client = Client(Stored())
    error = await sent_to_queue(client, document, item("y"))
    assert isinstance(error, Rejected)
    assert error.error_class == error_class
    assert reason in error.reason
    assert [orjson.loads(entry["MessageBody"])["id"] for entry in client.sent] == ["y"]


async def test_large_items_are_written_some_at_a_time() -> None:
    """A request with many of them opens no connection for each at once."""
    client = Client(Stored())
    assert await sent_to_queue(client, *(item(str(n), text="t" * 2000) for n in range(100))) is None
    assert len(client.stored.objects) == 100
    assert 1 < client.stored.most_at_once <= 32
