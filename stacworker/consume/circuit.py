"""Pausing while a dependency is away: no polling, so no receive counts burned."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

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
_TRIAL_TIMEOUT_S = 120.0
_FEW_FAILURES = 5
_PERHAPS_ONE_MESSAGE = frozenset({"bad_answer", "connection", "server_error", "timeout"})
"""What a single message could bring about, such as an item that crashes the database: it is not tried for ever."""


class Trial:
    """The message that stays in hand during an outage, to find out when work succeeds again."""

    def __init__(self, trip: Callable[[Unavailable], None]) -> None:
        self._trip = trip
        self._go = asyncio.Event()
        self._done = asyncio.Event()
        self._failures = 0
        self._over = False

    async def turn(self, error: Unavailable) -> bool:
        """Wait for the next try after `error`; False when there is none, and the message is to be released."""
        self._trip(error)
        self._failures += 1
        if self._failures > _FEW_FAILURES and error.error_class in _PERHAPS_ONE_MESSAGE:
            return False
        self._go.clear()
        self._done.set()
        if not self._over:
            await self._go.wait()
        return not self._over

    async def run(self) -> bool:
        """Let the message be tried once; return when that has ended, or False when it takes very long."""
        self._done.clear()
        self._go.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_TRIAL_TIMEOUT_S):
                return await self._done.wait()
        return False

    def end(self) -> None:
        """Let nobody wait for it any more: there are no further tries."""
        self._over = True
        self._go.set()
        self._done.set()


class Circuit:
    """Closed: work. Open: a dependency is away; `probe` is tried until it passes.

    While closed, `probe` runs now and then too, so that an idle replica notices an outage without
    spending a receive on it. A probe may pass while work still fails (a database that answers and is full):
    so one message that met the outage stays in hand, and the circuit closes when that message has succeeded.
    An outage costs each message one receive, however long it is.
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
        self._trial: Trial | None = None
        self._no_more_trials = False
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
        self.reason = _why(error)
        self._dependency = error.dependency
        self._metrics.circuit_open.labels(error.dependency).inc()
        self._opened.set()
        log.error("circuit.opened", consumer=self._name, dependency=error.dependency, error=error.reason)

    @contextmanager
    def trial(self, error: Unavailable) -> Iterator[Trial | None]:
        """Keep the message that met `error` as the trial; None when another one is, or there are to be none."""
        self.trip(error)
        if self._trial is not None or self._no_more_trials:
            yield None
            return
        trial = self._trial = Trial(self.trip)
        try:
            yield trial
        finally:
            self._trial = None
            trial.end()

    def end_trials(self) -> None:
        """Release the message that is kept, and keep no other (a drain)."""
        self._no_more_trials = True
        if self._trial is not None:
            self._trial.end()

    async def run(self) -> None:
        """Probe until cancelled, at once and then now and then; often while open."""
        while True:
            was_open = self.is_open
            error = await self._check()
            if error is not None:
                self.trip(error)
                self.reason = _why(error)
            elif was_open and await self._works():  # not open before: work failed during this probe, and knows better
                self._close()
            await self._until_next()

    async def _works(self) -> bool:
        """Let the message on trial be tried, if there is one; say whether it has succeeded, or does not tell."""
        trial = self._trial
        return trial is None or not await trial.run() or self._trial is not trial

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


def _why(error: Unavailable) -> str:
    """Return what readiness says of an outage: which dependency is away, and how that was seen."""
    return f"waiting for {error.dependency}: {error.reason}"
