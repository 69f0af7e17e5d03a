"""The statements of one load: lock, look, delete twins, write. One transaction, so all or nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from stacworker.api import Version
from stacworker.database import Connection
from stacworker.errors import Transient
from stacworker.load.pgstac import sql
from stacworker.load.pgstac.collection import Collection
from stacworker.load.pgstac.plan import Held, Plan, make_plan
from stacworker.load.pgstac.results import Busy, Loaded
from stacworker.load.pgstac.rows import LeafRows, Row
from stacworker.load.pgstac.versions import as_object, with_version
from stacworker.postgres_errors import Contended, translated
from stacworker.settings import Conflict


class Changed(Transient):
    """The collection is not what the rows were made for: make them again."""

    default_class = "collection_changed"


async def take_slot(connection: Connection, collection_id: str, slots: int) -> None:
    """Take one of the collection's slots until the transaction ends: a free one, else wait for one.

    Raises `Busy` when the transaction's lock_timeout passes.
    """
    first = random.randrange(slots)  # noqa: S311 - spreads writers, guards nothing
    if await connection.fetchval(sql.TRY_SLOT, collection_id, slots, first) is None:
        await _wait_for_slot(connection, collection_id, first)


async def take_all_slots(connection: Connection, collection_id: str, slots: int) -> None:
    """Take every slot of the collection until the transaction ends; raises `Busy` as `take_slot` does."""
    for slot in range(slots):
        await _wait_for_slot(connection, collection_id, slot)


async def _wait_for_slot(connection: Connection, collection_id: str, slot: int) -> None:
    try:
        with translated(f"waiting for collection {collection_id!r}"):
            await connection.fetchval(sql.WAIT_FOR_SLOT, collection_id, slot)
    except Contended as error:
        raise Busy(f"collection {collection_id!r} is busy: as many loads as it allows are running") from error


async def hold_collection(connection: Connection, collection: Collection, *, remembers_deletions: bool) -> bool:
    """Keep the collection unchanged until the transaction ends; return whether deletions are remembered for it.

    Raises `Changed` when it is not what `collection` says.
    """
    query = sql.HOLD_COLLECTION_AND_DELETIONS if remembers_deletions else sql.HOLD_COLLECTION
    found = await connection.fetchrow(query, collection.id)
    if found is None or found["row_version"] != collection.row_version:
        raise Changed(f"collection {collection.id!r} has changed since it was read")
    return remembers_deletions and bool(found["has_deletions"])


async def write_batch(
    connection: Connection,
    collection_id: str,
    root: str,
    batch: Sequence[LeafRows],
    conflict: Conflict,
    *,
    has_deletions: bool,
) -> Loaded:
    """Write the rows of a batch that are not older than what is there; a slot must be held."""
    ids = [row.id for part in batch for row in part.rows]
    held = await _look_up(connection, root, ids)
    deleted = await _deleted(connection, collection_id, ids) if has_deletions else {}
    plan = make_plan(batch, held, deleted, conflict)
    await _delete_rows(connection, plan.deletes)
    for leaf, rows in plan.inserts.items():
        await _insert(connection, collection_id, leaf, rows)
        plan.loaded.update(row.id for row in rows)
    for leaf, rows in plan.upserts.items():
        written = await _upsert(connection, collection_id, leaf, rows)
        plan.loaded |= written
        if len(written) < len(rows):
            await _settle(connection, root, [row for row in rows if row.id not in written], plan)
        await connection.execute(sql.FORGET_FORMATTED, collection_id, list(written))
    return Loaded(frozenset(plan.loaded), frozenset(plan.superseded), frozenset(plan.conflicting))


async def delete_items(
    connection: Connection, collection_id: str, root: str, ids: Mapping[str, Version], *, remember: bool
) -> frozenset[str]:
    """Delete the items that are not newer than the versions given, and return which; all slots must be held."""
    if remember:
        await connection.execute(sql.FORGET_DELETED)
        in_order = sorted(ids)
        await connection.execute(
            sql.REMEMBER_DELETED,
            collection_id,
            in_order,
            [ids[item_id].time_ms for item_id in in_order],
            [ids[item_id].sequencer for item_id in in_order],
        )
    if not await connection.fetchval(sql.LEAF_EXISTS, root):
        return frozenset()
    doomed: dict[str, list[str]] = {}
    for item_id, held in (await _look_up(connection, root, list(ids))).items():
        for row in held:
            if row.version is None or row.version <= ids[item_id]:
                doomed.setdefault(row.leaf, []).append(item_id)
    await _delete_rows(connection, doomed)
    deleted = frozenset(item_id for of_leaf in doomed.values() for item_id in of_leaf)
    await connection.execute(sql.FORGET_FORMATTED, collection_id, list(deleted))
    return deleted


async def _look_up(connection: Connection, root: str, ids: Sequence[str]) -> dict[str, list[Held]]:
    """Return what the collection has under these ids."""
    held: dict[str, list[Held]] = {}
    for found in await connection.fetch(sql.lookup(root), ids):
        row = Held(found["leaf"], found["datetime"], as_object(found["private"]))
        held.setdefault(found["id"], []).append(row)
    return held


async def _delete_rows(connection: Connection, ids_by_leaf: Mapping[str, Sequence[str]]) -> None:
    # In one order for all writers.
    for leaf in sorted(ids_by_leaf):
        await connection.execute(sql.delete(leaf), sorted(ids_by_leaf[leaf]))


async def _deleted(connection: Connection, collection_id: str, ids: Sequence[str]) -> dict[str, Version]:
    found = await connection.fetch(sql.DELETED, collection_id, ids)
    return {item_id: Version(time_ms, sequencer) for item_id, time_ms, sequencer in found}


async def _insert(connection: Connection, collection_id: str, leaf: str, rows: Sequence[Row]) -> None:
    """Copy new rows in; when somebody else has put one there since we looked, the transaction fails."""
    await connection.copy_records_to_table(
        leaf,
        schema_name="pgstac",
        columns=("id", "geometry", "collection", "datetime", "end_datetime", "content", "private"),
        records=[
            (
                row.id,
                row.geometry,
                collection_id,
                row.datetime,
                row.end_datetime,
                row.content,
                with_version(row.private, row.version),
            )
            for row in rows
        ],
    )


async def _upsert(connection: Connection, collection_id: str, leaf: str, rows: Sequence[Row]) -> set[str]:
    """Write rows unless there is something newer; return the ids written."""
    written = await connection.fetch(
        sql.upsert(leaf),
        collection_id,
        [row.id for row in rows],
        [row.geometry for row in rows],
        [row.datetime for row in rows],
        [row.end_datetime for row in rows],
        [row.content for row in rows],
        [with_version(row.private, row.version) for row in rows],
    )
    return {found["id"] for found in written}


async def _settle(connection: Connection, root: str, rows: Sequence[Row], plan: Plan) -> None:
    """Find out about rows that equal what is there, or that lost against what came after the look-up."""
    held = await _look_up(connection, root, [row.id for row in rows])
    for row in rows:
        plan.keep(row, held.get(row.id, ()), "upsert")
