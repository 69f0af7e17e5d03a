"""The fault-injecting gateway between the daemon's own clients and a real (emulated) AWS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from stacworker.api import Message
from stacworker.aws import Aws
from stacworker.consume.sqs import Letter, SqsQueue
from stacworker.inflight import InFlight
from stacworker.testing.localstack import REGION, LocalStack
from tests.chaos.aws_faults import Drop, Duplicate, Hang, PartFailure, Redeliver, Swallow
from tests.chaos.gateway import Gateway
from tests.chaos.handed import Sent
from tests.integration.aws import Depth, MakeBucket, MakeQueue, Queue


@pytest.fixture
async def gateway(localstack: LocalStack) -> AsyncIterator[Gateway]:
    async with Gateway(localstack.endpoint_url, random=Random(3)) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Any]:
    async with Aws(endpoint_url=gateway.endpoint_url, region=REGION).client("sqs") as made:
        yield made


async def receive(queue: SqsQueue, wait_s: int = 1) -> list[Message]:
    return await queue.receive(10, wait_s=wait_s, visibility_timeout_s=600, in_flight=InFlight())


def handles(messages: list[Message]) -> dict[str, str]:
    return {message.id: message.receipt_handle for message in messages}


def through(client: Any, queue: Queue) -> SqsQueue:
    """Give the daemon's view of a queue."""
    return SqsQueue(client, queue.url, queue.name)


async def test_the_whole_life_of_messages_passes(gateway: Gateway, client: Any, queue: MakeQueue) -> None:
    """Queue attributes, URLs, receives, visibility, deletes and dead letters: as without the gateway."""
    made = queue(max_receive_count=5)
    assert made.dead_letters is not None
    found = through(client, made)
    assert (await found.describe()).dead_letter_arn == made.dead_letters.arn
    dead = SqsQueue(client, await found.url_of(made.dead_letters.arn), "dead")
    seen: dict[str, Any] = {}

    async def deletes(queue_url: str, ids: list[str]) -> None:
        seen["deleted"] = (queue_url, ids)

    async def sends(queue_url: str, sent: list[Sent]) -> None:
        seen["sent"] = (queue_url, [(each.body, each.attributes) for each in sent])

    gateway.before_delete, gateway.on_send = deletes, sends
    ids = await made.send("a", "b", "c", attributes={"k": "v"})
    messages = await receive(found)
    assert sorted(message.body for message in messages) == ["a", "b", "c"]
    assert messages[0].attributes == {"k": {"DataType": "String", "StringValue": "v"}}
    assert await found.change_visibility({each.id: (each.receipt_handle, 900) for each in messages}) == {}
    assert await dead.send([Letter("bad", {"why": {"DataType": "String", "StringValue": "because"}})]) == {}
    assert sorted(gateway.in_flight(made.url)) == sorted(ids)
    assert await found.delete(handles(messages)) == {}
    assert await made.depth() == Depth()
    assert gateway.in_flight(made.url) == []
    assert seen == {"deleted": (made.url, list(handles(messages))), "sent": (dead.url, [("bad", {"why": "because"})])}


async def test_objects_pass(gateway: Gateway, bucket: MakeBucket) -> None:
    """Parts and lengths of objects, and bodies of some megabytes in both directions."""
    made = bucket()
    body = bytes(range(256)) * 12_000
    async with Aws(endpoint_url=gateway.endpoint_url, region=REGION).client("s3") as s3:
        await s3.put_object(Bucket=made.name, Key="a b/ü+%.bin", Body=body)
        assert await (await s3.get_object(Bucket=made.name, Key="a b/ü+%.bin"))["Body"].read() == body
        part = await s3.get_object(Bucket=made.name, Key="a b/ü+%.bin", Range="bytes=256-511")
        assert await part["Body"].read() == bytes(range(256))
        assert (await s3.head_object(Bucket=made.name, Key="a b/ü+%.bin"))["ContentLength"] == len(body)
        assert [found["Key"] for found in (await s3.list_objects_v2(Bucket=made.name))["Contents"]] == ["a b/ü+%.bin"]


