"""Files from http and https URLs: only from hosts that settings allow, redirects included."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from fnmatch import fnmatchcase
from http import HTTPStatus

import httpx

from stacworker.errors import Permanent, StacworkerError, Transient
from stacworker.generate.transfer.source import CHUNK_BYTES, Opened, identity

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_MAX_REDIRECTS = 5
_PASSING = frozenset({401, 403, 408, 425, 429})
"""401 and 403 because rights can be mended, as for objects in S3."""
_GONE = frozenset({404, 410})


class HttpSources:
    """Opens URLs whose host matches one of `allowed_hosts` (shell patterns)."""

    def __init__(self, client: httpx.AsyncClient, allowed_hosts: Sequence[str]) -> None:
        self._client = client
        self._allowed_hosts = allowed_hosts

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Opened]:
        """Open a URL.

        Raises Permanent: `source_missing`, `source_not_allowed`, `source_refused`; Transient:
        `source_access_denied`, `source_unreachable`.
        """
        response = await self._answer(url)
        try:
            yield _opened(url, response)
        finally:
            await response.aclose()

    async def _answer(self, url: str) -> httpx.Response:
        with _reaching(url):
            target = httpx.URL(url)
            for _ in range(_MAX_REDIRECTS + 1):
                self._check(target)
                request = self._client.build_request("GET", target, headers={"Accept-Encoding": "identity"})
                response = await self._client.send(request, stream=True, follow_redirects=False)
                if response.is_success:
                    return response
                await response.aclose()
                if response.next_request is None:
                    raise _refused(target, response.status_code)
                if target.scheme == "https" and response.next_request.url.scheme != "https":
                    raise Permanent(f"{_bare(target)} redirects to http", error_class="source_not_allowed")
                target = response.next_request.url
        raise Permanent(f"{_bare(target)}: more than {_MAX_REDIRECTS} redirects", error_class="source_refused")

    def _check(self, url: httpx.URL) -> None:
        allowed = url.scheme in ("http", "https") and url.host
        if not allowed or not any(fnmatchcase(url.host, pattern.lower()) for pattern in self._allowed_hosts):
            hosts = ", ".join(self._allowed_hosts) or "none"
            raise Permanent(
                f"not allowed: {_bare(url)}; allowed hosts: {hosts} (allowed_hosts)",
                error_class="source_not_allowed",
            )


def http_client() -> httpx.AsyncClient:
    """Return a client that its caller closes."""
    return httpx.AsyncClient(timeout=_TIMEOUT, headers={"User-Agent": "stacworker"})


def _opened(url: str, response: httpx.Response) -> Opened:
    tags = [response.headers.get(name) for name in ("ETag", "Last-Modified", "Content-Length")]
    encoded = "Content-Encoding" in response.headers  # then the length is another's
    size = tags[2] if tags[2] and tags[2].isdecimal() and not encoded else None
    return Opened(
        identity=identity(url, *tags) if tags[0] or tags[1] else "",
        size_bytes=None if size is None else int(size),
        chunks=_chunks(url, response),
    )


async def _chunks(url: str, response: httpx.Response) -> AsyncIterator[bytes]:
    with _reaching(url):
        async for chunk in response.aiter_bytes(CHUNK_BYTES):
            yield chunk


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except StacworkerError:
        raise
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise Permanent(f"not a URL that can be fetched: {error}", error_class="source_refused") from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        text = f"{url.partition('?')[0]}: {type(error).__name__}: {error}"
        raise Transient(text, error_class="source_unreachable") from error


def _refused(url: httpx.URL, status: int) -> Permanent | Transient:
    text = f"{_bare(url)} answers {status}"
    if status in _GONE:
        return Permanent(f"no such file: {text}", error_class="source_missing")
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        denied = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        return Transient(text, error_class="source_access_denied" if denied else "source_unreachable")
    return Permanent(text, error_class="source_refused")


def _bare(url: httpx.URL) -> str:
    return str(url.copy_with(query=None))
