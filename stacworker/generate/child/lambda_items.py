"""`app.handler` of stactools-pipelines as a function of one request; imported at start, so that mistakes show then."""

from __future__ import annotations

from typing import Any

from .lambda_app import NothingPosted, context, imported, ingestor, message_body, sqs_event

_APP = imported("app")


def create_items(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items that the handler posts for one request."""
    with ingestor() as posted:
        _APP.handler(sqs_event(message_body(request)), context())
    if not posted["ingestions"]:
        raise NothingPosted("app.handler posted no item to the ingestor")
    return posted["ingestions"]
