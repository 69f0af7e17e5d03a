"""The child's life: load the target, run job after job, end with the parent."""

from __future__ import annotations

import ctypes
import importlib
import inspect
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .channel import Channel
from .failure import failure, report
from .items import NotItems, encode, items_of, kind

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # linux/prctl.h
_RESERVE_BYTES = 1 << 20


def serve(fd: int) -> int:
    """Serve the parent at the other end of `fd` until it closes; return the exit status."""
    channel, folder = Channel(fd), Path.cwd()
    init = channel.receive()
    if init is None:
        return 0
    die_with(init["parent"])
    hide_memory()
    sys.path[:0] = init["path"]
    try:
        function, about = load(**init["target"])
        limit_memory(init["memory_bytes"])
    except BaseException as error:  # noqa: BLE001 - whatever a user's module raises, SystemExit included
        channel.send({"failed": report(error)})
        return 1
    channel.send({"ready": {"python": sys.version.split()[0], "about": about}})
    job = Job(function, channel.send_item, init["max_result_bytes"])
    reserve: bytearray | None = bytearray(_RESERVE_BYTES)  # so that a lack of memory can be told
    while (frame := channel.receive()) is not None:
        try:
            last: dict[str, Any] = {"done": job.run(frame["request"])}
        except BaseException as error:  # noqa: BLE001 - the user's code ends here, sys.exit() included
            if isinstance(error, MemoryError):
                reserve = None
            last = {"error": failure(error)}
        channel.exit_if_forked()
        replace = reserve is None or has_children() or not wipe(folder)
        channel.send(last | {"replace": replace})
    return 0


class Job:
    """Runs the target's function; keeps the event loop that its coroutines share, until it is closed.

    `give` takes each item as JSON.
    """

    def __init__(self, function: Callable[[Any], Any], give: Callable[[bytes], None], max_result_bytes: int) -> None:
        self._function = function
        self._give = give
        self._max_result_bytes = max_result_bytes
        self._runner: Any = None
        self._count = 0
        self._bytes = 0

    def run(self, request: Any) -> int:
        """Give the request's items; return how many. Raises whatever the target raises."""
        self._count = self._bytes = 0
        value = self._function(request)
        if hasattr(value, "__await__") or hasattr(value, "__aiter__"):
            if self._runner is None:
                import asyncio  # noqa: PLC0415 - 20 ms of start that most targets need not pay

                self._runner = asyncio.Runner()
            value = self._runner.run(self._settle(value))
        self._emit(value)
        return self._count

    def close(self) -> None:
        """Close the event loop, where one was needed."""
        if self._runner is not None:
            self._runner.close()

    async def _settle(self, value: Any) -> Any:
        if hasattr(value, "__await__"):
            value = await value
        if not hasattr(value, "__aiter__"):
            return value
        async for entry in value:
            self._emit([entry])
        return []

    def _emit(self, value: Any) -> None:
        for item in items_of(value):
            data = encode(item)
            self._bytes += len(data)
            if self._bytes > self._max_result_bytes:
                raise NotItems(f"the items of this request are larger than {self._max_result_bytes} bytes")
            self._give(data)
            self._count += 1


def load(ref: str, *, factory: bool, options: dict[str, Any]) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """Import a target; return its function of one request, and what it says about itself.

    Raises LookupError or TypeError with a line for the operator, or whatever the module raises.
    """
    module, _, attribute = ref.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            there = [name for name, value in vars(found).items() if getattr(value, "__module__", None) == module]
            raise LookupError(f"{module} has no {attribute!r}; it has {', '.join(there) or 'nothing of its own'}")
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{ref} is {kind(found)}, expected a function create_items(request)")
    if factory:
        function = found(**options)
        return function, getattr(function, "about", {})
    try:
        inspect.signature(found).bind({}, **options)
    except TypeError as error:
        names = ", ".join(options) or "none"
        raise TypeError(f"{ref} cannot be called with a request and its options ({names}): {error}") from None
    except ValueError:
        pass  # something built in that does not tell its signature
    return (lambda request: found(request, **options)), {}


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however busy it is then.

    To the kernel the parent is the thread that started us, which is the one that runs the event loop.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def hide_memory() -> None:
    """Let no other process of our user, such as another generator's, read our memory and environment."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_memory(more_bytes: int) -> None:
    """Allow `more_bytes` of address space above what is in use now, and no core dumps."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = pages * resource.getpagesize() + more_bytes
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def has_children() -> bool:
    """Return whether the target left processes behind (dead ones that nobody waited for included)."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def wipe(folder: Path) -> bool:
    """Empty the working directory and return to it; return whether that was possible."""
    try:
        os.chdir(folder)
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
    except OSError:
        return False
    return True
