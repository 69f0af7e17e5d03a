"""Clients, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from stacworker.aws import Aws, translated
from stacworker.cli.opening import opened
from stacworker.errors import ConfigError, Unavailable
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.parts import START_TIMEOUT_S, Parts
from stacworker.settings import Settings


@asynccontextmanager
async def answering(status: int, body: bytes) -> AsyncIterator[str]:
    """Serve one answer to whatever is asked; yields the URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        writer.write(body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"\xff\xfe"), (200, b"null"), (400, b"[]"), (500, b"\x1f\x8b"), (502, b"<html>Bad gateway</html>")],
)
async def test_an_answer_that_is_not_the_services_means_it_is_away(status: int, body: bytes) -> None:
    """The error page of a proxy, in whatever bytes, is an outage like any other."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(answering(status, body))
        client = await stack.enter_async_context(Aws(endpoint_url=url, region="us-east-1").client("sqs", max_retries=0))
        with pytest.raises(Unavailable), translated("sqs", "receiving"):
            await client.receive_message(QueueUrl=f"{url}/0/q")


@pytest.mark.parametrize(
    ("endpoint_url", "region", "words"),
    [
        ("localhost:4566", "us-east-1", "Invalid endpoint \\("),
        (None, "us east", "Provided region_name '…' doesn't match a supported format"),
        (None, None, "You must specify a region"),
    ],
)
async def test_wrong_settings_are_told_as_such(
    endpoint_url: str | None, region: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no client can be made with stops the start with one line."""
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigError, match=words):
        async with Aws(endpoint_url=endpoint_url, region=region).client("sqs"):
            pass


async def test_the_region_may_come_from_either_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_REGION is what ECS sets, and what the settings promise."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    async with Aws().client("sqs") as client:
        assert client.meta.region_name == "eu-west-3"


async def test_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE is a setting too."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match=r"nobody.*could not be found"):
        Aws(region="us-east-1")


def test_a_signed_request_stays_out_of_reasons() -> None:
    """The answer to a wrong signature quotes the request with its session token: only its first line is told."""
    answer = {
        "Error": {"Code": "SignatureDoesNotMatch", "Message": "It does not match.\n\nx-amz-security-token:SECRET"},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }
    with pytest.raises(Unavailable) as caught, translated("sqs", "receiving"):
        raise ClientError(answer, "ReceiveMessage")
    assert caught.value.reason == "receiving: SignatureDoesNotMatch: It does not match."


@dataclass
class Account:
    """A source of credentials as containers have it, and a service that accepts one access key."""

    issued: str = "old"
    valid_s: float = 300.0
    accepted: str = "new"
    asked: int = 0
    silent: int = 0

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/credentials":
            self.asked += 1
            if self.asked <= self.silent:
                return web.Response(status=500)
            expiration = (datetime.now(UTC) + timedelta(seconds=self.valid_s)).isoformat()
            keys = {"AccessKeyId": self.issued, "SecretAccessKey": "secret", "Token": "token", "Expiration": expiration}
            return web.json_response(keys)
        if f"Credential={self.accepted}/" in request.headers["Authorization"]:
            return web.Response(body=b'{"QueueUrls": []}')
        body = {"__type": "com.amazonaws.sqs#ExpiredToken", "message": "The security token is expired"}
        return web.Response(status=403, body=orjson.dumps(body))


@pytest.fixture
async def account(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Account, str]]:
    """Give a process its credentials by way of a container's URI; yields the account and its URL."""
    made = Account()
    server = web.Server(made.serve, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/credentials")
    yield made, url
    listener.close()
    await server.shutdown(1)
    await listener.wait_closed()


async def refused(client: Any) -> Unavailable:
    with pytest.raises(Unavailable) as caught, translated("sqs", "listing queues"):
        await client.list_queues()
    return caught.value


async def test_expired_credentials_are_an_outage_until_there_are_new_ones(account: tuple[Account, str]) -> None:
    """A client takes up what its source gives, so that nothing has to be restarted."""
    source, url = account
    async with Aws(endpoint_url=url, region="us-east-1").client("sqs") as client:
        error = await refused(client)
        assert (error.dependency, error.error_class) == ("sqs", "bad_credentials")
        assert error.reason == "listing queues: ExpiredToken: The security token is expired"
        source.issued = "new"
        await client.list_queues()


async def test_credentials_that_are_expired_when_renewed(account: tuple[Account, str]) -> None:
    """A clock that jumped, or a source that gives old ones: an outage like other bad credentials."""
    source, url = account
    source.issued, source.valid_s = "new", -1.0
    async with Aws(endpoint_url=url, region="us-east-1").client("sqs") as client:
        error = await refused(client)
        assert (error.dependency, error.error_class) == ("sqs", "bad_credentials")
        assert "still expired" in error.reason
        source.valid_s = 300.0
        await client.list_queues()


def settings_at(url: str) -> Settings:
    consumers = [
        {"name": name, "type": "load", "queue_url": f"{url}/0/{name}", "wait_time_s": wait_s}
        for name, wait_s in (("quick", 1), ("slow", 20))
    ]
    return Settings.model_validate({"aws": {"endpoint_url": url, "region": "us-east-1"}, "consumers": consumers})


async def test_the_daemon_waits_for_its_credentials(
    account: tuple[Account, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container their source may come up after us."""
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    source, url = account
    source.issued, source.silent = "new", 4  # a client asks three times
    async with AsyncExitStack() as stack:
        aws = Aws(endpoint_url=url, region="us-east-1")
        client = await Parts(settings_at(url), Lifecycle(drain_timeout_s=1), Metrics(), stack, aws)._client("sqs")
        await client.list_queues()


async def test_a_command_waits_for_nothing(account: tuple[Account, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits in front of it: what does not answer is told at once."""
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    source, url = account
    source.silent = 1_000_000
    async with asyncio.timeout(START_TIMEOUT_S / 2), opened(settings_at(url)) as parts:
        with pytest.raises(Unavailable, match="getting credentials"):
            await parts.clients()


async def test_a_connection_outlasts_the_longest_poll_but_not_for_long() -> None:
    """One that nothing comes on is given up 10 s after it should have answered, for it will never."""
    url = "http://127.0.0.1:1"
    async with AsyncExitStack() as stack:
        aws = Aws(endpoint_url=url, region="us-east-1")
        client = await Parts(settings_at(url), Lifecycle(drain_timeout_s=1), Metrics(), stack, aws)._client("sqs")
        assert client.meta.config.read_timeout == 30


async def test_a_source_of_credentials_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client can be made for now, which is no mistake in the settings."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/credentials")
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with pytest.raises(Unavailable, match=r"getting credentials.*metadata") as caught:
        async with Aws(region="us-east-1").client("sqs"):
            pass
    assert (caught.value.dependency, caught.value.error_class) == ("sqs", "connection")
