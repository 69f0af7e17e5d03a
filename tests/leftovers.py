"""A pytest plugin: the session fails when processes that tests started are still there at its end.

Grandchildren count too: the session is made a "child subreaper" (prctl(2)), so whoever loses its parent
becomes our child. What is left is killed. SIGTERM ends the session like Ctrl-C, with all fixtures
torn down. Only Linux shows children in /proc; elsewhere nothing is checked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 3.0

# Helpers of Python's multiprocessing that end with their parent.
_EXPECTED = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")

_left = pytest.StashKey[list[str]]()


def pytest_configure() -> None:
    """Adopt orphans, and let SIGTERM tear down what Ctrl-C tears down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Look for leftovers once every fixture is torn down, which also happens in this hook."""
    yield
    deadline = time.monotonic() + _PATIENCE_S
    while (left := _children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        session.config.stash[_left] = [f"{pid}: {command}" for pid, command in left.items()]
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the leftovers."""
    left = config.stash.get(_left, [])
    if left:
        terminalreporter.section("processes left behind by tests (killed)", red=True, bold=True)
        for line in left:
            terminalreporter.line(line)


def _children() -> dict[int, str]:
    """Return our living children, pid and command line; the dead are reaped on the way."""
    children = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # "pid (name) state ppid …"; a name may hold spaces and brackets
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) != os.getpid():
                continue
            if state == "Z":
                os.waitpid(int(folder.name), os.WNOHANG)
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if not any(expected in command for expected in _EXPECTED):
                children[int(folder.name)] = command
    return children
