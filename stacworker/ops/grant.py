"""Make the role that workers log in as a member of pgstac_ingest, which pgstac's migrations create."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from stacworker.database import Connection, Database
from stacworker.errors import ConfigError

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('stacworker:grant', 0))"
# The server quotes the name. Before pgstac is there nobody is a member of its role.
_ASK = """
    SELECT format('GRANT pgstac_ingest TO %I', role.rolname) AS statement,
           coalesce((SELECT pg_has_role(role.oid, ingest.oid, 'USAGE') FROM pg_roles AS ingest
                     WHERE ingest.rolname = 'pgstac_ingest'), false) AS is_member
    FROM pg_roles AS role WHERE role.rolname = $1
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """Whether `role` was a member of pgstac_ingest before; if not, it is now, or would be."""

    role: str
    before: bool


async def look_at_grant(database: Database, role: str) -> Grant:
    """Say whether a role is a member already. Raises ConfigError when it does not exist."""
    async with database.transaction(f"looking for the role {role}") as connection:
        return (await _ask(connection, role))[0]


async def grant_ingest(database: Database, role: str) -> Grant:
    """Grant pgstac_ingest to a role, once, whoever else does so at the same time; pgstac is there.

    Raises ConfigError when the role does not exist, cannot be a member, or we may not make it one; Unavailable
    when the database is away.
    """
    async with database.transaction(f"granting pgstac_ingest to {role}") as connection:
        await connection.execute(_LOCK)
        found, statement = await _ask(connection, role)
        if not found.before:
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError as error:
                raise ConfigError(
                    f"the migration's role may not grant pgstac_ingest ({error}): as a superuser run "
                    f"`{statement}`, or grant it to the migration's role WITH ADMIN OPTION"
                ) from None
            except asyncpg.InvalidGrantOperationError as error:
                raise ConfigError(f"{role} cannot be a member of pgstac_ingest ({error}): name another role") from None
            after, _ = await _ask(connection, role)
            if not after.before:
                raise ConfigError(
                    f"{role} does not inherit the rights of the roles that it is a member of: run "
                    "ALTER ROLE … INHERIT, then this again"
                )
        return found


async def _ask(connection: Connection, role: str) -> tuple[Grant, str]:
    row = await connection.fetchrow(_ASK, role)
    if row is None:
        raise ConfigError(
            f"there is no role {role} to grant pgstac_ingest to: create it first (CREATE ROLE … LOGIN), "
            "and spell it as the database does, without quotes"
        )
    return Grant(role, row["is_member"]), row["statement"]
