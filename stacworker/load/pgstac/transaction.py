"""The statements of one load: look, delete twins, write. One transaction, so all or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from asyncpg import Record

from stacworker.api import Version
from stacworker.database import Connection
from stacworker.errors import Transient
from stacworker.load.pgstac import sql
from stacworker.load.pgstac.collection import Collection
from stacworker.load.pgstac.plan import Held, Plan, make_plan
from stacworker.load.pgstac.results import Loaded
from stacworker.load.pgstac.rows import LeafRows, Row
from stacworker.load.pgstac.versions import as_object, with_version
from stacworker.settings import Conflict


class Changed(Transient):
    """The collection is not what the rows were made for: make them again."""

    default_class = "collection_changed"


async def write_batch(
    connection: Connection,
    collection: Collection,
    root: str,
    batch: Sequence[LeafRows],
    conflict: Conflict,
    *,
    remembers_deletions: bool,
) -> Loaded:
    """Write the rows of a batch that are not older than what is there; a slot must be held.

    Raises `Changed` when the collection is not what the rows were made for.
    """
    ids = [row.id for part in batch for row in part.rows]
    held, deleted = await _hold_and_look_up(connection, collection, root, ids, remembers_deletions=remembers_deletions)
    plan = make_plan(batch, held, deleted, conflict)
    await _delete_rows(connection, plan.deletes)
    for leaf, rows in plan.inserts.items():
        await _insert(connection, collection.id, leaf, rows)
        plan.loaded.update(row.id for row in rows)
    for leaf, rows in plan.upserts.items():
        written = await _upsert(connection, collection.id, leaf, rows)
        plan.loaded |= written
        if len(written) < len(rows):
            await _settle(connection, root, [row for row in rows if row.id not in written], plan)
        await connection.execute(sql.FORGET_FORMATTED, collection.id, list(written))
    return Loaded(frozenset(plan.loaded), frozenset(plan.superseded), frozenset(plan.conflicting))


async def delete_items(
    connection: Connection,
    collection: Collection,
    root: str,
    ids: Mapping[str, Version],
    *,
    remembers_deletions: bool,
) -> frozenset[str]:
    """Delete the items that are not newer than the versions given, and return which; all slots must be held.

    Raises `Changed` when the collection is another one by now.
    """
    in_order = sorted(ids)
    if remembers_deletions:
        await connection.execute(sql.FORGET_DELETED)
        times = [ids[item_id].time_ms for item_id in in_order]
        sequencers = [ids[item_id].sequencer for item_id in in_order]
        await connection.execute(sql.REMEMBER_DELETED, collection.id, in_order, times, sequencers)
    if not await connection.fetchval(sql.LEAF_EXISTS, root):
        return frozenset()
    there, _ = await _hold_and_look_up(connection, collection, root, in_order, remembers_deletions=False)
    doomed: dict[str, list[str]] = {}
    for item_id, held in there.items():
        for row in held:
            if row.version is None or row.version <= ids[item_id]:
                doomed.setdefault(row.leaf, []).append(item_id)
    await _delete_rows(connection, doomed)
    deleted = frozenset(item_id for of_leaf in doomed.values() for item_id in of_leaf)
    await connection.execute(sql.FORGET_FORMATTED, collection.id, list(deleted))
    return deleted


async def _hold_and_look_up(
    connection: Connection, collection: Collection, root: str, ids: Sequence[str], *, remembers_deletions: bool
) -> tuple[dict[str, list[Held]], dict[str, Version]]:
    """Keep the collection as it is; return what it has under these ids, and which of them were deleted."""
    query = sql.hold_and_look_up(root, deletions=remembers_deletions)
    found = await connection.fetch(query, collection.id, ids)
    if not found or found[0]["row_version"] != collection.row_version:
        raise Changed(f"collection {collection.id!r} has changed since it was read")
    deleted = {}
    if found[0]["has_deletions"]:
        for item_id, time_ms, sequencer in await connection.fetch(sql.DELETED, collection.id, ids):
            deleted[item_id] = Version(time_ms, sequencer)
    return _by_id(found if found[0]["id"] is not None else ()), deleted


def _by_id(found: Iterable[Record]) -> dict[str, list[Held]]:
    held: dict[str, list[Held]] = {}
    for row in found:
        held.setdefault(row["id"], []).append(Held(row["leaf"], row["datetime"], as_object(row["private"])))
    return held


async def _delete_rows(connection: Connection, ids_by_leaf: Mapping[str, Sequence[str]]) -> None:
    # In one order for all writers.
    for leaf in sorted(ids_by_leaf):
        await connection.execute(sql.delete(leaf), sorted(ids_by_leaf[leaf]))


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
    held = _by_id(await connection.fetch(sql.look_up(root), [row.id for row in rows]))
    for row in rows:
        plan.keep(row, held.get(row.id, ()), "upsert")
