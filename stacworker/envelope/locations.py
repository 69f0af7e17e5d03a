"""Where an object lies, from the names in an event or from a URL."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

from stacworker.envelope.forms import S3Location
from stacworker.envelope.reasons import bad_envelope, shown
from stacworker.errors import Permanent

MAX_KEY_BYTES = 1024

# What boto takes as a plain name; an ARN (access point, Outpost) would lead to another endpoint.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_S3_HOST = r"s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?"
_PATH_STYLE = re.compile(_S3_HOST)
_VIRTUAL_HOST = re.compile(rf"(?P<bucket>[a-z0-9._-]+)\.{_S3_HOST}")


def location(bucket: object, key: object) -> S3Location:
    """Return the place of an object; raises `Permanent` when there can be no such bucket or key."""
    if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket):
        raise bad_envelope(f"not a bucket name: {shown(bucket)}")
    if not isinstance(key, str) or not key:
        raise bad_envelope(f"an object's key must be text and not empty, not {shown(key)}")
    if len(key.encode()) > MAX_KEY_BYTES:
        raise bad_envelope(f"an object's key has at most {MAX_KEY_BYTES} bytes: {shown(key)}")
    return S3Location(bucket, key)


def s3_location(url: str) -> S3Location | None:
    """Return the object that a URL names, or None when it names none in S3.

    S3 URLs are `s3://bucket/key`, where the key stands as it is, and `https://` URLs of AWS's own S3
    hosts (path style or virtual host), where it is percent-encoded and a query is ignored: objects
    are fetched with this process's own permissions, and as they are now.
    """
    try:
        if url.startswith("s3://"):
            bucket, _, key = url.removeprefix("s3://").partition("/")
            return location(bucket, key)
        parts = urlsplit(url)
        if parts.scheme != "https":
            return None
        host = parts.netloc.lower().removesuffix(":443")
        path = unquote(parts.path, errors="strict").removeprefix("/")
        if _PATH_STYLE.fullmatch(host):
            bucket, _, key = path.partition("/")
            return location(bucket, key)
        if match := _VIRTUAL_HOST.fullmatch(host):
            return location(match["bucket"], path)
    except (ValueError, Permanent):
        return None
    return None


def segment(name: str) -> str:
    """Return a name as one segment of a key, whatever it holds: odd characters are percent-encoded."""
    # A segment of dots alone could be taken for a step up by a client or a proxy on the way.
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")
