"""Calling a generator function in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pystac
import pytest

from stacworker.api import CreateItems, ItemRequest
from stacworker.errors import Permanent, Rejected, Transient, Unavailable
from stacworker.testing.generating import GenerateItems
from stacworker.testing.messages import sample_item, sample_messages, sns, text
from stacworker.testing.s3 import FakeS3
from stacworker.testing.sink import MemorySink

REQUEST: dict[str, Any] = {"href": "s3://b/k.tif", "bucket": "b", "key": "k.tif"}


def plain(request: ItemRequest) -> dict[str, Any]:
    return sample_item(request["key"])


def several(request: ItemRequest) -> list[dict[str, Any]]:
    return [sample_item(request["key"]), sample_item("b")]


def generator(request: ItemRequest) -> Iterator[dict[str, Any]]:
    yield from several(request)


async def coroutine(request: ItemRequest) -> dict[str, Any]:
    await asyncio.sleep(0)
    return plain(request)


async def async_generator(request: ItemRequest) -> AsyncIterator[dict[str, Any]]:
    for item in several(request):
        await asyncio.sleep(0)
        yield item


def as_pystac(request: ItemRequest) -> pystac.Item:
    body = plain(request)
    return pystac.Item(
        body["id"],
        body["geometry"],
        body["bbox"],
        datetime(2024, 5, 1, tzinfo=UTC),
        {},
        collection=body["collection"],
    )


def finished(request: ItemRequest, gsd: int = 10) -> dict[str, Any]:
    """Take a partial item, and return it finished."""
    more = {"assets": request["assets"], "properties": {**request["properties"], "datetime": "2024-05-01T00:00:00Z"}}
    more["properties"]["gsd"] = gsd
    return sample_item(request.get("id", "made"), **more)


FORMS: list[tuple[CreateItems, list[str]]] = [
    (plain, ["k.tif"]),
    (several, ["k.tif", "b"]),
    (generator, ["k.tif", "b"]),
    (coroutine, ["k.tif"]),
    (async_generator, ["k.tif", "b"]),
    (as_pystac, ["k.tif"]),
    (lambda request: {"type": "FeatureCollection", "features": several(request)}, ["k.tif", "b"]),
    (lambda _: [], []),
]


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def generate(sink: MemorySink) -> GenerateItems:
    return GenerateItems(FakeS3(), sink)


@pytest.mark.parametrize(("function", "ids"), FORMS)
def test_every_form_of_function(generate: GenerateItems, function: CreateItems, ids: list[str]) -> None:
    """Sync, async, generators, pystac: what comes out are dicts."""
    assert [item["id"] for item in generate(function, REQUEST)] == ids


@pytest.mark.parametrize(("function", "ids"), FORMS)
async def test_every_form_of_function_in_an_async_test(
    generate: GenerateItems, function: CreateItems, ids: list[str]
) -> None:
    """An event loop that runs already is in nobody's way."""
    assert [item["id"] for item in generate(function, REQUEST)] == ids


def test_requests_and_items_go_through_json(generate: GenerateItems) -> None:
    """As between processes: the function cannot change the test's request, and times become text."""
    asked = {"key": "a", "numbers": (1, 2)}

    def function(request: dict[str, Any]) -> dict[str, Any]:
        assert request["numbers"] == [1, 2]
        request["key"] = "changed"
        return sample_item("a", properties={"datetime": datetime(2024, 5, 1), "nan": float("nan")})  # noqa: DTZ001 - what users write

    (item,) = generate(function, asked)
    assert item["properties"] == {"datetime": "2024-05-01T00:00:00Z", "nan": None}
    assert asked == {"key": "a", "numbers": (1, 2)}


def test_options_and_collection(generate: GenerateItems) -> None:
    """Options are keyword arguments; a request's `collection_id` overrides the items' collection."""
    partial = {"assets": {}, "properties": {"a": 1}, "collection_id": "other"}
    (item,) = generate(finished, partial, options={"gsd": 30})
    assert (item["collection"], item["properties"]["gsd"], item["properties"]["a"]) == ("other", 30, 1)


