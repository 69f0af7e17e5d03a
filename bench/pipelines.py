"""Generators in environments: CPU for each item against `uvx`, the start of an environment, a slow neighbour."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import typer

from bench.report import Row, machine, write
from bench.stactools import PACKAGE, request, uvx
from stacworker import log
from stacworker.consume.engine import Engine, Limits
from stacworker.consume.memory import MemoryQueue
from stacworker.demo.rasters import make_granules
from stacworker.envelope.reader import Reader
from stacworker.generate.consumer import GenerateConsumer
from stacworker.generate.function import FunctionGenerator
from stacworker.generate.recipe import Limits as GeneratorLimits
from stacworker.generate.stactools import StactoolsGenerator
from stacworker.generate.venv import Venvs, Wanted
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.testing.s3 import FakeS3
from stacworker.testing.sink import MemorySink

FUNCTIONS = """
import time

def item(id):
    return {"type": "Feature", "stac_version": "1.0.0", "id": id, "collection": "bench", "links": [], "assets": {},
            "geometry": {"type": "Point", "coordinates": [1, 2]}, "bbox": [1, 2, 1, 2],
            "properties": {"datetime": "2024-01-01T00:00:00Z"}}

def fast(request):
    return item(request["id"])

def slow(request):
    time.sleep(5)
    return item(request["id"])
"""


def cpu_s() -> float:
    """CPU seconds of this process and of its children that ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


async def warm(rasters: list[Path], processes: int) -> tuple[float, float]:
    """Return items per second and CPU seconds of an item, in warm children; their start is left out."""

    def make() -> StactoolsGenerator:
        return StactoolsGenerator(
            name="bench",
            packages=[PACKAGE],
            limits=GeneratorLimits(processes=processes),
            metrics=Metrics(),
            environ=os.environ,
            local_paths=[str(rasters[0].parent)],
        )

    async def run(rounds: int) -> tuple[float, float]:
        before, per_s = cpu_s(), 0.0
        async with make() as generator:
            for _ in range(rounds):
                started = time.perf_counter()
                made = await asyncio.gather(*(generator.generate(request(raster)) for raster in rasters))
                per_s = max(per_s, sum(map(len, made)) / (time.perf_counter() - started))
        return per_s, cpu_s() - before

    rounds = 5
    _, start_cpu_s = await run(1)
    per_s, all_cpu_s = await run(1 + rounds)
    return per_s, (all_cpu_s - start_cpu_s) / (rounds * len(rasters))


def by_uvx(rasters: list[Path], folder: Path) -> tuple[float, float]:
    """Return items per second and CPU seconds of an item, with a process and an environment for each."""
    uvx(rasters[0], folder)  # fills the cache
    before, started = cpu_s(), time.perf_counter()
    for raster in rasters:
        uvx(raster, folder)
    return len(rasters) / (time.perf_counter() - started), (cpu_s() - before) / len(rasters)


async def environment(folder: Path, cache: Path | None) -> float:
    """Return the seconds that it takes to make an environment, with an empty cache or with the user's."""
    environ = dict(os.environ) if cache is None else {**os.environ, "UV_CACHE_DIR": str(cache)}
    started = time.perf_counter()
    await Venvs(folder, environ).get(Wanted((PACKAGE,)))
    return time.perf_counter() - started


