"""The version of schema `stacworker`, and the numbered migrations that bring it up to date.

Each migration runs in a transaction of its own, under an advisory lock that the transaction holds: two
at the same time wait for each other, one that fails leaves nothing, and doing it twice changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources

from stacworker.database import Connection, Database
from stacworker.errors import ConfigError

_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>\w+)\.sql")
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('stacworker:migrations', 0))"
_BASE = """
    CREATE SCHEMA IF NOT EXISTS stacworker;
    CREATE TABLE IF NOT EXISTS stacworker.migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    );
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: `sql` may hold several statements."""

    version: int
    name: str
    sql: str

    def __str__(self) -> str:
        return f"{self.version:04} {self.name}"


def known_migrations() -> tuple[Migration, ...]:
    """Return the migrations that this version of stacworker brings, oldest first."""
    found = (
        Migration(int(match["version"]), match["name"], file.read_text(encoding="utf-8"))
        for file in resources.files("stacworker.ledger").joinpath("migrations").iterdir()
        if (match := _FILE.fullmatch(file.name))
    )
    return tuple(sorted(found, key=lambda migration: migration.version))


async def schema_version(connection: Connection) -> int:
    """Return the version of the schema; 0: there is none."""
    if await connection.fetchval("SELECT to_regclass('stacworker.migrations')") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM stacworker.migrations"))


async def pending_migrations(connection: Connection) -> list[Migration]:
    """Return what is still to be applied; raise ConfigError when the schema is newer than we are."""
    known = known_migrations()
    version = await schema_version(connection)
    if version > known[-1].version:
        raise ConfigError(
            f"schema stacworker is at version {version}, this stacworker knows {known[-1].version}: "
            "use the newer stacworker that made it"
        )
    return [migration for migration in known if migration.version > version]


async def migrate_schema(database: Database) -> list[Migration]:
    """Apply what is pending and return it.

    Raises ConfigError when the schema is newer than we are, or pgstac, to whose role we grant, is missing;
    Unavailable when the database is away or does not let us.
    """
    applied: list[Migration] = []
    while True:
        async with database.transaction("migrating schema stacworker") as connection:
            await connection.execute(_LOCK)
            if await connection.fetchval("SELECT to_regnamespace('pgstac')") is None:
                raise ConfigError("the database has no schema pgstac: run `stacworker migrate --pgstac`")
            steps = await pending_migrations(connection)
            if not steps:
                return applied
            await connection.execute(_BASE)
            await connection.execute(steps[0].sql)
            await connection.execute(
                "INSERT INTO stacworker.migrations (version, name) VALUES ($1, $2)", steps[0].version, steps[0].name
            )
        applied.append(steps[0])
