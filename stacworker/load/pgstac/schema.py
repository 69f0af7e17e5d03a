"""Which pgstac is this, and can we load into it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stacworker.database import Connection
from stacworker.errors import ConfigError
from stacworker.load.pgstac import sql

SUPPORTED = re.compile(r"0\.(?P<minor>9|10)\.\d+")

_COLUMNS = [
    "id text",
    "geometry geometry",
    "collection text",
    "datetime timestamptz",
    "end_datetime timestamptz",
    "content jsonb",
    "private jsonb",
]


@dataclass(frozen=True, slots=True)
class Schema:
    """The pgstac of a database.

    `has_base_items`: base items are kept by id (0.10). `remembers_deletions`: stacworker's own table of
    deletions is there (`stacworker migrate`).
    """

    version: str
    has_base_items: bool
    remembers_deletions: bool


async def read_schema(connection: Connection) -> Schema:
    """Return the schema; raise `ConfigError` when there is none that this version of stacworker loads into."""
    found = await connection.fetchrow(sql.SCHEMA)
    if found is None or not found["present"]:
        raise ConfigError("the database has no schema pgstac: run `stacworker migrate --pgstac`")
    if not found["usable"] or not found["writable"]:
        raise ConfigError(
            f'the database role {found["role"]} may not write to pgstac: GRANT pgstac_ingest TO "{found["role"]}"'
        )
    version: str = await connection.fetchval(sql.VERSION)
    match = SUPPORTED.fullmatch(version or "")
    if match is None:
        raise ConfigError(
            f"the database has pgstac {version}; this stacworker loads into pgstac 0.9.x and 0.10.x: "
            "run `stacworker migrate --pgstac`, or use another version of stacworker"
        )
    if found["columns"] != _COLUMNS:
        raise ConfigError(
            f"pgstac {version} has another table items than expected: its columns are {', '.join(found['columns'])}"
        )
    return Schema(version, match["minor"] == "10", found["remembers_deletions"])
