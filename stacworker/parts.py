"""Building the parts that settings name: each opened once, on the exit stack that ends them in order."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError

from stacworker import __version__, plugins
from stacworker.api import Consumer, Sink
from stacworker.aws import NO_ACCESS, Aws, translated
from stacworker.consume.deadletter import DeadLetters
from stacworker.consume.engine import Engine, Limits
from stacworker.consume.memory import MemoryQueue, RefusalLog
from stacworker.consume.outcome import unexpected
from stacworker.consume.queue import DeadLetterBox
from stacworker.consume.sqs import QueueInfo, SqsQueue
from stacworker.database import ConnectArgs, Credentials, Database, iam_credentials
from stacworker.envelope.objects import S3Objects
from stacworker.envelope.reader import Reader
from stacworker.errors import ConfigError, Permanent, StacworkerError, Unavailable
from stacworker.generate.consumer import GenerateConsumer
from stacworker.generate.copies import AssetCopies
from stacworker.generators import AnyGenerator, Generators, ObjectStore
from stacworker.lifecycle import Lifecycle
from stacworker.load.batcher import Batcher
from stacworker.load.consumer import LoadConsumer
from stacworker.load.pgstac import Catalogue
from stacworker.load.publish import Bucket, NdjsonSink, Overflow, S3Sink, SnsSink, SqsSink
from stacworker.load.sink import PgstacSink
from stacworker.metrics import Metrics
from stacworker.postgres_tls import ERROR_CLASS as TLS
from stacworker.settings import MEMORY, ConsumerSettings, Settings

_log = structlog.get_logger()
_Result = TypeVar("_Result")

START_TIMEOUT_S = 60.0
"""A dependency that is away at start is waited for this long."""
_POLL_MARGIN_S = 10.0
"""How much later than it should a long poll may return, before its connection is taken for dead."""


@dataclass(slots=True)
class Parts:
    """Makes engines; opens what they share once, and only when one of them needs it."""

    settings: Settings
    lifecycle: Lifecycle
    metrics: Metrics
    stack: AsyncExitStack
    aws: Aws
    opened: dict[str, Any] = field(default_factory=dict)
    generators: Generators = field(init=False)

    def __post_init__(self) -> None:
        self.generators = Generators(
            self.settings.generators,
            self.settings.environments,
            self.stack,
            self.lifecycle,
            self.metrics,
            ObjectStore(lambda: self._client("s3"), self.settings.fetch.allowed_buckets),
        )

    async def engine(self, settings: ConsumerSettings) -> Engine:
        """Check what one consumer's settings name, and return its engine."""
        queue = await self._queue(settings.queue_url)
        try:
            info = await self.reach(queue.describe)
        except Permanent as error:
            raise ConfigError(f"consumers[{settings.name}].queue_url: {error.reason}") from error
        return Engine(
            name=settings.name,
            queue=queue,
            consumer=await self._consumer(settings),
            dead_letters=await self._dead_letters(settings, info),
            limits=Limits(
                max_in_flight=settings.max_in_flight,
                max_in_flight_bytes=settings.max_in_flight_bytes,
                visibility_timeout_s=settings.visibility_timeout_s,
                max_receive_count=info.max_receive_count or settings.max_receive_count,
                max_pollers=settings.max_pollers,
                wait_time_s=settings.wait_time_s,
                backoff_base_s=settings.backoff_base_s,
                backoff_max_s=settings.backoff_max_s,
                at_once=self._at_once(settings),
            ),
            fifo=info.fifo,
            lifecycle=self.lifecycle,
            metrics=self.metrics,
        )

    def memory_queue(self, url: str) -> MemoryQueue:
        """Return the queue in memory of this address."""
        found: MemoryQueue = self.opened.setdefault(url, MemoryQueue(url))
        return found

    async def _queue(self, url: str) -> SqsQueue | MemoryQueue:
        if url.startswith(MEMORY):
            return self.memory_queue(url)
        return SqsQueue(await self._client("sqs"), url, _queue_name(url))

    async def _once(self, name: str, open_: Callable[[], Awaitable[_Result]]) -> _Result:
        if name not in self.opened:
            self.opened[name] = await open_()
        found: _Result = self.opened[name]
        return found

    async def reach(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Call until what is called answers; gives up after START_TIMEOUT_S."""
        deadline = time.monotonic() + START_TIMEOUT_S
        pause_s = 0.5
        while True:
            try:
                return await call()
            except Unavailable as error:
                if time.monotonic() > deadline or error.error_class in (*NO_ACCESS, TLS):
                    raise
                _log.warning("start.waiting", dependency=error.dependency, error=error.reason)
            await asyncio.sleep(pause_s)
            pause_s = min(5.0, pause_s * 2)

    async def _client(self, service: str) -> Any:
        consumers = [each for each in self.settings.consumers if not each.queue_url.startswith(MEMORY)]
        options: dict[str, Any] = {}
        if service == "sqs":  # each consumer's pollers, deletes, visibility changes, leases and dead letters
            options["max_connections"] = sum(consumer.max_pollers + 32 for consumer in consumers)
            longest_poll_s = max((consumer.wait_time_s for consumer in consumers), default=0)
            options["read_timeout_s"] = longest_poll_s + _POLL_MARGIN_S
        elif service == "s3":
            options["max_connections"] = self.settings.fetch.max_concurrency + 8

        def open_() -> Awaitable[Any]:
            return self.stack.enter_async_context(self.aws.client(service, **options))

        return await self._once(service, lambda: self.reach(open_))

    async def _dead_letters(self, settings: ConsumerSettings, info: QueueInfo) -> DeadLetterBox | None:
        url = settings.dead_letter_queue_url
        if url is None and settings.queue_url.startswith(MEMORY):
            return RefusalLog(settings.name)
        client = await self._client("sqs")
        if url is None and info.dead_letter_arn is not None:
            arn = info.dead_letter_arn
            try:
                url = await self.reach(lambda: SqsQueue(client, "", "").url_of(arn))
            except Permanent as error:
                where = f"consumers[{settings.name}].queue_url: its redrive policy names {arn}"
                raise ConfigError(f"{where}, which is not there: {error.reason}") from error
        if url is None:
            _log.warning(
                "queue.no_dead_letter_queue",
                consumer=settings.name,
                advice="bad messages stay in the queue: give it a redrive policy, or set dead_letter_queue_url",
            )
            return None
        return DeadLetters(
            SqsQueue(client, url, _queue_name(url)),
            consumer=settings.name,
            source_queue=settings.queue_url,
            fifo=url.endswith(".fifo"),
            now=time.time,
        )

    # -- consumers -----------------------------------------------------------------------------------

    async def _consumer(self, settings: ConsumerSettings) -> Consumer:
        kind = plugins.resolve("consumers", settings.type)
        if kind is LoadConsumer:
            return LoadConsumer(reader=await self._reader(), sink=await self._pgstac(), deletes=settings.deletes)
        if kind is GenerateConsumer:
            return await self._generate_consumer(settings)
        return await self._own_consumer(kind, settings)

    async def _own_consumer(self, kind: Any, settings: ConsumerSettings) -> Consumer:
        """Make a consumer of the user's class.

        Its constructor is given what it names: `options` (its `Options` model, or the plain mapping),
        `reader` (envelope.reader.Reader) and `sink` (the pgstac `api.Sink`).
        """
        where = f"consumers[{settings.name}]"
        if not callable(kind):
            raise ConfigError(f"{where}.type: {settings.type!r} is no class")
        wanted = inspect.signature(kind).parameters
        arguments: dict[str, Any] = {}
        if settings.options and "options" not in wanted:
            raise ConfigError(f"{where}.options: {settings.type!r} takes none")
        if "reader" in wanted:
            arguments["reader"] = await self._reader()
        if "sink" in wanted:
            arguments["sink"] = await self._pgstac()
        with _making(where, settings.type):
            if "options" in wanted:
                arguments["options"] = getattr(kind, "Options", dict)(**settings.options)
            made = kind(**arguments)
        if not isinstance(made, Consumer):
            raise ConfigError(f"{where}.type: {settings.type!r} has no handle(message) and ping()")
        if isinstance(made, AbstractAsyncContextManager):
            await self.stack.enter_async_context(made)
        return made

    async def _reader(self) -> Reader:
        async def open_() -> Reader:
            fetch = self.settings.fetch
            return Reader(
                S3Objects(
                    await self._client("s3"),
                    self.metrics,
                    max_concurrency=fetch.max_concurrency,
                    max_object_bytes=fetch.max_object_bytes,
                    timeout_s=fetch.timeout_s,
                    allowed_buckets=fetch.allowed_buckets,
                )
            )

        return await self._once("reader", open_)

    async def _generate_consumer(self, settings: ConsumerSettings) -> GenerateConsumer:
        names = self._generator_names(settings)
        await self.generators.start(names)
        generators = {name: self.generators.get(name) for name in names}
        default = settings.generator
        if default is None and len(generators) == 1:
            default = next(iter(generators))
        return GenerateConsumer(
            reader=await self._reader(),
            generators=generators,
            packages=_packages(generators),
            default=default,
            collection=settings.collection,
            any_object=settings.any_object,
            copies=await self._copies(settings),
            sink=await self._output(settings),
            metrics=self.metrics,
        )

    def _generator_names(self, settings: ConsumerSettings) -> tuple[str, ...]:
        return tuple(self.settings.generators) if settings.generators is None else settings.generators

    async def _copies(self, settings: ConsumerSettings) -> AssetCopies | None:
        if settings.copy_assets is None:
            return None
        buckets = self.settings.fetch.allowed_buckets
        copies = AssetCopies(settings.copy_assets, await self._client("s3"), allowed_buckets=buckets)
        return await self.stack.enter_async_context(copies)

    def _at_once(self, settings: ConsumerSettings) -> int | None:
        """Return how many requests of a consumer can be worked on at a time; None where nobody can tell."""
        if plugins.resolve("consumers", settings.type) is not GenerateConsumer:
            return None
        return self.generators.at_once(self._generator_names(settings))

    # -- sinks ---------------------------------------------------------------------------------------

    async def _output(self, settings: ConsumerSettings) -> Sink:
        if settings.output == "load":
            return await self._pgstac()
        scheme, _, target = settings.output.partition(":")
        client = await self._client(scheme)
        if scheme == "s3":
            bucket = Bucket.at(client, settings.output)
            if settings.output_format == "item":
                return S3Sink(bucket)
            return await self.stack.enter_async_context(NdjsonSink(bucket))
        place = settings.output_overflow
        overflow = Overflow(Bucket.at(await self._client("s3"), place)) if place else None
        if scheme == "sns":
            return await self.stack.enter_async_context(SnsSink(client, target, overflow=overflow))
        sink = await self.stack.enter_async_context(SqsSink(client, target, overflow=overflow))
        try:
            await self.reach(sink.measure)
        except Permanent as error:
            raise ConfigError(f"consumers[{settings.name}].output: {error.reason}") from error
        return sink

    async def _pgstac(self) -> PgstacSink:
        return await self._once("pgstac", self._open_pgstac)

    async def _open_pgstac(self) -> PgstacSink:
        catalogue = await self.shared_catalogue()
        self.metrics.build_info.clear()
        self.metrics.build_info.labels(__version__, installed_version("pypgstac"), catalogue.version).set(1)
        settings_for = self.settings.collection
        batcher = await self.stack.enter_async_context(Batcher(catalogue, settings_for, self.metrics))
        return PgstacSink(catalogue, batcher, settings_for, self.metrics)

    async def shared_catalogue(self) -> Catalogue:
        """Return the catalogue that all consumers load into, connected."""
        return await self._once("catalogue", self._catalogue)

    async def _catalogue(self) -> Catalogue:
        settings = self.settings.database
        database = Database(
            await self._credentials(),
            max_connections=settings.max_connections,
            transaction_pooler=settings.transaction_pooler,
            command_timeout_s=settings.statement_timeout_s + 30,
        )
        await self.stack.enter_async_context(database)
        try:
            await self.reach(database.open)
        except Unavailable as error:
            if error.error_class != TLS:
                raise
            raise ConfigError(f"database: {error.reason}") from error
        catalogue = Catalogue(
            database=database,
            metrics=self.metrics,
            statement_timeout_s=settings.statement_timeout_s,
            lock_timeout_s=settings.lock_timeout_s,
        )
        return await self.stack.enter_async_context(catalogue)

    async def _credentials(self) -> str | ConnectArgs | Credentials:
        settings = self.settings.database
        if settings.secret_arn is not None:
            return secret_credentials(await self._client("secretsmanager"), settings.secret_arn)
        args = ConnectArgs(dsn=settings.dsn.get_secret_value() if settings.dsn else None)
        if not settings.iam_auth:
            return args
        rds = await self._client("rds")

        async def sign(host: str, port: int, user: str) -> str:
            with translated("database", "signing an RDS token"):
                token: str = await rds.generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user)
            return token

        return iam_credentials(args, sign, os.environ)


@contextmanager
def _making(where: str, kind: str) -> Iterator[None]:
    """Turn whatever a user's class raises while it is made into a ConfigError."""
    try:
        yield
    except StacworkerError:
        raise
    except ValidationError as error:
        # Its own text, also in a traceback, shows the values; options may hold secrets.
        problems = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]
        raise ConfigError(*(f"{where}.options: {key}: {text}" for key, text in problems)) from None
    except Exception as error:
        reason = " ".join(unexpected(error).reason.split())
        raise ConfigError(f"{where}: {kind!r} cannot be made: {reason}") from error


