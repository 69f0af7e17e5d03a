"""Fetching objects: from moto over HTTP, and from a server that fails as S3 may."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import boto3
import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer

from stacworker.aws import Aws
from stacworker.envelope.forms import S3Location
from stacworker.envelope.objects import S3Objects
from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable
from stacworker.metrics import Metrics

LIMIT_BYTES = 10_000
AT = S3Location("granules", "key")

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """Run moto's S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto_url: str) -> Iterator[Any]:
    """Give an empty bucket."""
    client = boto3.client("s3", endpoint_url=moto_url, region_name="us-east-1")
    client.create_bucket(Bucket="granules")
    made = boto3.resource("s3", endpoint_url=moto_url, region_name="us-east-1").Bucket("granules")
    yield made
    made.objects.all().delete()
    client.delete_bucket(Bucket="granules")
    made.meta.client.close()
    client.close()


@pytest.fixture
async def objects(moto_url: str) -> AsyncIterator[S3Objects]:
    """Give S3Objects on moto."""
    async with Aws(endpoint_url=moto_url, region="us-east-1").client("s3") as client:
        yield S3Objects(client, Metrics(), max_concurrency=4, max_object_bytes=LIMIT_BYTES, timeout_s=20)


async def refused(objects: S3Objects, location: S3Location = AT) -> StacworkerError:
    with pytest.raises(StacworkerError) as caught:
        await objects.get(location)
    return caught.value


def facts(error: StacworkerError) -> tuple[type[StacworkerError], str, str]:
    return type(error), error.error_class, error.reason


@pytest.mark.parametrize("key", ["key", "a/b c.json", "ü/日本+%25%2F?&=#.json", "a//b/./../c", "'\"<>&\\`|~"])
async def test_bytes_of_an_object(bucket: Any, objects: S3Objects, key: str) -> None:
    """An object's bytes come as they are, whatever is in its key."""
    bucket.put_object(Key=key, Body=b'{"a": 1}')
    assert await objects.get(S3Location("granules", key)) == b'{"a": 1}'


@pytest.mark.parametrize(("key", "encoding"), [("a.json.gz", ""), ("a.json", ""), ("a.json", "gzip")])
async def test_gzip_is_undone(bucket: Any, objects: S3Objects, key: str, encoding: str) -> None:
    """Gzip is told by its bytes, whatever name and headers say."""
    bucket.put_object(Key=key, Body=gzip.compress(b"plain"), ContentEncoding=encoding)
    assert await objects.get(S3Location("granules", key)) == b"plain"


async def test_gzip_in_name_only(bucket: Any, objects: S3Objects) -> None:
    """An object that only its name and headers call gzip comes as it is."""
    bucket.put_object(Key="a.json.gz", Body=b"plain", ContentEncoding="gzip")
    assert await objects.get(S3Location("granules", "a.json.gz")) == b"plain"


async def test_an_empty_object(bucket: Any, objects: S3Objects) -> None:
    """An object may be empty."""
    bucket.put_object(Key="key", Body=b"")
    assert await objects.get(AT) == b""


async def test_a_missing_object(bucket: Any, objects: S3Objects) -> None:
    """A missing object is refused for good."""
    assert facts(await refused(objects)) == (
        Permanent,
        "object_missing",
        "no such object: s3://granules/key; it may have been removed since, or the message names a wrong key",
    )


async def test_a_missing_bucket(objects: S3Objects) -> None:
    """A missing bucket is refused for good."""
    assert facts(await refused(objects, S3Location("nobody", "key"))) == (
        Permanent,
        "bucket_missing",
        "no such bucket: s3://nobody/key",
    )


async def test_a_large_object(bucket: Any, objects: S3Objects) -> None:
    """An object above the limit is refused unread, one at the limit is not."""
    bucket.put_object(Key="key", Body=b"x" * LIMIT_BYTES)
    assert len(await objects.get(AT)) == LIMIT_BYTES
    bucket.put_object(Key="key", Body=b"x" * (LIMIT_BYTES + 1))
    assert facts(await refused(objects)) == (
        Permanent,
        "object_too_large",
        "too large: s3://granules/key has 10001 bytes or more, at most 10000 are read (fetch.max_object_bytes)",
    )


