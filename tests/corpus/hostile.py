"""The corpus: what anybody might send, by mistake or on purpose.

`LOADED` means that the item (or items) in it are in the catalogue afterwards and that pgstac's search finds them as
they were sent. Anything else is the error class of the dead letter.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

LOADED = "loaded"
COLLECTION = "things"
POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"


@dataclass(frozen=True, slots=True)
class Case:
    """One message: its body, or an object under `key` whose URL is the body.

    `becomes` is LOADED or an error class; None where either will do (as long as it is one of the two).
    """

    name: str
    body: str = ""
    becomes: str | None = None
    object_bytes: bytes | None = None
    key: str = ""


def item(id_: str, **changes: Any) -> dict[str, Any]:
    """Return a valid item, with fields changed; a change to `datetime` is made in its properties."""
    body: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": id_,
        "collection": COLLECTION,
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]},
        "bbox": [0, 0, 1, 1],
        "properties": {"datetime": "2024-03-05T10:00:00Z", "eo:cloud_cover": 5.5},
        "links": [{"rel": "self", "href": "https://example.com/x"}],
        "assets": {"data": {"href": "s3://b/x.tif", "roles": ["data"]}},
    }
    if "datetime" in changes:
        body["properties"]["datetime"] = changes.pop("datetime")
    return {**body, **changes}


def corpus() -> list[Case]:
    """Return all cases; ids are distinct."""
    return [
        *_bodies(),
        *_texts(),
        *_ids(),
        *_times(),
        *_geometries(),
        *_numbers(),
        *_envelopes(),
        *_objects(),
        *_wrong_types(),
    ]


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data)).decode()


def _bodies() -> Iterator[Case]:
    unknown = "unknown_envelope"
    for name, body in {
        "words": "not a message",
        "one brace": "{",
        "cut off": '{"type": "Feature"',
        "null": "null",
        "number": "17",
        "true": "true",
        "list": "[]",
        "list of items": _dumps([item("in-a-list")]),
        "empty object": "{}",
        "blank": " \n\t ",
        "HTML": "<html><body>502 Bad Gateway</body></html>",
        "XML": '<?xml version="1.0"?><Item/>',
        "YAML": "type: Feature\nid: x",
        "two documents": _dumps(item("one")) + _dumps(item("two")),
        "trailing comma": _dumps(item("x"))[:-1] + ",}",
        "single quotes": str(item("x")),
        "100,000 levels": _deep(100_000),
        "NaN": _dumps(item("x", note=float("nan"))),
        "Infinity": _dumps(item("x", note=float("inf"))),
        "lone surrogate, escaped": json.dumps(item("\ud800")),
        "JavaScript": "alert(document.cookie)",
        "SQL": "'; DROP TABLE pgstac.items; --",
        "shell": "$(rm -rf /) `id`",
        "template": "{{7*7}} ${jndi:ldap://127.0.0.1/a} %n%s",
    }.items():
        yield Case(name, body, unknown)
    yield Case("300 levels inside an item", _dumps(item("deep"))[:-1] + ', "x": ' + _deep(300) + "}", "too_deep")
    yield Case("byte order mark", "\ufeff" + _dumps(item("bom")))
    yield Case("duplicate keys", _dumps(item("double"))[:-1] + ', "id": "double-2"}', LOADED)
    yield Case("item within a JSON text", _dumps(_dumps(item("quoted"))), LOADED)
    yield Case("gzipped item", _packed(_dumps(item("zipped")).encode()), LOADED)
    yield Case("gzip bomb", _packed(b"\0" * 40_000_000), "object_too_large")
    yield Case("gzip of gzip", _packed(gzip.compress(b"{}")), unknown)
    yield Case("gzip cut off", _packed(b"{}")[:-12], "bad_gzip")
    yield Case("long text", _dumps(item("long-text", description="x" * 900_000)), LOADED)
    yield Case("100,000 links", _dumps(item("links", links=[{}] * 100_000)), "invalid_item")


def _texts() -> Iterator[Case]:
    for name, text in {
        "arn": "arn:aws:s3:::bucket aws:s3 ObjectCreated:Put",
        "quotes": 'it\'s "quoted" \\ and \\\\ more',
        "right to left": "\u202egnp.exe \u200f\u061c",
        "emoji": "👩‍👩‍👧‍👦 \U0001f680",
        "controls": "\x01\x02\x1f\x7f\x9f",
        "private use": "\ue000\U000f0000",
        "noncharacters": "\ufdd0\U0001fffe",
    }.items():
        yield Case(
            f"text: {name}",
            json.dumps(item(f"text-{name}", properties={"datetime": "2024-03-05T10:00:00Z", "t": text})),
            LOADED,
        )
    yield Case("text: NUL", json.dumps(item("text-nul", description="a\0b")), "invalid_item")
    yield Case("text: NUL in a key", json.dumps(item("key-nul", **{"a\0b": 1})), "invalid_item")


def _ids() -> Iterator[Case]:
    for id_ in (
        "a/b/../c",
        "with space",
        "it's",
        'say "hi"',
        "back\\slash",
        "new\nline",
        "tab\t",
        "\x01\x1f",
        "' OR 1=1 --",
        "%s %d {} $1 :id",
        "élève-日本-🚀",
        "\u202eevil",
        ".",
        "..",
        "-rf",
        "x" * 2600,
    ):
        yield Case(f"id {id_[:20]!r}", json.dumps(item(id_)), LOADED)
    for id_ in ("", "nul\0", "x" * 3000):
        yield Case(f"bad id {id_[:10]!r}", json.dumps(item(id_)), "invalid_item")
    for collection, becomes in {
        "": "invalid_item",
        "'; DROP TABLE pgstac.items; --": "collection_missing",
        "_items_1": "collection_missing",
        'things"': "collection_missing",
        "THINGS": "collection_missing",
        "../things": "collection_missing",
        "x" * 500: "collection_missing",
        "c\0": "invalid_item",
    }.items():
        yield Case(
            f"collection {collection[:20]!r}", json.dumps(item("in-no-collection", collection=collection)), becomes
        )


def _times() -> Iterator[Case]:
    for time in (
        "0001-06-01T00:00:00Z",
        "9999-06-01T00:00:00Z",
        "2024-02-29T23:59:59Z",
        "2024-03-05t10:00:00z",
        "2024-03-05T10:00:00+14:00",
        "2024-03-05T10:00:00-12:00",
        "2024-03-05T10:00:00.123456789012Z",
        "2016-12-31T23:59:60Z",
        "1969-12-31T23:59:59.999Z",
    ):
        yield Case(f"time {time}", json.dumps(item(f"at-{time}", datetime=time)), LOADED)
    for time in (
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "99999-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-03-05T24:00:00Z",
        "2024-03-05T10:00:00+99:00",
        "2024-03-05T10:00:00",
        "2024-03-05",
        "05.03.2024",
        "now",
        "infinity",
        "",
        " 2024-03-05T10:00:00Z",
        "２０２４-03-05T10:00:00Z",  # noqa: RUF001 - digits, but not ASCII ones
    ):
        yield Case(f"bad time {time!r}", json.dumps(item("at-no-time", datetime=time)), "invalid_datetime")
    backwards = {"datetime": None, "start_datetime": "2024-02-01T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z"}
    yield Case("ends before it starts", json.dumps(item("backwards", properties=backwards)), "invalid_datetime")
    yield Case("no time", json.dumps(item("timeless", properties={"datetime": None})), "invalid_datetime")


def _geometries() -> Iterator[Case]:
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    for name, geometry in {
        "point": {"type": "Point", "coordinates": [1.5, 2.5]},
        "with height": {"type": "Point", "coordinates": [1, 2, 8848.86]},
        "hole outside": {"type": "Polygon", "coordinates": [ring, [[5, 5], [6, 5], [6, 6], [5, 5]]]},
        "20,000 vertices": {"type": "LineString", "coordinates": [[n % 360 - 180, n % 90] for n in range(20_000)]},
        "collection": {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]}]},
    }.items():
        yield Case(f"geometry: {name}", json.dumps(item(f"geometry-{name}", geometry=geometry)), LOADED)
    nested: dict[str, Any] = {"type": "Point", "coordinates": [1, 2]}
    for _ in range(60):
        nested = {"type": "GeometryCollection", "geometries": [nested]}
    for name, bad in {
        "null": None,
        "text": "POINT(1 2)",
        "list": [1, 2],
        "no type": {"coordinates": [1, 2]},
        "unknown type": {"type": "Circle", "coordinates": [1, 2], "radius": 3},
        "no coordinates": {"type": "Point"},
        "empty": {"type": "Polygon", "coordinates": []},
        "one number": {"type": "Point", "coordinates": [1]},
        "five numbers": {"type": "Point", "coordinates": [1, 2, 3, 4, 5]},
        "texts": {"type": "Point", "coordinates": ["1", "2"]},
        "nulls": {"type": "Point", "coordinates": [None, None]},
        "booleans": {"type": "Point", "coordinates": [True, False]},
        "off the globe": {"type": "Point", "coordinates": [500, 91]},
        "1e300": {"type": "Point", "coordinates": [1e300, 1]},
        "huge integer": {"type": "Point", "coordinates": [10**30, 1]},
        "three points the same": {"type": "Polygon", "coordinates": [[[1, 2]] * 3]},
        "unclosed ring": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]},
        "line of one": {"type": "LineString", "coordinates": [[1, 2]]},
        "wrong nesting": {"type": "Polygon", "coordinates": [[[[0, 0]]]]},
    }.items():
        yield Case(f"bad geometry: {name}", json.dumps(item("no-geometry", geometry=bad)), "invalid_geometry")
    yield Case(
        "geometry: bow-tie",
        json.dumps(
            item("bow-tie", geometry={"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]})
        ),
    )
    yield Case("geometry: 60 collections", json.dumps(item("nested", geometry=nested)))


def _numbers() -> Iterator[Case]:
    for name, text in {"-0": "-0.0", "small": "1e-400", "long": "0." + "1" * 400, "2^53+1": "9007199254740993"}.items():
        body = json.dumps(item(f"number-{name}", description="@@")).replace('"@@"', text)
        yield Case(f"number {name}", body)
    for name, text in {"1e400": "1e400", "2^64": "18446744073709551616", "400 digits": "9" * 400}.items():
        body = json.dumps(item(f"number-{name}", description="@@")).replace('"@@"', text)
        yield Case(f"number {name}", body)


def _envelopes() -> Iterator[Case]:
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "%ff"}}}
    for name, body in {
        "Records is text": {"Records": "none"},
        "Records holds null": {"Records": [None]},
        "Records of something else": {"Records": [{"eventSource": "aws:dynamodb"}]},
        "key is not UTF-8": {"Records": [record]},
        "no bucket": {"Records": [{**record, "s3": {"object": {"key": "k"}}}]},
        "bucket with a path": [POINTER, {"s3BucketName": "../x", "s3Key": "k"}],
        "pointer to nothing": [POINTER, {}],
        "SNS of yesterday": {"Type": "Notification", "Message": "{}", "Timestamp": "yesterday"},
        "SNS of numbers": {"Type": "Notification", "Message": 17},
    }.items():
        yield Case(f"envelope: {name}", _dumps(body), "bad_envelope")
    for href in (
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "https://user:secret@example.com/x.json",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "javascript:alert(1)",
        "data:application/json,{}",
        "gopher://127.0.0.1:25/x",
    ):
        yield Case(f"href {href[:20]}", _dumps({"href": href}), "unfetchable_href")
    yield Case("href of no bucket", _dumps({"href": "s3://no-such-bucket-at-all/k"}), "bucket_missing")
    confirmation = {
        "Type": "SubscriptionConfirmation",
        "Message": "x",
        "SubscribeURL": "http://127.0.0.1/",
        "TopicArn": "t",
    }
    yield Case("SNS asks to confirm", _dumps(confirmation), "sns_confirmation")
    wrapped = _dumps(item("wrapped"))
    for _ in range(11):
        wrapped = _dumps({"Type": "Notification", "Message": wrapped})
    yield Case("eleven envelopes", wrapped, "too_many_envelopes")
    yield Case("request in a load queue", _dumps({"package_name": "stactools-naip; " + "(" * 5000}), "wrong_queue")
    yield Case("no features", _dumps({"type": "FeatureCollection", "features": {}}), "bad_feature_collection")
    yield Case(
        "collection without extent",
        _dumps({"type": "Collection", "id": "c", "stac_version": "1.0.0"}),
        "invalid_collection",
    )


def _objects() -> Iterator[Case]:
    line = _dumps(item("from-an-object")).encode()
    for key, data, becomes in (
        ("empty.json", b"", "not_json"),
        ("text.json", b"not json", "not_json"),
        ("list.json", b"[1]", "not_stac"),
        ("utf-16.json", line.decode().encode("utf-16"), "not_json"),
        ("broken.gz", gzip.compress(b"{}")[:-9], "bad_gzip"),
        ("bomb.gz", gzip.compress(b"\0" * 70_000_000), "object_too_large"),
        ("binary.tif", bytes(range(256)) * 100, "not_json"),
        ("10 MB.json", _dumps(item("ten-megabytes", description="x" * 10_000_000)).encode(), LOADED),
        ("a/../b/./c.json", _dumps(item("dots-in-its-key")).encode(), LOADED),
        ("//two//slashes.json", _dumps(item("slashes-in-its-key")).encode(), LOADED),
        ("plus+and space%20.json", _dumps(item("plus-in-its-key")).encode(), LOADED),
        ("日本 🚀.json", _dumps(item("unicode-in-its-key")).encode(), LOADED),
        ("s3:/other/key.json", _dumps(item("url-in-its-key")).encode(), LOADED),
        ("k" * 1024, _dumps(item("longest-key")).encode(), LOADED),
        ("zipped twice.json.gz", gzip.compress(gzip.compress(line)), None),
        ("trailing garbage.gz", gzip.compress(_dumps(item("before-garbage")).encode()) + b"garbage", None),
    ):
        yield Case(f"object {key[:20]}", becomes=becomes, object_bytes=data, key=key)


def _wrong_types() -> Iterator[Case]:
    """Put values of wrong types (and sometimes right ones) at every place of an item."""
    for number, (place, value) in enumerate((place, value) for place in _places(item("x")) for value in _VALUES):
        body = deepcopy(item(f"wrong-{number:03}"))
        if place == ("id",) and isinstance(value, str):
            continue
        parent: Any = body
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = value
        yield Case(f"{'.'.join(map(str, place))} = {value!r}", json.dumps(body))


_VALUES = (None, True, -1, 1.5, "", "x", [], {}, [None], {"a": None}, [[[[1]]]])


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in list(entries)[:3] if isinstance(value, list) else entries:
        yield (*at, step)
        yield from _places(inner, (*at, step))