def secret_credentials(secretsmanager: Any, arn: str) -> Credentials:
    """Return credentials that are read from a secret for each new connection, so that rotation needs no restart.

    A secret that is missing or wrong raises `ConfigError`; once it has been good it raises `Unavailable`, because
    the items at hand are not to blame.
    """
    was_good = False

    async def read() -> ConnectArgs:
        nonlocal was_good
        try:
            with translated("secretsmanager", f"reading the database's secret {arn}"):
                answer = await secretsmanager.get_secret_value(SecretId=arn)
            args = ConnectArgs.from_secret(answer.get("SecretString", ""))
        except (Permanent, ConfigError) as error:
            if was_good:
                raise Unavailable(error.reason, dependency="database", error_class="secret") from error
            raise ConfigError(f"database.secret_arn: {error.reason.removeprefix('database.secret_arn: ')}") from error
        was_good = True
        return args

    return read


def _packages(generators: Mapping[str, AnyGenerator]) -> dict[str, str]:
    """Return which generator makes the items of which package."""
    found: dict[str, str] = {}
    for name, generator in generators.items():
        for package in getattr(generator, "packages", ()):
            if package in found:
                raise ConfigError(f"generators: package {package!r} is in both {found[package]!r} and {name!r}")
            found[package] = name
    return found


def _queue_name(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[-1]
