"""A collection as the sink knows it: read, created, put."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from stacworker.api import Version
from stacworker.database import Connection
from stacworker.load.pgstac import sql
from stacworker.load.pgstac.partitions import Leaf, Partitions, Trunc
from stacworker.load.pgstac.versions import with_version

READING = {"timezone": "'UTC'", "datestyle": "'ISO'"}
"""Settings under which pgstac's functions read the bounds of partitions, and make them, in UTC."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What loading needs of a collection; `row_version` changes whenever its row does.

    `base_item_id` names the base item that `base_item` is, on pgstac 0.10 once the collection was edited.
    """

    id: str
    key: int
    trunc: Trunc
    base_item: dict[str, Any]
    base_item_id: int | None
    row_version: str


async def read_collection(
    connection: Connection, collection_id: str, *, has_base_items: bool
) -> tuple[Collection, Partitions] | None:
    """Return a collection and its leaves; None where there is no such collection."""
    query = sql.COLLECTION_0_10 if has_base_items else sql.COLLECTION_0_9
    found = await connection.fetchrow(query, collection_id)
    if found is None:
        return None
    collection = Collection(
        collection_id,
        found["key"],
        found["partition_trunc"],
        orjson.loads(found["base_item"]),
        found["base_item_id"],
        found["row_version"],
    )
    partitions = Partitions(collection.key, collection.trunc)
    for leaf in await read_leaves(connection, partitions):
        partitions.add(leaf)
    return collection, partitions


async def read_leaves(connection: Connection, partitions: Partitions) -> list[Leaf]:
    """Return the leaves that exist now."""
    if partitions.trunc is None:
        exists = await connection.fetchval(sql.LEAF_EXISTS, partitions.root)
        return [partitions.whole] if exists else []
    return [Leaf(*found) for found in await connection.fetch(sql.LEAVES, partitions.root)]


async def create_collection(connection: Connection, collection_id: str, stac_version: str) -> None:
    """Create a minimal collection, unless somebody else just has."""
    body = {
        "type": "Collection",
        "id": collection_id,
        "stac_version": stac_version,
        "description": f"Items of {collection_id}. Made by stacworker when the first of them came.",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [],
    }
    await connection.execute(sql.CREATE_COLLECTION, orjson.dumps(body).decode())


async def put_collection(connection: Connection, body: dict[str, Any], version: Version | None) -> None:
    """Create or replace a collection, unless what is there has a greater version."""
    private = None if version is None else with_version(None, version)
    await connection.execute(sql.PUT_COLLECTION, orjson.dumps(body).decode(), private)
