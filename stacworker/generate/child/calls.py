"""Functions that are called without a request, as targets: what gives a pipeline's requests, or its collection.

Both are called without arguments and may be async. What they give leaves as `{"value": …}`: for requests the
body of a message (a text), for a collection its object.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from .items import NotItems, kind


class Requests:
    """Calls `module:function`, which returns or yields requests: objects, or texts such as URLs and keys.

    Making it raises ImportError, LookupError or TypeError with a line for people.
    """

    def __init__(self, ref: str) -> None:
        self._function = _found(ref)

    def __call__(self, request: dict[str, Any]) -> Any:  # noqa: ARG002 - called like every target
        """Return an iterator, or what becomes one when it is awaited."""
        value = self._function()
        return self._awaited(value) if inspect.isawaitable(value) else self._iterated(value)

    async def _awaited(self, value: Any) -> Any:
        return self._iterated(await value)

    def _iterated(self, value: Any) -> Any:
        if hasattr(value, "__aiter__"):
            return _bodies_async(value)
        if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
            raise NotItems(f"the function returned {kind(value)}; expected an iterable of requests (objects or texts)")
        return _bodies(value)


class Collection:
    """Calls `module:function`, which returns a collection: a dict, or what has to_dict(). Made like `Requests`."""

    def __init__(self, ref: str) -> None:
        self._function = _found(ref)

    def __call__(self, request: dict[str, Any]) -> Any:  # noqa: ARG002 - as above
        """Return the collection, or what becomes it when it is awaited."""
        value = self._function()
        return self._awaited(value) if inspect.isawaitable(value) else self._told(value)

    async def _awaited(self, value: Any) -> Any:
        return self._told(await value)

    def _told(self, value: Any) -> dict[str, Any]:
        found = value.to_dict() if hasattr(value, "to_dict") else value
        if not isinstance(found, dict):
            raise NotItems(f"the function returned {kind(found)}; expected a collection (dict or pystac.Collection)")
        return {"value": found}


def _found(ref: str) -> Callable[[], Any]:
    module, _, name = ref.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        raise LookupError(f"{module} has no {name!r}")
    if not callable(found):
        raise TypeError(f"{ref} is {kind(found)}, expected a function")
    function: Callable[[], Any] = found
    return function


def _bodies(value: Any) -> Iterator[dict[str, str]]:
    for entry in value:
        yield {"value": _body(entry)}


async def _bodies_async(value: Any) -> AsyncIterator[dict[str, str]]:
    async for entry in value:
        yield {"value": _body(entry)}


def _body(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, dict):
        return json.dumps(entry, ensure_ascii=False, default=str)
    raise NotItems(f"the function gave {kind(entry)} among its requests; expected an object or a text")
