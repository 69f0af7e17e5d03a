"""Settings: environment over one YAML file, checked as a whole before anything starts.

`STACWORKER_…` variables (nested with `__`) override the file that `--config` or `STACWORKER_CONFIG`
names. Unknown keys are errors. Only the composition root reads settings; everything below it gets
plain values.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

__all__ = [
    "AwsSettings",
    "CollectionSettings",
    "ConsumerSettings",
    "CopySettings",
    "DatabaseSettings",
    "DeletesSettings",
    "EnvironmentsSettings",
    "FetchSettings",
    "GeneratorSettings",
    "HttpSettings",
    "LimitsSettings",
    "LogSettings",
    "OutputSettings",
    "PipelinesSettings",
    "Settings",
    "TracingSettings",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("use letters, digits, '.', '_' and '-', at most 63 of them")
    return value


MEMORY = "memory:"
"""How the address of a queue in this process begins: what pipelines ask of themselves goes through one."""


def _check_queue_url(value: str) -> str:
    if not value.startswith(MEMORY) and not re.fullmatch(r"https?://[^\s/]+/\S+", value):
        raise ValueError("give the queue's URL, such as https://sqs.us-west-2.amazonaws.com/123456789012/items")
    return value


def _check_endpoint(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+\S*", value):
        raise ValueError("give a URL, such as http://localhost:4566")
    return value


def _check_region(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", value):
        raise ValueError("give a region's name, such as us-west-2")
    return value


def _check_output(value: str) -> str:
    if value == "load" or re.match(r"sns:arn:aws[\w-]*:sns:|sqs:https?://|s3://[^/]+", value):
        return value
    raise ValueError("allowed: load, sns:TOPIC_ARN, sqs:QUEUE_URL, s3://bucket/prefix/")


def _check_overflow(value: str) -> str:
    if re.fullmatch(r"s3://[^/\s]+/(?:\S*/)?", value):
        return value
    raise ValueError("give a bucket and perhaps a folder in it, such as s3://bucket/prefix/")


def _check_copies(value: str) -> str:
    if not re.fullmatch(r"s3://[A-Za-z0-9._-]{1,255}(/.*)?", value):
        raise ValueError("give s3://bucket/prefix/")
    return value


def _check_folder(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("give a folder's whole path, such as /data/granules")
    return value


Name = Annotated[str, AfterValidator(_check_name)]
QueueUrl = Annotated[str, AfterValidator(_check_queue_url)]
Output = Annotated[str, AfterValidator(_check_output)]
Bytes = Annotated[ByteSize, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class AwsSettings(_Section):
    """How AWS is reached. The standard AWS_* variables and credential chain work as well."""

    endpoint_url: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    """Another endpoint for every service, such as LocalStack's (also: AWS_ENDPOINT_URL)."""
    region: Annotated[str, AfterValidator(_check_region)] | None = None
    """Region (also: AWS_REGION, AWS_DEFAULT_REGION)."""


class DatabaseSettings(_Section):
    """The pgstac database: `dsn`, or `secret_arn`, or the standard PG* variables."""

    dsn: SecretStr | None = None
    """postgresql://user:password@host:5432/database; percent-encode special characters."""
    secret_arn: str | None = None
    """A Secrets Manager secret with username, password, host, port and dbname; read again on rotation."""
    iam_auth: bool = False
    """Log in to RDS with an IAM token instead of a password."""
    max_connections: Annotated[int, Field(ge=2, le=500)] = 8
    """Connections of this process, at most."""
    statement_timeout_s: Seconds = 60.0
    """A single load may take this long in the database."""
    lock_timeout_s: Seconds = 5.0
    """How long one try waits for a collection's lock before its connection is given back."""
    transaction_pooler: bool = False
    """Set behind PgBouncer in transaction mode: no prepared statements are kept."""

    @model_validator(mode="after")
    def _one_way_in(self) -> DatabaseSettings:
        if self.dsn is not None and self.secret_arn is not None:
            raise ValueError("give either dsn or secret_arn, not both")
        return self


