"""How far ahead of its work a consumer receives.

A consumer that works on few messages at a time (generators have so many children) should not hold all of a backlog:
other replicas would get nothing of it, and each end of a process would give it all back, at the price of a receive for
each message.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_WINDOW_S = 2.5


class Lookahead:
    """Twice what is worked on at a time, and what was worked off in the last five seconds.

    So the first messages are few, and as many more come as turn out to be done soon.
    """

    def __init__(self, at_once: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`at_once` is how many messages are worked on at a time."""
        self._least = max(2, 2 * at_once)
        self._monotonic = monotonic
        self._window_since = monotonic()
        self._in_window = 0
        self._in_window_before = 0

    @property
    def limit(self) -> int:
        """How many messages may be in hand whose work is not done."""
        self._turn()
        return self._least + self._in_window_before + self._in_window

    def worked_off(self) -> None:
        """Count the work of one message as done."""
        self._turn()
        self._in_window += 1

    def _turn(self) -> None:
        """Begin a new window where the last one is over."""
        passed = int((self._monotonic() - self._window_since) / _WINDOW_S)
        if passed:
            self._in_window_before = self._in_window if passed == 1 else 0
            self._in_window = 0
            self._window_since += passed * _WINDOW_S
