"""What is done about the way in which a message's work ended: acknowledge, dead-letter, delay, pause."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from prometheus_client import Gauge, Histogram

from stacworker.api import Message
from stacworker.consume.circuit import Circuit
from stacworker.consume.outcome import Outcome, backoff_s, decide, given_up
from stacworker.consume.queue import DeadLetterBox
from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable

log = structlog.get_logger()

_OUTAGE_DELAY_S = 60.0
"""Messages given back in an outage stay away for half to all of this: longer than a receive already under way
waits, and long enough that every replica has noticed."""


class Settler:
    """Settles the messages of one consumer; the queue itself is the engine's business."""

    def __init__(
        self,
        *,
        dead_letters: DeadLetterBox | None,
        circuit: Circuit,
        max_receive_count: int,
        backoff_base_s: float,
        backoff_max_s: float,
        latency: Histogram,
        last_success: Gauge,
        draining: Callable[[], bool],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._dead_letters = dead_letters
        self._circuit = circuit
        self._max_receive_count = max_receive_count
        self._backoff_base_s = backoff_base_s
        self._backoff_max_s = backoff_max_s
        self._latency = latency
        self._last_success = last_success
        self._draining = draining
        self._now = now
        self._random = random

    async def settle(self, message: Message, error: StacworkerError | None) -> tuple[Outcome, float | None]:
        """Return how the message ends, and after how many seconds it is to come again: None to delete it."""
        outcome = decide(error, receive_count=message.receive_count, max_receive_count=self._max_receive_count)
        if error is None:
            now = self._now()
            self._latency.observe(max(0.0, now - message.sent_at))
            self._last_success.set(now)
            log.debug("message.acked")
            return outcome, None
        if outcome is Outcome.DEAD_LETTERED:
            error = await self._dead_letter(message, given_up(error, message.receive_count))
            if error is None:
                return outcome, None
        if isinstance(error, Unavailable):
            outcome, after_s = Outcome.RELEASED, self._outage_s(error)
        elif isinstance(error, Permanent):
            outcome, after_s = Outcome.RETRIED, self._backoff_max_s
        else:
            outcome, after_s = Outcome.RETRIED, self._backoff_s(message)
        log.warning(
            "message.released" if outcome is Outcome.RELEASED else "message.retried",
            error_class=error.error_class,
            error=error.reason,
            receive_count=message.receive_count,
            visible_after_s=round(after_s, 1),
        )
        return outcome, after_s

    async def _dead_letter(self, message: Message, error: Permanent) -> StacworkerError | None:
        """Hand the message over with its reason; return what kept it from being handed over."""
        if self._dead_letters is None:
            log.error("message.no_dead_letter_queue", error_class=error.error_class, error=error.reason)
            return error
        try:
            await self._dead_letters.send(message, error)
        except (Transient, Unavailable) as refused:
            return refused
        log.warning(
            "message.dead_lettered",
            error_class=error.error_class,
            error=error.reason,
            collection=error.collection,
            item_id=error.item_id,
        )
        return None

    def _outage_s(self, error: Unavailable) -> float:
        """Pause polling, and return how long to keep the message away; a drain just lets go of it."""
        if self._draining():
            return 0.0
        self._circuit.trip(error)
        return _OUTAGE_DELAY_S * (0.5 + self._random() / 2)

    def _backoff_s(self, message: Message) -> float:
        return backoff_s(
            message.receive_count,
            base_s=self._backoff_base_s,
            max_s=self._backoff_max_s,
            random=self._random,
        )
