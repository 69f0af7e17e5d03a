"""Whose turn it is: one job at a time for a destination, and not too many with files on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from stacworker.errors import Unavailable


@dataclass(slots=True)
class _Place:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Turns:
    """Gives turns: one at a time for each key, `at_once` over all keys, none any more after `stop`."""

    def __init__(self, generator: str, at_once: int) -> None:
        self._generator = generator
        self._slots = asyncio.Semaphore(at_once)
        self._places: dict[str, _Place] = {}
        self._patient: set[asyncio.Timeout] = set()
        self._stopped = False

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it. Raises Unavailable when no more are given."""
        place = self._places.setdefault(key, _Place())
        place.users += 1
        try:
            await self._patiently(place.lock.acquire)
            try:
                await self._patiently(self._slots.acquire)
                try:
                    yield
                finally:
                    self._slots.release()
            finally:
                place.lock.release()
        finally:
            place.users -= 1
            if not place.users:
                del self._places[key]

    def stop(self) -> None:
        """Give no further turn; those who wait for one fail at once, those who have one keep it."""
        self._stopped = True
        now = asyncio.get_running_loop().time()
        for patience in self._patient:
            patience.reschedule(now)

    async def _patiently(self, get: Callable[[], Awaitable[object]]) -> None:
        if not self._stopped:
            try:
                async with asyncio.timeout(None) as patience:
                    self._patient.add(patience)
                    await get()
            except TimeoutError:
                pass
            else:
                return
            finally:
                self._patient.discard(patience)
        raise Unavailable(
            f"generator {self._generator!r} starts no more jobs: shutting down",
            dependency="generator",
            error_class="draining",
        )
