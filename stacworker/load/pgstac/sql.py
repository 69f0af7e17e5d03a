"""Every statement of the pgstac sink. `search_path` is "pgstac, public" wherever they run.

Written against pgstac 0.9.0 to 0.9.12 and 0.10.0; read the SQL of a new version before it is let in.
"""

from __future__ import annotations

DDL_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('stacworker:ddl', 0))"
"""One for all collections: the DDL of pgstac 0.9 touches views that all of them share."""

TRY_LOCKS = "SELECT key FROM unnest($1::bigint[]) AS keys (key) WHERE pg_try_advisory_xact_lock(key) LIMIT 1"
"""Take the first free one of some locks; NULL: all are taken."""

SCHEMA = """
    SELECT n.nspname IS NOT NULL AS present,
           coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS usable,
           coalesce(has_table_privilege(items.oid, 'INSERT, DELETE'), false) AS writable,
           current_user::text AS role,
           EXISTS (
               SELECT FROM pg_class c
               WHERE c.relnamespace = to_regnamespace('stacworker') AND c.relname = 'deletions'
               AND has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
           ) AS remembers_deletions,
           (SELECT array_agg(a.attname || ' ' || t.typname ORDER BY a.attnum)
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = items.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
    FROM (VALUES ('pgstac')) AS wanted (name)
    LEFT JOIN pg_namespace n ON n.nspname = wanted.name
    LEFT JOIN pg_class items ON items.relnamespace = n.oid AND items.relname = 'items'
"""
VERSION = "SELECT pgstac.get_version()"

COLLECTION_0_9 = """
    SELECT key, partition_trunc, base_item::text AS base_item, NULL::int AS base_item_id, xmin::text AS row_version
    FROM pgstac.collections WHERE id = $1
"""
COLLECTION_0_10 = """
    SELECT c.key, c.partition_trunc, b.base_item::text AS base_item, b.base_item_id, c.xmin::text AS row_version
    FROM pgstac.collections c, pgstac.current_base_item(c.id) b WHERE c.id = $1
"""
EXISTS = "SELECT EXISTS (SELECT FROM pgstac.collections WHERE id = $1)"

LEAVES = """
    SELECT c.relname::text AS name,
           greatest(lower(r.bounds), '0001-01-01 00:00:00+00') AS first,
           least(upper(r.bounds) - interval '1 microsecond', '9999-12-31 23:59:59.999999+00') AS last
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL (SELECT pgstac.constraint_tstzrange(pg_get_expr(c.relpartbound, c.oid)) AS bounds) r
    WHERE i.inhparent = to_regclass('pgstac.' || quote_ident($1)) AND r.bounds IS NOT NULL
"""
"""The leaves of a collection that is partitioned by time ($1: its root table)."""

LEAF_EXISTS = "SELECT to_regclass('pgstac.' || quote_ident($1)) IS NOT NULL"

CHECK_PARTITION = "SELECT pgstac.check_partition($1, tstzrange($2, $3, '[]'), tstzrange($2, $4, '[]'))"

DELETED = """
    SELECT id, version_ms, sequencer FROM stacworker.deletions WHERE collection = $1 AND id = ANY ($2::text[])
"""

REMEMBER_DELETED = """
    INSERT INTO stacworker.deletions AS d (collection, id, version_ms, sequencer)
    SELECT $1, u.id, u.version_ms, u.sequencer
    FROM unnest($2::text[], $3::bigint[], $4::text[]) AS u (id, version_ms, sequencer)
    ON CONFLICT (collection, id) DO UPDATE
    SET version_ms = EXCLUDED.version_ms, sequencer = EXCLUDED.sequencer, deleted_at = now()
    WHERE (d.version_ms, d.sequencer COLLATE "C") < (EXCLUDED.version_ms, EXCLUDED.sequencer COLLATE "C")
"""

FORGET_DELETED = "DELETE FROM stacworker.deletions WHERE deleted_at < now() - interval '30 days'"
"""No message is older: SQS keeps one for 14 days, and a dead letter for 14 more."""

FORGET_FORMATTED = "DELETE FROM pgstac.format_item_cache WHERE collection = $1 AND id = ANY ($2::text[])"
"""What the trigger on `items` does, which writing to a leaf goes past."""

