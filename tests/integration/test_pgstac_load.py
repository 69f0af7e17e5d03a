"""Items into a real pgstac, and back out through its search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from stacworker.api import Version
from stacworker.errors import Permanent, Transient
from stacworker.load.geometry import to_ewkb
from stacworker.load.pgstac import Loaded, MissingCollection, Refused
from stacworker.load.pgstac.dehydrate import dehydrate
from stacworker.load.prepare import Prepared
from tests.integration.site import Site, all_made, at, made, site, site_at
from tests.naip import naip_collection, naip_item, naip_items

__all__ = ["site"]

TRUNCS = [None, "year", "month"]


def loaded(*ids: str) -> Loaded:
    return Loaded(frozenset(ids))


@pytest.mark.parametrize("trunc", TRUNCS)
async def test_items_are_found_as_they_were_sent(site: Site, trunc: str | None) -> None:
    """Search with a datetime filter finds every item, whole, whatever the partitioning."""
    await site.add_collection(trunc=trunc)
    bodies = sorted(naip_items(), key=lambda body: body["id"])
    assert await site.catalogue.load("naip", all_made(bodies)) == loaded(*(body["id"] for body in bodies))
    assert await site.search() == bodies
    in_2021 = [body for body in bodies if body["properties"]["datetime"].startswith("2021")]
    assert await site.search("2021-01-01T00:00:00Z/2021-12-31T23:59:59Z") == in_2021
    assert 0 < len(in_2021) < len(bodies)


async def test_dehydrated_content_is_what_pgstac_makes_of_it(site: Site) -> None:
    """The rows equal those of pgstac's own SQL functions, so other tools read them alike."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a")])
    row = await site.admin.fetchrow("SELECT id, geometry, collection, datetime, end_datetime, content FROM items")
    body = orjson.dumps(made("a").body).decode()
    theirs = await site.admin.fetchrow(
        "SELECT id, geometry, collection, datetime, end_datetime, content FROM content_dehydrate($1::jsonb)", body
    )
    assert {**row, "content": orjson.loads(row["content"])} == {**theirs, "content": orjson.loads(theirs["content"])}


@pytest.mark.parametrize("trunc", TRUNCS)
async def test_a_newer_version_replaces_an_older_one(site: Site, trunc: str | None) -> None:
    """In place; an older one that comes later changes nothing."""
    await site.add_collection(trunc=trunc)
    old, new = made("a", version=1), made("a", version=2, bbox=[0, 0, 1, 1])
    assert await site.catalogue.load("naip", [old]) == loaded("a")
    assert await site.catalogue.load("naip", [new]) == loaded("a")
    assert await site.catalogue.load("naip", [old]) == Loaded(frozenset(), superseded=frozenset("a"))
    assert await site.search() == [new.body]
    assert [version for _, _, version in await site.rows()] == [2]


