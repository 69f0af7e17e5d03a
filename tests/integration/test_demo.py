"""`stacworker demo`, small: the whole job in one command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Give an environment whose temporary files can be looked at."""
    return dict(os.environ) | {"TMPDIR": str(tmp_path), "COLUMNS": "120"}


async def _demo(environ: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stacworker", "demo", "--granules", "10", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
    )


async def test_the_demo_loses_nothing_stays_on_and_leaves_nothing(environ, tmp_path):
    """Every good item is loaded, every bad one has its reason; it takes more while it stays; then all is gone."""
    process = await _demo(environ, "--json", "--keep")
    assert process.stderr is not None
    shown: list[str] = []
    async for line in process.stderr:
        shown.append(line.decode().strip())
        if shown[-1].endswith("ItemRequests for stactools-naip, one a line"):
            break
    (command,) = (line for line in shown if line.startswith("stacworker send ") and line.endswith("more-items.ndjson"))
    (exports,) = (line for line in shown if line.startswith("export "))
    more = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command.split()),
        stdout=asyncio.subprocess.PIPE,
        env=environ | dict(word.split("=", 1) for word in exports.split()[1:]),
    )
    sent, _ = await more.communicate()
    process.send_signal(signal.SIGINT)
    out, rest = await process.communicate()

    assert sent.startswith(b"10 sent in ")
    assert rest.decode().strip() == "▸ SIGTERM: the worker drained and ended with exit code 0"
    result = json.loads(out)
    assert (process.returncode, result["problems"], result["exit_code"]) == (0, [], 0)
    counts = result["counts"]
    assert (counts["generated"], counts["loaded"]) == (10, 10 + 5 + 2 + 2)
    assert counts["acked"] + counts["dead_lettered"] == 12 + 6 + 1 + 5 + 1
    assert sorted(letter["error_class"] for letter in result["dead_letters"]) == [
        "collection_missing",
        "generator_error",
        "invalid_datetime",
        "invalid_geometry",
        "object_missing",
        "package_not_allowed",
        "unknown_envelope",
    ]
    assert all(letter["reason"] for letter in result["dead_letters"])
    assert len(result["search"]) == 4
    assert list(tmp_path.iterdir()) == []


async def test_the_demo_cleans_up_when_it_is_stopped_early(environ, tmp_path):
    """SIGTERM in the middle ends everything that runs by then."""
    process = await _demo(environ)
    assert process.stdout is not None
    async for line in process.stdout:
        if "messages ended" in line.decode():
            break

    process.terminate()
    await process.communicate()

    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