async def test_messages_handed_out_to_nobody_stay_in_flight(gateway: Gateway, client: Any, queue: MakeQueue) -> None:
    """The client asks again and gets others; the lost ones come back when their visibility ends."""
    made = queue()
    found = through(client, made)
    await made.send(*(str(n) for n in range(15)))
    gateway.add(Drop(on=("ReceiveMessage",), times=1))
    got = await receive(found)
    lost = set(gateway.in_flight(made.url)) - {message.id for message in got}
    depth = await made.depth()
    assert gateway.injected == {"Drop": 1}
    assert lost
    assert depth == Depth(visible=15 - len(got) - len(lost), in_flight=len(got) + len(lost))
    assert await found.delete(handles(got)) == {}
    assert await gateway.expire(100) == len(lost)
    while len({message.body for message in got}) < 15:
        got += await receive(found)
    assert {message.id for message in got if message.receive_count == 2} == lost


async def test_answers_lost_after_the_act_are_asked_for_again(gateway: Gateway, client: Any, queue: MakeQueue) -> None:
    """A delete is done once and repeated without harm; a send is done twice."""
    made = queue()
    found = through(client, made)
    sent: list[str] = []

    async def sends(_queue_url: str, messages: list[Sent]) -> None:
        sent.extend(message.body for message in messages)

    gateway.on_send = sends
    gateway.add(Drop(on=("SendMessageBatch",), times=1), Drop(on=("DeleteMessageBatch",), times=1))
    assert await found.send([Letter("twice", {})]) == {}
    assert sent == ["twice", "twice"]
    messages = await receive(found)
    messages += await receive(found) if len(messages) < 2 else []
    assert [message.body for message in messages] == ["twice", "twice"]
    assert await found.delete(handles(messages)) == {}
    assert await made.depth() == Depth()
    assert gateway.injected == {"Drop": 2}


async def test_batches_that_fail_in_part_and_changes_that_are_swallowed(
    gateway: Gateway, client: Any, queue: MakeQueue
) -> None:
    """What failed is named and was not done; what was swallowed looks done and was not."""
    made = queue()
    found = through(client, made)
    await made.send(*"abcdef")
    messages = await receive(found)
    gateway.add(Swallow(times=1), PartFailure(on=("DeleteMessageBatch",), times=1))
    assert await found.change_visibility({each.id: (each.receipt_handle, 0) for each in messages}) == {}
    assert await made.depth() == Depth(in_flight=len(messages), visible=6 - len(messages))
    failed = await found.delete(handles(messages))
    assert {failure.code for failure in failed.values()} == {"InternalError"}
    assert not any(failure.lost for failure in failed.values())
    assert await made.depth() == Depth(in_flight=len(failed), visible=6 - len(messages))
    assert sorted(gateway.in_flight(made.url)) == sorted(failed)


async def test_messages_come_twice_and_again(gateway: Gateway, client: Any, queue: MakeQueue) -> None:
    """A duplicate has the id of its twin; what was deleted comes once more, and can be deleted once more."""
    made = queue()
    found = through(client, made)
    await made.send("a")
    gateway.add(Duplicate(times=1))
    first, second = await receive(found)
    assert first == second
    assert await found.delete(handles([first])) == {}
    gateway.add(Redeliver(times=1))
    (again,) = await receive(found)
    assert (again.id, again.receive_count) == (first.id, 2)
    failed = await found.delete(handles([again]))
    assert all(failure.lost for failure in failed.values())


async def test_a_half_open_receive_holds_its_messages(
    gateway: Gateway, localstack: LocalStack, queue: MakeQueue
) -> None:
    """The messages are handed out, the client asks again on another connection."""
    made = queue()
    await made.send("a")
    gateway.add(Hang(times=1))
    async with Aws(endpoint_url=gateway.endpoint_url, region=REGION).client("sqs", read_timeout_s=2) as client:
        assert await receive(through(client, made), wait_s=0) == []
    assert await made.depth() == Depth(in_flight=1)
    assert gateway.calls == {"ReceiveMessage": 2}
