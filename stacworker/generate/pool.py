"""The warm children of one generator: one job each at a time, and never the fate of one for another.

`concurrent.futures.ProcessPoolExecutor` is not enough: one crash breaks it for all, and it cannot kill
a job that takes too long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from stacworker.errors import ConfigError, Transient, Unavailable
from stacworker.generate.process import Child
from stacworker.generate.recipe import Recipe
from stacworker.generate.workspace import Workspace, remove_abandoned
from stacworker.metrics import Metrics

_CLOSE_S = 10.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0

_log = structlog.get_logger(__name__)


class Pool:
    """Up to `limits.processes` children, started on demand and kept until they were idle for `limits.idle_timeout_s`.

    Entering starts one child, so that a target which cannot be loaded stops the daemon's start
    (ConfigError). Leaving kills all children, busy or not. A child that is lost, cancelled or used up is
    replaced when the next job needs it; after a failed start there is a pause, doubled each time.
    """

    def __init__(self, recipe: Recipe, metrics: Metrics) -> None:
        self._recipe = recipe
        self._metrics = metrics
        self._workspace = Workspace()
        self._slots = asyncio.Semaphore(recipe.limits.processes)
        self._idle: dict[Child, float] = {}  # and the loop's time since when; longest idle first
        self._idle_timer: asyncio.TimerHandle | None = None
        self._children: set[Child] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False
        self._patient: set[asyncio.Timeout] = set()
        self._draining = False
        self._why_not = ""
        self._pause_s = 0.0
        self._start_again_at = 0.0

    async def __aenter__(self) -> Self:
        try:
            await self._open()
            await self.about()
        except Unavailable as error:
            await self.close()
            raise ConfigError(error.reason) from error
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def about(self) -> dict[str, Any]:
        """Return what the target says about itself, from a child that is ready; starts one if need be."""
        child = await self._take()
        self._give_back(child)
        return child.about

    async def ping(self) -> None:
        """Raise Unavailable when no child is there and none can be started.

        None is there when all were idle for long, too: one is started only to see whether it can be again.
        """
        busy = len(self._children) - len(self._idle) - len(self._retiring)
        if self._pause_s and not busy and not any(child.usable for child in self._idle):
            await self.about()

    async def run(self, request: Mapping[str, Any], *, origin: str) -> list[dict[str, Any]]:
        """Return the items of one request, once a child is free.

        Raises what `Child.run` raises, and Unavailable when no child can be started.
        """
        child = await self._take()
        started = time.perf_counter()
        try:
            return await child.run(request, origin=origin)
        finally:
            duration = self._metrics.generation_duration.labels(self._recipe.name)
            duration.observe(time.perf_counter() - started)
            self._give_back(child)

    def new_folder(self) -> Path:
        """Make an empty folder for one job, beside those of the children; who asks for it removes it.

        What a crash leaves of it goes the way of the children's folders.
        """
        return Path(self._workspace.new())

    def stop_starting(self) -> None:
        """Start no further job: those that wait for a child fail at once, those that run go on."""
        self._draining = True
        now = asyncio.get_running_loop().time()
        for patience in self._patient:
            patience.reschedule(now)

    async def close(self) -> None:
        """Kill all children and wait for them to be gone; jobs still running fail as Transient."""
        if self._closed:
            return
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for child in self._children:
            child.kill()
        for child in self._idle:
            self._retire(child)
        self._idle.clear()
        try:
            async with asyncio.timeout(_CLOSE_S):
                for _ in range(self._recipe.limits.processes):
                    await self._slots.acquire()  # who holds one gives it back, its child being dead
                if self._retiring:
                    await asyncio.wait(self._retiring)
        except TimeoutError:
            _log.error("generator.close_timed_out", generator=self._recipe.name)
        finally:
            await asyncio.to_thread(self._workspace.close)

    async def _open(self) -> None:
        try:
            await asyncio.to_thread(remove_abandoned)
            self._workspace.open()
        except OSError as error:
            where = f"generators.{self._recipe.name}"
            raise ConfigError(f"{where}: no temporary folder can be made (TMPDIR): {error}") from error

    async def _take(self) -> Child:
        """Return a child that is ready, together with a slot."""
        self._check_open()
        await self._slot()
        try:
            self._check_open()
            while self._idle:
                child, _ = self._idle.popitem()
                if child.usable:
                    return child
                self._retire(child)
            return await self._started()
        except BaseException:
            self._slots.release()
            raise

    async def _slot(self) -> None:
        """Wait for a slot; raises Unavailable when no further job is to be started."""
        if not self._draining:
            try:
                async with asyncio.timeout(None) as patience:
                    self._patient.add(patience)
                    await self._slots.acquire()
            except TimeoutError:
                pass
            else:
                return
            finally:
                self._patient.discard(patience)
        raise Unavailable(
            f"generator {self._recipe.name!r} starts no more jobs: shutting down",
            dependency="generator",
            error_class="draining",
        )

    def _check_open(self) -> None:
        if self._closed:
            raise Transient(f"generator {self._recipe.name!r} is shut down", error_class="generator_closed")

    def _give_back(self, child: Child) -> None:
        if child.usable and not self._closed:
            self._idle[child] = asyncio.get_running_loop().time()
            self._watch_idle()
        else:
            self._retire(child)
        self._slots.release()

    def _watch_idle(self) -> None:
        """See to it that the child that is idle for longest is looked at in time; one timer does for all."""
        if self._idle_timer is None and self._idle:
            due = next(iter(self._idle.values())) + self._recipe.limits.idle_timeout_s
            self._idle_timer = asyncio.get_running_loop().call_at(due, self._retire_idle)

    def _retire_idle(self) -> None:
        """Retire the children that were idle for too long."""
        self._idle_timer = None
        since = asyncio.get_running_loop().time() - self._recipe.limits.idle_timeout_s
        for child in [child for child, when in self._idle.items() if when <= since]:
            del self._idle[child]
            self._retire(child)
        self._watch_idle()

    async def _started(self) -> Child:
        if time.monotonic() < self._start_again_at:
            raise Unavailable(self._why_not, dependency="generator", error_class="generator_start")
        child = Child(self._recipe, self._workspace)
        self._children.add(child)
        try:
            await child.start()
        except BaseException as error:
            self._retire(child)
            if isinstance(error, Unavailable):
                self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                self._start_again_at = time.monotonic() + self._pause_s
                self._why_not = error.reason
            raise
        self._pause_s = 0.0
        return child

    def _retire(self, child: Child) -> None:
        """Kill a child now, and see to the rest on the side: whoever waits for items need not wait for it."""
        child.kill()
        task = asyncio.create_task(child.close())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        task.add_done_callback(lambda _: self._children.discard(child))
