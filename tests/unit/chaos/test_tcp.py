"""The TCP proxy of the fault-injection suite, before a small server that answers each line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from tests.chaos.tcp import TcpProxy

T = TypeVar("T")


@dataclass
class Server:
    """Answers every line with "<line> done"; `lines` are those it got."""

    port: int = 0
    lines: list[bytes] = field(default_factory=list)
    ends: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.lines.append(line.strip())
                writer.write(line.strip() + b" done\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.ends += 1
            writer.close()


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, line: bytes) -> bytes:
        self.send(line + b"\n")
        return await patiently(self.reader.readline())


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as running:
        yield running


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[TcpProxy]:
    async with TcpProxy("127.0.0.1", server.port) as running:
        yield running


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def patiently(awaitable: Awaitable[T]) -> T:
    """Return what comes; that it comes at all is what tests are about, not how soon."""
    return await asyncio.wait_for(awaitable, 30)


async def connected(proxy: TcpProxy, stack: AsyncExitStack) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    stack.callback(writer.close)
    return Client(reader, writer)


async def until(condition: object, *, what: str) -> None:
    """Wait for something that happens on the other side."""
    assert callable(condition)
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"never happened: {what}")


async def test_bytes_and_ends_pass_in_both_directions(proxy: TcpProxy, server: Server, stack: AsyncExitStack) -> None:
    """Without faults nobody notices the proxy: the client's end reaches the server, and the server's the client."""
    client = await connected(proxy, stack)
    assert await client.ask(b"one") == b"one done\n"
    client.send(b"two\n")
    client.writer.write_eof()
    assert await patiently(client.reader.read()) == b"two done\n"
    await until(lambda: proxy.open_connections == 0, what="the connection's end")
    assert server.lines == [b"one", b"two"]
    assert proxy.injected == {}


async def test_much_data_arrives_whole(proxy: TcpProxy, stack: AsyncExitStack) -> None:
    """What is larger than the proxy's buffers comes through unchanged, in both directions at once."""
    client = await connected(proxy, stack)
    lines = [b"%d " % n * 10_000 for n in range(100)]
    client.send(b"\n".join(lines) + b"\n")
    client.writer.write_eof()
    assert await patiently(client.reader.read()) == b"".join(line.strip() + b" done\n" for line in lines)


async def test_refused_connections_are_reset(proxy: TcpProxy, server: Server, stack: AsyncExitStack) -> None:
    """New connections are reset, open ones go on."""
    before = await connected(proxy, stack)
    await before.ask(b"early")
    proxy.refuse()
    refused = await connected(proxy, stack)
    with pytest.raises(ConnectionResetError):
        await patiently(refused.reader.read())
    assert await before.ask(b"late") == b"late done\n"
    proxy.pass_()
    assert await (await connected(proxy, stack)).ask(b"again") == b"again done\n"
    assert server.lines == [b"early", b"late", b"again"]
    assert proxy.injected == {"refused": 1}


async def test_a_server_that_is_away_resets_the_client(stack: AsyncExitStack) -> None:
    """Nobody listens behind the proxy: the client's connection fails and does not hang."""
    probe = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    async with TcpProxy("127.0.0.1", port) as proxy:
        client = await connected(proxy, stack)
        with pytest.raises(ConnectionResetError):
            await patiently(client.reader.read())


async def test_frozen_connections_stay_open_and_silent(proxy: TcpProxy, server: Server, stack: AsyncExitStack) -> None:
    """Nothing moves while frozen, on old connections and new ones; all of it moves afterwards."""
    old = await connected(proxy, stack)
    await old.ask(b"before")
    proxy.freeze()
    old.send(b"old\n")
    new = await connected(proxy, stack)
    new.send(b"new\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(old.reader.readline(), 0.2)
    assert server.lines == [b"before"]
    assert not old.reader.at_eof()
    proxy.pass_()
    assert await patiently(old.reader.readline()) == b"old done\n"
    assert await patiently(new.reader.readline()) == b"new done\n"
    assert proxy.injected == {"frozen": 2}


async def test_an_end_does_not_pass_while_frozen(proxy: TcpProxy, server: Server, stack: AsyncExitStack) -> None:
    """Half-open means that neither side learns that the other has gone."""
    client = await connected(proxy, stack)
    await client.ask(b"hello")
    proxy.freeze()
    client.writer.write_eof()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(), 0.2)
    assert server.ends == 0
    proxy.pass_()
    assert await patiently(client.reader.read()) == b""
    assert server.ends == 1


async def test_frozen_connections_can_be_cut(proxy: TcpProxy, server: Server, stack: AsyncExitStack) -> None:
    """A cut ends what is frozen too, and nothing of it moves later."""
    client = await connected(proxy, stack)
    await client.ask(b"hello")
    proxy.freeze()
    client.send(b"never\n")
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        await patiently(client.reader.read())
    await until(lambda: server.ends == 1, what="the server's end")
    proxy.pass_()
    assert server.lines == [b"hello"]
    assert proxy.injected == {"frozen": 1, "cut": 1}


