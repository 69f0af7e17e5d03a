"""Pausing while a dependency is away: no polling, so no receive counts burned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from stacworker.errors import StacworkerError, Unavailable
from stacworker.metrics import Metrics

log = structlog.get_logger()

_FIRST_PROBE_S = 0.5
_LAST_PROBE_S = 30.0
_CHECK_S = 10.0
_PROBE_TIMEOUT_S = 15.0


class Circuit:
    """Closed: work. Open: a dependency is away; `probe` is tried until it passes.

    While closed, `probe` runs now and then too, so that an idle replica notices an outage without
    spending a receive on it.
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
        self._tripped = asyncio.Event()
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
        self._closed.clear()
        self.reason = error.reason
        self._dependency = error.dependency
        self._metrics.circuit_open.labels(error.dependency).inc()
        self._tripped.set()
        log.error("circuit.opened", consumer=self._name, dependency=error.dependency, error=error.reason)

    async def run(self) -> None:
        """Probe until cancelled."""
        wait_s = _FIRST_PROBE_S
        while True:
            try:
                async with asyncio.timeout(wait_s * (0.5 + self._random()) if self.is_open else _CHECK_S):
                    await (asyncio.Event().wait() if self.is_open else self._tripped.wait())
            except TimeoutError:
                pass
            self._tripped.clear()
            error = await self._check()
            if error is not None:
                wait_s = min(wait_s * 2, _LAST_PROBE_S) if self.is_open else _FIRST_PROBE_S
                self.trip(error)
                self.reason = error.reason
            elif self.is_open:
                wait_s = _FIRST_PROBE_S
                self._metrics.circuit_open.labels(self._dependency).dec()
                self.reason = None
                self._closed.set()
                log.info("circuit.closed", consumer=self._name, dependency=self._dependency)

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
        return None
