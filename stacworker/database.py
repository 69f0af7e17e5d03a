"""Connections to Postgres, from whatever source of credentials.

Nothing outlives a transaction: settings are SET LOCAL, locks are transaction locks. So a connection needs no
reset between two users, and PgBouncer in transaction mode works (with `transaction_pooler`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import orjson

from stacworker.errors import ConfigError, Transient, Unavailable
from stacworker.postgres_errors import translated
from stacworker.postgres_tls import tls_trouble

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy


__all__ = ["ConnectArgs", "Connection", "Credentials", "Database", "iam_credentials"]

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

_CLOSE_TIMEOUT_S = 5.0
# A character of a password that belongs to the syntax would otherwise make a part of it a host, a port or a database,
# and those stand in errors.
_DSN = re.compile(r"\s*postgres(?:ql)?://(?:[^@/?#]*@)?[^@/?#]*(?:/[^@?#]*)?(?:\?[^@#]*)?", re.IGNORECASE)
_PING = """
    DO $$ BEGIN
        IF current_setting('transaction_read_only')::bool THEN
            RAISE read_only_sql_transaction USING MESSAGE = 'the database is read-only';
        END IF;
    END $$
"""


@dataclass(frozen=True, slots=True)
class ConnectArgs:
    """How to connect; what is None comes from `dsn`, else from the PG* variables, else is the default.

    `ssl` is one of libpq's sslmode words. Raises `ConfigError` for a DSN that is no URL, or not percent-encoded.
    """

    dsn: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    ssl: str | None = None

    def __post_init__(self) -> None:
        if self.dsn is not None and not _DSN.fullmatch(self.dsn):
            raise _bad_dsn()

    @classmethod
    def from_secret(cls, text: str) -> ConnectArgs:
        """Read a Secrets Manager secret: `{username, password, host, port, dbname}`.

        Raises `ConfigError` that names what is missing, never what is there.
        """
        try:
            secret = orjson.loads(text)
        except orjson.JSONDecodeError:
            secret = None
        if not isinstance(secret, dict):
            raise ConfigError("database.secret_arn: the secret is no JSON object with username, password, host, dbname")
        missing = [name for name in ("username", "password", "host", "dbname") if not secret.get(name)]
        if missing:
            raise ConfigError(f"database.secret_arn: the secret has no {', '.join(missing)}")
        try:
            port = int(secret.get("port") or 5432)
        except (TypeError, ValueError):
            raise ConfigError("database.secret_arn: the secret's port is no number") from None
        return cls(
            host=str(secret["host"]),
            port=port,
            user=str(secret["username"]),
            password=str(secret["password"]),
            database=str(secret["dbname"]),
        )


Credentials = Callable[[], Awaitable[ConnectArgs]]
"""Called for every new connection, so that rotated passwords and short-lived tokens are always fresh."""


def iam_credentials(
    args: ConnectArgs, sign: Callable[[str, int, str], Awaitable[str]], environ: Mapping[str, str]
) -> Credentials:
    """Return credentials whose password is a token that `sign(host, port, user)` makes for each connection.

    For RDS, `sign` is the RDS client's `generate_db_auth_token`. TLS is required, or whatever else `args` or
    PGSSLMODE in `environ` ask for. Raises `ConfigError` when host or user are left open.
    """
    try:
        url = urlsplit(args.dsn or "")
        host = args.host or unquote(url.hostname or "") or environ.get("PGHOST")
        user = args.user or unquote(url.username or "") or environ.get("PGUSER")
        port = args.port or url.port or int(environ.get("PGPORT", "5432"))
    except ValueError:
        raise _bad_dsn() from None
    if not host or not user:
        raise ConfigError("database.iam_auth needs a host and a user: give them in database.dsn, or PGHOST and PGUSER")
    asked_for = args.ssl or "sslmode" in parse_qs(url.query) or environ.get("PGSSLMODE")

    async def credentials() -> ConnectArgs:
        token = await sign(host, port, user)
        return replace(args, password=token, ssl=args.ssl if asked_for else "require")

    return credentials


class Database:
    """A pool of connections to one database; an async context manager that connects only when needed.

    `source` is a DSN, `ConnectArgs`, a callable that makes them, or None for the PG* variables. One of
    `max_connections` is kept free for `ping`, so that long loads do not make the database look away.
    `command_timeout_s` bounds every statement from this side, in case the server never answers.
    """

    def __init__(
        self,
        source: str | ConnectArgs | Credentials | None = None,
        *,
        max_connections: int = 8,
        transaction_pooler: bool = False,
        connect_timeout_s: float = 10.0,
        command_timeout_s: float = 90.0,
        application_name: str = "stacworker",
    ) -> None:
        self._source = source
        self._options: dict[str, Any] = {
            "timeout": connect_timeout_s,
            "command_timeout": command_timeout_s,
            "server_settings": {"application_name": application_name},
            **({"statement_cache_size": 0} if transaction_pooler else {}),
        }
        self.max_connections = max_connections
        self._working = asyncio.Semaphore(max(1, max_connections - 1))
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def __aenter__(self) -> Self:
        self._pool = await asyncpg.create_pool(
            min_size=0, max_size=self.max_connections, connect=self._connect, init=_set_codecs, reset=_keep
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool, self._pool = self._opened, None
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def open(self) -> None:
        """Connect once, to learn early whether that works; raises `Unavailable` or `ConfigError`."""
        await self.ping()

    async def ping(self, timeout_s: float = 5.0) -> None:
        """Raise `Unavailable` when the database does not answer in time, or takes no writes (a standby)."""
        with translated("asking the database for a sign of life"):
            async with asyncio.timeout(timeout_s), self._acquire() as connection:
                await connection.execute(_PING)

    @asynccontextmanager
    async def transaction(
        self, doing: str, *, settings: Mapping[str, str] | None = None, first: str = ""
    ) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction that commits when the block ends, and rolls back when it raises.

        `settings` are SET LOCAL; `first` is a statement without parameters that is sent along with them, to
        save a round trip. Errors of the database come out translated; `doing` begins their text.
        A cancelled statement costs the connection, which is never used again. Do not nest: a second
        transaction inside a first may wait for the first's connection.
        """
        begin = ["BEGIN", *(f"SET LOCAL {name} = {value}" for name, value in (settings or {}).items()), first]
        with translated(doing):
            async with self._working, self._acquire() as connection:
                try:
                    await connection.execute("; ".join(begin))
                    yield connection
                    done = await connection.execute("COMMIT")
                except BaseException as error:
                    if _is_usable(connection, error):
                        await connection.execute("ROLLBACK")
                    raise
                if done != "COMMIT":
                    # The server rolls back a transaction that failed, and calls that a success.
                    raise Transient(f"{doing}: the transaction had failed before its end", error_class="rolled_back")

    @asynccontextmanager
    async def _acquire(self) -> AsyncIterator[Connection]:
        pool = self._opened
        connection = await pool.acquire()
        try:
            yield connection
        except BaseException as error:
            if not _is_usable(connection, error):
                # A connection that broke has left the pool already, and says so.
                with suppress(asyncpg.InterfaceError):
                    connection.terminate()
            raise
        finally:
            await pool.release(connection)

    @property
    def _opened(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._pool is None:
            raise RuntimeError("the database is used outside its context")
        return self._pool

    async def _connect(self, *_: Any, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        source = await self._source() if callable(self._source) else self._source
        args = ConnectArgs(dsn=source) if isinstance(source, str) else source or ConnectArgs()
        given = {each.name: getattr(args, each.name) for each in fields(args)}
        try:
            return await asyncpg.connect(
                **options, **self._options, **{name: value for name, value in given.items() if value is not None}
            )
        except (ValueError, OSError) as error:
            if (trouble := tls_trouble(error, args.dsn)) is not None:
                raise trouble from None
            if isinstance(error, OSError):
                raise
            # asyncpg's words may quote a part of the password.
            raise _bad_dsn() from None


def _bad_dsn() -> ConfigError:
    return ConfigError(
        "database.dsn cannot be read: give postgresql://user:password@host:5432/database, "
        "with special characters percent-encoded"
    )


async def _set_codecs(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Send and receive PostGIS' geometry as EWKB, wherever the extension lives."""
    # In a transaction, or a pooler might prepare a statement on one server and execute it on another.
    async with connection.transaction():
        schema = await connection.fetchval(
            "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
            "WHERE e.extname = 'postgis'"
        )
        if schema is not None:
            await connection.set_type_codec("geometry", schema=schema, encoder=bytes, decoder=bytes, format="binary")


async def _keep(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Reset nothing: see the module's docstring."""


def _is_usable(connection: Connection, error: BaseException) -> bool:
    """Say whether a connection can be used after an error: not when it was cancelled, timed out or closed."""
    broken = (Unavailable, TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    if not isinstance(error, Exception) or isinstance(error, broken):
        return False
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False
