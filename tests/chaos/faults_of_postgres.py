"""A database that dies, hangs, refuses, or is kept busy by others."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import asyncpg

from stacworker.load.pgstac.slots import slot_keys
from tests.chaos.fault import MANY_TRIES, Fault
from tests.chaos.round import Round
from tests.chaos.workload import COLLECTIONS
from tests.chaos.world import ROLE

_TERMINATE = f"""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE usename = '{ROLE}' AND datname = current_database()
"""
_TRAP = """
CREATE FUNCTION public.chaos() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF random() < 0.002 THEN
    PERFORM nextval('public.chaos_strikes');
    RAISE EXCEPTION 'injected' USING ERRCODE = TG_ARGV[0];
  END IF;
  RETURN NEW;
END $$;
CREATE SEQUENCE public.chaos_strikes;
GRANT ALL ON SEQUENCE public.chaos_strikes TO PUBLIC;
"""


async def _crash(round_: Round) -> int:
    crashes = 0
    end = time.monotonic() + round_.seconds
    while time.monotonic() < end:
        await asyncio.sleep(round_.random.uniform(0.3, 1.2))
        round_.world.postgres.crash()
        crashes += 1
        await asyncio.to_thread(round_.world.postgres.restart)
    return crashes


async def _away(round_: Round) -> int:
    await asyncio.sleep(1.0)
    round_.world.postgres.crash()
    try:
        await asyncio.sleep(round_.seconds)
    finally:
        await asyncio.to_thread(round_.world.postgres.restart)
    return 1


async def _terminated(round_: Round) -> int:
    return await _repeat(round_, 0.15, lambda: _as_superuser(round_, _TERMINATE))


async def _cut(round_: Round) -> int:
    async def cut() -> int:
        return round_.proxy.cut()

    return await _repeat(round_, 0.25, cut)


def _cut_on_commit(*, forward_first: bool) -> Callable[[Round], Awaitable[int]]:
    async def inject(round_: Round) -> int:
        round_.proxy.cut_on(b"COMMIT", forward_first=forward_first, times=15)
        await asyncio.sleep(round_.seconds)
        return round_.proxy.injected["cut_after" if forward_first else "cut_before"]

    return inject


async def _frozen(round_: Round) -> int:
    await asyncio.sleep(1.0)
    round_.proxy.freeze()
    await asyncio.sleep(round_.seconds / 2)
    round_.proxy.cut()
    round_.proxy.pass_()
    return round_.proxy.injected["frozen"]


async def _slow(round_: Round) -> int:
    round_.proxy.slow(0.03)
    await asyncio.sleep(round_.seconds)
    return round_.proxy.injected["slowed"]


async def _locks_held(round_: Round) -> int:
    """Lock collections' tables and rows for longer than the workers wait."""

    async def hold() -> int:
        collection = round_.random.choice(list(COLLECTIONS))
        connection = await asyncpg.connect(round_.world.postgres.dsn(round_.database))
        try:
            async with connection.transaction():
                key = await connection.fetchval("SELECT key FROM pgstac.collections WHERE id = $1", collection)
                if await connection.fetchval("SELECT to_regclass('pgstac._items_' || $1) IS NULL", str(key)):
                    await connection.execute("SELECT 1 FROM pgstac.collections WHERE id = $1 FOR UPDATE", collection)
                else:
                    await connection.execute(f"LOCK TABLE pgstac._items_{key} IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(2.0)
        finally:
            await connection.close()
        return 1

    return await _repeat(round_, 0.3, hold)


async def _slots_taken(round_: Round) -> int:
    """Take all places that a collection has for loads, as other replicas would."""

    async def take() -> int:
        collection = round_.random.choice(list(COLLECTIONS))
        connection = await asyncpg.connect(round_.world.postgres.dsn(round_.database))
        try:
            async with connection.transaction():
                for key in slot_keys(collection, _SLOTS):
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", key)
                await asyncio.sleep(2.0)
        finally:
            await connection.close()
        return 1

    return await _repeat(round_, 0.3, take)


async def _rivals(round_: Round) -> int:
    """Write the same rows in another order, slowly: real deadlocks."""

    async def rival() -> int:
        connection = await asyncpg.connect(round_.world.postgres.dsn(round_.database))
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL deadlock_timeout = '20ms'")
                rows = await connection.fetch("SELECT id FROM pgstac.items ORDER BY random() LIMIT 30")
                for row in sorted((row["id"] for row in rows), reverse=True):
                    await connection.execute("UPDATE pgstac.items SET content = content WHERE id = $1", row)
        finally:
            await connection.close()
        return 0

    await asyncio.gather(*(_repeat(round_, 0.05, rival) for _ in range(3)))
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    await asyncio.sleep(1.0)  # statistics come late
    return await _as_superuser(round_, query)


def _error(sqlstate: str) -> Callable[[Round], Awaitable[int]]:
    """Let the server answer some writes with an error, as it would when it met the real thing."""

    async def inject(round_: Round) -> int:
        await round_.world.execute(round_.database, _TRAP)
        await _insist(
            round_,
            "CREATE TRIGGER chaos BEFORE INSERT OR UPDATE ON pgstac.items "
            f"FOR EACH ROW EXECUTE FUNCTION public.chaos('{sqlstate}')",
        )
        await asyncio.sleep(round_.seconds)
        await _insist(round_, "DROP TRIGGER chaos ON pgstac.items")
        return await _as_superuser(
            round_, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.chaos_strikes"
        )

    return inject


async def _read_only(round_: Round) -> int:
    """Fail over to a server that only reads."""
    await asyncio.sleep(1.0)
    await _set_read_only(round_, "on")
    try:
        await asyncio.sleep(round_.seconds)
    finally:
        await _set_read_only(round_, "off")
    return 1


async def _set_read_only(round_: Round, value: str) -> None:
    await round_.world.execute("postgres", f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    await round_.world.execute("postgres", "SELECT pg_reload_conf()")
    await _as_superuser(round_, _TERMINATE)


async def _too_many_connections(round_: Round) -> int:
    await asyncio.sleep(1.0)
    await round_.world.execute("postgres", f"ALTER ROLE {ROLE} CONNECTION LIMIT 1")
    try:
        await _as_superuser(round_, _TERMINATE)
        await asyncio.sleep(round_.seconds)
    finally:
        await round_.world.execute("postgres", f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
    return 1


async def _maintenance(round_: Round) -> int:
    """Tighten the partitions' constraints behind the workers' backs, as pgstac's maintenance may."""

    async def tighten() -> int:
        return await _as_superuser(
            round_,
            "SET search_path TO pgstac, public; SET lock_timeout = '300ms'; "
            "SELECT count(update_partition_stats(partition)) FROM partition_sys_meta",
        )

    return await _repeat(round_, 0.4, tighten)


async def _collections_change(round_: Round) -> int:
    async def change() -> int:
        title = json.dumps({"title": f"Title {round_.random.random()}"})
        statement = f"UPDATE pgstac.collections SET content = content || '{title}'"
        await round_.world.execute(round_.database, f"SET lock_timeout = '300ms'; {statement}")
        return len(COLLECTIONS)

    return await _repeat(round_, 0.3, change)


async def _repeat(round_: Round, pause_s: float, do: Callable[[], Awaitable[int]]) -> int:
    """Do something for as long as faults last; return how often it succeeded."""
    done = 0
    end = time.monotonic() + round_.seconds
    while time.monotonic() < end:
        with suppress(asyncpg.PostgresError, OSError, _LOST):
            done += await do()
        await asyncio.sleep(pause_s)
    return done


async def _as_superuser(round_: Round, query: str) -> int:
    """Run statements; return the number that the last one answers."""
    connection = await asyncpg.connect(round_.world.postgres.dsn(round_.database))
    try:
        *before, last = query.split("; ")
        for statement in before:
            await connection.execute(statement)
        return int(await connection.fetchval(last) or 0)
    finally:
        await connection.close()


async def _insist(round_: Round, statement: str) -> None:
    """Run DDL that must not wait long for its lock, until it gets it."""
    while True:
        connection = await asyncpg.connect(round_.world.postgres.dsn(round_.database))
        try:
            await connection.execute("SET lock_timeout = '500ms'")
            await connection.execute(statement)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(0.05)
        else:
            return
        finally:
            await connection.close()


_LOST = asyncpg.InterfaceError
_SLOTS = 2

_FAULTS = (
    Fault("Postgres killed and restarted", _crash, server_wide=True),
    Fault("Postgres away", _away, server_wide=True),
    Fault("failover to read-only", _read_only, server_wide=True),
    Fault("too many connections", _too_many_connections, server_wide=True),
    Fault("backends terminated", _terminated),
    Fault("connections cut mid-transaction", _cut),
    Fault("COMMIT never arrives", _cut_on_commit(forward_first=False)),
    Fault("COMMIT's answer lost", _cut_on_commit(forward_first=True)),
    Fault("connections half-open", _frozen),
    Fault("network to Postgres slow", _slow),
    Fault("locks held (lock_timeout)", _locks_held),
    Fault("all slots of a collection taken", _slots_taken),
    Fault("deadlocks with rivals", _rivals),
    Fault("deadlock error 40P01", _error("40P01")),
    Fault("serialization failure 40001", _error("40001")),
    Fault("disk full 53100", _error("53100")),
    Fault("out of memory 53200", _error("53200")),
    # Each costs its messages a try: it may be the statement's own fault, and the database is there.
    Fault("statement cancelled 57014", _error("57014"), tries=MANY_TRIES),
    Fault("constraints tightened", _maintenance),
    Fault("collections change", _collections_change),
)

FAULTS = tuple(replace(fault, clashes="postgres") for fault in _FAULTS)
"""All want the database as they know it."""
