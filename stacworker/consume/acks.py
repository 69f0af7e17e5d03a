"""Deletes and visibility changes, merged into batches of 10.

A message is deleted only after its outcome is durable, and its lease is kept until SQS has answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from stacworker.consume.lease import Lease
from stacworker.consume.queue import Queue
from stacworker.consume.sqs import BATCH, Failure
from stacworker.errors import Permanent, Unavailable
from stacworker.metrics import Metrics

log = structlog.get_logger()

_ATTEMPTS = 4
_RETRY_S = 0.2

_Batch = dict[Lease, float]


class Acks:
    """Gives messages back to their queue: deleted, or visible again at a given time."""

    def __init__(self, queue: Queue, *, metrics: Metrics, linger_s: float = 0.02, concurrency: int = 8) -> None:
        self._queue = queue
        self._failures = metrics.delete_failures.labels(queue.name)
        self._deletes = _Merger(self._delete, linger_s, concurrency, f"deletes:{queue.name}")
        self._delays = _Merger(self._delay, linger_s, concurrency, f"delays:{queue.name}")

    async def delete(self, lease: Lease) -> None:
        """Return when SQS has answered for this message.

        A refused or failed delete is counted and logged, not raised: the outcome is durable, and at worst
        the message comes again.
        """
        await self._deletes.add(lease, 0.0)

    async def make_visible(self, lease: Lease, after_s: float) -> None:
        """Let the message be received again after `after_s` seconds; when that fails, its lease runs out."""
        await self._delays.add(lease, after_s)

    async def close(self) -> None:
        """Send what is pending and wait for all calls under way."""
        await asyncio.gather(self._deletes.close(), self._delays.close())

    async def _delete(self, batch: _Batch) -> None:
        """Delete, trying what failed in passing again and dropping what is no longer ours."""
        left = {lease.message.id: lease for lease in batch}
        failed: dict[str, Failure] = {}
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_RETRY_S * 2**attempt)
            try:
                failed = await self._queue.delete({id_: lease.handle for id_, lease in left.items()})
            except (Unavailable, Permanent) as error:
                failed = dict.fromkeys(left, Failure("Call", str(error), lost=isinstance(error, Permanent)))
            left = {id_: lease for id_, lease in left.items() if id_ in failed}
            for id_, failure in failed.items():
                if failure.lost or attempt == _ATTEMPTS - 1:
                    del left[id_]
                    self._failures.inc()
                    log.warning(
                        "message.delete_failed",
                        queue=self._queue.name,
                        message_id=id_,
                        code=failure.code,
                        error=failure.message,
                    )
            if not left:
                return

    async def _delay(self, batch: _Batch) -> None:
        """Change visibility, once more for what failed; after that the lease runs out by itself."""
        left = {lease.message.id: (lease.handle, after_s) for lease, after_s in batch.items()}
        why = ""
        for _ in range(2):
            try:
                failed = await self._queue.change_visibility(left)
            except (Unavailable, Permanent) as error:
                failed = dict.fromkeys(left, Failure("Call", str(error), lost=False))
            left = {id_: entry for id_, entry in left.items() if id_ in failed}
            if not left:
                return
            why = next(f"{failure.code}: {failure.message}" for failure in failed.values())
        log.warning("message.delay_failed", queue=self._queue.name, messages=list(left), error=why)


class _Merger:
    """Collects single wishes; a batch goes at 10, or `linger_s` after its first."""

    def __init__(self, call: Callable[[_Batch], Awaitable[None]], linger_s: float, concurrency: int, name: str) -> None:
        self._call = call
        self._linger_s = linger_s
        self._name = name
        self._slots = asyncio.Semaphore(concurrency)
        self._pending: _Batch = {}
        self._done: dict[Lease, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, lease: Lease, argument: float) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._pending[lease] = argument
        self._done[lease] = done
        if len(self._pending) >= BATCH:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._linger_s, self._flush)
        await done

    async def close(self) -> None:
        self._flush()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._pending = self._pending, {}
        waiting, self._done = self._done, {}
        if batch:
            task = asyncio.create_task(self._send(batch, waiting), name=self._name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, batch: _Batch, waiting: dict[Lease, asyncio.Future[None]]) -> None:
        error: BaseException | None = None
        try:
            async with self._slots:
                await self._call(batch)
        except Exception as broken:  # noqa: BLE001 - a defect here must reach the messages' tasks and end the process
            error = broken
        for done in waiting.values():
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)
