"""What a job starts ends with its child, wherever it went; and nothing else does."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stacworker.api import Request, Version
from stacworker.errors import Transient
from stacworker.generate import process
from stacworker.generate.function import FunctionGenerator
from tests.unit.generate.conftest import child_pids, is_running, state_and_parent

Make = Callable[..., FunctionGenerator]
REF = "generate_escapes:either"
ENDS = {"leaves": None, "hangs_with": "generator_timeout", "crashes_with": "generator_crashed"}


def asked(call: str, mark: Path | None = None) -> Request:
    return Request({"call": call, "mark": str(mark)}, Version(1), origin="message body")


async def comes(condition: Callable[[], bool], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def gone(pid: int) -> bool:
    return not is_running(pid)


@pytest.fixture
def stranger() -> Iterator[int]:
    """Start a process that is ours and none of the generators', in a session of its own."""
    with subprocess.Popen(["/bin/sleep", "30"], start_new_session=True) as found:
        yield found.pid
        assert found.poll() is None
        found.kill()


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("left", ["detached", "runaway"])
@pytest.mark.parametrize("how", ENDS)
async def test_nothing_gets_away(generator: Make, tmp_path: Path, how: str, left: str) -> None:
    """Sessions, double forks, processes quicker than any look at them: gone with the child, however it ends.

    The check for children that are left is the fixture's: this session adopts what loses its parent.
    """
    mark = tmp_path / "mark"
    async with generator(REF, timeout_s=0.7) as either:
        (ended,) = await asyncio.gather(either.generate(asked(f"{how}_{left}", mark)), return_exceptions=True)
        assert getattr(ended, "error_class", None) == ENDS[how]
        await comes(lambda: not either._pool._children, within_s=process._KILLED_S - 1)
        if mark.exists():
            assert gone(int(mark.read_text()))
        await either.generate(asked("pid"))


async def test_processes_that_start_each_other_again_end(generator: Make) -> None:
    """Who starts another when one is killed is stopped before that."""
    async with generator(REF, timeout_s=0.3) as either:
        with pytest.raises(Transient):
            await either.generate(asked("watches_each_other"))
        await comes(lambda: not either._pool._children, within_s=1.5)


async def test_sessions_may_be_used(generator: Make) -> None:
    """A tool in a session of its own that ends in order costs nothing: the child goes on."""
    async with generator(REF) as either:
        (first,), (second,) = [await either.generate(asked("shell")) for _ in range(2)]
    assert first == second == {"id": "True", "pid": first["pid"]}


@pytest.mark.usefixtures("stranger")
async def test_what_another_child_started_is_not_touched(generator: Make, tmp_path: Path) -> None:
    """Of two generators side by side each keeps what it has, whatever becomes of the other."""
    mine, yours = tmp_path / "mine", tmp_path / "yours"
    async with generator(REF, timeout_s=20) as one, generator(REF, timeout_s=0.7) as other:
        job = asyncio.create_task(one.generate(asked("hangs_with_detached", mine)))
        await comes(lambda: mine.exists() and mine.read_text() != "")
        for call in ("hangs_with_detached", "crashes_with_detached"):
            yours.unlink(missing_ok=True)
            with pytest.raises(Transient):
                await other.generate(asked(call, yours))
            await comes(lambda: not other._pool._children)
            assert gone(int(yours.read_text()))
        assert is_running(int(mine.read_text()))
        job.cancel()
        await comes(lambda: not one._pool._children)
        assert gone(int(mine.read_text()))


