"""An SQS queue in memory, which tells a test what happened and fails when it is asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from stacworker.api import Message
from stacworker.consume.memory import MemoryQueue, Stored
from stacworker.consume.sqs import Failure, Letter, QueueInfo
from stacworker.errors import StacworkerError
from stacworker.inflight import InFlight

__all__ = ["FakeQueue", "Stored"]


class FakeQueue(MemoryQueue):
    """Stands in for `stacworker.consume.sqs.SqsQueue`.

    `faults` is asked before every call with the operation's name and may return an error to raise.
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
        super().__init__(
            name,
            fifo=fifo,
            visibility_timeout_s=visibility_timeout_s,
            monotonic=monotonic,
            now=now,
            look_every_s=look_every_s,
        )
        self.url = f"https://sqs.test/{name}"
        self.deleted: list[str] = []
        self.calls: list[str] = []
        self.faults = faults

    def _call(self, operation: str) -> None:
        self.calls.append(operation)
        error = self.faults(operation)
        if error is not None:
            raise error

    async def describe(self) -> QueueInfo:
        """Return what `SqsQueue.describe` would."""
        self._call("describe")
        return await super().describe()

    async def depth(self) -> dict[str, int]:
        """Return the number of messages by state."""
        self._call("depth")
        return await super().depth()

    async def receive(
        self, max_messages: int, *, wait_s: int, visibility_timeout_s: float, in_flight: InFlight
    ) -> list[Message]:
        """Return up to `max_messages` visible messages, waiting up to `wait_s` for the first."""
        self._call("receive")
        return await super().receive(
            max_messages, wait_s=wait_s, visibility_timeout_s=visibility_timeout_s, in_flight=in_flight
        )

    async def delete(self, handles: Mapping[str, str]) -> dict[str, Failure]:
        """Delete messages; return the refused ones."""
        self._call("delete")
        failed = await super().delete(handles)
        self.deleted += [id_ for id_ in handles if id_ not in failed]
        return failed

    async def change_visibility(self, entries: Mapping[str, tuple[str, float]]) -> dict[str, Failure]:
        """Change when messages are visible; return the refused ones."""
        self._call("change_visibility")
        return await super().change_visibility(entries)

    async def send(self, letters: Sequence[Letter]) -> dict[int, Failure]:
        """Store messages."""
        self._call("send")
        for letter in letters:
            (id_,) = self.put(letter.body, group_id=letter.group_id)
            self.stored[id_].attributes = letter.attributes
        return {}
