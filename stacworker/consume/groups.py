"""FIFO queues: one message of a group at a time, in order; a failure holds back the rest of its group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Turn:
    """A message's turn in its group.

    `failed_s`: it failed, and comes again after so many seconds. `held_back_s`: a message before it failed so after
    this one had come; it has to stay away as long, though SQS itself would not deliver it earlier.
    """

    held_back_s: float | None = None
    failed_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    free: asyncio.Future[None]
    turn: Turn


class Groups:
    """The message groups that have messages in hand, and who waits there."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Place]] = {}

    @asynccontextmanager
    async def turn(self, group_id: str) -> AsyncIterator[Turn]:
        """Wait for all earlier messages of the group; set `failed_s` on the turn to hold back later ones.

        Messages take their places in the order in which this is entered. Only those are held back that
        wait when one fails: what comes after that was delivered anew, the failed message first.
        """
        turn = Turn()
        if (waiting := self._waiting.get(group_id)) is None:
            waiting = self._waiting[group_id] = deque()
        else:
            place = _Place(asyncio.get_running_loop().create_future(), turn)
            waiting.append(place)
            try:
                await place.free
            except asyncio.CancelledError:
                if not place.free.cancelled():
                    self._next(group_id)
                raise
        try:
            yield turn
        except BaseException:
            turn.failed_s = 0.0
            raise
        finally:
            if turn.failed_s is not None and turn.held_back_s is None:
                for place in waiting:
                    place.turn.held_back_s = turn.failed_s
            self._next(group_id)

    def _next(self, group_id: str) -> None:
        waiting = self._waiting[group_id]
        while waiting:
            place = waiting.popleft()
            if not place.free.done():
                place.free.set_result(None)
                return
        del self._waiting[group_id]
