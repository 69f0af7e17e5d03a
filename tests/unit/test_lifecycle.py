"""How the process is told to end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest

from stacworker.lifecycle import Lifecycle, Stopped


async def test_a_start_ends_at_once_whatever_it_waits_for() -> None:
    """The drain cancels a start; what it had opened is closed on the way."""
    lifecycle = Lifecycle(drain_timeout_s=60)
    asyncio.get_running_loop().call_soon(lifecycle.stop, "test")
    closed: list[str] = []

    async def start() -> None:
        async with lifecycle.starting(), AsyncExitStack() as stack:
            stack.callback(closed.append, "opened before")
            await asyncio.Event().wait()

    with pytest.raises(Stopped):
        await start()
    assert closed == ["opened before"]


async def test_a_stop_before_the_start_is_not_missed() -> None:
    """A signal may come before anything could listen."""
    lifecycle = Lifecycle(drain_timeout_s=60)
    lifecycle.stop("test")
    with pytest.raises(Stopped):
        async with lifecycle.starting():
            await asyncio.Event().wait()


async def test_a_start_that_fails_by_itself_keeps_its_error() -> None:
    """Not every timeout is a stop; afterwards a stop interrupts nothing."""
    lifecycle = Lifecycle(drain_timeout_s=60)
    with pytest.raises(TimeoutError):
        async with lifecycle.starting():
            raise TimeoutError
    async with lifecycle.starting():
        pass
    lifecycle.stop("test")
    await asyncio.sleep(0)


_BLOCKED = """
import asyncio, time
from stacworker.lifecycle import Lifecycle

async def main():
    with Lifecycle(drain_timeout_s=60).signals():
        print("blocked", flush=True)
        time.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_process_whose_loop_is_blocked(number: signal.Signals) -> None:
    """A consumer that blocks the event loop cannot keep the process."""
    with subprocess.Popen([sys.executable, "-c", _BLOCKED], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):  # two signals of a kind at once are one
                process.wait(0.3)
            process.send_signal(number)
            assert process.wait(5) == 128 + number
        finally:
            process.kill()