class FetchSettings(_Section):
    """How the bodies of S3 objects are fetched."""

    max_concurrency: Annotated[int, Field(ge=1, le=1000)] = 64
    """Objects fetched at the same time, over all consumers."""
    max_object_bytes: Bytes = ByteSize(64_000_000)
    """An object larger than this (after decompression) is refused."""
    timeout_s: Seconds = 60.0
    """One object may take this long."""
    allowed_buckets: tuple[str, ...] = ("*",)
    """Buckets whose objects messages may name, with * and ? for any characters; else all that AWS lets us read."""


class DeletesSettings(_Section):
    """What to do with S3 ObjectRemoved events."""

    enabled: bool = False
    """False: such events are acknowledged and nothing is deleted."""
    key_pattern: str = r"(?:.*/)?(?P<collection>[^/]+)/(?P<id>[^/]+)\.(?:geo)?json"
    """A regular expression over the whole key, with the groups `collection` and `id`."""

    @model_validator(mode="after")
    def _has_groups(self) -> DeletesSettings:
        try:
            groups = re.compile(self.key_pattern).groupindex
        except re.error as error:
            raise ValueError(f"key_pattern is not a regular expression: {error}") from None
        if not {"collection", "id"} <= set(groups):
            raise ValueError("key_pattern needs the groups (?P<collection>…) and (?P<id>…)")
        return self


class _QueueSettings(_Section):
    """A queue and what reads it."""

    name: Name
    """Its name in logs and metrics."""
    type: str
    """load, generate, an entry point in stacworker.consumers, or module:Class."""
    queue_url: QueueUrl
    """The queue's URL."""


class LimitsSettings(_Section):
    """How much of a queue is held at a time, how long, and how often it is tried."""

    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """Messages held at the same time; of requests that wait for a generator only what it works off in five seconds."""
    max_in_flight_bytes: Bytes = ByteSize(256_000_000)
    """Bytes of message bodies held at the same time."""
    visibility_timeout_s: Annotated[float, Field(ge=2, le=43_200)] = 60.0
    """Lease on a message; extended for as long as the message is worked on."""
    max_receive_count: Annotated[int, Field(ge=1, le=1000)] = 5
    """Tries before a message is dead-lettered; used when the queue has no redrive policy."""
    dead_letter_queue_url: QueueUrl | None = None
    """Where dead letters go; default: the target of the queue's redrive policy."""
    max_pollers: Annotated[int, Field(ge=1, le=64)] = 8
    """Receives at the same time while the queue is busy; one while it is idle."""
    wait_time_s: Annotated[int, Field(ge=0, le=20)] = 20
    """How long one receive waits for a message."""
    backoff_base_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """First retry after up to this long; doubled with each receive."""
    backoff_max_s: Annotated[float, Field(ge=0, le=43_200)] = 900.0
    """No retry waits longer than this."""

    @model_validator(mode="after")
    def _backoff_grows(self) -> LimitsSettings:
        if self.backoff_base_s > self.backoff_max_s:
            raise ValueError("backoff_base_s is larger than backoff_max_s")
        return self


class CopySettings(_Section):
    """Copies of items' assets in a bucket of your own, there before the items are."""

    to: Annotated[str, AfterValidator(_check_copies)]
    """s3://bucket/prefix/; a copy is <prefix><collection>/<item's id>/<asset's name>/<digest>.<suffix>."""
    assets: tuple[str, ...] | None = None
    """The names of the assets to copy, with * and ? for any characters; default: all."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts from which http and https assets are fetched, with * and ? for any characters; none by default."""
    local_paths: tuple[Annotated[str, AfterValidator(_check_folder)], ...] = ()
    """Folders on this machine whose files items may name; none by default."""
    source_requester_pays: bool = False
    """We agree to pay for reading from buckets where the requester pays."""
    requester_pays: bool = False
    """The bucket of the copies is one where the requester pays."""
    checksum: Literal["sha256", "none"] = "sha256"
    """Have S3 check what arrives; none for stores that do not know checksums."""
    acl: str | None = None
    """A canned ACL for the copies."""
    storage_class: str | None = None
    """A storage class for the copies."""
    max_source_bytes: Bytes = ByteSize(10_000_000_000)
    """A larger asset is refused."""
    max_concurrency: Annotated[int, Field(ge=1, le=100)] = 4
    """Assets copied at the same time, each by way of a temporary file."""
    transfer_timeout_s: Seconds = 600.0
    """Fetching one asset may take this long, and so may uploading it."""


