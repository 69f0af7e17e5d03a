"""Looks at the database: pgstac's version, the role's rights, stacworker's own schema. Changes nothing."""

from __future__ import annotations

from stacworker.database import Connection, Database
from stacworker.errors import StacworkerError
from stacworker.ledger.schema import pending_migrations
from stacworker.ops.findings import Finding, error, ok, warning

SUBJECT = "database"


async def check_database(database: Database) -> list[Finding]:
    """Look at everything that loading needs of the database; what pgstac's version is good for is not judged here."""
    try:
        await database.open()
        async with database.transaction(
            "looking at the database", settings={"statement_timeout": "10000"}
        ) as connection:
            found = await _check_role(connection)
            return found + await _check_schema(connection)
    except StacworkerError as problem:
        return [error(SUBJECT, f"{problem.reason}; see `database` in the settings, and the PG* variables")]


async def _check_role(connection: Connection) -> list[Finding]:
    row = await connection.fetchrow(
        "SELECT current_user AS role, current_database() AS database, current_setting('server_version') AS version,"
        " (SELECT pg_has_role(current_user, oid, 'USAGE') FROM pg_roles"
        "  WHERE rolname = 'pgstac_ingest' AND to_regnamespace('pgstac') IS NOT NULL) AS may_load"
    )
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    found = [ok(SUBJECT, f"{row['role']} is connected to {row['database']} on PostgreSQL {row['version']}")]
    if row["may_load"] is None:
        found.append(error(SUBJECT, "pgstac is not installed: run `stacworker migrate --pgstac`"))
    elif row["may_load"]:
        found.append(ok(SUBJECT, f"{row['role']} is a member of pgstac_ingest and may load"))
    else:
        found.append(error(SUBJECT, f'{row["role"]} may not load: GRANT pgstac_ingest TO "{row["role"]}"'))
    return found


async def _check_schema(connection: Connection) -> list[Finding]:
    try:
        pending = await pending_migrations(connection)
    except StacworkerError as problem:
        return [error("schema stacworker", problem.reason)]
    if pending:
        names = ", ".join(map(str, pending))
        return [warning("schema stacworker", f"not up to date (missing: {names}): run `stacworker migrate`")]
    return [ok("schema stacworker", "up to date")]
