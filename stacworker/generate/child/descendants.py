"""All processes below one, whatever group and session they went to: found in /proc, stopped, then killed.

They may fork and end faster than one can look, so all are stopped (SIGSTOP) before any is killed: what is stopped forks
no more, sees nobody die that it could replace, and keeps its number from being given to a stranger. The root of the
tree must adopt orphans (`prctl.adopt_orphans`), and must reap none of them meanwhile: every process that ended since
the last look is then seen as a zombie, so a look that finds nothing new means that nothing is moving.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path

_ROUNDS = 100
_QUIET_ROUNDS = 10
_SPRINT = 200
_HALTED, _DEAD = "TtZX", "ZX"


def kill_descendants(root: int) -> None:
    """Kill all that is below `root`. Who was quicker than that needs another call: ask for what is left."""
    members = _stopped_descendants(root)
    for pid in members:
        _send(signal.SIGKILL, pid, {root, *members})


def _stopped_descendants(root: int) -> list[int]:
    """Stop all that is below `root`; return what is alive of it."""
    members: dict[int, str] = {}
    quiet = 0
    for _ in range(_ROUNDS):
        known, members = members, _descendants(root)
        moving = [pid for pid, state in members.items() if state not in _HALTED]
        quiet = quiet + 1 if members.keys() <= known.keys() else 0
        # One that waits for its own vfork cannot be stopped, and does nothing.
        if quiet > (_QUIET_ROUNDS if moving else 0):
            break
        parents = members.keys() | {root}
        for pid in moving:
            _send(signal.SIGSTOP, pid, parents)
        _pursue(parents)
    return [pid for pid, state in members.items() if state not in _DEAD]


def _pursue(parents: Collection[int]) -> None:
    """Stop who forks and ends without a pause, and is gone before a look at all processes is over."""
    last = 0
    for _ in range(_SPRINT):
        newest = _newest()
        if newest == last:
            return
        for pid in (newest, newest + 1):
            _send(signal.SIGSTOP, pid, parents)
        last = newest


def _descendants(root: int) -> dict[int, str]:
    """Return number and state of each process below `root`, dead ones that nobody waited for included."""
    children: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - twice as fast
        if name.isdigit() and (found := _state_and_parent(int(name))):
            states[int(name)] = found[0]
            children.setdefault(found[1], []).append(int(name))
    members: dict[int, str] = {}
    pending = [root]
    while pending:
        for pid in children.get(pending.pop(), ()):
            members[pid] = states[pid]
            pending.append(pid)
    return members


def _send(number: int, pid: int, parents: Collection[int]) -> None:
    """Send a signal to a living process if one of `parents` is its parent.

    The look and the signal are for the same process: a descriptor of it is opened before either.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # not known here
        descriptor = None
    try:
        found = _state_and_parent(pid)
        if found is None or found[0] in _DEAD or found[1] not in parents:
            return
        if descriptor is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    """Return what /proc says of a process, which everybody may read; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # "pid (name) state parent …", and a name may hold spaces and brackets
    fields = text.rpartition(b")")[2].split(maxsplit=2)
    return (fields[0].decode(), int(fields[1])) if len(fields) > 1 else None


def _newest() -> int:
    """Return the number that was given to a process last."""
    return int(Path("/proc/loadavg").read_bytes().split()[-1])
