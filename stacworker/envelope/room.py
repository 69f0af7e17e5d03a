"""Room for what is fetched and parsed: a message of a few bytes may name objects of many megabytes.

The engine bounds the bytes of the messages in hand, and cannot know what they name, nor what becomes of them:
JSON takes several times its size once it is parsed. So a message fetches nothing while the objects of others take
up all the room, and parses nothing while what others have parsed does; it counts as waiting meanwhile, which lets
their batches go.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from stacworker.inflight import InFlight

PARSED_FACTOR = 8
"""Bytes of memory that a byte of JSON takes once it is parsed, about (measured with items)."""
SMALL_BYTES = 16_384
"""Less than this is parsed without asking for room: the engine's limit on messages in hand bounds it."""


class Room:
    """Counts the bytes that the messages of one queue hold: of objects, and of parsed JSON.

    Nobody knows the size of an object before it is fetched: a message that is let in may fetch all that it
    names. At most `max_readers` do so at a time, so no more than their objects come on top of `max_bytes`. A
    message that has begun to parse goes on with all that it holds; one that is larger than the room is let in alone.
    """

    def __init__(self, *, max_bytes: int, max_readers: int, max_parsed_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_parsed_bytes = max_parsed_bytes
        self._parsed_bytes = 0
        self._turn = asyncio.Lock()
        self._smaller = asyncio.Event()
        self._held_bytes = 0
        self._readers = asyncio.Semaphore(max_readers)
        self._free = asyncio.Event()
        self._free.set()

    @property
    def crowded(self) -> bool:
        """True when whoever wants to fetch has to wait."""
        return self._readers.locked() or not self._free.is_set()

    async def enter(self) -> None:
        """Wait until one more message may fetch; `leave` when it has what it wants."""
        await self._readers.acquire()
        try:
            await self._free.wait()
        except BaseException:
            self._readers.release()
            raise

    def leave(self) -> None:
        """Let the next message fetch."""
        self._readers.release()

    def fits(self, parsed_bytes: int) -> bool:
        """Say whether so much may be parsed now, without waiting."""
        return not self._turn.locked() and self._has_room(parsed_bytes)

    def _has_room(self, parsed_bytes: int) -> bool:
        return not self._parsed_bytes or self._parsed_bytes + parsed_bytes <= self._max_parsed_bytes

    async def wait_for(self, parsed_bytes: int) -> None:
        """Wait for one's turn, and until so much may be parsed; it is counted then."""
        async with self._turn:
            while not self._has_room(parsed_bytes):
                self._smaller.clear()
                await self._smaller.wait()
            self._parsed_bytes += parsed_bytes

    def add_parsed(self, parsed_bytes: int) -> None:
        """Count what a message has parsed; give it back with a negative size."""
        self._parsed_bytes += parsed_bytes
        if parsed_bytes < 0:
            self._smaller.set()

    def add(self, size_bytes: int) -> None:
        """Count what a message holds; give it back with a negative size."""
        self._held_bytes += size_bytes
        if self._held_bytes < self._max_bytes:
            self._free.set()
        else:
            self._free.clear()


class Share:
    """What one message holds: counted until the context is left."""

    def __init__(self, room: Room, in_flight: InFlight) -> None:
        self._room = room
        self._in_flight = in_flight
        self._fetching = False
        self._bytes = 0
        self._parsed_bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.fetched()
        self._room.add(-self._bytes)
        self._room.add_parsed(-self._parsed_bytes)

    async def may_parse(self, size_bytes: int) -> None:
        """Wait for room to parse so many bytes of JSON.

        Whoever has parsed something already goes on, here and in `may_fetch`: others may be waiting for it.
        """
        if size_bytes < SMALL_BYTES and not self._fetching:
            return
        parsed_bytes = size_bytes * PARSED_FACTOR
        if self._parsed_bytes or self._room.fits(parsed_bytes):
            self._room.add_parsed(parsed_bytes)
        else:
            with self._in_flight.waiting(_nothing):
                await self._room.wait_for(parsed_bytes)
        self._parsed_bytes += parsed_bytes

    async def may_fetch(self) -> None:
        """Wait for room, once for all that the message names."""
        if self._fetching or self._parsed_bytes:
            return
        if self._room.crowded:
            with self._in_flight.waiting(_nothing):
                await self._room.enter()
        else:
            await self._room.enter()
        self._fetching = True

    def add(self, data: bytes) -> bytes:
        """Count what was fetched, and return it."""
        self._bytes += len(data)
        self._room.add(len(data))
        return data

    def fetched(self) -> None:
        """Say that nothing more is fetched for this message."""
        if self._fetching:
            self._fetching = False
            self._room.leave()


def _nothing() -> None:
    """Flush nothing: what waits for room is in no batch."""
