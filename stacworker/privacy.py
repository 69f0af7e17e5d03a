"""Keeping what this process knows from the processes beside it."""

from __future__ import annotations

import ctypes
import sys

import structlog

_PR_SET_DUMPABLE = 4  # linux/prctl.h

_log = structlog.get_logger()


def hide_memory() -> None:
    """Let no process of the same user read our memory and environment, or trace us; write no core dumps.

    Generators run as our user: without this they read our credentials in /proc/<our pid>/environ. It does not bind
    those that have CAP_SYS_PTRACE, as root usually has; and debuggers (py-spy, gdb) need that capability, too.
    Linux only. What we start gets a fresh start in this.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        _log.warning("process.readable", error=f"prctl: errno {ctypes.get_errno()}")
