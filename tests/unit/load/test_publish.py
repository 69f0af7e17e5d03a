"""Publishing items: requests are merged, and each document's end is told truly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import botocore.exceptions
import orjson
import pytest

from stacworker.api import Document
from stacworker.errors import ConfigError, Permanent, Rejected, StacworkerError, Transient, Unavailable
from stacworker.inflight import InFlight
from stacworker.load.merge import Merger, Outcome
from stacworker.load.publish import Bucket as Place
from stacworker.load.publish import S3Sink, SnsSink, SqsSink
from tests.unit.load.documents import collection, delete, item, item_body
from tests.unit.load.harness import settled

TOPIC = "arn:aws:sns:us-west-2:123456789012:items"
QUEUE = "https://sqs.us-west-2.amazonaws.com/123456789012/items"
IN_FLIGHT = InFlight()
NEVER_S = 300.0


@dataclass
class Wire:
    """Records what a merger sends; `gate` holds requests back, `outcomes` answers for texts."""

    sent: list[list[bytes]] = field(default_factory=list)
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    failure: BaseException | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def send(self, texts: Sequence[bytes]) -> list[Outcome]:
        self.sent.append(list(texts))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [self.outcomes.get(text) for text in texts]


def merger(wire: Wire, *, max_texts: int = 3, max_bytes: int = 100, linger_s: float = NEVER_S) -> Merger:
    return Merger(wire.send, max_texts=max_texts, max_bytes=max_bytes, linger_s=linger_s)


async def test_texts_of_several_puts_go_in_one_request() -> None:
    """A full request goes at once, and each put hears about its own texts."""
    no = Permanent("no")
    wire = Wire(outcomes={b"b": no})
    async with asyncio.timeout(5), merger(wire) as merging:
        results = await asyncio.gather(merging.put([b"a"]), merging.put([b"b", b"c"]))
    assert results == [[None], [no, None]]
    assert wire.sent == [[b"a", b"b", b"c"]]


async def test_a_request_that_is_not_full_goes_after_a_moment() -> None:
    """A lone text does not wait for others."""
    wire = Wire()
    async with asyncio.timeout(5), merger(wire, linger_s=0.001) as merging:
        assert await merging.put([b"a"]) == [None]


async def test_requests_are_limited_in_bytes() -> None:
    """What does not fit goes in the next request; a text that fits in none goes alone."""
    wire = Wire()
    async with asyncio.timeout(5), merger(wire, max_bytes=4, linger_s=0.001) as merging:
        await merging.put([b"aaa", b"bb", b"cc", b"dddddd", b"e"])
    assert wire.sent == [[b"aaa"], [b"bb", b"cc"], [b"dddddd"], [b"e"]]


async def test_no_texts_need_no_request() -> None:
    """A put of nothing returns at once."""
    wire = Wire()
    async with asyncio.timeout(5), merger(wire) as merging:
        assert await merging.put([]) == []


async def test_a_failed_request_is_the_outcome_of_all_its_texts() -> None:
    """Everybody in the request hears the error."""
    failure = Unavailable("gone", dependency="sns")
    async with asyncio.timeout(5), merger(Wire(failure=failure)) as merging:
        assert await merging.put([b"a", b"b", b"c"]) == [failure] * 3


async def test_a_cancelled_put_is_not_sent() -> None:
    """What has not gone yet stays, and costs the others nothing."""
    wire = Wire()
    async with asyncio.timeout(5), merger(wire) as merging:
        leaving = asyncio.ensure_future(merging.put([b"a", b"b"]))
        await settled()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await merging.put([b"c"]) == [None]
    assert wire.sent == [[b"c"]]


async def test_leaving_tells_who_waits() -> None:
    """At the end what is unsent or unanswered has to come again."""
    wire = Wire()
    wire.gate.clear()
    async with asyncio.timeout(5), merger(wire) as merging:
        tasks = [asyncio.ensure_future(merging.put([letter.encode()])) for letter in "abcd"]
        await settled()
    for (outcome,) in await asyncio.gather(*tasks):
        assert (type(outcome), str(outcome)) == (Transient, "stacworker stopped before this was done")
    with pytest.raises(Transient):
        await merging.put([b"e"])


async def test_a_request_stopped_before_it_began_is_told_too() -> None:
    """A put whose request was ready but not started at the end is not left waiting."""
    wire = Wire()
    async with asyncio.timeout(5), merger(wire, max_texts=1) as merging:
        task = asyncio.ensure_future(merging.put([b"a"]))
        await settled(1)
    async with asyncio.timeout(5):
        assert [type(outcome) for outcome in await task] == [Transient]
    assert wire.sent == []


async def test_a_defect_in_sending_ends_the_process_s_work() -> None:
    """Crash-only: who entered sees the defect, and no put waits for ever."""
    tasks = []

    async def work() -> None:
        async with asyncio.timeout(5), merger(Wire(failure=KeyError("defect"))) as merging:
            tasks.append(asyncio.ensure_future(merging.put([b"a", b"b", b"c", b"d"])))
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup):
        await work()
    assert [type(outcome) for outcome in await tasks[0]] == [Transient] * 4


@dataclass
class Client:
    """Answers batch requests as SNS and SQS do, with `failed` entries or an `error`."""

    failed: dict[int, dict[str, Any]] = field(default_factory=dict)
    error: Exception | None = None
    silent: bool = False
    texts: list[str] = field(default_factory=list)

    def _answer(self, texts: list[str]) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        self.texts += texts
        numbers = range(len(texts))
        return {
            "Successful": [{"Id": str(n)} for n in numbers if n not in self.failed and not self.silent],
            "Failed": [{"Id": str(n), **self.failed[n]} for n in numbers if n in self.failed],
        }

    async def publish_batch(self, *, TopicArn: str, PublishBatchRequestEntries: list[Any]) -> Mapping[str, Any]:  # noqa: N803 - boto's names
        assert TopicArn == TOPIC
        return self._answer([entry["Message"] for entry in PublishBatchRequestEntries])

    async def send_message_batch(self, *, QueueUrl: str, Entries: list[Any]) -> Mapping[str, Any]:  # noqa: N803 - boto's names
        assert QueueUrl == QUEUE
        return self._answer([entry["MessageBody"] for entry in Entries])


def refused_with(code: str, status: int = 400) -> botocore.exceptions.ClientError:
    return botocore.exceptions.ClientError(
        {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call"
    )


async def publish(client: Client, *documents: Document, to: str = "sns") -> StacworkerError | None:
    """Put documents; return what it raises."""
    kind, target = (SnsSink, TOPIC) if to == "sns" else (SqsSink, QUEUE)
    async with asyncio.timeout(5), kind(client, target, linger_s=0.001) as sink:
        try:
            await sink.put(documents, IN_FLIGHT)
        except StacworkerError as error:
            return error
    return None


@pytest.mark.parametrize("to", ["sns", "sqs"])
async def test_the_message_is_the_item(to: str) -> None:
    """Nothing is wrapped around an item's JSON."""
    client = Client()
    assert await publish(client, item("x"), item("y"), to=to) is None
    assert [orjson.loads(text) for text in client.texts] == [item_body("x"), item_body("y")]


