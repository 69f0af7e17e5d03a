"""Bodies made from the corpus by accident: nothing but documents and reasons comes of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stacworker.api import Document, Message
from stacworker.envelope.forms import S3Location
from stacworker.envelope.reader import Reader
from stacworker.errors import Permanent, Transient
from stacworker.load.prepare import prepare, prepare_collection
from tests.corpus.hostile import corpus

_BODIES = [case.body for case in corpus() if 0 < len(case.body) < 5000]
_PIECES = [
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "1e999",
    "-",
    "\\",
    "\\u0000",
    "\\ud800",
    "\x00",
    "Z",
    " ",
    "é",
    "0",
]


class Objects:
    """Every object holds the same bytes."""

    max_concurrency = 4

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def get(self, location: S3Location) -> bytes:
        del location
        return self._data

    async def ping(self) -> None:
        pass


@st.composite
def accidents(draw: st.DrawFn) -> str:
    """Draw a body of the corpus to which something has happened a few times."""
    body = draw(st.sampled_from(_BODIES))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(body)))
        end = draw(st.integers(at, min(len(body), at + 40)))
        kind = draw(st.sampled_from(("cut", "put", "double", "swap")))
        if kind == "cut":
            body = body[:at] + body[end:]
        elif kind == "put":
            body = body[:at] + draw(st.sampled_from(_PIECES)) + body[at:]
        elif kind == "double":
            body = body[:end] + body[at:]
        else:
            body = body[:at] + draw(st.sampled_from(_BODIES))[:200] + body[end:]
    return body


_NAMES = ("type", "id", "collection", "geometry", "coordinates", "properties", "datetime", "Records", "Message", "href")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)


def _read(body: str, in_object: bytes) -> list[Document]:
    async def read() -> list[Document]:
        message = Message("m", body, "r", 1, sent_at=1.7e9)
        async with Reader(Objects(in_object)).documents(message) as found:
            assert all(refusal.error.reason for refusal in found.refusals)
            return list(found.documents)

    return asyncio.run(read())


def _worked_off(body: str, in_object: bytes) -> None:
    """Do with a body as the daemon does; anything but documents and our own errors is raised."""
    try:
        documents = _read(body, in_object)
    except (Permanent, Transient) as error:
        assert error.reason.strip(), error.error_class  # noqa: PT017 - raised or not
        return
    for document in documents:
        _prepared(document)


def _prepared(document: Document) -> None:
    try:
        if document.kind == "collection":
            prepare_collection(document)
        else:
            item = prepare(document)
            assert item.datetime <= item.end_datetime
    except Permanent as error:
        assert error.reason.strip(), error.error_class  # noqa: PT017 - raised or not


@settings(max_examples=400)
@given(body=accidents())
def test_damaged_messages_become_documents_or_reasons(body: str) -> None:
    """Whatever has happened to a message on its way, it is read or refused with a reason."""
    _worked_off(body, b"{}")


@settings(max_examples=200)
@given(body=accidents())
def test_damaged_objects_become_documents_or_reasons(body: str) -> None:
    """The same goes for what objects hold."""
    _worked_off("s3://b/k", body.encode("utf-8", "surrogatepass"))


@settings(max_examples=200)
@given(value=json_values)
def test_any_json_becomes_documents_or_reasons(value: Any) -> None:
    """So does JSON that nobody meant for us."""
    _worked_off(json.dumps(value), b"{}")
