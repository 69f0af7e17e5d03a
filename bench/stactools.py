"""Items from a stactools package: warm child processes, against `uvx` for each item.

`uvx` is what StactoolsItemGenerator runs: a process and an environment for each item, here with a warm cache.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer

from bench.report import Row, machine, write
from stacworker import log
from stacworker.api import Request, Version
from stacworker.demo.rasters import make_granules
from stacworker.generate.recipe import Limits
from stacworker.generate.stactools import StactoolsGenerator
from stacworker.metrics import Metrics

PACKAGE = "stactools-naip==0.5.0"
ENVIRONMENT = ["--with", "requests", "--with", PACKAGE, "--from", "stactools", "stac"]


def uvx(raster: Path, folder: Path) -> None:
    """Make one item as StactoolsItemGenerator does."""
    uv = shutil.which("uv") or str(Path(sys.prefix).parent / ".cache/uv/bin/uv")
    command = [
        uv,
        "tool",
        "run",
        "--quiet",
        *ENVIRONMENT,
        "naip",
        "create-item",
        "ca",
        "2018",
        str(raster),
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


async def warm(rasters: list[Path], processes: int, rounds: int) -> list[float]:
    """Return items per second of each round."""
    found = []
    generator = StactoolsGenerator(
        name="bench",
        packages=[PACKAGE],
        limits=Limits(processes=processes),
        metrics=Metrics(),
        environ=os.environ,
        local_paths=[str(rasters[0].parent)],
    )
    async with generator:
        for turn in range(rounds + 1):
            started = time.perf_counter()
            made = await asyncio.gather(*(generator.generate(request(raster)) for raster in rasters))
            if turn:  # the first turn starts the children
                found.append(sum(map(len, made)) / (time.perf_counter() - started))
    return found


def request(raster: Path) -> Request:
    body = {
        "package_name": "stactools-naip",
        "group_name": "naip",
        "create_item_args": ["ca", "2018", str(raster)],
        "create_item_options": {},
    }
    return Request(body, Version(0), generator="stactools-naip")


def main(items: int = 200, rounds: int = 5, cold: int = 5, json: str = "") -> None:
    """Run the benchmark and print its table."""
    log.configure("warning")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rasters = [granule.path for granule in make_granules(folder, items)]
        uvx(rasters[0], folder)  # fills the cache
        cold_s = []
        for raster in rasters[:cold]:
            started = time.perf_counter()
            uvx(raster, folder)
            cold_s.append(time.perf_counter() - started)
        rows = [Row("uvx, items/s", 1 / statistics.median(cold_s))]
        for processes in (1, 2):
            rate = statistics.median(asyncio.run(warm(rasters, processes, rounds)))
            ratio = rate * statistics.median(cold_s)
            rows.append(Row(f"warm, {processes} process(es), items/s", rate, ratio=ratio))
    write("stactools", f"{PACKAGE}, {items} items, {rounds} rounds; {machine()}", rows, json)


if __name__ == "__main__":
    typer.run(main)
