"""The daemon with a time bomb: `python -m tests.chaos.launcher run --config FILE`.

CHAOS_POINT names the point at which the process kills itself with SIGKILL, CHAOS_PASS the how manyth time it
comes by there. The points are woven around the daemon's own calls from outside; the daemon knows nothing of
them. CHAOS_CLOCK is a list of seconds by which the wall clock is wrong, one after the other, a second each.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

POINTS = (
    "after_receive",
    "during_generation",
    "before_copy",
    "between_copy_and_commit",
    "after_commit",
    "before_delete",
    "after_delete",
    "after_dead_letter",
    "before_release",
    "during_drain",
)
"""Where a worker can be killed."""
_PR_SET_PDEATHSIG = 1


class Bomb:
    """Goes off at the n-th pass of one point."""

    def __init__(self, point: str, passes: int) -> None:
        self._point = point
        self._left = passes

    def passes(self, point: str) -> None:
        """Say that the daemon is at a point."""
        if point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, point: str, owner: Any, name: str) -> None:
        """Let the bomb see every call of a coroutine function before it begins."""
        self._weave(owner, name, lambda: self.passes(point), lambda _: None)

    def after(self, point: str, owner: Any, name: str, *, empty_too: bool = True) -> None:
        """Let the bomb see every result of a coroutine function."""
        self._weave(owner, name, lambda: None, lambda result: self.passes(point) if result or empty_too else None)

    @staticmethod
    def _weave(owner: Any, name: str, begin: Callable[[], None], end: Callable[[Any], None]) -> None:
        original: Callable[..., Awaitable[Any]] = getattr(owner, name)

        @functools.wraps(original)
        async def woven(*args: Any, **kwargs: Any) -> Any:
            begin()
            result = await original(*args, **kwargs)
            end(result)
            return result

        setattr(owner, name, woven)


def arm(bomb: Bomb) -> None:
    """Weave all points around the daemon's calls."""
    from stacworker.consume.deadletter import DeadLetters  # noqa: PLC0415 - the clock may have to be wrong first
    from stacworker.consume.sqs import SqsQueue  # noqa: PLC0415
    from stacworker.generate.process import Child  # noqa: PLC0415
    from stacworker.lifecycle import Lifecycle  # noqa: PLC0415
    from stacworker.load.pgstac import catalogue  # noqa: PLC0415

    bomb.after("after_receive", SqsQueue, "receive", empty_too=False)
    bomb.before("during_generation", Child, "_receive_items")
    bomb.before("before_copy", catalogue, "write_batch")
    bomb.after("between_copy_and_commit", catalogue, "write_batch")
    bomb.after("after_commit", catalogue.Catalogue, "load")
    bomb.before("before_delete", SqsQueue, "delete")
    bomb.after("after_delete", SqsQueue, "delete")
    bomb.after("after_dead_letter", DeadLetters, "send")
    bomb.before("before_release", SqsQueue, "change_visibility")
    stop = Lifecycle.stop

    def stop_and_pass(self: Lifecycle, reason: str) -> None:
        import asyncio  # noqa: PLC0415

        stop(self, reason)
        asyncio.get_running_loop().call_later(0.05, bomb.passes, "during_drain")

    Lifecycle.stop = stop_and_pass  # type: ignore[method-assign]


def misset_clock(offsets_s: list[float]) -> None:
    """Let the wall clock jump; what measures durations is not affected, as on a machine whose clock is set."""
    right = time.time
    started = time.monotonic()

    def wrong() -> float:
        return right() + offsets_s[int(time.monotonic() - started) % len(offsets_s)]

    time.time = wrong


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Arm what the environment asks for, and be the daemon."""
    end_with_parent()
    if offsets := os.environ.get("CHAOS_CLOCK"):
        misset_clock([float(each) for each in offsets.split(",")])
    if point := os.environ.get("CHAOS_POINT"):
        arm(Bomb(point, int(os.environ.get("CHAOS_PASS", "1"))))
    from stacworker.cli import main as daemon  # noqa: PLC0415

    raise SystemExit(daemon())


if __name__ == "__main__":
    main()