async def test_characters_that_sqs_refuses_are_escaped() -> None:
    """Every item that is JSON can be sent, and means the same."""
    client = Client()
    await publish(client, item("x", text="\ufffe\uffff\x00ÿ"), to="sqs")
    assert not set(client.texts[0]) & set("\ufffe\uffff\x00")
    assert orjson.loads(client.texts[0])["text"] == "\ufffe\uffff\x00ÿ"


async def test_an_entry_that_is_the_sender_s_fault_is_refused() -> None:
    """The item that the service refuses is told alone, with the service's words."""
    client = Client(failed={1: {"Code": "InvalidParameter", "Message": "too odd", "SenderFault": True}})
    error = await publish(client, item("x"), item("y"))
    assert isinstance(error, Rejected)
    (refusal,) = error.refusals
    assert (refusal.error.reason, refusal.error.error_class, refusal.error.collection, refusal.error.item_id) == (
        f"item 'y' of collection 'c': publishing to {TOPIC}: InvalidParameter: too odd (message body)",
        "sns_refused",
        "c",
        "y",
    )
    assert refusal.body == orjson.dumps(item_body("y")).decode()


@pytest.mark.parametrize(
    "entry",
    [
        {"Code": "InternalError", "SenderFault": False},
        {"Code": "RequestThrottled", "SenderFault": True},
        {"Code": "KMS.AccessDeniedException", "SenderFault": True},
    ],
)
async def test_an_entry_that_may_pass_later_comes_again(entry: dict[str, Any]) -> None:
    """Such a failure comes before any refusal beside it."""
    error = await publish(Client(failed={0: entry}), item("x"), item("y", bbox=b""))
    assert (type(error), str(error)) == (Transient, f"publishing to {TOPIC}: {entry['Code']}: no message")


async def test_an_entry_without_an_answer_comes_again() -> None:
    """Only what the service says it has taken is taken."""
    error = await publish(Client(silent=True), item("x"), to="sqs")
    assert (type(error), str(error)) == (Transient, f"{QUEUE} gave no answer for a message")


@pytest.mark.parametrize("code", ["NotFound", "InvalidParameter", "AuthorizationError"])
async def test_a_request_refused_as_a_whole_is_about_the_target(code: str) -> None:
    """A topic that is gone or forbidden is no item's fault: publishing pauses until it is there."""
    error = await publish(Client(error=refused_with(code)), item("x"))
    assert isinstance(error, Unavailable)
    assert (error.dependency, error.reason) == ("sns", f"publishing to {TOPIC}: {code}: why")


