"""From the error a message ended with to what is done about it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from traceback import format_exception_only

from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable


class Outcome(StrEnum):
    """How a message ends; exactly one each."""

    ACKED = "acked"
    RETRIED = "retried"
    DEAD_LETTERED = "dead_lettered"
    RELEASED = "released"


def decide(error: StacworkerError | None, *, receive_count: int, max_receive_count: int) -> Outcome:
    """Return the outcome of a message whose work ended with `error` (None: well).

    A message that failed in passing is dead-lettered when this was its last try, so that the reason goes
    with it; SQS itself would move it without one at the next receive. An outage never does that.
    """
    if error is None:
        return Outcome.ACKED
    if isinstance(error, Unavailable):
        return Outcome.RELEASED
    if isinstance(error, Permanent) or receive_count >= max_receive_count:
        return Outcome.DEAD_LETTERED
    return Outcome.RETRIED


def given_up(error: StacworkerError, receive_count: int) -> Permanent:
    """Return the reason to dead-letter a message that was tried too often."""
    if isinstance(error, Permanent):
        return error
    return Permanent(f"gave up after {receive_count} receives: {error.reason}", error_class=error.error_class)


def unexpected(error: BaseException) -> Transient:
    """Return what an error that nobody foresaw means: try again, and name it, even if it cannot be printed."""
    return Transient("".join(format_exception_only(error)).strip(), error_class="unexpected")


def backoff_s(receive_count: int, *, base_s: float, max_s: float, random: Callable[[], float]) -> float:
    """Return full-jitter exponential backoff, in seconds, for a message received `receive_count` times.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return float(min(max_s, base_s * 2 ** min(receive_count - 1, 30)) * random())
