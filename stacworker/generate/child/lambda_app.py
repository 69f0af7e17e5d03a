"""Lambda functions of stactools-pipelines as targets: what they post to the ingestor is taken from them.

`app.py` has `handler(event, context)`, which takes SQS events and posts items (`lambda_items.py`); `collection.py`
has one that posts a collection; `historic.py` has one that sends messages to a queue. They run unchanged:
requests to the ingestor's address end here, its token is not asked for, and messages for the queue are
collected. Anything else they do (reading from S3 or Athena, say) is really done.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

_INGESTOR = "https://ingestor.invalid"
_QUEUE_URL = "https://sqs.invalid/000000000000/queue"


class NothingPosted(Exception):  # noqa: N818 - says what happened
    """A handler came to its end and had not posted what it is for."""

    error_class = "generator_no_items"


def create_collection() -> dict[str, Any]:
    """Return the collection that `collection.handler` posts."""
    with ingestor() as posted:
        imported("collection").handler({}, context())
    if len(posted["collections"]) != 1:
        raise NothingPosted(f"collection.handler posted {len(posted['collections'])} collections, expected one")
    return posted["collections"][0]


def create_requests() -> list[str]:
    """Return the bodies of the messages that `historic.handler` sends to its queue."""
    os.environ.setdefault("QUEUE_URL", _QUEUE_URL)
    with _queue() as sent:
        imported("historic").handler({}, context())
    return sent


def message_body(request: dict[str, Any]) -> str:
    """Return the body of the SQS message that a request came from, as such a function expects it.

    S3 events and other notifications come in SNS' envelope, a bare key as itself.
    """
    href, bucket, key = (request.get(name) for name in ("href", "bucket", "key"))
    if isinstance(bucket, str) and isinstance(key, str):
        name = {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"}
        message: dict[str, Any] = {
            "Records": [{"eventSource": "aws:s3", "s3": {"bucket": name, "object": {"key": key}}}]
        }
    elif isinstance(href, str) and len(request) == 1:
        return href
    else:
        message = request
    return json.dumps({"Type": "Notification", "Message": json.dumps(message)})


def sqs_event(body: str) -> dict[str, Any]:
    """Return the event that holds one message: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html."""
    return {
        "Records": [
            {
                "messageId": "stacworker",
                "receiptHandle": "stacworker",
                "body": body,
                "attributes": {},
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:stacworker",
                "awsRegion": "us-east-1",
            }
        ]
    }


def context() -> types.SimpleNamespace:
    """Return what such functions read of a Lambda context."""
    return types.SimpleNamespace(function_name="stacworker", aws_request_id="stacworker")


def imported(name: str) -> Any:
    """Import a pipeline's module, whose help for tokens is not there, or not to be used."""
    try:
        utils = importlib.import_module("stactools_pipelines.cognito.utils")
    except ImportError:
        for part in ("stactools_pipelines", "stactools_pipelines.cognito", "stactools_pipelines.cognito.utils"):
            sys.modules.setdefault(part, types.ModuleType(part))
        utils = sys.modules["stactools_pipelines.cognito.utils"]
    vars(utils)["get_token"] = lambda: "none"
    return importlib.import_module(name)


@contextlib.contextmanager
def ingestor() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Take what is posted to the ingestor's address; give it by the last word of the path."""
    requests: Any = importlib.import_module("requests")  # here: only such functions need it
    address = os.environ.setdefault("INGESTOR_URL", _INGESTOR).rstrip("/")
    posted: dict[str, list[dict[str, Any]]] = {"ingestions": [], "collections": []}
    send = requests.Session.send

    def taken(session: Any, request: Any, **more: Any) -> Any:
        path = str(request.url).removeprefix(address)
        if path == str(request.url):
            return send(session, request, **more)
        posted.setdefault(path.strip("/").rsplit("/", 1)[-1], []).append(json.loads(request.body))
        answer = requests.Response()
        answer.status_code, answer.url, answer.request = 201, request.url, request
        answer._content = request.body if isinstance(request.body, bytes) else request.body.encode()  # noqa: SLF001
        return answer

    requests.Session.send = taken
    try:
        yield posted
    finally:
        requests.Session.send = send


@contextlib.contextmanager
def _queue() -> Iterator[list[str]]:
    """Take what is sent to queues by clients that are made meanwhile."""
    boto3: Any = importlib.import_module("boto3")  # as above
    sent: list[str] = []
    client = boto3.client

    class Queue:
        def send_message(self, *, MessageBody: str, **_: Any) -> dict[str, str]:  # noqa: N803 - boto's name
            sent.append(MessageBody)
            return {"MessageId": str(len(sent))}

        def send_message_batch(self, *, Entries: list[dict[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803
            sent.extend(entry["MessageBody"] for entry in Entries)
            return {"Successful": [{"Id": entry["Id"]} for entry in Entries], "Failed": []}

    def made(service: str, *arguments: Any, **more: Any) -> Any:
        return Queue() if service == "sqs" else client(service, *arguments, **more)

    boto3.client = made
    try:
        yield sent
    finally:
        boto3.client = client
