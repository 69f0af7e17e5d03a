"""Which generators the settings name: made, given their environments, started, each once."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from stacworker import plugins
from stacworker.errors import ConfigError, StacworkerError
from stacworker.generate.environment import scrubbed
from stacworker.generate.function import FunctionGenerator
from stacworker.generate.raster.generator import RasterGenerator
from stacworker.generate.recipe import Limits, Recipe, Target
from stacworker.generate.stactools import StactoolsGenerator
from stacworker.generate.venv import Venv, Venvs, Wanted, default_folder
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.settings import EnvironmentsSettings, GeneratorSettings

AnyGenerator: TypeAlias = FunctionGenerator | RasterGenerator | StactoolsGenerator

_AT_A_TIME = 4

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """How generators that read and write objects get their client, which is open for as long as they are."""

    client: Callable[[], Awaitable[Any]]
    allowed_buckets: Sequence[str]


@dataclass(slots=True)
class Generators:
    """Starts the generators of the settings, several at a time, and remembers which could not be."""

    settings: Mapping[str, GeneratorSettings]
    environments: EnvironmentsSettings
    stack: AsyncExitStack
    lifecycle: Lifecycle
    metrics: Metrics
    objects: ObjectStore | None = None
    started: dict[str, AnyGenerator | StacworkerError] = field(default_factory=dict)
    venvs: dict[str, Venv | None] = field(default_factory=dict)

    async def start(self, names: Sequence[str]) -> None:
        """Start these, as far as that has not been tried; errors are kept for `get`."""
        left = [name for name in dict.fromkeys(names) if name not in self.started]
        slots = asyncio.Semaphore(_AT_A_TIME)

        async def start_one(name: str) -> None:
            async with slots:
                try:
                    self.started[name] = await self._start(name, self.settings[name])
                except StacworkerError as error:
                    self.started[name] = error
                except Exception as error:  # noqa: BLE001 - a class of the user's may raise anything
                    _log.exception("generator.unexpected_error", generator=name)
                    self.started[name] = ConfigError(f"generators.{name}: {type(error).__name__}: {error}")

        async with asyncio.TaskGroup() as group:
            for name in left:
                group.create_task(start_one(name), name=f"generator:{name}")

    def get(self, name: str) -> AnyGenerator:
        """Return a generator that was started; raise what kept it from starting."""
        found = self.started[name]
        if isinstance(found, StacworkerError):
            raise found
        return found

    def at_once(self, names: Sequence[str]) -> int | None:
        """Return how many requests these work on at a time; None where nobody can tell.

        That is where one is of a class that we do not know, or where there are several: requests for a slow one must
        not keep those for the others from being received.
        """
        if len(names) != 1 or not isinstance(self.get(names[0]), AnyGenerator):
            return None
        return self.settings[names[0]].processes

    def about(self, name: str) -> str:
        """Say in which environment a generator runs, and which versions of packages it has."""
        generator, venv = self.get(name), self.venvs.get(name)
        versions = getattr(generator, "versions", {})
        told = [f"{package} {version}" for package, version in versions.items()]
        if venv is None:
            return ", ".join([*told, "in stacworker's own environment"])
        return ", ".join([*told, f"{len(venv.packages)} packages in its own environment {venv.folder}"])

    async def recipe(self, name: str, settings: GeneratorSettings, target: Target, limits: Limits) -> Recipe:
        """Return how a further child of a generator's environment is made. Raises ConfigError as `get` does."""
        return Recipe(
            name=name,
            target=target,
            limits=limits,
            env=scrubbed(os.environ, also=settings.env),
            path=_path(settings),
            **await self._interpreter(name),
        )

    async def install(self, name: str) -> Venv | None:
        """Make a generator's environment where it has one of its own and it is not there; return it."""
        settings = self.settings[name]
        file = Path(settings.requirements_file) if settings.requirements_file is not None else None
        wanted = Wanted((*settings.packages, *settings.requirements), file)
        is_shared = settings.environment == "shared" or (settings.environment == "auto" and wanted.is_installed_here())
        if is_shared:
            self.venvs[name] = None
            return None
        folder = Path(self.environments.folder) if self.environments.folder else default_folder(os.environ)
        try:
            venv = await Venvs(folder, os.environ).get(wanted, install=self.environments.install_at_start)
        except ConfigError as error:
            raise ConfigError(*(f"generators.{name}: {problem}" for problem in error.problems)) from error
        self.venvs[name] = venv
        return venv

    async def _start(self, name: str, settings: GeneratorSettings) -> AnyGenerator:
        shared: dict[str, Any] = {
            "name": name,
            "limits": Limits(
                processes=settings.processes,
                timeout_s=settings.timeout_s,
                memory_bytes=settings.memory_mb << 20,
                recycle_after=settings.recycle_after,
                idle_timeout_s=settings.idle_timeout_s,
            ),
            "metrics": self.metrics,
            "environ": os.environ,
            "env": settings.env,
            "path": _path(settings),
            **await self._interpreter(name),
        }
        generator: Any
        kind = _class(settings.type)
        if kind is None:
            generator = FunctionGenerator(ref=settings.type, options=settings.options, **shared)
        elif kind is RasterGenerator and self.objects is not None:
            s3 = await self.objects.client()
            generator = RasterGenerator(
                options=settings.options, s3=s3, allowed_buckets=self.objects.allowed_buckets, **shared
            )
        elif kind is StactoolsGenerator:
            generator = StactoolsGenerator(
                packages=settings.packages, command=settings.command, local_paths=settings.local_paths, **shared
            )
        else:
            generator = kind(options=settings.options, **shared)
        started: AnyGenerator = await self.stack.enter_async_context(generator)
        if (stop_starting := getattr(generator, "stop_starting", None)) is not None:
            self.lifecycle.on_stop(stop_starting)
        return started

    async def _interpreter(self, name: str) -> dict[str, str]:
        venv = await self.install(name) if name not in self.venvs else self.venvs[name]
        return {} if venv is None else {"interpreter": venv.interpreter}


def _class(type_: str) -> Any:
    """Return the class that a generator's type names, None where it names a function.

    Functions' modules are imported in children only. So names have to tell: classes begin with a capital letter.
    """
    if ":" not in type_:
        return plugins.resolve("generators", type_)
    if not type_.rpartition(":")[2].rpartition(".")[2][:1].isupper():
        return None
    kind = plugins.resolve("generators", type_)
    return kind if inspect.isclass(kind) and hasattr(kind, "generate") else None


def _path(settings: GeneratorSettings) -> tuple[str, ...]:
    """Return where a generator's own modules are looked for."""
    return (*settings.path, str(Path.cwd()))
