"""What pipelines need beside consumers: their collections, and what they ask of themselves."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
import structlog

from stacworker import plugins
from stacworker.api import Document, Feed, Version
from stacworker.consume.engine import Engine
from stacworker.errors import ConfigError, StacworkerError
from stacworker.generate.call import results
from stacworker.generate.recipe import Limits, Target
from stacworker.load.prepare import prepare_collection
from stacworker.parts import Parts
from stacworker.pipelines.expand import memory_queue_url
from stacworker.pipelines.folder import Pipeline
from stacworker.pipelines.loaded import Loaded
from stacworker.pipelines.settings import FeedSettings
from stacworker.pipelines.triggers import Triggers
from stacworker.settings import ConsumerSettings

_REQUESTS = "stacworker_child.calls:Requests"
_COLLECTION = "stacworker_child.calls:Collection"
_UNBOUNDED_BYTES = 1 << 50
_CALL_TIMEOUT_S = 600.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Started:
    """The engines of the pipelines that started, and what these pipelines ask of themselves."""

    engines: tuple[Engine, ...]
    triggers: tuple[Triggers, ...]


async def start_pipelines(parts: Parts, loaded: Loaded) -> Started:
    """Put the pipelines' collections, and make their engines and triggers.

    With `pipelines.on_broken: skip` a pipeline that cannot start is reported and left out; else what is wrong with
    all of them is raised as one ConfigError. Unavailable is raised at once: it is about what they share.
    """
    broken = {each.id: each.problems for each in loaded.broken}
    started: list[Started] = []
    for pipeline in loaded.pipelines:
        try:
            started.append(await _start(parts, pipeline, loaded.consumers_of(pipeline)))
        except ConfigError as error:
            broken[pipeline.id] = error.problems
    if broken and loaded.settings.pipelines.on_broken == "stop":
        raise ConfigError(*dict.fromkeys(problem for problems in broken.values() for problem in problems))
    for name, problems in broken.items():
        _log.error("pipeline.broken", pipeline=name, problems=list(problems))
    parts.metrics.pipelines.labels("broken").set(len(broken))
    parts.metrics.pipelines.labels("running").set(len(started))
    return Started(
        tuple(engine for each in started for engine in each.engines),
        tuple(trigger for each in started for trigger in each.triggers),
    )


async def _start(parts: Parts, pipeline: Pipeline, consumers: Sequence[ConsumerSettings]) -> Started:
    await parts.generators.start([pipeline.id])
    parts.generators.get(pipeline.id)
    engines = [await parts.engine(consumer) for consumer in consumers]
    await put_collection(parts, pipeline)
    trigger = triggers(parts, pipeline)
    return Started(tuple(engines), () if trigger is None else (trigger,))


async def put_collection(parts: Parts, pipeline: Pipeline) -> None:
    """Create or update a pipeline's collection, if it has one; nothing is written when it is there already.

    Raises ConfigError when the collection cannot be had or is not one, Unavailable when the database is away.
    """
    if pipeline.collection_source is None or pipeline.settings.output != "load":
        return
    body = await read_collection(parts, pipeline)
    catalogue = await parts.shared_catalogue()
    version = Version(time.time_ns() // 1_000_000)
    done = await parts.reach(lambda: catalogue.ensure_collection(body, version))
    _log.info("pipeline.collection", pipeline=pipeline.id, collection=body["id"], done=done)


async def read_collection(parts: Parts, pipeline: Pipeline) -> dict[str, Any]:
    """Return the collection of a pipeline that has one, checked; raises ConfigError."""
    source = pipeline.collection_source
    where = f"pipeline {pipeline.id}: {source}"
    try:
        body = _from_file(source) if isinstance(source, Path) else await _from_function(parts, pipeline, str(source))
        prepared = prepare_collection(Document("collection", body, Version(0), str(source)))
    except (StacworkerError, OSError, ValueError) as error:
        raise ConfigError(*(f"{where}: {line}" for line in str(error).splitlines())) from error
    if pipeline.collection is not None and prepared["id"] != pipeline.collection:
        raise ConfigError(
            f"{where}: the collection has the id {prepared['id']!r}, pipeline.yaml {pipeline.collection!r}"
        )
    return prepared


def triggers(parts: Parts, pipeline: Pipeline) -> Triggers | None:
    """Return what puts a pipeline's own requests into its queue, if it asks for any. Raises ConfigError."""
    settings = pipeline.settings.triggers
    if not settings.once and settings.schedule is None and settings.feed is None:
        return None
    return Triggers(
        pipeline.id,
        settings,
        parts.memory_queue(memory_queue_url(pipeline.id)),
        inventory=None if pipeline.inventory is None else partial(inventory, parts, pipeline),
        feed=None if settings.feed is None else _feed(pipeline, settings.feed),
        metrics=parts.metrics,
    )


async def inventory(parts: Parts, pipeline: Pipeline) -> AsyncGenerator[str, None]:
    """Give all requests of a pipeline's inventory, as bodies of messages."""
    async with contextlib.aclosing(_called(parts, pipeline, _REQUESTS, str(pipeline.inventory))) as found:
        async for body in found:
            yield body


async def _from_function(parts: Parts, pipeline: Pipeline, ref: str) -> dict[str, Any]:
    async with contextlib.aclosing(_called(parts, pipeline, _COLLECTION, ref)) as found:
        (body,) = [each async for each in found]
        return cast("dict[str, Any]", body)


async def _called(parts: Parts, pipeline: Pipeline, kind: str, ref: str) -> AsyncGenerator[Any, None]:
    """Call a function of a pipeline in a child process of its own, and give what it gives."""
    limits = Limits(
        processes=1,
        timeout_s=_CALL_TIMEOUT_S,
        memory_bytes=pipeline.generator.memory_mb << 20,
        max_result_bytes=_UNBOUNDED_BYTES,
    )
    target = Target(kind, {"ref": ref}, factory=True)
    recipe = await parts.generators.recipe(pipeline.id, pipeline.generator, target, limits)
    async with contextlib.aclosing(results(recipe, origin=ref)) as found:
        async for each in found:
            yield each["value"]


def _from_file(path: Path) -> dict[str, Any]:
    found = orjson.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - what is wrong is the file
    return found


def _feed(pipeline: Pipeline, settings: FeedSettings) -> Feed:
    """Make a pipeline's feed. A module in its folder is its own, whatever others have of that name."""
    where = f"pipeline {pipeline.id}: triggers.feed"
    module, _, name = settings.type.partition(":")
    path = pipeline.folder / f"{module}.py"
    if path.is_file():
        own = f"stacworker_pipelines.{pipeline.id}.{module}"
        spec = importlib.util.spec_from_file_location(own, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{where}: {path} cannot be imported")
        sys.modules[own] = found = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(found)
        except Exception as error:  # whatever a user's module raises while it is imported
            raise ConfigError(f"{where}: {path} cannot be imported: {type(error).__name__}: {error}") from error
        kind = getattr(found, name, None)
    else:
        kind = plugins.resolve("feeds", settings.type)
    if not callable(kind):
        raise ConfigError(f"{where}: {settings.type!r} is no class")
    try:
        feed: Feed = kind(**settings.options)
    except Exception as error:  # as above
        raise ConfigError(f"{where}: {settings.type!r} cannot be made: {type(error).__name__}: {error}") from error
    if not callable(getattr(feed, "requests", None)):
        raise ConfigError(f"{where}: {settings.type!r} has no requests()")
    return feed