async def test_a_guard_that_is_kept_from_its_work_is_helped(generator: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that stops its guard again and again is killed from outside."""
    monkeypatch.setattr(process, "_KILLED_S", 0.5)
    async with generator(REF, timeout_s=0.3) as either:
        (told,) = await either.generate(asked("pid"))
        with pytest.raises(Transient):
            await either.generate(asked("stops_its_guard"))
        await comes(lambda: not either._pool._children)
        assert gone(told["guard"])


DAEMON = """
import asyncio, os, sys
sys.path.insert(0, {root!r})
from tests.unit.generate.conftest import make_generator
from stacworker.api import Request, Version
async def main():
    async with make_generator("generate_escapes:either", name="escapes", timeout_s={timeout_s}) as generator:
        for call in {calls!r}:
            try:
                print(await generator.generate(Request({{"call": call, "mark": {mark!r}}}, Version(1))))
            except Exception as error:
                print(error)
            while generator._pool._retiring:
                await asyncio.sleep(0.01)
            if os.getpid() == 1:
                print("left:", [name for name in os.listdir("/proc") if name.isdigit()])
asyncio.run(main())
"""


async def daemon(folder: Path, *calls: str, timeout_s: float = 20, prefix: tuple[str, ...] = ()) -> Any:
    """Start a process with a generator that is asked for these one after another."""
    script = folder / "daemon.py"
    root = str(Path(__file__).parents[3])
    script.write_text(DAEMON.format(root=root, timeout_s=timeout_s, calls=calls, mark=str(folder / "mark")))
    return await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, str(script)), env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.PIPE
    )


def can_run(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


async def test_nothing_outlives_a_daemon_that_is_killed(tmp_path: Path) -> None:
    """A kill -9 in the middle of a job leaves neither child nor what it started, in whatever session."""
    mark = tmp_path / "mark"
    before = child_pids()
    killed = await daemon(tmp_path, "hangs_with_detached")
    await comes(lambda: mark.exists() and mark.read_text() != "")
    killed.kill()
    await killed.wait()
    await comes(lambda: gone(int(mark.read_text())))

    def buried() -> bool:
        for pid in child_pids() - before:
            if state_and_parent(pid)[0] == "Z":  # the guard, which came to this session
                os.waitpid(pid, 0)
        return child_pids() <= before

    await comes(buried)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are those of an ordinary user then")
async def test_nothing_gets_away_from_an_ordinary_user(tmp_path: Path) -> None:
    """Without root and its capabilities the same is found and killed, though children hide from each other."""
    for folder, mode in zip([tmp_path, *tmp_path.parents], (0o777, 0o755, 0o755), strict=False):
        folder.chmod(mode)
    # Reading is all that it needs beyond: this interpreter may lie in root's home.
    reads = "dac_override"
    prefix = (
        *(str(shutil.which("setpriv")), "--reuid=65534", "--regid=65534", "--clear-groups"),
        *(f"--inh-caps=-all,+{reads}", f"--ambient-caps=+{reads}", f"--bounding-set=-all,+{reads}"),
    )
    calls = ("hangs_with_detached", "hangs_with_runaway", "crashes_with_runaway", "leaves_runaway", "pid")
    running = await daemon(tmp_path, *calls, timeout_s=0.7, prefix=prefix)
    async with asyncio.timeout(20):
        printed, _ = await running.communicate()
    told = [line for line in printed.decode().splitlines() if line.startswith(("generator 'escapes'", "[{"))]
    expected = ["was killed after 0.7 s", "was killed after 0.7 s", "exited with status 3", "'id': 'done'", "'pid':"]
    assert [text in line for text, line in zip(expected, told, strict=True)] == [True] * 5, told
    assert gone(int((tmp_path / "mark").read_text()))


async def test_nothing_is_left_to_bury_for_a_daemon_that_is_process_1(tmp_path: Path) -> None:
    """In a container, where orphans come to the daemon, neither the living nor the dead of a child do."""
    unshare = (shutil.which("unshare") or "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if not await asyncio.to_thread(can_run, *unshare, "true"):
        pytest.skip("no process namespace can be made here")
    calls = ("hangs_with_detached", "crashes_with_runaway", "leaves_detached")
    running = await daemon(tmp_path, *calls, timeout_s=0.5, prefix=unshare)
    async with asyncio.timeout(20):
        printed, _ = await running.communicate()
    assert [line for line in printed.decode().splitlines() if line.startswith("left:")] == ["left: ['1']"] * 3


async def test_a_worker_is_killed_before_the_daemon_when_memory_runs_out(generator: Make) -> None:
    """To the kernel it is the better victim; its guard is not."""
    async with generator(REF) as either:
        (told,) = await either.generate(asked("pid"))
        assert oom_score(told["pid"]) == min(1000, oom_score(os.getpid()) + 500)
        assert oom_score(told["guard"]) == oom_score(os.getpid())