async def neighbours(folder: Path, seconds: float, *, slow: bool) -> float:
    """Return the items per second of a fast pipeline, alone or beside one whose function takes 5 seconds."""
    lifecycle, metrics, sinks = Lifecycle(drain_timeout_s=0.1), Metrics(), []
    async with AsyncExitStack() as stack:
        engines = []
        for name in ("fast", "slow") if slow else ("fast",):
            generator = await stack.enter_async_context(
                FunctionGenerator(
                    name=name,
                    ref=f"functions:{name}",
                    options={},
                    limits=GeneratorLimits(processes=1),
                    metrics=metrics,
                    environ=os.environ,
                    path=[str(folder)],
                )
            )
            queue = MemoryQueue(name, visibility_timeout_s=60)
            queue.put(*(f'{{"id": "{number}", "path": "x"}}' for number in range(200_000 if name == "fast" else 50)))
            sinks.append(MemorySink())
            engines.append(
                _engine(name, queue=queue, generator=generator, sink=sinks[-1], lifecycle=lifecycle, metrics=metrics)
            )
        running = [asyncio.create_task(engine.run()) for engine in engines]
        await asyncio.sleep(1)
        before = len(sinks[0].items())
        await asyncio.sleep(seconds)
        made = len(sinks[0].items()) - before
        lifecycle.stop("done")
        await asyncio.gather(*running)
    return made / seconds


def _engine(
    name: str,
    *,
    queue: MemoryQueue,
    generator: FunctionGenerator,
    sink: MemorySink,
    lifecycle: Lifecycle,
    metrics: Metrics,
) -> Engine:
    limits: dict[str, Any] = {"max_in_flight": 100, "max_in_flight_bytes": 1 << 28, "visibility_timeout_s": 60.0}
    more = {"max_receive_count": 5, "max_pollers": 1, "wait_time_s": 1, "backoff_base_s": 1.0, "backoff_max_s": 9.0}
    consumer = GenerateConsumer(
        reader=Reader(FakeS3()), generators={name: generator}, packages={}, default=name, sink=sink, metrics=metrics
    )
    return Engine(
        name=name,
        queue=queue,
        consumer=consumer,
        dead_letters=None,
        limits=Limits(**limits, **more),
        fifo=False,
        lifecycle=lifecycle,
        metrics=metrics,
    )


def median(measure: Callable[[], float], rounds: int) -> float:
    return statistics.median(measure() for _ in range(rounds))


def main(items: int = 200, rounds: int = 3, seconds: float = 6.0, json: str = "") -> None:
    """Compare them in one run."""
    log.configure("error", "console")
    folder = Path(tempfile.mkdtemp(prefix="stacworker-bench-"))
    try:
        (folder / "functions.py").write_text(FUNCTIONS)
        (folder / "rasters").mkdir()
        rasters = [granule.path for granule in make_granules(folder / "rasters", items)]
        (folder / "out").mkdir()
        uvx_per_s, uvx_cpu_s = by_uvx(rasters[:10], folder / "out")
        rows = [
            Row("uvx: items/s", uvx_per_s, 1.0, "baseline"),
            Row("uvx: CPU ms an item", 1000 * uvx_cpu_s, 1.0, "baseline"),
        ]
        for processes in (1, 2):
            per_s, item_cpu_s = asyncio.run(warm(rasters, processes))
            rows += [
                Row(f"warm, {processes} processes: items/s", per_s, per_s / uvx_per_s, "≥ 100"),
                Row(
                    f"warm, {processes} processes: CPU ms an item",
                    1000 * item_cpu_s,
                    uvx_cpu_s / item_cpu_s,
                    "≥ 100 less",
                ),
            ]
        cold = median(lambda: asyncio.run(environment(_fresh(folder), _fresh(folder))), 1)
        again = median(lambda: asyncio.run(environment(_fresh(folder), None)), rounds)
        rows += [
            Row("environment of stactools-naip, empty cache: s", cold, None, "once an image"),
            Row("environment of stactools-naip, packages cached: s", again, again / cold, ""),
        ]
        alone = median(lambda: asyncio.run(neighbours(folder, seconds, slow=False)), rounds)
        beside = median(lambda: asyncio.run(neighbours(folder, seconds, slow=True)), rounds)
        rows += [
            Row("fast function alone: items/s", alone, 1.0, "baseline"),
            Row("beside one that takes 5 s: items/s", beside, beside / alone, "≥ 0.9"),
        ]
        about = f"{PACKAGE}, {items} items; {machine()}"
        write("pipelines", about, rows, json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


if __name__ == "__main__":
    typer.run(main)
