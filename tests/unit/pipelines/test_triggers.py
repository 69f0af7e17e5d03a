"""What a pipeline asks of itself, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from stacworker.consume.memory import MemoryQueue
from stacworker.errors import Transient
from stacworker.inflight import InFlight
from stacworker.metrics import Metrics
from stacworker.pipelines.settings import TriggerSettings
from stacworker.pipelines.triggers import Triggers


def triggers(queue: MemoryQueue, *, metrics: Metrics | None = None, **more: Any) -> Triggers:
    given = {name: more.pop(name, None) for name in ("inventory", "feed")}
    settings = TriggerSettings.model_validate(more)
    return Triggers("p", settings, queue, metrics=metrics or Metrics(), **given)


def waiting(queue: MemoryQueue) -> list[str]:
    return [stored.body for stored in queue.stored.values()]


async def take(queue: MemoryQueue, count: int = 10) -> list[str]:
    """Receive and delete."""
    found = await queue.receive(count, wait_s=1, visibility_timeout_s=30, in_flight=InFlight())
    await queue.delete({message.id: message.receipt_handle for message in found})
    return [message.body for message in found]


async def test_once_asks_for_what_is_listed() -> None:
    """Objects become JSON, texts stay as they are."""
    queue = MemoryQueue("p")
    await triggers(queue, once=[{"id": "a"}, "s3://bucket/key"]).run()
    assert waiting(queue) == ['{"id":"a"}', "s3://bucket/key"]


async def test_once_without_anything_asks_for_one_item() -> None:
    """As for a Zarr store, which is one item that no notification tells of."""
    queue = MemoryQueue("p")
    await triggers(queue, once=True).run()
    assert waiting(queue) == ["{}"]


async def test_an_inventory_waits_for_room() -> None:
    """No more requests are in memory than the queue takes, however many there are."""
    queue = MemoryQueue("p", max_messages=5)

    async def inventory() -> AsyncGenerator[str, None]:
        for number in range(17):
            yield str(number)

    running = asyncio.create_task(triggers(queue, once=True, inventory=inventory).run())
    found: list[str] = []
    most = 0
    while len(found) < 17:
        found += await take(queue, 3)
        most = max(most, len(queue.stored))
    await running
    assert found == [str(number) for number in range(17)]
    assert most <= 5


async def test_what_is_not_done_is_not_asked_for_again() -> None:
    """A schedule that comes round before the last one is worked off adds nothing twice."""
    queue = MemoryQueue("p")
    await triggers(queue, once=["a", "b"]).run()
    await take(queue, 1)
    await triggers(queue, once=["a", "b"]).run()
    assert waiting(queue) == ["b", "a"]


async def test_a_schedule_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and then every so often."""
    queue = MemoryQueue("p")
    slept: list[float] = []
    sleep = asyncio.sleep

    async def quickly(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr("stacworker.pipelines.triggers.asyncio.sleep", quickly)
    running = asyncio.create_task(triggers(queue, schedule={"every": "6h", "requests": ["a"]}).run())
    assert await take(queue) == ["a"]
    assert await take(queue) == ["a"]
    running.cancel()
    assert 6 * 3600 - 1 < slept[0] <= 6 * 3600


async def test_what_fails_begins_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both our errors and any of a feed of the user's; the pause grows, and the metric counts."""
    queue, metrics = MemoryQueue("p"), Metrics()
    slept: list[float] = []
    sleep = asyncio.sleep

    async def quickly(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr("stacworker.pipelines.triggers.asyncio.sleep", quickly)
    failures: list[BaseException] = [SystemExit(3), asyncio.CancelledError(), KeyError("host"), Transient("no answer")]

    class Feed:
        async def requests(self) -> AsyncIterator[str]:
            if failures:
                raise failures.pop()
            yield "first"

    await triggers(queue, feed=Feed(), once=["x"], metrics=metrics).run()
    assert sorted(waiting(queue)) == ["first", "x"]
    assert slept == [5.0, 10.0, 20.0, 40.0]
    assert metrics.registry.get_sample_value("stacworker_trigger_failures_total", {"pipeline": "p"}) == 4


async def test_what_has_worked_meanwhile_pauses_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure now and then is no outage."""
    queue = MemoryQueue("p")
    slept: list[float] = []
    sleep = asyncio.sleep

    async def quickly(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr("stacworker.pipelines.triggers.asyncio.sleep", quickly)
    left = [3, 2, 1]

    class Feed:
        async def requests(self) -> AsyncIterator[str]:
            yield f"request {len(left)}"
            if left:
                raise ConnectionError(str(left.pop()))

    await triggers(queue, feed=Feed()).run()
    assert slept == [5.0, 5.0, 5.0]


async def test_a_feed_that_never_waits_leaves_others_their_turn() -> None:
    """Not even when it gives the same request for ever."""
    queue = MemoryQueue("p")

    class Feed:
        async def requests(self) -> AsyncIterator[str]:
            while True:
                yield "same"

    running = asyncio.create_task(triggers(queue, feed=Feed()).run())
    assert await take(queue) == ["same"]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
