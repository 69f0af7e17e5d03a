"""Pausing while a dependency is away: no polling, so no receive counts burned."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from stacworker.consume.outcome import unexpected
from stacworker.errors import StacworkerError, Unavailable
from stacworker.metrics import Metrics

log = structlog.get_logger()

_FIRST_PAUSE_S = 0.5
_LAST_PAUSE_S = 30.0
_TRUSTED_S = 120.0
_CHECK_S = 10.0
_PROBE_TIMEOUT_S = 15.0


class Circuit:
    """Closed: work. Open: a dependency is away; `probe` is tried until it passes.

    While closed, `probe` runs now and then too, so that an idle replica notices an outage without
    spending a receive on it. A probe that passes while the work still fails (a database that answers and
    is full) closes it for a moment only: the pauses grow on until it has stayed closed for a while.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[None]],
        *,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        self._name = name
        self._probe = probe
        self._metrics = metrics
        self._random = random
        self._closed = asyncio.Event()
        self._closed.set()
        self._opened = asyncio.Event()
        self._closed_at = -math.inf
        self._pause_s = 0.0
        self.reason: str | None = None
        self._dependency = ""

    @property
    def is_open(self) -> bool:
        """True while a dependency is away."""
        return not self._closed.is_set()

    async def wait_closed(self) -> None:
        """Return when work may go on."""
        await self._closed.wait()

    def trip(self, error: Unavailable) -> None:
        """Open: `error` says which dependency is away."""
        if self.is_open:
            return
        if asyncio.get_running_loop().time() - self._closed_at > _TRUSTED_S:
            self._pause_s = 0.0
        self._closed.clear()
        self.reason = error.reason
        self._dependency = error.dependency
        self._metrics.circuit_open.labels(error.dependency).inc()
        self._opened.set()
        log.error("circuit.opened", consumer=self._name, dependency=error.dependency, error=error.reason)

    async def run(self) -> None:
        """Probe until cancelled, at once and then now and then; often while open."""
        while True:
            was_open = self.is_open
            error = await self._check()
            if error is not None:
                self.trip(error)
                self.reason = error.reason
            elif was_open:  # else work failed during this probe, and knows better
                self._close()
            await self._until_next()

    def _close(self) -> None:
        self._metrics.circuit_open.labels(self._dependency).dec()
        self.reason = None
        self._closed_at = asyncio.get_running_loop().time()
        self._opened.clear()
        self._closed.set()
        log.info("circuit.closed", consumer=self._name, dependency=self._dependency)

    async def _until_next(self) -> None:
        if not self.is_open:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await self._opened.wait()
        if self.is_open:
            await asyncio.sleep(self._pause_s * (0.5 + self._random()))
            self._pause_s = min(max(_FIRST_PAUSE_S, self._pause_s * 2), _LAST_PAUSE_S)

    async def _check(self) -> Unavailable | None:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await self._probe()
        except Unavailable as error:
            return error
        except TimeoutError:
            return Unavailable("no answer to a probe", dependency=self._dependency or "unknown", error_class="timeout")
        except StacworkerError as error:
            return Unavailable(error.reason, dependency=self._dependency or "unknown", error_class=error.error_class)
        except Exception as error:  # noqa: BLE001 - whatever a user's ping raises, its consumer cannot work
            return Unavailable(unexpected(error).reason, dependency=self._dependency or "unknown")
        return None
