"""Merge what concurrent puts want to send into requests that hold many texts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence, Sized
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from stacworker.errors import StacworkerError
from stacworker.load.tasks import Tasks, stopped

Outcome = StacworkerError | None
"""None: sent."""

_Text = TypeVar("_Text", bound=Sized)


@dataclass(frozen=True, slots=True, eq=False)
class _Parcel(Generic[_Text]):
    text: _Text
    done: asyncio.Future[Outcome]


class Merger(Generic[_Text]):
    """Sends texts of many callers together; an async context manager, left when no caller waits.

    A text is bytes, or anything else whose length is its size in bytes.
    `send` makes one request and returns an outcome for each text; a `StacworkerError` that it raises is
    the outcome of all. A request goes when it holds `max_texts` or `max_bytes`, or `linger_s` after
    its first text. A text larger than `max_bytes` goes alone.
    """

    def __init__(
        self,
        send: Callable[[Sequence[_Text]], Awaitable[Sequence[Outcome]]],
        *,
        max_texts: int,
        max_bytes: int,
        linger_s: float = 0.02,
    ) -> None:
        self._send = send
        self._max_texts = max_texts
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._tasks = Tasks()
        self._waiting: list[_Parcel[_Text]] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        await self._tasks.__aexit__(kind, error, traceback)

    async def put(self, texts: Sequence[_Text]) -> list[Outcome]:
        """Return when each text is sent or has failed, with the outcomes in order."""
        if self._stopped:
            raise stopped()
        loop = asyncio.get_running_loop()
        parcels = [_Parcel(text, loop.create_future()) for text in texts]
        for parcel in parcels:
            self._add(parcel)
        # Cancelled here, the futures are cancelled too, and what has not gone yet does not go.
        return await asyncio.gather(*(parcel.done for parcel in parcels))

    def _add(self, parcel: _Parcel[_Text]) -> None:
        if self._waiting and self._bytes + len(parcel.text) > self._max_bytes:
            self._flush()
        self._waiting.append(parcel)
        self._bytes += len(parcel.text)
        if len(self._waiting) >= self._max_texts:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger_s, self._flush)

    def _flush(self) -> None:
        parcels = self._take()
        if parcels:
            self._tasks.start(self._run(parcels), at_end=lambda: _stop(parcels))

    def _take(self) -> list[_Parcel[_Text]]:
        if self._timer is not None:
            self._timer.cancel()
        parcels = [parcel for parcel in self._waiting if not parcel.done.done()]
        self._waiting, self._bytes, self._timer = [], 0, None
        return parcels

    async def _run(self, parcels: list[_Parcel[_Text]]) -> None:
        try:
            outcomes = await self._send([parcel.text for parcel in parcels])
        except StacworkerError as error:
            outcomes = [error] * len(parcels)
        except BaseException:
            # Cancelled at the end, or a defect: either way nothing more is sent.
            self._stop()
            raise
        for parcel, outcome in zip(parcels, outcomes, strict=True):
            if not parcel.done.done():
                parcel.done.set_result(outcome)

    def _stop(self) -> None:
        self._stopped = True
        _stop(self._take())


def _stop(parcels: Sequence[_Parcel[_Text]]) -> None:
    """Tell those who still wait."""
    for parcel in parcels:
        if not parcel.done.done():
            parcel.done.set_result(stopped())
