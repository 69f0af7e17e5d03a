"""Everything that the demo sends, good and bad, and what must become of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stacworker.demo.rasters import Granule

NAIP = "naip"
UPLOADS = "demo-uploads"
PACKAGE = "stactools-naip"
SEARCHED_YEAR = 2020


@dataclass(frozen=True, slots=True)
class Bad:
    """A document that must end in the dead-letter queue: what is wrong, and what its dead letter contains."""

    kind: str
    mark: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent where.

    `requests` and `items` are bodies for the two queues, `notifications` bodies to publish to the
    topic, `objects` what to put in the bucket (each put notifies the topic). `good` are the collections and
    ids that must be in the catalogue at the end, `bad` what must be in the dead-letter queue, `searched`
    the ids that the search for the tiles of SEARCHED_YEAR must find.
    """

    requests: Sequence[str]
    items: Sequence[str]
    notifications: Sequence[str]
    objects: Mapping[str, bytes]
    good: frozenset[tuple[str, str]] = field(repr=False)
    bad: Sequence[Bad]
    searched: frozenset[str] = field(repr=False)

    @property
    def messages(self) -> int:
        """How many messages the worker will get, the bucket's test event included."""
        return len(self.requests) + len(self.items) + len(self.notifications) + len(self.objects) + 1

    @property
    def generated(self) -> int:
        """How many items must be generated."""
        return sum(collection == NAIP for collection, _ in self.good)


def collections() -> list[dict[str, Any]]:
    """Return the demo's collections: one as stactools-naip describes it, one for uploaded items."""
    from stactools.naip.stac import create_collection  # noqa: PLC0415 - from the extra `demo`

    naip = create_collection([2019, 2020, 2021]).to_dict(include_self_link=False)
    uploads = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": UPLOADS,
        "description": "Items that arrive as JSON: uploaded to a bucket, or sent to the queue as they are.",
        "license": "CC0-1.0",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2024-01-01T00:00:00Z", None]]},
        },
        "links": [],
    }
    return [naip | {"id": NAIP}, uploads]


def plan(granules: Sequence[Granule], folder: Path, bucket: str) -> Plan:
    """Decide what to send, for these granules; `folder` gets a file that is no raster."""
    count = max(2, len(granules) // 20)
    uploaded = [_item(f"upload-{number:04}", number) for number in range(len(granules) // 2)]
    raw = [_item(f"raw-{number:04}", number) for number in range(count)]
    features = [_item(f"feature-{number:04}", number) for number in range(count)]

    broken = folder / "m_3008501_ne_16_060_20190401.tif"
    broken.write_bytes(b"this is no GeoTIFF")
    flat = _item("null-geometry", 0) | {"geometry": None}
    homeless = _item("no-such-collection", 0) | {"collection": "nowhere"}
    timeless = _item("no-such-time", 0)
    timeless["properties"]["datetime"] = "now"

    return Plan(
        requests=[
            *(_request(granule) for granule in granules),
            _request(granules[0], package="stactools-unheard-of"),
            _request(Granule(broken, "al", granules[0].taken)),
        ],
        items=[
            *map(json.dumps, raw),
            json.dumps({"type": "FeatureCollection", "features": [*features, timeless]}),
            json.dumps(flat),
            json.dumps(homeless),
            "this is { not JSON",
        ],
        notifications=[_event(bucket, "items/nobody-put-this.json")],
        objects={f"items/{item['id']}.json": json.dumps(item).encode() for item in uploaded},
        good=frozenset(
            [(NAIP, granule.item_id) for granule in granules]
            + [(UPLOADS, item["id"]) for item in (*uploaded, *raw, *features)]
        ),
        searched=frozenset(granule.item_id for granule in granules if granule.taken.year == SEARCHED_YEAR),
        bad=[
            Bad("a message that is not JSON", "this is { not JSON"),
            Bad("an item without geometry", "null-geometry"),
            Bad("an item of an unknown collection", "no-such-collection"),
            Bad(f"1 of the {count + 1} items of a FeatureCollection", "no-such-time"),
            Bad("an event for an object that is not there", "nobody-put-this"),
            Bad("a request for a package that is not allowed", "stactools-unheard-of"),
            Bad("a request for a file that is no raster", broken.name),
        ],
    )


def more_items(count: int) -> list[dict[str, Any]]:
    """Return items beyond the plan, to try `stacworker send` with."""
    return [_item(f"more-{number:04}", number) for number in range(count)]


def _request(granule: Granule, *, package: str = PACKAGE) -> str:
    """Return an ItemRequest, as users of StactoolsItemGenerator send it."""
    return json.dumps(
        {
            "package_name": package,
            "group_name": "naip",
            "create_item_args": [granule.state, granule.year, str(granule.path)],
            "collection_id": NAIP,
        }
    )


def _item(item_id: str, number: int) -> dict[str, Any]:
    west, south = -170.0 + number % 34 * 10, -60.0 + number // 34 % 12 * 10
    east, north = west + 1, south + 1
    taken = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=7 * number)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": UPLOADS,
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
        },
        "bbox": [west, south, east, north],
        "properties": {"datetime": taken.isoformat().replace("+00:00", "Z"), "eo:cloud_cover": number % 100},
        "links": [],
        "assets": {"data": {"href": f"s3://demo/{item_id}.tif", "type": "image/tiff; application=geotiff"}},
    }


def _event(bucket: str, key: str) -> str:
    """Return an S3 event, as the bucket itself sends it."""
    return json.dumps(
        {
            "Records": [
                {
                    "eventVersion": "2.1",
                    "eventSource": "aws:s3",
                    "awsRegion": "us-east-1",
                    "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    "eventName": "ObjectCreated:Put",
                    "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}},
                }
            ]
        }
    )
