"""Children that nobody needs: ended after a while, busy ones never, and started again on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stacworker.api import Request, Version
from stacworker.errors import Unavailable
from stacworker.generate.function import FunctionGenerator
from stacworker.generate.pool import Pool
from tests.unit.generate.conftest import is_running

Make = Callable[..., FunctionGenerator]
FOR_EVER_S = 3600.0


def asked(call: str, **body: Any) -> Request:
    return Request({"id": "a", "call": call, **body}, Version(1), origin="message body")


async def pid_of(generator: FunctionGenerator) -> int:
    (item,) = await generator.generate(asked("pid"))
    return int(item["pid"])


async def comes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def two_idle(generator: FunctionGenerator, folder: Path) -> list[int]:
    """Have two children work at the same time; return their process numbers, longest idle first."""
    left, right = str(folder / "left"), str(folder / "right")
    done = await asyncio.gather(
        generator.generate(asked("meet", mark=left, other=right)),
        generator.generate(asked("meet", mark=right, other=left)),
    )
    newest = await pid_of(generator)
    (oldest,) = {items[0]["pid"] for items in done} - {newest}
    return [oldest, newest]


def pass_time(pool: Pool, idle_s: float, *, children: int) -> None:
    """Have the children that are idle for longest be so for this much longer, and look after them."""
    for child in list(pool._idle)[:children]:
        pool._idle[child] -= idle_s
    pool._retire_idle()


async def test_idle_children_end_and_come_back(generator: Make, tmp_path: Path) -> None:
    """After the time all are gone by themselves; neither that nor ping starts one, only the next job does."""
    async with generator("either", processes=2, idle_timeout_s=0.05) as either:
        pids = await two_idle(either, tmp_path)
        await comes(lambda: not either._pool._children)
        assert not any(map(is_running, pids))
        assert either._pool._idle_timer is None
        await either.ping()
        assert not either._pool._children
        assert await pid_of(either) not in pids


async def test_the_child_that_is_idle_for_longest_goes_first(generator: Make, tmp_path: Path) -> None:
    """What little work there is goes to the child that worked last, so that the others become idle."""
    async with generator("either", processes=2, idle_timeout_s=FOR_EVER_S) as either:
        oldest, newest = await two_idle(either, tmp_path)
        pass_time(either._pool, FOR_EVER_S, children=1)
        await comes(lambda: not is_running(oldest))
        assert await pid_of(either) == newest


async def test_a_busy_child_is_never_ended(generator: Make, tmp_path: Path) -> None:
    """A job may take longer than a child may be idle; the idle child beside it goes."""
    left, right = tmp_path / "a", tmp_path / "b"
    async with generator("either", processes=2, idle_timeout_s=0.05) as either:
        job = asyncio.create_task(either.generate(asked("meet", mark=str(left), other=str(right))))
        await comes(left.exists)
        other = await pid_of(either)
        await comes(lambda: not is_running(other))
        await comes(lambda: len(either._pool._children) == 1)
        right.touch()
        assert await job == [{"pid": int(left.read_text())}]


async def test_a_job_that_comes_while_its_child_is_retired_gets_another(generator: Make) -> None:
    """The child that is on its way out is not asked, and not waited for."""
    async with generator("either", idle_timeout_s=FOR_EVER_S) as either:
        first = await pid_of(either)
        pass_time(either._pool, FOR_EVER_S, children=1)
        assert len(either._pool._retiring) == 1
        assert await pid_of(either) != first
        assert not is_running(first)


async def test_closing_while_children_are_retired_waits_for_them(generator: Make, tmp_path: Path) -> None:
    """Nothing is left when the generator is closed, and no timer."""
    async with generator("either", processes=2, idle_timeout_s=FOR_EVER_S) as either:
        pids = await two_idle(either, tmp_path)
        pass_time(either._pool, FOR_EVER_S, children=1)
        timer = either._pool._idle_timer
        assert timer is not None
    assert not any(map(is_running, pids))
    assert timer.cancelled()


async def test_idle_children_end_in_a_drain_too(generator: Make) -> None:
    """A drain may take long: children without work go, and no job brings them back."""
    async with generator("either", idle_timeout_s=0.05) as either:
        either.stop_starting()
        await comes(lambda: not either._pool._children)
        with pytest.raises(Unavailable):
            await pid_of(either)
        assert not either._pool._children


async def test_ping_tries_a_start_only_after_one_failed(generator: Make, tmp_path: Path) -> None:
    """No child and no failure is fine; after a failure ping finds out when it is over."""
    module = tmp_path / "generate_sometimes.py"
    module.write_text("import os\ndef create(request):\n    return {'pid': os.getpid()}\n")
    making = generator("generate_sometimes:create", idle_timeout_s=FOR_EVER_S, path=[str(tmp_path)])
    async with making:
        pass_time(making._pool, FOR_EVER_S, children=1)
        module.rename(tmp_path / "gone.py")
        await making.ping()
        with pytest.raises(Unavailable):
            await making.generate(asked("-"))
        with pytest.raises(Unavailable, match="No module named"):
            await making.ping()
        (tmp_path / "gone.py").rename(module)
        making._pool._start_again_at = 0.0
        await making.ping()
        assert len(making._pool._idle) == 1
