"""Copies of items' assets: each in its place in S3 before the item that names it is handed on."""

from __future__ import annotations

import asyncio
import mimetypes
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import botocore.exceptions

from stacworker.envelope.forms import S3Location
from stacworker.envelope.locations import MAX_KEY_BYTES, segment
from stacworker.errors import ConfigError, Permanent, Transient, Unavailable
from stacworker.generate.transfer.s3 import S3
from stacworker.generate.transfer.source import Opened, SourceOptions, Sources, Web
from stacworker.generate.transfer.upload import Upload, UploadOptions, payer
from stacworker.generate.workspace import Workspace, remove_abandoned

_SOURCE = "stacworker-source"
_SUFFIX = re.compile(r"(?:\.[A-Za-z][A-Za-z0-9]{0,9}){1,2}$")
_ANY_TYPE = "application/octet-stream"
_NOT_THERE = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)
"""403 says so where we may not list the bucket."""


class CopyOptions(SourceOptions, UploadOptions, Protocol):
    """Which assets are copied, and where to (`settings.CopySettings`)."""

    @property
    def to(self) -> str:
        """s3://bucket/prefix/."""

    @property
    def assets(self) -> Sequence[str] | None:
        """Shell patterns of the assets' names; None: all."""

    @property
    def allowed_hosts(self) -> Sequence[str]:
        """Hosts from which URLs are fetched."""

    @property
    def max_concurrency(self) -> int:
        """Assets copied at the same time."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One asset to copy: its source, its place, and the media type that it says it has."""

    href: str
    place: S3Location
    media_type: str


class AssetCopies:
    """Copies assets, at most `max_concurrency` at a time.

    A copy tells in its metadata what it was made from: it is not made again while its source stays as it is. What
    is named elsewhere than `options` allow refuses the item, as does what is not there. An asset that lies among
    the copies already is left alone.
    """

    def __init__(self, options: CopyOptions, s3: Any, *, allowed_buckets: Sequence[str]) -> None:
        self._options = options
        self._s3 = S3(s3)
        self._allowed_buckets = allowed_buckets
        bucket, _, prefix = options.to.removeprefix("s3://").partition("/")
        self._root = S3Location(bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/")
        self._slots = asyncio.Semaphore(options.max_concurrency)
        self._workspace = Workspace()
        self._sources = Sources(self._s3, None, options, allowed_buckets)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._sources = Sources(self._s3, await self._open_web(stack), self._options, self._allowed_buckets)
            try:
                await asyncio.to_thread(remove_abandoned)
                self._workspace.open()
            except OSError as error:
                raise ConfigError(f"copy_assets: no temporary folder can be made (TMPDIR): {error}") from error
            stack.push_async_callback(asyncio.to_thread, self._workspace.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def ping(self) -> None:
        """Raise Unavailable while S3 is away."""
        await self._s3.ping()

    async def copied(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the items as they are once their assets are copied.

        Raises Permanent, Transient or Unavailable when an asset cannot be; what was copied stays, and is found the
        next time.
        """
        return [await self._copied(item) for item in items]

    async def _copied(self, item: dict[str, Any]) -> dict[str, Any]:
        assets = item.get("assets")
        if not isinstance(assets, dict):
            return item  # it is refused where items are checked
        copies = {
            name: self._copy(item, name, asset)
            for name, asset in assets.items()
            if isinstance(asset, dict) and isinstance(asset.get("href"), str) and self._is_wanted(name, asset["href"])
        }
        try:
            async with asyncio.TaskGroup() as group:
                for copy in copies.values():
                    group.create_task(self._make(copy))
        except ExceptionGroup as failures:
            raise min(failures.exceptions, key=_rank) from failures
        named = {name: {**assets[name], "href": str(copy.place)} for name, copy in copies.items()}
        return {**item, "assets": {**assets, **named}}

    def _is_wanted(self, name: str, href: str) -> bool:
        patterns = self._options.assets
        chosen = patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
        return chosen and not href.startswith(str(self._root))

    def _copy(self, item: Mapping[str, Any], name: str, asset: Mapping[str, Any]) -> _Copy:
        parts = item.get("collection"), item.get("id"), name
        if not all(isinstance(part, str) and part for part in parts):
            raise Permanent(
                "assets are copied only of items with an id and a collection: name the collection in settings, or "
                "have the generator do it",
                error_class="invalid_item",
            )
        suffix = _SUFFIX.search(urlsplit(asset["href"]).path)
        key = self._root.key + "/".join(segment(str(part)) for part in parts) + (suffix[0] if suffix else "")
        if len(key.encode()) > MAX_KEY_BYTES:
            raise Permanent(f"the copy of asset {name[:200]!r} would need too long a key", error_class="too_large")
        told = asset.get("type")
        guessed = mimetypes.guess_type(key)[0] or _ANY_TYPE
        return _Copy(asset["href"], S3Location(self._root.bucket, key), told if isinstance(told, str) else guessed)

    async def _make(self, copy: _Copy) -> None:
        """Copy one asset, unless its copy is there and made from this source."""
        async with self._slots:
            known = await self._known(copy.place)
            async with self._sources.open(copy.href) as opened:
                if opened.identity and opened.identity == known:
                    return
                folder = Path(await asyncio.to_thread(self._workspace.new))
                try:
                    await self._bring(copy, opened, folder / "asset")
                finally:
                    await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    async def _bring(self, copy: _Copy, opened: Opened, path: Path) -> None:
        limit_s = self._options.transfer_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                saved = await self._sources.save(opened, copy.href, path)
        except TimeoutError:
            text = f"an asset did not come within {limit_s:g} s (transfer_timeout_s), for {copy.place}"
            raise Transient(text, error_class="source_timeout") from None
        upload = Upload(self._s3, self._options, content_type=copy.media_type)
        await upload.file(path, saved.sha256, copy.place, {_SOURCE: opened.identity} if opened.identity else {})

    async def _known(self, place: S3Location) -> str | None:
        """Return what the object in a place was copied from."""
        async with self._s3.reaching("HEAD", place):
            try:
                head = await self._s3.client.head_object(Bucket=place.bucket, Key=place.key, **payer(self._options))
            except botocore.exceptions.ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _NOT_THERE:
                    return None
                raise
        found: str | None = head.get("Metadata", {}).get(_SOURCE)
        return found

    async def _open_web(self, stack: AsyncExitStack) -> Web | None:
        if not self._options.allowed_hosts:
            return None
        try:
            from stacworker.generate.transfer.web import HttpSources, http_client  # noqa: PLC0415 - an extra's
        except ImportError as error:
            raise ConfigError(f"copy_assets.allowed_hosts: {error}: pip install 'stacworker[raster]'") from error
        client = await stack.enter_async_context(http_client())
        return HttpSources(client, self._options.allowed_hosts)


def _rank(error: BaseException) -> int:
    """Order errors by what they tell: an outage most, then what will pass."""
    return 0 if isinstance(error, Unavailable) else 1 if isinstance(error, Transient) else 2
