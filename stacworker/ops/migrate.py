"""Bring pgstac's own schema to a version that stacworker loads into, with pypgstac's migrations.

pypgstac is synchronous and uses psycopg; this is the only place that needs either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacworker.errors import ConfigError, Permanent, Unavailable

_SUPPORTED = re.compile(r"0\.(9|10)\.\d+")
_LOCK = "SELECT pg_advisory_lock(hashtextextended('stacworker:pgstac', 0))"


@dataclass(frozen=True, slots=True)
class PgstacMigration:
    """What there was (None: no pgstac) and what there is now, or would be."""

    before: str | None
    after: str

    @property
    def changes(self) -> bool:
        """True when the versions differ."""
        return self.before != self.after


def pgstac_versions() -> list[str]:
    """Return the versions that can be installed here and loaded into, oldest first."""
    import pypgstac.migrate  # noqa: PLC0415 - slow to import, and only needed here

    names = (file.name.removeprefix("pgstac.") for file in Path(pypgstac.migrate.migrations_dir).glob("pgstac.*.sql"))
    found = [name.removesuffix(".sql") for name in names if _SUPPORTED.fullmatch(name.removesuffix(".sql"))]
    return sorted(found, key=_numbers)


def migrate_pgstac(connect: Mapping[str, Any], version: str | None = None, *, dry_run: bool = False) -> PgstacMigration:
    """Install or upgrade pgstac; `connect` are psycopg's keyword arguments, `version` defaults to the newest.

    One transaction, under an advisory lock, so that two at the same time do it once. Needs a role that may
    create extensions, roles and schemas, and a connection that is not pooled per transaction. Blocks.
    Raises ConfigError for a version that cannot be reached, Unavailable when the database cannot be,
    Permanent with the database's words when it refuses.
    """
    import psycopg  # noqa: PLC0415
    from pypgstac.db import PgstacDB  # noqa: PLC0415
    from pypgstac.migrate import Migrate  # noqa: PLC0415

    try:
        psycopg.conninfo.make_conninfo(**connect)
    except psycopg.Error:
        # libpq's words may quote a part of the password.
        raise ConfigError("database.dsn cannot be read: percent-encode its special characters") from None
    versions = pgstac_versions()
    target = version or versions[-1]
    if target not in versions:
        raise ConfigError(f"pgstac {target} cannot be installed: there are {', '.join(versions)}")
    try:
        with psycopg.connect(**{"connect_timeout": 10, **connect}, autocommit=True) as connection:
            connection.execute(_LOCK)
            connection.execute("SET search_path TO pgstac, public")
            database = PgstacDB(connection=connection)
            try:
                before = database.version
                if before is not None and before != target:
                    _check_path(before, target)
                if before != target and not dry_run:
                    Migrate(database).run_migration(toversion=target)
            finally:
                database.close()
    except psycopg.OperationalError as error:
        raise Unavailable(f"cannot migrate pgstac: {_words(error)}", dependency="database") from error
    except psycopg.Error as error:
        raise Permanent(f"pgstac {target} was not installed: {_words(error)}", error_class="migration") from error
    return PgstacMigration(before, target)


def _check_path(before: str, target: str) -> None:
    from pypgstac.migrate import MigrationPath, migrations_dir  # noqa: PLC0415

    if not re.fullmatch(r"\d+\.\d+\.\d+", before) or _numbers(before) > _numbers(target):
        raise ConfigError(f"pgstac {before} is there already and cannot go back to {target}")
    if MigrationPath(migrations_dir, before, target).build_path() is None:
        raise ConfigError(f"pypgstac has no migrations from pgstac {before} to {target}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
