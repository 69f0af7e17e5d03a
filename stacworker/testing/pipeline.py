"""A pipeline under test: its real generator, in its own environment and child processes; items end in memory."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar

import orjson

from stacworker.api import Message
from stacworker.aws import Aws
from stacworker.envelope.reader import Reader
from stacworker.errors import ConfigError, Permanent, StacworkerError
from stacworker.generate.consumer import GenerateConsumer
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.parts import Parts
from stacworker.pipeline_parts import inventory, read_collection
from stacworker.pipelines.folder import FILE, Broken, Pipeline, read_pipeline
from stacworker.settings import Settings
from stacworker.testing import messages
from stacworker.testing.s3 import FakeS3
from stacworker.testing.sink import MemorySink

_Result = TypeVar("_Result")


def pipeline_folder(path: Path) -> Path:
    """Return the pipeline's folder that a test lies in; raises ConfigError when it lies in none."""
    found = next((each for each in (path, *path.parents) if (each / FILE).is_file()), None)
    if found is None:
        raise ConfigError(f"{path} lies in no folder with a {FILE}")
    return found


class PipelineUnderTest:
    """What the fixture `pipeline` gives; works in plain and in async tests.

    Variables that pipeline.yaml names may be unset: they are "unset" then, or an URL of nowhere.
    """

    Refused = Permanent
    """What `items` and `handle` raise for what would be a dead letter."""

    def __init__(self, folder: Path, objects: FakeS3) -> None:
        found = read_pipeline(folder, environ=None)
        if isinstance(found, Broken):
            raise ConfigError(*found.problems)
        self.pipeline: Pipeline = found
        self._objects = objects
        self._stack = AsyncExitStack()
        self._parts: Parts | None = None
        # Children end with the thread that started them, so it is one thread from beginning to end.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pipeline-under-test", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @property
    def messages(self) -> ModuleType:
        """Makers of messages: `stacworker.testing.messages`."""
        return messages

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions of the stactools packages that requests may name."""
        return self._call(self._versions())

    def items(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the items of one request, of any form; raises as `handle` does."""
        return self._call(self._handle(orjson.dumps(request).decode(), any_object=True))

    def handle(self, body: str | Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the items of a message, checked as they would be before they are loaded, sorted by collection and id.

        Assets are not copied (`copy_assets`).

        Raises what the message would end with: `Permanent` (a dead letter), `Transient` (a retry), or
        `Unavailable`.
        """
        text = body if isinstance(body, str) else orjson.dumps(body).decode()
        return self._call(self._handle(text, any_object=self.pipeline.settings.triggers.any_object))

    def collection(self) -> dict[str, Any]:
        """Return the collection that is created at start; raises ConfigError when there is none or it is bad."""
        if self.pipeline.collection_source is None:
            raise ConfigError(f"{self.pipeline.folder}: there is no collection.json and no collection.py")
        return self._call(self._collection())

    def requests(self, at_most: int = 100) -> list[str]:
        """Return the first requests of the inventory, as the bodies of messages."""
        return self._call(self._requests(at_most))

    async def _opened(self) -> Parts:
        if self._parts is None:
            settings = Settings(generators={self.pipeline.id: self.pipeline.generator})
            aws = Aws(endpoint_url=os.environ.get("AWS_ENDPOINT_URL"), region=os.environ.get("AWS_REGION", "us-east-1"))
            self._parts = Parts(settings, Lifecycle(drain_timeout_s=0), Metrics(), self._stack, aws)
        return self._parts

    async def _versions(self) -> Mapping[str, str]:
        parts = await self._opened()
        await parts.generators.start([self.pipeline.id])
        found: Mapping[str, str] = getattr(parts.generators.get(self.pipeline.id), "versions", {})
        return found

    async def _handle(self, body: str, *, any_object: bool) -> list[dict[str, Any]]:
        parts, name = await self._opened(), self.pipeline.id
        await parts.generators.start([name])
        generator = parts.generators.get(name)
        sink = MemorySink()
        consumer = GenerateConsumer(
            reader=Reader(self._objects),
            generators={name: generator},
            packages=dict.fromkeys(getattr(generator, "packages", ()), name),
            default=name,
            collection=self.pipeline.collection,
            any_object=any_object,
            sink=sink,
            metrics=parts.metrics,
        )
        await consumer.handle(Message("test", body, "handle", 1, time.time()))
        return sink.items()

    async def _collection(self) -> dict[str, Any]:
        return await read_collection(await self._opened(), self.pipeline)

    async def _requests(self, at_most: int) -> list[str]:
        if self.pipeline.inventory is None:
            raise ConfigError(f"{self.pipeline.folder}: there is no inventory.py")
        found: list[str] = []
        async with aclosing(inventory(await self._opened(), self.pipeline)) as bodies:
            async for body in bodies:
                found.append(body)
                if len(found) >= at_most:
                    break
        return found

    def _call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        __tracebackhide__ = True
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except StacworkerError as error:
            raise error.with_traceback(None) from None
