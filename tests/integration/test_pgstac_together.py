"""Several writers in one pgstac: nothing is lost, nothing twice, and the limit holds over all replicas."""

from __future__ import annotations

import asyncio
import random

import pytest

from stacworker.api import Version
from stacworker.errors import Transient
from stacworker.load.pgstac import Busy, Loaded
from stacworker.load.pgstac.slots import slot_keys
from tests.integration.site import Site, made, site, site_at, until
from tests.naip import naip_collection

__all__ = ["site"]

_TAKE_SLOT = [f"SELECT pg_advisory_lock({key})" for key in slot_keys("naip", 2)]
_LEAVE_SLOTS = "SELECT pg_advisory_unlock_all()"


@pytest.mark.parametrize(("trunc", "slots"), [(None, 2), ("month", 1), ("month", 2)])
async def test_overlapping_batches_of_two_replicas_add_up(site: Site, trunc: str | None, slots: int) -> None:
    """Whatever the order, one row of each id is left, and it is the newest, wherever it moved to."""
    await site.add_collection(trunc=trunc)
    pick = random.Random(7)
    batches = [
        [made(f"{number:02}", f"2021-{pick.randint(1, 12):02}-05", version) for number in pick.sample(range(40), 25)]
        for version in range(1, 21)
    ]
    newest = {item.id: item for batch in batches for item in batch}
    pick.shuffle(batches)
    async with site_at(site.dsn) as other:
        ends = await asyncio.gather(
            *(
                (site, other)[number % 2].catalogue.load("naip", batch, max_concurrency=slots)
                for number, batch in enumerate(batches)
            )
        )
    assert [sorted(end.loaded | end.superseded) for end in ends] == [sorted(i.id for i in batch) for batch in batches]
    rows = await site.rows()
    assert [(row[0], row[2]) for row in rows] == [(i, newest[i].version.time_ms) for i in sorted(newest)]
    assert await site.search() == [newest[item_id].body for item_id in sorted(newest)]


async def test_new_partitions_of_many_tasks_are_all_made(site: Site) -> None:
    """Eight at once, in two collections, each with months that nobody has loaded before."""
    collections = ("naip", "other")
    for collection in collections:
        await site.add_collection(collection, "month")

    async def load(number: int) -> None:
        for year in (2019, 2020, 2021):
            collection = collections[number % 2]
            item = made(f"{year}-{number}", f"{year}-{number + 1:02}-05", collection=collection)
            assert await site.catalogue.load(collection, [item]) == Loaded(frozenset({item.id}))

    await asyncio.gather(*(load(number) for number in range(8)))
    expected = sorted(f"{year}-{number}" for year in (2019, 2020, 2021) for number in range(8))
    assert [item["id"] for item in await site.search(collections=collections)] == expected


@pytest.mark.parametrize(("trunc", "slots", "busy"), [(None, 1, True), (None, 2, False), ("month", 2, True)])
async def test_a_full_collection_is_busy(pgstac_dsn: str, trunc: str | None, slots: int, *, busy: bool) -> None:
    """All slots taken elsewhere: nothing is tried, and others are not held up. Partitioned by time there is one."""
    async with site_at(pgstac_dsn, lock_timeout_s=0.05) as site:
        await site.add_collection(trunc=trunc)
        await site.admin.execute(_TAKE_SLOT[0])
        for _ in range(5):  # whichever slot is looked at first
            if not busy:
                assert await site.catalogue.load("naip", [made("a")], max_concurrency=slots) == Loaded(frozenset("a"))
                continue
            with pytest.raises(Busy) as caught:
                await site.catalogue.load("naip", [made("a")], max_concurrency=slots)
            assert isinstance(caught.value, Transient)
            assert caught.value.error_class == "busy"
        assert site.count("load_retries_total", error_class="busy") == 0
        await site.admin.execute(_LEAVE_SLOTS)
        assert await site.catalogue.load("naip", [made("a")]) == Loaded(frozenset("a"))
        assert site.count("lock_wait_seconds_count", scope="collection") >= 1
        assert site.count("lock_wait_seconds_count", scope="ddl") == 1


