"""Fixtures of the tests that run the daemon as a process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stacworker.testing.localstack import LocalStack
from tests.integration.worker import Catalogue, Worker, catalogue_at, settings_for

REPOSITORY = Path(__file__).parents[2]
MakeWorker = Callable[..., Worker]


@pytest.fixture
async def catalogue(pgstac_dsn: str) -> AsyncIterator[Catalogue]:
    """Open the test's catalogue, with a collection `things` partitioned by month."""
    async with catalogue_at(pgstac_dsn) as opened:
        await opened.add_collection("things", "month")
        yield opened


@pytest.fixture
def worker(tmp_path: Path, localstack: LocalStack, pgstac_dsn: str) -> Iterator[MakeWorker]:
    """Give a maker of workers for the test's catalogue; modules in `tmp_path` can be imported by them."""
    made: list[Worker] = []

    def make(*consumers: dict[str, Any], module: str = "stacworker", **more: Any) -> Worker:
        settings = settings_for(pgstac_dsn, localstack, *consumers, **more)
        env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}", "TMPDIR": str(tmp_path)}
        made.append(Worker(tmp_path, settings, env, name=f"worker{len(made)}", module=module))
        return made[-1]

    yield make
    for each in made:
        each.cleanup()
