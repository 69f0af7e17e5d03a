"""The AWS gateway of the fault-injection suite, between the daemon's own client and a small service."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from stacworker.aws import Aws, error_code
from tests.chaos.aws_faults import (
    Delay,
    Denied,
    Drop,
    Duplicate,
    Expired,
    Fault,
    Hang,
    PartFailure,
    Redeliver,
    Reorder,
    Reset,
    ServerError,
    Swallow,
    Throttle,
    Truncate,
)
from tests.chaos.gateway import Gateway
from tests.chaos.handed import Sent

QUEUE = "http://elsewhere.invalid:1/000000000000/things"
LOST = (ConnectionClosedError, EndpointConnectionError)
FIFO = f"{QUEUE}.fifo"


@dataclass
class Service:
    """A small AWS: SQS keeps what it is asked for, S3 has one object, and `acts` says what was done."""

    url: str = ""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    acts: list[tuple[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def hold(self, *bodies: str) -> None:
        for body in bodies:
            attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": "0"}
            self.waiting.append(
                {"MessageId": f"id-{body}", "ReceiptHandle": f"handle-{body}", "Body": body, "Attributes": attributes}
            )

    def done(self, operation: str) -> list[Any]:
        return [what for name, what in self.acts if name == operation]

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        self.requests.append((f"{request.method} {request.raw_path}", dict(request.headers), body))
        target = request.headers.get("X-Amz-Target", "")
        if target:
            operation = target.partition(".")[2]
            answer = getattr(self, operation)(orjson.loads(body))
            return web.Response(body=orjson.dumps(answer), content_type="application/x-amz-json-1.0")
        if "Range" in request.headers:
            return web.Response(status=206, body=b"0123", headers={"ETag": '"1"', "Content-Range": "bytes 0-3/9"})
        return web.Response(body=b"" if request.method == "PUT" else b"012345678", headers={"ETag": '"1"'})

    def ReceiveMessage(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - AWS's names
        taken = self.waiting[: asked["MaxNumberOfMessages"]]
        del self.waiting[: len(taken)]
        self.acts.append(("ReceiveMessage", [message["Body"] for message in taken]))
        return {"Messages": taken} if taken else {}

    def DeleteMessage(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - AWS's names
        self.acts.append(("Delete", asked["ReceiptHandle"]))
        return {}

    def DeleteMessageBatch(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - AWS's names
        return self._batch("Delete", asked, lambda entry: entry["ReceiptHandle"])

    def ChangeMessageVisibility(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - AWS's names
        self.acts.append(("Change", (asked["ReceiptHandle"], asked["VisibilityTimeout"])))
        return {}

    def ChangeMessageVisibilityBatch(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - AWS's names
        return self._batch("Change", asked, lambda entry: (entry["ReceiptHandle"], entry["VisibilityTimeout"]))

    def SendMessage(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - AWS's names
        self.acts.append(("Send", asked["MessageBody"]))
        return {"MessageId": f"sent-{asked['MessageBody']}", "MD5OfMessageBody": ""}

    def SendMessageBatch(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - AWS's names
        return self._batch("Send", asked, lambda entry: entry["MessageBody"])

    def _batch(self, name: str, asked: dict[str, Any], what: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Do what every entry asks for, but not for what is said to be bad."""
        answer: dict[str, Any] = {"Successful": []}
        for entry in asked["Entries"]:
            if "bad" in str(what(entry)):
                failed = {"Id": entry["Id"], "Code": "Bad", "SenderFault": True}
                answer.setdefault("Failed", []).append(failed)
                continue
            self.acts.append((name, what(entry)))
            answer["Successful"].append({"Id": entry["Id"], "MessageId": f"sent-{what(entry)}"})
        return answer


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    server = web.Server(made.serve, access_log=None, auto_decompress=False)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield made
    listener.close()
    await server.shutdown(1)
    await listener.wait_closed()


@pytest.fixture
async def gateway(service: Service) -> AsyncIterator[Gateway]:
    async with Gateway(service.url, random=Random(1)) as running:
        yield running