def test_items_that_cannot_be_loaded_fail_the_test(generate: GenerateItems) -> None:
    """All of them, with reasons; unless it is the function's output as such that is looked at."""

    def function(_: ItemRequest) -> list[dict[str, Any]]:
        return [sample_item("a"), sample_item("b", bbox=None), sample_item("c", collection=None)]

    with pytest.raises(AssertionError) as raised:
        generate(function, {})
    assert str(raised.value) == (
        "a load queue would refuse 2 of 3 items:\n"
        "  item 'b' from the generator: bbox is missing [invalid_geometry]\n"
        "  item 'c' from the generator: collection: Input should be a valid string, not None [invalid_item]"
    )
    assert len(generate(function, {}, validate=False)) == 3


def test_the_function_s_own_errors_reach_the_test(generate: GenerateItems) -> None:
    """`pytest.raises` sees what the function raises."""
    with pytest.raises(KeyError, match="key"):
        generate(plain, {"href": "x"})
    with pytest.raises(Exception, match="the function returned None"):
        generate(lambda _: None, {})  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("name", ["S3 event", "S3 event in SNS", "S3 event in EventBridge", "href", "URL"])
def test_a_whole_message(generate: GenerateItems, sink: MemorySink, name: str) -> None:
    """Opened, generated, put: what a generate consumer does."""
    (item,) = generate(plain, message=dict(sample_messages(bucket="b", key="k.tif"))[name])
    assert item == sample_item("k.tif")
    sink.assert_loaded("k.tif")


async def test_a_partial_item_in_a_message(generate: GenerateItems, sink: MemorySink) -> None:
    """stac-in, stac-out; in an async test too."""
    partial = {"id": "p", "assets": {"data": {"href": "s3://b/k"}}, "properties": {"platform": "x"}}
    generate(finished, message=sns(text(partial)))
    (item,) = sink.items()
    assert (item["id"], item["assets"], item["properties"]["platform"]) == ("p", partial["assets"], "x")


def _raise(error: BaseException) -> Callable[[Any], Any]:
    def function(_: Any) -> Any:
        raise error

    return function


class CustomError(Exception):
    error_class = "mine"


@pytest.mark.parametrize(
    ("error", "expected", "error_class", "reason"),
    [
        (ValueError("no such granule"), Permanent, "generator_error", "ValueError: no such granule"),
        (ConnectionError("reset"), Transient, "generator_error", "ConnectionError: reset"),
        (CustomError("told"), Permanent, "generator_error", "told"),
    ],
)
def test_errors_of_a_message_are_what_it_ends_with(
    generate: GenerateItems, error: Exception, expected: type[Exception], error_class: str, reason: str
) -> None:
    """As the child process and the consumer tell them."""
    with pytest.raises(expected) as raised:
        generate(_raise(error), message=REQUEST)
    assert getattr(raised.value, "error_class", None) == error_class
    assert str(raised.value).startswith(f"generator 'test' failed for s3://b/k.tif: {reason}")


def test_refused_items_of_a_message(generate: GenerateItems, sink: MemorySink) -> None:
    """The good ones are loaded, and the request is what comes back."""

    def function(_: ItemRequest) -> list[dict[str, Any]]:
        return [sample_item("a"), sample_item("b", geometry=None)]

    with pytest.raises(Permanent, match="geometry is null"):
        generate(function, message=REQUEST)
    sink.assert_loaded("a")
    sink.assert_refused("b", match="geometry")


def test_one_bad_request_of_many(generate: GenerateItems) -> None:
    """`Rejected` has each bad request."""
    event = FakeS3().event("s3://b/good", "s3://b/bad")

    def function(request: ItemRequest) -> dict[str, Any]:
        if request["key"] == "bad":
            raise ValueError("bad")
        return plain(request)

    with pytest.raises(Rejected) as raised:
        generate(function, message=event)
    (refusal,) = raised.value.refusals
    assert refusal.body == text({"href": "s3://b/bad", "bucket": "b", "key": "bad"})


def test_a_sink_that_is_away(generate: GenerateItems, sink: MemorySink) -> None:
    """The message would be released."""
    sink.unavailable = Unavailable("gone", dependency="database")
    with pytest.raises(Unavailable):
        generate(plain, message=REQUEST)


@pytest.mark.parametrize("arguments", [{}, {"request": {}, "message": {}}])
def test_request_or_message(generate: GenerateItems, arguments: dict[str, Any]) -> None:
    """Exactly one of them."""
    with pytest.raises(TypeError, match="either a request or message="):
        generate(plain, **arguments)
