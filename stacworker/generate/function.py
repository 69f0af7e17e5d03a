"""A Python function as generator: `create_items(request) -> item or items`, in child processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from stacworker.api import Request
from stacworker.errors import ConfigError
from stacworker.generate.environment import scrubbed
from stacworker.generate.pool import Pool
from stacworker.generate.recipe import Limits, Recipe, Target
from stacworker.metrics import Metrics


class FunctionGenerator:
    """Calls `module:function` with each request's body and with `options` as keyword arguments.

    The function may be sync or async; it returns an item (dict or pystac.Item), or an iterable or async
    iterator of items; an exception of it ends the request (what is tried again: `child/failure.py`). The
    module is imported in children only. They see the part of `environ` that `environment.py` lets
    through and the variables named in `env`, have `path` first in `sys.path`, and work in a temporary
    directory of their own that is emptied after each request.

    Entering raises ConfigError when the function cannot be imported or called.
    """

    def __init__(
        self,
        *,
        name: str,
        ref: str,
        options: Mapping[str, Any],
        limits: Limits,
        metrics: Metrics,
        environ: Mapping[str, str],
        env: Sequence[str] = (),
        path: Sequence[str] = (),
        interpreter: str = sys.executable,
    ) -> None:
        module, _, attribute = ref.partition(":")
        if not module or not attribute:
            raise ConfigError(f"generators.{name}.type: {ref!r}: expected module:function, or stactools")
        try:
            orjson.dumps(dict(options))
        except orjson.JSONEncodeError as error:
            raise ConfigError(f"generators.{name}.options: cannot be passed to a process as JSON: {error}") from error
        recipe = Recipe(
            name=name,
            target=Target(ref, options),
            limits=limits,
            env=scrubbed(environ, also=env),
            path=tuple(path),
            interpreter=interpreter,
        )
        self._pool = Pool(recipe, metrics)

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.__aexit__(kind, error, trace)

    async def generate(self, request: Request) -> Sequence[dict[str, Any]]:
        """Return the items of one request, in its `collection_id` where it names one.

        Raises Permanent or Transient; Unavailable when no child process can be started.
        """
        items = await self._pool.run(request.body, origin=request.origin)
        return in_collection(items, request.collection_id)

    def stop_starting(self) -> None:
        """Start no further job (the drain has begun); what waits fails with Unavailable."""
        self._pool.stop_starting()

    async def ping(self) -> None:
        """Raise Unavailable when no child process is there and none can be started."""
        await self._pool.ping()


def in_collection(items: Sequence[dict[str, Any]], collection_id: str | None) -> Sequence[dict[str, Any]]:
    """Return the items, put in the collection that their request names, if it does."""
    return items if collection_id is None else [{**item, "collection": collection_id} for item in items]
