"""Jobs that crash, hang, hog and litter: each costs itself and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stacworker.api import Request, Version
from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable
from stacworker.generate.function import FunctionGenerator
from stacworker.metrics import Metrics
from tests.unit.generate.conftest import is_running, state_and_parent

Make = Callable[..., FunctionGenerator]


def asked(call: str, **body: Any) -> Request:
    return Request({"id": "a", "call": call, **body}, Version(1), origin="message body")


async def pid_of(generator: FunctionGenerator) -> int:
    (item,) = await generator.generate(asked("pid"))
    return int(item["pid"])


async def appears(path: Path) -> str:
    """Wait for a file that a child makes, and return what is in it."""
    async with asyncio.timeout(10):
        while (text := read(path)) is None:
            await asyncio.sleep(0.005)
    return text


def read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def bury(pid: int) -> None:
    """Reap a dead process that was not our child, but became it because this session adopts orphans."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


async def is_gone(pid: int) -> bool:
    """Wait for a process to end."""
    async with asyncio.timeout(10):
        while is_running(pid):
            await asyncio.sleep(0.005)
    return True


@pytest.mark.parametrize(
    ("call", "error_class", "reason"),
    [
        (
            "exits",
            "generator_crashed",
            "its process exited with status 1 while working on message body; its last output: goodbye",
        ),
        (
            "kills_itself",
            "generator_crashed",
            "its process was killed by SIGKILL (out of memory?) while working on message body",
        ),
        ("segfault", "generator_crashed", "its process was killed by SIGSEGV while working on message body"),
        (
            "closes_everything",
            "generator_crashed",
            "its process exited with status 1 while working on message body",
        ),
        (
            "writes_to_every_descriptor",
            "generator_crashed",
            "its process closed its connection, or sent what is not in the protocol while working on message body",
        ),
    ],
)
async def test_a_crash_costs_one_job(generator: Make, call: str, error_class: str, reason: str) -> None:
    """A process that dies, or talks nonsense, is a transient error of its own job; the next job is served."""
    async with generator("either") as either:
        first = await pid_of(either)
        with pytest.raises(Transient) as caught:
            await either.generate(asked(call))
        second = await pid_of(either)
    assert caught.value.error_class == error_class
    assert caught.value.reason.startswith(f"generator 'sample': {reason}")
    assert first != second


async def test_a_job_that_hangs_is_killed_on_time(generator: Make) -> None:
    """After the timeout the process is gone, and what it printed is in the reason."""
    async with generator("either", timeout_s=0.3) as either:
        first = await pid_of(either)
        with pytest.raises(Transient) as caught:
            await either.generate(asked("hang"))
        assert caught.value.error_class == "generator_timeout"
        assert caught.value.reason == (
            "generator 'sample': its process was killed after 0.3 s while working on message body; its last "
            "output: about to hang"
        )
        assert await is_gone(first)
        assert await pid_of(either) != first


async def test_a_job_that_wants_too_much_memory_fails_alone(generator: Make) -> None:
    """The cap on memory ends the job with a reason that names the cap; its process is replaced."""
    async with generator("either", memory_bytes=1 << 30) as either:
        first = await pid_of(either)
        with pytest.raises(Transient) as caught:
            await either.generate(asked("hog"))
        assert caught.value.error_class == "generator_memory"
        assert caught.value.reason == (
            "generator 'sample' failed for message body: ran out of memory (memory_mb is 1024)"
        )
        assert await pid_of(either) != first


@pytest.mark.parametrize("call", ["prints_binary", "closes_output"])
async def test_what_a_job_does_to_its_output_does_not_matter(generator: Make, call: str) -> None:
    """Noise on standard output and error, and closing them, leaves the job and the process as they are."""
    async with generator("either") as either:
        first = await pid_of(either)
        assert [item["id"] for item in await either.generate(asked(call))] == ["a"]
        assert await pid_of(either) == first


