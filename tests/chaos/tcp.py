"""A TCP proxy in front of one server, which refuses, freezes, slows and cuts connections on demand."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 1 << 16
_PATTERN_MAX_BYTES = 256
_ANSWER_TIMEOUT_S = 10.0


class TcpProxy:
    """Forwards connections from a free loopback port to `host`:`port`; an async context manager.

    `injected` counts what was done: `refused`, `frozen` (connections opened or held still), `slowed` (chunks),
    `cut`, `cut_before` and `cut_after` (connections). Faults that concern new connections leave the open ones
    alone: join `cut()` to them for a server that is gone.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._links: set[_Link] = set()
        self._moving = asyncio.Event()
        self._refusing = False
        self._delay_s = 0.0
        self._cuts: list[_Cut] = []
        self._server: asyncio.Server | None = None
        self.injected: Counter[str] = Counter()
        self.port = 0

    async def __aenter__(self) -> Self:
        self.pass_()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        links = list(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)
        await self._server.wait_closed()

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._links)

    def pass_(self) -> None:
        """Forget all faults: what was frozen moves on, and new connections are let through."""
        self._refusing = False
        self._delay_s = 0.0
        self._cuts.clear()
        self._moving.set()

    def refuse(self) -> None:
        """Reset new connections at once."""
        self._refusing = True

    def freeze(self) -> None:
        """Move no byte in either direction, and no end of a connection; accept new ones and keep them so."""
        if self._moving.is_set():
            self.injected["frozen"] += len(self._links)
            self._moving.clear()

    def slow(self, delay_s: float) -> None:
        """Hold back every chunk for so long."""
        self._delay_s = delay_s

    def cut(self) -> int:
        """Reset all open connections, on both sides; return how many."""
        links = [link for link in self._links if not link.task.cancelling()]
        for link in links:
            link.reset()
        self.injected["cut"] += len(links)
        return len(links)

    def cut_on(self, pattern: bytes, *, forward_first: bool, times: int = 1) -> None:
        """Reset the next `times` connections in which the client sends `pattern`.

        `forward_first`: the server gets it and answers, and the answer is lost. Otherwise the server gets
        nothing of the chunk with the pattern's end.
        """
        self._cuts.append(_Cut(pattern, forward_first, times))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.injected["refused"] += 1
            _reset(writer)
            return
        link = _Link([writer])
        # A task of our own: a cancelled one of the server's is reported as an error (Python 3.11).
        link.task = asyncio.create_task(self._serve(link, reader, writer))
        self._links.add(link)
        link.task.add_done_callback(lambda _: self._links.discard(link))

    async def _serve(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._moving.is_set():
                self.injected["frozen"] += 1
                await self._moving.wait()
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            link.writers.append(server_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump_up(link, reader, server_writer))
                pumps.create_task(self._pump_down(link, server_reader, writer))
            for each in link.writers:
                each.close()
                await each.wait_closed()
        except* OSError:
            pass  # either side is gone: so goes the other
        finally:
            for each in link.writers:
                _reset(each)

    async def _pump_up(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tail = b""
        while data := await self._read(reader):
            cut = self._struck(tail, data)
            tail = (tail + data)[-_PATTERN_MAX_BYTES:]
            if cut is None:
                await _write(writer, data)
                continue
            if cut.forward_first:
                link.muted = True
                await _write(writer, data)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                        await link.answered.wait()
            self.injected["cut_after" if cut.forward_first else "cut_before"] += 1
            raise ConnectionAbortedError
        _write_eof(writer)

    async def _pump_down(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            if link.muted:
                link.answered.set()
            else:
                await _write(writer, data)
        link.answered.set()
        if not link.muted:
            _write_eof(writer)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(_CHUNK_BYTES)
        if self._delay_s and data:
            self.injected["slowed"] += 1
            await asyncio.sleep(self._delay_s)
        await self._moving.wait()
        return data

    def _struck(self, before: bytes, data: bytes) -> _Cut | None:
        """Return the cut whose pattern ends in this chunk; it may have begun in the one before."""
        for cut in self._cuts:
            if cut.left and cut.pattern in before[max(0, len(before) - len(cut.pattern) + 1) :] + data:
                cut.left -= 1
                return cut
        return None


@dataclass(slots=True)
class _Cut:
    pattern: bytes
    forward_first: bool
    left: int


@dataclass(slots=True, eq=False)
class _Link:
    """One connection: the client's side, and the server's once it is open."""

    writers: list[asyncio.StreamWriter]
    task: asyncio.Task[None] = field(init=False)
    muted: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        for writer in self.writers:
            _reset(writer)
        self.task.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: unsent data is dropped, and the other side's next call fails."""
    if not writer.transport.is_closing():
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def _write_eof(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.write_eof()
