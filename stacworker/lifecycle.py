"""How the process ends: the first SIGTERM or SIGINT drains, a second one exits at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType

import structlog

log = structlog.get_logger()

_OVERTIME_S = 15.0


class Stopped(Exception):  # noqa: N818 - not an error
    """A signal came while the process was starting."""


class Lifecycle:
    """Says when to stop and how much time is left for it."""

    def __init__(self, *, drain_timeout_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.draining = asyncio.Event()
        self._drain_timeout_s = drain_timeout_s
        self._monotonic = monotonic
        self._deadline: float | None = None
        self._callbacks: list[Callable[[], None]] = []

    def stop(self, reason: str) -> None:
        """Begin the drain; later calls change nothing."""
        if self._deadline is None:
            self._deadline = self._monotonic() + self._drain_timeout_s
            log.info("drain.started", reason=reason, drain_timeout_s=self._drain_timeout_s)
            self.draining.set()
            for callback in list(self._callbacks):
                callback()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call this when the drain begins, or now if it has."""
        self._callbacks.append(callback)
        if self.draining.is_set():
            callback()

    @contextlib.asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Cancel the body when the drain begins, whatever it waits for; that raises `Stopped`."""
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(None)

        def interrupt() -> None:
            limit.reschedule(loop.time())

        try:
            async with limit:
                self.on_stop(interrupt)
                try:
                    yield
                finally:
                    self._callbacks.remove(interrupt)
        except TimeoutError:
            if limit.expired():
                raise Stopped from None
            raise

    @property
    def remaining_s(self) -> float:
        """Seconds until the drain's deadline, not below 0; the whole time while not draining."""
        if self._deadline is None:
            return self._drain_timeout_s
        return max(0.0, self._deadline - self._monotonic())

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        signalled = False

        def received(number: int, _: FrameType | None) -> None:
            # Not the loop's own handler, which waits for the loop: a consumer that blocks it must not keep us.
            nonlocal signalled
            name = signal.Signals(number).name
            if signalled or self.draining.is_set():
                try:
                    log.warning("exit.forced", signal=name)
                finally:
                    os._exit(128 + number)
            signalled = True
            loop.call_soon_threadsafe(begin, name)

        def begin(name: str) -> None:
            self.stop(name)
            # Whatever does not let itself be cancelled must not keep the process.
            loop.call_later(self._drain_timeout_s + _OVERTIME_S, self._overtime)

        before = {number: signal.signal(number, received) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @staticmethod
    def _overtime() -> None:
        log.critical("exit.overtime", error="the drain did not end in time")
        os._exit(1)
