"""A queue inside this process, with the semantics of SQS that the engine relies on.

Pipelines put what they ask of themselves in one (once, on schedule, from a feed), so that such requests live
under the same limits, retries and drain as any message. It does not outlive the process: what put something
in puts it in again after the next start.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from stacworker.api import Message
from stacworker.consume.sqs import Failure, QueueInfo
from stacworker.errors import Permanent, Refusal, Rejected
from stacworker.inflight import InFlight

_SHOWN_CHARS = 2000

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Stored:
    """A message as the queue keeps it. Times are monotonic seconds, `sent_at` is seconds since the epoch."""

    id: str
    body: str
    attributes: Mapping[str, Mapping[str, Any]]
    group_id: str | None
    sent_at: float
    visible_at: float
    receives: int = 0
    handle: str = ""
    handles: set[str] = field(default_factory=set)


class RefusalLog:
    """Where requests of a queue in memory go that can never succeed: the log. Their source asks for them anew."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def send(self, message: Message, error: Permanent) -> None:
        """Log the request, or its bad parts, with the reason."""
        for refusal in error.refusals if isinstance(error, Rejected) else (Refusal(error),):
            body = message.body if refusal.body is None else refusal.body
            reason = refusal.error.reason
            _log.error("pipeline.request_refused", pipeline=self._name, request=body[:_SHOWN_CHARS], error=reason)


class MemoryQueue:
    """Messages in memory, at most `max_messages` by `offer`.

    They are delivered again when their visibility runs out; a stale receipt handle is refused when it is used to
    delete or extend; a FIFO group gives nothing while a message of it is out. A receive that waits looks every
    `look_every_s` whether a message has become visible.
    """

    def __init__(
        self,
        name: str,
        *,
        fifo: bool = False,
        visibility_timeout_s: float = 30.0,
        max_messages: int = 1000,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        look_every_s: float = 0.5,
    ) -> None:
        self.name = name
        self.url = name
        self.fifo = fifo
        self.visibility_timeout_s = visibility_timeout_s
        self.stored: dict[str, Stored] = {}
        self._max_messages = max_messages
        self._look_every_s = look_every_s
        self._monotonic = monotonic
        self._now = now
        self._ids = itertools.count(1)
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()

    def put(self, *bodies: str, group_id: str | None = None) -> list[str]:
        """Add messages; return their ids."""
        ids = []
        for body in bodies:
            id_ = f"m{next(self._ids)}"
            self.stored[id_] = Stored(id_, body, {}, group_id, self._now(), self._monotonic())
            ids.append(id_)
        self._arrived.set()
        return ids

    async def offer(self, body: str) -> bool:
        """Add a message once there is room for it; False when the same one is there still, not done with."""
        if any(stored.body == body for stored in self.stored.values()):
            return False
        while len(self.stored) >= self._max_messages:
            self._left.clear()
            await self._left.wait()
        self.put(body)
        return True

    async def describe(self) -> QueueInfo:
        """Return what `SqsQueue.describe` would."""
        return QueueInfo(
            f"arn:aws:sqs:us-east-1:0:{self.name}", self.fifo, round(self.visibility_timeout_s), None, None
        )

    async def depth(self) -> dict[str, int]:
        """Return the number of messages by state."""
        now = self._monotonic()
        visible = sum(stored.visible_at <= now for stored in self.stored.values())
        return {"visible": visible, "in_flight": len(self.stored) - visible, "delayed": 0}

    async def receive(
        self, max_messages: int, *, wait_s: int, visibility_timeout_s: float, in_flight: InFlight
    ) -> list[Message]:
        """Return up to `max_messages` visible messages, waiting up to `wait_s` for the first."""
        deadline = self._monotonic() + wait_s
        while not (found := self._visible(max_messages)):
            left_s = deadline - self._monotonic()
            if left_s <= 0:
                return []
            self._arrived.clear()
            try:
                async with asyncio.timeout(min(left_s, self._look_every_s)):
                    await self._arrived.wait()
            except TimeoutError:
                pass
        return [self._given(stored, visibility_timeout_s, in_flight) for stored in found]

    async def delete(self, handles: Mapping[str, str]) -> dict[str, Failure]:
        """Delete messages; return the refused ones."""
        failed = {id_: self._stale(id_, handle) for id_, handle in handles.items()}
        for id_, failure in failed.items():
            if failure is None:
                del self.stored[id_]
        self._left.set()
        return {id_: failure for id_, failure in failed.items() if failure is not None}

    async def change_visibility(self, entries: Mapping[str, tuple[str, float]]) -> dict[str, Failure]:
        """Change when messages are visible; return the refused ones."""
        failed = {}
        for id_, (handle, seconds) in entries.items():
            failure = self._stale(id_, handle)
            if failure is None:
                self.stored[id_].visible_at = self._monotonic() + seconds
                self._arrived.set()
            else:
                failed[id_] = failure
        return failed

    def _given(self, stored: Stored, visibility_timeout_s: float, in_flight: InFlight) -> Message:
        stored.receives += 1
        stored.visible_at = self._monotonic() + visibility_timeout_s
        stored.handle = f"{stored.id}#{stored.receives}"
        return Message(
            id=stored.id,
            body=stored.body,
            receipt_handle=stored.handle,
            receive_count=stored.receives,
            sent_at=stored.sent_at,
            attributes=stored.attributes,
            group_id=stored.group_id,
            in_flight=in_flight,
        )

    def _visible(self, limit: int) -> list[Stored]:
        now = self._monotonic()
        found: list[Stored] = []
        blocked: set[str] = set()
        for stored in self.stored.values():
            if stored.visible_at > now:
                if self.fifo and stored.group_id is not None:
                    blocked.add(stored.group_id)
            elif len(found) < limit and stored.group_id not in blocked:
                found.append(stored)
        return found

    def _stale(self, id_: str, handle: str) -> Failure | None:
        stored = self.stored.get(id_)
        if stored is None or stored.handle != handle:
            return Failure("ReceiptHandleIsInvalid", "stale", lost=True)
        return None
