"""What the engine needs of a queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from stacworker.api import Message
from stacworker.consume.sqs import Failure, QueueInfo
from stacworker.errors import Permanent
from stacworker.inflight import InFlight


class Queue(Protocol):
    """A queue with leases: SQS, or one in memory. `consume/sqs.py` says what the calls mean and raise."""

    name: str

    async def describe(self) -> QueueInfo:
        """Return what the queue says of itself."""

    async def depth(self) -> dict[str, int]:
        """Return the number of messages by state."""

    async def receive(
        self, max_messages: int, *, wait_s: int, visibility_timeout_s: float, in_flight: InFlight
    ) -> list[Message]:
        """Return up to `max_messages`, each leased; wait up to `wait_s` for the first."""

    async def delete(self, handles: Mapping[str, str]) -> dict[str, Failure]:
        """Delete messages by receipt handle; return those refused."""

    async def change_visibility(self, entries: Mapping[str, tuple[str, float]]) -> dict[str, Failure]:
        """Change how long messages stay ours; return those refused."""


class DeadLetterBox(Protocol):
    """Where messages go that can never succeed."""

    async def send(self, message: Message, error: Permanent) -> None:
        """Return when the message is there with its reason; raises Transient or Unavailable else."""