class OutputSettings(_Section):
    """Where generated items go."""

    output: Output = "load"
    """type generate: where items go: load (acked after COMMIT), sns:ARN, sqs:URL, s3://bucket/prefix/."""
    output_overflow: Annotated[str, AfterValidator(_check_overflow)] | None = None
    """type generate: s3://bucket/prefix/ for items larger than an sns: or sqs: output takes: the item goes there, and
    the message points to it, as those of Amazon's extended clients do; without it such an item is a dead letter."""
    output_format: Literal["item", "ndjson"] = "item"
    """type generate: what an s3:// output writes: item (one object an item), or ndjson (items that come within half
    a second in one object of their collection, one a line)."""

    copy_assets: CopySettings | None = None
    """type generate: copy assets before their items are published, and have the items name the copies."""

    def check_output_keys(self) -> None:
        """Raise ValueError where a key does not belong to the output."""
        if self.output_overflow and not self.output.startswith(("sns:", "sqs:")):
            raise ValueError(f"output_overflow belongs to an sns: or sqs: output, this output is {self.output}")
        if self.output_format != "item" and not self.output.startswith("s3:"):
            raise ValueError(f"output_format belongs to an s3:// output, this output is {self.output}")


class ConsumerSettings(OutputSettings, LimitsSettings, _QueueSettings):
    """One queue and what is done with its messages."""

    deletes: DeletesSettings = DeletesSettings()
    """type load: ObjectRemoved events."""
    generator: Name | None = None
    """type generate: the generator for requests that do not name a stactools package."""
    generators: tuple[Name, ...] | None = None
    """type generate: the generators that requests may use; default: all."""
    collection: Annotated[str, Field(min_length=1)] | None = None
    """type generate: the collection of all items, unless a request names another."""
    any_object: bool = False
    """type generate: a JSON object of a form that nobody knows is a request too, instead of a dead letter."""
    options: dict[str, Any] = Field(default_factory=dict)
    """type module:Class: passed to the class's Options model."""

    @model_validator(mode="after")
    def _keys_fit_type(self) -> ConsumerSettings:
        only_for = {
            "deletes": ("load",),
            **dict.fromkeys(
                (*OutputSettings.model_fields, "generator", "generators", "collection", "any_object"), ("generate",)
            ),
        }
        for key, types in only_for.items():
            if key in self.model_fields_set and self.type not in types and self.type in ("load", "generate"):
                raise ValueError(f"{key} belongs to type {' or '.join(types)}, this consumer has type {self.type}")
        if self.options and self.type in ("load", "generate"):
            raise ValueError(f"options are for classes of your own; type {self.type} takes none")
        self.check_output_keys()
        return self


Conflict = Literal["upsert", "ignore", "error"]


def _check_create_missing(value: object) -> object:
    if isinstance(value, str) and value.lower() in ("true", "false", "wait"):
        return {"true": True, "false": False}.get(value.lower(), "wait")
    if isinstance(value, bool):
        return value
    raise ValueError("allowed: false (dead-letter), true (create a minimal collection), wait (until it exists)")


CreateMissing = Annotated[bool | Literal["wait"], BeforeValidator(_check_create_missing)]


class CollectionSettings(_Section):
    """How one collection is loaded."""

    max_batch_items: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Items in one transaction."""
    max_batch_bytes: Bytes = ByteSize(16_000_000)
    """Bytes of item JSON in one transaction."""
    max_batch_wait_s: Annotated[float, Field(ge=0, le=300)] = 1.0
    """A batch that is not full goes after this long (sooner when nothing more can come)."""
    max_concurrency: Annotated[int, Field(ge=1, le=32)] = 1
    """Loads into this collection at the same time, over all replicas; one partitioned by time is always
    loaded one batch at a time, because an item may move between its partitions."""
    conflict: Conflict = "upsert"
    """An item whose id exists: upsert replaces it, ignore keeps it, error dead-letters the new one."""
    create_missing: CreateMissing = False
    """Items of a collection that does not exist: false dead-letters them, true creates a minimal
    collection, wait retries until the collection is there."""


class EnvironmentsSettings(_Section):
    """The Python environments that generators have of their own, made with uv."""

    folder: Annotated[str, AfterValidator(_check_folder)] | None = None
    """Where they are kept; default: stacworker/environments in the user's cache folder."""
    install_at_start: bool = True
    """Make at start what is missing; false: refuse to start without it (`stacworker pipelines install` makes it)."""


