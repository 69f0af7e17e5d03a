"""The tasks of one part of loading: they end with it, and it fails when one of them does."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from stacworker.errors import Transient


class Tasks:
    """An async context manager that owns tasks.

    Leaving it cancels what still runs and waits for the end of it: by then nobody waits for the
    results. A task that raises cancels whoever entered (crash-only), and leaving raises the error in
    an `ExceptionGroup`, as `asyncio.TaskGroup` does. An error of the body itself passes unchanged.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._context = contextvars.Context()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        # A task serves many messages; without this its logs would name the one that happened to start it.
        self._context = contextvars.copy_context()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        # The group is not told the body's error: it would wrap it in an ExceptionGroup.
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[Any, Any, None], *, at_end: Callable[[], None]) -> None:
        """Run `work` in a task of its own, and call `at_end` however it ends.

        A task that is cancelled before its first step runs nothing of `work`, not even its `finally`.
        """
        task = self._group.create_task(work, context=self._context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: at_end())


def stopped() -> Transient:
    """Return the error for whoever still waits when a part ends."""
    return Transient("stacworker stopped before this was done", error_class="stopped")
