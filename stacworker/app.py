"""The composition root: reads the settings, builds the parts, runs them, ends them in order.

Nothing below this module knows the settings as a whole or the environment.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version as installed_version

import structlog

from stacworker import __version__, log, tracing
from stacworker.aws import Aws
from stacworker.consume.engine import Engine
from stacworker.errors import ConfigError, StacworkerError
from stacworker.http.server import create_app, serving
from stacworker.http.status import Status
from stacworker.lifecycle import Lifecycle, Stopped
from stacworker.metrics import Metrics
from stacworker.parts import Parts
from stacworker.pipeline_parts import start_pipelines
from stacworker.pipelines.loaded import with_pipelines
from stacworker.privacy import hide_memory
from stacworker.scale_in import ScaleInProtection
from stacworker.settings import ConsumerSettings, Settings

_log = structlog.get_logger()

_LAG_EVERY_S = 0.5


def run(settings: Settings) -> int:
    """Run the daemon until a signal ends it; return the exit code.

    0 after a clean drain, 1 when a dependency stays away at start or the process itself breaks. Raises
    ConfigError for what is wrong with the settings or with what they name.
    """
    log.configure(settings.log.level, settings.log.format)
    hide_memory()
    tune_gc()
    return asyncio.run(_main(settings))


def tune_gc() -> None:
    """Collect garbage less often: items in hand are many small objects, none of them garbage.

    With Python's defaults, looking through them again and again costs more than parsing them (a 10 KB item:
    118 µs instead of 40). What cycles leave behind is still collected, after more allocations.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _main(settings: Settings) -> int:
    lifecycle = Lifecycle(drain_timeout_s=settings.drain_timeout_s)
    with lifecycle.signals():
        try:
            await serve(settings, lifecycle)
        except ConfigError:
            raise
        except Stopped:
            pass
        except StacworkerError as error:
            _log.critical("exit.failed", error=error.reason)
            return 1
        except Exception:  # noqa: BLE001 - the last resort: say it in the log, end with 1
            _log.critical("exit.broken", exc_info=True)
            return 1
    _log.info("exit.clean")
    return 0


async def serve(settings: Settings, lifecycle: Lifecycle, metrics: Metrics | None = None) -> None:
    """Run all consumers and pipelines of the settings until `lifecycle` says stop and the drain is over."""
    loaded = with_pipelines(settings, os.environ)
    settings = loaded.settings
    if not settings.consumers:
        if problems := [problem for each in loaded.broken for problem in each.problems]:
            raise ConfigError(*problems)
        raise ConfigError("no consumers: name at least one queue under `consumers` (see `stacworker config example`)")
    for warning in settings.warnings():
        _log.warning("settings.questionable", warning=warning)
    metrics = metrics or Metrics()
    status = Status(lifecycle)
    metrics.draining.set_function(lambda: float(lifecycle.draining.is_set()))
    agent_uri = _ecs_agent(settings)
    async with AsyncExitStack() as stack:
        if settings.tracing.enabled:
            tracing.switch_on(__version__, sample_ratio=settings.tracing.sample_ratio)
            stack.push_async_callback(asyncio.to_thread, tracing.switch_off)
        if settings.http.enabled:
            app = create_app(status, metrics.registry)
            await stack.enter_async_context(serving(app, host=settings.http.host, port=settings.http.port))
        aws = Aws(endpoint_url=settings.aws.endpoint_url, region=settings.aws.region)
        metrics.build_info.labels(__version__, installed_version("pypgstac"), "").set(1)
        parts = Parts(settings, lifecycle, metrics, stack, aws)
        async with lifecycle.starting():
            await parts.generators.start(_generators_needed(settings))
            pipelines = await start_pipelines(parts, loaded)
            engines = [*await _engines(parts, loaded.own_consumers()), *pipelines.engines]
        status.parts = engines
        status.started = True
        _log.info("started", version=__version__, consumers=[engine.name for engine in engines])
        async with asyncio.TaskGroup() as infrastructure:
            watching = [infrastructure.create_task(_watch_loop(metrics), name="loop-lag")]
            if agent_uri:
                batches = {each.name for each in settings.consumers if each.type == "load"}
                long = [engine for engine in engines if engine.name not in batches]
                protection = ScaleInProtection(
                    agent_uri,
                    lambda: max((engine.longest_held_s for engine in long), default=0.0),
                    after_s=settings.drain_timeout_s / 2,
                )
                watching.append(infrastructure.create_task(protection.run(), name="scale-in"))
            async with asyncio.TaskGroup() as work:
                asking = [work.create_task(each.run()) for each in pipelines.triggers]
                for engine in engines:
                    work.create_task(engine.run(), name=f"engine:{engine.name}")
                await lifecycle.draining.wait()
                for task in asking:
                    task.cancel()
            for task in watching:
                task.cancel()


def _ecs_agent(settings: Settings) -> str | None:
    """Return where the agent of ECS is asked for protection; None where it is not wanted."""
    if not settings.ecs.scale_in_protection:
        return None
    try:
        return os.environ["ECS_AGENT_URI"]
    except KeyError:
        raise ConfigError("ecs.scale_in_protection: no ECS_AGENT_URI: this is no task of ECS; leave it false") from None


def _generators_needed(settings: Settings) -> list[str]:
    """Return the generators that some consumer uses, in their order: several start at a time."""
    used = [
        settings.generators if each.generators is None else each.generators
        for each in settings.consumers
        if each.type == "generate"
    ]
    return [name for name in settings.generators if any(name in names for names in used)]


async def _engines(parts: Parts, consumers: Sequence[ConsumerSettings]) -> list[Engine]:
    """Return an engine for each consumer; what is wrong with any of them is told at once."""
    engines: list[Engine] = []
    problems: list[str] = []
    for consumer in consumers:
        try:
            engines.append(await parts.engine(consumer))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return engines


async def _watch_loop(metrics: Metrics) -> None:
    """Measure how late the event loop runs a timer."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(_LAG_EVERY_S)
        metrics.event_loop_lag.set(max(0.0, time.monotonic() - before - _LAG_EVERY_S))
