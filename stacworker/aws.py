"""AWS clients: the one module that knows aioboto3, and translates its errors.

Clients are made once per process and service and shared; each is an async context manager.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import botocore.exceptions
import botocore.parsers
from aioboto3 import Session
from aiobotocore.config import AioConfig

from stacworker.errors import ConfigError, Permanent, Unavailable

_SERVER_ERROR = 500
_THROTTLED = frozenset(
    {
        "KmsThrottled",
        "OverLimit",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)


_WRONG_SETTINGS = (
    botocore.exceptions.ConfigNotFound,
    botocore.exceptions.ConfigParseError,
    botocore.exceptions.NoRegionError,
    botocore.exceptions.ProfileNotFound,
    botocore.exceptions.ValidationError,
    ValueError,
)
"""What making a client raises for a wrong endpoint, region, profile or configuration file."""


class Aws:
    """Makes clients with one session and one configuration. Raises ConfigError for what is wrong with those."""

    def __init__(self, *, endpoint_url: str | None = None, region: str | None = None) -> None:
        with _checked("session"):
            # boto reads AWS_DEFAULT_REGION only; AWS_REGION is what the other SDKs read and what ECS sets.
            self._session = Session(region_name=region or os.environ.get("AWS_REGION"))
        self._endpoint_url = endpoint_url

    @asynccontextmanager
    async def client(
        self, service: str, *, max_connections: int = 50, read_timeout_s: float = 60.0, max_retries: int = 2
    ) -> AsyncIterator[Any]:
        """Lend a client.

        `read_timeout_s` must be longer than the longest long poll. Retries inside the client are few:
        the engine has its own.
        """
        config = AioConfig(
            max_pool_connections=max_connections,
            connect_timeout=5,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "max_attempts": max_retries},
            s3={"addressing_style": "path"} if self._endpoint_url else None,
            tcp_keepalive=True,
        )
        async with AsyncExitStack() as stack:
            with _checked(f"client for {service}"):
                client = await stack.enter_async_context(
                    self._session.client(service, endpoint_url=self._endpoint_url, config=config)
                )
            yield client


@contextmanager
def _checked(what: str) -> Iterator[None]:
    try:
        yield
    except _WRONG_SETTINGS as error:
        raise ConfigError(f"aws: cannot make a {what}: {error} (aws.endpoint_url, aws.region, AWS_*)") from error


def error_code(error: botocore.exceptions.ClientError) -> str:
    """Return the service's error code, without the `AWS.SimpleQueueService.` some answers carry."""
    code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    return code.rsplit(".", 1)[-1]


@contextmanager
def translated(dependency: str, doing: str) -> Iterator[None]:
    """Turn botocore's and aiohttp's errors into ours.

    Throttling, 5xx, connections and timeouts: `Unavailable(dependency)`. Credentials and permissions:
    `Unavailable` too (every message would fail), with error class `access_denied`. A request that
    the service says is wrong: `Permanent` with the service's words.
    """
    try:
        yield
    except botocore.exceptions.ClientError as error:
        code = error_code(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        # One line: what follows a wrong signature's is the signed request, session token included.
        message = str(error.response.get("Error", {}).get("Message") or "").partition("\n")[0]
        text = f"{doing}: {code}: {message}".rstrip(": ")
        if code in _THROTTLED or status in (429, 503):
            raise Unavailable(text, dependency=dependency, error_class="throttled") from error
        if code in _DENIED or status in (401, 403):
            raise Unavailable(text, dependency=dependency, error_class="access_denied") from error
        if status >= _SERVER_ERROR:
            raise Unavailable(text, dependency=dependency, error_class="server_error") from error
        raise Permanent(text, error_class=f"{dependency}_refused") from error
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise Unavailable(f"{doing}: {error}", dependency=dependency, error_class="no_credentials") from error
    except botocore.exceptions.ParamValidationError as error:
        raise Permanent(f"{doing}: {error}", error_class=f"{dependency}_refused") from error
    except (
        botocore.exceptions.HTTPClientError,
        botocore.exceptions.BotoCoreError,
        aiohttp.ClientError,
        asyncio.IncompleteReadError,
        TimeoutError,
        OSError,
    ) as error:
        raise Unavailable(
            f"{doing}: {type(error).__name__}: {error}", dependency=dependency, error_class="connection"
        ) from error
    except (botocore.parsers.ResponseParserError, AttributeError, ValueError) as error:
        # botocore takes any answer for the service's own: a proxy's error page, or JSON of another shape.
        raise Unavailable(
            f"{doing}: the answer is not the service's: {type(error).__name__}: {error}",
            dependency=dependency,
            error_class="bad_answer",
        ) from error


__all__ = ["Aws", "error_code", "translated"]