class PipelinesSettings(_Section):
    """Datasets as folders, each with a pipeline.yaml."""

    folder: str | None = None
    """The folder that holds them (also: `stacworker run --pipelines FOLDER`)."""
    only: tuple[Name, ...] | None = None
    """The ids of those to run; default: all."""
    on_broken: Literal["stop", "skip"] = "stop"
    """One that cannot run stops the start, or is reported and left out while the others run."""


class GeneratorSettings(_Section):
    """One generator: a Python function or a stactools package, in warm child processes."""

    type: str
    """stactools, raster, module:function for a function create_items(request), or module:Class."""
    packages: tuple[str, ...] = ()
    """type stactools: requirements that requests may name, such as stactools-naip==0.5.0."""
    command: str | None = None
    """type stactools: its command when it cannot be guessed, such as "naip create-item"."""
    local_paths: tuple[Annotated[str, AfterValidator(_check_folder)], ...] = ()
    """type stactools: folders on this machine whose files requests may name; none by default, only URLs."""
    timeout_s: Seconds = 120.0
    """A job that takes longer is killed and its request retried."""
    processes: Annotated[int, Field(ge=1, le=256)] = 2
    """Child processes, so jobs at the same time."""
    memory_mb: Annotated[int, Field(ge=64)] = 1024
    """Address space that a child may add to what it needs to start."""
    recycle_after: Annotated[int, Field(ge=1)] = 1000
    """Jobs after which a child is replaced."""
    idle_timeout_s: Seconds = 300.0
    """A child without a job for this long is ended; the next job starts another."""
    requirements: tuple[str, ...] = ()
    """What else has to be installed for it, such as affine<3."""
    requirements_file: str | None = None
    """A requirements.txt of what it needs; with hashes (`stacworker pipelines lock`) it is pinned as a whole."""
    environment: Literal["auto", "own", "shared"] = "auto"
    """own: a Python environment of its own, made once with uv; shared: stacworker's own; auto: shared where all
    it requires is installed there, else own."""
    path: tuple[str, ...] = ()
    """Folders in which the function's module and what it imports are looked for, before the working directory."""
    env: tuple[str, ...] = ()
    """Further environment variables that the children may see, by name; AWS_* ones only when named here."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for every call of the function."""

    @model_validator(mode="after")
    def _complete(self) -> GeneratorSettings:
        if self.type == "stactools" and not self.packages:
            raise ValueError('type stactools needs packages, such as ["stactools-naip==0.5.0"]')
        if self.type != "stactools" and (self.packages or self.command or self.local_paths):
            keys = "packages, command and local_paths"
            raise ValueError(f"{keys} belong to type stactools, this generator has type {self.type}")
        return self


class HttpSettings(_Section):
    """Health and metrics."""

    host: str = "0.0.0.0"  # noqa: S104 - a container's port
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port; 0 takes a free one and logs it."""
    enabled: bool = True
    """False: no port is opened."""


class EcsSettings(_Section):
    """Where the process is a task of an ECS service."""

    scale_in_protection: bool = False
    """Protect the task while it has a request in hand for longer than half of `drain_timeout_s`; needs
    `ecs:UpdateTaskProtection`."""


class TracingSettings(_Section):
    """OpenTelemetry traces; where they go, the standard OTEL_EXPORTER_OTLP_… variables say."""

    enabled: bool = False
    """Export spans; needs the extra `tracing`."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The part of the traces beginning here that is kept; what a producer began is kept if it says so."""