async def test_what_is_no_item_is_refused() -> None:
    """Collections and deletes cannot be published; the item beside them is."""
    client = Client()
    error = await publish(client, collection("c"), item("x"), delete("y"))
    assert isinstance(error, Rejected)
    assert [str(refusal.error) for refusal in error.refusals] == [
        "a collection cannot be published, only items can (message body)",
        "a delete cannot be published, only items can (s3://b/y.json)",
    ]
    assert len(client.texts) == 1


async def test_what_is_not_json_is_refused() -> None:
    """A generator's object that JSON has no form for costs no other item."""
    client = Client()
    error = await publish(client, item("x", bbox=b""), item("y"))
    assert isinstance(error, Rejected)
    (refusal,) = error.refusals
    assert (refusal.error.error_class, refusal.error.item_id, refusal.body) == ("invalid_item", "x", None)
    assert len(client.texts) == 1


@pytest.mark.parametrize(("to", "limit"), [("sns", 262_144), ("sqs", 1_048_576)])
async def test_an_item_that_is_too_large_is_refused(to: str, limit: int) -> None:
    """The limit itself is taken; the reason gives size, limit and a way out."""
    client = Client()
    room = limit - len(orjson.dumps(item_body("x", text="")))
    assert await publish(client, item("x", text="t" * room), to=to) is None
    error = await publish(client, item("x", text="t" * (room + 1)), to=to)
    assert isinstance(error, Rejected)
    assert (error.error_class, error.item_id, error.reason) == (
        "too_large",
        "x",
        (
            f"item 'x' of collection 'c' has {limit + 1:,} bytes and {TOPIC if to == 'sns' else QUEUE} takes "
            f"{limit:,}; set output_overflow: s3://bucket/prefix/, or use output: load or an s3:// output"
        ),
    )
    assert error.refusals[0].body is None


def test_fifo_targets_are_refused_at_start() -> None:
    """Items of one granule may overtake each other, so an ordered target would promise too much."""
    with pytest.raises(ConfigError, match="FIFO"):
        SqsSink(Client(), QUEUE + ".fifo")


@dataclass
class Bucket:
    """Takes objects, or raises what `errors` says for a key."""

    objects: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    running: int = 0
    most_at_once: int = 0

    async def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803 - boto's names
        assert (Bucket, ContentType) == ("b", "application/geo+json")
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if Key in self.errors:
            raise self.errors[Key]
        self.objects[Key] = Body


async def test_each_item_is_an_object() -> None:
    """Objects are written some at a time, under keys that hold no odd character."""
    bucket = Bucket()
    odd = item("a/b +é", collection="..")
    await S3Sink(Place(bucket, "b", "out/")).put([odd, *(item(str(number)) for number in range(100))], IN_FLIGHT)
    assert orjson.loads(bucket.objects["out/%2E%2E/a%2Fb%20%2B%C3%A9.json"]) == odd.body
    assert len(bucket.objects) == 101
    assert 1 < bucket.most_at_once <= 32


@pytest.mark.parametrize(
    ("document", "error_class", "reason"),
    [
        (
            item("x", collection=""),
            "invalid_item",
            "item 'x' of collection '' cannot be written to S3 without an id and a collection (message body)",
        ),
        (
            item("i" * 1020),
            "too_large",
            f"item '{'i' * 1020}' of collection 'c' would need a key of 1,027 bytes, S3 takes 1,024",
        ),
    ],
)
async def test_items_without_a_possible_key_are_refused(document: Document, error_class: str, reason: str) -> None:
    """Others are written."""
    bucket = Bucket()
    with pytest.raises(Rejected) as raised:
        await S3Sink(Place(bucket, "b")).put([document, item("y")], IN_FLIGHT)
    assert [(r.error.error_class, r.error.reason) for r in raised.value.refusals] == [(error_class, reason)]
    assert list(bucket.objects) == ["c/y.json"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refused_with("NoSuchBucket", 404), Unavailable),
        (refused_with("AccessDenied", 403), Unavailable),
        (refused_with("SlowDown", 503), Unavailable),
        (refused_with("InvalidRequest", 400), Rejected),
    ],
)
async def test_errors_of_s3_are_told_as_they_are(error: Exception, expected: type[StacworkerError]) -> None:
    """A bucket that is away is an outage; an object that S3 refuses is refused."""
    bucket = Bucket(errors={"c/x.json": error})
    with pytest.raises(expected):
        await S3Sink(Place(bucket, "b")).put([item("x"), item("y")], IN_FLIGHT)
    assert list(bucket.objects) == ["c/y.json"]
