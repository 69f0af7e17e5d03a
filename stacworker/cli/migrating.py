"""`stacworker migrate`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

from stacworker.cli.opening import CommandParts, opened
from stacworker.ledger.schema import migrate_schema, pending_migrations
from stacworker.ops.grant import Grant, grant_ingest, look_at_grant
from stacworker.ops.migrate import PgstacMigration, migrate_pgstac
from stacworker.settings import Settings


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was done, or, in a dry run, would be. `pgstac` and `grant` are None where they were not asked for."""

    pgstac: PgstacMigration | None
    schema: tuple[str, ...]
    grant: Grant | None
    dry_run: bool

    def lines(self) -> list[str]:
        """Return it for people."""
        would = "would be " if self.dry_run else ""
        found = []
        if self.pgstac is not None and self.pgstac.changes:
            done = f"upgraded from {self.pgstac.before}" if self.pgstac.before else "installed"
            found.append(f"pgstac {self.pgstac.after}: {would}{done}")
        elif self.pgstac is not None:
            found.append(f"pgstac {self.pgstac.after}: already there")
        found += [f"schema stacworker {step}: {would}applied" for step in self.schema]
        if not self.schema:
            found.append("schema stacworker: up to date")
        if self.grant is not None and self.grant.before:
            found.append(f"role {self.grant.role}: a member of pgstac_ingest already")
        elif self.grant is not None:
            found.append(f"role {self.grant.role}: {would}made a member of pgstac_ingest")
        return found

    def as_json(self) -> dict[str, object]:
        """Return it for `--json`."""
        return {
            "dry_run": self.dry_run,
            "pgstac": asdict(self.pgstac) if self.pgstac else None,
            "stacworker": list(self.schema),
            "grant": asdict(self.grant) if self.grant else None,
        }


async def migrate(
    settings: Settings, *, pgstac: bool, pgstac_version: str | None, grant: str | None, dry_run: bool
) -> Migrated:
    """Bring pgstac, if asked for, and schema `stacworker` up to date, then let the role `grant` load.

    A dry run only says what is missing. That the role exists is looked at before anything is changed.
    """
    async with opened(settings) as parts:
        database = await parts.database()
        granted = await look_at_grant(database, grant) if grant is not None else None
        done = await _pgstac(parts, pgstac_version, dry_run=dry_run) if pgstac else None
        if dry_run:
            async with database.transaction("looking at schema stacworker") as connection:
                steps = await pending_migrations(connection)
        else:
            steps = await migrate_schema(database)
            granted = await grant_ingest(database, grant) if grant is not None else None
        return Migrated(done, tuple(map(str, steps)), granted, dry_run)


async def _pgstac(parts: CommandParts, version: str | None, *, dry_run: bool) -> PgstacMigration:
    arguments = await parts.libpq_arguments()
    return await asyncio.to_thread(migrate_pgstac, arguments, version, dry_run=dry_run)
