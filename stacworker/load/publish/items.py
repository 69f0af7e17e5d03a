"""What all publishing sinks share: items as JSON, their names, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import orjson

from stacworker.api import Document
from stacworker.aws import translated
from stacworker.errors import Permanent, Unavailable
from stacworker.load.merge import Outcome
from stacworker.load.refusals import BadDocument


@contextmanager
def reaching(dependency: str, doing: str) -> Iterator[None]:
    """Translate errors; a request refused as a whole is about the target, not about one item."""
    try:
        with translated(dependency, doing):
            yield
    except Permanent as error:
        raise Unavailable(error.reason, dependency=dependency, error_class=error.error_class) from error


def item_json(document: Document) -> bytes:
    """Return an item as JSON; raise `Permanent` for what is no item or has no such form."""
    if document.kind != "item":
        raise Permanent(
            f"a {document.kind} cannot be published, only items can ({document.origin})",
            error_class="not_an_item",
        )
    try:
        return orjson.dumps(document.body)
    except TypeError as error:
        raise Permanent(
            f"{name_of(document)} cannot be written as JSON: {error} ({document.origin})",
            error_class="invalid_item",
            **ids_of(document),
        ) from error


def refused(documents: Sequence[Document], outcomes: Sequence[Outcome]) -> list[BadDocument]:
    """Return what was refused for good; raise what may yet succeed, an outage first."""
    passing = [error for error in outcomes if error is not None and not isinstance(error, Permanent)]
    if passing:
        raise min(passing, key=lambda error: not isinstance(error, Unavailable)).with_traceback(None)
    return [
        (document, _about(document, error))
        for document, error in zip(documents, outcomes, strict=True)
        if isinstance(error, Permanent)
    ]


def _about(document: Document, error: Permanent) -> Permanent:
    if error.item_id is not None:
        return error
    return Permanent(
        f"{name_of(document)}: {error.reason} ({document.origin})", error_class=error.error_class, **ids_of(document)
    )


def names_of(document: Document) -> tuple[str, str]:
    """Return an item's collection and id, which objects in S3 are named for; raise `Permanent` without them."""
    collection, item_id = document.body.get("collection"), document.body.get("id")
    if isinstance(collection, str) and isinstance(item_id, str) and collection and item_id:
        return collection, item_id
    raise Permanent(
        f"{name_of(document)} cannot be written to S3 without an id and a collection ({document.origin})",
        error_class="invalid_item",
        **ids_of(document),
    )


def ids_of(document: Document) -> dict[str, str | None]:
    """Return `collection` and `item_id` as `Permanent` takes them: None where they are no text."""
    found = {"collection": document.body.get("collection"), "item_id": document.body.get("id")}
    return {name: value if isinstance(value, str) else None for name, value in found.items()}


def name_of(document: Document) -> str:
    """Name an item for people."""
    return f"item {document.body.get('id')!r} of collection {document.body.get('collection')!r}"