async def test_who_waits_holds_no_connection(site: Site) -> None:
    """Many loads into a collection that is taken leave the pool to the others."""
    for collection in ("naip", "other"):
        await site.add_collection(collection)
        await site.catalogue.load(collection, [made("first", collection=collection)])
    await site.admin.execute(_TAKE_SLOT[0])
    waiting = [asyncio.ensure_future(site.catalogue.load("naip", [made(f"{n}")])) for n in range(20)]
    await site.blocked()
    assert await site.catalogue.load("other", [made("a", collection="other")]) == Loaded(frozenset("a"))
    await site.catalogue.ping()
    await site.admin.execute(_LEAVE_SLOTS)
    assert await asyncio.gather(*waiting) == [Loaded(frozenset({f"{n}"})) for n in range(20)]


async def test_busy_collections_leave_connections_to_others(site: Site) -> None:
    """More collections are taken elsewhere than there are connections: a free one is loaded without a wait."""
    taken = [f"taken-{number}" for number in range(12)]
    for collection in (*taken, "free"):
        await site.add_collection(collection)
        await site.catalogue.load(collection, [made("first", collection=collection)])
    for collection in taken:
        await site.admin.execute(f"SELECT pg_advisory_lock({slot_keys(collection, 1)[0]})")
    waiting = [asyncio.ensure_future(site.catalogue.load(name, [made("a", collection=name)])) for name in taken]
    await site.blocked()
    async with asyncio.timeout(2):  # less than the five seconds for which a lock is waited
        assert await site.catalogue.load("free", [made("a", collection="free")]) == Loaded(frozenset("a"))
        await until(lambda: _settled(waiting, at_least=1))
    assert {type(task.exception()) for task in waiting if task.done()} == {Busy}
    await site.admin.execute(_LEAVE_SLOTS)
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert ends.count(Loaded(frozenset("a"))) == 3


async def _settled(tasks: list[asyncio.Future[Loaded]], *, at_least: int) -> bool:
    return sum(task.done() for task in tasks) >= at_least


async def test_a_delete_waits_for_every_slot(site: Site) -> None:
    """So no load can be putting in what it takes out."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a")])
    await site.admin.execute(_TAKE_SLOT[1])
    deleting = asyncio.ensure_future(site.catalogue.delete("naip", {"a": Version(1)}, max_concurrency=2))
    await site.blocked()
    assert [row[0] for row in await site.rows()] == ["a"]
    await site.admin.execute(_LEAVE_SLOTS)
    assert await deleting == frozenset("a")
    assert await site.rows() == []


async def test_a_collection_changes_between_loads_only(site: Site) -> None:
    """An update waits for the load that has read it, so that no item is stripped of what is gone by then."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a")])
    async with site.admin.transaction():
        await site.admin.execute(f"LOCK TABLE {await site.root()} IN EXCLUSIVE MODE")
        loading = asyncio.ensure_future(site.catalogue.load("naip", [made("b")]))
        await site.blocked()
        async with site_at(site.dsn) as other:
            putting = asyncio.ensure_future(other.catalogue.put_collection(naip_collection(item_assets={})))
            waiting = "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await until(lambda: other.admin.fetchval(waiting))
            await site.admin.execute("COMMIT")
            await putting
            assert await loading == Loaded(frozenset("b"))
            await site.admin.execute("BEGIN")


async def test_two_make_the_same_collection_once(site: Site) -> None:
    """Both find it missing, one creates it, both load."""
    async with site_at(site.dsn) as other:
        ends = await asyncio.gather(
            site.catalogue.load("naip", [made("a")], create_missing=True),
            other.catalogue.load("naip", [made("b")], create_missing=True),
        )
    assert ends == [Loaded(frozenset("a")), Loaded(frozenset("b"))]
    assert len(await site.search()) == 2