class LogSettings(_Section):
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level shown."""
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, json elsewhere."""


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="STACWORKER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    aws: AwsSettings = AwsSettings()
    """AWS."""
    database: DatabaseSettings = DatabaseSettings()
    """The pgstac database."""
    fetch: FetchSettings = FetchSettings()
    """Bodies of S3 objects."""
    consumers: tuple[ConsumerSettings, ...] = ()
    """The queues, and what is done with their messages."""
    collections: dict[str, CollectionSettings] = Field(default_factory=dict)
    """How collections are loaded; `default` is overlaid by a collection's own entry."""
    generators: dict[Name, GeneratorSettings] = Field(default_factory=dict)
    """What makes items from requests."""
    environments: EnvironmentsSettings = EnvironmentsSettings()
    """The environments of generators."""
    pipelines: PipelinesSettings = PipelinesSettings()
    """Datasets as folders."""
    http: HttpSettings = HttpSettings()
    """Health and metrics."""
    drain_timeout_s: Seconds = 60.0
    """After SIGTERM, messages in hand have this long; shorter than the grace period of what stops us."""
    log: LogSettings = LogSettings()
    """Logs."""
    tracing: TracingSettings = TracingSettings()
    """Traces."""
    ecs: EcsSettings = EcsSettings()
    """On ECS."""

    _yaml_file: ClassVar[Path | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over the YAML file; no .env file and no secrets directory."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=cls._yaml_file)

    @model_validator(mode="after")
    def _parts_fit(self) -> Settings:
        if problems := self.problems():
            raise ValueError("\n".join(problems))
        return self

    def problems(self) -> list[str]:
        """Return what does not go together, a line each."""
        return [*self._repeated(), *self._generator_problems()]

    def _repeated(self) -> list[str]:
        problems = []
        for key in ("name", "queue_url"):
            seen = Counter(getattr(consumer, key) for consumer in self.consumers)
            problems += [f"consumers: {key} {value!r} is used {n} times" for value, n in seen.items() if n > 1]
        return problems

    def _generator_problems(self) -> list[str]:
        problems = []
        known = ", ".join(self.generators) or "none"
        for consumer in self.consumers:
            if consumer.type != "generate":
                continue
            if not self.generators:
                problems.append(f"consumers[{consumer.name}]: type generate needs an entry in generators")
            named = dict.fromkeys([consumer.generator, *(consumer.generators or ())])
            problems += [
                f"consumers[{consumer.name}].generator: no generator {generator!r}; there are: {known}"
                for generator in named
                if generator is not None and self.generators and generator not in self.generators
            ]
        return problems

    def collection(self, collection_id: str) -> CollectionSettings:
        """Return the settings of one collection: its own entry over `default` over the built-in ones."""
        default = self.collections.get("default", CollectionSettings())
        own = self.collections.get(collection_id)
        if own is None or collection_id == "default":
            return default
        return default.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})

    @property
    def loads(self) -> bool:
        """True when some consumer needs the database."""
        return any(c.type == "load" or (c.type == "generate" and c.output == "load") for c in self.consumers)

    def warnings(self) -> list[str]:
        """Return what is allowed and probably not meant, a line each."""
        found = []
        for collection_id in self.collections or ("default",):
            items = self.collection(collection_id).max_batch_items
            found += [
                f"collections.{collection_id}.max_batch_items is {items}, but consumer {consumer.name!r} holds only "
                f"max_in_flight={consumer.max_in_flight} messages: a batch of single-item messages never fills"
                for consumer in self.consumers
                if consumer.type == "load" and consumer.max_in_flight < items
            ]
        if self.drain_timeout_s > 3600:  # noqa: PLR2004 - an hour
            found.append(f"drain_timeout_s is {self.drain_timeout_s:g}: SIGKILL usually comes much earlier")
        found += [
            f"consumer {consumer.name!r}: wait_time_s={consumer.wait_time_s} is longer than drain_timeout_s="
            f"{self.drain_timeout_s:g}: a receive that is under way at the end is cut off, and what it brings stays "
            "invisible until its lease runs out"
            for consumer in self.consumers
            if consumer.wait_time_s > self.drain_timeout_s
        ]
        return found
