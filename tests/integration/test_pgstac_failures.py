"""What may happen in the middle of a load: the end is all or nothing, and the load knows which."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
import stamina

from stacworker.database import Database
from stacworker.errors import Transient, Unavailable
from stacworker.load.pgstac import Loaded, MissingCollection
from tests.integration.site import Site, made, site, site_at

__all__ = ["site"]


async def stop(site: Site) -> None:
    """Make the next load stop in the middle, at the collection's table."""
    await site.admin.execute("BEGIN")
    await site.admin.execute(f"LOCK TABLE {await site.root()} IN EXCLUSIVE MODE")


async def go(site: Site) -> None:
    """Let what was stopped go on."""
    await site.admin.execute("COMMIT")


async def test_a_killed_backend_costs_a_second_try(site: Site) -> None:
    """Nothing of the first is in, and the second sends all rows again."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a")])
    await stop(site)
    loading = asyncio.ensure_future(site.catalogue.load("naip", [made("b"), made("c")]))
    await site.admin.execute(f"SELECT pg_terminate_backend({await site.blocked()})")
    await site.blocked()
    await go(site)
    assert await loading == Loaded(frozenset("bc"))
    assert [row[0] for row in await site.rows()] == ["a", "b", "c"]
    assert site.count("load_retries_total", error_class="connection") == 1


async def test_a_database_that_is_gone_is_unavailable(site: Site) -> None:
    """The second try finds nobody; nothing is half in, and once it is back all goes in."""
    await site.admin.execute("CREATE ROLE away LOGIN IN ROLE pgstac_ingest")
    try:
        async with site_at(site.dsn, role="away") as away:
            await away.add_collection()
            await away.catalogue.load("naip", [made("a")])
            await stop(site)
            loading = asyncio.ensure_future(away.catalogue.load("naip", [made("b"), made("c")]))
            await site.blocked()
            await away.admin.execute("ALTER ROLE away NOLOGIN")
            await away.admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'away'")
            with pytest.raises(Unavailable) as caught:
                await loading
            assert (caught.value.dependency, caught.value.error_class) == ("database", "access_denied")
            with pytest.raises(Unavailable):
                await away.catalogue.ping()
            await go(site)
            assert [row[0] for row in await site.rows()] == ["a"]
            await away.admin.execute("ALTER ROLE away LOGIN")
            assert await away.catalogue.load("naip", [made("b"), made("c")]) == Loaded(frozenset("bc"))
            assert [row[0] for row in await site.rows()] == ["a", "b", "c"]
    finally:
        await site.admin.execute("DROP ROLE away")


async def test_a_read_only_database_is_unavailable(pgstac_dsn: str) -> None:
    """After a failover the old primary answers queries and takes no writes: polling has to pause."""
    async with site_at(pgstac_dsn) as site:
        await site.catalogue.ping()
        name = await site.admin.fetchval("SELECT current_database()")
        await site.admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with Database(pgstac_dsn) as database:
        with pytest.raises(Unavailable, match="read-only"):
            await database.ping()


async def test_a_cancelled_load_is_rolled_back(site: Site) -> None:
    """Its connection is not used again, and the next load is not disturbed."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a")])
    await stop(site)
    loading = asyncio.ensure_future(site.catalogue.load("naip", [made("b")]))
    pid = await site.blocked()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await go(site)
    assert await site.catalogue.load("naip", [made("c")]) == Loaded(frozenset("c"))
    assert [row[0] for row in await site.rows()] == ["a", "c"]
    alive = "SELECT pid FROM pg_stat_activity WHERE application_name = 'stacworker' AND datname = current_database()"
    assert pid not in [row["pid"] for row in await site.admin.fetch(alive)]


async def test_a_load_that_takes_too_long_is_stopped(pgstac_dsn: str) -> None:
    """By the database, and it is told; it is not tried again at once."""
    async with site_at(pgstac_dsn, statement_timeout_s=0.3) as site:
        await site.add_collection()
        await site.catalogue.load("naip", [made("a")])
        await stop(site)
        with pytest.raises(Transient) as caught:
            await site.catalogue.load("naip", [made("b")])
        assert caught.value.error_class == "statement_timeout"
        await go(site)
        assert [row[0] for row in await site.rows()] == ["a"]


