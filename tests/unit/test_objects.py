"""What lies in S3: where it is, how it is unpacked, and what it holds."""

from __future__ import annotations

import gzip
import tracemalloc

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacworker.api import Version
from stacworker.envelope.contents import object_forms
from stacworker.envelope.forms import CollectionForm, ItemForm, Notice, S3Location, Unwrapped
from stacworker.envelope.gzipped import gunzip, is_gzip
from stacworker.envelope.locations import s3_location
from stacworker.envelope.objects import S3Objects
from stacworker.envelope.stac import MAX_PART_BYTES, resendable, resendable_text
from stacworker.errors import Permanent
from stacworker.metrics import Metrics
from tests.unit.strategies_envelope import characters, item, items, json_values, text

VERSION = Version(7, "0F")


def held(data: bytes | str, key: str = "k.json") -> Unwrapped:
    return object_forms(data if isinstance(data, bytes) else data.encode(), S3Location("b", key), VERSION)


def refused(data: bytes | str, key: str = "k.json") -> tuple[str, str]:
    with pytest.raises(Permanent) as caught:
        held(data, key)
    return caught.value.error_class, caught.value.reason


def bad(result: Unwrapped) -> list[tuple[str, str, str | None]]:
    return [(r.error.error_class, r.error.reason, r.body) for r in result.refusals]


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://bucket/a/b.json", S3Location("bucket", "a/b.json")),
        ("s3://bucket/a%20b c?d#e", S3Location("bucket", "a%20b c?d#e")),
        ("https://bucket.s3.amazonaws.com/a%20b/ü", S3Location("bucket", "a b/ü")),
        ("https://my.bucket.s3.us-west-2.amazonaws.com/a+b", S3Location("my.bucket", "a+b")),
        ("https://bucket.s3-us-west-2.amazonaws.com/a?versionId=1", S3Location("bucket", "a")),
        ("https://bucket.s3.dualstack.us-west-2.amazonaws.com:443/a", S3Location("bucket", "a")),
        ("https://S3.us-west-2.amazonaws.com/Bucket/a//b", S3Location("Bucket", "a//b")),
        ("https://s3.cn-north-1.amazonaws.com.cn/bucket/a", S3Location("bucket", "a")),
        ("s3://bucket", None),
        ("s3://bucket/", None),
        ("s3://arn:aws:s3:us-west-2:1:accesspoint/x/a", None),
        ("http://bucket.s3.amazonaws.com/a", None),
        ("https://s3.amazonaws.com/bucket", None),
        ("https://bucket.s3.amazonaws.com.evil.example/a", None),
        ("https://user@bucket.s3.amazonaws.com/a", None),
        ("https://bucket.s3.amazonaws.com:8443/a", None),
        ("https://bucket.s3-accesspoint.us-west-2.amazonaws.com/a", None),
        ("https://169.254.169.254/latest/meta-data", None),
        ("https://[::1", None),
        ("https://bucket.s3.amazonaws.com/%ff", None),
        ("file:///etc/passwd", None),
        ("a/b", None),
    ],
)
def test_s3_urls(url: str, location: S3Location | None) -> None:
    """Only s3:// and AWS's own S3 hosts name an object; other hosts never do."""
    assert s3_location(url) == location


@given(st.text(characters))
def test_no_text_breaks_the_parser(url: str) -> None:
    """Whatever a link holds, it is an S3 location or it is not."""
    for prefix in ("", "s3://", "https://", "https://b.s3.amazonaws.com/", "https://["):
        assert isinstance(s3_location(prefix + url), S3Location | None)


