"""The memory that fetched objects take: bounded by bytes, whatever the backlog."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from stacworker.api import Message
from stacworker.envelope.forms import S3Location
from stacworker.envelope.reader import Read, Reader
from stacworker.envelope.room import PARSED_FACTOR
from stacworker.errors import Transient
from stacworker.inflight import InFlight
from tests.unit.strategies_envelope import item, text

POINTER = '["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":"b","s3Key":"k"}]'


@dataclass
class Objects:
    """Every object is the same item; counts how often it was fetched."""

    body: bytes = field(default_factory=lambda: text(item()).encode())
    failure: Exception | None = None
    max_concurrency: int = 4
    got: int = 0

    async def get(self, location: S3Location) -> bytes:
        del location
        self.got += 1
        if self.failure is not None:
            raise self.failure
        return self.body

    async def ping(self) -> None:
        pass


@dataclass
class Worker:
    """Reads messages of one queue, and holds each until told to let go."""

    reader: Reader
    in_flight: InFlight = field(default_factory=InFlight)

    async def read(self, stack: AsyncExitStack, body: str = "s3://b/k") -> Read:
        message = Message("m", body, "r", 1, sent_at=0.0, in_flight=self.in_flight)
        return await stack.enter_async_context(self.reader.documents(message))


async def idle() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("body", ["s3://b/k", POINTER])
async def test_nothing_is_fetched_while_others_hold_too_much(body: str) -> None:
    """Two objects fill the room; the third message waits for one of them to be let go."""
    objects = Objects()
    worker = Worker(Reader(objects, max_held_bytes=2 * len(objects.body)))
    async with AsyncExitStack() as first, AsyncExitStack() as second, AsyncExitStack() as third:
        await worker.read(first, body)
        await worker.read(second, body)
        waiting = asyncio.create_task(worker.read(third, body))
        await idle()
        assert (objects.got, waiting.done()) == (2, False)
        await first.aclose()
        assert len((await waiting).documents) == 1
    assert objects.got == 3


async def test_whoever_waits_for_room_lets_batches_go() -> None:
    """Else the batch that would make room waited for messages that cannot come before it."""
    objects = Objects()
    worker = Worker(Reader(objects, max_held_bytes=1))
    flushed = []
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        worker.in_flight.enter()
        worker.in_flight.enter()
        await worker.read(first)
        with worker.in_flight.waiting(lambda: flushed.append("batch")):
            assert flushed == []
            waiting = asyncio.create_task(worker.read(second))
            await idle()
            assert flushed == ["batch"]
        await first.aclose()
        await waiting
    assert not worker.in_flight.stalled


async def test_a_full_room_is_one_queues_own_affair() -> None:
    """Messages of other queues, and messages that name no object, go on."""
    objects = Objects()
    reader = Reader(objects, max_held_bytes=1)
    full, other = Worker(reader), Worker(reader)
    async with AsyncExitStack() as stack:
        await full.read(stack)
        assert len((await other.read(stack)).documents) == 1
        assert len((await full.read(stack, text(item()))).documents) == 1


async def test_failures_and_cancellations_leave_the_room_as_it_was() -> None:
    """However a message ends, what it held is given back."""
    objects = Objects(failure=Transient("interrupted"), max_concurrency=1)
    worker = Worker(Reader(objects, max_held_bytes=1))
    async with asyncio.timeout(5), AsyncExitStack() as stack:
        for _ in range(3):
            with pytest.raises(Transient):
                await worker.read(stack)
        objects.failure = None
        holding = AsyncExitStack()
        await worker.read(holding)
        for _ in range(3):
            waiting = asyncio.create_task(worker.read(stack))
            await idle()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await holding.aclose()
        assert len((await worker.read(stack)).documents) == 1


LARGE = text({"type": "FeatureCollection", "features": [item(id=f"i{number}") for number in range(100)]})


async def test_nothing_is_parsed_while_others_hold_too_much() -> None:
    """JSON takes several times its size once it is parsed: what was fetched waits as the bytes it came in."""
    objects = Objects(LARGE.encode())
    worker = Worker(Reader(objects, max_parsed_bytes=PARSED_FACTOR * len(LARGE) * 2))
    async with AsyncExitStack() as first, AsyncExitStack() as second, AsyncExitStack() as third:
        await worker.read(first)
        await worker.read(second, LARGE)
        waiting = asyncio.create_task(worker.read(third))
        await idle()
        assert (objects.got, waiting.done()) == (2, False)
        await first.aclose()
        assert len((await waiting).documents) == 100


async def test_what_is_larger_than_the_room_is_parsed_alone() -> None:
    """It waits until nothing else is held, and nothing else comes beside it."""
    objects = Objects(LARGE.encode())
    worker = Worker(Reader(objects, max_parsed_bytes=1))
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await worker.read(first)
        waiting = asyncio.create_task(worker.read(second))
        await idle()
        assert not waiting.done()
        await first.aclose()
        assert len((await waiting).documents) == 100


async def test_a_message_that_holds_something_never_waits_for_those_who_wait_for_it() -> None:
    """A large event in hand names an object while all room for objects is taken by messages that wait to parse."""
    objects = Objects(LARGE.encode())
    worker = Worker(Reader(objects, max_held_bytes=1, max_parsed_bytes=1))
    async with asyncio.timeout(5), AsyncExitStack() as first, AsyncExitStack() as second:
        held = await first.enter_async_context(worker.reader._share(worker.in_flight))
        await held.may_parse(100_000)
        waiting = asyncio.create_task(worker.read(second))
        await idle()
        assert (objects.got, waiting.done()) == (1, False)
        await held.may_fetch()
        await held.may_parse(100_000)
        await first.aclose()
        await waiting