async def test_a_row_that_somebody_else_puts_in_meanwhile_is_replaced(site: Site) -> None:
    """It was not there when we looked, and is when we write: the second try sees it."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a")])
    await site.admin.execute("BEGIN")
    await site.admin.execute(
        "INSERT INTO items SELECT 'b', geometry, collection, datetime, end_datetime, content FROM items"
    )
    loading = asyncio.ensure_future(site.catalogue.load("naip", [made("b"), made("c")]))
    await site.blocked()
    await go(site)
    assert await loading == Loaded(frozenset("bc"))
    assert [(row[0], row[2]) for row in await site.rows()] == [("a", 1), ("b", 1), ("c", 1)]
    assert site.count("load_retries_total", error_class="duplicate") == 1


@pytest.mark.parametrize("trunc", [None, "month"])
async def test_constraints_tightened_behind_our_back_are_widened_again(site: Site, trunc: str | None) -> None:
    """As pgstac's own maintenance does; the next item outside them costs a second try."""
    await site.add_collection(trunc=trunc)
    await site.catalogue.load("naip", [made("a", "2021-11-03")])
    leaf = await site.admin.fetchval("SELECT tableoid::regclass::text FROM items")
    await site.admin.execute(f"SELECT update_partition_stats('{leaf}', false)")
    assert await site.catalogue.load("naip", [made("b", "2021-11-20")]) == Loaded(frozenset("b"))
    assert site.count("load_retries_total", error_class="out_of_range") == 1
    assert [item["id"] for item in await site.search()] == ["a", "b"]


async def test_a_collection_that_is_made_anew_is_read_again(site: Site) -> None:
    """Dropped and created by somebody else, it has another key and no partitions."""
    await site.add_collection(trunc="month")
    await site.catalogue.load("naip", [made("a")])
    await site.admin.execute("DELETE FROM collections")
    with pytest.raises(MissingCollection):
        await site.catalogue.load("naip", [made("b")])
    await site.add_collection(trunc="year")
    assert await site.catalogue.load("naip", [made("b")]) == Loaded(frozenset("b"))
    assert await site.rows() == [("b", "2021", 1)]


async def test_a_collection_that_is_repartitioned_is_read_again(site: Site) -> None:
    """Its partitions have other names and bounds from then on."""
    await site.add_collection(trunc="month")
    await site.catalogue.load("naip", [made("a")])
    await site.admin.execute("UPDATE collections SET partition_trunc = 'year'")
    assert await site.catalogue.load("naip", [made("b"), made("a", version=2)]) == Loaded(frozenset("ab"))
    assert await site.rows() == [("a", "2021", 2), ("b", "2021", 1)]
    assert [item["id"] for item in await site.search()] == ["a", "b"]


async def test_a_long_reader_holds_up_new_partitions_only_for_itself(site: Site) -> None:
    """DDL waits only briefly and tries again, so other readers never queue behind it for long."""
    await site.add_collection(trunc="month")
    await site.catalogue.load("naip", [made("a", "2021-11-03")])
    await site.admin.execute("BEGIN")
    await site.admin.execute("SELECT * FROM items")
    loading = asyncio.ensure_future(site.catalogue.load("naip", [made("b", "2021-12-03")]))
    await site.blocked()
    async with site_at(site.dsn) as other:
        assert [item["id"] for item in await other.search()] == ["a"]
        assert await other.catalogue.load("naip", [made("c", "2021-11-05")]) == Loaded(frozenset("c"))
    await go(site)
    assert await loading == Loaded(frozenset("b"))
    assert [item["id"] for item in await site.search()] == ["a", "b", "c"]


async def test_a_partition_that_is_never_made_is_told(site: Site) -> None:
    """The reason names it; pgstac hides its own."""
    await site.add_collection(trunc="month")
    await site.admin.execute("BEGIN")
    await site.admin.execute("LOCK TABLE items IN ACCESS SHARE MODE")
    with stamina.set_testing(True, attempts=2), pytest.raises(Transient) as caught:
        await site.catalogue.load("naip", [made("b", "2021-12-03")])
    await go(site)
    assert caught.value.error_class == "partition"
    assert caught.value.reason.startswith("making a partition of collection 'naip' for 2021-12-01: ")


async def test_a_transaction_that_failed_unnoticed_is_no_success(pgstac_dsn: str) -> None:
    """COMMIT then rolls back and calls that a success; here it is an error."""
    async with Database(pgstac_dsn) as database:
        transaction = database.transaction("testing")
        connection = await transaction.__aenter__()
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1/0")
        with pytest.raises(Transient) as caught:
            await transaction.__aexit__(None, None, None)
        assert caught.value.error_class == "rolled_back"


async def test_one_connection_is_kept_for_the_ping(pgstac_dsn: str) -> None:
    """A database whose connections are all at work is not away."""
    async with Database(pgstac_dsn, max_connections=2) as database, database.transaction("working"):
        second = asyncio.ensure_future(database.transaction("waiting").__aenter__())
        await database.ping()
        assert not second.done()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
