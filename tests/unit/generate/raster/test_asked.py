"""Requests → the file, and what its item is called."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacworker.api import Request, Version
from stacworker.envelope.forms import S3Location
from stacworker.errors import Permanent
from stacworker.generate.raster.asked import Asked, asked
from stacworker.generate.raster.destination import Destination
from stacworker.generate.raster.item import made_item
from stacworker.generate.raster.options import RasterOptions
from stacworker.generate.transfer.s3 import S3


def options(**changes: Any) -> RasterOptions:
    return RasterOptions.of("cogs", {"destination": "s3://bucket/cogs/", "collection": "things", **changes})


def read(body: dict[str, Any], collection_id: str | None = None, **changes: Any) -> Asked:
    return asked(Request(body, Version(1), collection_id), options(**changes))


@pytest.mark.parametrize(
    ("body", "href", "id_"),
    [
        ({"href": "s3://b/a/scene 1.v2.tif"}, "s3://b/a/scene 1.v2.tif", "scene 1.v2"),
        ({"bucket": "b", "key": "a/x.tiff"}, "s3://b/a/x.tiff", "x"),
        ({"href": "https://h/a%20b.tif?sig=1/2.x"}, "https://h/a%20b.tif?sig=1/2.x", "a b"),
        ({"href": "https://b.s3.us-west-2.amazonaws.com/q/a%2Bb.tif"}, None, "a+b"),
        ({"href": "https://[/a/x.tif#y/z"}, "https://[/a/x.tif#y/z", "x"),
        ({"href": "/data/no-suffix"}, "/data/no-suffix", "no-suffix"),
        ({"href": "s3://b/x.tif", "id": "given"}, "s3://b/x.tif", "given"),
    ],
)
def test_the_id_is_the_files_name_without_its_suffix(body: dict[str, Any], href: str | None, id_: str) -> None:
    """Whatever names the file: an S3 event, a URL with a query, a path."""
    found = read(body)
    assert (found.href, found.id) == (href or body["href"], id_)


def test_patterns_read_id_and_datetime_from_the_name() -> None:
    """The group `id`; and the group `datetime`, the first group or all that is found, in the given format, as UTC."""
    name = {"href": "s3://b/q/S2_20240501T101112_T32.tif"}
    found = read(
        name,
        id_pattern=r"^(?P<id>[^.]+)_T\d+",
        datetime_pattern=r"_(?P<datetime>\d{8}T\d{6})_",
        datetime_format="%Y%m%dT%H%M%S",
    )
    assert (found.id, found.times) == ("S2_20240501T101112", {"datetime": "2024-05-01T10:11:12Z"})
    assert read(name, datetime_pattern=r"_(\d{8})T").times == {"datetime": "2024-05-01T00:00:00Z"}
    assert read(name, datetime_pattern=r"\d{8}").times == {"datetime": "2024-05-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("body", "times"),
    [
        ({"datetime": "2024-05-01T02:00:00+02:00"}, {"datetime": "2024-05-01T00:00:00Z"}),
        ({"properties": {"datetime": "2024-05-01T00:00:00"}}, {"datetime": "2024-05-01T00:00:00Z"}),
        ({"properties": {"start_datetime": "a", "end_datetime": "b", "datetime": None}}, {"datetime": None}),
        ({}, {}),
    ],
)
def test_the_datetime_is_the_requests(body: dict[str, Any], times: dict[str, Any]) -> None:
    """As UTC; a range stands for a datetime; {} leaves it to the file."""
    assert read({"href": "s3://b/x.tif", **body}).times == times


def test_the_request_says_the_collection_before_the_options() -> None:
    """`collection_id`, an item's `collection`, the option: the first that is there."""
    item = {"id": "i", "collection": "items", "assets": {"image": {"href": "s3://b/x.tif"}}}
    assert read(item, "asked").collection == "asked"
    assert read(item).collection == "items"
    assert read({"href": "s3://b/x.tif"}).collection == "things"


