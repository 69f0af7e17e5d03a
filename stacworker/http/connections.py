"""One HTTP connection, held on a short rein: a client that is slow, idle or endless costs nobody else an answer."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 200
"""When one more comes, the one that has waited longest goes."""
MAX_HEAD_BYTES = 16_384
"""Request line and headers."""
REQUEST_TIMEOUT_S = 10.0
"""From the connection, or the last answer, until the next request is answered and its answer is taken."""


class Connection(H11Protocol):
    """uvicorn's connection, with a deadline. uvicorn itself only times out what is idle after an answer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        """Begin to wait for a request; make room for it where there is none."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MAX_CONNECTIONS:
            min(self.connections, key=_waits_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        # What the client has not taken by then is lost on it: close() would wait for it for ever.
        self._deadline = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.abort)


def _waits_since(connection: Any) -> float:
    deadline: asyncio.TimerHandle = connection._deadline  # noqa: SLF001 - ours
    return deadline.when()