async def test_a_bomb(bucket: Any, objects: S3Objects) -> None:
    """A small object that unpacks to a large one is refused."""
    bucket.put_object(Key="key", Body=gzip.compress(b"\0" * 1_000_000))
    assert facts(await refused(objects)) == (
        Permanent,
        "object_too_large",
        "larger than 10000 bytes after decompression: s3://granules/key",
    )


async def test_fetches_are_measured(bucket: Any, moto_url: str) -> None:
    """Every fetch counts, failed ones too."""
    metrics = Metrics()
    bucket.put_object(Key="key", Body=b"x")
    async with Aws(endpoint_url=moto_url, region="us-east-1").client("s3") as client:
        objects = S3Objects(client, metrics)
        await objects.get(AT)
        await refused(objects, S3Location("granules", "missing"))
    assert metrics.registry.get_sample_value("stacworker_fetch_duration_seconds_count") == 2


class StrangeS3:
    """A server that answers a GET of an object, and of a bucket's list, as a test wants it to."""

    def __init__(self) -> None:
        self.object: Answer = _ok
        self.list: Answer = _listed
        self.now = self.most = 0
        self.dropped = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if "list-type" in request.query:
            return await self.list(request)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self.object(request)
        except asyncio.CancelledError:
            self.dropped.set()
            raise
        finally:
            self.now -= 1


async def _ok(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"body")


async def _listed(_: web.Request) -> web.StreamResponse:
    return web.Response(body="<ListBucketResult/>", content_type="application/xml")


async def _hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def _cut(request: web.Request) -> web.StreamResponse:
    response = await _begin(request)
    assert request.transport is not None
    request.transport.close()
    return response


async def _stall(request: web.Request) -> web.StreamResponse:
    await _begin(request)
    return await _hang(request)


async def _begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x" * 100)
    return response


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 1000)


def fails(status: int, code: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        body = f"<Error><Code>{code}</Code><Message>words</Message></Error>"
        return web.Response(status=status, body=body, content_type="application/xml")

    return answer


@pytest.fixture
async def server() -> AsyncIterator[tuple[StrangeS3, str]]:
    """Run a strange S3; give it and its URL."""
    strange = StrangeS3()
    app = web.Application()
    app.router.add_get("/{path:.*}", strange.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield strange, f"http://{host}:{port}"
    await runner.cleanup()


@pytest.fixture
def strange(server: tuple[StrangeS3, str]) -> StrangeS3:
    """Give the server, to tell it how to answer."""
    return server[0]


@pytest.fixture
async def on_strange(server: tuple[StrangeS3, str]) -> AsyncIterator[S3Objects]:
    """Give S3Objects on the strange S3: two slots, no retries inside the client, little patience."""
    aws = Aws(endpoint_url=server[1], region="us-east-1")
    async with aws.client("s3", max_retries=0, read_timeout_s=5) as client:
        yield S3Objects(client, Metrics(), max_concurrency=2, max_object_bytes=LIMIT_BYTES, timeout_s=0.5)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", (Transient, "object_access_denied")),
        (403, "AllAccessDisabled", (Transient, "object_access_denied")),
        (403, "InvalidObjectState", (Permanent, "object_archived")),
        (400, "KeyTooLongError", (Permanent, "s3_refused")),
        (403, "InvalidAccessKeyId", (Unavailable, "bad_credentials")),
        (400, "ExpiredToken", (Unavailable, "bad_credentials")),
        (400, "InvalidToken", (Unavailable, "bad_credentials")),
        (503, "SlowDown", (Transient, "throttled")),
        (500, "InternalError", (Transient, "server_error")),
    ],
)
async def test_answers_of_s3(
    strange: StrangeS3, on_strange: S3Objects, status: int, code: str, expected: tuple[type, str]
) -> None:
    """Each answer has its error; what befalls one object while the bucket answers is no outage."""
    strange.object = fails(status, code)
    error = await refused(on_strange)
    assert (type(error), error.error_class) == expected
    assert "s3://granules/key" in error.reason


