"""Fixtures on LocalStack: clients, and queues, buckets and topics with fresh names.

LocalStack starts when the first test asks for it and ends with the session. Names are fresh and
nothing is cleaned up: the server keeps its state in memory. Helpers that talk to it are coroutines
which work in threads, so that a daemon under test in the same event loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from botocore.config import Config
from localstack_client.session import Session

from stacworker.aws import Aws
from stacworker.testing.localstack import REGION, LocalStack

_MAX_ENTRIES = 10
_MAX_BATCH_BYTES = 250_000


@pytest.fixture(scope="session")
def localstack() -> Iterator[LocalStack]:
    """Run one LocalStack for the whole session."""
    with LocalStack() as server:
        yield server


@pytest.fixture
def aws(localstack: LocalStack) -> Aws:
    """Give the daemon's own maker of clients, pointed at LocalStack."""
    return Aws(endpoint_url=localstack.endpoint_url, region=REGION)


@pytest.fixture(scope="session")
def sqs(localstack: LocalStack) -> Iterator[Any]:
    """Give a synchronous SQS client."""
    yield from _client(localstack, "sqs")


@pytest.fixture(scope="session")
def sns(localstack: LocalStack) -> Iterator[Any]:
    """Give a synchronous SNS client."""
    yield from _client(localstack, "sns")


@pytest.fixture(scope="session")
def s3(localstack: LocalStack) -> Iterator[Any]:
    """Give a synchronous S3 client."""
    yield from _client(localstack, "s3")


@pytest.fixture(scope="session")
def secretsmanager(localstack: LocalStack) -> Iterator[Any]:
    """Give a synchronous Secrets Manager client."""
    yield from _client(localstack, "secretsmanager")


def _client(localstack: LocalStack, service: str) -> Iterator[Any]:
    session = Session(
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name=REGION,
        localstack_host=localstack.endpoint_url.removeprefix("http://"),
    )
    config = Config(connect_timeout=5, read_timeout=30, max_pool_connections=20, s3={"addressing_style": "path"})
    client = session.client(service, config=config)
    yield client
    client.close()