class Bucketless:
    """An S3 client that answers every request, and remembers the buckets."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get_object(self, *, Bucket: str, Key: str) -> dict[str, object]:  # noqa: N803 - boto's names
        self.asked.append(Bucket)
        return {"Body": self, "ContentLength": 0, "Key": Key}

    async def read(self, _: int) -> bytes:
        return b""

    def close(self) -> None:
        """Close the body."""


@pytest.mark.parametrize(
    ("patterns", "buckets"),
    [
        (("*",), ["mine", "mine-too", "other"]),
        (("mine", "no*"), ["mine"]),
        (("mine*",), ["mine", "mine-too"]),
        ((), []),
    ],
)
async def test_only_allowed_buckets_are_asked(patterns: tuple[str, ...], buckets: list[str]) -> None:
    """Settings say which buckets a message may name; S3 never hears of the others."""
    client = Bucketless()
    objects = S3Objects(client, Metrics(), allowed_buckets=patterns)
    for bucket in ("mine", "mine-too", "other"):
        if bucket in buckets:
            assert await objects.get(S3Location(bucket, "k")) == b""
            continue
        with pytest.raises(Permanent) as caught:
            await objects.get(S3Location(bucket, "k"))
        assert caught.value.error_class == "bucket_not_allowed"
        allowed = ", ".join(patterns) or "none"
        assert caught.value.reason == f"bucket not allowed: s3://{bucket}/k; allowed: {allowed} (fetch.allowed_buckets)"
    assert client.asked == buckets


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_gunzip_undoes_gzip(members: list[bytes]) -> None:
    """Any data survives, in one member or several, up to exactly the limit."""
    data = b"".join(gzip.compress(member) for member in members)
    plain = b"".join(members)
    assert is_gzip(data)
    assert gunzip(data, len(plain), "o") == plain
    assert gunzip(data + b"\0" * 512, len(plain), "o") == plain
    if plain:
        with pytest.raises(Permanent, match=f"larger than {len(plain) - 1} bytes after decompression: o"):
            gunzip(data, len(plain) - 1, "o")


@given(st.binary(max_size=200))
def test_damaged_gzip_is_refused(garbage: bytes) -> None:
    """What only starts like gzip is refused, cut-off streams among it."""
    whole = gzip.compress(b"x" * 1000, mtime=0)
    for data in (b"\x1f\x8b\x08" + garbage, whole[:-1], whole[:15], whole + b"\x1f"):
        with pytest.raises(Permanent) as caught:
            gunzip(data, 10_000, "o")
        assert caught.value.error_class == "bad_gzip"


def test_a_bomb_is_stopped_early() -> None:
    """A stream of a gigabyte costs no more memory than the limit allows."""
    megabyte = b"\0" * (1 << 20)
    bomb = gzip.compress(megabyte) * 1024
    tracemalloc.start()
    try:
        with pytest.raises(Permanent, match="larger than 4000000 bytes"):
            gunzip(bomb, 4_000_000, "o")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_one_item() -> None:
    """An object that is one item holds that item, named after the object."""
    assert held(text(item())) == Unwrapped((ItemForm(item(), VERSION, "s3://b/k.json"),))
    assert held(b"\xef\xbb\xbf" + text(item()).encode()) == held(text(item()))
    assert held("\n  " + orjson.dumps(item(), option=orjson.OPT_INDENT_2).decode()) == held(text(item()))


def test_a_collection() -> None:
    """An object may be a collection."""
    collection = {"type": "Collection", "id": "c"}
    assert held(text(collection)) == Unwrapped((CollectionForm(collection, VERSION, "s3://b/k.json"),))


def test_a_feature_collection() -> None:
    """An object may be a FeatureCollection; a bad feature is refused alone."""
    result = held(text({"type": "FeatureCollection", "features": [item("a"), {"id": "b"}]}))
    assert result.forms == (ItemForm(item("a"), VERSION, "s3://b/k.json feature 1"),)
    assert bad(result) == [
        (
            "not_stac",
            (
                'not a STAC item: s3://b/k.json feature 2: features must be objects with "type": "Feature", '
                "this is an object with the keys 'id'"
            ),
            '{"id":"b"}',
        )
    ]


@pytest.mark.parametrize("key", ["k", "k.json", "k.NDJSON", "k.geojsonl.gz"])
def test_lines(key: str) -> None:
    """One item per line, whatever the name; blank lines and either line end are fine; bad lines go alone."""
    lines = [text(item("a")), "", '{"type": "Feature"', "[1]", text(item("b")) + "\r", "  "]
    result = held("\n".join(lines), key)
    assert result.forms == (
        ItemForm(item("a"), VERSION, f"s3://b/{key} line 1"),
        ItemForm(item("b"), VERSION, f"s3://b/{key} line 5"),
    )
    assert bad(result) == [
        (
            "not_json",
            f"not JSON: s3://b/{key} line 3: unexpected end of data: line 1 column 19 (char 18)",
            '{"type": "Feature"',
        ),
        (
            "not_stac",
            (
                f"not STAC: s3://b/{key} line 4: expected an Item, a Collection or a FeatureCollection, "
                "this is a list of 1"
            ),
            "[1]",
        ),
    ]


def test_first_or_last_line_may_be_bad() -> None:
    """One good line at either end tells that there are lines; a name tells it for bad ones everywhere."""
    good = text(item())
    assert len(held(f"{{\n{good}").forms) == 1
    assert len(held(f"{good}\n{{").forms) == 1
    assert len(held(f"{good}\n{{\n").forms) == 1
    assert refused(f"{{\n{good}\n}}}}")[0] == "not_json"
    assert len(held(f"{{\n{good}\n}}}}", "k.ndjson").forms) == 1


def test_a_cut_off_feature_collection_is_not_lines() -> None:
    """A FeatureCollection with an item per line that ends early is refused once, not line by line."""
    cut = '{"type": "FeatureCollection", "features": [\n' + f"{text(item())},\n" * 3 + text(item())[:50]
    error_class, reason = refused(cut)
    assert error_class == "not_json"
    assert reason.startswith("not JSON: s3://b/k.json: unexpected end of data: line 5")


def test_text_sequence() -> None:
    """A GeoJSON text sequence: texts start with a record separator and may span lines."""
    pretty = orjson.dumps(item("a"), option=orjson.OPT_INDENT_2)
    result = held(b"\x1e" + pretty + b"\n\x1e{\n\x1e" + orjson.dumps(item("b")) + b"\n")
    assert result.forms == (
        ItemForm(item("a"), VERSION, "s3://b/k.json record 1"),
        ItemForm(item("b"), VERSION, "s3://b/k.json record 3"),
    )
    assert [body for _, _, body in bad(result)] == ["{"]


def test_nothing_inside() -> None:
    """An empty object is refused, for it is the sign of a failed upload; blank lines of a list are not."""
    assert refused(b"") == ("not_json", "the object is empty (0 bytes): s3://b/k.json")
    assert refused(b" \n") == ("not_json", "the object is empty (2 bytes): s3://b/k.json")
    assert held("\x1e\n") == Unwrapped((Notice("nothing but blank lines: s3://b/k.json"),))


@pytest.mark.parametrize(
    ("data", "error_class", "reason"),
    [
        (
            b"II*\x00\xff\xfe",
            "not_json",
            (
                "not JSON: s3://b/k.json: str is not valid UTF-8: surrogates not allowed: line 1 column 1 (char 0); "
                r"it starts with 'II*\x00��'; expected a STAC Item, Collection or FeatureCollection, or one "
                "item per line"
            ),
        ),
        (
            b'{"type": "Catalog"}',
            "not_stac",
            (
                "not STAC: s3://b/k.json: expected an Item, a Collection or a FeatureCollection, this is an object "
                "with the keys 'type'"
            ),
        ),
        (
            b"[]",
            "not_stac",
            "not STAC: s3://b/k.json: expected an Item, a Collection or a FeatureCollection, this is a list of 0",
        ),
        (
            b'{"type": "Feature", "a": ' + b"[" * 300 + b"]" * 300 + b"}",
            "too_deep",
            "nested too deep, more than 253 levels: s3://b/k.json",
        ),
    ],
)
def test_other_objects(data: bytes, error_class: str, reason: str) -> None:
    """What is no JSON, or JSON but not STAC, is refused with the object's name."""
    assert refused(data) == (error_class, reason)


