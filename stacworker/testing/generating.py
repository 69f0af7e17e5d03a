"""Calls a `create_items` function as a generate consumer does, in this process, so that a debugger and mocks work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

import orjson

from stacworker.api import CreateItems, Document, Message, Request, Version
from stacworker.envelope.reader import Reader
from stacworker.errors import Permanent, Transient
from stacworker.generate.child.failure import failure
from stacworker.generate.child.worker import Job
from stacworker.generate.consumer import GenerateConsumer
from stacworker.generate.function import in_collection
from stacworker.generate.process import ERROR_CLASSES
from stacworker.generate.recipe import Limits
from stacworker.load.prepare import prepare
from stacworker.metrics import Metrics
from stacworker.testing.s3 import FakeS3
from stacworker.testing.sink import MemorySink

_Result = TypeVar("_Result")
_NAME = "test"


class InProcess:
    """An `api.Generator`: what a child process does with a function, without the process.

    Requests and items take the way through JSON that they take there; limits, the scrubbed environment and the
    temporary folder are left out. `items` has all that was made, in order.
    """

    def __init__(self, create_items: CreateItems, options: Mapping[str, Any] | None = None) -> None:
        self.items: list[dict[str, Any]] = []
        self._create_items = create_items
        self._options = dict(options or {})

    def call(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the items of one request's body; raises what the function raises. Not in an event loop."""
        given: list[bytes] = []
        job = Job(lambda body: self._create_items(body, **self._options), given.append, Limits().max_result_bytes)
        try:
            job.run(orjson.loads(orjson.dumps(request)))
        finally:
            job.close()
        return [orjson.loads(data) for data in given]

    async def generate(self, request: Request) -> Sequence[dict[str, Any]]:
        """Return the items of one request; raises `Permanent` or `Transient` from what the function raised."""
        try:
            made = await asyncio.to_thread(self.call, request.body)
        except Exception as error:
            told = failure(error)
            error_class = told["class"] if told["class"] in ERROR_CLASSES else "generator_error"
            kind = Transient if told["transient"] else Permanent
            reason = f"generator {_NAME!r} failed for {request.origin}: {told['reason']}"
            raise kind(reason, error_class=error_class) from error
        items = in_collection(made, request.collection_id)
        self.items += items
        return items

    async def ping(self) -> None:
        """Answer."""


class GenerateItems:
    """What the fixture `generate_items` gives. Works in plain and in async tests."""

    def __init__(self, objects: FakeS3, sink: MemorySink) -> None:
        self._objects = objects
        self._sink = sink

    def __call__(
        self,
        create_items: CreateItems,
        request: Mapping[str, Any] | None = None,
        *,
        message: str | Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        validate: bool = True,
    ) -> list[dict[str, Any]]:
        """Return the items that a function makes of a request, or of all requests in a message.

        With `request` the function's own exceptions are raised, and `AssertionError` when a load queue would
        refuse an item (not with `validate=False`). With `message`, the text of a body or a JSON object, everything
        happens as in a generate consumer whose output is `memory_sink`: what it raises is what the message would
        end with (`stacworker.errors`).
        """
        if (request is None) == (message is None):
            raise TypeError("give either a request or message=")
        generator = InProcess(create_items, options)
        if message is not None:
            body = message if isinstance(message, str) else orjson.dumps(message).decode()
            outside_loop(lambda: asyncio.run(self._handle(generator, body)))
            return generator.items
        asked = request or {}
        collection_id = asked.get("collection_id")
        made = outside_loop(lambda: generator.call(asked))
        items = list(in_collection(made, collection_id if isinstance(collection_id, str) and collection_id else None))
        if validate:
            _assert_loadable(items)
        return items

    async def _handle(self, generator: InProcess, body: str) -> None:
        consumer = GenerateConsumer(
            reader=Reader(self._objects),
            generators={_NAME: generator},
            packages={},
            default=_NAME,
            sink=self._sink,
            metrics=Metrics(),
        )
        await consumer.handle(Message("message", body, "receipt", 1, sent_at=time.time()))


def _assert_loadable(items: Sequence[dict[str, Any]]) -> None:
    problems = []
    for item in items:
        try:
            prepare(Document("item", item, Version(0), "the generator"))
        except Permanent as error:
            problems.append(f"\n  {error.reason} [{error.error_class}]")
    if problems:
        raise AssertionError(f"a load queue would refuse {len(problems)} of {len(items)} items:{''.join(problems)}")


def outside_loop(work: Callable[[], _Result]) -> _Result:
    """Do work that runs an event loop of its own: in a thread where one runs here already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, work).result()
