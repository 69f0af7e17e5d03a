"""Waiting for a collection that other writers keep busy, without spending a message's attempts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from stacworker.load.pgstac import Busy

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")

MAX_PAUSE_S = 2.0


async def until_free(
    collection: str,
    call: Callable[[], Awaitable[_Result]],
    *,
    wanted: Callable[[], bool] = lambda: True,
    pause_s: float = 0.1,
) -> _Result:
    """Return what `call` returns, calling again for as long as it raises `Busy`.

    Between two calls lies a full-jitter pause that doubles from `pause_s` to `MAX_PAUSE_S`; it holds no
    connection. `Busy` is raised when `wanted` says that nobody waits for the result any more.
    """
    tries = 0
    while True:
        try:
            return await call()
        except Busy:
            if not wanted():
                raise
        tries += 1
        _log.info("load.busy", collection=collection, tries=tries)
        await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - spreads writers, guards nothing
        pause_s = min(MAX_PAUSE_S, pause_s * 2)
