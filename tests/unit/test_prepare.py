"""What is refused before the database sees it, and what its columns are given."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from stac_pydantic import Item

from stacworker.api import Document, Version
from stacworker.errors import Permanent
from stacworker.load.geometry import to_ewkb
from stacworker.load.prepare import ID_MAX_BYTES, Prepared, parse_datetime, prepare, prepare_collection
from tests.naip import naip_collection, naip_item, naip_items

VERSION = Version(1_700_000_000_000, "0A")
POINT = {"type": "Point", "coordinates": [1.5, 2]}


def item(body: dict[str, Any]) -> Document:
    return Document("item", body, VERSION, "s3://bucket/key")


def with_properties(**properties: Any) -> dict[str, Any]:
    """Return an item with these properties; `datetime` is replaced, not added to."""
    return naip_item(properties=properties)


def refusal(document: Document) -> tuple[str, str | None, str | None, str]:
    """Return what the refusal says."""
    with pytest.raises(Permanent) as caught:
        prepare(document)
    error = caught.value
    return error.error_class, error.collection, error.item_id, error.reason


def reason(body: dict[str, Any]) -> str:
    """Return the reason without what every reason begins with."""
    return refusal(item(body))[3].split(" from s3://bucket/key: ", 1)[1]


def test_a_good_item_is_prepared_as_it_is() -> None:
    """The columns follow from the item; the body is the document's own."""
    body = with_properties(datetime="2021-11-03t16:00:00.25+02:00")
    body["geometry"] = POINT
    prepared = prepare(item(body))
    when = dt.datetime(2021, 11, 3, 14, 0, 0, 250_000, tzinfo=dt.UTC)
    assert prepared == Prepared(
        id="al_m_3008501_ne_16_030_20211103",
        collection="naip",
        datetime=when,
        end_datetime=when,
        geometry=to_ewkb(POINT),
        body=body,
        size=len(orjson.dumps(body)),
        version=VERSION,
        origin="s3://bucket/key",
    )
    assert prepared.body is body


def test_real_items_are_accepted() -> None:
    """Nothing is held against what Planetary Computer publishes."""
    assert [prepare(item(body)).id for body in naip_items()] == [body["id"] for body in naip_items()]


def test_an_interval_bounds_the_item() -> None:
    """The database takes start and end where there are both, whether or not datetime stands beside them."""
    interval = {"start_datetime": "2020-01-01T00:00:00Z", "end_datetime": "2020-02-01T00:00:00Z"}
    bounds = (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 2, 1, tzinfo=dt.UTC))
    for when in ({"datetime": None}, {"datetime": "2020-01-15T00:00:00Z"}, {}):
        prepared = prepare(item(with_properties(**interval, **when)))
        assert (prepared.datetime, prepared.end_datetime) == bounds


def test_a_refusal_names_the_item_and_where_it_came_from() -> None:
    """The reason of a dead letter says everything an operator needs."""
    body = naip_item(geometry=None)
    assert refusal(item(body)) == (
        "invalid_geometry",
        "naip",
        "al_m_3008501_ne_16_030_20211103",
        "item 'al_m_3008501_ne_16_030_20211103' from s3://bucket/key: geometry is null or missing; pgstac needs one",
    )


def test_what_is_no_name_is_not_named() -> None:
    """An id that is no string is shown in the reason only."""
    assert refusal(item(naip_item(id=5, collection=None))) == (
        "invalid_item",
        None,
        None,
        "item 5 from s3://bucket/key: id: Input should be a valid string, not 5 (and 1 more)",
    )


WRONG_MEMBERS = {
    "type is missing": {"type": ...},
    "type: Input should be 'Feature', not 'Collection'": {"type": "Collection"},
    "stac_version: String should match pattern": {"stac_version": "one"},
    "id: String should have at least 1 character, not ''": {"id": ""},
    "collection is missing": {"collection": ...},
    "properties is missing": {"properties": ...},
    "links is missing": {"links": ...},
    "links.0.rel is missing": {"links": [{"href": "x"}]},
    "assets: Input should be a valid dictionary, not []": {"assets": []},
    "assets.a.href is missing": {"assets": {"a": {}}},
    "stac_extensions.0: Input should be a valid URL": {"stac_extensions": ["eo"]},
    "properties.gsd: Input should be greater than 0, not -1": {
        "properties": {"datetime": "2020-01-01T00:00:00Z", "gsd": -1}
    },
    "private: Input should be a valid dictionary, not 'x'": {"private": "x"},
    "bbox is missing": {"bbox": ...},
    "bbox: four or six numbers are expected, not [1, 2]": {"bbox": [1, 2]},
    "bbox: four or six numbers are expected, not [1, 2, 3, None]": {"bbox": [1, 2, 3, None]},
    "bbox: longitudes lie in -180 to 180, latitudes in -90 to 90: [1, 2, 500, 4]": {"bbox": [1, 2, 500, 4]},
    "bbox: longitudes lie in -180 to 180, latitudes in -90 to 90: [nan, 2, 3, 4]": {"bbox": [math.nan, 2, 3, 4]},
    "bbox: south is greater than north, or low than high: [1, 5, 3, 4]": {"bbox": [1, 5, 3, 4]},
    "geometry: Point: longitude 500 is outside -180 to 180": {"geometry": {"type": "Point", "coordinates": [500, 0]}},
}


