"""Documents as they come from messages."""

from __future__ import annotations

from typing import Any

from stacworker.api import Document, Version


def item_body(item_id: str = "x", collection: str = "c", **changes: Any) -> dict[str, Any]:
    """Return a valid STAC item, with fields changed."""
    body = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": collection,
        "geometry": {"type": "Point", "coordinates": [10.0, 50.0]},
        "bbox": [10.0, 50.0, 10.0, 50.0],
        "properties": {"datetime": "2020-01-31T00:00:00Z"},
        "links": [],
        "assets": {},
    }
    return body | changes


def collection_body(collection: str = "c", **changes: Any) -> dict[str, Any]:
    """Return a valid STAC collection, with fields changed."""
    body = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": collection,
        "description": "A collection",
        "license": "CC0-1.0",
        "extent": {
            "spatial": {"bbox": [[-180.0, -90.0, 180.0, 90.0]]},
            "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]},
        },
        "links": [],
    }
    return body | changes


def item(item_id: str = "x", version: int = 1, collection: str = "c", **changes: Any) -> Document:
    return Document("item", item_body(item_id, collection, **changes), Version(version))


def collection(collection_id: str = "c", version: int = 1, **changes: Any) -> Document:
    return Document("collection", collection_body(collection_id, **changes), Version(version))


def delete(item_id: str = "x", version: int = 1, collection: str = "c") -> Document:
    return Document("delete", {"id": item_id, "collection": collection}, Version(version), f"s3://b/{item_id}.json")
