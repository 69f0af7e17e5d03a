"""What a process asks the Linux kernel for itself, mostly with prctl(2)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_PDEATHSIG, _DUMPABLE, _CHILD_SUBREAPER = 1, 4, 36  # linux/prctl.h


def die_with(parent: int, signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent dies, however busy it is then.

    To the kernel the parent is the thread that started us, which is the one that runs the event loop.
    """
    _prctl(_PDEATHSIG, signal_number)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def hide_memory() -> None:
    """Let no other process of our user, such as another generator's, read our memory and environment."""
    _prctl(_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever is below this process and loses its own parent."""
    _prctl(_CHILD_SUBREAPER, 1)


def die_first() -> None:
    """Be killed before the daemon when the machine or the container runs out of memory. Not after `hide_memory`."""
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text(str(min(1000, int(_OOM_SCORE.read_text("ascii")) + 500)), "ascii")


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