async def test_the_same_again_writes_nothing(site: Site) -> None:
    """A redelivered message is acknowledged without touching the row."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a")])
    before = await site.admin.fetch("SELECT xmin, ctid FROM items")
    assert await site.catalogue.load("naip", [made("a")]) == loaded("a")
    assert await site.admin.fetch("SELECT xmin, ctid FROM items") == before


@pytest.mark.parametrize("trunc", ["year", "month"])
async def test_an_item_that_moves_is_one_row(site: Site, trunc: str) -> None:
    """Its datetime goes to another partition and back; older versions neither stay nor delete."""
    await site.add_collection(trunc=trunc)
    january, next_year = made("a", "2020-01-05", 1), made("a", "2021-02-05", 2)
    await site.catalogue.load("naip", [january, made("b", "2020-01-05")])
    assert await site.catalogue.load("naip", [next_year]) == loaded("a")
    assert await site.search() == [next_year.body, made("b", "2020-01-05").body]
    assert await site.catalogue.load("naip", [january]) == Loaded(frozenset(), superseded=frozenset("a"))
    assert await site.search() == [next_year.body, made("b", "2020-01-05").body]
    assert await site.catalogue.load("naip", [replace(january, version=Version(3))]) == loaded("a")
    assert await site.search() == [january.body, made("b", "2020-01-05").body]


@pytest.mark.parametrize("trunc", TRUNCS)
async def test_of_equal_versions_the_order_of_loading_does_not_matter(site: Site, trunc: str | None) -> None:
    """Two messages of one millisecond end the same way on every replica."""
    await site.add_collection(trunc=trunc)
    rivals = [made("a", "2020-01-05"), made("a", "2020-02-05"), made("a", "2020-02-05", bbox=[0, 0, 1, 1])]
    ends = []
    for order in (rivals, rivals[::-1], [rivals[1], rivals[2], rivals[0]]):
        for item in order:
            assert await site.catalogue.load("naip", [item]) == loaded("a")
        ends.append(await site.search())
        await site.admin.execute("DELETE FROM items")
    assert ends[0] == ends[1] == ends[2]
    assert len(ends[0]) == 1


async def test_sequencers_order_within_a_millisecond(site: Site) -> None:
    """As S3 numbers its events."""
    await site.add_collection()
    first, second = (replace(made("a", bbox=[n, 0, n, 0]), version=Version(1, f"0{n}F")) for n in (1, 2))
    assert await site.catalogue.load("naip", [second]) == loaded("a")
    assert await site.catalogue.load("naip", [first]) == Loaded(frozenset(), superseded=frozenset("a"))
    assert await site.search() == [second.body]


@pytest.mark.parametrize("trunc", TRUNCS)
async def test_conflict_ignore_keeps_what_is_there(site: Site, trunc: str | None) -> None:
    """Wherever it lies; what is new goes in, and a repeated message is as good as loaded."""
    await site.add_collection(trunc=trunc)
    await site.catalogue.load("naip", [made("a", "2020-01-05", 1)])
    again, other = made("a", "2021-02-05", 2), made("b", "2021-02-05", 2)
    assert await site.catalogue.load("naip", [again, other], conflict="ignore") == Loaded(
        frozenset("b"), superseded=frozenset("a")
    )
    assert await site.catalogue.load("naip", [made("a", "2020-01-05", 1)], conflict="ignore") == loaded("a")
    assert await site.search() == [made("a", "2020-01-05").body, other.body]


@pytest.mark.parametrize("trunc", TRUNCS)
async def test_conflict_error_tells_which_ids_exist(site: Site, trunc: str | None) -> None:
    """The others are loaded; an item that its own first delivery loaded is no conflict."""
    await site.add_collection(trunc=trunc)
    await site.catalogue.load("naip", [made("a", "2020-01-05", 1)], conflict="error")
    batch = [made("a", "2021-02-05", 2), made("b", "2021-02-05", 2)]
    expected = Loaded(frozenset("b"), conflicting=frozenset("a"))
    assert await site.catalogue.load("naip", batch, conflict="error") == expected
    assert await site.catalogue.load("naip", batch, conflict="error") == expected
    assert await site.search() == [made("a", "2020-01-05").body, batch[1].body]


async def test_rows_of_other_writers_are_replaced(site: Site) -> None:
    """They have no version, so any is newer; a twin that they left goes as well."""
    await site.add_collection(trunc="month")
    for month in ("2020-01-05", "2020-02-05"):
        # pypgstac's Loader leaves two rows like this when an item moves
        await site.catalogue.load("naip", [made(month, month)])
    await site.admin.execute("UPDATE items SET id = 'a', private = NULL")
    assert await site.rows() == [("a", "202001", None), ("a", "202002", None)]
    assert await site.catalogue.load("naip", [made("a", "2020-02-05", 1)]) == loaded("a")
    assert await site.rows() == [("a", "202002", 1)]


@pytest.mark.parametrize("when", ["2020-01-05", "2020-02-05"])
async def test_what_others_keep_in_the_private_column_stays(site: Site, when: str) -> None:
    """In place and when the item moves."""
    await site.add_collection(trunc="month")
    await site.catalogue.load("naip", [made("a", "2020-01-05", 1)])
    await site.admin.execute("""UPDATE items SET private = private || '{"theirs": 1}'""")
    await site.catalogue.load("naip", [made("a", when, 2)])
    private = await site.admin.fetchval("SELECT private FROM items")
    assert orjson.loads(private) == {"theirs": 1, "stacworker": {"v": 2, "s": ""}}


async def test_a_private_member_is_not_shown(site: Site) -> None:
    """As with pypgstac's Loader, it goes to the private column and not to whoever searches."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a", private={"cost": 5}, **{"pgstac:base_item": 7})])
    assert await site.search() == [made("a").body]
    private = await site.admin.fetchval("SELECT private FROM items")
    assert orjson.loads(private) == {"cost": 5, "stacworker": {"v": 1, "s": ""}}