@pytest.fixture
async def sqs(gateway: Gateway, stack: AsyncExitStack) -> Any:
    return await stack.enter_async_context(client_of(gateway, "sqs"))


@pytest.fixture
async def s3(gateway: Gateway, stack: AsyncExitStack) -> Any:
    return await stack.enter_async_context(client_of(gateway, "s3"))


def client_of(gateway: Gateway, service: str, **more: Any) -> Any:
    return Aws(endpoint_url=gateway.endpoint_url, region="us-east-1").client(service, max_retries=0, **more)


async def receive(sqs: Any, max_messages: int = 10, url: str = QUEUE) -> list[str]:
    answer = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=max_messages)
    return [message["Body"] for message in answer.get("Messages", ())]


async def delete(sqs: Any, *bodies: str) -> dict[str, Any]:
    entries = [{"Id": body, "ReceiptHandle": f"handle-{body}"} for body in bodies]
    answer: dict[str, Any] = await sqs.delete_message_batch(QueueUrl=QUEUE, Entries=entries)
    return answer


async def change(sqs: Any, *bodies: str) -> dict[str, Any]:
    entries = [{"Id": body, "ReceiptHandle": f"handle-{body}", "VisibilityTimeout": 30} for body in bodies]
    answer: dict[str, Any] = await sqs.change_message_visibility_batch(QueueUrl=QUEUE, Entries=entries)
    return answer


async def send(sqs: Any, *bodies: str) -> dict[str, Any]:
    attributes = {"why": {"DataType": "String", "StringValue": "because"}}
    entries = [{"Id": body, "MessageBody": body, "MessageAttributes": attributes} for body in bodies]
    answer: dict[str, Any] = await sqs.send_message_batch(QueueUrl=QUEUE, Entries=entries)
    return answer


async def test_clients_come_by_their_endpoint_whatever_a_queue_url_says(service: Service, sqs: Any) -> None:
    """The queue's URL leads elsewhere, and the calls reach the service through the gateway all the same."""
    service.hold("a", "b")
    assert await receive(sqs) == ["a", "b"]
    assert (await delete(sqs, "a", "bad"))["Failed"] == [{"Id": "bad", "Code": "Bad", "SenderFault": True}]
    await change(sqs, "b")
    await send(sqs, "c")
    assert service.acts == [
        ("ReceiveMessage", ["a", "b"]),
        ("Delete", "handle-a"),
        ("Change", ("handle-b", 30)),
        ("Send", "c"),
    ]


async def test_calls_are_counted(gateway: Gateway, service: Service, sqs: Any, s3: Any) -> None:
    """Every call has AWS's own name, of S3 too."""
    await receive(sqs)
    await receive(sqs)
    await send(sqs, "a")
    await s3.get_object(Bucket="b", Key="k")
    await s3.head_object(Bucket="b", Key="k")
    assert gateway.calls == {"ReceiveMessage": 2, "SendMessageBatch": 1, "GetObject": 1, "HeadObject": 1}
    assert gateway.injected == {}


