"""Messages with requests: what is generated, put, refused and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from stacworker.api import Document, Message, Request, Version
from stacworker.envelope.forms import S3Location
from stacworker.envelope.reader import Reader
from stacworker.errors import Permanent, Refusal, Rejected, StacworkerError, Transient, Unavailable
from stacworker.generate.consumer import GenerateConsumer
from stacworker.inflight import InFlight
from stacworker.metrics import Metrics


class NoObjects:
    """Requests name objects, they are not fetched."""

    max_concurrency = 1

    async def get(self, location: S3Location) -> bytes:
        raise AssertionError(f"{location} was fetched")

    async def ping(self) -> None:
        pass


@dataclass
class ScriptedGenerator:
    """Gives one item for each request, or raises what `errors` has for its href."""

    name: str
    errors: dict[str, Exception] = field(default_factory=dict)
    away: Unavailable | None = None
    gate: Callable[[], Any] | None = None

    async def generate(self, request: Request) -> Sequence[dict[str, Any]]:
        if self.gate is not None:
            await self.gate()
        name = request.body.get("href") or request.body["create_item_args"][0]
        if name in self.errors:
            raise self.errors[name]
        return [{"id": name, "made_by": self.name, "collection": request.collection_id}]

    async def ping(self) -> None:
        if self.away is not None:
            raise self.away


@dataclass
class MemorySink:
    """Keeps what is put; refuses ids in `refused`."""

    refused: dict[str, Permanent] = field(default_factory=dict)
    error: StacworkerError | None = None
    puts: list[list[Document]] = field(default_factory=list)

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:
        if self.error is not None:
            raise self.error
        self.puts.append([document for document in documents if document.body["id"] not in self.refused])
        refusals = tuple(
            Refusal(self.refused[document.body["id"]], orjson.dumps(document.body).decode())
            for document in documents
            if document.body["id"] in self.refused
        )
        if refusals:
            raise Rejected(refusals)

    async def ping(self) -> None:
        if self.error is not None:
            raise self.error

    @property
    def ids(self) -> list[str]:
        return [document.body["id"] for documents in self.puts for document in documents]


@dataclass
class Bench:
    default: str | None = "function"
    function: ScriptedGenerator = field(default_factory=lambda: ScriptedGenerator("function"))
    naip: ScriptedGenerator = field(default_factory=lambda: ScriptedGenerator("naip"))
    sink: MemorySink = field(default_factory=MemorySink)
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def consumer(self) -> GenerateConsumer:
        return GenerateConsumer(
            reader=Reader(NoObjects()),
            generators={"function": self.function, "naip": self.naip},
            packages={"stactools-naip": "naip"},
            default=self.default,
            sink=self.sink,
            metrics=self.metrics,
        )

    async def handle(self, body: Any) -> None:
        await self.consumer.handle(message(body))

    def generated(self, generator: str, outcome: str) -> float | None:
        labels = {"generator": generator, "outcome": outcome}
        return self.metrics.registry.get_sample_value("stacworker_items_generated_total", labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def message(body: Any) -> Message:
    text = body if isinstance(body, str) else orjson.dumps(body).decode()
    return Message("id", text, "handle", 1, sent_at=1_700_000_000.0)


def item_request(argument: str, package: str = "stactools-naip", **more: Any) -> dict[str, Any]:
    return {"package_name": package, "group_name": "naip", "create_item_args": [argument], **more}


def s3_event(*keys: str) -> dict[str, Any]:
    """Make an event of several objects; the keys are names of files in bucket b."""
    return {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "eventTime": "2024-01-01T00:00:00.000Z",
                "s3": {"bucket": {"name": "b"}, "object": {"key": key, "sequencer": "0A"}},
            }
            for key in keys
        ]
    }


async def test_a_link_goes_to_the_default_generator_and_its_items_to_the_sink(bench: Bench) -> None:
    """The document carries the message's time as version, and says what it was made from."""
    await bench.handle("https://example.com/a.tif")
    assert bench.sink.puts == [
        [
            Document(
                "item",
                {"id": "https://example.com/a.tif", "made_by": "function", "collection": None},
                Version(1_700_000_000_000),
                "https://example.com/a.tif",
            )
        ]
    ]
    assert bench.generated("function", "ok") == 1


