"""Copies of items' assets: each in its place in S3 before the item that names it is handed on.

A place is named after the asset and after what was copied, so that an older message which comes late does not put older
contents where a newer item looks for its own.
"""

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

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[ -~]*)?", re.ASCII)
_MEDIA_TYPE_CHARS = 200
_DIGEST_CHARS = 16
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
    """One asset to copy: its source, where its copies lie, their suffix, and the media type it says it has."""

    href: str
    folder: S3Location
    suffix: str
    media_type: str

    def place(self, digest: str) -> S3Location:
        """Return where the copy of certain contents belongs."""
        return S3Location(self.folder.bucket, f"{self.folder.key}{digest[:_DIGEST_CHARS]}{self.suffix}")


class AssetCopies:
    """Copies assets, at most `max_concurrency` at a time.

    A copy is named after what it was made from: it is not made again while its source stays as it is. What is named
    elsewhere than `options` allow refuses the item, as does what is not there. An asset that lies among
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
                tasks = {name: group.create_task(self._make(copy)) for name, copy in copies.items()}
        except ExceptionGroup as failures:
            raise min(failures.exceptions, key=_rank) from failures
        named = {name: {**assets[name], "href": str(task.result())} for name, task in tasks.items()}
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
        try:
            found = _SUFFIX.search(urlsplit(asset["href"]).path)
        except ValueError as error:
            raise Permanent(f"asset {name[:200]!r}: not an address: {error}", error_class="source_refused") from error
        suffix = found[0] if found else ""
        key = self._root.key + "/".join(segment(str(part)) for part in parts) + "/"
        if len(key.encode()) + _DIGEST_CHARS + len(suffix) > MAX_KEY_BYTES:
            raise Permanent(f"the copy of asset {name[:200]!r} would need too long a key", error_class="too_large")
        return _Copy(asset["href"], S3Location(self._root.bucket, key), suffix, _media_type(asset.get("type"), suffix))

    async def _make(self, copy: _Copy) -> S3Location:
        """Copy one asset, unless its copy is there already; return where it is."""
        async with self._slots:
            try:
                async with self._sources.open(copy.href) as opened:
                    if opened.identity and await self._is_there(place := copy.place(opened.identity)):
                        return place
                    folder = Path(await asyncio.to_thread(self._workspace.new))
                    try:
                        return await self._bring(copy, opened, folder / "asset")
                    finally:
                        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
            except ValueError as error:  # as for a path that holds a NUL
                text = f"not an address that can be read: {error}"
                raise Permanent(text, error_class="source_refused") from error

    async def _bring(self, copy: _Copy, opened: Opened, path: Path) -> S3Location:
        limit_s = self._options.transfer_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                saved = await self._sources.save(opened, copy.href, path)
        except TimeoutError:
            text = f"an asset did not come within {limit_s:g} s (transfer_timeout_s), for {copy.folder}"
            raise Transient(text, error_class="source_timeout") from None
        upload = Upload(self._s3, self._options, content_type=copy.media_type)
        place = copy.place(opened.identity or saved.sha256)
        await upload.file(path, saved.sha256, place)
        return place

    async def _is_there(self, place: S3Location) -> bool:
        async with self._s3.reaching("HEAD", place):
            try:
                await self._s3.client.head_object(Bucket=place.bucket, Key=place.key, **payer(self._options))
            except botocore.exceptions.ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _NOT_THERE:
                    return False
                raise
        return True

    async def _open_web(self, stack: AsyncExitStack) -> Web | None:
        if not self._options.allowed_hosts:
            return None
        try:
            from stacworker.generate.transfer.web import HttpSources, http_client  # noqa: PLC0415 - an extra's
        except ImportError as error:
            raise ConfigError(f"copy_assets.allowed_hosts: {error}: pip install 'stacworker[raster]'") from error
        client = await stack.enter_async_context(http_client())
        return HttpSources(client, self._options.allowed_hosts)


def _media_type(told: object, suffix: str) -> str:
    """Return what an asset says of itself, unless that cannot stand in a header, else what its suffix tells."""
    if isinstance(told, str) and len(told) <= _MEDIA_TYPE_CHARS and _MEDIA_TYPE.fullmatch(told):
        return told
    return mimetypes.guess_type(f"x{suffix}")[0] or _ANY_TYPE


def _rank(error: BaseException) -> int:
    """Order errors by what they tell: an outage most, then what will pass."""
    return 0 if isinstance(error, Unavailable) else 1 if isinstance(error, Transient) else 2
