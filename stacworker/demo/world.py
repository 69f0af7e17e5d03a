"""The AWS that the demo talks to: moto's server in this process, or an emulator that already runs."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from stacworker.aws import Aws

REGION = "us-east-1"
MAX_RECEIVES = 3

# No account of the user's is ever touched: dummy keys, and none of the places where real ones come from.
ENVIRONMENT: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "demo",
    "AWS_SECRET_ACCESS_KEY": "demo",  # a word, no secret: emulators take any
    "AWS_DEFAULT_REGION": REGION,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and the one where its dead letters go."""

    url: str
    dead_letters_url: str


@dataclass(frozen=True, slots=True)
class World:
    """The services, with clients: a queue for requests, one for items, a bucket that notifies a topic."""

    endpoint_url: str
    requests: Queue
    items: Queue
    topic_arn: str
    bucket: str
    sqs: Any
    sns: Any
    s3: Any

    @property
    def queues(self) -> tuple[Queue, Queue]:
        """Both queues."""
        return self.requests, self.items

    async def waiting(self) -> int:
        """Return how many messages the two queues hold, those in somebody's hands included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        total = 0
        for queue in self.queues:
            answer = await self.sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)
            total += sum(int(answer["Attributes"][name]) for name in names)
        return total

    async def dead_letters(self) -> list[dict[str, Any]]:
        """Take all dead letters, as SQS returns messages, with their attributes."""
        found: list[dict[str, Any]] = []
        for queue in self.queues:
            while messages := await self._receive(queue.dead_letters_url):
                found += messages
        return found

    async def _receive(self, url: str) -> list[dict[str, Any]]:
        answer = await self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        )
        return list(answer.get("Messages", []))


@contextmanager
def environment() -> Iterator[None]:
    """Set the environment so that AWS means the emulator, and put it back."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("AWS_"):
            del os.environ[name]
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def embedded_aws() -> Iterator[str]:
    """Serve SQS, SNS and S3 on a port of 127.0.0.1 while the context is open; yields the endpoint."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - from the extra `demo`

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@asynccontextmanager
async def make_world(endpoint_url: str) -> AsyncIterator[World]:
    """Make queues, topic and bucket with names of their own, and remove them at the end."""
    aws = Aws(endpoint_url=endpoint_url, region=REGION)
    prefix = f"stacworker-demo-{secrets.token_hex(3)}"
    async with AsyncExitStack() as stack:
        sqs = await stack.enter_async_context(aws.client("sqs"))
        sns = await stack.enter_async_context(aws.client("sns"))
        s3 = await stack.enter_async_context(aws.client("s3"))
        requests = await _make_queue(stack, sqs, f"{prefix}-requests")
        items = await _make_queue(stack, sqs, f"{prefix}-items")
        topic_arn = await _make_topic(stack, sns, f"{prefix}-uploads", await _arn(sqs, items.url))
        bucket = await _make_bucket(stack, s3, f"{prefix}-uploads", topic_arn)
        yield World(endpoint_url, requests, items, topic_arn, bucket, sqs, sns, s3)


async def _make_queue(stack: AsyncExitStack, sqs: Any, name: str) -> Queue:
    dead_letters_url = (await sqs.create_queue(QueueName=f"{name}-dead"))["QueueUrl"]
    stack.push_async_callback(sqs.delete_queue, QueueUrl=dead_letters_url)
    redrive = {"deadLetterTargetArn": await _arn(sqs, dead_letters_url), "maxReceiveCount": MAX_RECEIVES}
    made = await sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(redrive)})
    stack.push_async_callback(sqs.delete_queue, QueueUrl=made["QueueUrl"])
    return Queue(made["QueueUrl"], dead_letters_url)


async def _arn(sqs: Any, url: str) -> str:
    answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


async def _make_topic(stack: AsyncExitStack, sns: Any, name: str, queue_arn: str) -> str:
    topic_arn = (await sns.create_topic(Name=name))["TopicArn"]
    stack.push_async_callback(sns.delete_topic, TopicArn=topic_arn)
    await sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=queue_arn)
    return str(topic_arn)


async def _make_bucket(stack: AsyncExitStack, s3: Any, name: str, topic_arn: str) -> str:
    await s3.create_bucket(Bucket=name)
    stack.push_async_callback(_remove_bucket, s3, name)
    await s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={
            "TopicConfigurations": [{"TopicArn": topic_arn, "Events": ["s3:ObjectCreated:*"]}],
        },
    )
    return name


async def _remove_bucket(s3: Any, name: str) -> None:
    async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        if keys := [{"Key": entry["Key"]} for entry in page.get("Contents", [])]:
            await s3.delete_objects(Bucket=name, Delete={"Objects": keys})
    await s3.delete_bucket(Bucket=name)
