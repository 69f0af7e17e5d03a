"""Which databases are let in, and whom they let in."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from stacworker.database import Database
from stacworker.errors import ConfigError
from stacworker.load.pgstac import Catalogue, Loaded
from stacworker.metrics import Metrics
from stacworker.testing.postgres import Postgres
from tests.integration.pg import NEWEST
from tests.integration.site import made, site_at


@pytest.fixture
def dsn(postgres: Postgres) -> Iterator[str]:
    """Lend a database with the newest pgstac."""
    with postgres.scratch(NEWEST) as name:
        yield postgres.dsn(name)


async def problems(dsn: str, *statements: str, role: str | None = None) -> str:
    """Return why a database is not let in after these statements."""
    admin = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await admin.execute(statement)
    finally:
        await admin.close()
    with pytest.raises(ConfigError) as caught:
        async with site_at(dsn, role=role):
            pass
    return str(caught.value)


async def test_the_version_is_told(pgstac_dsn: str, pgstac_version: str) -> None:
    """As the database has it."""
    async with site_at(pgstac_dsn) as site:
        assert site.catalogue.version == pgstac_version


async def test_a_database_without_pgstac_is_refused(postgres: Postgres) -> None:
    """With the command that installs it."""
    name = postgres.create_database()
    expected = "the database has no schema pgstac: run `stacworker migrate --pgstac`"
    assert await problems(postgres.dsn(name)) == expected
    postgres.drop_database(name)


@pytest.mark.parametrize("version", ["0.8.6", "0.11.0", "1.0.0", "0.10.1-dev", "unreleased"])
async def test_another_version_is_refused_by_name(dsn: str, version: str) -> None:
    """Its tables may be others."""
    statement = f"INSERT INTO pgstac.migrations (version, datetime) VALUES ('{version}', now() + interval '1 hour')"
    assert await problems(dsn, statement) == (
        f"the database has pgstac {version}; this stacworker loads into pgstac 0.9.x and 0.10.x: "
        "run `stacworker migrate --pgstac`, or use another version of stacworker"
    )


async def test_another_table_is_refused(dsn: str) -> None:
    """The version alone does not say what a fork has made of it."""
    assert await problems(dsn, "ALTER TABLE pgstac.items ADD COLUMN extra text") == (
        "pgstac 0.10.0 has another table items than expected: its columns are id text, geometry geometry, "
        "collection text, datetime timestamptz, end_datetime timestamptz, content jsonb, private jsonb, extra text"
    )


async def test_a_role_without_rights_is_refused(dsn: str) -> None:
    """With the statement that helps."""
    try:
        assert await problems(dsn, "CREATE ROLE stranger LOGIN", role="stranger") == (
            'the database role stranger may not write to pgstac: GRANT pgstac_ingest TO "stranger"'
        )
    finally:
        admin = await asyncpg.connect(dsn)
        await admin.execute("DROP ROLE stranger")
        await admin.close()


async def test_membership_in_pgstac_ingest_is_enough(pgstac_dsn: str) -> None:
    """Such a role does not inherit the search_path; new partitions, moves and deletes work all the same."""
    async with site_at(pgstac_dsn) as site:
        await site.admin.execute("CREATE ROLE loader LOGIN IN ROLE pgstac_ingest")
        await site.admin.execute("REVOKE TEMPORARY ON DATABASE " + pgstac_dsn.rpartition("/")[2] + " FROM PUBLIC")
        try:
            async with site_at(pgstac_dsn, role="loader") as loader:
                await loader.add_collection(trunc="month")
                assert await loader.catalogue.load("naip", [made("a", "2020-01-05", 1)]) == Loaded(frozenset("a"))
                moved = made("a", "2020-02-05", 2)
                assert await loader.catalogue.load("naip", [moved]) == Loaded(frozenset("a"))
                assert await loader.search() == [moved.body]
                assert await loader.catalogue.delete("naip", {"a": moved.version}) == frozenset("a")
                assert await loader.catalogue.load("other", [made("b", collection="other")], create_missing=True)
        finally:
            await site.admin.execute("DROP ROLE loader")


async def test_a_pooler_per_transaction_is_fine(pgstac_dsn: str) -> None:
    """No prepared statement outlives its transaction, which PgBouncer would lose."""
    async with (
        Database(pgstac_dsn, transaction_pooler=True) as database,
        Catalogue(database=database, metrics=Metrics()) as catalogue,
    ):
        await catalogue.ping()
        for version in (1, 2):
            items = [made("a", f"2020-0{version}-05", version), made("b", "2020-02-05", version)]
            assert await catalogue.load("naip", items, create_missing=True) == Loaded(frozenset("ab"))
        assert await catalogue.delete("naip", {"a": items[0].version}) == frozenset("a")
        async with database.transaction("looking") as connection:
            assert await connection.fetch("SELECT name FROM pg_prepared_statements") == []