@pytest.mark.parametrize(
    ("request_", "expected", "reason"),
    [
        (
            asked("raises"),
            Permanent,
            (
                "ValueError: cannot read a\n"
                'at generate_samples.py:{either} in either: return globals()[request["call"]](request)\n'
                "at generate_samples.py:{line} in raises: raise ValueError(f\"cannot read {request['id']}\")"
            ),
        ),
        (asked("system_exit"), Permanent, "SystemExit: not today"),
        (asked("raises_with_broken_text"), Permanent, "(its text cannot be had: RuntimeError)"),
        (asked("raises_from_itself"), Permanent, "ValueError: as told"),
        (asked("raises_odd_text"), Permanent, "ValueError: caf?.tif"),
        (asked("raises_what_it_is_told", error="ConnectionResetError"), Transient, "ConnectionResetError: as told"),
        (asked("raises_what_it_is_told", error="TimeoutError"), Transient, "TimeoutError: as told"),
        (asked("raises_what_it_is_told", error="OSError"), Transient, "OSError: as told"),
        (asked("raises_what_it_is_told", error="FileNotFoundError"), Permanent, "FileNotFoundError: as told"),
        (asked("raises_what_it_is_told", error="KeyboardInterrupt"), Permanent, "KeyboardInterrupt: as told"),
        (
            asked("raises_what_it_is_told", error="ValueError", cause="ConnectionError"),
            Transient,
            "ValueError: as told",
        ),
        (
            asked("raises_what_it_is_told", error="ValueError", attributes={"transient": True}),
            Transient,
            "ValueError: as told",
        ),
        (
            asked("raises_what_it_is_told", error="OSError", attributes={"transient": False}),
            Permanent,
            "OSError: as told",
        ),
        (asked("raises_what_it_is_told", error="OSError", attributes={"code": 404}), Permanent, "OSError: as told"),
        (asked("raises_what_it_is_told", error="OSError", attributes={"code": 429}), Transient, "OSError: as told"),
        (
            asked("raises_what_it_is_told", error="ValueError", attributes={"status": 503}),
            Transient,
            "ValueError: as told",
        ),
    ],
)
async def test_an_exception_says_whether_to_try_again(
    generator: Make, request_: Request, expected: type[StacworkerError], reason: str
) -> None:
    """Network trouble is transient, anything else permanent; the process stays for the next job."""
    async with generator("either") as either:
        first = await pid_of(either)
        with pytest.raises(expected) as caught:
            await either.generate(request_)
        assert await pid_of(either) == first
    assert caught.value.error_class == "generator_error"
    assert caught.value.reason.startswith("generator 'sample' failed for message body: ")
    for mark, text in (("{line}", 'raise ValueError(f"cannot read'), ("{either}", "return globals()")):
        reason = reason.replace(mark, str(_line_of(text)))
    assert reason in caught.value.reason