@pytest.mark.parametrize("package", ["stactools-naip", "Stactools.NAIP", "stactools_naip==0.5.0"])
async def test_a_request_that_names_a_package_goes_to_the_generator_that_has_it(bench: Bench, package: str) -> None:
    """Names are compared as packaging does, and the request's collection goes along."""
    await bench.handle(item_request("a.tif", package, collection_id="naip"))
    assert [document.body for document in bench.sink.puts[0]] == [
        {"id": "a.tif", "made_by": "naip", "collection": "naip"}
    ]


async def test_a_package_that_no_generator_has_is_refused_for_good(bench: Bench) -> None:
    """The dead letter is the message itself, with what is allowed."""
    with pytest.raises(Permanent) as caught:
        await bench.handle(item_request("a.tif", "stactools-evil", collection_id="c"))
    assert (type(caught.value), caught.value.error_class, caught.value.collection) == (
        Permanent, "package_not_allowed", "c"
    )  # fmt: skip
    assert caught.value.reason == (
        "message body: package stactools-evil is not allowed; allowed: stactools-naip (generators.….packages)"
    )
    assert bench.generated("none", "package_not_allowed") == 1


async def test_without_a_default_generator_links_are_refused(bench: Bench) -> None:
    """The reason says which setting is missing."""
    bench.default = None
    with pytest.raises(Permanent) as caught:
        await bench.handle("https://example.com/a.tif")
    assert caught.value.error_class == "no_generator"