async def test_a_missing_collection_is_refused(site: Site) -> None:
    """By default; the error counts for all items."""
    with pytest.raises(MissingCollection) as caught:
        await site.catalogue.load("naip", [made("a")])
    assert isinstance(caught.value, Permanent)
    assert (caught.value.error_class, caught.value.collection, str(caught.value)) == (
        "collection_missing",
        "naip",
        "collection 'naip' does not exist: create it, or set create_missing",
    )


async def test_a_missing_collection_is_waited_for(site: Site) -> None:
    """The items come again until it is there, and are loaded as soon as it is."""
    with pytest.raises(Transient) as caught:
        await site.catalogue.load("naip", [made("a")], create_missing="wait")
    assert caught.value.error_class == "collection_missing"
    assert not await site.catalogue.exists("naip")
    await site.add_collection()
    assert await site.catalogue.exists("naip")
    assert await site.catalogue.load("naip", [made("a")], create_missing="wait") == loaded("a")


async def test_a_missing_collection_is_made(site: Site) -> None:
    """A minimal one, once, and never over one that exists."""
    assert await site.catalogue.load("naip", [made("a")], create_missing=True) == loaded("a")
    assert await site.search() == [made("a").body]
    content = orjson.loads(await site.admin.fetchval("SELECT content FROM collections"))
    assert content == {
        "type": "Collection",
        "id": "naip",
        "stac_version": "1.0.0",
        "description": "Items of naip. Made by stacworker when the first of them came.",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [],
    }


def beyond_prepare(item: Prepared, **changes: Any) -> Prepared:
    """Return an item that `prepare` would have refused."""
    return replace(item, body={**item.body, **changes})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (beyond_prepare(made("b"), title="\0"), "unsupported Unicode escape sequence"),
        (replace(made("b"), id="".join(chr(0x4E00 + n * 7 % 20000) for n in range(2000))), "index row size"),
        (replace(made("b"), geometry=to_ewkb({"type": "Point", "coordinates": [1, 2]})[:-1]), "WKB structure"),
    ],
    ids=["nul", "id", "geometry"],
)
async def test_what_the_database_refuses_is_refused_whole(site: Site, bad: Prepared, words: str) -> None:
    """The batcher finds the bad item by halving the batch, so nothing of it may be in."""
    await site.add_collection()
    with pytest.raises(Refused, match=words) as caught:
        await site.catalogue.load("naip", [made("a"), bad, made("c")])
    assert caught.value.error_class == "refused"
    assert caught.value.reason.startswith("loading into collection 'naip': ")
    assert await site.rows() == []
    assert site.count("load_retries_total", error_class="refused") == 0


async def test_intervals_are_found_to_their_end(site: Site) -> None:
    """Also when they end in another partition, or never."""
    await site.add_collection(trunc="month")
    ends = {"a": "2020-01-20T00:00:00Z", "b": "2023-06-01T00:00:00Z", "c": "9999-12-31T23:59:59.999999Z"}
    bodies = [
        naip_item(id=item_id, properties={"start_datetime": "2020-01-10T00:00:00Z", "end_datetime": end})
        for item_id, end in ends.items()
    ]
    for body in bodies:
        await site.catalogue.load("naip", all_made([body]))
    assert await site.search() == bodies
    assert await site.search("2022-01-01T00:00:00Z/..") == bodies[1:]
    assert await site.search("9000-01-01T00:00:00Z/..") == bodies[2:]


