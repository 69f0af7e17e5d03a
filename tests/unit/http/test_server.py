"""What the HTTP port answers, to those who ask and to those who do not behave."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from stacworker import __version__
from stacworker.errors import ConfigError
from stacworker.http import connections
from stacworker.http.server import create_app, serving
from stacworker.http.status import Status
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics

ROUTES = ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs")


async def sent(port: int, *parts: bytes) -> bytes:
    """Send parts over one connection and return all that comes back until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Serve the pages of a process that has started."""
    status = Status(Lifecycle(drain_timeout_s=1), started=True)
    async with serving(create_app(status, Metrics().registry), host="127.0.0.1", port=0) as found:
        yield found


async def test_nothing_can_be_written(port: int) -> None:
    """There are pages to read; every other method is refused, with a body or without."""
    for path in ROUTES:
        assert status_of(await sent(port, request("GET", path))) == 200
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X"):
            assert status_of(await sent(port, request(method, path, "Content-Length: 2", body=b"{}"))) == 405


async def test_answers_tell_neither_version_nor_server(port: int) -> None:
    """Which program in which version this is stands in the metrics, as build_info."""
    answers = [await sent(port, request("GET", path)) for path in ("/livez", "/readyz", "/openapi.json", "/docs", "/x")]
    for answer in answers:
        assert b"\r\nserver:" not in answer.lower()
        assert b"uvicorn" not in answer.lower()
        assert __version__.encode() not in answer
    assert json.loads(answers[2].partition(b"\r\n\r\n")[2])["info"]["version"] == "1"


GARBAGE = {
    "binary": bytes(range(256)) * 4,
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\0" * 200,
    "no request line": b"\r\n\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a bad version": b"GET /livez HTTP/9.9\r\n\r\n",
    "spaces": b"GET  /livez  HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the path": b"GET /li\0vez HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two lengths": request("GET", "/livez", "Content-Length: 1", "Content-Length: 2"),
    "length and chunks": request("GET", "/livez", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a negative length": request("GET", "/livez", "Content-Length: -1"),
    "bad chunks": request("GET", "/livez", "Transfer-Encoding: chunked", body=b"zz\r\n"),
    "a header without a colon": b"GET /livez HTTP/1.1\r\nHost\r\n\r\n",
    "a long path": request("GET", "/" + "a" * 100_000),
    "a long header": request("GET", "/livez", "X: " + "a" * 100_000),
    "many headers": request("GET", "/livez", *(f"X{n}: a" for n in range(10_000))),
    "a path out": request("GET", "/../../etc/passwd"),
    "an encoded path out": request("GET", "/%2e%2e/%2e%2e/etc/passwd"),
    "a proxy's request": request("GET", "http://169.254.169.254/latest/meta-data/"),
    "an upgrade": request("GET", "/nothing", "Upgrade: websocket"),
    "half a request": b"GET /livez HTT",
}


async def test_garbage_costs_nothing(port: int) -> None:
    """No answer of class 5xx, whatever can be made of it; the next one who asks is answered."""
    for name, garbage in GARBAGE.items():
        answer = await sent(port, garbage)
        assert status_of(answer) < 500, name
        assert b"root:" not in answer, name
        assert b"Traceback" not in answer, name
        assert status_of(await sent(port, request("GET", "/livez"))) == 200, name


@pytest.mark.parametrize("start", [b"GET /", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nX: "])
async def test_a_head_without_end_is_refused(port: int, start: bytes) -> None:
    """Paths and headers are bounded: what does not end is not kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    ending = asyncio.create_task(reader.read())
    sent_bytes = 0
    async with asyncio.timeout(20):
        while not ending.done():
            writer.write((b"a" * 60 + b":\r\n") * 64 if start.endswith(b"\n") else b"a" * 4096)
            sent_bytes += 4096
            await asyncio.wait({ending}, timeout=0.01)
    await asyncio.gather(ending, return_exceptions=True)
    assert sent_bytes < 4_000_000
    writer.close()


async def test_a_large_body_is_not_read(port: int) -> None:
    """The answer comes before a body that nobody wants, and the connection ends with it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("POST", "/livez", "Content-Length: 1000000000"))
    async with asyncio.timeout(20):
        assert status_of(await reader.readline()) == 405
        await reader.read()
    writer.close()


async def test_idle_clients_keep_nobody_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connections wait with half a request, a probe is answered: the oldest of them go."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    idle = []
    for _ in range(40):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nX: ")
        idle.append((reader, writer))
    assert status_of(await sent(port, request("GET", "/livez"))) == 200
    async with asyncio.timeout(20):
        for reader, _ in idle[:20]:
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
    assert not any(reader.at_eof() for reader, _ in idle[21:])
    for _, writer in idle:
        writer.close()


@pytest.mark.parametrize("start", [b"", b"GET /livez HTTP/1.1\r\nX: ", request("POST", "/x", "Content-Length: 9")])
async def test_a_client_that_says_nothing_more_is_cut_off(
    port: int, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """Whatever it began with, and although it sends a byte now and then."""
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    async with asyncio.timeout(20):
        ending = asyncio.create_task(reader.read())
        while not ending.done():
            writer.write(b"a")
            await asyncio.wait({ending}, timeout=0.05)
        await asyncio.gather(ending, return_exceptions=True)
    writer.close()


async def test_a_client_that_takes_no_answers_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody reads are not kept for ever."""
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    asking = socket.create_connection(("127.0.0.1", port))
    asking.setblocking(False)  # noqa: FBT003 - the standard library's signature
    loop = asyncio.get_running_loop()
    with asking:
        asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_for_ever(lambda: loop.sock_sendall(asking, asked)), 20)


async def _for_ever(call: Callable[[], Awaitable[None]]) -> None:
    while True:
        await call()


async def test_a_connection_may_be_used_again(port: int) -> None:
    """Short reins do not mean one request a connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length)) == {"status": "ok", "reasons": []}
    writer.close()


async def test_it_listens_where_it_is_told() -> None:
    """On the address of the settings and no other; one that is taken is a wrong setting."""
    app = create_app(Status(Lifecycle(drain_timeout_s=1)), Metrics().registry)
    async with serving(app, host="127.0.0.1", port=0) as port:
        assert status_of(await sent(port, request("GET", "/readyz"))) == 503
        with pytest.raises(ConfigError, match="cannot listen on"):
            async with serving(app, host="127.0.0.1", port=port):
                pass
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", port)
