"""One child process, seen from the parent: its start, its jobs, its end. The protocol is in `child/`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable
from stacworker.generate.child.channel import HEADER
from stacworker.generate.child.descendants import kill_descendants
from stacworker.generate.child.secrets import without_secrets
from stacworker.generate.output import Output
from stacworker.generate.recipe import Recipe
from stacworker.generate.workspace import Workspace

_CHILD = Path(__file__).parent / "child" / "__main__.py"
_DYING_S = 1.0
"""How long a process that fell silent may take to end by itself, and what it left behind to let go."""
_KILLED_S = 5.0
"""How long a killed child may take to be gone; longer only when it hangs in the kernel, or keeps its guard busy."""
_FRAMING_BYTES = 1 << 20
_STREAMED_BYTES = 1 << 28
"""One result of a stream may have so many bytes of JSON."""
_SHOWN_CHARS = 4096
_REASON_TAIL_BYTES = 600  # of the 1 KiB that a reason may have
ERROR_CLASSES = frozenset(
    {
        "generator_error",
        "generator_memory",
        "generator_no_items",
        "generator_usage",
        "package_not_allowed",
        "raster_invalid",
        "raster_no_space",
        "raster_too_large",
        "raster_unreadable",
        "raster_unusable",
    }
)

_log = structlog.get_logger(__name__)


class _NonsenseError(Exception):
    """The child sent what the protocol does not know."""


_LOST = (OSError, asyncio.IncompleteReadError, _NonsenseError)


class Child:
    """One child: a worker and its guard (`child/guard.py`), which is the process that is started here.

    `start` it, `run` one job at a time while it is `usable`, and `close` it whatever happened. `kill`
    may be called at any time. However a child ends, all that its worker started ends with it.
    """

    def __init__(self, recipe: Recipe, workspace: Workspace) -> None:
        self.about: dict[str, Any] = {}
        """What the target said about itself when it was loaded."""
        self._recipe = recipe
        self._workspace = workspace
        self._jobs = 0
        self._broken = False
        self._folder: str | None = None
        self._output: Output | None = None
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._exit: asyncio.Task[int] | None = None

    @property
    def usable(self) -> bool:
        """Whether the child may be given another job."""
        connected = self._stream is not None and not self._stream[0].at_eof()  # the worker is dead before its guard
        alive = connected and self._exit is not None and not self._exit.done()
        return alive and not self._broken and self._jobs < self._recipe.limits.recycle_after

    async def start(self) -> None:
        """Start the process and have it load the target; raise Unavailable with the reason it cannot."""
        limits, target = self._recipe.limits, self._recipe.target
        init = {
            "path": self._recipe.path,
            "target": {"ref": target.ref, "factory": target.factory, "options": dict(target.options)},
            "memory_bytes": limits.memory_bytes,
            "max_result_bytes": limits.max_result_bytes,
        }
        try:
            async with asyncio.timeout(limits.start_timeout_s):
                await self._spawn()
                await self._send(init)
                answer = _parsed(await self._receive(_FRAMING_BYTES))
        except TimeoutError:
            raise self._cannot_start(f"its process was not ready after {limits.start_timeout_s:g} s") from None
        except _LOST as error:
            how = f"its process {await self._fate()}" if self._exit else f"{type(error).__name__}: {error}"
            raise self._cannot_start(how) from error
        if "ready" not in answer:
            raise self._cannot_start(str(answer.get("failed")))
        self.about = answer["ready"]["about"]

    async def run(self, request: Mapping[str, Any], *, origin: str) -> list[dict[str, Any]]:
        """Return the items of one request; `origin` says in errors where it came from.

        Raises Permanent or Transient as the target's exception asks for (`child/failure.py`), and
        Transient when the job takes too long or its process dies. After these, and when cancelled, the
        child is not usable.
        """
        timeout_s = self._recipe.limits.timeout_s
        self._jobs += 1
        self._broken = True  # until the job ends in order
        if self._output is not None:
            self._output.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send({"request": request})
                items, end = await self._receive_items()
        except TimeoutError:
            raise self._gone("generator_timeout", f"was killed after {timeout_s:g} s", origin) from None
        except _LOST as error:
            raise self._gone("generator_crashed", await self._fate(), origin) from error
        self._broken = bool(end["replace"])
        if "done" not in end:
            raise self._translated(end.get("error"), origin)
        return items

    async def stream(self, request: Mapping[str, Any], *, origin: str) -> AsyncGenerator[dict[str, Any], None]:
        """Give the results of one job as they come, however many; the child waits while nobody takes them.

        Raises as `run` does; `timeout_s` is for each result. The child is not usable afterwards.
        """
        timeout_s = self._recipe.limits.timeout_s
        self._broken = True
        try:
            await self._send({"request": request})
            while True:
                async with asyncio.timeout(timeout_s):
                    frame = _parsed(await self._receive(_STREAMED_BYTES))
                if "item" not in frame:
                    break
                yield frame["item"]
        except TimeoutError:
            raise self._gone("generator_timeout", f"was killed after {timeout_s:g} s", origin) from None
        except _LOST as error:
            raise self._gone("generator_crashed", await self._fate(), origin) from error
        if "done" not in frame:
            raise self._translated(frame.get("error"), origin)

    def kill(self) -> None:
        """Have the child and all that it started killed now."""
        self._broken = True
        if self._process is not None and self._exit is not None and not self._exit.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)
                os.kill(self._process.pid, signal.SIGCONT)  # a guard that was stopped would not hear it

    async def close(self) -> None:
        """Kill the child, wait for it and what it left behind to be gone, and remove its folder."""
        self.kill()
        if self._process is not None and self._exit is not None:
            await asyncio.wait({self._exit}, timeout=_KILLED_S)
            if not self._exit.done():  # somebody keeps the guard from its work
                await asyncio.to_thread(kill_descendants, self._process.pid)
                self.kill()
                await asyncio.wait({self._exit}, timeout=_KILLED_S)
            if not self._exit.done():
                _log.error("generator.child_stuck", generator=self._recipe.name, pid=self._process.pid)
        if self._stream is not None:
            self._stream[1].transport.abort()
        if self._output is not None:
            self._output.close()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _spawn(self) -> None:
        self._folder = self._workspace.new()
        ours, theirs = socket.socketpair()
        self._output = Output()
        with theirs, self._output.write_end() as stdout:
            try:
                self._stream = await asyncio.open_unix_connection(sock=ours)
            except BaseException:
                ours.close()
                raise
            self._process = await asyncio.create_subprocess_exec(
                self._recipe.interpreter,
                *("-P", "-u", str(_CHILD), str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stdout,
                pass_fds=(theirs.fileno(),),
                env={**self._recipe.env, "TMPDIR": self._folder},
                cwd=self._folder,
                start_new_session=True,
            )
        self._exit = asyncio.create_task(self._watch(self._process, self._stream[1].transport))
        if self._broken:  # killed while it was being made
            self.kill()

    async def _watch(self, process: asyncio.subprocess.Process, transport: asyncio.WriteTransport) -> int:
        """Return the exit status; end what waits for the child's answer."""
        status = await process.wait()
        # end of file comes by itself, unless the guard was killed and left somebody who holds the socket open
        asyncio.get_running_loop().call_later(_DYING_S, transport.abort)
        return status

    async def _send(self, content: Mapping[str, Any]) -> None:
        if self._stream is None:
            raise ConnectionError("not started")
        data = orjson.dumps(content)
        self._stream[1].write(HEADER.pack(len(data)) + data)
        await self._stream[1].drain()

    async def _receive(self, max_bytes: int) -> bytes:
        """Return the next frame; raise one of _LOST when there is none."""
        if self._stream is None:
            raise ConnectionError("not started")
        (length,) = HEADER.unpack(await self._stream[0].readexactly(HEADER.size))
        if length > max_bytes:
            raise _NonsenseError(f"a frame of {length} bytes")
        return await self._stream[0].readexactly(length)

    async def _receive_items(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the items of a job and its last frame; raise one of _LOST when the job does not end."""
        items: list[dict[str, Any]] = []
        left_bytes = self._recipe.limits.max_result_bytes + _FRAMING_BYTES
        while True:
            data = await self._receive(left_bytes)
            left_bytes -= len(data)
            frame = _parsed(data)
            if "item" in frame:
                items.append(frame["item"])
            elif isinstance(frame.get("replace"), bool) and frame.get("done", len(items)) == len(items):
                return items, frame
            else:
                raise _NonsenseError("a frame that is not in the protocol")

    async def _fate(self) -> str:
        """Say what became of a child that fell silent."""
        if self._exit is None:
            return "was never started"
        try:
            await asyncio.wait({self._exit}, timeout=_DYING_S)
        finally:
            self.kill()
        if not self._exit.done():
            return "closed its connection, or sent what is not in the protocol"
        status = self._exit.result()
        if status >= 0:
            return f"exited with status {status}"
        name = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def _cannot_start(self, how: str) -> Unavailable:
        text = f"generator {self._recipe.name!r} cannot start: {how}{self._said()}"
        return Unavailable(text, dependency="generator", error_class="generator_start")

    def _gone(self, error_class: str, how: str, origin: str) -> Transient:
        _log.warning("generator.child_lost", generator=self._recipe.name, how=how, output=self._output_tail())
        text = f"generator {self._recipe.name!r}: its process {how} while working on {origin}{self._said()}"
        return Transient(text, error_class=error_class)

    def _translated(self, told: Any, origin: str) -> StacworkerError:
        error: Mapping[str, Any] = told if isinstance(told, dict) else {}
        error_class = str(error.get("class"))
        error_class = error_class if error_class in ERROR_CLASSES else "generator_error"
        reason = f"generator {self._recipe.name!r} failed for {origin}: {error.get('reason')}"
        if error_class == "generator_memory":
            reason += f" (memory_mb is {self._recipe.limits.memory_bytes >> 20})"
        kind = Transient if error.get("transient") is True else Permanent
        return kind(reason, error_class=error_class)

    def _said(self) -> str:
        tail = self._output_tail().encode("utf-8", "replace")[-_REASON_TAIL_BYTES:].decode("utf-8", "ignore")
        return f"; its last output: {tail}" if tail else ""

    def _output_tail(self) -> str:
        return "" if self._output is None else without_secrets(self._output.tail(), self._recipe.env)[-_SHOWN_CHARS:]


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _NonsenseError("a frame that is not JSON") from error
    if not isinstance(content, dict):
        raise _NonsenseError("a frame that is not an object")
    return content