CREATE_COLLECTION = "INSERT INTO pgstac.collections (content) VALUES ($1::jsonb) ON CONFLICT (id) DO NOTHING"


_VERSION = """{0}.private #> '{{stacworker,v}}', coalesce({0}.private #>> '{{stacworker,s}}', '') COLLATE "C\""""
_MINE, _NEW = _VERSION.format("t"), _VERSION.format("EXCLUDED")
_MERGED_PRIVATE = """
    CASE WHEN jsonb_typeof(t.private) = 'object' THEN t.private || coalesce(EXCLUDED.private, '{}')
         ELSE EXCLUDED.private END
"""

PUT_COLLECTION = f"""
    INSERT INTO pgstac.collections AS t (content, private) VALUES ($1::jsonb, $2::jsonb)
    ON CONFLICT (id) DO UPDATE SET content = EXCLUDED.content, private = {_MERGED_PRIVATE}
    WHERE (({_MINE}) > ({_NEW})) IS NOT TRUE
"""  # noqa: S608 - constants
"""Keeps a collection whose version is greater."""


SAME_COLLECTION = "SELECT content = $2::jsonb FROM pgstac.collections WHERE id = $1"


def wait_for_lock(key: int) -> str:
    """Return the statement that takes a lock until the transaction ends."""
    return f"SELECT pg_advisory_xact_lock({key})"


def hold_and_look_up(root: str, *, deletions: bool) -> str:
    """Return the query that keeps a collection ($1) as it is, and finds what it has under some ids ($2).

    The collection's row stays locked until the transaction ends. There is at least one result where the
    collection exists; all have its `row_version`, which changes with every update, and whether deletions
    are remembered for it.
    """
    has_deletions = "EXISTS (SELECT FROM stacworker.deletions WHERE collection = $1)" if deletions else "false"
    return f"""
        WITH held AS MATERIALIZED (
            SELECT xmin::text AS row_version, {has_deletions} AS has_deletions
            FROM pgstac.collections WHERE id = $1 FOR SHARE
        )
        SELECT h.row_version, h.has_deletions, i.id, i.tableoid::regclass::text AS leaf, i.datetime, i.private
        FROM held h LEFT JOIN pgstac.{_quoted(root)} AS i ON i.id = ANY ($2::text[])
    """  # noqa: S608 - a quoted name


def look_up(root: str) -> str:
    """Return the query for what a collection has under some ids ($1), wherever it lies."""
    return f"""
        SELECT i.id, i.tableoid::regclass::text AS leaf, i.datetime, i.private
        FROM pgstac.{_quoted(root)} AS i WHERE i.id = ANY ($1::text[])
    """  # noqa: S608 - a quoted name


def delete(leaf: str) -> str:
    """Return the statement that deletes some ids ($1) from a leaf."""
    return f"DELETE FROM pgstac.{_quoted(leaf)} WHERE id = ANY ($1::text[])"  # noqa: S608 - a quoted name


def upsert(leaf: str) -> str:
    """Return the statement that writes rows to a leaf and returns the ids that it wrote.

    A row whose version is greater stays; of equal versions the greater datetime, end, content and geometry
    stay, so that redelivered messages write nothing and concurrent writers agree.
    """
    times = "{0}.datetime, {0}.end_datetime, {0}.content, {0}.geometry"
    return f"""
        INSERT INTO pgstac.{_quoted(leaf)} AS t (id, geometry, collection, datetime, end_datetime, content, private)
        SELECT u.id, u.geometry, $1, u.datetime, u.end_datetime, u.content, u.private
        FROM unnest($2::text[], $3::geometry[], $4::timestamptz[], $5::timestamptz[], $6::jsonb[], $7::jsonb[])
            AS u (id, geometry, datetime, end_datetime, content, private)
        ON CONFLICT (id) DO UPDATE SET
            geometry = EXCLUDED.geometry, datetime = EXCLUDED.datetime, end_datetime = EXCLUDED.end_datetime,
            content = EXCLUDED.content, private = {_MERGED_PRIVATE}
        WHERE (({_MINE}, {times.format("t")}) >= ({_NEW}, {times.format("EXCLUDED")})) IS NOT TRUE
        RETURNING t.id
    """  # noqa: S608 - a quoted name


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
