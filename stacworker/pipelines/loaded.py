"""Settings with their pipelines read in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stacworker.errors import ConfigError
from stacworker.pipelines.expand import expand
from stacworker.pipelines.folder import Broken, Pipeline, read_pipelines
from stacworker.settings import ConsumerSettings, Settings


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, with what the pipelines add to them; those that are run, and those that cannot be."""

    settings: Settings
    pipelines: tuple[Pipeline, ...] = ()
    broken: tuple[Broken, ...] = ()

    def consumers_of(self, pipeline: Pipeline) -> list[ConsumerSettings]:
        """Return a pipeline's consumers: of its queue, of what it asks of itself."""
        return [each for each in self.settings.consumers if each.generators == (pipeline.id,)]

    def own_consumers(self) -> list[ConsumerSettings]:
        """Return the consumers that belong to no pipeline."""
        names = {consumer.name for pipeline in self.pipelines for consumer in self.consumers_of(pipeline)}
        return [each for each in self.settings.consumers if each.name not in names]


def with_pipelines(settings: Settings, environ: Mapping[str, str]) -> Loaded:
    """Read the folder that the settings name, if they do.

    Raises ConfigError when the folder cannot be read and, unless `pipelines.on_broken` is skip, for every pipeline
    that is broken.
    """
    if settings.pipelines.folder is None:
        return Loaded(settings)
    found = read_pipelines(Path(settings.pipelines.folder), environ=environ, only=settings.pipelines.only)
    expanded, pipelines, clashing = expand(
        settings, [each for each in found if isinstance(each, Pipeline) and each.settings.enabled]
    )
    broken = (*(each for each in found if isinstance(each, Broken) and each.enabled), *clashing)
    if broken and settings.pipelines.on_broken == "stop":
        raise ConfigError(*(problem for each in broken for problem in each.problems))
    return Loaded(expanded, tuple(pipelines), broken)
