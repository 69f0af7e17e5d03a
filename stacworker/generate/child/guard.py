"""The process between the daemon and a worker: it sees to it that nothing a target starts outlives its worker.

What a target starts may leave the worker's process group and session, change all that could mark it, and lose its
parent. It stays below this process: orphans come to the nearest living ancestor that adopts them. So when this
process has no child left, nothing is left; the kernel says so exactly (ECHILD), whatever /proc shows.
"""

from __future__ import annotations

import contextlib
import os
import signal

from .descendants import kill_descendants
from .prctl import adopt_orphans, die_first, die_with, hide_memory

_SIGNALS = {signal.SIGTERM, signal.SIGCHLD}
_DYING_S = 0.05


def under_guard(parent: int, socket: int) -> None:
    """Fork, and return in the new process: the worker, leader of a session of its own, with the `socket` to `parent`.

    This process stays between the two. When the worker ends, SIGTERM comes, or the parent dies, it kills all that is
    below it, and ends as the worker did.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored the kernel buries the dead, and tells nobody
    die_with(parent, signal.SIGTERM)
    adopt_orphans()
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        die_with(guard, signal.SIGKILL)
        os.setsid()
        die_first()
        hide_memory()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return
    try:
        hide_memory()
        _let_go(socket)
        while signal.sigwait(_SIGNALS) == signal.SIGCHLD and not _is_dead(worker):
            pass
    finally:
        _end_as(_bury(worker))


def _let_go(socket: int) -> None:
    """Hold nothing that is the worker's: the other ends must see when it closes them."""
    os.close(socket)
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.chdir("/")


def _is_dead(worker: int) -> bool:
    return os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _bury(worker: int) -> int:
    """Kill all that is below us and wait for it to be gone; return the worker's exit code."""
    for kill in (os.killpg, os.kill):  # it may not lead its group yet
        with contextlib.suppress(ProcessLookupError):
            kill(worker, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    while _has_living_children():
        kill_descendants(os.getpid())
        signal.sigtimedwait({signal.SIGCHLD}, _DYING_S)
    return code


def _has_living_children() -> bool:
    """Reap the dead; return whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _end_as(code: int) -> None:
    if code < 0:
        with contextlib.suppress(OSError):  # nobody handles SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 1)
