"""Room for messages: taken before a receive, so that nothing is fetched that cannot be held."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from stacworker.consume.sqs import BATCH, MAX_BODY_BYTES


class Slots:
    """Counts messages and bytes in hand against their limits.

    A receive reserves the largest size for each message it may bring; `settle` then corrects the
    reservation to what came. So memory is bounded before a message arrives. A limit on bytes below the
    size of one message still lets one message through at a time. `ahead` says, of so many messages in hand, how
    many more may be.
    """

    def __init__(self, *, max_messages: int, max_bytes: int, ahead: Callable[[int], int] | None = None) -> None:
        self._max_messages = max_messages
        self._ahead = ahead
        self._max_bytes = max_bytes
        self._messages = 0
        self._bytes = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        """How many messages a receive could ask for now, 10 at most."""
        if self._ahead is None:
            return self._room
        return max(0, min(self._room, self._ahead(self._messages)))

    @property
    def _room(self) -> int:
        if not self._messages:
            room = max(1, self._max_bytes // MAX_BODY_BYTES)
        else:
            room = (self._max_bytes - self._bytes) // MAX_BODY_BYTES
        return max(0, min(BATCH, self._max_messages - self._messages, room))

    async def take(self) -> int:
        """Wait for room, reserve it and return for how many messages (1 to 10)."""
        while not (count := self.free):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if not waiter.done():
                    waiter.cancel()
        self._messages += count
        self._bytes += count * MAX_BODY_BYTES
        return count

    def settle(self, reserved: int, sizes_bytes: list[int]) -> None:
        """Turn the reservation of a receive into the messages that it brought."""
        self._messages += len(sizes_bytes) - reserved
        self._bytes += sum(sizes_bytes) - reserved * MAX_BODY_BYTES
        self.wake()

    def give_back(self, size_bytes: int) -> None:
        """Free the room of one message."""
        self._messages -= 1
        self._bytes -= size_bytes
        self.wake()

    def wake(self) -> None:
        """Let who waits for room look again: there may be some."""
        if self.free:
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    return