async def test_objects_pass_unchanged(gateway: Gateway, service: Service, s3: Any) -> None:
    """Bodies, ranges, lengths of HEAD, and keys in whatever spelling."""
    got = await s3.get_object(Bucket="b", Key="a b/ü//+%2F?.json")
    assert await got["Body"].read() == b"012345678"
    part = await s3.get_object(Bucket="b", Key="k", Range="bytes=0-3")
    assert (await part["Body"].read(), part["ContentRange"]) == (b"0123", "bytes 0-3/9")
    assert (await s3.head_object(Bucket="b", Key="k"))["ContentLength"] == 9
    body = bytes(range(256)) * 20_000
    await s3.put_object(Bucket="b", Key="k", Body=body, ContentEncoding="gzip")
    assert [path for path, _headers, _body in service.requests] == [
        "GET /b/a%20b/%C3%BC//%2B%252F%3F.json",
        "GET /b/k",
        "HEAD /b/k",
        "PUT /b/k",
    ]
    assert body in service.requests[-1][2]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (ServerError(), 500, "InternalError"),
        (ServerError(status=503), 503, "ServiceUnavailable"),
        (ServerError(status=504), 504, "GatewayTimeout"),
        (Throttle(), 400, "RequestThrottled"),
        (Denied(), 403, "AccessDenied"),
        (Expired(), 403, "ExpiredToken"),
    ],
)
async def test_errors_of_sqs(
    gateway: Gateway, service: Service, sqs: Any, fault: Fault, status: int, code: str
) -> None:
    """The client reads them as SQS' own, and nothing was done."""
    gateway.add(fault)
    service.hold("a")
    with pytest.raises(ClientError) as caught:
        await receive(sqs)
    assert (caught.value.response["ResponseMetadata"]["HTTPStatusCode"], error_code(caught.value)) == (status, code)
    assert service.acts == []
    assert gateway.injected == {type(fault).__name__: 1}


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (ServerError(), 500, "InternalError"),
        (Throttle(), 503, "SlowDown"),
        (Denied(), 403, "AccessDenied"),
        (Expired(), 400, "ExpiredToken"),
    ],
)
async def test_errors_of_s3(gateway: Gateway, service: Service, s3: Any, fault: Fault, status: int, code: str) -> None:
    """The client reads them as S3's own; a HEAD has no room for a code."""
    gateway.add(fault)
    with pytest.raises(ClientError) as caught:
        await s3.get_object(Bucket="b", Key="k")
    assert (caught.value.response["ResponseMetadata"]["HTTPStatusCode"], error_code(caught.value)) == (status, code)
    with pytest.raises(ClientError) as caught:
        await s3.head_object(Bucket="b", Key="k")
    assert (caught.value.response["ResponseMetadata"]["HTTPStatusCode"], error_code(caught.value)) == (
        status,
        str(status),
    )
    assert service.requests == []


async def test_errors_of_sns(gateway: Gateway, stack: AsyncExitStack) -> None:
    """Services of the query protocol answer in another form."""
    gateway.add(Throttle(on=("Publish",)))
    sns = await stack.enter_async_context(client_of(gateway, "sns"))
    with pytest.raises(ClientError) as caught:
        await sns.publish(TopicArn="arn:aws:sns:us-east-1:000000000000:t", Message="m")
    assert error_code(caught.value) == "ThrottlingException"


async def test_a_delay_comes_before_the_act(gateway: Gateway, service: Service, sqs: Any) -> None:
    """The call is acted upon, late."""
    gateway.add(Delay(delay_s=0.2))
    begun = asyncio.get_running_loop().time()
    await send(sqs, "a")
    assert asyncio.get_running_loop().time() - begun >= 0.2
    assert service.done("Send") == ["a"]


async def test_a_reset_comes_before_the_act(gateway: Gateway, service: Service, sqs: Any) -> None:
    """The connection breaks and nothing was done; the next call works."""
    gateway.add(Reset(times=1))
    with pytest.raises(LOST):
        await send(sqs, "a")
    await send(sqs, "b")
    assert service.acts == [("Send", "b")]


@pytest.mark.parametrize("fault", [Drop(), Truncate()])
async def test_an_answer_that_is_lost_after_the_act(gateway: Gateway, service: Service, sqs: Any, fault: Fault) -> None:
    """Messages are handed out to nobody, deletes and sends are done and nobody knows."""
    gateway.add(fault)
    service.hold("a")
    for call in (receive(sqs), delete(sqs, "a"), send(sqs, "b")):
        with pytest.raises(LOST):
            await call
    assert service.acts == [("ReceiveMessage", ["a"]), ("Delete", "handle-a"), ("Send", "b")]
    assert gateway.injected == {type(fault).__name__: 3}


async def test_an_empty_receive_is_not_worth_losing(gateway: Gateway, service: Service, sqs: Any) -> None:
    """The one strike is kept for a receive that brings something."""
    gateway.add(Drop(times=1))
    assert await receive(sqs) == []
    assert gateway.injected == {}
    service.hold("a")
    with pytest.raises(LOST):
        await receive(sqs)
    assert gateway.injected == {"Drop": 1}


