"""What a pipeline asks of itself: once, on schedule, and from its feed, put into its queue in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable

import orjson
import structlog

from stacworker.api import Feed
from stacworker.consume.memory import MemoryQueue
from stacworker.errors import StacworkerError
from stacworker.metrics import Metrics
from stacworker.pipelines.settings import Asked, TriggerSettings

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 900.0

_log = structlog.get_logger()


class Triggers:
    """Puts requests into `queue` until it is cancelled.

    `inventory` gives all requests there are, as bodies of messages; None where the pipeline has none. What fails
    on the way is tried again from its beginning, after a pause that grows: requests that came through already are
    asked for twice, which is harmless. Nothing here is kept over a restart, but every trigger begins with one.
    """

    def __init__(
        self,
        name: str,
        settings: TriggerSettings,
        queue: MemoryQueue,
        *,
        inventory: Callable[[], AsyncGenerator[str, None]] | None,
        feed: Feed | None,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._settings = settings
        self._queue = queue
        self._inventory = inventory
        self._feed = feed
        self._monotonic = monotonic
        self._asked = 0
        self._failures = metrics.trigger_failures.labels(name)

    async def run(self) -> None:
        """Run all triggers; returns when none has anything more to ask for."""
        async with asyncio.TaskGroup() as group:
            if self._settings.once:
                group.create_task(self._until_done("once", self._once), name=f"once:{self.name}")
            if self._settings.schedule is not None:
                group.create_task(self._on_schedule(self._settings.schedule.every), name=f"schedule:{self.name}")
            if self._feed is not None:
                group.create_task(self._until_done("feed", self._fed), name=f"feed:{self.name}")

    async def _on_schedule(self, every_s: float) -> None:
        while True:
            started = self._monotonic()
            await self._until_done("schedule", self._scheduled)
            await asyncio.sleep(max(0.0, started + every_s - self._monotonic()))

    async def _until_done(self, trigger: str, requests: Callable[[], AsyncGenerator[str, None]]) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            before = self._asked
            try:
                await self._put(requests())
            except StacworkerError as error:
                reason = error.reason
            except BaseException as error:
                # A feed is a class of the user's: whatever it raises, SystemExit included, is its own failure.
                me = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError | GeneratorExit) and me is not None and me.cancelling():
                    raise
                reason = f"{type(error).__name__}: {error}"
            else:
                _log.info("pipeline.asked", pipeline=self.name, trigger=trigger, requests=self._asked - before)
                return
            if self._asked > before:
                pause_s = _FIRST_PAUSE_S  # it has worked meanwhile
            self._failures.inc()
            _log.error("pipeline.trigger_failed", pipeline=self.name, trigger=trigger, error=reason, again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _put(self, requests: AsyncGenerator[str, None]) -> None:
        async with contextlib.aclosing(requests) as bodies:
            async for body in bodies:
                self._asked += await self._queue.offer(body)
                await asyncio.sleep(0)  # what gives without ever waiting must not keep all others from their turn

    def _once(self) -> AsyncGenerator[str, None]:
        asked = self._settings.once
        if not isinstance(asked, bool):
            return _given(asked)
        return _given([{}]) if self._inventory is None else self._inventory()

    def _scheduled(self) -> AsyncGenerator[str, None]:
        schedule = self._settings.schedule
        if schedule is None or schedule.requests is None:
            return _given(()) if self._inventory is None else self._inventory()
        return _given(schedule.requests)

    async def _fed(self) -> AsyncGenerator[str, None]:
        if self._feed is not None:
            async for asked in self._feed.requests():
                yield _body(asked)


async def _given(asked: Iterable[Asked]) -> AsyncGenerator[str, None]:
    for each in asked:
        yield _body(each)


def _body(asked: Asked) -> str:
    return asked if isinstance(asked, str) else orjson.dumps(asked).decode()