def test_an_items_asset_is_the_source() -> None:
    """The one that the option names, the only one, or `data`."""
    assets = {"image": {"href": "s3://b/1.tif"}, "data": {"href": "s3://b/2.tif"}}
    assert read({"id": "i", "assets": assets}).href == "s3://b/2.tif"
    assert read({"id": "i", "assets": assets}, asset="image").href == "s3://b/1.tif"
    assert read({"id": "i", "assets": {"image": assets["image"]}}).asset == "image"


@pytest.mark.parametrize(
    ("body", "changes", "reason"),
    [
        ({"id": "x", "path": "y"}, {}, "it names no file"),
        ({"href": "s3://b/x.tif"}, {"collection": None}, "send collection_id, or set the option collection"),
        ({"href": "s3://b/x.tif"}, {"id_pattern": "(?P<id>q+)"}, "options.id_pattern finds no id"),
        ({"href": "s3://b/x1.tif"}, {"datetime_pattern": r"\d"}, "does not fit '1'"),
        ({"href": "s3://b/x.tif", "datetime": "tomorrow"}, {}, "its datetime 'tomorrow' is none"),
        ({"href": "s3://b/x.tif", "datetime": 5}, {}, "its datetime '5' is none"),
        ({"assets": {"a": {}, "b": {}}}, {}, "it has a, b: set the option asset"),
        ({"assets": {"data": {}}}, {}, "it names no file"),
        ({"assets": {}}, {}, "it has none"),
        ({"href": "https://h/"}, {}, "send an id"),
    ],
)
def test_what_cannot_be_used_says_what_to_send(body: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    """Each is a dead letter whose reason helps."""
    with pytest.raises(Permanent) as error:
        read(body, **changes)
    assert reason in error.value.reason
    assert error.value.error_class == "raster_usage"


_KEYS = ("href", "id", "assets", "data", "properties", "datetime", "start_datetime", "end_datetime", "collection")
_KEYS += ("bucket", "key", "geometry", "bbox", "stac_extensions", "links")
_TEXTS = st.one_of(st.text(max_size=9), st.sampled_from(["s3://b/x.tif", "https://h/x.tif", "/x.tif", "2024-05-01"]))
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)),
)
_TOLD = {"geometry": {"type": "Point"}, "bbox": [1], "stac_extensions": [], "properties": {}, "asset": {}}


@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES), st.sampled_from([None, "2024-05-01T00:00:00Z"]))
def test_any_request_is_read_or_refused(body: dict[str, Any], when: str | None) -> None:
    """Whatever comes in a message makes an item or a dead letter, never an error that nobody expects."""
    try:
        found = read(body)
        made_item(found, {**_TOLD, "datetime": when}, href="s3://b/x.tif", size_bytes=1, sha256="")
    except Permanent:
        pass


@pytest.mark.parametrize(
    ("collection", "id_", "key"),
    [
        ("things", "a", "cogs/things/a.tif"),
        ("a/b", "x y", "cogs/a%2Fb/x%20y.tif"),
        ("..", ".", "cogs/%2E%2E/%2E.tif"),
    ],
)
def test_no_name_leads_out_of_the_destination(collection: str, id_: str, key: str) -> None:
    """Names are percent-encoded as those of published items are, in the href too."""
    chosen = options(public_url="https://data.example/all")
    destination = Destination(S3(None), chosen)
    place = destination.place(read({"href": "s3://b/x.tif", "id": id_, "collection": collection}))
    assert place == S3Location("bucket", key)
    assert destination.href(place) == "https://data.example/all/" + key.removeprefix("cogs/").replace("%", "%25")
    assert Destination(S3(None), options()).href(place) == f"s3://bucket/{key}"


def test_a_name_too_long_for_a_key_is_refused() -> None:
    """S3 would refuse it after all the work."""
    with pytest.raises(Permanent, match="too long a key"):
        Destination(S3(None), options()).place(read({"href": "s3://b/x.tif", "id": "é" * 400}))