async def test_an_object_that_ends_too_early(gateway: Gateway, s3: Any) -> None:
    """S3 begins to answer, and the connection ends in the middle of the object."""
    gateway.add(Truncate(on=("GetObject",)))
    got = await s3.get_object(Bucket="b", Key="k")
    assert got["ContentLength"] == 9
    with pytest.raises(aiohttp.ClientPayloadError):
        await got["Body"].read()
    got["Body"].close()


async def test_a_call_that_is_never_answered(
    gateway: Gateway, service: Service, sqs: Any, stack: AsyncExitStack
) -> None:
    """It is acted upon, and the connection stays open until the client gives up; other connections go on."""
    gateway.add(Hang(times=1))
    hasty = await stack.enter_async_context(client_of(gateway, "sqs", read_timeout_s=0.5))
    with pytest.raises(ReadTimeoutError):
        await send(hasty, "a")
    while gateway.injected["Hang"] < 1:
        await asyncio.sleep(0.01)
    await send(sqs, "b")
    assert service.acts == [("Send", "a"), ("Send", "b")]


async def test_a_swallowed_change_of_visibility(gateway: Gateway, service: Service, sqs: Any) -> None:
    """It is answered as done for every entry and is done for none; other calls pass."""
    gateway.add(Swallow())
    assert (await change(sqs, "a", "b"))["Successful"] == [{"Id": "a"}, {"Id": "b"}]
    await sqs.change_message_visibility(QueueUrl=QUEUE, ReceiptHandle="handle-a", VisibilityTimeout=1)
    await send(sqs, "c")
    assert service.acts == [("Send", "c")]
    assert gateway.injected == {"Swallow": 2}


async def test_a_batch_that_fails_in_part(gateway: Gateway, service: Service, sqs: Any) -> None:
    """What is answered as failed was not done, and the rest was; SQS' own refusals stay."""
    gateway.add(PartFailure())
    answer = await delete(sqs, "a", "b", "c", "bad")
    injected = [entry["Id"] for entry in answer["Failed"] if entry["Code"] == "InternalError"]
    own = [entry["Id"] for entry in answer["Failed"] if entry["Code"] == "Bad"]
    done = [entry["Id"] for entry in answer.get("Successful", ())]
    assert sorted(injected + own + done) == ["a", "b", "bad", "c"]
    assert len(injected) >= 1
    assert service.done("Delete") == [f"handle-{id_}" for id_ in done]
    assert {entry["SenderFault"] for entry in answer["Failed"] if entry["Code"] == "InternalError"} == {False}


async def test_a_batch_that_fails_whole_does_not_reach_the_service(
    gateway: Gateway, service: Service, sqs: Any
) -> None:
    """A batch of one can only fail whole."""
    gateway.add(PartFailure(times=1))
    answer = await send(sqs, "a")
    assert [entry["Id"] for entry in answer["Failed"]] == ["a"]
    assert answer["Successful"] == []
    assert service.requests == []


async def test_a_message_twice_in_a_receive(gateway: Gateway, service: Service, sqs: Any) -> None:
    """It comes twice, and never more messages than were asked for."""
    gateway.add(Duplicate())
    service.hold("a", "b", "c")
    assert Counter(await receive(sqs, 3)).most_common()[0][1] == 2
    assert await receive(sqs, 1) == ["c"]
    assert service.done("ReceiveMessage") == [["a", "b"], ["c"]]
    assert await receive(sqs) == []
    assert gateway.injected == {"Duplicate": 1}


async def test_a_message_that_comes_again_later(gateway: Gateway, service: Service, sqs: Any) -> None:
    """Although deleted, it is in a later answer, as one that was received once more."""
    service.hold("a", "b")
    await receive(sqs, 1)
    await delete(sqs, "a")
    gateway.add(Redeliver(times=1))
    answer = await sqs.receive_message(QueueUrl=QUEUE, MaxNumberOfMessages=10)
    found = [(each["Body"], each["Attributes"]["ApproximateReceiveCount"]) for each in answer["Messages"]]
    assert found == [("b", "1"), ("a", "2")]
    assert gateway.injected == {"Redeliver": 1}