async def test_slow_connections_delay_each_chunk(proxy: TcpProxy, stack: AsyncExitStack) -> None:
    """Request and answer are each held back."""
    client = await connected(proxy, stack)
    await client.ask(b"quick")
    loop = asyncio.get_running_loop()
    proxy.slow(0.1)
    begun = loop.time()
    assert await client.ask(b"slow") == b"slow done\n"
    assert loop.time() - begun >= 0.2
    assert proxy.injected == {"slowed": 2}


async def test_a_cut_resets_both_sides(proxy: TcpProxy, server: Server, stack: AsyncExitStack) -> None:
    """All open connections end at once; the next one works."""
    clients = [await connected(proxy, stack) for _ in range(3)]
    for client in clients:
        await client.ask(b"hello")
    assert proxy.cut() == 3
    assert proxy.cut() == 0
    for client in clients:
        with pytest.raises(ConnectionResetError):
            await patiently(client.reader.read())
    await until(lambda: server.ends == 3, what="the ends of the server's connections")
    assert await (await connected(proxy, stack)).ask(b"next") == b"next done\n"
    assert proxy.injected == {"cut": 3}


async def test_a_cut_before_a_pattern_keeps_it_from_the_server(
    proxy: TcpProxy, server: Server, stack: AsyncExitStack
) -> None:
    """The connection that sends it is cut, the server has not got it, and as often as was asked for."""
    proxy.cut_on(b"COMMIT;", forward_first=False, times=2)
    bystander = await connected(proxy, stack)
    for _ in range(2):
        client = await connected(proxy, stack)
        assert await client.ask(b"BEGIN;") == b"BEGIN; done\n"
        client.send(b"COMMIT;\n")
        with pytest.raises(ConnectionResetError):
            await patiently(client.reader.read())
    assert await bystander.ask(b"COMMIT;") == b"COMMIT; done\n"
    assert server.lines == [b"BEGIN;", b"BEGIN;", b"COMMIT;"]
    assert proxy.injected == {"cut_before": 2}


async def test_a_cut_after_a_pattern_loses_only_the_answer(
    proxy: TcpProxy, server: Server, stack: AsyncExitStack
) -> None:
    """The server acts on it, and the client sees a reset and not one byte of the answer."""
    proxy.cut_on(b"COMMIT;", forward_first=True, times=1)
    client = await connected(proxy, stack)
    assert await client.ask(b"BEGIN;") == b"BEGIN; done\n"
    client.send(b"COMMIT;\n")
    with pytest.raises(ConnectionResetError):
        await patiently(client.reader.read(1))
    assert server.lines == [b"BEGIN;", b"COMMIT;"]
    assert proxy.injected == {"cut_after": 1}


async def test_a_pattern_may_come_in_pieces(proxy: TcpProxy, server: Server, stack: AsyncExitStack) -> None:
    """The proxy finds it across chunks; what was sent before the cut was wished for does not count."""
    client = await connected(proxy, stack)
    await client.ask(b"COMMIT;")
    proxy.cut_on(b"COMMIT;", forward_first=False, times=1)
    assert await client.ask(b"not") == b"not done\n"
    client.send(b"x\nCOM")
    assert await patiently(client.reader.readline()) == b"x done\n"
    client.send(b"MIT;\n")
    with pytest.raises(ConnectionResetError):
        await patiently(client.reader.read())
    assert server.lines == [b"COMMIT;", b"not", b"x"]


async def test_passing_forgets_cuts(proxy: TcpProxy, stack: AsyncExitStack) -> None:
    """A pattern that was waited for in vain means nothing any more."""
    proxy.cut_on(b"COMMIT;", forward_first=True, times=1)
    proxy.pass_()
    assert await (await connected(proxy, stack)).ask(b"COMMIT;") == b"COMMIT; done\n"
    assert proxy.injected == {}


async def test_leaving_ends_whatever_is_open(server: Server, stack: AsyncExitStack) -> None:
    """Frozen, slow or idle: no connection and no task survives the proxy."""
    tasks = asyncio.all_tasks()
    async with TcpProxy("127.0.0.1", server.port) as proxy:
        idle = await connected(proxy, stack)
        await idle.ask(b"hello")
        proxy.freeze()
        frozen = await connected(proxy, stack)
        await until(lambda: proxy.open_connections == 2, what="both connections")
    for client in (idle, frozen):
        with pytest.raises(ConnectionResetError):
            await patiently(client.reader.read())
    await until(lambda: asyncio.all_tasks() == tasks, what="the end of all tasks")