@pytest.mark.parametrize(("expected", "changes"), WRONG_MEMBERS.items(), ids=list(WRONG_MEMBERS))
def test_a_wrong_member_is_named(expected: str, changes: dict[str, Any]) -> None:
    """The reason says which member is wrong, why, and what stands there."""
    body = {name: value for name, value in naip_item(**changes).items() if value is not ...}
    assert reason(body).startswith(expected)


def test_a_box_may_cross_the_antimeridian() -> None:
    """West is then greater than east (RFC 7946, section 5.2)."""
    assert prepare(item(naip_item(bbox=[179, -1, 0, -179, 1, 9]))).id


@pytest.mark.parametrize(
    "text",
    [
        "now",
        "",
        "2020-01-01",
        "2020-01-01T00:00:00",
        "2020-01-01T00:00Z",
        "2020-13-01T00:00:00Z",
        "2020-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "99999-01-01T00:00:00Z",
        "2020-01-01T24:00:00Z",
        "2020-01-01T00:00:61Z",
        "2020-01-01T00:00:00+16:00",
        "2020-01-01T00:00:00+0200",
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:60Z",
        "\uff12020-01-01T00:00:00Z",
        "2020-01-01T00:00:00Z\n",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """Postgres would take some of these, and load `now` as the time of loading."""
    assert refusal(item(with_properties(datetime=text)))[0] == "invalid_datetime"
    assert reason(with_properties(datetime=text)).startswith(f"properties.datetime {text!r} is no RFC 3339 time")


def test_a_time_that_is_no_text_is_refused() -> None:
    """A number of seconds is no datetime in STAC."""
    assert reason(with_properties(datetime=1_577_836_800)) == (
        "properties.datetime: Input should be a valid string, not 1577836800"
    )


def test_an_interval_is_whole_and_runs_forward() -> None:
    """What runs backwards would load and never be found."""
    start, end = "2020-01-02T00:00:00Z", "2020-01-01T00:00:00Z"
    assert [
        reason(with_properties(datetime=None)),
        reason(with_properties(datetime=None, start_datetime=start)),
        reason(with_properties(datetime=end, end_datetime=start)),
        reason(with_properties(datetime=None, start_datetime=start, end_datetime=end)),
    ] == [
        "properties.datetime is null, which needs start_datetime and end_datetime",
        "properties: start_datetime and end_datetime are used together",
        "properties: start_datetime and end_datetime are used together",
        "properties.start_datetime '2020-01-02T00:00:00Z' is later than end_datetime '2020-01-01T00:00:00Z'",
    ]


def test_a_leap_second_is_the_next_second() -> None:
    """RFC 3339 has them, Python does not; PostgreSQL counts on."""
    assert parse_datetime("2016-12-31T23:59:60.5Z") == dt.datetime(2017, 1, 1, 0, 0, 0, 500_000, tzinfo=dt.UTC)


@given(st.datetimes(timezones=st.timezones()))
def test_whatever_python_writes_is_read(when: dt.datetime) -> None:
    """Every aware datetime survives being written and read, whatever its zone."""
    assume(1 < when.year < 9999 and str(when)[-6] in "+-")  # an offset of whole minutes
    assert parse_datetime(when.isoformat()) == when.astimezone(dt.UTC)


def test_nul_is_found_wherever_it_hides() -> None:
    """PostgreSQL stores no NUL; a text that only looks like one in JSON is fine."""
    properties = {"datetime": "2020-01-01T00:00:00Z"}
    assert [
        reason(naip_item(id="a\0b")),
        reason(with_properties(**properties, note=["x", {"y": "\0"}])),
        reason(with_properties(**properties, note={"a\0": 1})),
    ] == [
        "id holds a NUL character, which PostgreSQL does not store",
        "properties.note.1.y holds a NUL character, which PostgreSQL does not store",
        "a key of properties.note holds a NUL character, which PostgreSQL does not store",
    ]
    assert prepare(item(with_properties(**properties, note="\\u0000"))).size


def test_what_is_no_json_is_refused() -> None:
    """Lone surrogates and integers beyond 64 bits cannot be sent as they are."""
    properties = {"datetime": "2020-01-01T00:00:00Z"}
    for note in ("\ud800", 2**64, {1: 2}):
        assert reason(with_properties(**properties, note=note)).startswith("it cannot be written as JSON: ")


def test_an_id_fits_an_index() -> None:
    """What PostgreSQL cannot index is refused, in bytes, not characters."""
    assert prepare(item(naip_item(id="x" * ID_MAX_BYTES))).id == "x" * ID_MAX_BYTES
    assert reason(naip_item(id="é" * 1347)).startswith("id has 2694 bytes, at most 2692 can be indexed: 'é")
    assert reason(naip_item(collection="x" * 2693)).startswith("collection has 2693 bytes")


def test_a_reason_stays_short_whatever_was_sent() -> None:
    """A huge value is clipped, and not written out whole to be clipped."""
    assert len(reason(naip_item(assets={"a": {"href": ["x" * 1000] * 1000}}))) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
_PATHS = [
    ("type",), ("stac_version",), ("id",), ("links",), ("links", 0, "href"), ("links", 0, "rel"), ("links", 0, "type"),
    ("assets",), ("assets", "image", "href"), ("assets", "image", "roles"), ("assets", "image", "title"),
    ("properties",), ("properties", "datetime"), ("properties", "end_datetime"), ("properties", "created"),
    ("properties", "gsd"), ("properties", "title"), ("properties", "providers"), ("properties", "providers", 0),
    ("properties", "instruments"), ("stac_extensions",), ("bbox",), ("geometry",), ("geometry", "type"),
    ("geometry", "coordinates"), ("geometry", "coordinates", 0), ("geometry", "coordinates", 0, 0),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:BBOX crossing:UserWarning")
@given(st.sampled_from(_PATHS), json_values)
def test_whatever_is_accepted_is_stac(path: tuple[str | int, ...], value: Any) -> None:
    """What passes here passes stac-pydantic too; only a missing `datetime` beside an interval may be left out."""
    body = naip_item()
    parent: Any = body
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    try:
        prepare(item(body))
    except Permanent:
        return
    Item.model_validate(body)


def test_a_good_collection_is_returned_as_it_is() -> None:
    """Its body goes to pgstac unchanged."""
    body = naip_collection()
    assert prepare_collection(Document("collection", body, VERSION)) is body


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"links": [{}] * 50_000}, "links.0.href is missing (and 1 more)"),
        (
            {"assets": {f"a{n}": {"href": "x", "roles": [1, 2]} for n in range(50_000)}},
            "assets.a0.roles.0: Input should be a valid string, not 1",
        ),
        (
            {"assets": {**{f"a{n}": {"href": "x"} for n in range(5000)}, "last": 0}},
            "assets.last: Input should be a valid dictionary, not 0",
        ),
        ({"assets": {"x" * 1_000_000: 0}}, f"assets.{'x' * 113}: Input should be a valid dictionary, not 0"),
    ],
)
def test_a_reason_stays_small_however_much_is_wrong(changes: dict[str, Any], expected: str) -> None:
    """An item of many megabytes could otherwise cost gigabytes of errors, and stop everything meanwhile."""
    assert reason(naip_item(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": ""}, "id: String should have at least 1 character, not ''"),
        ({"type": "Feature"}, "type: Input should be 'Collection', not 'Feature'"),
        ({"extent": {"spatial": {"bbox": [[1, 2, 3, 4]]}}}, "extent.temporal is missing"),
        (
            {"extent": {"spatial": {"bbox": [[1, 2, 3, 4]]}, "temporal": {"interval": [["2020", None]]}}},
            "extent.temporal.interval.0: '2020' is no RFC 3339 time, such as 2020-01-31T23:59:59Z",
        ),
        ({"item_assets": {"image": "x"}}, "item_assets.image: Input should be a valid dictionary, not 'x'"),
        ({"license": ...}, "license is missing"),
        ({"description": "\0"}, "description holds a NUL character, which PostgreSQL does not store"),
        ({"id": "x" * 2693}, "id has 2693 bytes, at most 2692 can be indexed"),
    ],
)
def test_a_wrong_collection_is_refused(changes: dict[str, Any], expected: str) -> None:
    """The reason names the member, the error the collection."""
    body = {name: value for name, value in naip_collection(**changes).items() if value is not ...}
    with pytest.raises(Permanent) as caught:
        prepare_collection(Document("collection", body, VERSION, "s3://bucket/key"))
    error = caught.value
    assert (error.error_class, error.collection, error.item_id) == ("invalid_collection", body["id"], None)
    assert error.reason.split(" from s3://bucket/key: ", 1)[1].startswith(expected)
