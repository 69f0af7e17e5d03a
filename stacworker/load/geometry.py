"""GeoJSON geometry to PostGIS' EWKB, checked on the way.

EWKB is the binary form that PostGIS itself sends and receives: WKB with the SRID and a flag for Z.
https://postgis.net/docs/using_postgis_dbmanagement.html#EWKB_EWKT and RFC 7946, section 3.1.
"""

from __future__ import annotations

import struct
from itertools import chain
from math import isfinite
from typing import Any

from stacworker.load.reasons import shown

SRID = 4326
MARGIN_DEGREES = 0.5
"""How far a coordinate may lie outside the globe: coarse grids reach half a pixel past its edge."""

_MAX_LONGITUDE = 180 + MARGIN_DEGREES
_MAX_LATITUDE = 90 + MARGIN_DEGREES
_MAX_NESTING = 8
_FLAT, _SOLID = 2, 3
_HAS_Z = 0x80000000
_HAS_SRID = 0x20000000
_POINT, _LINE, _POLYGON = 1, 2, 3
_COLLECTION = 7
_MULTI = {"MultiPoint": (4, "Point"), "MultiLineString": (5, "LineString"), "MultiPolygon": (6, "Polygon")}
_NUMBERS = {float, int}


class GeometryError(ValueError):
    """A geometry that is no valid GeoJSON; the text says where and why."""


class _NeedsZError(Exception):
    """Some position has a third coordinate: then all of them need one."""


def to_ewkb(geometry: Any) -> bytes:
    """Return a GeoJSON geometry as EWKB, in two dimensions or with Z where any position has one.

    As `ST_GeomFromGeoJSON` does, positions without Z get 0 when others have it. Refused, although PostGIS
    stores it: empty coordinates, rings that are not closed, more than three numbers in a position, and
    longitudes and latitudes more than `MARGIN_DEGREES` outside the globe. Self-intersections are not
    looked for. Raises `GeometryError`.
    """
    try:
        return _encode(geometry, _FLAT, _HAS_SRID, 0)
    except _NeedsZError:
        return _encode(geometry, _SOLID, _HAS_SRID | _HAS_Z, 0)


def _encode(geometry: Any, dimensions: int, flags: int, nesting: int) -> bytes:
    if not isinstance(geometry, dict):
        raise GeometryError(f"a GeoJSON object is expected, not {shown(geometry)}")
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        return _encode_collection(geometry, dimensions, flags, nesting)
    coordinates = geometry.get("coordinates")
    if kind == "Polygon":
        return _head(_POLYGON, flags) + _polygon(coordinates, dimensions)
    if kind == "Point":
        return _head(_POINT, flags) + _point(coordinates, dimensions)
    if kind == "LineString":
        return _head(_LINE, flags) + _line(coordinates, dimensions)
    if not isinstance(kind, str) or kind not in _MULTI:
        raise GeometryError(f"type {shown(kind)} is none of GeoJSON's geometry types")
    code, part = _MULTI[kind]
    if not isinstance(coordinates, list | tuple) or not coordinates:
        raise GeometryError(f"{kind}: coordinates are empty or no list: {shown(coordinates)}")
    inner = flags & ~_HAS_SRID
    parts = [_encode({"type": part, "coordinates": each}, dimensions, inner, nesting) for each in coordinates]
    return b"".join((_head(code, flags), struct.pack("<I", len(parts)), *parts))


def _encode_collection(geometry: dict[str, Any], dimensions: int, flags: int, nesting: int) -> bytes:
    members = geometry.get("geometries")
    if not isinstance(members, list | tuple) or not members:
        raise GeometryError(f"GeometryCollection: geometries are empty or no list: {shown(members)}")
    if nesting == _MAX_NESTING:
        raise GeometryError(f"GeometryCollection: nested more than {_MAX_NESTING} deep")
    inner = flags & ~_HAS_SRID
    parts = [_encode(each, dimensions, inner, nesting + 1) for each in members]
    return b"".join((_head(_COLLECTION, flags), struct.pack("<I", len(parts)), *parts))


def _head(code: int, flags: int) -> bytes:
    if flags & _HAS_SRID:
        return struct.pack("<BII", 1, code | flags, SRID)
    return struct.pack("<BI", 1, code | flags)


def _point(position: Any, dimensions: int) -> bytes:
    numbers = _numbers([position], dimensions, "Point")
    return struct.pack(f"<{dimensions}d", *numbers)


def _line(positions: Any, dimensions: int) -> bytes:
    return _run(positions, dimensions, "LineString", 2)


def _polygon(rings: Any, dimensions: int) -> bytes:
    if not isinstance(rings, list | tuple) or not rings:
        raise GeometryError(f"Polygon: coordinates are empty or no list: {shown(rings)}")
    parts = [struct.pack("<I", len(rings))]
    for ring in rings:
        parts.append(_run(ring, dimensions, "Polygon", 4))
        if ring[0] != ring[-1]:
            raise GeometryError(f"Polygon: a ring is not closed: begins {shown(ring[0])}, ends {shown(ring[-1])}")
    return b"".join(parts)


def _run(positions: Any, dimensions: int, kind: str, at_least: int) -> bytes:
    if not isinstance(positions, list | tuple) or len(positions) < at_least:
        raise GeometryError(f"{kind}: at least {at_least} positions are expected, not {shown(positions)}")
    numbers = _numbers(positions, dimensions, kind)
    return struct.pack(f"<I{len(numbers)}d", len(positions), *numbers)


def _numbers(positions: Any, dimensions: int, kind: str) -> list[float]:
    """Return the coordinates of all positions in a row, `dimensions` for each."""
    try:
        lengths = set(map(len, positions))
        numbers = list(chain.from_iterable(positions))
    except TypeError:
        raise GeometryError(f"{kind}: positions are lists of numbers, not {shown(positions)}") from None
    if not set(map(type, numbers)) <= _NUMBERS:
        raise GeometryError(f"{kind}: a position holds something that is no number: {shown(positions)}")
    if lengths != {dimensions}:
        if not lengths <= {_FLAT, _SOLID}:
            raise GeometryError(f"{kind}: a position has two or three numbers: {shown(positions)}")
        if dimensions == _FLAT:
            raise _NeedsZError
        numbers = list(chain.from_iterable((*position, 0.0)[:_SOLID] for position in positions))
    _check_range(numbers[0::dimensions], _MAX_LONGITUDE, kind, "longitude")
    _check_range(numbers[1::dimensions], _MAX_LATITUDE, kind, "latitude")
    if dimensions == _SOLID and not all(map(_finite, numbers[2::_SOLID])):
        raise GeometryError(f"{kind}: a height is not a finite number")
    return numbers


def _check_range(values: list[float], limit: float, kind: str, name: str) -> None:
    # min and max overlook NaN, a sum does not.
    if min(values) < -limit or max(values) > limit or sum(values) != sum(values):
        wrong = next(value for value in values if not -limit <= value <= limit)
        edge = limit - MARGIN_DEGREES
        raise GeometryError(f"{kind}: {name} {shown(wrong)} is outside {-edge:g} to {edge:g}")


def _finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:
        return False
