"""GeoJSON to EWKB."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plpygis import Geometry

from stacworker.load.geometry import GeometryError, to_ewkb

RING = [[0, 0], [2, 0], [2, 1], [0, 0]]

positions = st.lists(st.floats(-90, 90), min_size=2, max_size=2)
solid_positions = st.lists(st.floats(-90, 90), min_size=3, max_size=3)


def lines(position: st.SearchStrategy[list[float]]) -> st.SearchStrategy[list[Any]]:
    return st.lists(position, min_size=2, max_size=5)


def polygons(position: st.SearchStrategy[list[float]]) -> st.SearchStrategy[list[Any]]:
    ring = st.lists(position, min_size=3, max_size=5).map(lambda open_ring: [*open_ring, open_ring[0]])
    return st.lists(ring, min_size=1, max_size=3)


def several(part: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[list[Any]]:
    return st.lists(part, min_size=1, max_size=3)


def geometries(position: st.SearchStrategy[list[float]]) -> st.SearchStrategy[dict[str, Any]]:
    kinds = {
        "Point": position,
        "LineString": lines(position),
        "Polygon": polygons(position),
        "MultiPoint": several(position),
        "MultiLineString": several(lines(position)),
        "MultiPolygon": several(polygons(position)),
    }
    simple = st.one_of(
        st.fixed_dictionaries({"type": st.just(kind), "coordinates": coordinates})
        for kind, coordinates in kinds.items()
    )
    collections = st.fixed_dictionaries({"type": st.just("GeometryCollection"), "geometries": several(simple)})
    return simple | collections


@given(geometries(positions) | geometries(solid_positions))
def test_the_bytes_are_those_of_another_writer(geometry: dict[str, Any]) -> None:
    """plpygis, which pypgstac uses, writes the same."""
    assert to_ewkb(geometry) == bytes(Geometry.from_geojson(geometry).ewkb)


def test_one_height_makes_all_positions_solid() -> None:
    """Positions without a height get 0, as in ST_GeomFromGeoJSON."""
    assert to_ewkb({"type": "LineString", "coordinates": [[1, 2], [3, 4, 5]]}) == to_ewkb(
        {"type": "LineString", "coordinates": [[1, 2, 0.0], [3, 4, 5]]}
    )


def test_the_globe_has_a_margin() -> None:
    """Pixels of coarse global grids reach half their size past the edge."""
    assert to_ewkb({"type": "Point", "coordinates": [180.125, -90.125]})


REFUSED: dict[str, Any] = {
    "a GeoJSON object is expected, not 'POINT(1 2)'": "POINT(1 2)",
    "a GeoJSON object is expected, not []": [],
    "type None is none of GeoJSON's geometry types": {},
    "type 'Circle' is none of GeoJSON's geometry types": {"type": "Circle", "coordinates": [1, 2]},
    "type ['Point'] is none of GeoJSON's geometry types": {"type": ["Point"], "coordinates": [1, 2]},
    "Point: positions are lists of numbers, not [None]": {"type": "Point"},
    "Point: a position has two or three numbers: [[]]": {"type": "Point", "coordinates": []},
    "Point: a position has two or three numbers: [[1, 2, 3, 4]]": {"type": "Point", "coordinates": [1, 2, 3, 4]},
    "Point: a position holds something that is no number: [['1', '2']]": {"type": "Point", "coordinates": ["1", "2"]},
    "Point: a position holds something that is no number: ['12']": {"type": "Point", "coordinates": "12"},
    "Point: a position holds something that is no number: [[True, 2]]": {"type": "Point", "coordinates": [True, 2]},
    "Point: longitude 500 is outside -180 to 180": {"type": "Point", "coordinates": [500, 0]},
    "Point: latitude -91 is outside -90 to 90": {"type": "Point", "coordinates": [0, -91]},
    "Point: longitude nan is outside -180 to 180": {"type": "Point", "coordinates": [math.nan, 0]},
    "Point: latitude inf is outside -90 to 90": {"type": "Point", "coordinates": [0, math.inf]},
    "Point: a height is not a finite number": {"type": "Point", "coordinates": [0, 0, math.nan]},
    "LineString: at least 2 positions are expected, not [[0, 0]]": {"type": "LineString", "coordinates": [[0, 0]]},
    "LineString: at least 2 positions are expected, not None": {"type": "LineString", "coordinates": None},
    "Polygon: coordinates are empty or no list: []": {"type": "Polygon", "coordinates": []},
    "Polygon: at least 4 positions are expected, not [[0, 0], [1, 1], [0, 0]]": {
        "type": "Polygon",
        "coordinates": [[[0, 0], [1, 1], [0, 0]]],
    },
    "Polygon: a ring is not closed: begins [0, 0], ends [2, 1]": {
        "type": "Polygon",
        "coordinates": [[[0, 0], [2, 0], [1, 1], [2, 1]]],
    },
    "MultiPolygon: coordinates are empty or no list: []": {"type": "MultiPolygon", "coordinates": []},
    "MultiPolygon: coordinates are empty or no list: None": {"type": "MultiPolygon"},
    "Polygon: coordinates are empty or no list: 5": {"type": "MultiPolygon", "coordinates": [[RING], 5]},
    "GeometryCollection: geometries are empty or no list: []": {"type": "GeometryCollection", "geometries": []},
}


@pytest.mark.parametrize(("reason", "geometry"), REFUSED.items(), ids=list(REFUSED))
def test_what_is_no_geometry_is_refused(reason: str, geometry: Any) -> None:
    """The reason says where and why; PostGIS would store some of these."""
    with pytest.raises(GeometryError) as caught:
        to_ewkb(geometry)
    assert str(caught.value) == reason


def test_a_height_may_be_any_finite_number() -> None:
    """Heights have no range, but an integer without end is no number for PostGIS."""
    with pytest.raises(GeometryError):
        to_ewkb({"type": "Point", "coordinates": [0, 0, 10**400]})
    assert to_ewkb({"type": "Point", "coordinates": [0, 0, -11_000]})


def test_collections_may_be_nested_only_so_deep() -> None:
    """What nests without end is refused instead of using up the stack."""
    geometry: dict[str, Any] = {"type": "Point", "coordinates": [0, 0]}
    for _ in range(8):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    assert to_ewkb(geometry)
    with pytest.raises(GeometryError, match="nested more than 8 deep"):
        to_ewkb({"type": "GeometryCollection", "geometries": [geometry]})