async def test_partitions_are_in_utc_whatever_the_session(site: Site) -> None:
    """A database whose time zone is another one gets the same partitions."""
    await site.admin.execute(f"ALTER DATABASE {site.dsn.rpartition('/')[2]} SET timezone = 'America/Los_Angeles'")
    async with site_at(site.dsn) as elsewhere:
        await elsewhere.add_collection(trunc="month")
        early = [made("a", "2020-02-01T00:30:00Z"), made("b", "2020-02-01T08:30:00+14:00")]
        await elsewhere.catalogue.load("naip", early)
        assert [leaf for _, leaf, _ in await elsewhere.rows()] == ["202002", "202001"]
        assert await elsewhere.search() == [item.body for item in early]


async def test_the_cache_of_formatted_items_is_kept_right(site: Site) -> None:
    """Where pgstac caches what it shows, a replaced item shows its new content."""
    await site.admin.execute("UPDATE pgstac_settings SET value = 'on' WHERE name = 'format_cache'")
    await site.add_collection()
    for version in (1, 2):
        item = made("a", version=version, bbox=[version, 0, version, 0])
        await site.catalogue.load("naip", [item])
        assert await site.search() == [item.body]


@pytest.mark.parametrize("trunc", TRUNCS)
async def test_deleting_spares_what_is_newer(site: Site, trunc: str | None) -> None:
    """Items of the version given or older go, wherever they lie; unknown ids and collections are fine."""
    assert await site.catalogue.delete("naip", {"a": Version(9)}) == frozenset()
    await site.add_collection(trunc=trunc)
    assert await site.catalogue.delete("naip", {"a": Version(9)}) == frozenset()
    await site.catalogue.load("naip", [made(name, f"202{version}-01-05", version) for name, version in VERSIONS])
    doomed = {name: Version(2) for name in "abcx"}
    assert await site.catalogue.delete("naip", doomed, max_concurrency=2) == frozenset("ab")
    assert [item["id"] for item in await site.search()] == ["c", "d"]


VERSIONS = [("a", 1), ("b", 2), ("c", 3), ("d", 1)]

_DELETIONS = """
    CREATE SCHEMA stacworker;
    CREATE TABLE stacworker.deletions (
        collection text, id text, version_ms bigint NOT NULL, sequencer text NOT NULL DEFAULT '',
        deleted_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (collection, id)
    );
"""


async def test_a_deletion_is_remembered(pgstac_dsn: str) -> None:
    """Where stacworker's schema is installed, an older item that arrives after its deletion stays out."""
    async with site_at(pgstac_dsn) as site:
        await site.admin.execute(_DELETIONS)
    async with site_at(pgstac_dsn) as site:
        await site.add_collection(trunc="month")
        await site.catalogue.delete("naip", {"a": Version(2, "0B"), "b": Version(1)})
        await site.catalogue.delete("naip", {"a": Version(1), "b": Version(3)})
        await site.admin.execute(
            "INSERT INTO stacworker.deletions VALUES ('old', 'x', 1, '', now() - interval '31 days')"
        )
        await site.catalogue.delete("naip", {})
        assert [tuple(row) for row in await site.admin.fetch(
            "SELECT collection, id, version_ms, sequencer FROM stacworker.deletions ORDER BY 1, 2"
        )] == [("naip", "a", 2, "0B"), ("naip", "b", 3, "")]  # fmt: skip
        late = [replace(made("a"), version=Version(2, "0A")), made("b", version=4), made("c")]
        assert await site.catalogue.load("naip", late) == Loaded(frozenset("bc"), superseded=frozenset("a"))


async def test_a_collection_is_created_and_replaced(site: Site) -> None:
    """The newest wins there too; without a version the last one does."""

    async def title() -> Any:
        return orjson.loads(await site.admin.fetchval("SELECT content FROM collections"))["title"]

    titles = []
    for text, version in (("a", None), ("b", 5), ("c", 4), ("d", 5), ("e", 6), ("f", None)):
        await site.catalogue.put_collection(naip_collection(title=text), None if version is None else Version(version))
        titles.append(await title())
    assert titles == ["a", "b", "b", "d", "e", "f"]


