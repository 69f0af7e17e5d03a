"""AWS clients: the one module that knows aioboto3, and translates its errors.

Clients are made once per process and service and shared; each is an async context manager.
"""

from __future__ import annotations

import asyncio
import os
import re
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
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
BAD_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
"""Answers about who we are, and so about every call; what they say of what we may do is in `_DENIED`."""

NO_ACCESS = frozenset({"access_denied", "bad_credentials", "no_credentials"})
"""Error classes that somebody has to mend; a start does not wait for it."""

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
        self, service: str, *, max_connections: int = 50, read_timeout_s: float = 20.0, max_retries: int = 2
    ) -> AsyncIterator[Any]:
        """Lend a client.

        A connection on which nothing comes for `read_timeout_s` is given up, and the call made again on another:
        it must be longer than the longest long poll. Retries inside the client are few: the engine has its own.

        Raises `Unavailable` when credentials cannot be had where the environment says they are.
        """
        config = AioConfig(
            max_pool_connections=max_connections,
            connect_timeout=5,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "max_attempts": max_retries},
            s3={"addressing_style": "path"} if self._endpoint_url else None,
        )
        async with AsyncExitStack() as stack:
            with translated(service, "getting credentials"), _checked(f"client for {service}"):
                client = await stack.enter_async_context(
                    self._session.client(service, endpoint_url=self._endpoint_url, config=config)
                )
            yield client


@contextmanager
def _checked(what: str) -> Iterator[None]:
    try:
        yield
    except _WRONG_SETTINGS as error:
        text = f"aws: cannot make a {what}: {_without_value(error)} (aws.endpoint_url, aws.region, AWS_*)"
        raise ConfigError(text) from None


def _without_value(error: Exception) -> str:
    """Say what is wrong with a setting without the setting: a secret may have got into the wrong place."""
    if isinstance(error, botocore.exceptions.ValidationError):
        return re.sub(r"\{[^}]*\}", "…", error.fmt)
    return str(error).partition(": ")[0] if isinstance(error, ValueError) else str(error)


def error_code(error: botocore.exceptions.ClientError) -> str:
    """Return the service's error code, without the `AWS.SimpleQueueService.` some answers carry."""
    code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    return code.rsplit(".", 1)[-1]


@contextmanager
def translated(dependency: str, doing: str) -> Iterator[None]:
    """Turn botocore's and aiohttp's errors into ours.

    Throttling, 5xx, connections and timeouts: `Unavailable(dependency)`. Credentials and permissions:
    `Unavailable` too (every message would fail), with error class `bad_credentials` (whatever they are used
    for), `access_denied` (for this) or `no_credentials`. A request that the service says is wrong: `Permanent`
    with the service's words. An answer that cannot be understood, here or in what the caller does with it:
    `Unavailable` with error class `bad_answer`.
    """
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise _refused(error, dependency, doing) from error
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
    except (
        botocore.parsers.ResponseParserError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # botocore takes any answer for the service's own: a proxy's error page, or JSON of another shape.
        raise Unavailable(
            f"{doing}: the answer is not the service's: {type(error).__name__}: {error}",
            dependency=dependency,
            error_class="bad_answer",
        ) from error
    except RuntimeError as error:
        # botocore's way to say that credentials are expired as soon as renewed: a clock or their source is wrong.
        raise Unavailable(f"{doing}: {error}", dependency=dependency, error_class="bad_credentials") from error


def _refused(error: botocore.exceptions.ClientError, dependency: str, doing: str) -> Unavailable | Permanent:
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    # One line: what follows a wrong signature's is the signed request, session token included.
    message = str(error.response.get("Error", {}).get("Message") or "").partition("\n")[0]
    text = f"{doing}: {code}: {message}".rstrip(": ")
    if code in _THROTTLED or status in (429, 503):
        error_class = "throttled"
    elif code in BAD_CREDENTIALS:
        error_class = "bad_credentials"
    elif code in _DENIED or status in (401, 403):
        error_class = "access_denied"
    elif status >= _SERVER_ERROR:
        error_class = "server_error"
    else:
        return Permanent(text, error_class=f"{dependency}_refused")
    return Unavailable(text, dependency=dependency, error_class=error_class)


__all__ = ["BAD_CREDENTIALS", "NO_ACCESS", "Aws", "error_code", "translated"]