async def test_messages_in_another_order(gateway: Gateway, service: Service, sqs: Any) -> None:
    """The same messages, shuffled; one alone has no order."""
    gateway.add(Reorder())
    bodies = list("abcdefghij")
    service.hold(*bodies, "alone")
    shuffled = await receive(sqs)
    assert shuffled != bodies
    assert sorted(shuffled) == bodies
    assert await receive(sqs) == ["alone"]
    assert gateway.injected == {"Reorder": 1}


async def test_fifo_queues_keep_their_promises(gateway: Gateway, service: Service, sqs: Any) -> None:
    """Order and uniqueness are what a FIFO queue is for: these faults would be the emulator's lie."""
    gateway.add(Reorder(), Duplicate(), Redeliver())
    service.hold(*"abc")
    assert await receive(sqs, url=FIFO) == ["a", "b", "c"]
    assert gateway.injected == {}


async def test_faults_strike_where_they_are_told_to(gateway: Gateway, service: Service, sqs: Any, s3: Any) -> None:
    """Operations and services are both names, and `times` is the end of it."""
    gateway.add(Denied(on=("s3",)), Throttle(on=("SendMessageBatch",), times=1))
    await receive(sqs)
    with pytest.raises(ClientError):
        await s3.get_object(Bucket="b", Key="k")
    with pytest.raises(ClientError):
        await send(sqs, "a")
    await send(sqs, "b")
    gateway.clear()
    await s3.get_object(Bucket="b", Key="k")
    assert gateway.injected == {"Denied": 1, "Throttle": 1}


async def test_chance_is_seeded(service: Service) -> None:
    """The same seed strikes the same calls."""

    async def run(seed: int) -> list[bool]:
        async with Gateway(service.url, random=Random(seed)) as gateway, client_of(gateway, "sqs") as sqs:
            gateway.add(ServerError(chance=0.5))
            return [await struck(receive(sqs)) for _ in range(12)]

    async def struck(call: Any) -> bool:
        try:
            await call
        except ClientError:
            return True
        return False

    first = await run(7)
    assert first == await run(7)
    assert first != await run(8)
    assert set(first) == {True, False}


async def test_faults_join(gateway: Gateway, service: Service, sqs: Any) -> None:
    """One call may meet several: late, duplicated, and then dropped; an error keeps a call from those added after."""
    service.hold(*"abc")
    gateway.add(Drop(times=1), Duplicate(), Delay(delay_s=0.0))
    with pytest.raises(LOST):
        await receive(sqs)
    assert gateway.injected == {"Drop": 1, "Duplicate": 1, "Delay": 1}
    gateway.clear()
    gateway.add(ServerError(), Delay(delay_s=0.0))
    with pytest.raises(ClientError):
        await receive(sqs)
    assert gateway.injected == {"Drop": 1, "Duplicate": 1, "Delay": 1, "ServerError": 1}


async def test_the_witness_of_deletes_is_asked_first(gateway: Gateway, service: Service, sqs: Any) -> None:
    """It learns queue and message ids before SQS does, of single deletes, batches and repeated ones."""
    seen: list[tuple[str, list[str], int]] = []

    async def witness(queue_url: str, ids: list[str]) -> None:
        await asyncio.sleep(0)
        seen.append((queue_url, ids, len(service.done("Delete"))))

    gateway.before_delete = witness
    service.hold(*"abc")
    await receive(sqs)
    assert sorted(gateway.in_flight(QUEUE)) == ["id-a", "id-b", "id-c"]
    gateway.add(Drop(times=1))
    with pytest.raises(LOST):
        await delete(sqs, "a", "b")
    await delete(sqs, "a", "b")
    await sqs.delete_message(QueueUrl=QUEUE, ReceiptHandle="handle-c")
    await sqs.delete_message(QueueUrl=QUEUE, ReceiptHandle="unheard-of")
    assert seen == [
        (QUEUE, ["id-a", "id-b"], 0),
        (QUEUE, ["id-a", "id-b"], 2),
        (QUEUE, ["id-c"], 4),
        (QUEUE, ["unheard-of"], 5),
    ]
    assert gateway.in_flight(QUEUE) == []


