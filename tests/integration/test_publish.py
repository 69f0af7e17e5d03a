"""Publishing to real SNS, SQS and S3 calls, answered by moto."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import boto3
import orjson
import pytest
from moto.server import ThreadedMotoServer

from stacworker.api import Document, Version
from stacworker.aws import Aws
from stacworker.errors import Rejected, Unavailable
from stacworker.inflight import InFlight
from stacworker.load.publish import Bucket as Place
from stacworker.load.publish import S3Sink, SnsSink, SqsSink

IN_FLIGHT = InFlight()


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """Run moto's services."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def aws(moto_url: str) -> Aws:
    """Make clients as the daemon does."""
    return Aws(endpoint_url=moto_url, region="us-east-1")


@pytest.fixture
def queue(moto_url: str) -> Iterator[Any]:
    """Give an empty queue."""
    resource = boto3.resource("sqs", endpoint_url=moto_url, region_name="us-east-1")
    made = resource.create_queue(QueueName="published")
    yield made
    made.delete()
    resource.meta.client.close()


@pytest.fixture
async def sns(aws: Aws) -> AsyncIterator[Any]:
    """Give a client of SNS."""
    async with aws.client("sns") as client:
        yield client


@pytest.fixture
async def sqs(aws: Aws) -> AsyncIterator[Any]:
    """Give a client of SQS."""
    async with aws.client("sqs") as client:
        yield client


@pytest.fixture
async def s3(aws: Aws) -> AsyncIterator[Any]:
    """Give a client of S3."""
    async with aws.client("s3") as client:
        yield client


def item(item_id: str, **content: Any) -> Document:
    return Document("item", {"type": "Feature", "id": item_id, "collection": "c", **content}, Version(1))


def bodies(queue: Any) -> list[dict[str, Any]]:
    """Receive all messages of a queue."""
    found: list[dict[str, Any]] = []
    while messages := queue.receive_messages(MaxNumberOfMessages=10, WaitTimeSeconds=0):
        found += [orjson.loads(message.body) for message in messages]
        queue.delete_messages(
            Entries=[{"Id": str(n), "ReceiptHandle": m.receipt_handle} for n, m in enumerate(messages)]
        )
    return sorted(found, key=lambda body: str(body["id"]))


async def received(queue: Any) -> list[dict[str, Any]]:
    return await asyncio.to_thread(bodies, queue)


async def test_items_of_concurrent_puts_arrive_in_the_queue(sqs: Any, queue: Any) -> None:
    """Every item is a message, once."""
    documents = [item(f"{number:02}", title="é\ufffe") for number in range(23)]
    async with SqsSink(sqs, queue.url) as sink:
        await sink.ping()
        await asyncio.gather(*(sink.put([document], IN_FLIGHT) for document in documents))
    assert await received(queue) == [document.body for document in documents]


async def test_items_reach_the_topic_s_subscribers(sns: Any, queue: Any) -> None:
    """What a subscriber with raw delivery gets is the item."""
    topic = (await sns.create_topic(Name="published"))["TopicArn"]
    await sns.subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=queue.attributes["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    documents = [item(f"{number:02}") for number in range(12)]
    async with SnsSink(sns, topic) as sink:
        await sink.ping()
        await sink.put(documents, IN_FLIGHT)
    assert await received(queue) == [document.body for document in documents]


async def test_an_item_that_is_too_large_costs_no_other(sqs: Any, queue: Any) -> None:
    """A message up to 1 MiB is sent, alone where it must be; a larger one is refused."""
    large, huge = item("large", text="x" * 1_000_000), item("too large", text="x" * 1_048_576)
    async with SqsSink(sqs, queue.url) as sink:
        with pytest.raises(Rejected) as raised:
            await sink.put([item("a"), huge, large, item("z")], IN_FLIGHT)
    assert [(r.error.item_id, r.error.error_class) for r in raised.value.refusals] == [("too large", "too_large")]
    assert [body["id"] for body in await received(queue)] == ["a", "large", "z"]


async def test_a_queue_that_does_not_exist_is_unavailable(sqs: Any, moto_url: str) -> None:
    """Its items are not dead-lettered for it."""
    async with SqsSink(sqs, f"{moto_url}/123456789012/none") as sink:
        with pytest.raises(Unavailable):
            await sink.put([item("x")], IN_FLIGHT)
        with pytest.raises(Unavailable):
            await sink.ping()


async def test_a_topic_that_does_not_exist_is_unavailable(sns: Any) -> None:
    """Its items are not dead-lettered for it."""
    async with SnsSink(sns, "arn:aws:sns:us-east-1:123456789012:none") as sink:
        with pytest.raises(Unavailable):
            await sink.put([item("x")], IN_FLIGHT)
        with pytest.raises(Unavailable):
            await sink.ping()


async def test_items_become_objects(s3: Any) -> None:
    """Each under its collection and id, as GeoJSON; odd characters survive the way."""
    await s3.create_bucket(Bucket="published")
    documents = [item("x"), item("a/b +é?#%.."), item("..", collection="..")]
    sink = S3Sink(Place(s3, "published", "out/"))
    await sink.ping()
    await sink.put(documents, IN_FLIGHT)
    listed = await s3.list_objects_v2(Bucket="published")
    found = {}
    for entry in listed["Contents"]:
        answer = await s3.get_object(Bucket="published", Key=entry["Key"])
        found[entry["Key"]] = (answer["ContentType"], orjson.loads(await answer["Body"].read()))
    assert found == {
        "out/c/x.json": ("application/geo+json", documents[0].body),
        "out/c/a%2Fb%20%2B%C3%A9%3F%23%25...json": ("application/geo+json", documents[1].body),
        "out/%2E%2E/%2E%2E.json": ("application/geo+json", documents[2].body),
    }


async def test_a_bucket_that_does_not_exist_is_unavailable(s3: Any) -> None:
    """Its items are not dead-lettered for it."""
    sink = S3Sink(Place(s3, "none"))
    with pytest.raises(Unavailable) as raised:
        await sink.put([item("x")], IN_FLIGHT)
    assert (raised.value.dependency, raised.value.error_class) == ("s3", "bucket_missing")
    with pytest.raises(Unavailable):
        await sink.ping()
