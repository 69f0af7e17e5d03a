"""How many messages of one queue are in hand, and how many of them only wait in a batch.

A batch flushes when it is full, when its wait is over, or when nothing more can come before it is
done. Only the engine can see the last: every message it holds waits in some batch, and its slots are
taken or its queue is drained. `InFlight` is the one object that both ends share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class InFlight:
    """The messages that one consumer holds now.

    `held` counts messages from receipt to outcome; `waiting` those of them that wait for a batch.
    `more_to_come` is the engine's word on whether further messages are about to arrive; while it is
    true a batch is left to fill. `worked_off` counts the messages held whose own work is done, and that wait for
    what they share with others: copies, a batch; `on_worked_off` is called for each, and must be cheap and not raise.
    """

    def __init__(self, *, more_expected: bool = False) -> None:
        self.held = 0
        self.worked_off = 0
        self.on_worked_off: Callable[[], None] = _nothing
        self._waiting = 0
        self._more_expected = more_expected
        self.more_to_come: Callable[[], bool] = lambda: self._more_expected
        self._flushes: Counter[Callable[[], None]] = Counter()

    def enter(self) -> None:
        """Count a message that was just received."""
        self.held += 1

    def leave(self) -> None:
        """Stop counting a message: its work is done."""
        self.held -= 1
        self._flush_if_stalled()

    @contextmanager
    def working(self) -> Iterator[Callable[[], None]]:
        """Handle one message; gives what to call when its own work is done, which the end of the context is too."""
        is_done = False

        def done() -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                self.worked_off += 1
                self.on_worked_off()

        try:
            yield done
        finally:
            done()
            self.worked_off -= 1

    @contextmanager
    def waiting(self, flush: Callable[[], None]) -> Iterator[None]:
        """Mark that one message waits; `flush` is called when nothing more can come before it is done.

        `flush` must be cheap, must not raise, and must stand being called more often than needed. A
        message that waits for several things at once enters here once for all of them.
        """
        self._waiting += 1
        self._flushes[flush] += 1
        self._flush_if_stalled()
        try:
            yield
        finally:
            self._waiting -= 1
            self._flushes[flush] -= 1
            if not self._flushes[flush]:
                del self._flushes[flush]

    def expect_more(self, more: bool) -> None:  # noqa: FBT001 - a plain state
        """Say whether more messages are about to arrive (the engine, after each receive)."""
        self._more_expected = more
        self._flush_if_stalled()

    @property
    def stalled(self) -> bool:
        """True when every message in hand waits and nothing more can come."""
        return self._waiting >= self.held and self._waiting > 0 and not self.more_to_come()

    def _flush_if_stalled(self) -> None:
        if self.stalled:
            for flush in list(self._flushes):
                flush()


def _nothing() -> None:
    """Tell nobody."""
