"""How the process ends: the first SIGTERM or SIGINT drains, a second one exits at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import structlog

log = structlog.get_logger()

_OVERTIME_S = 15.0


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
            for callback in self._callbacks:
                callback()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call this when the drain begins."""
        self._callbacks.append(callback)

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

        def received(number: signal.Signals) -> None:
            if self.draining.is_set():
                log.warning("exit.forced", signal=number.name)
                os._exit(128 + number)
            self.stop(number.name)
            # Whatever does not let itself be cancelled must not keep the process.
            loop.call_later(self._drain_timeout_s + _OVERTIME_S, self._overtime)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, received, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    @staticmethod
    def _overtime() -> None:
        log.critical("exit.overtime", error="the drain did not end in time")
        os._exit(1)
