"""Read a blocking iterator ahead, in a thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Iterable
from typing import Generic, TypeVar

_T = TypeVar("_T")

READ_AHEAD = 100


async def read_ahead(items: Iterable[_T]) -> AsyncGenerator[_T | None, None]:
    """Yield the items as they come, and None whenever no further one is there at the moment.

    An error of the iterator is raised here. The thread is a daemon, since it may wait on a terminal or a
    pipe for ever while we are told to stop.
    """
    reader = _Reader(items)
    threading.Thread(target=reader.run, daemon=True, name="stacworker-read").start()
    try:
        while (found := await reader.queue.get()) is not None:
            if isinstance(found, _Broken):
                raise found.error
            yield found.item
            if reader.queue.empty():
                yield None
    finally:
        reader.close()


class _Item(Generic[_T]):
    def __init__(self, item: _T) -> None:
        self.item = item


class _Broken:
    def __init__(self, error: Exception) -> None:
        self.error = error


class _Reader(Generic[_T]):
    """The thread's side; None in the queue is the end."""

    def __init__(self, items: Iterable[_T]) -> None:
        self.queue: asyncio.Queue[_Item[_T] | _Broken | None] = asyncio.Queue(READ_AHEAD)
        self._items = items
        self._loop = asyncio.get_running_loop()
        self._closed = threading.Event()

    def run(self) -> None:
        try:
            for item in self._items:
                if self._closed.is_set():
                    return
                self._put(_Item(item))
            self._put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the items are wanted
            self._put(_Broken(error))

    def _put(self, found: _Item[_T] | _Broken | None) -> None:
        if not self._closed.is_set():
            putting = asyncio.run_coroutine_threadsafe(self.queue.put(found), self._loop)
            try:
                putting.result()
            except concurrent.futures.CancelledError:
                self._closed.set()  # the loop ends, and who asked with it

    def close(self) -> None:
        self._closed.set()
        while not self.queue.empty():  # lets a put that waits for room return
            self.queue.get_nowait()
