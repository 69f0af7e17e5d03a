"""How a sink reports the documents that it refuses."""

from __future__ import annotations

from collections.abc import Sequence

from stacworker.api import Document
from stacworker.envelope.stac import resendable
from stacworker.errors import Permanent, Refusal, Rejected

BadDocument = tuple[Document, Permanent]
"""A document, and why it is refused for good."""


def raise_refused(refused: Sequence[BadDocument], *, of: int) -> None:
    """Raise `Rejected` when anything was refused of the `of` documents that were put.

    The body of a refusal is the document alone, or None where it was the only one or has no such text.
    """
    if refused:
        raise Rejected(tuple(Refusal(error, None if of == 1 else loadable(document)) for document, error in refused))


def loadable(document: Document) -> str | None:
    """Return the text of a message that holds this document alone.

    None for a delete, which no message can ask for in so many words, and for what is too large or too deep.
    """
    return None if document.kind == "delete" else resendable(document.body)
