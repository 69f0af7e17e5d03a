"""FIFO queues: one message of a group at a time, in order; a failure holds back the rest of its group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Turn:
    """A message's turn in its group. `held_back`: an earlier message of the group is not done."""

    held_back: bool
    failed: bool = False


@dataclass(slots=True)
class _Group:
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    failed: bool = False


class Groups:
    """The message groups that have messages in hand."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    @asynccontextmanager
    async def turn(self, group_id: str) -> AsyncIterator[Turn]:
        """Wait for all earlier messages of the group; set `failed` on the turn to hold back later ones.

        Messages take their places in the order in which this is entered. A group that failed is open
        again once none of its messages is in hand.
        """
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = _Group()
        else:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            group.waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._next(group_id, group)
                raise
        turn = Turn(held_back=group.failed)
        try:
            yield turn
        except BaseException:
            turn.failed = True
            raise
        finally:
            group.failed = group.failed or turn.failed
            self._next(group_id, group)

    def _next(self, group_id: str, group: _Group) -> None:
        while group.waiting:
            place = group.waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self._groups[group_id]