async def test_a_bad_collection_is_refused(site: Site) -> None:
    """With the database's words, and without a second try."""
    extent = {"spatial": {"bbox": [[1, 2, 3, 4]]}, "temporal": {"interval": [["soon", None]]}}
    with pytest.raises(Refused, match=r"writing collection 'naip': .*soon"):
        await site.catalogue.put_collection(naip_collection(extent=extent))


async def test_a_changed_collection_is_noticed(site: Site) -> None:
    """Whoever changes item_assets, the next items are stripped of what is there now."""
    await site.add_collection()
    await site.catalogue.load("naip", [made("a")])
    assets = {"image": {"roles": ["other"], "title": "Another title"}, "extra": {"title": "None has it"}}
    changed = orjson.dumps(naip_collection(item_assets=assets)).decode()
    await site.admin.execute("SELECT pgstac.update_collection($1::jsonb)", changed)
    assert await site.catalogue.load("naip", [made("b")]) == loaded("b")
    assert site.count("load_retries_total", error_class="collection_changed") == 1
    shown = {item["id"]: item for item in await site.search()}
    assert shown["b"] == made("b").body
    if site.catalogue.version.startswith("0.10"):
        # pgstac 0.9 merges the present item_assets into items that were stripped of former ones.
        assert shown["a"] == made("a").body


GEOMETRIES: Sequence[dict[str, Any]] = [
    {"type": "Point", "coordinates": [1, 2]},
    {"type": "Point", "coordinates": [1, 2, 3]},
    {"type": "LineString", "coordinates": [[1, 2], [3, 4, 5]]},
    {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]], [[1, 1], [2, 1], [2, 2], [1, 1]]]},
    {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]},
    {"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]]]},
    {"type": "MultiPolygon", "coordinates": [[[[0, 0, 1], [9, 0, 1], [9, 9, 1], [0, 0, 1]]]]},
    {"type": "GeometryCollection", "geometries": [{"type": "MultiPoint", "coordinates": [[1, 2, 3]]}]},
]


async def test_geometries_are_those_that_postgis_makes(site: Site) -> None:
    """Every kind, flat and solid, byte for byte."""
    for geometry in GEOMETRIES:
        text = orjson.dumps(geometry).decode()
        theirs = await site.admin.fetchval("SELECT ST_AsEWKB(ST_GeomFromGeoJSON($1::text), 'NDR')", text)
        assert to_ewkb(geometry) == theirs


async def test_what_is_stripped_comes_back(site: Site) -> None:
    """Through pgstac's own merge, for shapes that real items do not have."""
    base = {"roles": ["data"], "title": "t", "bands": [{"a": 2, "b": 3}, {"c": 4}], "deep": {"x": {"y": 5, "z": 6}}}
    items = [
        {},
        {"roles": [], "title": {"en": "t"}, "bands": {"b": 2}},
        {"bands": [{"a": 2}, {"c": 5, "d": 6}], "deep": {"x": {"y": 5}}},
        {"bands": [{"a": 2, "b": 3}], "deep": {"x": 7, "w": []}},
        base,
    ]
    merged = [
        orjson.loads(
            await site.admin.fetchval(
                "SELECT coalesce(merge_jsonb($1::jsonb, $2::jsonb), '{}')",
                orjson.dumps(dehydrate(base, item)).decode(),
                orjson.dumps(base).decode(),
            )
        )
        for item in items
    ]
    assert merged == items


@pytest.mark.parametrize("version", ["0.9.0", "0.9.11"])
async def test_older_releases_of_the_0_9_line_work(postgres: Any, version: str) -> None:
    """Partitions, moves and search, where pgstac still kept materialized views."""
    with postgres.scratch(version) as name:
        async with site_at(postgres.dsn(name)) as site:
            await site.add_collection(trunc="month")
            for when, number in (("2020-01-05", 1), ("2020-03-05", 2)):
                assert await site.catalogue.load("naip", [made("a", when, number), made("b", when, number)]) == loaded(
                    "a", "b"
                )
            assert await site.search() == [made("a", "2020-03-05").body, made("b", "2020-03-05").body]
            assert at("2020-03-05") == made("a", "2020-03-05").body["properties"]
