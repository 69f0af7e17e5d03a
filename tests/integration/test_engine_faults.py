"""The engine on a real queue, by way of a gateway that makes trouble."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from stacworker.api import Message
from stacworker.aws import Aws
from stacworker.consume.engine import Engine, Limits
from stacworker.consume.sqs import SqsQueue
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.testing.localstack import REGION, LocalStack
from tests.chaos.aws_faults import Drop, Expired, Hang, PartFailure, ServerError, Throttle
from tests.chaos.gateway import Gateway
from tests.integration.aws import Depth, MakeQueue, Queue

PATIENCE_S = 60.0


class Handler:
    """A consumer that is content with everything; `counts` are the receive counts of each body."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}

    async def handle(self, message: Message) -> None:
        self.counts.setdefault(message.body, []).append(message.receive_count)

    async def ping(self) -> None:
        pass


@pytest.fixture
async def gateway(localstack: LocalStack) -> AsyncIterator[Gateway]:
    async with Gateway(localstack.endpoint_url, random=Random(5)) as running:
        yield running


@asynccontextmanager
async def running(gateway: Gateway, queue: Queue, handler: Handler) -> AsyncIterator[Engine]:
    """Run an engine; in the end it has to drain by itself."""
    lifecycle = Lifecycle(drain_timeout_s=PATIENCE_S)
    async with Aws(endpoint_url=gateway.endpoint_url, region=REGION).client("sqs", read_timeout_s=3) as client:
        engine = Engine(
            name="items",
            queue=SqsQueue(client, queue.url, queue.name),
            consumer=handler,
            dead_letters=None,
            limits=Limits(wait_time_s=1, visibility_timeout_s=30),
            fifo=False,
            lifecycle=lifecycle,
            metrics=Metrics(),
        )
        task = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            lifecycle.stop("test")
            await task


async def until_empty(queue: Queue, gateway: Gateway, handler: Handler) -> None:
    """Wait for the end of all messages; those that were handed out to nobody need not wait for their time."""
    async with asyncio.timeout(PATIENCE_S):
        while await queue.depth() != Depth():
            if (await queue.depth()).visible == 0:
                await gateway.expire(100)
            await asyncio.sleep(0.1)


async def test_expired_credentials_pause_polling_and_burn_nothing(gateway: Gateway, queue: MakeQueue) -> None:
    """Nothing is received meanwhile, the reason is told, and all goes on when they are accepted again."""
    made, handler = queue(), Handler()
    gateway.add(Expired())
    await made.send(*(str(n) for n in range(30)))
    async with running(gateway, made, handler) as engine:
        async with asyncio.timeout(PATIENCE_S):
            while not gateway.injected["Expired"] > 5:
                await asyncio.sleep(0.02)
        assert "ExpiredToken: The security token is expired." in str(engine.paused_because)
        assert gateway.calls["ReceiveMessage"] <= 1
        assert handler.counts == {}
        gateway.clear()
        await made.wait_until_empty(timeout_s=PATIENCE_S)
        assert engine.paused_because is None
    assert handler.counts == {str(n): [1] for n in range(30)}
    assert gateway.calls["SendMessageBatch"] == 0


async def test_calls_that_fail_in_passing_are_made_again(gateway: Gateway, queue: MakeQueue) -> None:
    """Throttled and failing calls, and batches that fail in part, cost nobody anything."""
    made, handler = queue(), Handler()
    gateway.add(
        Throttle(chance=0.2, times=5),
        ServerError(chance=0.2, times=5),
        PartFailure(on=("DeleteMessageBatch",), times=2),
    )
    await made.send(*(str(n) for n in range(60)))
    async with running(gateway, made, handler):
        await made.wait_until_empty(timeout_s=PATIENCE_S)
    assert handler.counts == {str(n): [1] for n in range(60)}
    assert gateway.injected == {"Throttle": 5, "ServerError": 5, "PartFailure": 2}


async def test_receives_whose_answers_are_lost_or_never_come(gateway: Gateway, queue: MakeQueue) -> None:
    """Their messages come again to whoever asks; each is worked on once, and the lost ones count two receives."""
    made, handler = queue(), Handler()
    gateway.add(Drop(on=("ReceiveMessage",), times=1), Hang(on=("ReceiveMessage",), times=1))
    await made.send(*(str(n) for n in range(30)))
    async with running(gateway, made, handler):
        await until_empty(made, gateway, handler)
    assert Counter(len(counts) for counts in handler.counts.values()) == {1: 30}
    assert {count for counts in handler.counts.values() for count in counts} == {1, 2}
    assert gateway.injected["Drop"] == gateway.injected["Hang"] == 1


async def test_deletes_whose_answers_are_lost(gateway: Gateway, queue: MakeQueue) -> None:
    """They are asked for again, and no message is worked on twice."""
    made, handler = queue(), Handler()
    gateway.add(Drop(on=("DeleteMessageBatch",), times=4))
    await made.send(*(str(n) for n in range(60)))
    async with running(gateway, made, handler):
        await made.wait_until_empty(timeout_s=PATIENCE_S)
    assert handler.counts == {str(n): [1] for n in range(60)}
    assert gateway.injected == {"Drop": 4}
