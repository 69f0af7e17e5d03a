"""An HTTP proxy in front of an AWS endpoint, which injects faults and is a witness of what is deleted and sent."""

from __future__ import annotations

import asyncio
import functools
import io
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.chaos.aws_faults import Act, Fault, Message
from tests.chaos.calls import Answer, Call, read_call
from tests.chaos.handed import Handed, Sent, accepted, handles_to_delete, successful

_SHUTDOWN_S = 1.0
_KEEPALIVE_S = 2.0
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}

BeforeDelete = Callable[[str, list[str]], Awaitable[None]]
OnSend = Callable[[str, list[Sent]], Awaitable[None]]


class Gateway:
    """Passes AWS calls on to `endpoint_url` from a loopback port of its own; an async context manager.

    Clients keep using the queue URLs they have: they connect to their endpoint, whatever a queue URL says.

    `before_delete(queue URL, message ids)` is awaited before a delete is passed on, also when its answer will
    be lost (a receipt handle that was not handed out here stands for its own message id). `on_send(queue URL,
    messages)` is awaited when a queue has accepted messages, before the client knows. What they raise is
    kept in `hook_errors`; the call goes on.

    `injected` counts strikes by the name of the fault's class, `calls` all calls by operation.
    """

    def __init__(
        self,
        endpoint_url: str,
        *,
        random: Random | None = None,
        before_delete: BeforeDelete | None = None,
        on_send: OnSend | None = None,
    ) -> None:
        self._target = endpoint_url.rstrip("/")
        self.random = random or Random()
        self.before_delete = before_delete
        self.on_send = on_send
        self.hook_errors: list[Exception] = []
        self.injected: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.endpoint_url = ""
        self._faults: list[Fault] = []
        self._strikes: Counter[Fault] = Counter()
        self._handed: defaultdict[str, Handed] = defaultdict(Handed)
        self._ending = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        self._server = web.Server(self._serve, access_log=None, auto_decompress=False)
        self._listener = await asyncio.get_running_loop().create_server(self._server, "127.0.0.1", 0)
        self.endpoint_url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._ending.set()
        await self._server.shutdown(_SHUTDOWN_S)
        await self._listener.wait_closed()
        await self._session.close()

    # -- faults --------------------------------------------------------------------------------------

    def add(self, *faults: Fault) -> None:
        """Let faults strike from now on; the first added stands next to the client."""
        self._faults += faults

    def remove(self, *faults: Fault) -> None:
        """Let these faults strike no more; what hangs goes on hanging."""
        self._faults = [fault for fault in self._faults if fault not in faults]

    def clear(self) -> None:
        """Let no more faults strike; what hangs goes on hanging."""
        self._faults.clear()
        self._strikes.clear()

    def strikes(self, fault: Fault) -> bool:
        """Return True by the fault's chance, while it may strike at all."""
        return self._has_left(fault) and self.random.random() < fault.chance

    def count(self, fault: Fault) -> bool:
        """Count one strike; False when the fault was cleared or used up meanwhile."""
        if not self._has_left(fault):
            return False
        self._strikes[fault] += 1
        self.injected[type(fault).__name__] += 1
        return True

    def _has_left(self, fault: Fault) -> bool:
        return fault in self._faults and (fault.times is None or self._strikes[fault] < fault.times)

    async def expire(self, n: int) -> int:
        """Make up to `n` random messages visible that somebody holds; return how many it became."""
        held = [(handed, message) for handed in self._handed.values() for message in handed.held.values()]
        expired = 0
        for handed, message in self.random.sample(held, min(n, len(held))):
            assert handed.receive is not None
            answer = await self._pass_on(_change_visibility(handed.receive, message["ReceiptHandle"], 0))
            expired += answer.ok
        self.injected["expire"] += expired
        return expired

    def handed_out(self, queue_url: str) -> list[Message]:
        """Return messages that a queue handed out lately, held or deleted since."""
        return list(self._handed[queue_url].lately)

    def in_flight(self, queue_url: str) -> list[str]:
        """Return the ids of the messages that were handed out and not deleted."""
        return list(self._handed[queue_url].held)

    # -- one call ------------------------------------------------------------------------------------

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ConnectionError:  # the client has gone, most likely killed
            return web.StreamResponse()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself has not begun
        call = read_call(request.method, request.raw_path, CIMultiDict(request.headers), await request.content.read())
        self.calls[call.operation] += 1
        act: Act = self._act
        for fault in reversed(self._faults):
            if fault.concerns(call):
                act = functools.partial(fault.apply, act=act, dice=self)
        try:
            answer = await act(call)
        except aiohttp.ClientError:
            answer = Answer(503, {}, b"", ending="reset")  # the service is away
        return await self._give(request, answer)

    async def _act(self, call: Call) -> Answer:
        """Let the service act, and take note."""
        handles = handles_to_delete(call)
        handed = self._handed[call.queue_url]
        if handles:
            await self._tell(self.before_delete, call.queue_url, [handed.id_of(each) for each in handles.values()])
        answer = await self._pass_on(call)
        if not answer.ok or call.service != "sqs":
            return answer
        if call.operation == "ReceiveMessage":
            handed.note(call, answer.json.get("Messages") or ())
        if handles:
            handed.deleted(handles[entry] for entry in successful(answer))
        if sent := accepted(call, answer):
            await self._tell(self.on_send, call.queue_url, sent)
        return answer

    async def _tell(self, hook: Callable[..., Awaitable[None]] | None, queue_url: str, what: list[Any]) -> None:
        if hook is not None:
            try:
                await hook(queue_url, what)
            except Exception as error:  # noqa: BLE001 - whatever a witness meets, the service goes on
                self.hook_errors.append(error)

    async def _pass_on(self, call: Call) -> Answer:
        headers = {name: value for name, value in call.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
        url = URL(self._target + call.path, encoded=True)
        data = io.BytesIO(call.body) if call.body else None  # aiohttp warns of large bodies that are bytes
        async with self._session.request(
            call.method, url, headers=headers, data=data, allow_redirects=False
        ) as response:
            body = await response.read()
            kept = CIMultiDict(
                (name, value) for name, value in response.headers.items() if name.lower() not in _OF_ONE_CONNECTION
            )
            if call.method == "HEAD" and response.content_length is not None:
                kept["Content-Length"] = str(response.content_length)
            return Answer(response.status, kept, body)

    async def _give(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        """Give the client as much of the answer as it is to see."""
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if answer.ending == "unanswered":
            await self._ending.wait()
        if answer.ending in ("unanswered", "reset") or (answer.ending == "truncated" and not answer.body):
            _reset(request)
            return response
        if request.method != "HEAD":
            response.content_length = len(answer.body)
        await response.prepare(request)
        if answer.ending == "truncated":
            await response.write(answer.body[: len(answer.body) // 2])
            if request.transport is not None:
                request.transport.close()
        elif request.method != "HEAD":
            await response.write(answer.body)
        return response


def _reset(request: web.BaseRequest) -> None:
    """Close with RST, unless the client has gone."""
    if request.transport is not None:
        linger = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()


def _change_visibility(receive: Call, handle: str, timeout_s: int) -> Call:
    """Return a call that is signed like a receive; the emulator does not look at more than whose it is."""
    headers = CIMultiDict(receive.headers)
    headers["X-Amz-Target"] = "AmazonSQS.ChangeMessageVisibility"
    body = {"QueueUrl": receive.queue_url, "ReceiptHandle": handle, "VisibilityTimeout": timeout_s}
    return replace(receive, headers=headers, operation="ChangeMessageVisibility", body=orjson.dumps(body), json=body)
