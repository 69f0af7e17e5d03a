"""Which of two versions of an item is newer, in the database too.

The version of a loaded item is kept in the row's `private` column, which pgstac never shows:
`{"stacworker": {"v": time_ms, "s": sequencer}}`, beside whatever others keep there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from stacworker.api import Version

KEY = "stacworker"


def with_version(private: dict[str, Any] | None, version: Version) -> str:
    """Return the JSON of the `private` column for an item of this version."""
    return orjson.dumps({**(private or {}), KEY: {"v": version.time_ms, "s": version.sequencer}}).decode()


def as_object(private: str | None) -> dict[str, Any]:
    """Return a `private` column as an object; empty where it is none."""
    value = orjson.loads(private) if private else None
    return value if isinstance(value, dict) else {}


def stored_version(private: dict[str, Any]) -> Version | None:
    """Return the version that a row was loaded with; None where somebody else wrote it."""
    kept = private.get(KEY)
    if not isinstance(kept, dict) or type(kept.get("v")) is not int:
        return None
    return Version(kept["v"], str(kept.get("s") or ""))


def is_newer(stored: Version | None, stored_at: datetime, version: Version, at: datetime) -> bool:
    """Say whether a stored row is newer than another one of the same id; `at` are the items' datetimes.

    A row that somebody else wrote is older. Of equal versions the later datetime is newer, so that two
    writers agree whatever the order; at the same datetime the content decides (in SQL, see `sql.upsert`).
    """
    return stored is not None and (stored, stored_at) > (version, at)
