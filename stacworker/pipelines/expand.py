"""Pipelines → settings: consumers, generators and collections like any others."""

from __future__ import annotations

from collections.abc import Sequence

from stacworker.errors import ConfigError
from stacworker.pipelines.folder import Pipeline
from stacworker.settings import MEMORY, ConsumerSettings, OutputSettings, Settings

_IN_MEMORY = {"wait_time_s": 1}
"""A receive that waits costs nothing here, and a drain waits for it."""


def expand(settings: Settings, pipelines: Sequence[Pipeline]) -> Settings:
    """Return the settings with all that the pipelines need.

    A pipeline's generator has its id; so has the consumer of its queue; what it asks of itself goes through a
    queue in memory. Its requests reach no other generator, and nobody else's reach its own. Raises ConfigError
    where names or queues are used twice.
    """
    problems = [
        f"{pipeline.folder}: the id {pipeline.id!r} is that of an entry in {section} too"
        for pipeline in pipelines
        for section, names in (
            ("generators", settings.generators),
            ("consumers", [consumer.name for consumer in settings.consumers]),
        )
        if pipeline.id in names
    ]
    problems += [
        f"{pipeline.folder}: loading: collections.{pipeline.collection} is set elsewhere too"
        for pipeline in pipelines
        if pipeline.settings.loading is not None and pipeline.collection in settings.collections
    ]
    own = tuple(settings.generators)
    consumers = [
        consumer.model_copy(update={"generators": own})
        if consumer.type == "generate" and consumer.generators is None
        else consumer
        for consumer in settings.consumers
    ]
    collections = dict(settings.collections)
    for pipeline in pipelines:
        consumers += _consumers(pipeline)
        if pipeline.settings.loading is not None and pipeline.collection is not None:
            collections[pipeline.collection] = pipeline.settings.loading
    expanded = settings.model_copy(
        update={
            "consumers": tuple(consumers),
            "generators": {**settings.generators, **{each.id: each.generator for each in pipelines}},
            "collections": collections,
        }
    )
    if problems := problems or expanded.problems():
        raise ConfigError(*problems)
    return expanded


def memory_queue_url(pipeline_id: str) -> str:
    """Return the address of the queue in memory that holds what a pipeline asks of itself."""
    return f"{MEMORY}{pipeline_id}"


def _consumers(pipeline: Pipeline) -> list[ConsumerSettings]:
    settings, triggers = pipeline.settings, pipeline.settings.triggers
    urls = [triggers.queue_url] if triggers.queue_url else []
    if triggers.once or triggers.schedule or triggers.feed:
        urls.append(memory_queue_url(pipeline.id))
    return [
        ConsumerSettings(
            name=pipeline.id if not url.startswith(MEMORY) else f"{pipeline.id}.own",
            type="generate",
            queue_url=url,
            generator=pipeline.id,
            generators=(pipeline.id,),
            collection=pipeline.collection,
            any_object=triggers.any_object or url.startswith(MEMORY),
            **settings.model_dump(include=set(OutputSettings.model_fields), exclude_unset=True),
            **{**settings.limits.model_dump(), **(_IN_MEMORY if url.startswith(MEMORY) else {})},
        )
        for url in urls
    ]