async def test_refused_deletes_leave_messages_in_flight(gateway: Gateway, service: Service, sqs: Any) -> None:
    """Only what SQS says it deleted is gone."""
    service.hold("a", "bad")
    await receive(sqs)
    await delete(sqs, "a", "bad")
    assert gateway.in_flight(QUEUE) == ["id-bad"]


async def test_the_witness_of_sends_learns_what_was_accepted(gateway: Gateway, service: Service, sqs: Any) -> None:
    """Bodies and attributes of what the queue took, also when the sender never learns of it."""
    seen: list[tuple[str, list[Sent]]] = []

    async def witness(queue_url: str, sent: list[Sent]) -> None:
        seen.append((queue_url, sent))

    gateway.on_send = witness
    gateway.add(Drop(times=1))
    with pytest.raises(LOST):
        await send(sqs, "a", "bad", "b")
    await sqs.send_message(QueueUrl=QUEUE, MessageBody="c")
    assert seen == [
        (QUEUE, [Sent("sent-a", "a", {"why": "because"}), Sent("sent-b", "b", {"why": "because"})]),
        (QUEUE, [Sent("sent-c", "c", {})]),
    ]


async def test_a_witness_that_fails_stops_nothing(gateway: Gateway, service: Service, sqs: Any) -> None:
    """Its error is kept for the end."""

    async def witness(queue_url: str, ids: list[str]) -> None:
        raise RuntimeError(f"cannot look up {ids}")

    gateway.before_delete = witness
    await delete(sqs, "a")
    assert service.done("Delete") == ["handle-a"]
    assert [str(error) for error in gateway.hook_errors] == ["cannot look up ['handle-a']"]


async def test_expiring_makes_held_messages_visible(gateway: Gateway, service: Service, sqs: Any) -> None:
    """It goes around the faults, and touches only what is still held."""
    service.hold(*"abc")
    await receive(sqs)
    await delete(sqs, "b")
    gateway.add(Swallow())
    assert await gateway.expire(1) == 1
    assert await gateway.expire(10) == 2
    assert sorted(service.done("Change")[1:]) == [("handle-a", 0), ("handle-c", 0)]
    assert gateway.injected == {"expire": 3}
    assert gateway.calls["ChangeMessageVisibility"] == 0


async def test_a_service_that_is_away_looks_like_it(gateway: Gateway) -> None:
    """Nobody listens behind the gateway: connections are reset."""
    async with Gateway("http://127.0.0.1:1") as nowhere, client_of(nowhere, "sqs") as sqs:
        with pytest.raises(LOST):
            await receive(sqs)


@pytest.mark.parametrize("sent_bytes", [3, 9])
async def test_clients_that_go_in_the_middle_are_no_error(
    service: Service, caplog: pytest.LogCaptureFixture, sent_bytes: int
) -> None:
    """A killed worker leaves half a request, or does not wait for its answer: the log stays clean."""
    async with Gateway(service.url) as gateway:
        gateway.add(Delay(delay_s=0.1))
        _reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.endpoint_url.rpartition(":")[2]))
        writer.write(b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" + b"012345678"[:sent_bytes])
        await writer.drain()
        while not (gateway.calls if sent_bytes == 9 else gateway._server.requests_count):
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while gateway._server.connections:
            await asyncio.sleep(0.01)
    assert [record.getMessage() for record in caplog.records if record.name == "aiohttp.server"] == []


async def test_leaving_ends_whatever_hangs(service: Service) -> None:
    """No connection and no task survives the gateway."""
    tasks = asyncio.all_tasks()
    async with Gateway(service.url) as gateway, client_of(gateway, "sqs") as sqs:
        gateway.add(Hang())
        hanging = asyncio.create_task(send(sqs, "a"))
        while not service.acts:
            await asyncio.sleep(0.01)
        await gateway.__aexit__(None, None, None)
        with pytest.raises(LOST):
            await asyncio.wait_for(hanging, 30)
    while asyncio.all_tasks() != tasks:
        await asyncio.sleep(0.01)
