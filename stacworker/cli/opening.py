"""The parts of the daemon that commands use, opened for the time of one command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from stacworker import log
from stacworker.aws import Aws
from stacworker.database import ConnectArgs, Database
from stacworker.lifecycle import Lifecycle
from stacworker.load.pgstac import Catalogue
from stacworker.metrics import Metrics
from stacworker.ops.check_queues import Clients
from stacworker.parts import Parts
from stacworker.settings import Settings

_CONNECTIONS = 2
_Result = TypeVar("_Result")


@dataclass(slots=True)
class CommandParts(Parts):
    """The daemon's parts, but nothing is waited for: a command says at once what does not answer."""

    async def clients(self) -> Clients:
        """Return clients for everything that queues and outputs need."""
        return Clients(**{service: await self._client(service) for service in ("sqs", "sns", "s3")})

    async def database(self) -> Database:
        """Return the database of the settings, not yet connected."""
        settings = self.settings.database
        return await self.stack.enter_async_context(
            Database(
                await self._credentials(),
                max_connections=_CONNECTIONS,
                transaction_pooler=settings.transaction_pooler,
            )
        )

    async def catalogue(self, database: Database) -> Catalogue:
        """Return the catalogue in a database; raise ConfigError when we cannot load into it."""
        return await self.stack.enter_async_context(Catalogue(database=database, metrics=self.metrics))

    async def libpq_arguments(self) -> dict[str, Any]:
        """Return how to connect to the database, as psycopg's keyword arguments."""
        source = await self._credentials()
        if callable(source):
            source = await source()
        args = ConnectArgs(dsn=source) if isinstance(source, str) else source
        named = {
            "conninfo": args.dsn,
            "host": args.host,
            "port": args.port,
            "user": args.user,
            "password": args.password,
            "dbname": args.database,
            "sslmode": args.ssl,
        }
        return {name: value for name, value in named.items() if value is not None}

    async def reach(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Call once."""
        return await call()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[CommandParts]:
    """Lend the parts; what was opened is closed at the end."""
    log.configure("warning", settings.log.format)
    async with AsyncExitStack() as stack:
        aws = Aws(endpoint_url=settings.aws.endpoint_url, region=settings.aws.region)
        yield CommandParts(settings, Lifecycle(drain_timeout_s=0), Metrics(), stack, aws)
