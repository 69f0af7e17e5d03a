"""What a request asks for: which file, and what its item is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from stacworker.api import Request
from stacworker.envelope.locations import s3_location
from stacworker.errors import Permanent
from stacworker.generate.raster.options import RasterOptions

_DATA = "data"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, read.

    `base` is the item that was sent, with whatever it lacked; {} where only a file was named. `times` are the
    item's properties about its time; {} where neither request nor name tell, and the file must.
    """

    href: str
    id: str
    collection: str
    asset: str
    times: Mapping[str, Any]
    base: Mapping[str, Any]
    origin: str


def asked(request: Request, options: RasterOptions) -> Asked:
    """Read a request; raises Permanent (`raster_usage`) with what is missing."""
    body = request.body
    base = body if isinstance(body.get("assets"), dict) else {}
    asset = _asset_name(base, options, request.origin) if base else options.asset or _DATA
    href = base["assets"][asset].get("href") if base else _href(body)
    if not isinstance(href, str) or not href:
        raise _unusable(request, "it names no file: send an href, an S3 event, or an item whose asset has an href")
    name = file_name(href)
    return Asked(
        href=href,
        id=_id(request, name, options),
        collection=_collection(request, options),
        asset=asset,
        times=_times(request, base, name, options),
        base=base,
        origin=request.origin,
    )


def file_name(href: str) -> str:
    """Return the last part of a path, an object's key or a URL's path."""
    location = s3_location(href)
    if location is not None:
        return location.key.rpartition("/")[2]
    if href.startswith(("http://", "https://")):  # not urlsplit: it raises for what is none of its business here
        path = re.split(r"[?#]", href.partition("://")[2], maxsplit=1)[0].partition("/")[2]
        return unquote(path.rpartition("/")[2])
    return href.rpartition("/")[2]


def _href(body: Mapping[str, Any]) -> Any:
    bucket, key = body.get("bucket"), body.get("key")
    if "href" not in body and isinstance(bucket, str) and isinstance(key, str):
        return f"s3://{bucket}/{key}"
    return body.get("href")


def _asset_name(base: Mapping[str, Any], options: RasterOptions, origin: str) -> str:
    assets = {name: asset for name, asset in base["assets"].items() if isinstance(asset, dict)}
    name = options.asset or (next(iter(assets)) if len(assets) == 1 else _DATA)
    if name not in assets:
        there = ", ".join(list(assets)[:20]) or "none"
        text = f"{origin}: the item has no asset {name!r}; it has {there}: set the option asset"
        raise Permanent(text, error_class="raster_usage")
    return name


def _id(request: Request, name: str, options: RasterOptions) -> str:
    given = request.body.get("id")
    if isinstance(given, str) and given:
        return given
    if options.id_pattern is not None:
        found = re.search(options.id_pattern, name)
        if found is None or not found["id"]:
            raise _unusable(request, f"options.id_pattern finds no id in the file's name {name[:200]!r}")
        return found["id"]
    if not (stem := PurePosixPath(name).stem):
        raise _unusable(request, "its file has no name from which an id could be made: send an id")
    return stem


def _collection(request: Request, options: RasterOptions) -> str:
    for found in (request.collection_id, request.body.get("collection"), options.collection):
        if isinstance(found, str) and found:
            return found
    raise _unusable(request, "it names no collection: send collection_id, or set the option collection")


def _times(request: Request, base: Mapping[str, Any], name: str, options: RasterOptions) -> dict[str, Any]:
    properties = base.get("properties") or request.body.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    given = properties.get("datetime") or request.body.get("datetime")
    if given is not None:
        return {"datetime": _checked(request, given)}
    if properties.get("start_datetime") and properties.get("end_datetime"):
        return {"datetime": None}
    if options.datetime_pattern is None or (found := re.search(options.datetime_pattern, name)) is None:
        return {}
    text = (found["datetime"] if "datetime" in found.re.groupindex else found[min(1, found.re.groups)]) or ""
    try:
        read = datetime.strptime(text, options.datetime_format)  # noqa: DTZ007 - made aware below
    except ValueError:
        what = f"options.datetime_format {options.datetime_format!r} does not fit {text[:100]!r} in the file's name"
        raise _unusable(request, what) from None
    return {"datetime": rfc3339(read)}


def rfc3339(moment: datetime) -> str:
    """Return a moment as STAC writes it; without an offset it is UTC."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _checked(request: Request, given: Any) -> str:
    try:
        return rfc3339(datetime.fromisoformat(given))
    except (TypeError, ValueError, OverflowError):
        raise _unusable(request, f"its datetime {str(given)[:100]!r} is none; expected RFC 3339") from None


def _unusable(request: Request, what: str) -> Permanent:
    return Permanent(f"{request.origin}: the request cannot be used: {what}", error_class="raster_usage")
