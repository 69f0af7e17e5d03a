"""An SQS queue in memory, with the semantics the engine relies on."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stacworker.api import Message
from stacworker.consume.sqs import Failure, Letter, QueueInfo
from stacworker.errors import StacworkerError
from stacworker.inflight import InFlight


@dataclass(slots=True, eq=False)
class Stored:
    """A message as the queue keeps it. Times are monotonic seconds."""

    id: str
    body: str
    attributes: Mapping[str, Mapping[str, Any]]
    group_id: str | None
    sent_at: float
    visible_at: float
    receives: int = 0
    handle: str = ""
    handles: set[str] = field(default_factory=set)


class FakeQueue:
    """Stands in for `stacworker.consume.sqs.SqsQueue`.

    Messages are delivered again when their visibility runs out; a stale receipt handle is refused when
    it is used to delete or extend; a FIFO group gives nothing while a message of it is out.
    `faults` is asked before every call with the operation's name and may return an error to raise. A receive that
    waits looks every `look_every_s` whether a message has become visible.
    `deleted`, `calls` and `stored` tell a test what happened.
    """

    def __init__(
        self,
        name: str = "queue",
        *,
        fifo: bool = False,
        visibility_timeout_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        faults: Callable[[str], StacworkerError | None] = lambda _: None,
        look_every_s: float = 0.05,
    ) -> None:
        self.name = name
        self.url = f"https://sqs.test/{name}"
        self.fifo = fifo
        self.visibility_timeout_s = visibility_timeout_s
        self.stored: dict[str, Stored] = {}
        self.deleted: list[str] = []
        self.calls: list[str] = []
        self.faults = faults
        self._look_every_s = look_every_s
        self._monotonic = monotonic
        self._now = now
        self._ids = itertools.count(1)
        self._arrived = asyncio.Event()

    def put(self, *bodies: str, group_id: str | None = None) -> list[str]:
        """Send messages; return their ids."""
        ids = []
        for body in bodies:
            id_ = f"m{next(self._ids)}"
            self.stored[id_] = Stored(id_, body, {}, group_id, self._now(), self._monotonic())
            ids.append(id_)
        self._arrived.set()
        return ids

    def _call(self, operation: str) -> None:
        self.calls.append(operation)
        error = self.faults(operation)
        if error is not None:
            raise error

    async def describe(self) -> QueueInfo:
        """Return what `SqsQueue.describe` would."""
        self._call("describe")
        return QueueInfo(
            f"arn:aws:sqs:us-east-1:0:{self.name}", self.fifo, round(self.visibility_timeout_s), None, None
        )

    async def depth(self) -> dict[str, int]:
        """Return the number of messages by state."""
        self._call("depth")
        now = self._monotonic()
        visible = sum(stored.visible_at <= now for stored in self.stored.values())
        return {"visible": visible, "in_flight": len(self.stored) - visible, "delayed": 0}

    async def receive(
        self, max_messages: int, *, wait_s: int, visibility_timeout_s: float, in_flight: InFlight
    ) -> list[Message]:
        """Return up to `max_messages` visible messages, waiting up to `wait_s` for the first."""
        self._call("receive")
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
        messages = []
        for stored in found:
            stored.receives += 1
            stored.visible_at = self._monotonic() + visibility_timeout_s
            stored.handle = f"{stored.id}#{stored.receives}"
            messages.append(
                Message(
                    id=stored.id,
                    body=stored.body,
                    receipt_handle=stored.handle,
                    receive_count=stored.receives,
                    sent_at=stored.sent_at,
                    attributes=stored.attributes,
                    group_id=stored.group_id,
                    in_flight=in_flight,
                )
            )
        return messages

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

    async def delete(self, handles: Mapping[str, str]) -> dict[str, Failure]:
        """Delete messages; return the refused ones."""
        self._call("delete")
        failed = {id_: self._stale(id_, handle) for id_, handle in handles.items()}
        for id_, failure in failed.items():
            if failure is None:
                del self.stored[id_]
                self.deleted.append(id_)
        return {id_: failure for id_, failure in failed.items() if failure is not None}

    async def change_visibility(self, entries: Mapping[str, tuple[str, float]]) -> dict[str, Failure]:
        """Change when messages are visible; return the refused ones."""
        self._call("change_visibility")
        failed = {}
        for id_, (handle, seconds) in entries.items():
            failure = self._stale(id_, handle)
            if failure is None:
                self.stored[id_].visible_at = self._monotonic() + seconds
                self._arrived.set()
            else:
                failed[id_] = failure
        return failed

    def _stale(self, id_: str, handle: str) -> Failure | None:
        stored = self.stored.get(id_)
        if stored is None or stored.handle != handle:
            return Failure("ReceiptHandleIsInvalid", "stale", lost=True)
        return None

    async def send(self, letters: Sequence[Letter]) -> dict[int, Failure]:
        """Store messages."""
        self._call("send")
        for letter in letters:
            (id_,) = self.put(letter.body, group_id=letter.group_id)
            self.stored[id_].attributes = letter.attributes
        return {}
