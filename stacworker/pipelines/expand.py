"""Pipelines → settings: consumers, generators and collections like any others."""

from __future__ import annotations

from collections.abc import Sequence

from stacworker.pipelines.folder import Broken, Pipeline
from stacworker.settings import MEMORY, ConsumerSettings, OutputSettings, Settings

_IN_MEMORY = {"wait_time_s": 1}
"""A receive that waits costs nothing here, and a drain waits for it."""


def expand(settings: Settings, pipelines: Sequence[Pipeline]) -> tuple[Settings, list[Pipeline], list[Broken]]:
    """Return the settings with all that the pipelines need, those that are in it, and those that clash.

    A pipeline's generator has its id; so has the consumer of its queue; what it asks of itself goes through a
    queue in memory. Its requests reach no other generator, and nobody else's reach its own. One that uses a name, a
    queue or a collection's settings of those before it clashes.
    """
    own = tuple(settings.generators)
    consumers = tuple(
        consumer.model_copy(update={"generators": own})
        if consumer.type == "generate" and consumer.generators is None
        else consumer
        for consumer in settings.consumers
    )
    expanded = settings.model_copy(update={"consumers": consumers})
    fitting: list[Pipeline] = []
    clashing: list[Broken] = []
    for pipeline in pipelines:
        problems = _clashes(expanded, pipeline)
        more = expanded if problems else _with(expanded, pipeline)
        problems += [problem for problem in more.problems() if problem not in expanded.problems()]
        if problems:
            clashing.append(
                Broken(pipeline.id, pipeline.folder, tuple(f"{pipeline.folder}: {each}" for each in problems))
            )
        else:
            expanded = more
            fitting.append(pipeline)
    return expanded, fitting, clashing


def _clashes(settings: Settings, pipeline: Pipeline) -> list[str]:
    problems = []
    names = {consumer.name for consumer in settings.consumers}
    if pipeline.id in settings.generators or {pipeline.id, _own_name(pipeline)} & names:
        problems.append(f"the id {pipeline.id!r} is that of another generator or consumer")
    if pipeline.settings.loading is not None and pipeline.collection in settings.collections:
        problems.append(f"loading: collections.{pipeline.collection} is set elsewhere too")
    return problems


def _with(settings: Settings, pipeline: Pipeline) -> Settings:
    collections = dict(settings.collections)
    if pipeline.settings.loading is not None and pipeline.collection is not None:
        collections[pipeline.collection] = pipeline.settings.loading
    return settings.model_copy(
        update={
            "consumers": (*settings.consumers, *_consumers(pipeline)),
            "generators": {**settings.generators, pipeline.id: pipeline.generator},
            "collections": collections,
        }
    )


def _own_name(pipeline: Pipeline) -> str:
    return f"{pipeline.id}.own"


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
            name=_own_name(pipeline) if url.startswith(MEMORY) else pipeline.id,
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
