"""An engine on a queue in memory, with everything a test wants to look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from stacworker.api import Message
from stacworker.consume.deadletter import DeadLetters
from stacworker.consume.engine import Engine, Limits
from stacworker.errors import StacworkerError
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.testing.queue import FakeQueue


async def eventually(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Return once the condition holds; fail when it never does."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


@dataclass
class ScriptedConsumer:
    """Does with each message what `work` says; records bodies as they come."""

    work: Callable[[Message], Awaitable[None]] | None = None
    handled: list[str] = field(default_factory=list)
    away: StacworkerError | None = None

    async def handle(self, message: Message) -> None:
        self.handled.append(message.body)
        if self.work is not None:
            await self.work(message)

    async def ping(self) -> None:
        if self.away is not None:
            raise self.away


@dataclass
class Bench:
    engine: Engine
    queue: FakeQueue
    dead: FakeQueue
    lifecycle: Lifecycle
    metrics: Metrics
    consumer: ScriptedConsumer
    task: asyncio.Task[None] | None = None

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"stacworker_{name}", {"queue": "queue", **labels}) or 0.0

    def outcomes(self) -> dict[str, int]:
        found = {
            outcome: int(self.count("messages_total", outcome=outcome))
            for outcome in ("acked", "retried", "dead_lettered", "released")
        }
        return {outcome: count for outcome, count in found.items() if count}

    async def drain(self) -> None:
        self.lifecycle.stop("test")
        assert self.task is not None
        async with asyncio.timeout(10):
            await self.task


@asynccontextmanager
async def running(
    work: Callable[[Message], Awaitable[None]] | None = None,
    *,
    bodies: tuple[str, ...] = (),
    fifo: bool = False,
    dead_letters: bool = True,
    drain_timeout_s: float = 5.0,
    queue: FakeQueue | None = None,
    dead: FakeQueue | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    **limits: Any,
) -> AsyncIterator[Bench]:
    """Run an engine; it is drained at the end unless the test did."""
    queue = queue or FakeQueue(fifo=fifo)
    dead = dead or FakeQueue("dead")
    queue.put(*bodies)
    metrics = Metrics()
    lifecycle = Lifecycle(drain_timeout_s=drain_timeout_s)
    consumer = ScriptedConsumer(work)
    letters = DeadLetters(dead, consumer="items", source_queue=queue.url, fifo=False, now=lambda: 0.0)
    engine = Engine(
        name="items",
        queue=queue,
        consumer=consumer,
        dead_letters=letters if dead_letters else None,
        limits=Limits(**{"wait_time_s": 0.05, "backoff_base_s": 0.0, "visibility_timeout_s": 5.0, **limits}),
        fifo=fifo,
        lifecycle=lifecycle,
        metrics=metrics,
        monotonic=monotonic,
        random=lambda: 0.0,
    )
    bench = Bench(engine, queue, dead, lifecycle, metrics, consumer)
    bench.task = asyncio.create_task(engine.run())
    try:
        yield bench
    finally:
        if not bench.task.done():
            await bench.drain()