@pytest.mark.parametrize(
    ("answer", "listing"),
    [
        (fails(503, "SlowDown"), fails(503, "SlowDown")),
        (fails(503, "SlowDown"), fails(400, "ExpiredToken")),
        (fails(500, "InternalError"), fails(500, "InternalError")),
        (fails(500, "InternalError"), _hang),
        (_hang, _hang),
    ],
)
async def test_an_outage(strange: StrangeS3, on_strange: S3Objects, answer: Answer, listing: Answer) -> None:
    """When the bucket itself fails too, S3 is away, and ping says so until it is back."""
    strange.object, strange.list = answer, listing
    await on_strange.ping()
    assert isinstance(await refused(on_strange), Unavailable)
    with pytest.raises(Unavailable):
        await on_strange.ping()
    strange.list = fails(403, "AccessDenied")
    await on_strange.ping()
    strange.list = listing
    await on_strange.ping()


async def test_nobody_there(unused_tcp_port: int) -> None:
    """A refused connection is an outage."""
    aws = Aws(endpoint_url=f"http://127.0.0.1:{unused_tcp_port}", region="us-east-1")
    async with aws.client("s3", max_retries=0) as client:
        error = await refused(S3Objects(client, Metrics(), timeout_s=5))
    assert (type(error), error.error_class) == (Unavailable, "connection")


@pytest.mark.parametrize(
    ("answer", "error_class", "reason"),
    [
        (_hang, "connection", "GET s3://granules/key: TimeoutError: no answer within 0.5 s"),
        (_stall, "object_timeout", "only 100 bytes came within 0.5 s (fetch.timeout_s): s3://granules/key"),
        (_cut, "object_interrupted", "interrupted after "),
    ],
)
async def test_one_object_that_does_not_come(
    strange: StrangeS3, on_strange: S3Objects, answer: Answer, error_class: str, reason: str
) -> None:
    """An object that stalls or breaks off is tried again later; the next one is had at once."""
    strange.object = answer
    error = await refused(on_strange)
    assert (type(error), error.error_class) == (Transient, error_class)
    assert error.reason.startswith(reason)
    strange.object = _ok
    assert await on_strange.get(AT) == b"body"


async def test_an_object_without_end(strange: StrangeS3, on_strange: S3Objects) -> None:
    """An object that does not tell its size is read up to the limit only."""
    strange.object = _endless
    assert (await refused(on_strange)).error_class == "object_too_large"


async def test_no_more_at_a_time_than_allowed(strange: StrangeS3, on_strange: S3Objects) -> None:
    """Any number of callers share the slots, and all slots are used."""
    pair = asyncio.Barrier(2)

    async def together(request: web.Request) -> web.StreamResponse:
        await pair.wait()
        return await _ok(request)

    strange.object = together
    assert await asyncio.gather(*(on_strange.get(AT) for _ in range(20))) == [b"body"] * 20
    assert strange.most == 2


async def test_a_cancelled_fetch_leaves_nothing(strange: StrangeS3, server: tuple[StrangeS3, str]) -> None:
    """Cancelling drops the connection and frees the slot."""
    begun = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        await _begin(request)
        begun.set()
        return await _hang(request)

    strange.object = stall
    async with Aws(endpoint_url=server[1], region="us-east-1").client("s3") as client:
        objects = S3Objects(client, Metrics(), max_concurrency=1)
        fetch = asyncio.create_task(objects.get(AT))
        await begun.wait()
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        await asyncio.wait_for(strange.dropped.wait(), 5)
        strange.object = _ok
        assert await asyncio.wait_for(objects.get(AT), 5) == b"body"