def _line_of(text: str) -> int:
    lines = (Path(__file__).parent / "functions" / "generate_samples.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


async def test_a_process_is_replaced_after_its_share_of_jobs(generator: Make) -> None:
    """Recycling bounds what leaks: every N jobs come from another process."""
    async with generator("either", recycle_after=2) as either:
        pids = [await pid_of(either) for _ in range(6)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]
    assert len(set(pids)) == 3


async def test_as_many_jobs_run_at_once_as_there_are_processes(generator: Make, tmp_path: Path) -> None:
    """Two jobs that wait for each other both end, in two processes."""
    left, right = str(tmp_path / "left"), str(tmp_path / "right")
    async with generator("either", processes=2) as either:
        results = await asyncio.gather(
            either.generate(asked("meet", mark=left, other=right)),
            either.generate(asked("meet", mark=right, other=left)),
        )
    assert len({item["pid"] for items in results for item in items}) == 2


async def test_a_crash_beside_it_does_not_touch_a_running_job(generator: Make, tmp_path: Path) -> None:
    """While one process waits, another crashes; the first ends as if nothing had been."""
    left, right = tmp_path / "left", tmp_path / "right"
    async with generator("either", processes=2) as either:
        waiting = asyncio.create_task(either.generate(asked("meet", mark=str(left), other=str(right))))
        pid = int(await appears(left))
        with pytest.raises(Transient):
            await either.generate(asked("exits"))
        right.touch()
        assert await waiting == [{"pid": pid}]


async def test_more_jobs_than_processes_wait_their_turn(generator: Make) -> None:
    """A hundred jobs over two processes all end."""
    async with generator("either", processes=2) as either:
        results = await asyncio.gather(*(either.generate(asked("async_item", id=str(n))) for n in range(100)))
    assert [item["id"] for items in results for item in items] == [str(n) for n in range(100)]


async def test_a_cancelled_job_is_killed(generator: Make, tmp_path: Path) -> None:
    """Cancelling the job kills its process at once, and the slot is free for the next."""
    async with generator("either") as either:
        job = asyncio.create_task(either.generate(asked("hang", mark=str(tmp_path / "mark"))))
        pid = int(await appears(tmp_path / "mark"))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await is_gone(pid)
        assert await pid_of(either) != pid


async def test_a_job_cancelled_while_its_process_starts_leaves_nothing(generator: Make) -> None:
    """The start of a process can be cancelled at any point: the next job finds a free slot."""
    async with generator("either", recycle_after=1) as either:
        for steps in range(12):
            await pid_of(either)
            job = asyncio.create_task(either.generate(asked("pid")))
            for _ in range(steps):
                await asyncio.sleep(0)
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
        assert await pid_of(either) > 0


async def test_closing_ends_jobs_that_run(generator: Make, tmp_path: Path) -> None:
    """Leaving the generator kills busy processes; their jobs fail in a way that is tried again."""
    async with generator("either", processes=2) as either:
        job = asyncio.create_task(either.generate(asked("hang", mark=str(tmp_path / "mark"))))
        pid = int(await appears(tmp_path / "mark"))
    assert not is_running(pid)
    with pytest.raises(Transient):
        await job
    with pytest.raises(Transient) as caught:
        await either.generate(asked("pid"))
    assert caught.value.error_class == "generator_closed"


async def test_a_grandchild_left_behind_is_killed(generator: Make) -> None:
    """A job that leaves a process running still gives its items; then it and its process are gone."""
    async with generator("either") as either:
        ((left,),) = [await either.generate(asked("leaves_grandchild"))]
        assert await is_gone(left["pid"])
        assert await is_gone(left["parent"])
        assert await pid_of(either) != left["parent"]


@pytest.mark.parametrize(
    ("call", "error_class"),
    [("hangs_with_grandchild", "generator_timeout"), ("crashes_with_grandchild", "generator_crashed")],
)
async def test_a_grandchild_ends_with_its_parent(generator: Make, tmp_path: Path, call: str, error_class: str) -> None:
    """When the child is killed or dies, what it started goes too, even with our descriptors in hand."""
    async with generator("either", timeout_s=0.5) as either:
        with pytest.raises(Transient) as caught:
            await either.generate(asked(call, mark=str(tmp_path / "mark")))
        assert caught.value.error_class == error_class
        assert await is_gone(int((tmp_path / "mark").read_text()))


def group_members(group: int) -> list[int]:
    """Return the living processes of a process group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                found.append(int(folder.name))
    return found


async def test_a_job_that_runs_away_from_its_killer_is_caught(generator: Make, tmp_path: Path) -> None:
    """Processes that fork and end without a pause are killed all at once with their group."""
    async with generator("either", timeout_s=0.5) as either:
        with pytest.raises(Transient) as caught:
            await either.generate(asked("runs_away", mark=str(tmp_path / "mark")))
        assert caught.value.error_class == "generator_timeout"
        group = int((tmp_path / "mark").read_text())
        assert await is_gone(group)
    assert group_members(group) == []


async def test_a_fork_that_returns_twice_answers_once(generator: Make) -> None:
    """Both copies of a forked process come back from the function; one of them answers."""
    async with generator("either") as either:
        assert await either.generate(asked("forks")) == [{"id": "one"}]
        assert [item["id"] for item in await either.generate(asked("item"))] == ["a"]


async def test_a_child_killed_while_idle_costs_nothing(generator: Make) -> None:
    """A process that the kernel took between jobs is replaced before the next one."""
    async with generator("either") as either:
        pid = await pid_of(either)
        os.kill(pid, signal.SIGKILL)
        await is_gone(pid)
        async with asyncio.timeout(5):
            while next(iter(either._pool._idle)).usable:
                await asyncio.sleep(0.005)
        assert await pid_of(either) != pid


async def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the daemon in the middle of a job no child lives on."""
    script = tmp_path / "daemon.py"
    script.write_text(
        f"import asyncio, sys\nsys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from tests.unit.generate.conftest import make_generator\nfrom stacworker.api import Request, Version\n"
        "async def main():\n    async with make_generator('hang') as generator:\n"
        f"        await generator.generate(Request({{'mark': {str(tmp_path / 'mark')!r}}}, Version(1)))\n"
        "asyncio.run(main())\n"
    )
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    pid = int(await appears(tmp_path / "mark"))
    guard = state_and_parent(pid)[1]
    daemon.kill()
    await daemon.wait()
    assert await is_gone(pid)
    assert await is_gone(guard)
    bury(guard)


async def test_a_start_that_fails_later_pauses_and_recovers(generator: Make, tmp_path: Path) -> None:
    """When the module goes away, jobs and ping fail as Unavailable without trying each time, until it is back."""
    module = tmp_path / "generate_coming_and_going.py"
    module.write_text("import os\ndef create(request):\n    return {'pid': os.getpid()}\n")
    making = generator("generate_coming_and_going:create", recycle_after=1, path=[str(tmp_path)])
    async with making:
        pool = making._pool
        await making.generate(asked("-"))
        module.rename(tmp_path / "gone.py")
        for job in (making.generate(asked("-")), making.generate(asked("-")), making.ping()):
            with pytest.raises(Unavailable) as caught:
                await job
            assert caught.value.dependency == "generator"
            assert "No module named 'generate_coming_and_going'" in caught.value.reason
        assert pool._pause_s == 1.0
        (tmp_path / "gone.py").rename(module)
        pool._start_again_at = 0.0
        await making.ping()
        assert len(await making.generate(asked("-"))) == 1


async def test_generation_is_timed(generator: Make) -> None:
    """Every job counts in the generator's histogram, failed ones too."""
    metrics = Metrics()
    async with generator("either", metrics=metrics) as either:
        await either.generate(asked("item"))
        with pytest.raises(Permanent):
            await either.generate(asked("raises"))
    value = metrics.registry.get_sample_value("stacworker_generation_duration_seconds_count", {"generator": "sample"})
    assert value == 2.0