@given(st.lists(items, min_size=1, max_size=5))
def test_any_items_in_lines(bodies: list[dict[str, object]]) -> None:
    """Whatever items hold, they come out of lines the same, in order."""
    result = held(b"\n".join(orjson.dumps(body) for body in bodies))
    assert [form.body for form in result.forms if isinstance(form, ItemForm)] == bodies
    assert result.refusals == ()


@given(st.binary() | json_values.map(orjson.dumps), st.sampled_from(["k.json", "k.ndjson"]))
def test_any_bytes(data: bytes, key: str) -> None:
    """Arbitrary bytes are refused readably, and nothing else."""
    assert all(reason.isprintable() for reason in reasons(data, key))


def reasons(data: bytes, key: str) -> list[str]:
    try:
        result = held(data, key)
    except Permanent as error:
        return [error.reason]
    assert result.forms or result.refusals
    return [refusal.error.reason for refusal in result.refusals]


@given(json_values)
def test_what_is_resendable_reads_back(value: object) -> None:
    """Text for a queue reads back as the value, and has no character that SQS refuses."""
    body = resendable(value)
    assert body is not None
    assert orjson.loads(body) == value
    assert not set(body) & {"\ufffe", "\uffff", "\0"}


def test_characters_that_sqs_refuses() -> None:
    """They are escaped in JSON, replaced in unreadable text."""
    assert resendable({"a": "\uffff\u0001é"}) == r'{"a":"\uffff\u0001é"}'
    assert resendable_text(b'{"a": "\x00\xff\xef\xbf\xbf\xc3\xa9\t') == '{"a": "\ufffd\ufffd\ufffdé\t'


def test_what_is_not_resendable() -> None:
    """What is too large for a message, too deep to be written, or nothing, is not sent alone."""
    assert resendable("x" * MAX_PART_BYTES) is None
    assert resendable_text(b"x" * (MAX_PART_BYTES + 1)) is None
    assert resendable_text(b"") is None
    assert resendable(orjson.loads("[" * 300 + "]" * 300)) is None