@dataclass(frozen=True, slots=True)
class Received:
    """A message taken out of a queue; `attributes` are the message attributes' string values."""

    body: str
    attributes: dict[str, str]
    receive_count: int
    group_id: str | None


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages a queue holds: to be received, received but not deleted, and delayed."""

    visible: int = 0
    in_flight: int = 0
    delayed: int = 0


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of one test; `dead_letters` is the target of its redrive policy."""

    sqs: Any
    name: str
    url: str
    arn: str
    dead_letters: Queue | None = None

    async def send(
        self, *bodies: str, attributes: Mapping[str, str] | None = None, group_id: str | None = None
    ) -> list[str]:
        """Send messages in batches, all with the same attributes and group; return their ids."""
        return await asyncio.to_thread(self._send, bodies, attributes or {}, group_id)

    async def drain(self, expected: int = 0, *, timeout_s: float = 10.0) -> list[Received]:
        """Receive and delete all there is, in the order of arrival.

        Waits until at least `expected` messages came or the time is over, and takes what is there
        beyond them: compare the whole answer.
        """
        return await asyncio.to_thread(self._drain, expected, timeout_s)

    async def depth(self) -> Depth:
        """Count the messages in the queue."""
        return await asyncio.to_thread(self._depth)

    async def wait_until_empty(self, *, timeout_s: float = 30.0) -> None:
        """Return when nothing is in the queue, neither visible nor in flight; fail after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (depth := await self.depth()) != Depth():
            if time.monotonic() > deadline:
                pytest.fail(f"queue {self.name} is not empty after {timeout_s:g} s: {depth}")
            await asyncio.sleep(0.05)

    def _send(self, bodies: Iterable[str], attributes: Mapping[str, str], group_id: str | None) -> list[str]:
        message_attributes = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        common: dict[str, Any] = {"MessageAttributes": message_attributes}
        if self.name.endswith(".fifo"):
            common["MessageGroupId"] = group_id or "group"
        ids: list[str] = []
        for batch in _batches(bodies):
            entries = [{"Id": str(index), "MessageBody": body, **common} for index, body in enumerate(batch)]
            answer = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert answer.get("Failed", []) == []
            ids += [sent["MessageId"] for sent in answer["Successful"]]
        return ids

    def _drain(self, expected: int, timeout_s: float) -> list[Received]:
        deadline = time.monotonic() + timeout_s
        drained: list[Received] = []
        while True:
            answer = self.sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=_MAX_ENTRIES,
                WaitTimeSeconds=1 if len(drained) < expected else 0,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            messages = answer.get("Messages", [])
            if messages:
                entries = [
                    {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                    for index, message in enumerate(messages)
                ]
                self.sqs.delete_message_batch(QueueUrl=self.url, Entries=entries)
                drained += [_received(message) for message in messages]
            elif len(drained) >= expected or time.monotonic() > deadline:
                return drained

    def _depth(self) -> Depth:
        names = ("", "NotVisible", "Delayed")
        keys = [f"ApproximateNumberOfMessages{name}" for name in names]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=keys)["Attributes"]
        return Depth(*(int(found[key]) for key in keys))


def _received(message: Mapping[str, Any]) -> Received:
    return Received(
        body=message["Body"],
        attributes={name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()},
        receive_count=int(message["Attributes"]["ApproximateReceiveCount"]),
        group_id=message["Attributes"].get("MessageGroupId"),
    )


def _batches(bodies: Iterable[str]) -> Iterator[list[str]]:
    """Cut into batches that SendMessageBatch takes: ten messages, and their sizes together."""
    batch: list[str] = []
    size_bytes = 0
    for body in bodies:
        body_bytes = len(body.encode())
        if batch and (len(batch) == _MAX_ENTRIES or size_bytes + body_bytes > _MAX_BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(body)
        size_bytes += body_bytes
    if batch:
        yield batch


class MakeQueue(Protocol):
    """What the fixture `queue` gives."""

    def __call__(
        self,
        name: str = "queue",
        *,
        max_receive_count: int | None = None,
        visibility_timeout_s: int = 30,
        fifo: bool = False,
    ) -> Queue:
        """Make a queue whose name begins with `name`.

        With `max_receive_count` it has a redrive policy, and a dead-letter queue to go with it.
        """


@pytest.fixture
def queue(sqs: Any) -> MakeQueue:
    """Give a maker of queues."""

    def create(name: str, attributes: dict[str, str], dead_letters: Queue | None = None) -> Queue:
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return Queue(sqs, name, url, found["Attributes"]["QueueArn"], dead_letters)

    def make(
        name: str = "queue",
        *,
        max_receive_count: int | None = None,
        visibility_timeout_s: int = 30,
        fifo: bool = False,
    ) -> Queue:
        suffix = ".fifo" if fifo else ""
        common = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if fifo else {}
        attributes = {**common, "VisibilityTimeout": str(visibility_timeout_s)}
        fresh = _fresh(name)
        if max_receive_count is None:
            return create(f"{fresh}{suffix}", attributes)
        dead_letters = create(f"{fresh}-dead{suffix}", common)
        redrive = {"deadLetterTargetArn": dead_letters.arn, "maxReceiveCount": max_receive_count}
        return create(f"{fresh}{suffix}", {**attributes, "RedrivePolicy": json.dumps(redrive)}, dead_letters)

    return make


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of one test."""

    s3: Any
    name: str

    async def put(self, key: str, body: bytes | str) -> str:
        """Store an object and return its s3:// URL."""
        await asyncio.to_thread(self.s3.put_object, Bucket=self.name, Key=key, Body=body)
        return f"s3://{self.name}/{key}"

    def notify(self, target_arn: str) -> None:
        """Send an event for every object made or removed to a queue or topic; it gets a test event first."""
        kind = "Queue" if ":sqs:" in target_arn else "Topic"
        events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        self.s3.put_bucket_notification_configuration(
            Bucket=self.name,
            NotificationConfiguration={f"{kind}Configurations": [{f"{kind}Arn": target_arn, "Events": events}]},
        )


class MakeBucket(Protocol):
    """What the fixture `bucket` gives."""

    def __call__(self, name: str = "bucket") -> Bucket:
        """Make a bucket whose name begins with `name`."""


@pytest.fixture
def bucket(s3: Any) -> MakeBucket:
    """Give a maker of buckets."""

    def make(name: str = "bucket") -> Bucket:
        fresh = _fresh(name)
        s3.create_bucket(Bucket=fresh)
        return Bucket(s3, fresh)

    return make


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of one test."""

    sns: Any
    arn: str

    async def publish(self, body: str) -> None:
        """Publish one message."""
        await asyncio.to_thread(self.sns.publish, TopicArn=self.arn, Message=body)

    def subscribe(self, queue: Queue, *, raw: bool = False) -> None:
        """Deliver to a queue, in SNS's envelope or raw."""
        self.sns.subscribe(
            TopicArn=self.arn,
            Protocol="sqs",
            Endpoint=queue.arn,
            Attributes={"RawMessageDelivery": str(raw).lower()},
        )


class MakeTopic(Protocol):
    """What the fixture `topic` gives."""

    def __call__(self, name: str = "topic") -> Topic:
        """Make a topic whose name begins with `name`."""


@pytest.fixture
def topic(sns: Any) -> MakeTopic:
    """Give a maker of topics."""

    def make(name: str = "topic") -> Topic:
        return Topic(sns, sns.create_topic(Name=_fresh(name))["TopicArn"])

    return make


def _fresh(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:12]}"
