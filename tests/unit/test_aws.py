"""Clients, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from botocore.exceptions import ClientError

from stacworker.aws import Aws, translated
from stacworker.errors import ConfigError, Unavailable


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
        ("localhost:4566", "us-east-1", "Invalid endpoint: localhost:4566"),
        (None, "us east", "'us east' doesn't match a supported format"),
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