async def test_a_message_that_asks_for_nothing_is_done(bench: Bench) -> None:
    """A test event of S3 puts nothing and raises nothing."""
    await bench.handle({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"})
    assert bench.sink.puts == []


async def test_requests_of_one_message_are_generated_at_the_same_time(bench: Bench) -> None:
    """Three requests meet at a barrier, and end in one put in the message's order."""
    bench.function.gate = asyncio.Barrier(3).wait
    async with asyncio.timeout(5):
        await bench.handle(s3_event("1.tif", "2.tif", "3.tif"))
    assert [[document.body["id"] for document in documents] for documents in bench.sink.puts] == [
        ["s3://b/1.tif", "s3://b/2.tif", "s3://b/3.tif"]
    ]


async def test_one_bad_request_of_many_is_rejected_alone_in_a_form_that_can_be_sent_again(bench: Bench) -> None:
    """The others are put; the dead letter is a message that asks for the bad one only."""
    bench.function.errors["s3://b/2.tif"] = error = Permanent("bad pixels", error_class="generator_error")
    with pytest.raises(Rejected) as caught:
        await bench.handle(s3_event("1.tif", "2.tif"))
    (refusal,) = caught.value.refusals
    assert bench.sink.ids == ["s3://b/1.tif"]
    assert refusal.error is error
    assert bench.generated("function", "generator_error") == 1
    bench.function.errors.clear()
    await bench.handle(refusal.body)
    assert bench.sink.ids == ["s3://b/1.tif", "s3://b/2.tif"]


async def test_the_only_request_of_a_message_fails_as_the_message(bench: Bench) -> None:
    """Nothing is taken apart where there is nothing else."""
    bench.function.errors["s3://b/1.tif"] = error = Permanent("bad pixels")
    with pytest.raises(Permanent) as caught:
        await bench.handle(s3_event("1.tif"))
    assert caught.value is error


async def test_unreadable_parts_and_bad_requests_and_refused_items_are_rejected_together(bench: Bench) -> None:
    """One event with a broken record, a request that fails, an item the sink refuses, and a good one."""
    event = s3_event("1.tif", "2.tif", "3.tif", "4.tif")
    del event["Records"][0]["s3"]["bucket"]
    bench.function.errors["s3://b/2.tif"] = Permanent("bad pixels")
    bench.sink.refused["s3://b/3.tif"] = Permanent("no geometry")
    with pytest.raises(Rejected) as caught:
        await bench.handle(event)
    assert bench.sink.ids == ["s3://b/4.tif"]
    assert [refusal.error.reason for refusal in caught.value.refusals][1:] == ["no geometry", "bad pixels"]
    assert len(caught.value.refusals) == 3


@dataclass
class Several:
    """Gives two items for each request."""

    async def generate(self, request: Request) -> Sequence[dict[str, Any]]:
        return [{"id": f"{request.body['href']}{part}"} for part in ("-a", "-b")]

    async def ping(self) -> None:
        pass


async def test_what_comes_back_for_refused_items_is_the_request_that_makes_them(bench: Bench) -> None:
    """This queue takes requests, so that is what can be sent again; one for all bad items of a request."""
    bench.function = Several()  # type: ignore[assignment]
    missing = Permanent("no such collection", error_class="collection_missing", item_id="x")
    bench.sink.refused = {f"s3://b/{name}": missing for name in ("1.tif-a", "1.tif-b", "2.tif-b")}
    with pytest.raises(Rejected) as caught:
        await bench.handle(s3_event("1.tif", "2.tif", "3.tif"))
    first, second = caught.value.refusals
    assert first.error.reason == "2 items of this request were refused, the first: no such collection"
    assert (first.error.error_class, first.error.item_id) == ("collection_missing", "x")
    assert second.error is missing
    bench.sink.refused.clear()
    bench.sink.puts.clear()
    for refusal in (first, second):
        assert refusal.body is not None
        await bench.handle(refusal.body)
    assert bench.sink.ids == ["s3://b/1.tif-a", "s3://b/1.tif-b", "s3://b/2.tif-a", "s3://b/2.tif-b"]


async def test_refused_items_of_the_only_request_leave_the_body_as_it_is(bench: Bench) -> None:
    """The message is that request."""
    bench.function = Several()  # type: ignore[assignment]
    bench.sink.refused["s3://b/1.tif-b"] = error = Permanent("no geometry")
    with pytest.raises(Permanent) as caught:
        await bench.handle(s3_event("1.tif"))
    assert caught.value is error


async def test_a_transient_failure_dominates_once_the_good_ones_are_put(bench: Bench) -> None:
    """The whole message comes again, so nothing is dead-lettered yet."""
    bench.function.errors["s3://b/1.tif"] = Permanent("bad pixels")
    bench.function.errors["s3://b/2.tif"] = Transient("it hung", error_class="generator_timeout")
    with pytest.raises(Transient) as caught:
        await bench.handle(s3_event("1.tif", "2.tif", "3.tif"))
    assert bench.sink.ids == ["s3://b/3.tif"]
    assert caught.value.error_class == "generator_timeout"
    assert caught.value.reason == "1 of 3 requests failed, the first: it hung"


async def test_an_error_that_nobody_foresaw_costs_its_request_and_is_named(bench: Bench) -> None:
    """A generator may be a class of the user's, which raises what it likes."""
    bench.function.errors["s3://b/1.tif"] = ZeroDivisionError("no pixels")
    with pytest.raises(Transient) as caught, capture_logs() as logs:
        await bench.handle(s3_event("1.tif", "2.tif"))
    assert bench.sink.ids == ["s3://b/2.tif"]
    assert caught.value.error_class == "unexpected"
    assert caught.value.reason == (
        "1 of 2 requests failed, the first: generator 'function' failed unexpectedly for s3://b/1.tif: "
        "ZeroDivisionError: no pixels"
    )
    assert [entry["event"] for entry in logs] == ["generator.unexpected_error"]
    assert bench.generated("function", "unexpected") == 1


async def test_an_unavailable_generator_dominates_a_transient_failure(bench: Bench) -> None:
    """The engine has to know that all messages would fail."""
    bench.function.errors["s3://b/1.tif"] = Transient("it hung")
    bench.function.errors["s3://b/2.tif"] = away = Unavailable("no process starts", dependency="generator")
    with pytest.raises(Unavailable) as caught:
        await bench.handle(s3_event("1.tif", "2.tif"))
    assert caught.value is away


@pytest.mark.parametrize("error", [Transient("locked"), Unavailable("gone", dependency="database")])
async def test_the_sinks_own_trouble_goes_straight_to_the_engine(bench: Bench, error: StacworkerError) -> None:
    """What the sink raises about itself is not about the message."""
    bench.sink.error = error
    with pytest.raises(StacworkerError) as caught:
        await bench.handle(s3_event("1.tif", "2.tif"))
    assert caught.value is error


async def test_ping_asks_the_sink_and_every_generator(bench: Bench) -> None:
    """Any of them can make the consumer unready."""
    await bench.consumer.ping()
    bench.naip.away = Unavailable("no process starts", dependency="generator")
    with pytest.raises(Unavailable) as of_generator:
        await bench.consumer.ping()
    bench.sink.error = Unavailable("gone", dependency="database")
    with pytest.raises(Unavailable) as of_sink:
        await bench.consumer.ping()
    assert (of_generator.value, of_sink.value) == (bench.naip.away, bench.sink.error)


async def test_cancelling_a_message_cancels_its_requests(bench: Bench) -> None:
    """Nothing goes on generating for a message that was given back."""
    started, ended = asyncio.Event(), []

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    bench.function.gate = wait
    task = asyncio.create_task(bench.handle(s3_event("1.tif", "2.tif")))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled", "cancelled"]
